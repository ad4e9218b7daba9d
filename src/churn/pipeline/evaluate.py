"""evaluate: candidate, baseline and champion on the same test rows → the gate → `production` moves, or an honest refusal."""

import json
import logging
from dataclasses import asdict, dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from churn import paths
from churn.adapters import bundle, onnx
from churn.adapters.files import atomic_path, rounded, write_json
from churn.adapters.mlflow.registry import Registry
from churn.adapters.origins import ORIGIN, SOURCE
from churn.adapters.rows import newest
from churn.contract import BY_NAME, ENTITY, LABEL, PROTECTED, SLICES, TIMESTAMP
from churn.domain import evidence, gate, metrics
from churn.domain.derived import DERIVED
from churn.domain.encoding import encode
from churn.domain.evidence import SourceRows
from churn.domain.gate import Check
from churn.domain.metrics import Interval, Labels, Probabilities
from churn.domain.version import Version
from churn.errors import ConfigError, ModelError
from churn.features import FEATURES
from churn.params import Evaluate, Params
from churn.paths import PRODUCTION
from churn.pipeline import plots
from churn.settings import Settings

log = logging.getLogger(__name__)

TOO_FEW = "too few churned customers"
"""What the gate says where the test rows cannot tell a good model from a bad one."""
OUTCOMES = {"promoted": "**Promoted**", "failed": "**Refused**", TOO_FEW: "**Not decided**", "unchanged": "**Unchanged**"}
"""Each outcome of a decision, as the model card has it."""


@dataclass(frozen=True)
class Evaluation:
    """What the test rows say of the candidate, beside the baseline and the champion (None: there is none to compare)."""

    threshold: float
    rows: int
    positives: int
    test: dict[str, float]
    baseline: dict[str, float]
    slices: dict[str, dict[str, float]]
    fairness: list[dict[str, Any]]
    checks: list[Check]
    champion: dict[str, float] | None = None
    differences: dict[str, Interval] = field(default_factory=dict)

    @property
    def failed(self) -> list[Check]:
        """The checks that refuse the candidate."""
        return [check for check in self.checks if not check.passed]

    @property
    def has_too_few(self) -> bool:
        """True if too few of the test rows churned, or did not, to decide."""
        return gate.has_too_few(self.checks)

    @property
    def verdict(self) -> str:
        """What the gate says, as the version's tag `gate`."""
        if self.has_too_few:
            return TOO_FEW
        return "failed: " + ", ".join(check.name for check in self.failed) if self.failed else "passed"


def evaluate(
    frame: pd.DataFrame,
    probabilities: dict[str, Probabilities],
    params: Evaluate,
    *,
    newer_days: float | None = None,
    source: SourceRows | None = None,
    columns: evidence.Columns | None = None,
) -> Evaluation:
    """Evaluate (n,) probabilities of `candidate`, `baseline` and maybe `champion` on the frame's (n,) labels.

    The options are those of `Evidence`.
    """
    y: Labels = frame[LABEL].to_numpy(dtype=bool)
    found = {name: metrics.scores(y, p, params.costs) for name, p in probabilities.items()}
    masks = metrics.slice_masks(frame, SLICES)
    threshold = metrics.cost_threshold(params.costs)
    gathered = evidence.gather(
        y,
        probabilities,
        customers=pd.factorize(frame[ENTITY])[0],
        masks=masks,
        samples=params.bootstrap_samples,
        seed=params.seed,
    )
    return Evaluation(
        threshold=threshold,
        rows=len(y),
        positives=int(y.sum()),
        test=found["candidate"],
        baseline=found["baseline"],
        champion=found.get("champion"),
        slices=metrics.slice_scores(y, probabilities["candidate"], masks),
        fairness=metrics.fairness(y, probabilities["candidate"], threshold, frame, PROTECTED, SLICES),
        checks=gate.evaluate(replace(gathered, newer_days=newer_days, source=source, columns=columns), params.gate),
        differences=gathered.champion or {},
    )


def newest_rows(tested: pd.DataFrame, params: Evaluate) -> npt.NDArray[np.intp]:
    """Positions of the newest test rows; of more than `evaluate.newest_rows` where those hold too few of a class to decide."""
    y = tested[LABEL].to_numpy(dtype=bool)
    count = params.newest_rows
    while True:
        rows = newest(tested[TIMESTAMP], count)
        if len(rows) == len(tested) or min(y[rows].sum(), (~y[rows]).sum()) >= params.gate.min_of_class:
            return rows
        count *= 2


def examine_columns(
    tested: pd.DataFrame, candidate: Probabilities, learned: pd.DataFrame, inputs: tuple[str, ...]
) -> evidence.Columns:
    """How well each input predicts alone, on every test row with its (n,) probability and on the rows of `train.reference`."""
    known = pd.concat([learned, tested.assign(churn_probability=candidate)], ignore_index=True)
    y: Labels = known[LABEL].to_numpy(dtype=bool)
    return evidence.columns(encode(known, inputs), y, known["churn_probability"].to_numpy(dtype=float), inputs)


