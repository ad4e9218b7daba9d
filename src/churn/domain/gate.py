"""The promotion gate: what a candidate must show to become production."""

from collections.abc import Iterator
from dataclasses import dataclass

from churn.domain.evidence import Columns, Evidence, SliceGap, SourceRows
from churn.domain.metrics import Interval
from churn.params import Gate

SLOPE = (0.9, 1.2)
ECE_MARGIN = 0.02
MEAN_MARGIN = 0.1
"""Of the churn rate."""
LEAK_AUC = 0.9
LEAK_SHARE = 0.9
LEAK_RATE = 0.96
LEAK_MAX_CHURN_RATE = 0.5
"""Where more of all rows churned, the extremes of an honest column can reach `LEAK_RATE`."""
SLICE_LOSS_MARGIN = 0.02
"""Of the champion's log loss in the group."""
SLICE_AUC_MARGIN = 0.03

CHURNED, STAYED = "churned customers", "customers who stayed"
"""The check that says whether the test rows can decide at all, by which of the two are fewer."""


@dataclass(frozen=True)
class Advice:
    """The likely cause of a refusal, and what to do next."""

    cause: str
    next: str

    def of(self, **values: object) -> "Advice":
        """The advice with those values in its texts."""
        return Advice(self.cause.format(**values), self.next.format(**values))


TOO_FEW = Advice(
    "of {rows} test rows {churned} churned: chance would decide",
    "add labelled rows to data/raw and run `make repro`, or read `churn card V` and decide yourself: `churn promote V`",
)
ROWS_LOST = Advice(
    "the workspace lacks rows that the champion's had: lost, or never ingested here",
    "`churn ingest`, then `make repro`; if they were removed on purpose, `churn promote V`",
)
_LEAK = (
    "remove {column} from src/churn/contract.py and run `make repro`; if it is known at each row's time, add it to "
    "evaluate.gate.trusted_columns, or `churn promote V`"
)
LEAK_ALONE = Advice("{name} alone has ROC-AUC {alone:.3f}, the model {model:.3f}: it may contain the label", _LEAK)
LEAK_AT_END = Advice("of the rows at one end of {name}, {rate:.0%} churned: it may be filled in when a customer leaves", _LEAK)
FALSE_LABELS = Advice(
    "labels that came through the API contradict those of the source: wrong or invented outcomes, or another behaviour",
    "check the outcomes in data/raw/ingested-*.parquet; if customers do behave differently now, `churn promote V`",
)
NOT_PROVEN = Advice(
    "with {churned} churned test rows, it may be no better than giving everyone the churn rate: few rows, or weak features",
    "add rows (data/raw) or features (src/churn/features.py), then `make repro`",
)
NO_SKILL = Advice(
    "giving everyone the churn rate is better: labels or features are of other customers or times, or it is overfitted",
    "check how labels and features are joined by customer and time, then `make repro`",
)
BELOW_FLOOR = Advice(
    "the features say less of who leaves than the floor in params.yaml asks",
    "add features (src/churn/features.py), then `make repro`; or lower evaluate.gate.min_auc",
)
LINEAR = Advice(
    "a logistic regression predicts these rows better: the relation is linear, or the model is badly fitted",
    "`dvc exp run --temp -S train.model=logistic_regression`",
)
_RATE = "compare the churn rate by month, and check the labels; if newer rows are there, `churn ingest`, then `make repro`"
TOO_HIGH = Advice("fewer customers churn in the test rows than in the training rows, or some labels are wrong", _RATE)
TOO_LOW = Advice("more customers churn in the test rows than in the training rows, or some labels are wrong", _RATE)
OVERFITTED = Advice(
    "the probabilities are too extreme: the model is overfitted",
    "`dvc exp run --temp -S train.gradient_boosting.min_samples_leaf=100`; or add rows to data/raw, then `make repro`",
)
UNDERFITTED = Advice(
    "the probabilities are not extreme enough: the model is underfitted, or some training labels are wrong",
    "`dvc exp run --temp -S train.gradient_boosting.n_estimators=600`; and check the labels",
)
MISCALIBRATED = Advice(
    "in some range, probabilities and churn rates differ by more than chance: behaviour or labels changed over time",
    "look at reports/evaluate/calibration.png; if newer rows are there, `churn ingest`, then `make repro`",
)
WORSE = Advice("the champion predicts these rows better", "keep it; when more labels are final, `churn retrain`")
WORSE_SLICE = Advice(
    "the champion predicts customers with {name} better: few or wrong training rows of that group",
    "compare the group in `churn card V`; add rows of it, then `make repro`; to accept it, `churn promote V`",
)


