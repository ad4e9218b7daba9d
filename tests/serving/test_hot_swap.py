"""Versions change while requests run."""

from itertools import groupby

import numpy as np
import psutil
import pytest

from served import Releases, Serve
from swaps import FOREVER, SECRET, hook, load, ready, wait_for

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_promotion_under_load_fails_no_request(releases: Releases, serve: Serve, workers: str) -> None:
    numbers = [releases.release(seed=seed) for seed in range(3)]
    releases.promote(numbers[0])
    server = ready(serve(workers=workers), int(workers))

    with load(server) as done:
        for number in numbers:
            releases.promote(number)
            done.wait_for(number)

    assert not done.failures
    expected = {number: releases.probabilities(number, done.given) for number in numbers}
    assert not np.allclose(expected[numbers[0]], expected[numbers[1]], atol=1e-3)
    for mine in done.answers:
        assert [version for version, _ in groupby(version for version, _ in mine)] == numbers, "each version once, in its turn"
        for version, found in mine:
            np.testing.assert_allclose(found, expected[version], atol=1e-6)


def test_promotions_under_load_leak_no_memory_thread_or_descriptor(releases: Releases, serve: Serve) -> None:
    numbers = [releases.release(seed=seed) for seed in range(2)]
    server = serve(poll_s=FOREVER, webhook_secret=SECRET).ready()
    process = psutil.Process(server.process.pid)

    def swap(times: int) -> None:
        for turn in range(times):
            number = numbers[turn % 2]
            releases.promote(number)
            assert hook(server).status_code == 202
            wait_for(server, number)

    with load(server, connections=2) as done:
        swap(10)
        memory, threads, descriptors = process.memory_info().rss, process.num_threads(), process.num_fds()
        swap(100)
        grown = process.memory_info().rss - memory
        after = process.num_threads(), process.num_fds()

    assert not done.failures
    assert server.metric("churn_model_swaps_total") >= 110
    assert grown < 100e6
    assert after[0] <= threads + 2
    assert after[1] <= descriptors + 8