def check_trusted(columns: tuple[str, ...]) -> None:
    """Refuse trusted columns that no feature has.

    Raises:
        ConfigError: there is one.
    """
    if unknown := sorted(set(columns) - {feature.name for feature in FEATURES}):
        raise ConfigError(
            f"params.yaml: evaluate.gate.trusted_columns: expected features of the contract, got {', '.join(unknown)}; correct it"
        )


def on_source_rows(tested: pd.DataFrame, probabilities: dict[str, Probabilities], params: Evaluate) -> SourceRows | None:
    """Scores of (n,) probabilities on the newest test rows that came from a source; None where every row of `tested` did."""
    positions = np.flatnonzero(tested[ORIGIN] == SOURCE)
    if len(positions) == len(tested):
        return None
    if len(positions):
        positions = positions[newest(tested[TIMESTAMP].iloc[positions], params.newest_rows)]
    y: Labels = tested[LABEL].to_numpy(dtype=bool)[positions]
    auc = {name: metrics.roc_auc(y, p[positions]) for name, p in probabilities.items()}
    found = SourceRows(int(y.sum()), int((~y).sum()), auc["candidate"], auc.get("champion"))
    if min(found.churned, found.others) < params.gate.min_of_class:
        log.warning(
            "evaluate: of the test rows that did not come through the API %d churned and %d did not, %d of each are needed: "
            "the candidate is evaluated on the others alone",
            found.churned,
            found.others,
            params.gate.min_of_class,
        )
    return found


def decide(evaluation: Evaluation, candidate: Version, champion: Version | None) -> dict[str, Any]:
    """Whether the candidate becomes production, the outcome in a word, and the reason in one line.

    The champion's own model, trained again, does not: a clean clone gives it to the byte from the same rows.
    """
    if evaluation.has_too_few:
        # The first check. The others, on so few rows, would not tell why.
        return _decision(TOO_FEW, f"too few {_refusal(evaluation.failed[:1])}")
    if evaluation.failed:
        return _decision("failed", f"failed {_refusal(evaluation.failed)}")
    if champion is None:
        return _decision("promoted", "passed every check; there is no champion to compare with")
    if candidate.number == champion.number:
        return _decision("unchanged", f"version {candidate.number} is production already")
    # Not by the bundle's digest: the last digits of its explanation and of its reference rows depend on the processor. A champion
    # without one, registered before bundles had it, is replaced: servers refuse it.
    same = candidate.onnx_digest, _tag(evaluation.threshold)
    if champion.digest and same == (champion.onnx_digest, champion.tags.get("threshold")):
        return _decision("unchanged", f"version {champion.number} is production already, and the same model")
    gap, before = evaluation.differences.get("roc_auc"), f"version {champion.number}"
    if gap is None:
        return _decision("promoted", f"passed every check; {before} cannot be compared with it")
    word = "better than" if gap.low > 0 else "not distinguishable from"
    interval = f"ΔAUC {gap.value:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]"
    return _decision("promoted", f"passed every check; {word} {before}: {interval}")


def _decision(outcome: str, reason: str) -> dict[str, Any]:
    return {"promoted": outcome == "promoted", "outcome": outcome, "reason": reason}


def _refusal(failed: list[Check]) -> str:
    """Every failed check, and the advice of the first: the checks that explain others come first."""
    measured = "; ".join(str(check) for check in failed)
    advice = failed[0].advice
    return f"{measured}. Likely cause: {advice.cause}. Next: {advice.next}" if advice else measured


def _tag(threshold: float) -> str:
    return str(rounded(threshold))


def run(params: Params, settings: Settings) -> None:
    """Write metrics/evaluate.json, plots and reports; record them with the version; move `production` if the gate lets it pass.

    A refusal is a result: it is logged, kept in reports/evaluate/decision.json, and ends the stage well.

    Raises:
        ConfigError: the gate trusts a column that no feature has.
        RegistryError: out of reach, or the champion changed meanwhile.
    """
    check_trusted(params.evaluate.gate.trusted_columns)
    registry = Registry(settings)
    candidate = registry.of_digest(bundle.digest(paths.CANDIDATE))
    champion = registry.of_alias(PRODUCTION)
    tested = pd.read_parquet(paths.TEST_FRAME)
    scored = _score(tested, registry, champion)
    rows = newest_rows(tested, params.evaluate)
    frame, probabilities = tested.iloc[rows].reset_index(drop=True), {name: p[rows] for name, p in scored.items()}

    newer = newer_days(candidate, champion) if champion and "champion" in probabilities else None
    source = on_source_rows(tested, scored, params.evaluate)
    columns = examine_columns(tested, scored["candidate"], pd.read_parquet(paths.CANDIDATE / bundle.REFERENCE), _inputs())
    evaluation = evaluate(frame, probabilities, params.evaluate, newer_days=newer, source=source, columns=columns)
    decision = decide(evaluation, candidate, champion)

    write_json(
        {"test": evaluation.test, "baseline": evaluation.baseline, "threshold": evaluation.threshold}, paths.EVALUATE_METRICS
    )
    with atomic_path(paths.EVALUATE_REPORTS) as folder:
        _report(folder, evaluation, decision, params)
        _draw(folder, frame[LABEL].to_numpy(dtype=bool), probabilities, evaluation.threshold)
    _publish(registry, candidate, champion, evaluation, decision)


