"""What becomes of a candidate that passed every check."""

from datetime import UTC, datetime
from typing import Any

from churn.metrics import Difference
from churn.registry import Version
from churn.stages.evaluate import Evaluation, decide

NOTHING: dict[str, Any] = {"rows": 0, "positives": 0, "test": {}, "baseline": {}, "slices": {}, "fairness": [], "checks": []}


def version(number: str, digest: str, threshold: str = "0.05") -> Version:
    tags = {"bundle_sha256": number, "onnx_sha256": digest, "threshold": threshold}
    return Version(number, datetime(2026, 11, 26, tzinfo=UTC), aliases=(), tags=tags, metrics={}, run_id="run")


def evaluation(**found: Any) -> Evaluation:
    return Evaluation(threshold=0.05, **NOTHING, **found)


def test_the_first_version_has_nobody_to_be_compared_with() -> None:
    assert decide(evaluation(), version("1", "a"), None)["promoted"]


def test_the_champions_own_model_made_anew_moves_nothing() -> None:
    decision = decide(evaluation(), version("3", "a"), version("1", "a"))

    assert decision == {"promoted": False, "reason": "version 1 is production already, and the same model"}


def test_the_same_model_replaces_a_champion_that_was_registered_before_bundles_had_a_digest() -> None:
    champion = version("1", "a")
    del champion.tags["bundle_sha256"]

    assert decide(evaluation(), version("3", "a"), champion)["promoted"]


def test_the_same_model_with_another_threshold_decides_otherwise_and_is_promoted() -> None:
    assert decide(evaluation(), version("3", "a"), version("1", "a", threshold="0.1"))["promoted"]


def test_another_model_is_promoted_with_what_it_gains() -> None:
    gained = {"roc_auc": Difference(0.01, 0.002, 0.02)}

    decision = decide(evaluation(differences=gained), version("3", "b"), version("1", "a"))

    assert decision == {"promoted": True, "reason": "passed every check; better than version 1: ΔAUC +0.0100 [+0.0020, +0.0200]"}
