"""Where the X-rays came through: inside the collimator's blades, the image intensifier's circle and the letterbox.

What lies outside teaches nothing and misleads a discriminator, since blades differ from run to run. The edges are found by
`calib.field_finder`; here a margin is taken off them.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from calib.field_finder import find_field
from calib.geometry import find_letterbox


def collimated_field(pictures: Float32[np.ndarray, "n h w"]) -> Bool[np.ndarray, "h w"]:
    """Find the field of a run, a few pixels inside its edge.

    Args:
        pictures: Some frames of one run; any linear grey scale in which shutters are dark.

    Returns:
        True inside the field; where no edge is found, the whole picture less its outermost pixels.
    """
    mean = pictures.mean(axis=0)
    field = find_field(mean, find_letterbox(mean, pictures.std(axis=0)))
    return _eroded(field.mask, margin_px(min(mean.shape)))


def margin_px(side: int) -> int:
    """By how many pixels a field is drawn in, so that no blurred edge is left in it."""
    return max(2, round(side / 64))


def _eroded(field: Bool[np.ndarray, "h w"], by: int) -> Bool[np.ndarray, "h w"]:
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by + 1, 2 * by + 1))
    padded = np.pad(field, by).astype(np.uint8)
    return np.asarray(cv2.erode(padded, kernel)[by:-by, by:-by] > 0)