def newer_days(candidate: Version, champion: Version) -> float | None:
    """By how much the candidate's newest row is newer than the champion's; None where one of them did not note it."""
    if candidate.newest_row is None or champion.newest_row is None:
        return None
    return (candidate.newest_row - champion.newest_row) / timedelta(days=1)


def _score(frame: pd.DataFrame, registry: Registry, champion: Version | None) -> dict[str, Probabilities]:
    """Each model's probability per row; without the champion where its inputs are no longer in the contract."""
    X = encode(frame, _inputs())
    found = {
        "candidate": onnx.predict(onnx.session(paths.CANDIDATE / bundle.MODEL), X),
        "baseline": onnx.predict(onnx.session(paths.BASELINE), X),
    }
    if champion and not champion.digest:
        log.warning("evaluate: champion %s was registered before bundles had a digest: no comparison", champion.number)
    elif champion:
        files = registry.read_bundle(champion)
        try:
            inputs = bundle.inputs_of(files[bundle.INPUTS])
            found["champion"] = onnx.predict(onnx.session(files[bundle.MODEL]), encode(frame, inputs))
        except (KeyError, ModelError) as error:
            log.warning("evaluate: champion %s cannot score these rows (%s): no comparison", champion.number, error)
    return found


def _inputs() -> tuple[str, ...]:
    """The candidate's inputs, which are the baseline's too."""
    return bundle.inputs_of((paths.CANDIDATE / bundle.INPUTS).read_bytes())


def _report(folder: Path, evaluation: Evaluation, decision: dict[str, Any], params: Params) -> None:
    folder.mkdir()
    write_json(decision | {"checks": [asdict(check) for check in evaluation.checks]}, folder / "decision.json")
    write_json({"slices": evaluation.slices, "fairness": evaluation.fairness}, folder / "slices.json")
    trained = json.loads(paths.TRAIN_METRICS.read_text())
    (folder / "model_card.md").write_text(model_card(evaluation, decision, params, trained, _inputs()))


def model_card(
    evaluation: Evaluation, decision: dict[str, Any], params: Params, trained: dict[str, Any], inputs: tuple[str, ...]
) -> str:
    """The version's model card, in Markdown; `trained` is what metrics/train.json holds, `inputs` are the names of the inputs."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return (
        Environment(
            loader=PackageLoader("churn.pipeline"), undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True
        )
        .get_template("model_card.md")
        .render(
            **{each: getattr(evaluation, each) for each in Evaluation.__dataclass_fields__},
            decision=decision,
            outcome=OUTCOMES[decision["outcome"]],
            failed=evaluation.failed,
            metrics_train=trained,
            train=params.train,
            costs=params.evaluate.costs,
            inputs=inputs,
            split=params.prepare.split,
            label=BY_NAME[LABEL],
            features=FEATURES,
            derived=DERIVED,
        )
    )


def _draw(folder: Path, y: Labels, probabilities: dict[str, Probabilities], threshold: float) -> None:
    for name in ("roc", "precision_recall", "calibration", "lift"):
        draw = getattr(plots, name)
        draw(y, probabilities, png=folder / f"{name}.png", csv=paths.PLOTS / f"{name}.csv")
    plots.confusion(y, probabilities["candidate"], threshold, png=folder / "confusion.png", csv=paths.PLOTS / "confusion.csv")


def _publish(
    registry: Registry, candidate: Version, champion: Version | None, evaluation: Evaluation, decision: dict[str, Any]
) -> None:
    measured = {f"test.{name}": value for name, value in evaluation.test.items()} | {"threshold": evaluation.threshold}
    measured |= {"test.rows": evaluation.rows, "test.positives": evaluation.positives}
    tags = {"gate": evaluation.verdict, "threshold": _tag(evaluation.threshold), "decision": decision["reason"]}
    registry.record(candidate, metrics=measured, tags=tags, artifacts=paths.EVALUATE_REPORTS)
    if decision["promoted"]:
        registry.promote(candidate, over=champion, reason=decision["reason"])
        log.info("evaluate: version %s is now %s: %s", candidate.number, PRODUCTION, decision["reason"])
    else:
        kept = f"version {champion.number} stays" if champion else "there is no"
        log.warning("evaluate: version %s was not promoted, %s %s: %s", candidate.number, kept, PRODUCTION, decision["reason"])
