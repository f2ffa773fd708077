"""The clock's estimate: a bound that holds for whatever the network does, and no number where it is too wide."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.clock import WANDER_PPM, OneWay, estimate_clock, measure_clock
from calib.errors import CalibrationError

NS_PER_S = 1_000_000_000


def exchanges(
    offset_ns: int = 5 * NS_PER_S,
    drift_ppm: float = 0.0,
    *,
    count: int = 40,
    interval_s: float = 0.05,
    there_ms: float = 1.0,
    back_ms: float = 1.0,
    least_ms: tuple[float, float] = (0.05, 0.05),
    wander_ppm: float = 0.0,
    seed: int = 0,
) -> tuple[np.ndarray, np.ndarray]:
    """Exchanges over a network whose ways take exponential times; also the true offset at every t1."""
    rng = np.random.default_rng(seed)
    start = 10**15

    def there(real_s: np.ndarray) -> np.ndarray:
        # The clock over there: its rate wanders slowly around a mean.
        span_s = count * interval_s
        wandered = wander_ppm * 1e-6 * span_s / (2 * np.pi) * np.sin(2 * np.pi * real_s / span_s)
        return (
            start + offset_ns + np.rint((real_s * (1 + drift_ppm * 1e-6) + wandered) * 1e9).astype(np.int64)
        )

    sent_s = np.arange(count) * interval_s + rng.uniform(0, 0.01, count)
    arrived_s = sent_s + (least_ms[0] + rng.exponential(there_ms, count)) * 1e-3
    answered_s = arrived_s + rng.uniform(10e-6, 200e-6, count)
    back_s = answered_s + (least_ms[1] + rng.exponential(back_ms, count)) * 1e-3
    sent = start + np.rint(sent_s * 1e9).astype(np.int64)
    back = start + np.rint(back_s * 1e9).astype(np.int64)
    stamps = np.stack([sent, there(arrived_s), there(answered_s), back], axis=1)
    return stamps, there(sent_s) - sent


@settings(max_examples=60, deadline=None)
@given(
    offset_ns=st.integers(-(10**17), 10**17),
    drift_ppm=st.floats(-400.0, 400.0),
    there_ms=st.floats(0.0, 30.0),
    back_ms=st.floats(0.0, 30.0),
    least_ms=st.tuples(st.floats(0.0, 20.0), st.floats(0.0, 20.0)),
    count=st.integers(8, 80),
    wander_ppm=st.floats(0.0, 0.9),
    seed=st.integers(0, 2**32 - 1),
)
def test_the_true_offset_and_drift_are_within_the_uncertainty(
    offset_ns: int,
    drift_ppm: float,
    there_ms: float,
    back_ms: float,
    least_ms: tuple[float, float],
    count: int,
    wander_ppm: float,
    seed: int,
) -> None:
    stamps, truth = exchanges(
        offset_ns,
        drift_ppm,
        count=count,
        there_ms=there_ms,
        back_ms=back_ms,
        least_ms=least_ms,
        wander_ppm=wander_ppm,
        seed=seed,
    )
    found = estimate_clock(stamps)
    for sent, true_ns in zip(stamps[:, 0].tolist(), truth.tolist(), strict=True):
        offset, uncertainty = found.offset_at(sent)
        # A float of 10^17 ns is exact to 16 ns.
        assert abs(offset - true_ns) <= uncertainty + 32
    assert abs(found.drift_ppm - drift_ppm) <= found.drift_uncertainty_ppm + wander_ppm
    # An allowance that grew without end would hold too: half the best round trip bounds it, but for drift and wander.
    round_trips = (stamps[:, 3] - stamps[:, 0]) - (stamps[:, 2] - stamps[:, 1])
    span_s = float(np.ptp(stamps[:, 0])) / 1e9
    assert found.uncertainty_ns <= 0.5 * round_trips.min() + 1e3 * (500 + WANDER_PPM) * span_s + 2


def test_steady_ways_give_the_offset_to_half_the_round_trip_at_most() -> None:
    stamps, truth = exchanges(there_ms=0.0, back_ms=0.0, least_ms=(0.2, 0.2))
    found = estimate_clock(stamps)
    assert abs(found.offset_at(int(stamps[20, 0]))[0] - truth[20]) < 30_000
    assert 150_000 < found.uncertainty_ns < 260_000


def test_jitter_that_leaves_one_quick_way_each_is_filtered_out() -> None:
    stamps, _ = exchanges(
        there_ms=8.0, back_ms=8.0, count=300, interval_s=0.02, least_ms=(0.05, 0.05), seed=3
    )
    round_trips = (stamps[:, 3] - stamps[:, 0]) - (stamps[:, 2] - stamps[:, 1])
    assert np.median(round_trips) > 12e6
    # Both ways are rarely quick at once, so this is well below half of even the best round trip.
    found = estimate_clock(stamps)
    assert found.uncertainty_ns < 0.6 * 0.5 * round_trips.min()
    assert found.uncertainty_ns < 0.5e6


def test_asymmetry_cannot_be_seen_and_stays_in_the_uncertainty() -> None:
    stamps, truth = exchanges(there_ms=0.0, back_ms=0.0, least_ms=(9.0, 0.5))
    found = estimate_clock(stamps)
    wrong = abs(found.offset_at(int(stamps[20, 0]))[0] - truth[20])
    assert 4.0e6 < wrong < found.uncertainty_ns


def test_drift_shows_over_a_long_time_only() -> None:
    short = measure_clock(exchanges(drift_ppm=20.0, interval_s=0.02)[0])
    assert short.passed
    assert short.drift_ppm is None
    long = measure_clock(exchanges(drift_ppm=20.0, count=120, interval_s=1.0, there_ms=0.3, back_ms=0.3)[0])
    assert long.drift_ppm == pytest.approx(20.0, abs=3.0)
    assert long.drift_uncertainty_ppm < 5.0


def test_the_uncertainty_grows_away_from_the_measurement() -> None:
    found = estimate_clock(exchanges()[0])
    later = [found.offset_at(found.reference_ns + seconds * NS_PER_S)[1] for seconds in (0, 10, 100)]
    assert later[0] == found.uncertainty_ns
    assert later[1] - later[0] == pytest.approx((later[2] - later[0]) / 10)
    assert later[2] > later[0] + 100 * 1e3 * WANDER_PPM


def test_a_measurement_that_is_too_uncertain_gives_no_number() -> None:
    result = measure_clock(exchanges(there_ms=0.0, back_ms=0.0, least_ms=(4.0, 4.0))[0], lost=3)
    assert not result.passed
    assert (result.offset_ms, result.drift_ppm, result.lost) == (None, None, 3)
    assert result.residual == result.uncertainty_ms > result.limit
    assert "so none is given" in result.says[0]


def test_a_measurement_that_is_sure_enough_says_what_it_found() -> None:
    stamps, truth = exchanges(offset_ns=-7_000_000_000)
    result = measure_clock(stamps)
    assert result.passed
    assert result.offset_ms is not None
    assert result.offset_ms == pytest.approx(truth.mean() / 1e6, abs=result.uncertainty_ms)
    assert result.exchanges == 40
    assert result.round_trip_min_ms <= result.round_trip_median_ms <= result.round_trip_max_ms
    assert result.reference_ns == pytest.approx(stamps[:, 0].mean(), abs=0.2 * NS_PER_S)


def test_a_latency_smaller_than_its_uncertainty_is_not_shown() -> None:
    assert OneWay(12.0, 0.4).shown_ms == 12.0
    assert OneWay(0.3, 0.4).shown_ms is None
    assert OneWay(-2.0, 0.4).shown_ms is None


def test_a_one_way_latency_is_that_of_the_two_clocks() -> None:
    stamps, truth = exchanges(offset_ns=86_400_000 * NS_PER_S, drift_ppm=30.0)  # a thousand days apart
    found = estimate_clock(stamps)
    sent_there = int(stamps[10, 0] + truth[10])
    seen = found.one_way(sent_there, int(stamps[10, 0]) + 25_000_000)
    assert seen.measured_ms == pytest.approx(25.0, abs=seen.uncertainty_ms + 1e-4)
    assert seen.uncertainty_ms < 2.0


def test_a_clock_that_was_set_is_found_out() -> None:
    stamps, _ = exchanges(there_ms=0.1, back_ms=0.1)
    stamps[20:, 1:3] += 50_000_000
    with pytest.raises(
        CalibrationError, match=r"contradict each other by .* us: a clock was set, or one of the hosts slept"
    ):
        estimate_clock(stamps)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        pytest.param(
            lambda stamps: stamps[:7], "at least 8 answered exchanges of 4 stamps, got", id="too few"
        ),
        pytest.param(lambda stamps: stamps[:, ::-1].copy(), "must end after it began", id="backwards"),
    ],
)
def test_stamps_that_are_none_are_refused(change: Callable[[np.ndarray], np.ndarray], sentence: str) -> None:
    with pytest.raises(CalibrationError, match=sentence):
        estimate_clock(change(exchanges()[0]))


def test_an_estimate_is_a_value() -> None:
    found = estimate_clock(exchanges()[0])
    assert found == replace(found)
    assert found.offset_ns == found.base_ns + found.rest_ns
