"""The recordings that a patient is taught on, read in the source process and brought to the network's size as they come."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from calib.errors import CalibrationError
from calib.field import inside_field
from calib.field_finder import find_field
from calib.intensity import default_tables, field_landmarks, landmark_table
from calib.results import Box
from stream.frame import Photometric
from stream.recording import GRANTS, Recording
from stream.sources.options import SourceOptions

MOST_FRAMES = 4000
"""Of all recordings: four minutes at 15 per second, 260 MB at 256 pixels."""
FIELD_FRAMES = 24


@dataclass(frozen=True)
class PatientRecording:
    """Frames in order, at the network's size, letterboxed as live frames are."""

    grey: UInt8[np.ndarray, "n s s"]
    """As the network sees them without a site's calibration: grey levels 0 to 255 over the stored range."""
    clear: UInt8[np.ndarray, "n s s"]
    """The same with the first frame's landmarks brought to the phantom's: what vessels are looked for in."""
    field: Bool[np.ndarray, "s s"]
    """True inside the collimated field."""
    rate_hz: float | None


def read_patient_recordings(
    sources: tuple[str, ...],
    options: SourceOptions,
    size: int,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> PatientRecording:
    """Read recordings one after the other, as if they were one.

    Args:
        sources: In the order in which they were taken; of one patient and projection.
        options: What is asked of each.
        size: The network's rows and columns.
        progress: Gets frames read so far, and how many the recording has (0 where unknown).

    Raises:
        SourceError: One cannot be read.
        CalibrationError: They are not alike, too long, or of one grey level.
        PipelineError: A source process failed.
    """
    frames: list[np.ndarray] = []
    first: tuple[int, int, int, Photometric, float | None] | None = None
    for number, source in enumerate(sources):
        with Recording(source, options, frames=None, slots=GRANTS + 2, stopped=lambda: False) as recording:
            said = recording.format
            kind = (said.rows, said.columns, said.bits_stored, said.photometric, recording.rate_hz)
            first = first or kind
            if kind != first:
                raise CalibrationError(
                    f"needed recordings alike, got {_words(first)} and, as recording {number + 1}, {_words(kind)}; "
                    "give those of one room and rate"
                )
            while (frame := recording.read()) is not None:
                if len(frames) == MOST_FRAMES:
                    raise CalibrationError(
                        f"needed at most {MOST_FRAMES} frames, got more; give the last minutes before the injection only"
                    )
                frames.append(_small(frame.view.live, size, said.bits_stored))
                recording.give_back(frame)
                progress(len(frames), recording.frame_count)
    if first is None or not frames:
        raise CalibrationError("needed frames, got none; give another recording")
    rows, columns, _, photometric, rate_hz = first
    stored = np.stack(frames)
    inverted = photometric is Photometric.MONOCHROME1
    if inverted:
        stored = 65535 - stored
    return _levelled(stored, _boxed_field(stored, rows, columns, size), rate_hz)


def _words(kind: tuple[int, int, int, Photometric, float | None]) -> str:
    rows, columns, bits, photometric, rate_hz = kind
    rate = "an unknown rate" if rate_hz is None else f"{rate_hz:g} per second"
    return f"{rows} x {columns}, {bits} bits, {photometric.name}, {rate}"


def _place(rows: int, columns: int, size: int) -> Box:
    """Where a frame lies in the network's square."""
    scale = size / max(rows, columns)
    high, wide = (max(1, math.floor(side * scale + 0.5)) for side in (rows, columns))
    top, left = (size - high) // 2, (size - wide) // 2
    return Box(left, top, left + wide, top + high)


def _small(frame: np.ndarray, size: int, bits_stored: int) -> np.ndarray:
    """A frame letterboxed to (size, size), uint16 over the whole range; sixteen bits keep what averaging adds."""
    rows, columns = frame.shape
    box = _place(rows, columns, size)
    how = cv2.INTER_AREA if max(rows, columns) > size else cv2.INTER_LINEAR
    wide, high = box.right - box.left, box.bottom - box.top
    small = cv2.resize(frame.astype(np.float32), (wide, high), interpolation=how)
    boxed = np.zeros((size, size), np.uint16)
    boxed[box.top : box.bottom, box.left : box.right] = np.rint(small * (65535.0 / ((1 << bits_stored) - 1)))
    return boxed


def _boxed_field(stored: np.ndarray, rows: int, columns: int, size: int) -> np.ndarray:
    """The collimated field in the network's square."""
    box = _place(rows, columns, size)
    some = stored[:FIELD_FRAMES, box.top : box.bottom, box.left : box.right].astype(np.float32).mean(axis=0)
    found = find_field(some / 257.0)
    field = np.zeros((size, size), bool)
    field[box.top : box.bottom, box.left : box.right] = inside_field(found.corners, found.circle, *some.shape)
    return field


def _levelled(stored: np.ndarray, field: np.ndarray, rate_hz: float | None) -> PatientRecording:
    """Both pictures of each frame in 8 bits."""
    low, high = field_landmarks(stored[0], field)
    try:
        clear_table, _ = landmark_table(low, high, 16)
    except ValueError:
        raise CalibrationError(
            "needed a first frame that shows something, got one grey level all over; give another recording"
        ) from None
    seen = []
    for table in (default_tables(16)[0], clear_table):
        knots = np.linspace(0.0, 65535.0, len(table))
        every = np.rint(255.0 * np.interp(np.arange(65536), knots, table)).clip(0, 255).astype(np.uint8)
        seen.append(every[stored])
    return PatientRecording(seen[0], seen[1], field, rate_hz)
