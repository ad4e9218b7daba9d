"""Rows that the pipeline set aside, as a metric: its jobs end before Prometheus could scrape them."""

from churn.adapters import set_aside
from monitoring import metrics


def show_set_aside(events: str) -> None:
    """Set how many rows the last run of each stage set aside, by what the stages left at the event log's location.

    Raises:
        EventsError: the event log is out of reach.
    """
    metrics.SET_ASIDE.clear()
    for (stage, reason), count in set_aside.reported(events).items():
        metrics.SET_ASIDE.labels(stage, reason).set(count)
