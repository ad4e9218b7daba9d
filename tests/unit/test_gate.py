from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from churn.domain import gate
from churn.domain.evidence import Columns, Evidence, SliceGap, SourceRows
from churn.domain.gate import Advice, Check, evaluate, has_too_few
from churn.domain.metrics import Interval
from churn.params import Gate, load_params

DEFAULTS = load_params(Path(__file__).parents[2] / "params.yaml").evaluate.gate
BOUNDS = Gate(min_of_class=50, min_auc=0.75, trusted_columns=("plan",), source_min_auc=0.625, source_auc_margin=0.125)

ZERO = Interval(0.0, -0.01, 0.01)
SLICE = SliceGap(log_loss=ZERO, champion_log_loss=0.5, roc_auc=ZERO)
PAIR = {"roc_auc": ZERO, "log_loss": ZERO}
COLUMNS = Columns(0.85, 0.25, alone={"age": 0.75, "plan=Free": 0.6}, at_end={"age": 0.5, "plan=Free": 0.25})
GOOD = Evidence(
    churned=50,
    others=150,
    roc_auc=0.8125,
    skill=Interval(-0.1, -0.2, -0.05),
    baseline=ZERO,
    mean=ZERO,
    slope=Interval(1.0, 0.8, 1.3),
    ece=0.01,
    chance_ece=0.03,
    champion=PAIR,
    slices={"commitment=Season": SLICE},
    newer_days=0.0,
    source=SourceRows(50, 50, 0.75, 0.75),
    columns=COLUMNS,
)


def failed(bounds: Gate = BOUNDS, **changed: Any) -> list[Check]:
    """The failed checks of good evidence but for what is changed."""
    return [check for check in evaluate(replace(GOOD, **changed), bounds) if not check.passed]


def refused(bounds: Gate = BOUNDS, **changed: Any) -> list[str]:
    return [check.name for check in failed(bounds, **changed)]


def up_to(high: float) -> Interval:
    return Interval(high - 0.1, high - 0.2, high)


def down_to(low: float) -> Interval:
    return Interval(low + 0.1, low, low + 0.2)


def test_good_evidence_passes_every_check() -> None:
    assert refused() == []
    assert refused(DEFAULTS) == []


def test_every_kind_of_evidence_is_checked() -> None:
    assert [check.name for check in evaluate(replace(GOOD, columns=replace(COLUMNS, roc_auc=0.9)), BOUNDS)] == [
        "churned customers",
        "newest row − champion's, days",
        "leak: share of the model's skill in one column",
        "leak: churn rate at one end of a column",
        "roc_auc on source rows",
        "roc_auc − champion's on source rows",
        "log_loss − the churn rate's",
        "roc_auc",
        "log_loss − baseline's",
        "mean probability − churn rate",
        "calibration_slope",
        "ece",
        "roc_auc − champion's",
        "log_loss − champion's",
        "log_loss − champion's where commitment=Season",
        "roc_auc − champion's where commitment=Season",
    ]


@pytest.mark.parametrize(
    ("at_the_bound", "beyond", "check"),
    [
        ({"churned": 50}, {"churned": 49}, "churned customers"),
        ({"churned": 150, "others": 50}, {"churned": 150, "others": 49}, "customers who stayed"),
        ({"skill": up_to(-1e-9)}, {"skill": up_to(0.0)}, "log_loss − the churn rate's"),
        ({"roc_auc": 0.75}, {"roc_auc": 0.7499}, "roc_auc"),
        ({"baseline": down_to(0.0)}, {"baseline": down_to(1e-9)}, "log_loss − baseline's"),
        ({"mean": down_to(0.025)}, {"mean": down_to(0.02501)}, "mean probability − churn rate"),
        ({"mean": up_to(-0.025)}, {"mean": up_to(-0.02501)}, "mean probability − churn rate"),
        ({"slope": up_to(0.9)}, {"slope": up_to(0.89999)}, "calibration_slope"),
        ({"slope": down_to(1.2)}, {"slope": down_to(1.20001)}, "calibration_slope"),
        ({"ece": 0.05}, {"ece": 0.05001}, "ece"),
        ({"newer_days": 0.0}, {"newer_days": -1.0}, "newest row − champion's, days"),
        (
            {"champion": PAIR | {"roc_auc": up_to(0.0)}},
            {"champion": PAIR | {"roc_auc": up_to(-1e-9)}},
            "roc_auc − champion's",
        ),
        (
            {"champion": PAIR | {"log_loss": down_to(0.0)}},
            {"champion": PAIR | {"log_loss": down_to(1e-9)}},
            "log_loss − champion's",
        ),
        (
            {"slices": {"a": replace(SLICE, log_loss=down_to(0.01))}},
            {"slices": {"a": replace(SLICE, log_loss=down_to(0.01001))}},
            "log_loss − champion's where a",
        ),
        (
            {"slices": {"a": replace(SLICE, roc_auc=up_to(-0.03))}},
            {"slices": {"a": replace(SLICE, roc_auc=up_to(-0.03001))}},
            "roc_auc − champion's where a",
        ),
    ],
)
def test_a_rule_holds_at_its_bound_and_refuses_by_name_beyond(
    at_the_bound: dict[str, Any], beyond: dict[str, Any], check: str
) -> None:
    assert refused(**at_the_bound) == []
    assert refused(**beyond) == [check]


