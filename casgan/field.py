"""Where the X-rays came through: inside the collimator's blades, the image intensifier's circle and the letterbox.

What lies outside teaches nothing and misleads a discriminator, since blades differ from run to run.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32

BLACK_SHARE = 0.3
"""A border region below this share of the picture's median grey level is shutter, not patient."""
BLADE_SHARE = 0.78
"""A straight band along a side, darker than this share of what follows it, is a blade's shadow."""
REACH = 0.3
"""How far from a side a blade is looked for, as a share of the picture."""
LEAST_SHARE = 0.2
"""A field smaller than this share of the picture is not believed."""


def collimated_field(pictures: Float32[np.ndarray, "n h w"]) -> Bool[np.ndarray, "h w"]:
    """Find the field of a run, a few pixels inside its edge.

    Our choice, by three signs, each sought from the border inwards: pixels that never change from a corner's
    value, pixels far darker than the picture, and a straight dark band along a side. A border is taken away
    only where one of them is found; otherwise the whole picture is the field, less its outermost pixels.

    Args:
        pictures: Some frames of one run; any linear grey scale from 0, black.

    Returns:
        True inside the field.
    """
    rows, columns = pictures.shape[1:]
    mean = pictures.mean(axis=0)
    field = ~_border_region(_shut(pictures, mean))
    inside = np.zeros_like(field)
    top, bottom = _blade(mean), _blade(mean[::-1])
    left, right = _blade(mean.T), _blade(mean.T[::-1])
    inside[top : rows - bottom, left : columns - right] = True
    field &= inside
    if field.mean() < LEAST_SHARE:
        field = np.ones_like(field)
    return _eroded(_filled(field), margin_px(min(rows, columns)))


def margin_px(side: int) -> int:
    """By how many pixels a field is drawn in, so that no blurred edge is left in it."""
    return max(2, round(side / 64))


def _shut(
    pictures: Float32[np.ndarray, "n h w"], mean: Float32[np.ndarray, "h w"]
) -> Bool[np.ndarray, "h w"]:
    """Pixels that look like a shutter by their value alone."""
    shut = mean < BLACK_SHARE * np.median(mean)
    if len(pictures) > 1:
        step = float(mean.max()) / 200.0
        steady = np.ptp(pictures, axis=0) <= step
        for corner in (mean[0, 0], mean[0, -1], mean[-1, 0], mean[-1, -1]):
            shut |= steady & (np.abs(mean - corner) <= step)
    return np.asarray(shut)


def _border_region(shut: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The part of `shut` that hangs together with the picture's border."""
    _, labels = cv2.connectedComponents(shut.astype(np.uint8), connectivity=4)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    return np.isin(labels, np.unique(rim[rim > 0]))


def _blade(mean: Float32[np.ndarray, "h w"]) -> int:
    """How many rows from the first on a blade covers."""
    rows, columns = mean.shape
    profile = np.percentile(mean[:, columns // 8 : columns - columns // 8], 75, axis=1)
    blur, run = max(2, rows // 40), max(3, rows // 16)
    covered = 0
    for edge in range(1, int(REACH * rows)):
        inner = profile[edge + blur : edge + blur + run]
        if profile[:edge].max() < BLADE_SHARE * inner.min():
            covered = edge
    if not covered:
        return 0
    # The blade's edge is blurred: go on to where nine tenths of the way up are done.
    after = float(profile[covered + blur : covered + blur + run].min())
    goal = profile[:covered].max() + 0.9 * (after - profile[:covered].max())
    while profile[covered] < goal and covered < covered + blur:
        covered += 1
    return covered


def _filled(field: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The largest part of a field, without holes."""
    count, labels, areas, _ = cv2.connectedComponentsWithStats(field.astype(np.uint8), connectivity=4)
    if count > 2:
        field = labels == 1 + int(areas[1:, cv2.CC_STAT_AREA].argmax())
    return ~_border_region(np.pad(~field, 1, constant_values=True))[1:-1, 1:-1]


def _eroded(field: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1))
    padded = np.pad(field, by).astype(np.uint8)
    return np.asarray(cv2.erode(padded, kernel)[by:-by, by:-by] > 0)
