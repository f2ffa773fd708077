"""When contrast medium comes, and where the heart is, against the phantom's truth."""

import numpy as np
import pytest

from calib.bolus import AFTER, BEFORE, FILLED, tell_bolus
from calib.config import PhantomConfig
from calib.errors import CalibrationError
from calib.filling import connected_line_share, dark_line_share
from calib.heart_phase import heart_phase
from calib.phantom import Phantom


@pytest.fixture(scope="module")
def injection() -> tuple[Phantom, np.ndarray]:
    """A phantom's run with one injection, one breath and five heartbeats."""
    phantom = Phantom(PhantomConfig(seed=901, rows=192, columns=192, contrast=True, bolus=True))
    return phantom, np.stack([phantom.frame(index).live for index in range(phantom.loop.frames)])


def measured(frames: np.ndarray, field: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    return (
        np.array([dark_line_share(frame, field) for frame in frames]),
        np.array([connected_line_share(frame, field) for frame in frames]),
    )


def test_frames_without_and_with_contrast_are_told_as_the_phantom_filled_them(
    injection: tuple[Phantom, np.ndarray],
) -> None:
    phantom, frames = injection
    bolus = tell_bolus(*measured(frames, phantom.field > 0.5))
    filling = [phantom.filling(index) for index in range(len(frames))]
    amount = np.array([0.0 if one is None else float(one.mean()) for one in filling])
    assert bolus.states.count(BEFORE) >= 3
    assert bolus.states.count(FILLED) >= 10
    assert amount[bolus.free].max() < 0.05
    assert amount[bolus.filled].min() > 0.3
    assert np.median(amount[bolus.filled]) > 0.9
    assert "filled from frame" in bolus.describe()


def test_the_heartbeat_and_the_breath_are_seen_through_the_contrast_medium(
    injection: tuple[Phantom, np.ndarray],
) -> None:
    phantom, frames = injection
    found = heart_phase(frames, phantom.field > 0.5, 15.0)
    count = len(frames)
    assert found.frames_per_beat == pytest.approx(count / phantom.loop.beats, rel=0.03)
    assert found.beats == pytest.approx(phantom.loop.beats, abs=0.3)
    # The phase starts anywhere, so that one turn of it is free.
    truth = np.array([phantom.phases(index)[0] for index in range(count)])
    assert abs(np.exp(2j * np.pi * (found.phase - truth)).mean()) > 0.9
    dome = [phantom.pose(index).dome_mm[1] for index in range(count)]
    assert np.corrcoef(found.breath, dome)[0, 1] > 0.8
    assert (np.diff(found.beat) >= 0).all()


def test_a_run_that_nothing_was_injected_in_is_refused() -> None:
    phantom = Phantom(PhantomConfig(seed=901, rows=128, columns=128))
    frames = np.stack([phantom.frame(index).live for index in range(20)])
    with pytest.raises(
        CalibrationError, match="needed a run with contrast medium, got one whose vessel area"
    ):
        tell_bolus(*measured(frames, phantom.field > 0.5))


def test_a_run_that_is_filled_from_its_first_frame_is_refused(injection: tuple[Phantom, np.ndarray]) -> None:
    phantom, frames = injection
    middle = len(frames) // 2
    areas, trees = measured(frames[middle - 10 : middle], phantom.field > 0.5)
    with pytest.raises(
        CalibrationError, match="first frame shows filled vessels; start recording two heartbeats"
    ):
        tell_bolus(areas, trees)


def test_too_few_frames_are_refused_and_a_wrong_share_is_a_fault_of_the_caller() -> None:
    with pytest.raises(
        CalibrationError, match=r"needed a run of 8 frames or more.*got 3; record a longer one"
    ):
        tell_bolus([0.0, 0.1, 0.2], [0.0, 0.1, 0.2])
    with pytest.raises(CalibrationError, match="needed 8 frames or more to see a heartbeat, got 3"):
        heart_phase(np.zeros((3, 64, 64), np.uint8), np.ones((64, 64), bool))
    with pytest.raises(ValueError, match=r"areas must be \(n,\) shares from 0 to 1"):
        tell_bolus([0.0, float("nan")], [0.0, 0.0])


def test_washed_out_frames_count_as_contrast_free_again() -> None:
    areas = np.concatenate(
        [np.full(6, 0.01), np.linspace(0.01, 0.1, 6), np.full(10, 0.1), np.linspace(0.1, 0.01, 6)]
    )
    areas = np.concatenate([areas, np.full(8, 0.01)])
    bolus = tell_bolus(areas, areas)
    assert bolus.states[0] == BEFORE
    assert bolus.states[-1] == AFTER
    assert not (bolus.free & bolus.filled).any()
