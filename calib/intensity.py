"""Grey levels: from stored pixel values to the network's 0 to 1, and back.

The graph takes a table of 256 knots and its inverse as inputs, so another calibration needs no new model.
A site's own calibration replaces these defaults; its tables have the same form.
"""

import numpy as np
from jaxtyping import Bool, Float32, Float64

KNOTS = 256
MARGIN = 0.05
"""Share of the grey levels on either side kept for values outside the window."""

LANDMARKS_PERCENT = (1.0, 99.0)
"""The percentiles of a run's first frame, inside the field, that are its dark and its bright landmark."""
LANDMARK_GREYS = (0.34, 0.72)
"""Grey levels of the two landmarks: those of the digital phantom (mean of 40 training patients, 0.338 +- 0.043 and
0.715 +- 0.029), on which the networks are taught first, so that other frames reach them at the same contrast."""
REFERENCE_PERCENTS = (1.0, 5.0, 10.0, 25.0, 50.0, 75.0, 90.0, 95.0, 99.0)
"""Percentiles inside the field at which the frames that a network was taught on are described in its card."""
STEEPEST = 3.0
"""Slopes between landmarks are kept within this many times the mean slope, and a third of it."""
TAIL = 0.02
"""Share of the grey levels on either side kept for values far outside the landmarks."""


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


def field_landmarks(frame: np.ndarray, field: Bool[np.ndarray, "h w"]) -> tuple[float, float]:
    """The dark and the bright landmark of a frame: percentiles 1 and 99 inside the field.

    Taken from a run's first frame they are causal, and all frames of the run keep the same grey levels, so
    nothing flickers. Our choice: the percentiles leave out what a hot pixel or a clip does.

    Args:
        frame: (rows, columns) stored pixel values.
        field: True inside the collimated field.

    Raises:
        ValueError: The field is empty or has another shape.
    """
    if frame.shape != field.shape or not field.any():
        raise ValueError(
            f"field must be {frame.shape} with pixels inside, got {field.shape} with {int(field.sum())} inside"
        )
    low, high = np.percentile(frame[field], LANDMARKS_PERCENT)
    return float(low), float(high)


def landmark_table(
    low: float, high: float, bits_stored: int, inverted: bool = False
) -> tuple[Float32[np.ndarray, "256"], Float32[np.ndarray, "256"]]:
    """Grey-level table that brings two landmarks of a run to `LANDMARK_GREYS`, and its inverse.

    The straight line through both goes on beyond them, since contrast medium is darker than a contrast-free
    frame's dark landmark, as far as grey levels 0.02 and 0.98; the values beyond share the rest, so that the
    table stays strictly monotone and can be inverted.

    Args:
        low: Stored pixel value of the lower landmark.
        high: Of the higher one, above `low`.
        bits_stored: Bits stored per sample, 8 to 16.
        inverted: True for MONOCHROME1, whose lowest stored value is white.

    Returns:
        As `default_tables`.

    Raises:
        ValueError: Bits outside 8 to 16, or landmarks not finite, not apart or outside the stored range.
    """
    if not 8 <= bits_stored <= 16:
        raise ValueError(f"bits_stored must be 8 to 16, got {bits_stored}; convert the source")
    largest = float((1 << bits_stored) - 1)
    if not (np.isfinite(low) and np.isfinite(high) and 0.0 <= low < high <= largest):
        raise ValueError(f"landmarks must be apart and within 0 to {largest:g}, got {low} and {high}")
    # Of the stored values as they are: inverted ones become grey levels from white down.
    of_low, of_high = [1.0 - grey for grey in LANDMARK_GREYS[::-1]] if inverted else LANDMARK_GREYS
    slope = (of_high - of_low) / (high - low)

    def line(stored: float) -> float:
        return of_low + slope * (stored - low)

    toe, shoulder = low - (of_low - TAIL) / slope, high + (1.0 - TAIL - of_high) / slope
    corners = [(0.0, 0.0), (toe, TAIL)] if toe > 0.0 else [(0.0, line(0.0))]
    corners += [(shoulder, 1.0 - TAIL), (largest, 1.0)] if shoulder < largest else [(largest, line(largest))]
    knots, levels = zip(*corners, strict=True)
    grey = np.asarray(np.interp(np.linspace(0.0, largest, KNOTS), knots, levels), np.float64)
    if inverted:
        grey = 1.0 - grey
    return grey.astype(np.float32), invert(grey, largest)


