from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from churn.errors import ConfigError
from churn.params import load_params

COMMITTED = Path(__file__).parents[2] / "params.yaml"


def changed(folder: Path, key: str, value: Any) -> Path:
    """A copy of the committed file with the dotted key set; removed if the value is None."""
    values = yaml.safe_load(COMMITTED.read_text())
    *sections, last = key.split(".")
    section = values
    for name in sections:
        section = section[name]
    if value is None:
        del section[last]
    else:
        section[last] = value
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def refusal(path: Path) -> str:
    with pytest.raises(ConfigError) as refused:
        load_params(path)
    return str(refused.value)


def test_the_committed_parameters_are_accepted() -> None:
    params = load_params(COMMITTED)

    assert params.prepare.test_fraction == 0.2
    assert params.train.sections["gradient_boosting"]["n_estimators"] == 300
    assert params.evaluate.gate.min_of_class == 50


@pytest.mark.parametrize(
    ("key", "near"),
    [("train.inner_fold", "inner_folds"), ("evaluate.gate.min_auk", "min_auc"), ("prepar", "prepare")],
)
def test_an_unknown_key_is_refused_with_a_suggestion(key: str, near: str, tmp_path: Path) -> None:
    message = refusal(changed(tmp_path, key, 1))

    assert message.endswith(f"params.yaml: {key}: unknown key; did you mean {near}?")


def test_an_unknown_key_without_a_similar_one_is_refused(tmp_path: Path) -> None:
    message = refusal(changed(tmp_path, "train.zzz", 1))

    assert message.endswith("train.zzz: unknown key; remove it, or add it to src/churn/params.py")


@pytest.mark.parametrize("key", ["train", "train.seed", "evaluate.gate.min_auc"])
def test_a_missing_key_is_refused_by_name(key: str, tmp_path: Path) -> None:
    assert refusal(changed(tmp_path, key, None)).endswith(f"params.yaml: {key}: missing key; add it")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("prepare.test_fraction", 0.0),
        ("prepare.test_fraction", 1.0),
        ("prepare.test_fraction", float("nan")),
        ("train.model", 7),
        ("train.seed", "seven"),
        ("train.inner_folds", 1),
        ("train.cv_repeats", 0),
        ("evaluate.bootstrap_samples", 0),
        ("evaluate.costs.value", 0),
        ("evaluate.costs.save_rate", 1),
        ("evaluate.costs.waste_rate", 1.1),
        ("evaluate.gate.source_auc_margin", -0.001),
        ("evaluate.gate.min_of_class", 2.5),
    ],
)
def test_a_value_out_of_its_range_is_refused_with_the_key_and_the_value(key: str, value: Any, tmp_path: Path) -> None:
    message = refusal(changed(tmp_path, key, value))

    assert f"params.yaml: {key}" in message
    assert repr(value) in message


def test_a_message_is_one_line(tmp_path: Path) -> None:
    assert "\n" not in refusal(changed(tmp_path, "train.model", 7))


def test_a_missing_file_is_refused_with_what_to_do(tmp_path: Path) -> None:
    assert refusal(tmp_path / "params.yaml").endswith("no such file; run from the project's root")


def test_a_file_that_is_not_yaml_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text("train: [1,\nprepare: 2")

    message = refusal(path)

    assert "not YAML" in message
    assert "\n" not in message


@pytest.mark.parametrize("text", ["", "- 1\n- 2\n"])
def test_a_file_without_sections_is_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(text)

    assert "params.yaml: the file: " in refusal(path)


def test_parameters_cannot_be_changed_once_loaded() -> None:
    params = load_params(COMMITTED)

    with pytest.raises(ValidationError, match="frozen"):
        params.train.seed = 8  # type: ignore[misc]


def test_a_key_that_is_there_twice_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(COMMITTED.read_text().replace("  newest_rows: 1400", "  newest_rows: 5\n  newest_rows: 1400"))

    message = refusal(path)

    assert "newest_rows" in message
    assert "\n" not in message


def test_a_file_that_is_not_utf8_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "params.yaml"
    path.write_bytes(COMMITTED.read_bytes() + b"# \xe9\n")

    assert "\n" not in refusal(path)


@pytest.mark.parametrize(
    ("key", "value"),
    [("evaluate.costs.value", float("inf")), ("tune.ranges.gradient_boosting.max_depth.high", float("inf")), ("train.seed", -1)],
)
def test_a_number_without_an_end_and_a_negative_seed_are_refused(key: str, value: Any, tmp_path: Path) -> None:
    assert key in refusal(changed(tmp_path, key, value))
