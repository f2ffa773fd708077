"""The watching of a camera, on described hardware: a camera whose pictures, stamps and faults are known."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from bench.config import GlassConfig
from bench.glass import GlassRun
from bench.glass_cameras import CameraFacts, Capture
from bench.glass_report import build_glass_report, format_glass
from bench.glass_watch import ABSENT, REFUSED, Captures, Watcher
from bench.machine import describe
from calib.target import TargetCode, draw_target
from stream.errors import SourceError

pytestmark = pytest.mark.hardware
MS = 1_000_000
PERIOD_MS, INTERVAL_MS, LATENCY_MS = 1000.0 / 30.0, 1000.0 / 60.0, 71.0
START_NS = 9_000_000_000
BEHIND = (360, 640)


class DescribedCamera:
    """A camera of 60 pictures per second before a screen that is so late. Its stamp is when the exposure began.

    Args:
        pictures: How many it takes before it ends.
        moves: From which picture on the screen lies elsewhere.
        mixes: Whether an exposure over a change of the screen mixes both frames.
        fails: Whether it ends with a fault.
        targets: How many of them are in its pictures.
    """

    def __init__(
        self, pictures: int, *, moves: int = 10**6, mixes: bool = False, fails: bool = False, targets: int = 1
    ) -> None:
        self.facts = CameraFacts("device", "described", BEHIND[1], BEHIND[0], "s", "n", True, True)
        self._pictures, self._moves, self._mixes, self._fails = pictures, moves, mixes, fails
        self._targets = targets
        self._at = 0

    def capture(self) -> Capture | None:
        if self._at == self._pictures:
            if self._fails:
                raise SourceError("the device delivers no more frames; check that it is plugged in")
            return None
        begun_ms = self._at * INTERVAL_MS
        first, last = self._shown(begun_ms), self._shown(begun_ms + 0.6 * INTERVAL_MS)
        picture = cv2.addWeighted(first, 0.5, last, 0.5, 0.0) if self._mixes else last
        self._at += 1
        stamp_ns = START_NS + round(begun_ms * MS)
        return Capture(stamp_ns, stamp_ns, picture)

    def _shown(self, at_ms: float) -> np.ndarray:
        scene = np.full(BEHIND, 90, np.uint8)
        number = int((at_ms + 500.0 - LATENCY_MS) // PERIOD_MS)
        due_ns = START_NS + round((number * PERIOD_MS - 500.0) * MS)
        target = draw_target(TargetCode.of(number, due_ns), 216)
        left, top = (10, 30) if self._at < self._moves else (300, 100)
        for place in range(self._targets):
            lower = top + 125 * place
            if lower + 120 <= BEHIND[0]:
                scene[lower : lower + 120, left : left + 216] = target
            else:
                scene[top : top + 120, left + 260 : left + 476] = target
        return scene

    def look_at(self, box: object) -> tuple[int, int]:
        return 0, 0

    def close(self) -> None:
        """Nothing is held."""


def watched(camera: DescribedCamera, folder: Path) -> tuple[Watcher, Captures]:
    """All that a watcher makes of a camera."""
    watcher = Watcher(camera)
    watcher.start()
    watcher._thread.join(60)
    watcher.finish(folder / "captures.npz")
    return watcher, Captures.load(folder / "captures.npz")


def test_a_cameras_exposure_is_within_the_bounds(tmp_path: Path) -> None:
    _, captures = watched(DescribedCamera(150), tmp_path)
    run = GlassRun(
        GlassConfig("v4l2:0", frames=60, display="none"), describe(), DescribedCamera(0).facts.as_dict()
    )
    run.captures, run.first, run.complete = captures, 15, True
    report = build_glass_report(run)
    assert report["codes"]["seen"] >= 58
    assert report["at_least_ms"]["max"] <= LATENCY_MS <= report["at_most_ms"]["min"]
    # One interval between two pictures, and one at either end for the exposure and the driver's stamp.
    assert report["uncertainty_ms"]["max"] == pytest.approx(3 * INTERVAL_MS, abs=0.1)
    assert "at most" in format_glass(report)


def test_a_target_that_moves_is_found_again(tmp_path: Path) -> None:
    _, captures = watched(DescribedCamera(100, moves=40), tmp_path)
    assert (captures.frame[:40, 0] >= 0).all()
    lost = np.flatnonzero(captures.frame[:, 0] < 0)
    assert 10 < lost.size < 25, "it is looked for again after a quarter of a second"
    assert (captures.frame[lost, 0] == REFUSED).all()
    assert (captures.frame[lost[-1] + 1 :, 0] >= 0).all()
    assert (captures.frame[:, 1] == ABSENT).all()


def test_exposures_that_mix_two_frames_are_refused_and_never_misread(tmp_path: Path) -> None:
    _, captures = watched(DescribedCamera(120, mixes=True), tmp_path)
    read = captures.frame[:, 0] >= 0
    # 60 exposures a second over 30 changes: every second one holds two frames.
    assert int((captures.frame[:, 0] == REFUSED).sum()) == 60
    truth = (captures.stamp_ns - START_NS) / MS + 500.0 - LATENCY_MS
    assert (captures.frame[read, 0] == (truth[read] // PERIOD_MS)).all()


def test_three_targets_are_too_many(tmp_path: Path) -> None:
    watcher, captures = watched(DescribedCamera(3, targets=3), tmp_path)
    assert (
        "needed one target, or the original and its copy, found 3; hide the others" in watcher.status()["why"]
    )
    assert (captures.frame == ABSENT).all()


def test_a_camera_that_fails_says_why(tmp_path: Path) -> None:
    watcher, captures = watched(DescribedCamera(3, fails=True), tmp_path)
    status = watcher.status()
    assert status["ended"]
    assert status["fault"] == "the device delivers no more frames; check that it is plugged in"
    assert captures.stamp_ns.size == 3
