"""Latencies of hours in constant memory."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.histogram import Histogram


def filled(values: "np.ndarray | list[float]") -> Histogram:
    histogram = Histogram()
    for part in np.array_split(np.asarray(values, np.float64), 7):
        histogram.add(part)
    return histogram


@settings(deadline=None)
@given(st.lists(st.floats(0.002, 9e5), min_size=1, max_size=300), st.sampled_from([50.0, 90.0, 95.0, 99.0]))
def test_a_percentile_is_known_to_one_per_cent(values: list[float], percent: float) -> None:
    exact = float(np.percentile(values, percent, method="inverted_cdf"))
    assert filled(values).percentile_ms(percent) == pytest.approx(exact, rel=0.0101)


def test_least_most_and_mean_are_exact() -> None:
    values = np.random.default_rng(0).gamma(4.0, 3.0, 5000)
    summary = filled(values).summary()
    assert summary["n"] == 5000
    assert summary["min"] == values.min()
    assert summary["max"] == values.max()
    assert summary["mean"] == pytest.approx(values.mean())


@pytest.mark.parametrize(
    ("count", "p99", "p999"), [(999, False, False), (1000, True, False), (10_000, True, True)]
)
def test_a_percentile_without_enough_values_is_none(count: int, p99: bool, p999: bool) -> None:
    summary = filled(np.ones(count)).summary()
    assert (summary["p99"] is not None, summary["p99.9"] is not None) == (p99, p999)


def test_an_empty_histogram_says_nothing() -> None:
    assert set(Histogram().summary().values()) == {0, None}


@pytest.mark.parametrize("value", [0.0, -1.0, 1e-9, 1e9])
def test_what_lies_outside_the_bins_is_counted_all_the_same(value: float) -> None:
    histogram = filled([value, value, 5.0])
    assert histogram.count == 3
    assert histogram.counts.sum() == 3
    assert histogram.percentile_ms(1.0) <= histogram.percentile_ms(99.0)


def test_a_million_values_take_no_more_memory_than_one() -> None:
    histogram = Histogram()
    before = histogram.counts.nbytes
    histogram.add(np.random.default_rng(1).gamma(4.0, 3.0, 1_000_000))
    assert histogram.counts.nbytes == before
