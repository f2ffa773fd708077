"""What a drawing is measured against: the mean coronary tree, laid into each picture's heart outline.

Whoever only knows where coronary arteries usually lie, and sees the heart's outline, draws this. The outline is
the phantom's own and exact, which no method has: the baseline is a generous one.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from calib.config import PhantomConfig
from calib.phantom import Phantom
from calib.phantom_heart import Outline
from casgan.vessel_metrics import dice

REACH = 1.4
"""How far beyond the outline the mean tree is kept, in its half axes: vessels on the rim, catheter side branches."""
SIDE = 224
"""Rows and columns of the mean tree, over [-REACH, REACH] along either axis."""
RENDERED_PX = 256
THRESHOLDS = np.arange(0.04, 0.62, 0.02)


@dataclass(frozen=True)
class MeanTree:
    """How often a vessel lies at each place of the heart's outline, and above what share one is drawn."""

    share: Float32[np.ndarray, "side side"]
    """Of the patients, 0 to 1; rows go along the outline's width, columns along its length."""
    threshold: float
    """Best for Dice on the patients it was made of."""
    learning_dice: float
    """Mean Dice there."""
    patients: int

    def drawn(self, outline: Outline, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
        """The mean tree in a picture."""
        return warped(self.share, outline, shape) > self.threshold


def mean_tree(configs: Sequence[PhantomConfig], judged: int = 60) -> MeanTree:
    """The mean tree of some patients, one frame each at a random phase.

    Args:
        configs: The patients, with the variation and views of those to be tested, and none of them among them.
        judged: How many of them the threshold is chosen on.

    Raises:
        ValueError: No patients.
    """
    if not configs:
        raise ValueError("a mean tree needs patients, got none")
    summed = np.zeros((SIDE, SIDE), np.float64)
    seen = np.zeros((SIDE, SIDE), np.float64)
    kept: list[tuple[Outline, np.ndarray]] = []
    for config in configs:
        phantom = Phantom(replace(config, rows=RENDERED_PX, columns=RENDERED_PX))
        rng = np.random.default_rng((config.seed, 0xBA5E))
        pose = phantom.pose(int(rng.integers(phantom.loop.frames)))
        outline, mask = phantom.outline(pose), phantom.clean(pose).mask
        columns, rows = _places(outline)
        summed += cv2.remap(mask.astype(np.float32), columns, rows, cv2.INTER_LINEAR)
        # What the collimator hides says nothing of where vessels are.
        field = (phantom.field > 0.5).astype(np.float32)
        seen += cv2.remap(field, columns, rows, cv2.INTER_LINEAR)
        if len(kept) < judged:
            kept.append((outline, mask))
    share = (summed / np.maximum(seen, 1.0)).astype(np.float32)
    scores = np.zeros(len(THRESHOLDS))
    for outline, mask in kept:
        density = warped(share, outline, (RENDERED_PX, RENDERED_PX))
        scores += [dice(density > threshold, mask) for threshold in THRESHOLDS]
    best = int(scores.argmax())
    return MeanTree(share, float(THRESHOLDS[best]), float(scores[best] / len(kept)), len(configs))


def _places(outline: Outline) -> tuple[np.ndarray, np.ndarray]:
    """(x, y) in the picture of each place of the mean tree."""
    across = ((np.arange(SIDE) + 0.5) / SIDE * 2.0 - 1.0) * REACH
    along, beside = across[None, :] * outline.axes_px[0], across[:, None] * outline.axes_px[1]
    cosine, sine = np.cos(outline.angle_rad), np.sin(outline.angle_rad)
    x = outline.centre_px[0] + cosine * along - sine * beside
    y = outline.centre_px[1] + sine * along + cosine * beside
    return x.astype(np.float32), y.astype(np.float32)


def warped(
    share: Float32[np.ndarray, "side side"], outline: Outline, shape: tuple[int, int]
) -> Float32[np.ndarray, "h w"]:
    """A map in outline coordinates laid into a picture; 0 beyond its reach."""
    rows, columns = np.mgrid[: shape[0], : shape[1]].astype(np.float32)
    right, down = columns - outline.centre_px[0], rows - outline.centre_px[1]
    cosine, sine = np.cos(outline.angle_rad), np.sin(outline.angle_rad)
    along = (cosine * right + sine * down) / outline.axes_px[0]
    beside = (cosine * down - sine * right) / outline.axes_px[1]
    scale = SIDE / (2.0 * REACH)
    x = ((along + REACH) * scale - 0.5).astype(np.float32)
    y = ((beside + REACH) * scale - 0.5).astype(np.float32)
    laid: np.ndarray = cv2.remap(share, x, y, cv2.INTER_LINEAR)
    return laid


def same_pose_tree(phantom: Phantom, frame: int) -> Bool[np.ndarray, "h w"]:
    """The oracle: the tree that follows wholly from outline and pose (variation 0), at the true pose."""
    plain = Phantom(replace(phantom.config, variation=0.0), phantom.patient)
    return plain.clean(phantom.pose(frame)).mask
