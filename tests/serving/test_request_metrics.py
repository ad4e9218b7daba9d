"""The metrics, without a server."""

import numpy as np
import pytest
from prometheus_client import CollectorRegistry, Histogram

from serving.metrics import observe_many


def samples(registry: CollectorRegistry) -> dict[tuple[str, str], float]:
    """Name and bucket → value, without the time of creation."""
    found = [sample for metric in registry.collect() for sample in metric.samples if not sample.name.endswith("_created")]
    return {(sample.name, sample.labels.get("le", "")): sample.value for sample in found}


def test_values_observed_together_are_counted_individually() -> None:
    together, singly = CollectorRegistry(), CollectorRegistry()
    buckets = (0.1, 0.25, 0.5)
    values = [0.0, 0.1, 0.1000001, 0.25, 0.3, 0.5, 0.75, 2.0]

    observe_many(Histogram("rows", "", buckets=buckets, registry=together), np.array(values))
    each = Histogram("rows", "", buckets=buckets, registry=singly)
    for value in values:
        each.observe(value)

    assert samples(together) == pytest.approx(samples(singly))
    assert samples(together)["rows_bucket", "0.25"] == 4
