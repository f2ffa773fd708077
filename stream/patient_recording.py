"""The recordings that a patient is taught on, read in the source process and brought to the network's size as they come."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8

from calib.errors import CalibrationError
from calib.field import inside_field
from calib.field_finder import find_field
from calib.intensity import field_landmarks, landmark_table
from calib.patient_facts import levels_name, projection
from calib.results import Box
from stream.frame import FrameFormat, Photometric
from stream.recording import GRANTS, Recording
from stream.sources.options import SourceOptions

MOST_FRAMES = 4000
"""Of all recordings: four minutes at 15 per second, 260 MB at 256 pixels."""
FIELD_FRAMES = 24
SAME_RATE = 0.05
SAME_DEG = 1.0
"""So far two recordings' angles may be apart to be of one projection."""


@dataclass(frozen=True)
class PatientRecording:
    """Frames in order, at the network's size, letterboxed as live frames are."""

    grey: UInt8[np.ndarray, "n s s"]
    """As the network sees them: grey levels 0 to 255, by the site's record or the recording's own window."""
    clear: UInt8[np.ndarray, "n s s"]
    """The same with the first frame's landmarks brought to the phantom's: what vessels are looked for in."""
    field: Bool[np.ndarray, "s s"]
    """True inside the collimated field."""
    rate_hz: float | None
    features: Float32[np.ndarray, "n 71"]
    """What the live graph says of each frame."""
    levels_sha256: str
    """Which grey levels the frames were given (`calib.patient_facts.levels_name`)."""
    angles_deg: tuple[float, float] | None
    """The C-arm's, where the recordings say them."""


@runtime_checkable
class Look(Protocol):
    """`stream.patient_look.GraphLook`."""

    def open(self, frame_format: FrameFormat) -> Float32[np.ndarray, "256"]: ...

    def features(self, live: np.ndarray) -> Float32[np.ndarray, "71"]: ...


def read_patient_recordings(
    sources: tuple[str, ...],
    options: SourceOptions,
    size: int,
    look: Look,
    blank: dict[str, Any] | None = None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> PatientRecording:
    """Read recordings one after the other, as if they were one.

    Args:
        sources: In the order in which they were taken; of one patient and projection.
        options: What is asked of each.
        size: The network's rows and columns.
        look: What the live graph says of a frame, and its grey levels.
        blank: Regions that no frame may show, as `stream.blank.Blank.as_json` gives them.
        progress: Gets frames read so far, and how many the recording has (0 where unknown).

    Raises:
        SourceError: One cannot be read.
        CalibrationError: They are not alike, too long, or of one grey level.
        PipelineError: A source process failed.
    """
    frames: list[np.ndarray] = []
    features: list[np.ndarray] = []
    first: tuple[FrameFormat, float | None] | None = None
    angles: tuple[float, float] | None = None
    table = np.zeros(0, np.float32)
    for number, source in enumerate(sources):
        with Recording(
            source, options, frames=None, slots=GRANTS + 2, stopped=lambda: False, blank=blank
        ) as recording:
            kind = (recording.format, recording.rate_hz)
            first = first or kind
            if not _alike(first, kind):
                raise CalibrationError(
                    f"needed recordings alike, got {_words(*first)} and, as recording {number + 1}, {_words(*kind)}; "
                    "give those of one room and rate"
                )
            angles = _one_projection(angles, recording.angles_deg, number)
            table = look.open(recording.format)
            while (frame := recording.read()) is not None:
                if len(frames) == MOST_FRAMES:
                    raise CalibrationError(
                        f"needed at most {MOST_FRAMES} frames, got more; give the last minutes before the injection only"
                    )
                frames.append(_small(frame.view.live, size, recording.format.bits_stored))
                features.append(look.features(frame.view.live))
                recording.give_back(frame)
                progress(len(frames), recording.frame_count)
    if first is None or not frames:
        raise CalibrationError("needed frames, got none; give another recording")
    frame_format, rate_hz = first
    stored = np.stack(frames)
    looked = np.stack(features)
    inverted = frame_format.photometric is Photometric.MONOCHROME1
    upright = 65535 - stored if inverted else stored
    field = _boxed_field(upright, frame_format.rows, frame_format.columns, size)
    grey, clear = _in_levels(stored, table), _in_levels(upright, _clear_table(upright[0], field))
    return PatientRecording(grey, clear, field, rate_hz, looked, levels_name(table), angles)


def _alike(first: tuple[FrameFormat, float | None], kind: tuple[FrameFormat, float | None]) -> bool:
    """Whether two recordings are of one room: a rate that was measured is not quite the same twice."""
    if None in (first[1], kind[1]):
        return first == kind
    return first[0] == kind[0] and math.isclose(first[1] or 0.0, kind[1] or 0.0, rel_tol=SAME_RATE)


def _one_projection(
    before: tuple[float, float] | None, now: tuple[float, float] | None, number: int
) -> tuple[float, float] | None:
    """The recordings' angles.

    Raises:
        CalibrationError: They are of two projections.
    """
    if before is not None and now is not None and max(map(abs, np.subtract(before, now))) > SAME_DEG:
        raise CalibrationError(
            f"needed recordings of one projection, got {projection(*before)} and, as recording {number + 1}, "
            f"{projection(*now)}; give those of one"
        )
    return now if before is None else before


def _words(kind: FrameFormat, rate_hz: float | None) -> str:
    rate = "an unknown rate" if rate_hz is None else f"{rate_hz:g} per second"
    window = "" if kind.window_center is None else f", window {kind.window_center:g}/{kind.window_width:g}"
    return f"{kind.rows} x {kind.columns}, {kind.bits_stored} bits, {kind.photometric.name}{window}, {rate}"


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


def _clear_table(first: np.ndarray, field: np.ndarray) -> np.ndarray:
    """The grey levels that bring a frame's landmarks to the phantom's."""
    low, high = field_landmarks(first, field)
    try:
        return np.asarray(landmark_table(low, high, 16)[0])
    except ValueError:
        raise CalibrationError(
            "needed a first frame that shows something, got one grey level all over; give another recording"
        ) from None


def _in_levels(stored: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Frames of 16 bits as grey levels 0 to 255."""
    knots = np.linspace(0.0, 65535.0, len(table))
    every = np.rint(255.0 * np.interp(np.arange(65536), knots, table)).clip(0, 255).astype(np.uint8)
    seen: np.ndarray = every[stored]
    return seen
