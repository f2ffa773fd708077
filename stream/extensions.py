"""The message's typed extensions: their bytes, built once for each format, and what a reader makes of them.

`stream/wire.py` says where they lie and what each holds.
"""

import functools
import math
import struct
from dataclasses import dataclass

from stream.errors import WireError
from stream.frame import FrameFormat, Spacing, SpacingPlace

HEAD = struct.Struct("<HHI")
"""Type, 0, payload length in bytes."""
WINDOW, RATE, SPACING = 1, 2, 3
_SPACING = struct.Struct("<2dI")


@dataclass(frozen=True)
class Extensions:
    """What the extensions of a message say."""

    window_center: float | None = None
    window_width: float | None = None
    rate_hz: float = 0.0
    spacing: Spacing | None = None


@functools.lru_cache(maxsize=16)
def packed(frame_format: FrameFormat, rate_hz: float, spacing: Spacing | None) -> tuple[bytes, int]:
    """The extensions' bytes, a multiple of 8 of them, and how many extensions they are. The same object for every frame alike."""
    found: list[tuple[int, bytes]] = []
    if frame_format.window_center is not None and frame_format.window_width is not None:
        found.append((WINDOW, struct.pack("<2d", frame_format.window_center, frame_format.window_width)))
    found.append((RATE, struct.pack("<d", rate_hz)))
    if spacing is not None:
        found.append((SPACING, _SPACING.pack(spacing.row_mm, spacing.column_mm, spacing.place)))
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
        WireError: One is cut off, or a spacing is no size.
    """
    center: float | None = None
    width: float | None = None
    rate_hz = 0.0
    spacing: Spacing | None = None
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
        at += -(-length // 8) * 8
    return Extensions(center, width, rate_hz, spacing)


def _spacing(row_mm: float, column_mm: float, place: int) -> Spacing | None:
    """None where a later minor version knows a place that this one does not: a size without its place says nothing."""
    if not all(math.isfinite(each) and each > 0.0 for each in (row_mm, column_mm)):
        raise WireError(f"a pixel's spacing must be above 0 mm, got {row_mm} x {column_mm}")
    return Spacing(row_mm, column_mm, SpacingPlace(place)) if place in set(SpacingPlace) else None
