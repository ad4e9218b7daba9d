"""Predictions joined to what came of them: only labels that are mature, each customer's months counted once."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np
import pandas as pd

from churn.adapters.moments import CLOCK_SKEW, EARLIEST
from churn.contract import ENTITY, LABEL, LABEL_HORIZON
from churn.settings import Settings

log = logging.getLogger(__name__)

PREDICTION_COLUMNS = ("prediction_id", "time", ENTITY)
OUTCOME_COLUMNS = ("outcome_id", "prediction_id", ENTITY, LABEL, "observed_at", "received_at")
NAMED = 3
"""How many of the refused outcomes a log line names."""


@dataclass(frozen=True)
class Refused:
    """Ids of outcomes that no label is made of: observed after they were received, too early, or before their own prediction."""

    from_the_future: tuple[str, ...] = ()
    too_early: tuple[str, ...] = ()
    before_the_prediction: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        """All of them."""
        return (*self.from_the_future, *self.too_early, *self.before_the_prediction)

    def __len__(self) -> int:
        return len(self.ids)

    def __str__(self) -> str:
        """In one line, with the first ids."""
        reasons = {
            "observed after they were received": self.from_the_future,
            f"observed before {EARLIEST:%Y-%m-%d}": self.too_early,
            "observed before their prediction": self.before_the_prediction,
        }
        return "; ".join(f"{len(ids)} {why} (first: {', '.join(ids[:NAMED])})" for why, ids in reasons.items() if ids)


def log_refused(refused: Refused) -> None:
    """Log how many outcomes are not used, and why."""
    log.warning("outcomes: %d are not used: %s; correct them at their source and report them again", len(refused), refused)


def horizon(settings: Settings) -> timedelta:
    """How long after a prediction its label is final: the contract's, unless the environment says otherwise."""
    return timedelta(seconds=settings.label_horizon_s) if settings.label_horizon_s else LABEL_HORIZON


def matured(
    predictions: pd.DataFrame,
    outcomes: pd.DataFrame,
    *,
    now: datetime,
    horizon: timedelta,
    on_refused: Callable[[Refused], None] = log_refused,
) -> pd.DataFrame:
    """The predictions whose label is final at `now`, in their order, with the label as a column of booleans.

    `predictions` has at least `PREDICTION_COLUMNS`, `outcomes` has `OUTCOME_COLUMNS`, later reports after earlier ones. A
    prediction is final when its horizon is over, never before: churn is reported sooner than staying, so that early
    labels are biased. Then

    - a report on the prediction itself says the label, unless it says "stayed" of a time before the end of the horizon;
    - a report on the customer says that the customer left if it was within the horizon, and that the customer stayed if a
      later report (of either kind) shows so.

    A report on the prediction outweighs those on its customer. Reports whose times cannot be true are left out, and `on_refused`
    is called with them: those observed after they were received, before `EARLIEST`, or before the prediction that they are about.
    """
    outcomes, refused = _possible(predictions, outcomes)
    if len(refused):
        on_refused(refused)
    ripe = predictions[predictions["time"] + horizon <= now]
    # Positions, since the frame's own index may be anything.
    ripe = ripe.reset_index(drop=True)
    by_customer = _of_customers(ripe, outcomes[outcomes[ENTITY].notna()], horizon)
    by_prediction = _of_predictions(ripe, outcomes[outcomes["prediction_id"].notna()], horizon)
    label = by_prediction.combine_first(by_customer)
    known = ripe.loc[label.index.sort_values()]
    return known.assign(**{LABEL: label.loc[known.index].astype(bool)}).reset_index(drop=True)


def _possible(predictions: pd.DataFrame, outcomes: pd.DataFrame) -> tuple[pd.DataFrame, Refused]:
    """The outcomes whose times can be true, and the others. The clocks of two machines may differ by `CLOCK_SKEW`."""
    is_future = (outcomes["observed_at"] > outcomes["received_at"] + CLOCK_SKEW).to_numpy()
    is_old = (outcomes["observed_at"] < EARLIEST).to_numpy()
    made_at = predictions.drop_duplicates("prediction_id").set_index("prediction_id")["time"]
    is_early = (outcomes["observed_at"] < outcomes["prediction_id"].map(made_at) - CLOCK_SKEW).to_numpy()
    names = outcomes["outcome_id"]
    refused = Refused(tuple(names[is_future]), tuple(names[is_old & ~is_future]), tuple(names[is_early & ~is_future & ~is_old]))
    return outcomes[~(is_future | is_old | is_early)], refused


def _of_predictions(ripe: pd.DataFrame, reports: pd.DataFrame, horizon: timedelta) -> "pd.Series[bool]":
    """Position in `ripe` → label, by the last report on the prediction itself."""
    joined = _joined(ripe, reports, "prediction_id")
    final = joined[joined[LABEL].astype(bool) | (joined["observed_at"] >= joined["time"] + horizon)]
    return final.groupby("position")[LABEL].last()


def _of_customers(ripe: pd.DataFrame, reports: pd.DataFrame, horizon: timedelta) -> "pd.Series[bool]":
    """Position in `ripe` → label, by all that was reported of the customer."""
    joined = _joined(ripe, reports, ENTITY)
    end = joined["time"] + horizon
    left = joined[LABEL].astype(bool) & (joined["observed_at"] >= joined["time"]) & (joined["observed_at"] <= end)
    labelled = joined[left | (joined["observed_at"] >= end)].assign(**{LABEL: left})
    return labelled.groupby("position")[LABEL].any()


def _joined(ripe: pd.DataFrame, reports: pd.DataFrame, key: str) -> pd.DataFrame:
    wanted = ripe[["time", key]].assign(position=np.arange(len(ripe)))
    return wanted.merge(reports[[key, LABEL, "observed_at"]], on=key, how="inner")


def once_per_horizon(labelled: pd.DataFrame, horizon: timedelta, *, time: str = "time") -> pd.DataFrame:
    """The first row of each customer in each period of the horizon's length: later ones repeat the same event.

    Rows without a customer id are never dropped as duplicates.
    """
    again = pd.DataFrame({ENTITY: labelled[ENTITY], "period": periods(labelled[time], horizon)}).duplicated()
    return labelled[~(again & labelled[ENTITY].notna())]


def periods(times: "pd.Series[pd.Timestamp]", horizon: timedelta) -> "pd.Series[int]":
    """The number of whole horizons from 1970 to each time."""
    return (times - pd.Timestamp(0, tz="UTC")) // pd.Timedelta(horizon)