NAN = Interval(float("nan"), float("nan"), float("nan"))


@pytest.mark.parametrize(
    ("changed", "check"),
    [
        ({"skill": NAN}, "log_loss − the churn rate's"),
        ({"roc_auc": float("nan")}, "roc_auc"),
        ({"baseline": NAN}, "log_loss − baseline's"),
        ({"mean": NAN}, "mean probability − churn rate"),
        ({"slope": NAN}, "calibration_slope"),
        ({"ece": float("nan")}, "ece"),
        ({"champion": PAIR | {"roc_auc": NAN}}, "roc_auc − champion's"),
    ],
)
def test_what_cannot_be_computed_is_refused(changed: dict[str, Any], check: str) -> None:
    assert refused(**changed) == [check]


def test_an_interval_that_reaches_the_bound_passes_however_far_its_value_is() -> None:
    assert refused(slope=Interval(0.5, -0.1, 0.9)) == []
    assert refused(slope=Interval(3.0, 1.2, 5.0)) == []


@pytest.mark.parametrize(("churned", "others", "expected"), [(49, 200, True), (200, 49, True), (50, 50, False)])
def test_too_few_of_either_class_is_an_answer_of_its_own(churned: int, others: int, expected: bool) -> None:
    assert has_too_few(evaluate(replace(GOOD, churned=churned, others=others), BOUNDS)) is expected


def test_a_bad_model_is_not_called_too_few_customers() -> None:
    assert not has_too_few(evaluate(replace(GOOD, ece=0.5), BOUNDS))


def leaks(bounds: Gate = BOUNDS, **changed: Any) -> list[str]:
    return refused(bounds, columns=replace(COLUMNS, **changed))


@pytest.mark.parametrize(
    ("roc_auc", "alone", "expected"),
    [
        (0.9, 0.8601, ["leak: share of the model's skill in one column"]),
        (0.9, 0.8599, []),
        (0.8999, 0.8999, []),
        (1.0, 0.9501, ["leak: share of the model's skill in one column"]),
        (1.0, 0.9499, []),
        (1.0, 1.0, ["leak: share of the model's skill in one column"]),
    ],
)
def test_one_column_with_nearly_all_of_a_very_good_model_is_a_leak(roc_auc: float, alone: float, expected: list[str]) -> None:
    assert leaks(roc_auc=roc_auc, alone={"age": alone, "plan=Free": 0.5}) == expected


@pytest.mark.parametrize(
    ("churn_rate", "at_end", "expected"),
    [
        (0.25, 0.96, ["leak: churn rate at one end of a column"]),
        (0.25, 0.9599, []),
        (0.5, 1.0, ["leak: churn rate at one end of a column"]),
        (0.5001, 1.0, []),
    ],
)
def test_a_column_at_whose_end_nearly_all_churned_is_a_leak(churn_rate: float, at_end: float, expected: list[str]) -> None:
    assert leaks(churn_rate=churn_rate, at_end={"age": at_end, "plan=Free": 0.3}) == expected


def test_a_trusted_column_is_no_leak_but_the_next_one_may_be() -> None:
    assert leaks(roc_auc=1.0, alone={"plan=Free": 1.0, "age": 0.7}, at_end={"plan=Free": 1.0, "age": 0.7}) == []
    assert len(leaks(roc_auc=1.0, alone={"plan=Free": 1.0, "age": 0.96}, at_end={"plan=Free": 1.0, "age": 0.97})) == 2
    assert leaks(roc_auc=1.0, alone={"plan=Free": 1.0}, at_end={"plan=Free": 1.0}) == []


