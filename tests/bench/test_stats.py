"""Intervals and slopes on series whose answer is known."""

import numpy as np
import pytest

from bench.stats import mean_interval, ratio_of_medians, slope


def test_a_series_twice_as_long_has_the_ratio_two_inside_a_tight_interval() -> None:
    random = np.random.default_rng(1)
    floor = random.normal(1.0, 0.05, 1000)
    ratio = ratio_of_medians(2.0 * random.normal(1.0, 0.05, 1000), floor)
    assert ratio is not None
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.low < 2.0 < ratio.high
    assert ratio.high - ratio.low < 0.1
    assert ratio.chunks == 20


def test_a_mood_of_the_machine_that_hits_both_widens_no_interval() -> None:
    mood = np.repeat(np.random.default_rng(2).uniform(1.0, 10.0, 20), 50)
    ratio = ratio_of_medians(1.5 * mood, mood)
    assert ratio is not None
    assert (ratio.value, ratio.low, ratio.high) == pytest.approx((1.5, 1.5, 1.5))


def test_a_mood_that_hits_one_series_only_widens_the_interval() -> None:
    mood = np.repeat(np.random.default_rng(2).uniform(1.0, 10.0, 20), 50)
    ratio = ratio_of_medians(mood, np.ones(1000))
    assert ratio is not None
    assert ratio.low is not None
    assert ratio.high is not None
    assert ratio.high > 1.2 * ratio.low


def test_few_frames_give_a_ratio_without_an_interval() -> None:
    ratio = ratio_of_medians(np.full(60, 3.0), np.full(60, 2.0))
    assert ratio is not None
    assert ratio.as_dict() == {"value": 1.5, "low": None, "high": None, "chunks": 1}


@pytest.mark.parametrize(
    ("numerator", "denominator"),
    [
        pytest.param(np.zeros(0), np.ones(9), id="nothing measured"),
        pytest.param(np.ones(9), np.zeros(0), id="no floor"),
        pytest.param(np.ones(9), np.zeros(9), id="a floor of zero"),
    ],
)
def test_there_is_no_ratio_without_two_series(numerator: np.ndarray, denominator: np.ndarray) -> None:
    assert ratio_of_medians(numerator, denominator) is None


def test_the_slope_of_a_line_is_found() -> None:
    frames = np.arange(100.0)
    assert slope(frames, 5.0 + 0.25 * frames) == pytest.approx(0.25)


def test_two_samples_have_no_slope() -> None:
    assert slope(np.array([0.0, 1.0]), np.array([0.0, 1.0])) is None


def test_a_mean_over_frames_has_an_interval_over_patients() -> None:
    rng = np.random.default_rng(0)
    of_patient = rng.normal(0.5, 0.1, 30)
    values = np.repeat(of_patient, 4) + rng.normal(0.0, 0.001, 120)
    patients = [f"p{index // 4}" for index in range(120)]
    mean, low, high = mean_interval(values, patients)
    assert mean == pytest.approx(values.mean())
    assert low is not None
    assert high is not None
    # As wide as 30 patients tell, not 120 frames.
    assert high - low == pytest.approx(2 * 1.96 * of_patient.std() / np.sqrt(30), rel=0.15)
    assert mean_interval(values, patients) == (mean, low, high)


def test_a_figure_that_does_not_exist_for_a_frame_is_left_out_of_the_mean() -> None:
    patients = ["a", "b", "c", "d", "e"]
    mean, low, high = mean_interval(np.array([1.0, np.nan, 3.0, 2.0, 2.0]), patients)
    assert mean == 2.0
    assert low is not None
    assert high is not None
    assert 1.0 <= low <= 2.0 <= high <= 3.0
    assert mean_interval(np.array([1.0, 3.0, np.nan]), patients[:3]) == (2.0, None, None)
    assert mean_interval(np.array([np.nan] * 3), patients[:3]) == (None, None, None)