def matched_table(
    landmarks: Float64[np.ndarray, " k"], greys: tuple[float, ...], bits_stored: int, inverted: bool = False
) -> tuple[Float32[np.ndarray, "256"], Float32[np.ndarray, "256"]]:
    """Grey-level table through landmarks of a site, each at the grey level of the same percentile in teaching.

    Straight between landmarks; beyond the outer ones at the mean slope of all as far as grey levels 0.02 and
    0.98, as `landmark_table` does. Piecewise linear matching of landmarks: Nyul and Udupa, On standardizing the MR
    image intensity scale (1999). Where landmarks are so near to each other that the slope between them would be
    more than `STEEPEST` times the mean, or less than the inverse of that, it is limited and the next ones make up
    for it: a histogram's narrow peak is not to be stretched without end.

    Args:
        landmarks: Stored values of the picture with vessels dark (largest value less the stored one if `inverted`),
            rising or equal.
        greys: Their grey levels, rising.
        bits_stored: Bits stored per sample, 8 to 16.
        inverted: Whether the lowest stored value is white.

    Returns:
        As `default_tables`.

    Raises:
        ValueError: Bits outside 8 to 16, or landmarks not finite, not rising, not apart or outside the stored range.
    """
    if not 8 <= bits_stored <= 16:
        raise ValueError(f"bits_stored must be 8 to 16, got {bits_stored}; convert the source")
    largest = float((1 << bits_stored) - 1)
    if (
        len(landmarks) != len(greys)
        or not np.isfinite(landmarks).all()
        or (np.diff(landmarks) < 0.0).any()
        or not 0.0 <= landmarks[0] < landmarks[-1] <= largest
    ):
        raise ValueError(
            f"{len(greys)} landmarks must rise within 0 to {largest:g}, got {landmarks.tolist()}"
        )
    levels = np.array(greys, np.float64)
    mean = (levels[-1] - levels[0]) / (landmarks[-1] - landmarks[0])
    knots, heights = _limited(landmarks, levels, mean)
    toe, shoulder = knots[0] - (heights[0] - TAIL) / mean, knots[-1] + (1.0 - TAIL - heights[-1]) / mean
    before = [(0.0, 0.0), (toe, TAIL)] if toe > 0.0 else [(0.0, heights[0] - mean * knots[0])]
    after = (
        [(shoulder, 1.0 - TAIL), (largest, 1.0)]
        if shoulder < largest
        else [(largest, heights[-1] + mean * (largest - knots[-1]))]
    )
    corners = [*before, *zip(knots, heights, strict=True), *after]
    places, values = np.array(corners).T
    grey = np.interp(np.linspace(0.0, largest, KNOTS), places, values)
    if inverted:
        grey = grey[::-1].copy()
    return grey.astype(np.float32), invert(grey, largest)


def _limited(
    landmarks: Float64[np.ndarray, " k"], levels: Float64[np.ndarray, " k"], mean: float
) -> tuple[Float64[np.ndarray, " m"], Float64[np.ndarray, " m"]]:
    """The landmarks, equal ones once, with grey levels moved so that no slope between them is beyond `STEEPEST` times the mean's.

    The outer two stay where they are.
    """
    gaps = np.diff(landmarks)
    least, most = mean * gaps / STEEPEST, mean * gaps * STEEPEST
    steps = np.diff(levels)
    for _ in range(len(steps)):
        steps = np.clip(steps, least, most)
        # What limiting took or gave is shared by those that may still change, in proportion to their width.
        left = levels[-1] - levels[0] - steps.sum()
        room = most - steps if left > 0.0 else steps - least
        if abs(left) < 1e-12 or room.sum() <= 0.0:
            break
        steps = steps + left * room / room.sum()
    heights = levels[0] + np.concatenate([[0.0], np.cumsum(steps)])
    apart = np.concatenate([[True], gaps > 0.0])
    return landmarks[apart], heights[apart]


def mean_percentiles(
    frames: np.ndarray, fields: Bool[np.ndarray, "n h w"], percents: tuple[float, ...] = REFERENCE_PERCENTS
) -> tuple[tuple[float, float], ...]:
    """(percentile, value) inside the field, each the mean over frames; nothing that lies outside the field counts.

    Args:
        frames: (n, rows, columns) of any real type.
        fields: True inside the field of each.
        percents: Rising, 0 to 100.

    Raises:
        ValueError: No frame, another shape of the fields, or a field that is empty.
    """
    if frames.shape != fields.shape or not len(frames) or not fields.any(axis=(1, 2)).all():
        raise ValueError(f"fields must be {frames.shape} with pixels inside each, got {fields.shape}")
    each = [
        np.percentile(frame[field], percents).astype(np.float64)
        for frame, field in zip(frames, fields, strict=True)
    ]
    return tuple(zip(percents, map(float, np.mean(each, axis=0)), strict=True))


def check_reference(reference: tuple[tuple[float, float], ...]) -> None:
    """Refuse landmarks that no table can be made from.

    Args:
        reference: (percentile, grey level) pairs.

    Raises:
        ValueError: Fewer than two, percentiles or grey levels that do not rise, or are outside 0 to 100 or 0 to 1.
    """
    percents, greys = np.array(reference, np.float64).reshape(-1, 2).T
    within = (
        np.isfinite(greys).all() and ((percents >= 0) & (percents <= 100) & (greys >= 0) & (greys <= 1)).all()
    )
    rising = (np.diff(percents) > 0).all() and (np.diff(greys) > 0).all()
    if len(percents) < 2 or not within or not rising:
        raise ValueError(
            f"a reference needs two or more rising percentiles, 0 to 100, with rising grey levels, 0 to 1, got {reference}"
        )


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
