"""A version made ready to serve: checked, warmed, and refused with a reason if anything about it is wrong."""

import hashlib
import json
import math
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from churn import onnx
from churn.errors import ModelError
from churn.explain import Explainer
from churn.features import Matrix, derive, encode, encoded_names
from churn.lineage import contract_sha256
from churn.model_store import Released
from serving.rows import columns_of

MODEL, INPUTS, GOLDEN, EXPLAIN = onnx.FILE, "model.json", "golden.json", "explain.json"
NEEDED = (MODEL, INPUTS, GOLDEN)
OPTIONAL = (EXPLAIN,)

TOLERANCE = 1e-6
"""How far a version's golden prediction may lie from the one that was stored with it."""
WARM_ROWS = (1, 100)
METADATA = "metadata"
"""The one reason that is not about a version's files: they may be good with other tags."""


class ModelRefused(Exception):  # noqa: N818 - says what happened
    """A version that must not serve: `reason` is one of a few words for a label, the message says more."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


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


def load(folder: Path, released: Released) -> Model:
    """The version whose files are in `folder`, if it is what the registry says, fits this code, and predicts as it must.

    Raises:
        ModelRefused: it is not.
    """
    content = _bytes(folder / MODEL)
    if (found := hashlib.sha256(content).hexdigest()) != released.digest:
        raise ModelRefused("digest", f"{MODEL} has SHA-256 {found[:12]}…, the registry says {released.digest[:12] or 'nothing'}…")
    about, golden = (_json(folder / name) for name in (INPUTS, GOLDEN))
    inputs = _inputs(about)
    threshold = released.tags.get("threshold", "")
    model = Model(
        version=released.number,
        threshold=_threshold(threshold),
        created_at=released.created_at,
        digest=released.digest,
        metrics={name: value for name, value in released.metrics.items() if math.isfinite(value)},
        inputs=inputs,
        session=_session(content, len(inputs)),
        explainer=_explainer(folder / EXPLAIN, len(inputs)),
        tagged_threshold=threshold,
    )
    _prove(model, golden)
    return model


def _threshold(tag: str) -> float:
    try:
        threshold = float(tag)
    except ValueError:
        threshold = math.nan
    if not 0 <= threshold <= 1:
        raise ModelRefused(METADATA, f"the version's tag `threshold` is {tag!r:.40}, not a probability: evaluate it first")
    return threshold


def _explainer(path: Path, width: int) -> Explainer | None:
    if not path.is_file():
        return None
    try:
        explainer = Explainer(_json(path))
    except ModelError as error:
        raise ModelRefused("corrupt", f"{EXPLAIN}: {error}") from error
    if explainer.columns != width:
        raise ModelRefused("corrupt", f"{EXPLAIN} explains {explainer.columns} columns, the model takes {width}")
    return explainer


def _session(content: bytes, width: int) -> Any:
    try:
        session = onnx.session(content)
    except ModelError as error:
        raise ModelRefused("corrupt", str(error)) from error
    given = [(each.name, each.shape[-1]) for each in session.get_inputs()]
    if given != [(onnx.INPUT, width)] or onnx.OUTPUT not in [each.name for each in session.get_outputs()]:
        raise ModelRefused("signature", f"the model takes {given}, not {onnx.INPUT!r} of {width} columns")
    return session


def _inputs(about: dict[str, Any]) -> tuple[str, ...]:
    if about.get("contract_sha256") != contract_sha256():
        raise ModelRefused("contract", "the version was trained under another contract: serve it with the code that trained it")
    inputs = about.get("inputs")
    if not inputs or not isinstance(inputs, list) or any(each not in encoded_names() for each in inputs):
        raise ModelRefused("contract", f"{INPUTS} names inputs that the contract does not have")
    return tuple(inputs)


def _prove(model: Model, golden: dict[str, Any]) -> None:
    """The golden prediction comes out right; running it, and a larger batch, warms the model."""
    try:
        features = derive(columns_of([golden["customer"]]))
        expected = float(golden["churn_probability"])
        for rows in WARM_ROWS:
            found = model.probability({name: _repeated(values, rows) for name, values in features.items()})[-1]
    except (KeyError, TypeError, ValueError, IndexError, ModelError) as error:
        raise ModelRefused("golden", f"the golden prediction failed: {str(error).splitlines()[0][:200]}") from error
    if not abs(found - expected) <= TOLERANCE:
        raise ModelRefused("golden", f"the golden prediction is {found:.9f}, {expected:.9f} was stored with the version")


def _repeated(values: Any, rows: int) -> Any:
    return values[np.zeros(rows, dtype=np.intp)]


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ModelRefused("missing", f"{path.name}: {error.strerror}") from error


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(_bytes(path))
    except ValueError as error:
        raise ModelRefused("corrupt", f"{path.name}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise ModelRefused("corrupt", f"{path.name}: not a JSON object")
    return found
