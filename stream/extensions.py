"""The message's typed extensions: their bytes, built once for each format, and what a reader makes of them.

`stream/wire.py` says where they lie and what each holds.
"""

import functools
import math
import struct
from dataclasses import dataclass

from calib.patient_facts import projection
from stream.errors import WireError
from stream.frame import FrameFormat, Spacing, SpacingPlace

HEAD = struct.Struct("<HHI")
"""Type, 0, payload length in bytes."""
WINDOW, RATE, SPACING, ADAPTATION = 1, 2, 3, 4
_SPACING = struct.Struct("<2dI")
_ADAPTATION = struct.Struct("<16s2dI")
MINUTES = 24 * 60


@dataclass(frozen=True)
class Adaptation:
    """Which patient's adaptation drew a frame, and what a viewer says of it.

    Raises:
        ValueError: No such key, time or angles.
    """

    key: str
    """32 hexadecimal digits, random: it tells two adaptations apart and nothing of the patient."""
    taught_minutes: int
    """Of the day, by the clock of the host where it was taught."""
    primary_deg: float | None = None
    """Positioner Primary Angle of the run that taught it, LAO positive; None where nothing said it."""
    secondary_deg: float | None = None
    """Positioner Secondary Angle, cranial positive."""

    def __post_init__(self) -> None:
        angles = [angle for angle in (self.primary_deg, self.secondary_deg) if angle is not None]
        if len(self.key) != 32 or any(digit not in "0123456789abcdef" for digit in self.key):
            raise ValueError("an adaptation's key has 32 hexadecimal digits")
        if not 0 <= self.taught_minutes < MINUTES or not all(abs(angle) <= 360.0 for angle in angles):
            raise ValueError("an adaptation was taught at a minute of the day, at angles within a turn")

    def describe(self) -> str:
        """As a viewer says it."""
        at = f"{self.taught_minutes // 60:02}:{self.taught_minutes % 60:02}"
        return f"patient-adapted, run of {at}, {projection(self.primary_deg, self.secondary_deg)}"


@dataclass(frozen=True)
class Extensions:
    """What the extensions of a message say."""

    window_center: float | None = None
    window_width: float | None = None
    rate_hz: float = 0.0
    spacing: Spacing | None = None
    adaptation: Adaptation | None = None


@functools.lru_cache(maxsize=16)
def packed(
    frame_format: FrameFormat, rate_hz: float, spacing: Spacing | None, adaptation: Adaptation | None
) -> tuple[bytes, int]:
    """The extensions' bytes, a multiple of 8 of them, and how many extensions they are. The same object for every frame alike."""
    found: list[tuple[int, bytes]] = []
    if frame_format.window_center is not None and frame_format.window_width is not None:
        found.append((WINDOW, struct.pack("<2d", frame_format.window_center, frame_format.window_width)))
    found.append((RATE, struct.pack("<d", rate_hz)))
    if spacing is not None:
        found.append((SPACING, _SPACING.pack(spacing.row_mm, spacing.column_mm, spacing.place)))
    if adaptation is not None:
        angles = (
            math.nan if angle is None else angle
            for angle in (adaptation.primary_deg, adaptation.secondary_deg)
        )
        key = bytes.fromhex(adaptation.key)
        found.append((ADAPTATION, _ADAPTATION.pack(key, *angles, adaptation.taught_minutes)))
    parts = [HEAD.pack(kind, 0, len(payload)) + payload + bytes(-len(payload) % 8) for kind, payload in found]
    return b"".join(parts), len(found)


def read(view: memoryview, at: int, end: int, count: int) -> Extensions:
    """Read the extensions of a message.

    Args:
        view: The message's bytes.
        at: Where the core ends.
        end: Where the header ends.
        count: How many there are.

    Raises:
        WireError: One is cut off, a spacing is no size, or an adaptation is none.
    """
    center: float | None = None
    width: float | None = None
    rate_hz = 0.0
    spacing: Spacing | None = None
    adaptation: Adaptation | None = None
    at = -(-at // 8) * 8
    for _ in range(count):
        if at + HEAD.size > end:
            raise WireError(f"the header ends at byte {end}, inside an extension at byte {at}")
        kind, _reserved, length = HEAD.unpack_from(view, at)
        at += HEAD.size
        if at + length > end:
            raise WireError(f"extension {kind} has {length} bytes, but the header ends at byte {end}")
        if kind == WINDOW and length >= 16:
            center, width = struct.unpack_from("<2d", view, at)
        elif kind == RATE and length >= 8:
            (rate_hz,) = struct.unpack_from("<d", view, at)
        elif kind == SPACING and length >= _SPACING.size:
            spacing = _spacing(*_SPACING.unpack_from(view, at))
        elif kind == ADAPTATION and length >= _ADAPTATION.size:
            adaptation = _adaptation(*_ADAPTATION.unpack_from(view, at))
        at += -(-length // 8) * 8
    return Extensions(center, width, rate_hz, spacing, adaptation)


def _spacing(row_mm: float, column_mm: float, place: int) -> Spacing | None:
    """None where a later minor version knows a place that this one does not: a size without its place says nothing."""
    if not all(math.isfinite(each) and each > 0.0 for each in (row_mm, column_mm)):
        raise WireError(f"a pixel's spacing must be above 0 mm, got {row_mm} x {column_mm}")
    return Spacing(row_mm, column_mm, SpacingPlace(place)) if place in set(SpacingPlace) else None


def _adaptation(key: bytes, primary_deg: float, secondary_deg: float, taught_minutes: int) -> Adaptation:
    angles = (None if math.isnan(angle) else angle for angle in (primary_deg, secondary_deg))
    try:
        return Adaptation(key.hex(), taught_minutes, *angles)
    except ValueError as error:
        raise WireError(f"the header holds a value that is not allowed: {error}") from error
