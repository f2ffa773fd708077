"""Real runs: beats are split, vessels removed, and the leak probe tells a reader from one who knows."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.errors import BenchError
from bench.patient_real_probe import chance, on_free_frames, probe, roadmaps_on_free_frames, scenes_of
from bench.patient_real_roadmaps import wide_roadmaps
from bench.patient_real_run import RealRun, masked_runs, split_beats
from calib.bolus import AFTER, BEFORE, FILLED, Bolus
from calib.heart_phase import HeartPhase
from casgan.mending import mended, mirrored, moved, widened

SIDE = 128
FRAMES = 8


def background() -> np.ndarray:
    rng = np.random.default_rng(5)
    calm = cv2.GaussianBlur(rng.normal(150.0, 60.0, (SIDE, SIDE)).astype(np.float32), (0, 0), 8.0)
    return np.rint(calm + rng.normal(0.0, 3.0, (SIDE, SIDE))).clip(0, 255).astype(np.uint8)


def vessel(at: int) -> np.ndarray:
    """A line that moves on by 4 pixels a frame, on the left."""
    mask = np.zeros((SIDE, SIDE), np.uint8)
    cv2.line(mask, (24 + 4 * at, 20), (34 + 4 * at, 100), 1, 4)
    return mask > 0


@pytest.fixture(scope="module")
def run() -> RealRun:
    """Two contrast-free frames, four filled ones, two after; the background is always the same."""
    states = (BEFORE,) * 2 + (FILLED,) * 4 + (AFTER,) * 2
    masks = np.stack(
        [vessel(at) if state == FILLED else np.zeros((SIDE, SIDE), bool) for at, state in enumerate(states)]
    )
    grey = np.stack([np.where(mask, 60, background()).astype(np.uint8) for mask in masks])
    inner = np.zeros((SIDE, SIDE), bool)
    inner[8:-8, 8:-8] = True
    return RealRun(
        "made/up",
        grey,
        inner,
        masks,
        masks,
        np.zeros((SIDE, SIDE), bool),
        Bolus(states, masks.mean(axis=(1, 2)), 0.0, 0.03),
        HeartPhase(np.arange(FRAMES) % 2 / 2.0, np.zeros(FRAMES), 2.0, 0.9),
        np.array([2, 3]),
        np.array([4, 5]),
        True,
    )


@pytest.mark.parametrize(
    ("filled", "frames_per_beat", "taught", "held", "apart"),
    [
        pytest.param(range(10, 26), 7.2, range(10, 19), range(19, 26), True, id="two beats"),
        pytest.param(range(3, 13), 5.2, range(3, 8), range(8, 13), True, id="nearly two"),
        pytest.param(range(28), 7.0, range(14), range(14, 28), True, id="four: two are held out"),
        pytest.param(range(8), 13.0, range(4), range(4, 8), False, id="half a beat"),
    ],
)
def test_the_last_half_of_the_filled_heartbeats_is_held_out(
    filled: range, frames_per_beat: float, taught: range, held: range, apart: bool
) -> None:
    row = np.isin(np.arange(40), list(filled))
    told = split_beats(row, frames_per_beat)
    assert (told[0].tolist(), told[1].tolist(), told[2]) == (list(taught), list(held), apart)


def test_three_filled_frames_are_too_few() -> None:
    with pytest.raises(BenchError, match="needed 4 well filled frames to teach and hold out, got 3"):
        split_beats(np.arange(20) < 3, 6.0)


def test_a_removed_vessel_is_gone_and_all_else_is_as_it_was() -> None:
    plain, mask = background(), vessel(0)
    after = mended(np.where(mask, 60, plain).astype(np.uint8), mask, np.random.default_rng(0))
    hole = widened(mask, 2)
    assert np.array_equal(after[~hole], plain[~hole])
    off = after[hole].astype(float) - plain[hole]
    assert abs(off.mean()) < 3.0
    # The line lay 90 grey levels deep; what is left is grain.
    assert np.abs(off).max() < 30.0
    fine = after.astype(np.float32) - cv2.GaussianBlur(after.astype(np.float32), (0, 0), 1.5)
    assert 0.6 < fine[hole].std() / fine[~hole].std() < 1.4


def test_decoys_lie_elsewhere() -> None:
    mask = vessel(1)
    assert not (mirrored(mask) & mask).any()
    assert np.array_equal(np.argwhere(moved(mask, 3, -5)), np.argwhere(mask) + np.array([3, -5]))


def test_the_probe_tells_one_who_reads_the_mending_from_one_who_knows_the_anatomy(run: RealRun) -> None:
    def reader(grey: np.ndarray) -> np.ndarray:
        changed = (grey != background()).astype(np.uint8)
        return np.stack(
            [cv2.morphologyEx(one, cv2.MORPH_CLOSE, np.ones((3, 3), np.uint8)) > 0 for one in changed]
        )

    def knower(grey: np.ndarray) -> np.ndarray:
        return run.source[run.held]

    scenes = scenes_of(run)
    assert np.array_equal(scenes["free"], np.stack([background()] * 2))
    reads, knows = probe(run, scenes, reader), probe(run, scenes, knower)
    assert reads["removed"]["own"] > 0.8
    assert reads["free"]["area"] == 0.0
    assert reads["free, mended along own"]["own"] > 0.8
    assert reads["free, mended along mirrored"]["mirrored"] > 0.8
    assert reads["free, mended along mirrored"]["own"] < 0.1
    assert reads["free, mended along another moment"]["another moment"] > 0.8
    assert {told["own"] for told in knows.values()} == {1.0}
    assert knows["removed"]["mirrored"] == chance(run)["mirrored"] == 0.0


def test_contrast_free_frames_are_judged_by_the_filled_frame_of_their_phase(run: RealRun) -> None:
    # Frames 0 and 6 are of phase 0, 1 and 7 of 0.5: the nearest filled ones are 2 and 3.
    told = on_free_frames(run, lambda grey: run.source[[2, 3, 2, 3]])
    assert told["cldice"] == 1.0
    assert told["area"] == told["filled_area"]
    roads = roadmaps_on_free_frames(run)
    assert roads["static roadmap"] == roads["any taught frame"] < roads["best filled frame"] == 1.0


def test_wide_roadmaps_draw_the_area_that_is_asked_for(run: RealRun) -> None:
    drawn = wide_roadmaps(run, run.grey[run.free], 0.06)
    static = drawn["all taught frames, as wide"]
    for masks in drawn.values():
        assert masks.sum(axis=(1, 2)) / run.inner.sum() == pytest.approx(0.06, abs=0.005)
    # The background lies still, and so do the vessels that lie between the two taught frames'.
    assert (static[0] & vessel(2)).sum() > 0.9 * vessel(2).sum()
    assert not (static[0] & mirrored(vessel(2))).any()


def test_a_folder_without_masks_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BenchError, match="needed runs with segmentedFrames"):
        masked_runs(tmp_path)
