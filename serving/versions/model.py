"""A version made ready to serve: checked, warmed, and refused with a reason if anything about it is wrong."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from churn.adapters import bundle, onnx
from churn.contract import Grouped
from churn.domain.encoding import Matrix, contract_sha256, derive, encode, encoded_names
from churn.domain.explanations import Explainer
from churn.domain.golden import TOLERANCE
from churn.domain.reasons import reason
from churn.domain.version import Version
from churn.errors import BundleError, ModelError
from churn.features import FEATURES
from serving.rows import columns_of

WARM_ROWS = 100
GOLDEN_ROWS = 1000
"""The most golden rows of a version: training stores some dozens."""


GROUPED = tuple(f"{each.name}=" for each in FEATURES if isinstance(each.kind, Grouped))
"""How the names of inputs begin that each version has of its own."""


class ModelRefused(BundleError):  # noqa: N818 - says what happened
    """A version that must not serve: `reason` is one of a few words for a label, the message says more."""


@dataclass(frozen=True)
class Model:
    """A version that is ready: what is known of it, and how to score and explain with it."""

    version: str
    threshold: float
    created_at: datetime
    digest: str
    metrics: dict[str, float]
    inputs: tuple[str, ...]
    session: Any
    explainer: Explainer | None
    tagged_threshold: str

    def probability(self, features: dict[str, Any]) -> npt.NDArray[np.float64]:
        """The churn probability (n,) of rows with every feature, raw and derived."""
        return onnx.predict(self.session, self.encode(features))

    def encode(self, features: dict[str, Any]) -> Matrix:
        """The features as the model takes them."""
        return encode(features, self.inputs)


def load(files: Mapping[str, bytes], released: Version) -> Model:
    """The version with those files, if it fits this code, predicts what it must, and explains its predictions.

    `files` are what `churn.adapters.bundle.read` returned: already compared with the version's digest.

    Raises:
        BundleError: it is not.
    """
    about, golden = (bundle.parse_json(name, files[name]) for name in (bundle.INPUTS, bundle.GOLDEN))
    inputs = _inputs(about, files[bundle.INPUTS])
    threshold = released.tags.get("threshold", "")
    model = Model(
        version=released.number,
        threshold=_threshold(threshold),
        created_at=released.created_at,
        digest=released.digest,
        metrics={name: value for name, value in released.metrics.items() if math.isfinite(value)},
        inputs=inputs,
        session=_session(files[bundle.MODEL], len(inputs)),
        explainer=_explainer(files.get(bundle.EXPLAIN), len(inputs)),
        tagged_threshold=threshold,
    )
    with np.errstate(all="ignore"):  # numbers that overflow give no warning: what they become differs from the stored ones
        _prove(model, golden)
    return model


def _threshold(tag: str) -> float:
    try:
        threshold = float(tag)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise ModelRefused("metadata", f"the version's tag `threshold` is {tag!r:.40}, not a probability: evaluate it first")
    return threshold


def _explainer(content: bytes | None, width: int) -> Explainer | None:
    if content is None:
        return None
    try:
        explainer = Explainer(bundle.parse_json(bundle.EXPLAIN, content))
    except ModelError as error:
        raise ModelRefused("corrupt", str(error)) from error
    if explainer.columns != width:
        raise ModelRefused("corrupt", f"{bundle.EXPLAIN} explains {explainer.columns} columns, the model takes {width}")
    return explainer


def _session(content: bytes, width: int) -> Any:
    try:
        session = onnx.session(content)
    except ModelError as error:
        raise ModelRefused("corrupt", reason(error)[:300]) from error
    given = [(each.name, each.shape[-1]) for each in session.get_inputs()]
    if given != [(onnx.INPUT, width)] or onnx.OUTPUT not in [each.name for each in session.get_outputs()]:
        raise ModelRefused("signature", f"the model takes {given}, not {onnx.INPUT!r} of {width} columns")
    return session


def _inputs(about: dict[str, Any], content: bytes) -> tuple[str, ...]:
    if about.get("contract_sha256") != contract_sha256():
        raise ModelRefused("contract", "the version was trained under another contract: serve it with the code that trained it")
    inputs = bundle.inputs_of(content)
    if unknown := sorted(name for name in set(inputs) - set(encoded_names()) if not name.startswith(GROUPED)):
        raise ModelRefused("contract", f"{bundle.INPUTS} names inputs that the contract does not have: {unknown[0]:.40}")
    return inputs


def _prove(model: Model, golden: dict[str, Any]) -> None:
    """Every golden prediction comes out right, its explanation adds up to it, and a larger batch has warmed the model."""
    try:
        X, expected = _golden(model, golden)
        found = onnx.predict(model.session, X)
        gaps = np.abs(found - expected)  # refuses another number of them
        onnx.predict(model.session, np.repeat(X[:1], WARM_ROWS, axis=0))
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, ModelError) as error:
        raise ModelRefused("golden", f"the golden prediction failed: {reason(error)[:200]}") from error
    if not (gaps <= TOLERANCE).all():
        worst = int(np.argmax(np.where(np.isnan(gaps), np.inf, gaps)))
        raise ModelRefused(
            "golden",
            f"golden prediction {worst + 1} of {len(X)} is {found[worst]:.9f}, {expected[worst]:.9f} was stored with the version",
        )
    if model.explainer:
        _prove_explanation(model.explainer, X, found)


def _golden(model: Model, golden: dict[str, Any]) -> tuple[Matrix, npt.NDArray[np.float64]]:
    """The golden rows as the model takes them (n, k), and their stored probabilities (n,)."""
    customers, stored = golden["customers"], golden["churn_probabilities"]
    if not 0 < len(customers) <= GOLDEN_ROWS or len(stored) != len(customers):
        raise ValueError(f"expected 1 to {GOLDEN_ROWS} customers with a probability each")
    expected = np.array(stored, dtype=np.float64).reshape(len(customers))
    return model.encode(derive(columns_of(customers))), expected


def _prove_explanation(explainer: Explainer, X: Matrix, probability: npt.NDArray[np.float64]) -> None:
    log_odds = explainer.base + explainer.contributions(X).sum(axis=1)
    gap = np.abs((1 + np.tanh(log_odds / 2)) / 2 - probability).max()  # tanh: exp overflows
    if not gap <= onnx.TOLERANCE:
        raise ModelRefused(
            "explanation", f"{bundle.EXPLAIN} adds up to probabilities that differ by {gap:.2g} from the golden ones"
        )
