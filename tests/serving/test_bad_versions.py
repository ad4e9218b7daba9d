"""Bad versions are refused with a reason, and the last good one keeps serving."""

import json
import pickle
import sqlite3
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from churn.adapters import bundle
from churn.adapters.files import sha256
from served import THRESHOLD, Releases, Serve, customers
from serving import metrics
from serving.versions.cache import VersionCache
from serving.versions.swap import Swap
from swaps import Away, load, wait_for_refusal
from watching import HOUR, set_created

pytestmark = pytest.mark.slow

Spoil = Callable[[Path], None]


def edited(file: str, **values: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | values))

    return spoil


def written(file: str, content: bytes) -> Spoil:
    def spoil(folder: Path) -> None:
        (folder / file).write_bytes(content)

    return spoil


def without(file: str) -> Spoil:
    return lambda folder: (folder / file).unlink()


def truncated(folder: Path) -> None:
    content = (folder / "model.onnx").read_bytes()
    (folder / "model.onnx").write_bytes(content[: len(content) // 2])


def pickled(folder: Path) -> None:
    (folder / "model.onnx").write_bytes(pickle.dumps({"coefficients": [1.0, 2.0]}))


def wider(folder: Path) -> None:
    import onnx

    model = onnx.load(folder / "model.onnx")
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value += 1
    onnx.save(model, folder / "model.onnx")


def renamed(folder: Path) -> None:
    import onnx

    model = onnx.load(folder / "model.onnx")
    for each in (*model.graph.output, *(node for node in model.graph.node)):
        names = [each] if hasattr(each, "name") and each.name == "probabilities" else []
        for one in names:
            one.name = "scores"
        if hasattr(each, "output"):
            for index, name in enumerate(each.output):
                each.output[index] = "scores" if name == "probabilities" else name
    onnx.save(model, folder / "model.onnx")


def with_external_data(folder: Path) -> None:
    """A model of the right signature whose weights lie in a file beside it, or anywhere else on the disk."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    original = onnx.load(folder / "model.onnx")
    width = original.graph.input[0].type.tensor_type.shape.dim[1].dim_value
    weights = np.zeros((width, 2), dtype=np.float32)
    (folder / "weights.bin").write_bytes(weights.tobytes())
    tensor = numpy_helper.from_array(weights, "weights")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": "weights.bin", "offset": "0", "length": str(weights.nbytes)}.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, value
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["features", "weights"], ["probabilities"])],
        "external",
        [helper.make_tensor_value_info("features", TensorProto.FLOAT, [None, width])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 2])],
        [tensor],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    (folder / "model.onnx").write_bytes(model.SerializeToString())


def nothing(folder: Path) -> None: ...


def resealed(folder: Path) -> None:
    """A manifest that agrees with its files, and is not the one that was registered."""
    edited("golden.json", note="changed")(folder)
    bundle.seal(folder)


def swapped_inputs(folder: Path) -> None:
    inputs = json.loads((folder / "model.json").read_text())["inputs"]
    first, second = inputs.index("member_months"), inputs.index("monthly_fee")
    inputs[first], inputs[second] = inputs[second], inputs[first]
    edited("model.json", inputs=inputs)(folder)


def doubled_input(folder: Path) -> None:
    inputs = json.loads((folder / "model.json").read_text())["inputs"]
    edited("model.json", inputs=[*inputs[:-1], inputs[0]])(folder)


def another_explanation(folder: Path) -> None:
    base = json.loads((folder / "explain.json").read_text())["base"]
    edited("explain.json", base=base + 0.1)(folder)


def foreign_manifest(folder: Path) -> None:
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files["../../../../etc/passwd"] = files["model.json"]
    edited("manifest.json", files=files)(folder)


def golden_probability(value: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        stored = json.loads((folder / "golden.json").read_text())["churn_probabilities"]
        edited("golden.json", churn_probabilities=[value, *stored[1:]])(folder)

    return spoil


def golden_attribute(value: Any) -> Spoil:
    def spoil(folder: Path) -> None:
        customers = json.loads((folder / "golden.json").read_text())["customers"]
        edited("golden.json", customers=[customers[0] | {"member_months": value}, *customers[1:]])(folder)

    return spoil


@dataclass(frozen=True)
class Bad:
    """How a version is spoilt, why it must be refused, and whether the registry's digest is that of the spoilt model."""

    spoil: Spoil
    reason: str
    says: str
    is_digest_right: bool = True
    tags: dict[str, str] = field(default_factory=dict)


BAD = {
    "truncated onnx": Bad(truncated, "corrupt", "not an ONNX model"),
    "garbage for onnx": Bad(written("model.onnx", b"\x00garbage" * 100), "corrupt", "not an ONNX model"),
    "empty onnx": Bad(written("model.onnx", b""), "corrupt", "not an ONNX model"),
    "pickle for onnx": Bad(pickled, "corrupt", "not an ONNX model"),
    "external data": Bad(with_external_data, "corrupt", "not an ONNX model"),
    "another model": Bad(truncated, "digest", "the manifest says", is_digest_right=False),
    "another manifest": Bad(resealed, "digest", "the registry says", is_digest_right=False),
    "two inputs swapped": Bad(swapped_inputs, "digest", "the manifest says", is_digest_right=False),
    "two inputs swapped before it was registered": Bad(swapped_inputs, "golden", "was stored with"),
    "another explanation": Bad(another_explanation, "digest", "the manifest says", is_digest_right=False),
    "an explanation that does not add up": Bad(another_explanation, "explanation", "adds up to"),
    "a manifest with a file outside of the folder": Bad(foreign_manifest, "corrupt", "no unknown ones"),
    "no digest": Bad(nothing, "digest", "train it again", is_digest_right=False, tags={"bundle_sha256": ""}),
    "a path for a digest": Bad(nothing, "digest", "train it again", is_digest_right=False, tags={"bundle_sha256": "../../../x"}),
    "another contract": Bad(edited("model.json", contract_sha256="0" * 64), "contract", "another contract"),
    "unknown inputs": Bad(edited("model.json", inputs=["shoe_size"]), "contract", "does not have"),
    "inputs that are none": Bad(edited("model.json", inputs=[["a"], 5, None]), "contract", "names of the inputs"),
    "a number for inputs": Bad(edited("model.json", inputs=5), "contract", "names of the inputs"),
    "wider": Bad(wider, "signature", "the model takes"),
    "another output": Bad(renamed, "signature", "the model takes"),
    "another golden probability": Bad(golden_probability(0.123456789), "golden", "was stored with"),
    "golden that is no number": Bad(golden_probability(None), "golden", "was stored with"),
    "golden of an integer that no float holds": Bad(golden_probability(10**400), "golden", "failed"),
    "golden without customers": Bad(edited("golden.json", customers=[], churn_probabilities=[]), "golden", "failed"),
    "golden of customers without attributes": Bad(edited("golden.json", customers=[{}] * 32), "golden", "failed"),
    "golden of too many customers": Bad(edited("golden.json", customers=[{}] * 1001), "golden", "failed"),
    "golden with a nested attribute": Bad(golden_attribute([[1], [2, 3]]), "golden", "failed"),
    "golden with an attribute that no integer holds": Bad(golden_attribute(10**30), "golden", "failed"),
    "golden that is no object": Bad(written("golden.json", b"[]"), "corrupt", "not a JSON object"),
    "golden that is not finite": Bad(written("golden.json", b'{"churn_probabilities": [NaN]}'), "corrupt", "NaN"),
    "golden with a key twice": Bad(written("golden.json", b'{"customers": [], "customers": []}'), "corrupt", "twice"),
    "golden nested without end": Bad(written("golden.json", b"[" * 100_000), "corrupt", "not JSON"),
    "golden with an integer of a million digits": Bad(written("golden.json", b"9" * 1_000_000), "corrupt", "not JSON"),
    "an input twice": Bad(doubled_input, "contract", "each once"),
    "model.json that is no JSON": Bad(written("model.json", b"{"), "corrupt", "not JSON"),
    "malformed explanation": Bad(written("explain.json", b"{}"), "corrupt", "explain.json"),
    "explanation of another model": Bad(
        written(
            "explain.json", json.dumps({"kind": "linear", "columns": 1, "slope": [1.0], "mean": [0.0], "base": 0.0}).encode()
        ),
        "corrupt",
        "explains 1 columns",
    ),
    "no onnx": Bad(without("model.onnx"), "missing", "model.onnx"),
    "no manifest": Bad(without("manifest.json"), "missing", "manifest.json", is_digest_right=False),
    "no model.json": Bad(without("model.json"), "missing", "model.json"),
    "no golden.json": Bad(without("golden.json"), "missing", "golden.json"),
    "no explain.json, which it was registered with": Bad(without("explain.json"), "missing", "explain.json"),
    "no threshold": Bad(nothing, "metadata", "threshold", tags={"threshold": ""}),
    "threshold that is no number": Bad(nothing, "metadata", "threshold", tags={"threshold": "nan"}),
    "threshold that is no probability": Bad(nothing, "metadata", "threshold", tags={"threshold": "30"}),
}


def release_bad(releases: Releases, bad: Bad) -> str:
    """Promote the spoilt version."""
    folders: list[Path] = []

    def mangle(folder: Path) -> None:
        before = (folder / "manifest.json").read_bytes()
        bad.spoil(folder)
        if (
            (folder / "manifest.json").exists()
            and (folder / "manifest.json").read_bytes() == before
            and bad.is_digest_right
            and bad.reason != "missing"
        ):
            bundle.seal(folder)
        folders.append(folder)

    number = releases.release(seed=1, promote=False, mangle=mangle, tags=bad.tags)
    if bad.is_digest_right:
        releases.client.set_model_version_tag("churn", number, bundle.TAG, sha256(folders[0] / "manifest.json"))
    releases.promote(number)
    return number


def refusals(reason: str) -> float:
    found: float = metrics.SWAPS_REFUSED.labels(reason)._value.get()
    return found


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_version_is_refused_with_its_reason_and_the_old_one_serves(
    kind: str, releases: Releases, swap: Swap, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    bad = BAD[kind]
    before, serving = refusals(bad.reason), swap.current
    number = release_bad(releases, bad)

    swap.poll()
    swap.poll()

    assert swap.current is serving
    assert refusals(bad.reason) == before + 1, "once, not at every poll"
    [line] = [each.getMessage() for each in caplog.records if each.levelname == "ERROR"]
    assert line.startswith(f"version {number} refused ({bad.reason}): ")
    assert bad.says in line
    assert bad.says in swap.reason
    assert [each.name[:2] for each in (tmp_path / "models").iterdir() if each.is_dir()] == ["1-"]


def test_bad_versions_are_refused_until_the_next_good_one_serves(releases: Releases, serve: Serve) -> None:
    releases.release(seed=0)
    server = serve().ready()
    chosen = ("pickle for onnx", "another model", "another contract", "wider", "another golden probability", "no threshold")

    with load(server, connections=2) as done:
        for kind in chosen:
            number = release_bad(releases, BAD[kind])
            reason = BAD[kind].reason
            wait_for_refusal(server, reason)
            assert any(each["message"].startswith(f"version {number} refused ({reason})") for each in server.logged())
        assert done.latest == {"1"}
        good = releases.release(seed=2)
        done.wait_for(good)

    assert not done.failures
    assert {version for mine in done.answers for version, _ in mine} == {"1", good}


def test_the_server_is_not_ready_if_the_first_version_is_bad(releases: Releases, serve: Serve) -> None:
    release_bad(releases, BAD["another golden probability"])
    server = serve().alive()

    server.wait(lambda: server.metric("churn_model_swaps_refused_total") == 1)

    answer = server.http.get("/readyz")
    assert answer.status_code == 503
    assert "golden prediction" in answer.json()["detail"]
    assert server.predict(customers()).status_code == 503
    releases.release(seed=2)
    server.ready()


def test_a_valid_threshold_changed_in_the_registry_is_used(releases: Releases, swap: Swap, tmp_path: Path) -> None:
    releases.client.set_model_version_tag("churn", "1", "threshold", "0.7")
    swap.poll()
    assert swap.current
    assert swap.current.threshold == 0.7

    releases.client.set_model_version_tag("churn", "1", "threshold", "high")
    swap.poll()

    assert swap.current.threshold == 0.7
    restarted = Swap(Away(), VersionCache(tmp_path / "models", 3), uri=releases.uri, poll_s=1)
    restarted.poll()
    assert restarted.current
    assert restarted.current.threshold == 0.7


def test_a_metric_that_is_nan_does_not_block_the_version(releases: Releases, serve: Serve) -> None:
    client = releases.client
    run = client.create_run(client.create_experiment("evaluation")).info.run_id
    client.log_metric(run, "slope", float("nan"))
    client.log_metric(run, "auc", 0.84)
    number = releases.release(promote=False)
    with closing(sqlite3.connect(releases.folder / "mlflow.db")) as db, db:
        db.execute("UPDATE model_versions SET run_id = ? WHERE version = ?", (run, number))
    releases.promote(number)

    server = serve().ready()

    answer = server.http.get("/model")
    assert answer.status_code == 200
    assert answer.json()["metrics"] == {"auc": 0.84}
    assert answer.json()["threshold"] == THRESHOLD


@pytest.mark.parametrize(("made", "age_s"), [(-HOUR, 3600), (HOUR, 0)], ids=["earlier", "by a clock that is ahead"])
def test_the_age_of_a_version_is_never_negative(made: timedelta, age_s: float, releases: Releases, serve: Serve) -> None:
    set_created(releases.folder / "mlflow.db", releases.release(), datetime.now(UTC) + made)

    answer = serve().ready().http.get("/model").json()

    assert answer["age_s"] == pytest.approx(age_s, abs=60)
    assert answer["age_s"] >= 0