@dataclass(frozen=True)
class Check:
    """One rule: what was measured, the bound, whether it held; where it did not, the advice.

    `low` and `high` are the interval of a value that has one.
    """

    name: str
    value: float
    bound: str
    passed: bool
    advice: Advice | None = None
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        measured = f"{self.value:.4f}" if isinstance(self.value, float) else str(self.value)
        if self.low is not None:
            measured += f" [{self.low:.4f}, {self.high:.4f}]"
        if self.passed:
            return f"{self.name}: {measured} ({self.bound})"
        # Rounded, a value just beyond its bound would read as if it held.
        if self.low is None and round(self.value, 4) == float(self.bound.split()[-1]):
            measured = f"{self.value:.9g}"
        return f"{self.name}: {measured}, must be {self.bound}"


def has_too_few(checks: list[Check]) -> bool:
    """True if too few of the test rows churned, or did not, to tell a good model from a bad one."""
    return any(check.name in {CHURNED, STAYED} and not check.passed for check in checks)


def evaluate(evidence: Evidence, bounds: Gate) -> list[Check]:
    """Every check that a candidate must pass to become production, those first that explain others.

    A rule refuses only what the rows prove: an interval must lie wholly beyond its bound. Source of the bounds: what they refuse
    and miss on twelve tables, docs/gate.md (What it promises).
    """
    return [
        _enough(evidence, bounds),
        *_newest_row(evidence.newer_days),
        *_leaks(evidence.columns, bounds),
        *_source_checks(evidence.source, bounds),
        *_skill(evidence, bounds),
        *_calibration(evidence),
        *_against_champion(evidence.champion or {}),
        *_slice_checks(evidence.slices or {}),
    ]


def _enough(evidence: Evidence, bounds: Gate) -> Check:
    advice = TOO_FEW.of(rows=evidence.churned + evidence.others, churned=evidence.churned)
    name, fewer = (CHURNED, evidence.churned) if evidence.churned <= evidence.others else (STAYED, evidence.others)
    return _at_least(name, fewer, bounds.min_of_class, advice)


def _newest_row(newer_days: float | None) -> Iterator[Check]:
    if newer_days is not None:
        # A version of a workspace that lost its rows would otherwise be evaluated on the rest, and win.
        yield _at_least("newest row − champion's, days", newer_days, 0, ROWS_LOST)


def _leaks(columns: Columns | None, bounds: Gate) -> Iterator[Check]:
    """One column that gives nearly all of a very good model, or whose extreme rows nearly all churned.

    The second only up to `LEAK_MAX_CHURN_RATE`.
    """
    trusted = set(bounds.trusted_columns)
    examined = [name for name in columns.alone if trusted.isdisjoint({name, _feature(name)})] if columns else []
    if not columns or not examined:
        return
    if columns.roc_auc >= LEAK_AUC:
        name = max(examined, key=columns.alone.__getitem__)
        alone = columns.alone[name]
        share = (alone - 0.5) / (columns.roc_auc - 0.5)
        advice = LEAK_ALONE.of(name=name, column=_feature(name), alone=alone, model=columns.roc_auc)
        yield _below("leak: share of the model's skill in one column", share, LEAK_SHARE, advice)
    if columns.churn_rate <= LEAK_MAX_CHURN_RATE:
        name = max(examined, key=columns.at_end.__getitem__)
        advice = LEAK_AT_END.of(name=name, column=_feature(name), rate=columns.at_end[name])
        yield _below("leak: churn rate at one end of a column", columns.at_end[name], LEAK_RATE, advice)


def _feature(name: str) -> str:
    """The feature of an input's name: "term" of "term=One year"."""
    return name.partition("=")[0]


