"""Export to ONNX with a proof of parity, and scoring with onnxruntime."""

import warnings
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from churn.domain.encoding import Matrix
from churn.domain.reasons import reason
from churn.errors import ModelError

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

TOLERANCE = 1e-5
"""How far ONNX's probability may lie from scikit-learn's. Source: measured differences are 3e-7; wrong converters miss by .5."""

INPUT = "features"
OUTPUT = "probabilities"


def export(estimator: Any, X: Matrix, *, metadata: dict[str, str], converted: Any = None) -> bytes:
    """The estimator as ONNX: input `features` (n, k) float32, output `probabilities` (n, 2), `metadata` inside.

    `converted` takes the estimator's place where skl2onnx needs it in another form.

    Raises:
        ModelError: the estimator has no conversion, or no faithful one: some probability differs by more than `TOLERANCE` on the
            rows of `X` or on the same rows with their values thrown out of their range.
    """
    graph = _converted(estimator if converted is None else converted, X.shape[1])
    for key, value in sorted(metadata.items()):
        entry = graph.metadata_props.add()
        entry.key, entry.value = key, value
    # The converter lists them in the order of a set: the same model would have another digest each time.
    graph.opset_import.sort(key=lambda opset: opset.domain)
    content = bytes(graph.SerializeToString(deterministic=True))
    _prove_parity(estimator, session(content), X)
    return content


def _converted(estimator: Any, width: int) -> Any:
    from skl2onnx import to_onnx
    from skl2onnx.common.data_types import FloatTensorType
    from skl2onnx.common.exceptions import MissingConverter, MissingShapeCalculator

    try:
        with warnings.catch_warnings():
            # skl2onnx gives protobuf booleans for integers; the locked protobuf takes them.
            warnings.filterwarnings("ignore", "Field onnx.AttributeProto.ints", DeprecationWarning)
            return to_onnx(
                estimator,
                initial_types=[(INPUT, FloatTensorType([None, width]))],
                options={"zipmap": False},
                target_opset={"": 21, "ai.onnx.ml": 3},
            )
    except (MissingConverter, MissingShapeCalculator) as error:
        raise ModelError(f"ONNX export: {type(estimator).__name__}: skl2onnx knows no conversion; use another model") from error


def _prove_parity(estimator: Any, model: "InferenceSession", X: Matrix) -> None:
    rng = np.random.default_rng(0)
    thrown = (X * rng.choice(np.array([0, 1, 3, -1], dtype=np.float32), size=X.shape)).astype(np.float32)
    for rows in (X, thrown):
        gap = np.abs(estimator.predict_proba(rows)[:, 1] - predict(model, rows)).max()
        if not gap <= TOLERANCE:
            raise ModelError(
                f"ONNX export: probabilities differ by {gap:.2g} from scikit-learn's, more than {TOLERANCE:g}; not exported"
            )


def session(model: bytes | Path, *, threads: int = 1) -> "InferenceSession":
    """An onnxruntime session on the CPU. From bytes, onnxruntime refuses a model whose weights lie in other files.

    Raises:
        ModelError: it is not an ONNX model.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = threads
    options.log_severity_level = 4  # what it says on its own is in the error too
    try:
        source = str(model) if isinstance(model, Path) else model
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"], enable_fallback=0)
    except _errors() as error:
        raise ModelError(f"{model if isinstance(model, Path) else 'model'}: not an ONNX model: {reason(error)}") from error


@cache
def _errors() -> tuple[type[Exception], ...]:
    """What onnxruntime raises: its errors have no base class of their own; UnicodeDecodeError is a flipped byte in a name."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = ("Fail", "InvalidArgument", "InvalidGraph", "InvalidProtobuf", "NoSuchFile", "NotImplemented", "RuntimeException")
    return (*(getattr(state, name) for name in names), UnicodeDecodeError)


def predict(model: "InferenceSession", X: Matrix) -> npt.NDArray[np.float64]:
    """The churn probability of each row of `X` (n, k): (n,).

    Raises:
        ModelError: the model does not take `X`.
    """
    try:
        return np.asarray(model.run([OUTPUT], {INPUT: X})[0][:, 1], dtype=np.float64)
    except _errors() as error:
        raise ModelError(f"model: does not score {X.shape} inputs: {reason(error)}") from error