def test_a_trusted_input_may_be_named_by_one_of_its_values() -> None:
    bounds = BOUNDS.model_copy(update={"trusted_columns": ("plan=Free",)})

    assert leaks(bounds, roc_auc=1.0, alone={"plan=Free": 1.0}, at_end={"plan=Free": 1.0}) == []


def test_a_leak_names_its_column_and_the_feature_to_remove() -> None:
    one, end = failed(
        columns=Columns(0.95, 0.2, alone={"commitment=One": 0.94, "usage": 0.6}, at_end={"commitment=One": 0.2, "usage": 0.99}),
    )

    assert one.advice == gate.LEAK_ALONE.of(name="commitment=One", column="commitment", alone=0.94, model=0.95)
    assert one.value == pytest.approx(0.44 / 0.45)
    assert end.advice == gate.LEAK_AT_END.of(name="usage", column="usage", rate=0.99)
    assert end.value == 0.99


def test_without_columns_nothing_is_said_of_leaks() -> None:
    assert not any("leak" in check.name for check in evaluate(replace(GOOD, columns=None), BOUNDS))


def test_unknown_newest_rows_are_not_compared() -> None:
    assert refused(newer_days=None) == []
    assert refused(newer_days=30.0) == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (SourceRows(50, 50, 0.625, 0.75), []),
        (SourceRows(50, 50, 0.6249, 0.6249), ["roc_auc on source rows"]),
        (SourceRows(50, 50, 0.75, 0.8751), ["roc_auc − champion's on source rows"]),
        (SourceRows(50, 50, 0.6249), ["roc_auc on source rows"]),
        (SourceRows(49, 5000, 0.1, 0.9), []),
        (SourceRows(5000, 49, 0.1, 0.9), []),
        (SourceRows(50, 50, float("nan"), 0.9), ["roc_auc on source rows", "roc_auc − champion's on source rows"]),
    ],
)
def test_source_rows_are_evaluated_by_their_own_bounds(source: SourceRows, expected: list[str]) -> None:
    assert refused(source=source) == expected


def test_without_a_champion_nothing_is_compared_with_one() -> None:
    first = replace(GOOD, champion=None, slices=None, newer_days=None, source=SourceRows(50, 50, 0.75))

    checks = evaluate(first, BOUNDS)

    assert not any("champion" in check.name for check in checks)
    assert all(check.passed for check in checks)


def test_every_failure_is_told_at_once() -> None:
    assert refused(roc_auc=0.5, skill=up_to(0.2), ece=0.5) == ["log_loss − the churn rate's", "roc_auc", "ece"]


BAD: dict[str, Any] = {
    "churned": 49,
    "newer_days": -1.0,
    "columns": Columns(1.0, 0.2, alone={"age": 1.0}, at_end={"age": 1.0}),
    "source": SourceRows(50, 50, 0.1, 0.9),
    "skill": down_to(0.1),
    "roc_auc": 0.1,
    "baseline": down_to(0.1),
    "mean": down_to(0.5),
    "slope": up_to(0.1),
    "ece": 0.5,
    "champion": {"roc_auc": up_to(-0.1), "log_loss": down_to(0.1)},
    "slices": {"a": SliceGap(down_to(0.1), 0.5, up_to(-0.1))},
}


def test_every_refusal_has_a_cause_and_a_next_step_with_all_its_values() -> None:
    checks = failed(**BAD)

    assert len(checks) == len(evaluate(replace(GOOD, **BAD), BOUNDS)) == 16
    for check in checks:
        assert check.advice
        assert check.advice.cause
        assert "`" in check.advice.next or "params" in check.advice.next, "a command"
        assert "{" not in check.advice.cause + check.advice.next


def test_a_check_that_held_has_no_advice() -> None:
    assert not any(check.advice for check in evaluate(GOOD, BOUNDS))