def _source_checks(source: SourceRows | None, bounds: Gate) -> Iterator[Check]:
    """The checks on rows whose labels no client of the API chose; none where there are too few of either class.

    Source of the defaults: on simulated months of the default data, candidates after a price rise or a surge had ROC-AUC 0.85 to
    0.86 on these rows, the champion 0.85; after a change of what leaving depends on 0.72, and right so; one that had learned
    8,000 inverted labels 0.11.
    """
    if source is None or min(source.churned, source.others) < bounds.min_of_class:
        return
    yield _at_least("roc_auc on source rows", source.roc_auc, bounds.source_min_auc, FALSE_LABELS)
    if source.champion_roc_auc is not None:
        gap = source.roc_auc - source.champion_roc_auc
        yield _at_least("roc_auc − champion's on source rows", gap, -bounds.source_auc_margin, FALSE_LABELS)


def _skill(evidence: Evidence, bounds: Gate) -> Iterator[Check]:
    advice = NOT_PROVEN.of(churned=evidence.churned) if evidence.skill.low <= 0 else NO_SKILL
    yield _check("log_loss − the churn rate's", evidence.skill, evidence.skill.high < 0, "wholly below 0", advice)
    yield _at_least("roc_auc", evidence.roc_auc, bounds.min_auc, BELOW_FLOOR)
    yield _not_above("log_loss − baseline's", evidence.baseline, 0, LINEAR)


def _calibration(evidence: Evidence) -> Iterator[Check]:
    margin = MEAN_MARGIN * evidence.churn_rate
    is_near = evidence.mean.low <= margin and evidence.mean.high >= -margin
    advice = TOO_HIGH if evidence.mean.value > 0 else TOO_LOW
    yield _check("mean probability − churn rate", evidence.mean, is_near, f"not wholly outside ±{margin:.4f}", advice)
    least, most = SLOPE
    holds = evidence.slope.low <= most and evidence.slope.high >= least
    advice = OVERFITTED if evidence.slope.value < 1 else UNDERFITTED
    yield _check("calibration_slope", evidence.slope, holds, f"not wholly outside [{least:g}, {most:g}]", advice)
    yield _at_most("ece", evidence.ece, evidence.chance_ece + ECE_MARGIN, MISCALIBRATED)


def _against_champion(gaps: dict[str, Interval]) -> Iterator[Check]:
    """Non-inferiority: refused is a candidate that the rows prove to be worse, not one that they do not prove to be better."""
    if gaps:
        yield _not_below("roc_auc − champion's", gaps["roc_auc"], 0, WORSE)
        yield _not_above("log_loss − champion's", gaps["log_loss"], 0, WORSE)


def _slice_checks(slices: dict[str, SliceGap]) -> Iterator[Check]:
    for name, gap in slices.items():
        margin = SLICE_LOSS_MARGIN * gap.champion_log_loss
        yield _not_above(f"log_loss − champion's where {name}", gap.log_loss, margin, WORSE_SLICE.of(name=name))
        yield _not_below(f"roc_auc − champion's where {name}", gap.roc_auc, -SLICE_AUC_MARGIN, WORSE_SLICE.of(name=name))


def _at_least(name: str, value: float, bound: float, advice: Advice) -> Check:
    return _check(name, value, value >= bound, f"≥ {bound:g}", advice)


def _at_most(name: str, value: float, bound: float, advice: Advice) -> Check:
    return _check(name, value, value <= bound, f"≤ {bound:.4f}", advice)


def _below(name: str, value: float, bound: float, advice: Advice) -> Check:
    return _check(name, value, value < bound, f"< {bound:g}", advice)


def _not_above(name: str, found: Interval, bound: float, advice: Advice) -> Check:
    return _check(name, found, found.low <= bound, f"not wholly above {_short(bound)}", advice)


def _not_below(name: str, found: Interval, bound: float, advice: Advice) -> Check:
    return _check(name, found, found.high >= bound, f"not wholly below {_short(bound)}", advice)


def _check(name: str, measured: float | Interval, passed: bool, bound: str, advice: Advice) -> Check:
    given = None if passed else advice
    if isinstance(measured, Interval):
        return Check(name, measured.value, bound, passed, given, measured.low, measured.high)
    return Check(name, measured, bound, passed, given)


def _short(bound: float) -> str:
    return f"{bound:.4f}".rstrip("0").rstrip(".")
