"""Grey levels: from stored pixel values to the network's 0 to 1, and back.

The graph takes a table of 256 knots and its inverse as inputs, so another calibration needs no new model.
A site's own calibration replaces these defaults; its tables have the same form.
"""

import numpy as np
from jaxtyping import Float32, Float64

KNOTS = 256
MARGIN = 0.05
"""Share of the grey levels on either side kept for values outside the window."""


def default_tables(
    bits_stored: int,
    inverted: bool = False,
    window: tuple[float, float] | None = None,
) -> tuple[Float32[np.ndarray, "256"], Float32[np.ndarray, "256"]]:
    """Grey-level table and inverse for frames without a site calibration.

    Without a window the whole stored range is mapped linearly. With one, the window takes the grey levels
    from 0.05 to 0.95 and what lies outside it the rest, so that the table stays strictly monotone and can be
    inverted: DICOM's own window clips, and a clipped value could not be mapped back. The knots are spaced
    evenly over the stored range, so a window narrower than a few 1/256 of it is followed coarsely.

    Args:
        bits_stored: Bits stored per sample, 8 to 16.
        inverted: True for MONOCHROME1, whose lowest stored value is shown white.
        window: Centre and width in stored pixel values, DICOM's (0028,1050) and (0028,1051); None for none.

    Returns:
        Grey level, 0 black to 1 white, at 256 stored values from 0 to the largest; and the stored value at
        256 grey levels from 0 to 1. Linear between knots.

    Raises:
        ValueError: Bits outside 8 to 16; a window that is not finite or not at least 1 wide.
    """
    if not 8 <= bits_stored <= 16:
        raise ValueError(f"bits_stored must be 8 to 16, got {bits_stored}; convert the source")
    largest = float((1 << bits_stored) - 1)
    stored = np.linspace(0.0, largest, KNOTS)
    grey = stored / largest if window is None else _windowed(stored, largest, *window)
    if inverted:
        grey = 1.0 - grey
    return grey.astype(np.float32), invert(grey, largest)


def invert(grey: Float64[np.ndarray, "256"], largest: float) -> Float32[np.ndarray, "256"]:
    """The inverse of a strictly monotone table, sampled at 256 grey levels from 0 to 1.

    Args:
        grey: Grey levels at 256 stored values, evenly from 0 to `largest`.
        largest: The largest stored pixel value.

    Returns:
        Stored pixel values within 0 to `largest`; grey levels outside the table's own range get its ends.
    """
    stored = np.linspace(0.0, largest, len(grey))
    rising = slice(None) if grey[-1] >= grey[0] else slice(None, None, -1)
    levels = np.linspace(0.0, 1.0, KNOTS)
    return np.interp(levels, grey[rising], stored[rising]).astype(np.float32)


def _windowed(
    stored: Float64[np.ndarray, "256"], largest: float, center: float, width: float
) -> Float64[np.ndarray, "256"]:
    if not (np.isfinite(center) and np.isfinite(width) and width >= 1.0):
        raise ValueError(f"a window needs a finite centre and a width of 1 or more, got {center} and {width}")
    # DICOM PS3.3 C.11.2.1.2.1, LINEAR: the window's ends. A window that leaves the range is cut to it.
    low = min(max(center - 0.5 - (width - 1.0) / 2.0, 0.0), largest - 1.0)
    high = max(min(center - 0.5 + (width - 1.0) / 2.0, largest), low + 1.0)
    corners = [(0.0, 0.0), (low, MARGIN), (high, 1.0 - MARGIN), (largest, 1.0)]
    # Without values below or above the window its margin on that side is not needed.
    if low <= 0.0:
        corners = [(0.0, 0.0), *corners[2:]]
    if high >= largest:
        corners = [*corners[:-2], (largest, 1.0)]
    knots, levels = zip(*corners, strict=True)
    return np.asarray(np.interp(stored, knots, levels), np.float64)
