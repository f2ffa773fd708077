"""The frames that a site is calibrated on."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from calib.config import FramesConfig
from calib.errors import CalibrationError
from calib.record import SourceIdentity
from stream.calibration_frames import Thinned, read_site_frames
from stream.errors import SourceError


def folder(path: Path, values: list[int], size: tuple[int, int] = (64, 80)) -> str:
    """A folder of flat frames."""
    path.mkdir()
    for number, value in enumerate(values):
        cv2.imwrite(str(path / f"frame_{number}.png"), np.full(size, value, np.uint8))
    return str(path)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40, 1000])
def test_frames_that_are_kept_are_spread_evenly_over_a_run_of_any_length(count: int) -> None:
    thinned = Thinned(8)
    for number in range(count):
        thinned.offer(np.array([number]))
    kept = [int(frame[0]) for frame in thinned.kept]
    assert (kept[0], thinned.seen) == (0, count)
    assert len(set(np.diff(kept))) <= 1
    assert min(count, 5) <= len(kept) <= 8
    assert kept[-1] >= count - 1 - (kept[1] if len(kept) > 1 else 0)


def test_a_frame_is_copied_since_its_slot_is_used_again() -> None:
    frame = np.array([1])
    thinned = Thinned(4)
    thinned.offer(frame)
    frame[0] = 2
    assert thinned.kept[0][0] == 1


def test_several_sources_of_one_room_are_read_one_after_the_other(tmp_path: Path) -> None:
    sources = (folder(tmp_path / "a", [1, 2, 3]), folder(tmp_path / "b", [4, 5]))
    told: list[tuple[int, int, int]] = []
    got = read_site_frames(FramesConfig(sources), lambda *said: told.append(said))
    assert got.frames.shape == (5, 64, 80)
    assert list(got.frames[:, 0, 0]) == [1, 2, 3, 4, 5]
    assert list(got.runs) == [0, 0, 0, 1, 1]
    assert got.source == SourceIdentity("folder", 64, 80, 8, "MONOCHROME2")
    assert told[-1] == (1, 2, 2)


def test_frames_are_shared_evenly_between_the_sources(tmp_path: Path) -> None:
    sources = (folder(tmp_path / "a", [1] * 20), folder(tmp_path / "b", [2] * 3))
    got = read_site_frames(FramesConfig(sources, frames=10))
    assert (got.runs == 0).sum() == 5
    assert (got.runs == 1).sum() == 3


def test_sources_of_different_rooms_are_refused_with_the_difference(tmp_path: Path) -> None:
    sources = (folder(tmp_path / "a", [1, 2]), folder(tmp_path / "b", [1, 2], (80, 64)))
    with pytest.raises(
        CalibrationError, match=r"source 2 differs from the first: needed frames of 64 x 80, got 80 x 64"
    ):
        read_site_frames(FramesConfig(sources))


def test_one_frame_is_too_few(tmp_path: Path) -> None:
    with pytest.raises(CalibrationError, match="needed at least 2 frames, got 1; give a longer recording"):
        read_site_frames(FramesConfig((folder(tmp_path / "a", [1]),)))


def test_the_phantom_is_read_for_as_long_as_asked() -> None:
    got = read_site_frames(FramesConfig(("phantom",), size=64, seconds=0.4))
    assert got.frames.shape == (6, 64, 64)
    assert got.source.kind == "phantom"


def test_what_identifies_the_source_holds_the_crop(tmp_path: Path) -> None:
    got = read_site_frames(FramesConfig((folder(tmp_path / "a", [1, 2], (80, 80)),), crop="4,8,64,72"))
    assert got.source == SourceIdentity("folder", 72, 64, 8, "MONOCHROME2", "crop 4,8,64,72")


def test_a_source_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="No such file"):
        read_site_frames(FramesConfig((str(tmp_path / "none"),)))
    with pytest.raises(SourceError, match="needed a capture device"):
        read_site_frames(FramesConfig(("v4l2:77",)))
