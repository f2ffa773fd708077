"""Filled frames with their vessels removed, and decoys: the same mending where no vessel was.

What is mended shows traces that a network can learn to read. A decoy has the traces without the vessel, so that reading them and knowing
the anatomy can be told apart.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

WIDEN_PX = 2
"""By which a vessel's mask is widened before its removal: its edge is soft, and a mask a little narrow."""
REACH_PX = 4
"""How far around a hole the inpainting looks."""
GRAIN_PX = 1.5
"""What is finer than this Gaussian's standard deviation counts as grain."""
EDGE = 4.0
"""Times the median of the grain: what differs by more is an edge."""
TRIES = 12

Mask = Bool[np.ndarray, "s s"]


def mended(grey: UInt8[np.ndarray, "s s"], mask: Mask, rng: np.random.Generator) -> UInt8[np.ndarray, "s s"]:
    """A frame with what lies under a mask removed: inpainted (Telea), with grain of the frame's own laid in.

    Args:
        grey: Grey levels 0 to 255.
        mask: What to remove; it is widened by `WIDEN_PX`.
        rng: Of the place that the grain is taken from.
    """
    hole = widened(mask, WIDEN_PX)
    if not hole.any():
        return grey.copy()
    smooth = cv2.inpaint(grey, hole.astype(np.uint8), REACH_PX, cv2.INPAINT_TELEA).astype(np.float32)
    patched = smooth + _grain(grey, hole, rng)
    return np.where(hole, np.rint(patched).clip(0, 255), grey).astype(np.uint8)


def widened(mask: Mask, by_px: int) -> Mask:
    """A mask grown by so many pixels."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * by_px + 1,) * 2)
    return np.asarray(cv2.dilate(mask.astype(np.uint8), kernel) > 0)


def _grain(grey: np.ndarray, hole: np.ndarray, rng: np.random.Generator) -> Float[np.ndarray, "s s"]:
    """Grain for a hole, from elsewhere in the frame: of some places the one with the fewest vessels."""
    fine = grey.astype(np.float32) - cv2.GaussianBlur(grey.astype(np.float32), (0, 0), GRAIN_PX)
    # Edges, of the field above all, are no grain.
    fine[np.abs(fine) > EDGE * float(np.median(np.abs(fine)))] = 0.0
    side = grey.shape[0]
    moves = rng.integers(side // 16, side // 4, (TRIES, 2)) * rng.choice([-1, 1], (TRIES, 2))
    move = min(moves, key=lambda one: int((np.roll(hole, one, (0, 1)) & hole).sum()))
    taken = np.roll(np.where(hole, 0.0, fine), move, (0, 1))
    # Where a vessel lay there too, none: its residue is no grain.
    return np.asarray(taken, np.float32)


def mirrored(mask: Mask) -> Mask:
    """A decoy: left and right exchanged, a place where this patient's vessels are not."""
    return np.asarray(mask[:, ::-1])


def moved(mask: Mask, rows: int, columns: int) -> Mask:
    """A decoy: so many pixels down and to the right; what leaves the frame is gone."""
    by = np.array([[1, 0, columns], [0, 1, rows]], np.float32)
    return np.asarray(cv2.warpAffine(mask.astype(np.uint8), by, mask.shape[::-1]) > 0)
