"""What travels: the format of a stream, its planes, and the states a picture can be in."""

import math
from dataclasses import dataclass
from enum import IntEnum, IntFlag

import numpy as np

MIN_SIDE = 64
MAX_SIDE = 2048
PLANE_ALIGNMENT = 64


class Photometric(IntEnum):
    """DICOM's Photometric Interpretation (0028,0004) of the live and the synthetic plane."""

    MONOCHROME1 = 1
    """The lowest stored value is shown white."""
    MONOCHROME2 = 2
    """The lowest stored value is shown black."""


class Plane(IntFlag):
    """The planes of a frame; a message's plane mask is the sum of those it carries."""

    LIVE = 1
    """The source after the site's crop and mask; nothing after the ring alters it."""
    SYNTHETIC = 2
    """The synthesized angiogram, in the live plane's own stored values."""
    ATTENTION = 4
    """How much of each pixel is synthetic, 0 to 255; where it is 0 synthetic equals live bit for bit."""


ALL_PLANES = Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION


class State(IntEnum):
    """What a picture is. The last three change the whole picture in a viewer, since an icon is not enough."""

    SYNTHETIC = 1
    PASSTHROUGH = 2
    """Live plane only; `Reason` says why."""
    UNCHANGED = 3
    """The source repeats one image (the pedal is up, or the grabber holds); the age says for how long."""
    STALE = 4
    """The source stopped; the age says for how long."""
    NO_SIGNAL = 5
    """The client hears nothing. Found by the client, never on the wire."""


class Reason(IntEnum):
    """Why a picture is PASSTHROUGH."""

    NONE = 0
    STARTING = 1
    DEADLINE = 2
    ENGINE_LOST = 3
    OUT_OF_DOMAIN = 4
    OUTPUT_INVALID = 5
    UNTAUGHT = 6
    OFF = 7


@dataclass(frozen=True)
class FrameFormat:
    """The geometry and meaning of every frame of one stream.

    Sizes are pixels. Stored pixel values are `uint8` for 8 bits stored and little-endian `uint16` above.

    Raises:
        ValueError: A side outside 64 to 2048, or bits stored outside 8 to 16.
    """

    rows: int
    columns: int
    bits_stored: int = 8
    photometric: Photometric = Photometric.MONOCHROME2
    window_center: float | None = None
    """VOI window centre (0028,1050), in stored pixel values; None where the source has none."""
    window_width: float | None = None
    """VOI window width (0028,1051), in stored pixel values."""

    def __post_init__(self) -> None:
        for name, side in (("rows", self.rows), ("columns", self.columns)):
            if not MIN_SIDE <= side <= MAX_SIDE:
                raise ValueError(
                    f"frames must be {MIN_SIDE} to {MAX_SIDE} pixels a side, got {self.rows} rows x "
                    f"{self.columns} columns; crop or resample the source ({name} is out of range)"
                )
        if not 8 <= self.bits_stored <= 16:
            raise ValueError(
                f"frames must have 8 to 16 bits stored, got {self.bits_stored}; convert the source"
            )

    @property
    def sample_bytes(self) -> int:
        """Bytes per stored pixel value: 1 for 8 bits stored, else 2."""
        return 1 if self.bits_stored == 8 else 2

    @property
    def dtype(self) -> np.dtype:
        """The live and synthetic planes' dtype."""
        return np.dtype(np.uint8) if self.sample_bytes == 1 else np.dtype("<u2")

    @property
    def pixels(self) -> int:
        """Pixels in one plane."""
        return self.rows * self.columns

    @property
    def max_value(self) -> int:
        """The largest stored pixel value."""
        return (1 << self.bits_stored) - 1

    def plane_bytes(self, plane: Plane) -> int:
        """Bytes of one plane, without padding."""
        return self.pixels * (1 if plane is Plane.ATTENTION else self.sample_bytes)


class SpacingPlace(IntEnum):
    """Where a pixel's size holds: what lies nearer to the focal spot is shown larger."""

    DETECTOR = 1
    """At the detector's front: what lies in the patient is smaller, by an unknown factor."""
    ISOCENTRE = 2
    """Where the C-arm turns about, by the header's distances."""
    OBJECT = 3
    """Where an object of known size lay when it was measured."""


@dataclass(frozen=True)
class Spacing:
    """How large a pixel of a stream is.

    Raises:
        ValueError: A size that is not above 0.
    """

    row_mm: float
    """From one row's middle to the next one's."""
    column_mm: float
    place: SpacingPlace

    def __post_init__(self) -> None:
        if not (math.isfinite(self.row_mm) and math.isfinite(self.column_mm)) or not (
            self.row_mm > 0.0 and self.column_mm > 0.0
        ):
            raise ValueError(f"a pixel's spacing must be above 0 mm, got {self.row_mm} x {self.column_mm}")


def aligned(size: int) -> int:
    """The next multiple of the planes' alignment (64 bytes, a cache line)."""
    return -(-size // PLANE_ALIGNMENT) * PLANE_ALIGNMENT