@pytest.mark.parametrize(
    ("changed", "advice"),
    [
        ({"churned": 49, "others": 151}, gate.TOO_FEW.of(rows=200, churned=49)),
        ({"newer_days": -1.0}, gate.ROWS_LOST),
        ({"source": SourceRows(50, 50, 0.1)}, gate.FALSE_LABELS),
        ({"source": SourceRows(50, 50, 0.7, 0.9)}, gate.FALSE_LABELS),
        ({"skill": Interval(-1e-9, -0.1, 0.1)}, gate.NOT_PROVEN.of(churned=50)),
        ({"skill": Interval(0.0, -0.1, 0.1)}, gate.NO_SKILL),
        ({"roc_auc": 0.7}, gate.BELOW_FLOOR),
        ({"baseline": down_to(0.1)}, gate.LINEAR),
        ({"mean": down_to(0.1)}, gate.TOO_HIGH),
        ({"mean": up_to(-0.1)}, gate.TOO_LOW),
        ({"slope": Interval(0.7, 0.6, 0.8)}, gate.OVERFITTED),
        ({"slope": Interval(1.4, 1.3, 1.5)}, gate.UNDERFITTED),
        ({"ece": 0.5}, gate.MISCALIBRATED),
        ({"champion": PAIR | {"roc_auc": up_to(-0.1)}}, gate.WORSE),
        ({"champion": PAIR | {"log_loss": down_to(0.1)}}, gate.WORSE),
        ({"slices": {"a": replace(SLICE, log_loss=down_to(0.1))}}, gate.WORSE_SLICE.of(name="a")),
        ({"slices": {"b": replace(SLICE, roc_auc=up_to(-0.1))}}, gate.WORSE_SLICE.of(name="b")),
    ],
)
def test_the_advice_is_that_of_the_fault(changed: dict[str, Any], advice: Advice) -> None:
    (check,) = failed(**changed)

    assert check.advice == advice


def test_a_margin_follows_from_the_rows() -> None:
    at = {"champion_log_loss": 0.25}
    assert refused(slices={"a": SliceGap(log_loss=down_to(0.0051), roc_auc=ZERO, **at)}) == ["log_loss − champion's where a"]
    assert refused(mean=down_to(0.045), churned=100, others=100) == []
    assert GOOD.churn_rate == 0.25


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"churned": 49, "others": 151}, "churned customers: 49, must be ≥ 50"),
        ({"roc_auc": 0.7}, "roc_auc: 0.7000, must be ≥ 0.75"),
        ({"roc_auc": float("nan")}, "roc_auc: nan, must be ≥ 0.75"),
        ({"ece": 0.5}, "ece: 0.5000, must be ≤ 0.0500"),
        ({"skill": Interval(0.1, 0.05, 0.2)}, "log_loss − the churn rate's: 0.1000 [0.0500, 0.2000], must be wholly below 0"),
        ({"slope": Interval(0.7, 0.6, 0.8)}, "calibration_slope: 0.7000 [0.6000, 0.8000], must be not wholly outside [0.9, 1.2]"),
        (
            {"mean": Interval(0.1, 0.05, 0.2)},
            "mean probability − churn rate: 0.1000 [0.0500, 0.2000], must be not wholly outside ±0.0250",
        ),
        (
            {"slices": {"a": replace(SLICE, log_loss=Interval(0.1, 0.05, 0.2))}},
            "log_loss − champion's where a: 0.1000 [0.0500, 0.2000], must be not wholly above 0.01",
        ),
        (
            {"slices": {"a": replace(SLICE, roc_auc=Interval(-0.1, -0.2, -0.05))}},
            "roc_auc − champion's where a: -0.1000 [-0.2000, -0.0500], must be not wholly below -0.03",
        ),
        ({"baseline": Interval(0.1, 0.05, 0.2)}, "log_loss − baseline's: 0.1000 [0.0500, 0.2000], must be not wholly above 0"),
        (
            {"columns": replace(COLUMNS, at_end={"age": 1.0, "plan=Free": 0.0})},
            "leak: churn rate at one end of a column: 1.0000, must be < 0.96",
        ),
    ],
)
def test_a_failed_check_says_what_was_measured_and_what_was_expected(changed: dict[str, Any], expected: str) -> None:
    (check,) = failed(**changed)

    assert str(check) == expected


def test_a_check_that_held_says_its_bound() -> None:
    texts = [str(check) for check in evaluate(GOOD, BOUNDS)]

    assert "roc_auc: 0.8125 (≥ 0.75)" in texts
    assert "calibration_slope: 1.0000 [0.8000, 1.3000] (not wholly outside [0.9, 1.2])" in texts


@pytest.mark.reported
def test_a_value_just_beyond_its_bound_is_not_rounded_onto_it() -> None:
    assert str(Check("roc_auc", 0.74999, "≥ 0.75", False)) == "roc_auc: 0.74999, must be ≥ 0.75"
