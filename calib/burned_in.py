"""Text and logos burned into the picture: marks that stay the same while the picture around them changes.

A mark is steady, where X-rays always bring noise, and stands out from what is around it. Shutters, letterboxes and
saturated regions are steady too, but do not stand out from themselves; a picture that does not change at all, as of a
source that repeats one frame, cannot be told from a mark, and nothing is found in it.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8, UInt16

from calib.errors import CalibrationError
from calib.results import Box

LEAST_FRAMES = 8
"""With fewer frames noise alone makes pixels look steady. Our choice."""
STEADY = 0.25
"""A pixel is steady when it varies by less than this share of what pixels of its grey do. Our choice."""
STANDS_OUT = 0.12
"""Least difference from the surroundings, as a share of the picture's range. Our choice."""
SHARP = 0.4
"""A mark's edge steps by more than this share of its contrast from a pixel to the next; tissue's does not. Our choice."""
MOST_SHARE = 0.1
"""Marks that cover more of the picture than this are not believed: then it is the picture that stands still."""


def burned_in(
    frames: UInt8[np.ndarray, "n h w"] | UInt16[np.ndarray, "n h w"],
) -> tuple[tuple[Box, ...], str | None]:
    """Find text and logos.

    Args:
        frames: Of one run, at least `LEAST_FRAMES`.

    Returns:
        Boxes around them with a pixel or two to spare, from the top down; and a sentence where nothing can be told, else
        None.

    Raises:
        CalibrationError: Too few frames.
    """
    if len(frames) < LEAST_FRAMES:
        raise CalibrationError(
            f"needed at least {LEAST_FRAMES} frames to tell burned-in text from picture, got {len(frames)}; record a "
            "longer loop"
        )
    rows, columns = frames.shape[1:]
    side = min(rows, columns)
    mean, spread = mean_and_spread(frames)
    usual = _usual_spread(mean, spread)
    if usual is None:
        return (), (
            "The frames do not change, so that burned-in text cannot be told from picture; record frames of a live source."
        )
    window = 2 * max(4, side // 24) + 1
    low, high = np.percentile(mean, (0.5, 99.5))
    scaled = np.clip((mean - mean.min()) * (255.0 / max(float(np.ptp(mean)), 1e-6)), 0, 255).astype(np.uint8)
    around = cv2.medianBlur(scaled, min(window, 255)).astype(np.float32) * (float(np.ptp(mean)) / 255.0)
    contrast = np.abs(mean - mean.min() - around)
    # Metal and vessels as dark as the detector can tell are steady too; so black marks are not found.
    lit = mean > mean.min() + 0.02 * float(high - low)
    marks = (spread < STEADY * usual) & (contrast > STANDS_OUT * float(high - low)) & lit
    # Nor is a wide region that is burned out.
    burned_out = (spread < STEADY * usual) & (mean > mean.min() + 0.5 * float(np.ptp(mean)))
    wide = cv2.morphologyEx(
        burned_out.astype(np.uint8), cv2.MORPH_OPEN, np.ones((max(3, side // 16),) * 2, np.uint8)
    )
    marks &= cv2.dilate(wide, np.ones((5, 5), np.uint8)) == 0
    boxes = _boxes(np.asarray(marks), contrast, _steps(mean), side)
    covered = sum((box.right - box.left) * (box.bottom - box.top) for box in boxes)
    if covered > MOST_SHARE * rows * columns:
        return (), (
            "So much of the picture stands still that burned-in text cannot be told from it; record a source that moves."
        )
    return boxes, None


def mean_and_spread(
    frames: UInt8[np.ndarray, "n h w"] | UInt16[np.ndarray, "n h w"],
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Mean and standard deviation over the frames, without a copy of all of them as floating point."""
    total = np.zeros(frames.shape[1:], np.float64)
    squares = np.zeros(frames.shape[1:], np.float64)
    for frame in frames:
        grey = frame.astype(np.float64)
        total += grey
        squares += grey * grey
    mean = total / len(frames)
    variance = np.maximum(squares / len(frames) - mean * mean, 0.0)
    return mean.astype(np.float32), np.sqrt(variance).astype(np.float32)


def _usual_spread(
    mean: Float32[np.ndarray, "h w"], spread: Float32[np.ndarray, "h w"]
) -> Float32[np.ndarray, "h w"] | None:
    """What pixels of each grey usually vary by; None where half of the brighter pixels do not vary."""
    levels = np.linspace(float(mean.min()), float(mean.max()), 33)
    bins = np.clip(np.digitize(mean, levels) - 1, 0, 31)
    # Steady regions of one grey, as shutters, say nothing of what picture of that grey does.
    moving = spread > 0.1 * float(np.median(spread[mean >= np.median(mean)]))
    if not (np.median(spread[mean >= np.median(mean)]) > 0):
        return None
    known, usual = [], []
    for index in range(32):
        here = spread[(bins == index) & moving]
        if len(here) >= 0.002 * mean.size:
            known.append(index)
            usual.append(float(np.median(here)))
    if not known:
        return None
    table = np.interp(np.arange(32), known, usual).astype(np.float32)
    return np.asarray(table[bins])


def _steps(mean: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """Largest difference to a neighbour."""
    kernel = np.ones((3, 3), np.uint8)
    return np.asarray(np.maximum(cv2.dilate(mean, kernel) - mean, mean - cv2.erode(mean, kernel)))


def _boxes(
    marks: Bool[np.ndarray, "h w"],
    contrast: Float32[np.ndarray, "h w"],
    steps: Float32[np.ndarray, "h w"],
    side: int,
) -> tuple[Box, ...]:
    """Boxes around the strokes that lie close to each other and have a sharp edge somewhere."""
    rows, columns = marks.shape
    count, parts, stats, _ = cv2.connectedComponentsWithStats(marks.astype(np.uint8), connectivity=8)
    strokes = np.zeros_like(marks)
    for part in range(1, count):
        if stats[part, cv2.CC_STAT_AREA] < 4:
            continue
        left, top, wide, tall = stats[part, :4]
        window = slice(top, top + tall), slice(left, left + wide)
        here = parts[window] == part
        if steps[window][here].max() > SHARP * contrast[window][here].max():
            strokes[window] |= here
    # Letters of a line stand further apart than strokes of a letter.
    joined = cv2.dilate(
        strokes.astype(np.uint8), np.ones((max(3, side // 40) | 1, max(5, side // 20) | 1), np.uint8)
    )
    count, parts, _, _ = cv2.connectedComponentsWithStats(joined, connectivity=8)
    found = []
    for part in range(1, count):
        at_rows, at_columns = np.nonzero(strokes & (parts == part))
        if len(at_rows) < max(12, side // 20):
            continue
        spare = max(1, side // 256)
        found.append(
            Box(
                max(0, int(at_columns.min()) - spare),
                max(0, int(at_rows.min()) - spare),
                min(columns, int(at_columns.max()) + 1 + spare),
                min(rows, int(at_rows.max()) + 1 + spare),
            )
        )
    return tuple(sorted(found, key=lambda box: (box.top, box.left)))
