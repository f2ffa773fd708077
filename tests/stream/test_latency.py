import numpy as np
import pytest

from stream.latency import RecentLatencies, RecentRate, summarize_ms


def test_no_sample_has_no_figures() -> None:
    summary = summarize_ms(np.zeros(0))
    assert summary.pop("n") == 0
    assert set(summary.values()) == {None}


@pytest.mark.parametrize(
    ("count", "p99", "p999"),
    [(1, False, False), (999, False, False), (1000, True, False), (9999, True, False), (10_000, True, True)],
)
def test_a_percentile_wants_enough_samples(count: int, p99: bool, p999: bool) -> None:
    summary = summarize_ms(np.linspace(1, 2, count))
    assert (summary["p99"] is not None, summary["p99.9"] is not None) == (p99, p999)
    assert summary["n"] == count


def test_figures_are_those_of_numpy() -> None:
    samples = np.random.default_rng(3).gamma(3.0, 5.0, 1500)
    summary = summarize_ms(samples)
    assert summary["min"] == samples.min()
    assert summary["max"] == samples.max()
    assert summary["mean"] == pytest.approx(samples.mean())
    assert summary["sd"] == pytest.approx(samples.std())
    for name, percent in (("p50", 50), ("p90", 90), ("p95", 95), ("p99", 99)):
        assert summary[name] == pytest.approx(np.percentile(samples, percent))


def test_only_the_last_latencies_are_kept() -> None:
    recent = RecentLatencies(size=10)
    assert recent.summary()["n"] == 0
    for latency_ms in range(25):
        recent.add_ns(latency_ms * 1_000_000)
    summary = recent.summary()
    assert (summary["n"], summary["min"], summary["max"]) == (10, 15.0, 24.0)


def test_a_short_history_holds_no_zeros_that_were_not_measured() -> None:
    recent = RecentLatencies(size=10)
    recent.add_ns(5_000_000)
    assert recent.summary()["min"] == 5.0


def test_a_rate_counts_intervals_and_not_stamps() -> None:
    rate = RecentRate(frames=5)
    assert rate.hz() == 0.0
    for index in range(12):
        rate.add(1_000_000_000 + index * 40_000_000)
    assert rate.hz() == pytest.approx(25.0)
