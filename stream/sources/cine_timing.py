"""When each frame of a DICOM cine is due: from the header's vector, frame time, rates or frame stamps."""

import itertools
import math
import re
import statistics
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

FRAME_TIME = 0x00181063
FRAME_TIME_VECTOR = 0x00181065
CINE_RATE = 0x00180040
DISPLAY_RATE = 0x00082144
FRAME_INCREMENT_POINTER = 0x00280009
PER_FRAME_GROUPS = 0x52009230
FRAME_CONTENT = 0x00209111
_STAMPS = (0x00189074, 0x00189151)  # Frame Acquisition, Frame Reference DateTime
_DATE_TIME = re.compile(r"(\d{14})(\.\d{1,6})?")
TAGS = (FRAME_TIME, FRAME_TIME_VECTOR, CINE_RATE, DISPLAY_RATE, FRAME_INCREMENT_POINTER, PER_FRAME_GROUPS)


@dataclass(frozen=True)
class CineTiming:
    """When frames are due."""

    rate_hz: float | None
    """Nominal rate; None where the header says nothing."""
    intervals_ms: tuple[float, ...] | None = None
    """Time from frame i - 1 to frame i, for i from 1, where the frames are not evenly spaced."""
    notes: tuple[str, ...] = ()

    def interval_ms(self, index: int) -> float | None:
        """As `Source.interval_ms`: the step back to frame 0 is the median step."""
        if self.intervals_ms is not None and 1 <= index <= len(self.intervals_ms):
            return self.intervals_ms[index - 1]
        return None if self.rate_hz is None else 1000.0 / self.rate_hz


def read_timing(dataset: Any, frames: int) -> CineTiming:
    """Read the timing of a cine, the most exact statement first.

    PS3.3 C.7.6.5 (Cine Module): Frame Time Vector (0018,1065) holds the step to each frame in ms, its first
    value 0; Frame Time (0018,1063) one step in ms for all; Cine Rate (0018,0040) frames per second. Then the
    frame stamps of Enhanced objects (C.7.6.16.2.2), and last Recommended Display Frame Rate (0008,2144).
    Values that no cine can have are passed over with a note, which quotes nothing of the header.

    Args:
        dataset: The pydicom dataset, read with at least `TAGS`.
        frames: Number of frames.
    """
    notes: list[str] = []
    vector = _numbers(dataset, FRAME_TIME_VECTOR)
    if vector and frames > 1 and _points_to_vector(dataset):
        steps = vector[1:] if len(vector) == frames else vector
        if len(steps) == frames - 1 and all(math.isfinite(step) and step > 0 for step in steps):
            return CineTiming(1000.0 / statistics.median(steps), tuple(steps))
        notes.append(
            "The header's frame time vector cannot be followed (its length or a value) and is passed over."
        )
    for tag, name, is_step in (
        (FRAME_TIME, "frame time", True),
        (CINE_RATE, "cine rate", False),
    ):
        rate_hz = _rate(dataset, tag, name, is_step, notes)
        if rate_hz is not None:
            return CineTiming(rate_hz, notes=tuple(notes))
    steps = _stamped_steps(dataset, frames, notes)
    if steps:
        return CineTiming(1000.0 / statistics.median(steps), tuple(steps), tuple(notes))
    rate_hz = _rate(dataset, DISPLAY_RATE, "recommended display frame rate", False, notes)
    if rate_hz is not None:
        notes.append(
            "The rate is the header's recommended display rate; it does not say how fast frames were taken."
        )
    return CineTiming(rate_hz, notes=tuple(notes))


def _points_to_vector(dataset: Any) -> bool:
    """Whether the vector counts: it does unless Frame Increment Pointer (0028,0009) names Frame Time instead."""
    try:
        pointer = dataset[FRAME_INCREMENT_POINTER].value
    except Exception:
        return True
    pointers = pointer if isinstance(pointer, list | tuple) or hasattr(pointer, "__iter__") else [pointer]
    return FRAME_TIME not in pointers or FRAME_TIME_VECTOR in pointers


def _rate(dataset: Any, tag: int, name: str, is_step: bool, notes: list[str]) -> float | None:
    values = _numbers(dataset, tag)
    if not values:
        return None
    value = values[0]
    if not (math.isfinite(value) and value > 0):
        notes.append(f"The header's {name} is not above 0 and is passed over.")
        return None
    return 1000.0 / value if is_step else value


def _numbers(dataset: Any, tag: int) -> list[float]:
    """An element's values as numbers; empty where it is absent or holds something else."""
    try:
        value = dataset[tag].value
        if value is None or value == "":
            return []
        values = [value] if isinstance(value, str | int | float) or not hasattr(value, "__iter__") else value
        return [float(item) for item in values]
    except Exception:  # a damaged element may raise anything; its text must not be passed on
        return []


def _stamped_steps(dataset: Any, frames: int, notes: list[str]) -> list[float]:
    if frames < 2 or PER_FRAME_GROUPS not in dataset:
        return []
    try:
        groups = list(dataset[PER_FRAME_GROUPS].value)
    except Exception:
        return []
    for tag in _STAMPS:
        stamps = [_stamp(group, tag) for group in groups]
        known = [stamp for stamp in stamps if stamp is not None]
        if len(known) != frames:
            continue
        steps = [
            (later - earlier) / timedelta(milliseconds=1) for earlier, later in itertools.pairwise(known)
        ]
        if all(step > 0 for step in steps):
            return steps
        notes.append("The header's frame stamps do not ascend and are passed over.")
    return []


def _stamp(group: Any, tag: int) -> datetime | None:
    try:
        text = str(group[FRAME_CONTENT].value[0][tag].value)
        match = _DATE_TIME.match(text)
        if match is None:
            return None
        stamp = datetime.strptime(match[1], "%Y%m%d%H%M%S")
        return stamp + timedelta(seconds=float(match[2] or 0))
    except Exception:
        return None
