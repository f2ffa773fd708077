"""What a person may ask of a source, whichever kind it is."""

import math
from dataclasses import dataclass
from typing import Literal

LumaRange = Literal["auto", "limited", "full"]
Crop = tuple[int, int, int, int]


def parse_crop(text: str) -> Crop:
    """Read `x,y,w,h` in pixels, `x` and `y` counted from the upper left corner.

    Raises:
        ValueError: Not four whole numbers, a negative corner, or an empty region.
    """
    parts = text.split(",")
    try:
        x, y, width, height = (int(part) for part in parts)
    except ValueError:
        raise ValueError(
            f"--crop must be x,y,w,h in pixels, got {text!r}; for example 420,0,1080,1080"
        ) from None
    _check_crop((x, y, width, height))
    return x, y, width, height


def _check_crop(crop: Crop) -> None:
    x, y, width, height = crop
    if x < 0 or y < 0 or width < 1 or height < 1:
        raise ValueError(
            f"--crop must be x,y,w,h with x and y from 0 and w and h from 1, got {x},{y},{width},{height}; "
            "for example 420,0,1080,1080"
        )


@dataclass(frozen=True)
class SourceOptions:
    """Requests to `open_source()`; None leaves the choice to the source.

    Raises:
        ValueError: A value that no source could follow.
    """

    rate_hz: float | None = None
    """Frames per second of a recording or the phantom, over what its header says; the rate asked of a device."""
    crop: Crop | None = None
    """x, y, width, height in pixels of the region that is the X-ray picture."""
    gray: bool = False
    """Convert the colour of a video or image file to luma instead of refusing it."""
    luma: LumaRange = "auto"
    """Range of a device's luma: 16 to 235 (limited), 0 to 255 (full), or as its pixel format has it (auto)."""
    width: int | None = None
    """Columns asked of a device."""
    height: int | None = None
    """Rows asked of a device."""
    bits: int | None = None
    """Bits stored: of 16-bit images (which do not say, default 16) and of the phantom (default 8)."""
    size: int | None = None
    """Rows and columns of the phantom."""
    seed: int | None = None
    """The phantom's seed."""
    contrast: bool | None = None
    """Whether the phantom's vessels hold contrast medium."""
    untimed: bool = False
    """The frames are taken one by one and never played, so a recording that says nothing of time will do."""

    def __post_init__(self) -> None:
        if self.rate_hz is not None and not (math.isfinite(self.rate_hz) and self.rate_hz > 0):
            raise ValueError(
                f"--rate must be a number of frames per second above 0, got {self.rate_hz}; for example 15"
            )
        if self.crop is not None:
            _check_crop(self.crop)
        if self.luma not in ("auto", "limited", "full"):
            raise ValueError(f"--luma must be auto, limited or full, got {self.luma!r}")
        if (self.width is None) != (self.height is None):
            raise ValueError(
                "--width and --height go together: give both, or neither for the device's default"
            )
        for name, value in (("--width", self.width), ("--height", self.height), ("--size", self.size)):
            if value is not None and value < 1:
                raise ValueError(f"{name} must be a number of pixels from 1, got {value}")
        if self.bits is not None and not 8 <= self.bits <= 16:
            raise ValueError(f"--bits must be 8 to 16 bits stored, got {self.bits}")
