"""What is really dark in a picture, behind blades and in corners, and the outline of it."""

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

DARK = 0.25
"""Really dark is what is below this share of the way from the darkest to the field's middle grey."""


def dark_outline(calm: Float32[np.ndarray, "h w"], darkest: float) -> Float64[np.ndarray, "n 2"]:
    """Points (column, row) where the really dark region that hangs together with the border ends."""
    level = darkest + DARK * (typical_grey(calm, darkest) - darkest)
    dark = calm < level
    _, labels = cv2.connectedComponents(dark.astype(np.uint8), connectivity=4)
    rim = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    outside = np.isin(labels, np.unique(rim[rim > 0]))
    count, parts, areas, _ = cv2.connectedComponentsWithStats((~outside).astype(np.uint8), connectivity=4)
    if count < 2:
        return np.zeros((0, 2))
    field = parts == 1 + int(areas[1:, cv2.CC_STAT_AREA].argmax())
    contours, _ = cv2.findContours(field.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = max(contours, key=len)[:, 0].astype(np.float64)
    rows, columns = calm.shape
    inner = (points[:, 0] > 0) & (points[:, 0] < columns - 1) & (points[:, 1] > 0) & (points[:, 1] < rows - 1)
    return np.asarray(points[inner] + 0.5)


def typical_grey(calm: Float32[np.ndarray, "h w"], darkest: float) -> float:
    """The middle grey of what is not dark, however small the field is."""
    least = darkest + DARK * (float(np.percentile(calm, 95)) - darkest)
    middle = float(np.median(calm))
    # The picture's middle grey, unless the field is so small that it is dark itself.
    return middle if middle > least else float(np.median(calm[calm >= least]))


def is_dark(
    calm: Float32[np.ndarray, "h w"], cut: Bool[np.ndarray, "h w"], darkest: float, share: float
) -> bool:
    """Whether so much of a region is nearer to the darkest than to the field's middle grey."""
    level = darkest + 0.5 * (typical_grey(calm, darkest) - darkest)
    return bool(cut.any()) and float((calm[cut] < level).mean()) > share
