"""One real run for `bench.patient_real`: its frames, two judges' vessels, and which heartbeats teach.

frames -> contrast-free | well filled, heartbeat (calib) -> taught heartbeats | held-out ones
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from bench.errors import BenchError
from calib.bolus import Bolus, tell_bolus
from calib.filling import connected_line_share, dark_line_share
from calib.heart_phase import HeartPhase, heart_phase
from casgan.archive import Run, read_archive
from casgan.mending import widened
from casgan.patient_lessons import well_filled
from casgan.patient_masks import patient_masks
from casgan.runs import load_run
from casgan.segmenter import VesselSegmenter

MARGIN_PX = 8
"""At the field's border nothing is judged: the source's masks have strips there."""
CATHETER_PX = 4
"""By which the catheter, as the contrast-free frames show it, is widened before it is left out."""
MASKS = "segmentedFrames"


@dataclass(frozen=True)
class RealRun:
    """A run at the network's size, in order."""

    name: str
    grey: UInt8[np.ndarray, "n s s"]
    inner: Bool[np.ndarray, "s s"]
    """The collimated field less `MARGIN_PX`: all that is judged."""
    source: Bool[np.ndarray, "n s s"]
    """The source's automatic masks, catheter included."""
    ours: Bool[np.ndarray, "n s s"]
    """Our segmenter's."""
    catheter: Bool[np.ndarray, "s s"]
    """What the source's masks have in the contrast-free frames, widened."""
    bolus: Bolus
    heart: HeartPhase
    taught: np.ndarray
    """Frame numbers."""
    held: np.ndarray
    beats_apart: bool
    """Whether taught and held-out frames are of different heartbeats."""

    @property
    def free(self) -> np.ndarray:
        """Numbers of the contrast-free frames."""
        return np.flatnonzero(self.bolus.free)

    @property
    def vessels(self) -> Bool[np.ndarray, "n s s"]:
        """What either judge takes for a vessel: what has to be removed."""
        return np.asarray(self.source | self.ours)

    def nearest(self, frame: int, among: np.ndarray) -> int:
        """Number of the frame among others that is nearest in phase."""
        apart = np.abs(self.heart.phase[among] - self.heart.phase[frame])
        return int(among[np.minimum(apart, 1.0 - apart).argmin()])

    def describe(self) -> dict[str, Any]:
        """Facts for the report."""
        filled = len(self.taught) + len(self.held)
        return {
            "run": self.name,
            "frames": len(self.grey),
            "recording": self.bolus.describe(),
            "free": self.free.tolist(),
            "frames_per_beat": self.heart.frames_per_beat,
            "clear": self.heart.clear,
            "filled_beats": filled / self.heart.frames_per_beat,
            "taught_frames": self.taught.tolist(),
            "held_frames": self.held.tolist(),
            "beats_apart": self.beats_apart,
        }


def masked_runs(data: Path) -> list[Run]:
    """Runs of `angiodata_cine` beside which the source's masks lie, by name.

    Raises:
        BenchError: There are none.
    """
    folder = data / "angiodata_cine"
    runs = [run for run in read_archive(folder).runs if _masks_of(run).is_dir()] if folder.is_dir() else []
    if not runs:
        raise BenchError(
            f"needed runs with {MASKS} beside their frames in angiodata_cine of {data.name}, got none; give the folder of "
            "real data that this project's tests use"
        )
    return sorted(runs, key=lambda run: run.name)


def _masks_of(run: Run) -> Path:
    return run.paths[0].parent.parent / MASKS


def read_run(run: Run, size: int, segmenter: VesselSegmenter) -> RealRun:
    """Read it, find its heartbeats and vessels, split it.

    Raises:
        BenchError: A mask is missing.
        CalibrationError: No injection in it.
        DataError: A frame cannot be read.
    """
    loaded = load_run(run, size)
    grey, field = loaded.grey, loaded.field
    kernel = np.ones((2 * MARGIN_PX + 1,) * 2, np.uint8)
    inner = cv2.erode(np.pad(field, MARGIN_PX).astype(np.uint8), kernel)
    inner = inner[MARGIN_PX:-MARGIN_PX, MARGIN_PX:-MARGIN_PX] > 0
    areas = [dark_line_share(frame, field) for frame in grey]
    trees = [connected_line_share(frame, field) for frame in grey]
    bolus, heart = tell_bolus(areas, trees), heart_phase(grey, field)
    source = np.stack([_source_mask(_masks_of(run) / f"{path.stem}_gt.jpg", size) for path in run.paths])
    source &= inner
    free = np.flatnonzero(bolus.free)
    ours = patient_masks(segmenter, grey, grey[free]) & inner
    catheter = widened(np.asarray(source[free].any(axis=0)), CATHETER_PX)
    taught, held, apart = split_beats(well_filled(bolus, heart), heart.frames_per_beat)
    return RealRun(run.name, grey, inner, source, ours, catheter, bolus, heart, taught, held, apart)


def _source_mask(path: Path, size: int) -> np.ndarray:
    mask = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if mask is None:
        raise BenchError(
            f"needed a mask for each frame, {path.name} cannot be read; restore it from the source"
        )
    small = cv2.resize((mask >= 128).astype(np.float32), (size, size), interpolation=cv2.INTER_AREA)
    return np.asarray(small > 0.5)


def split_beats(
    filled: Bool[np.ndarray, " n"], frames_per_beat: float
) -> tuple[np.ndarray, np.ndarray, bool]:
    """Split filled frames into taught and held-out ones; the later ones are held out.

    Args:
        filled: True of well filled frames.
        frames_per_beat: Length of a heartbeat.

    Returns:
        Frame numbers taught, frame numbers held out, and whether they are of different heartbeats: so where
        two beats are filled (to a quarter of a beat). Otherwise the later half is held out.

    Raises:
        BenchError: Fewer than four filled frames.
    """
    numbers = np.flatnonzero(filled)
    if len(numbers) < 4:
        raise BenchError(
            f"needed 4 well filled frames to teach and hold out, got {len(numbers)}; give a longer run"
        )
    beats = len(numbers) / frames_per_beat
    apart = beats >= 1.75
    # Half of the beats, in whole beats; of a beat more or less than two halves, the taught part has the rest.
    count = round(max(1, int(beats / 2)) * frames_per_beat) if apart else len(numbers) // 2
    return numbers[:-count], numbers[-count:], bool(apart)
