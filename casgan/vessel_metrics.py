"""How well drawn vessels agree with where they should be, and whether they hang together as a tree does.

Masks are boolean (row, column) planes. A figure that does not exist for a picture (no vessel in it) is NaN,
never 0 or 1, and averages leave it out.
"""

import cv2
import numpy as np
from jaxtyping import Bool
from skimage.morphology import skeletonize

LEAST_PX = 4
"""Components smaller than this are specks and count neither as vessels nor as breaks."""

DRAWN = 0.3
"""Attention above which a pixel counts as drawn: half of what teaching aims at inside a vessel."""

Mask = Bool[np.ndarray, "h w"]


def dice(drawn: Mask, truth: Mask) -> float:
    """2 |P n T| / (|P| + |T|); NaN where both are empty."""
    total = int(drawn.sum()) + int(truth.sum())
    return 2.0 * int((drawn & truth).sum()) / total if total else float("nan")


def skeleton(mask: Mask) -> Mask:
    """Centrelines one pixel wide, by thinning (scikit-image)."""
    thin: np.ndarray = skeletonize(mask)  # type: ignore[no-untyped-call]
    return thin


def centreline_dice(drawn: Mask, truth: Mask) -> float:
    """clDice: how much of each one's skeleton lies in the other; NaN where there is no truth, 0 where nothing is drawn.

    clDice (arXiv:2003.07311): Tprec = |S_P n V_L| / |S_P|, Tsens = |S_L n V_P| / |S_L|,
    clDice = 2 Tprec Tsens / (Tprec + Tsens); thinned skeletons, not the soft ones of a loss.
    """
    if not truth.any():
        return float("nan")
    if not drawn.any():
        return 0.0
    lines_drawn, lines_true = skeleton(drawn), skeleton(truth)
    precision = float((lines_drawn & truth).sum() / max(1, lines_drawn.sum()))
    sensitivity = float((lines_true & drawn).sum() / max(1, lines_true.sum()))
    both = precision + sensitivity
    return 2.0 * precision * sensitivity / both if both else 0.0


def centreline_distance_px(drawn: Mask, truth: Mask) -> float:
    """Mean distance between the skeletons, both ways: (mean d(S_P, S_L) + mean d(S_L, S_P)) / 2, in pixels.

    NaN where either is empty, since nothing is at no distance: give it beside how often that was so.
    """
    if not (drawn.any() and truth.any()):
        return float("nan")
    lines = [skeleton(mask) for mask in (drawn, truth)]
    # Distance of every pixel to the nearest pixel of a skeleton.
    away = [
        cv2.distanceTransform((~line).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE) for line in lines
    ]
    # Squared distances are whole numbers; taken as such, the last bit does not hang on OpenCV's way through memory.
    exact = [np.sqrt(np.rint(away[1 - one][lines[one]].astype(np.float64) ** 2)) for one in (0, 1)]
    return float(0.5 * (exact[0].mean() + exact[1].mean()))


def connectivity(drawn: Mask, least_px: int = LEAST_PX) -> float:
    """Share of the largest component in what is drawn: 1 is one connected tree; NaN where nothing is drawn.

    Args:
        drawn: Vessels.
        least_px: Components below this many pixels are left out; neighbours touch by side or corner.
    """
    areas = component_areas(drawn, least_px)
    return float(areas.max() / areas.sum()) if len(areas) else float("nan")


def component_areas(drawn: Mask, least_px: int = LEAST_PX) -> np.ndarray:
    """(n,) pixels of each connected part of at least `least_px` pixels."""
    _, _, facts, _ = cv2.connectedComponentsWithStats(drawn.astype(np.uint8), connectivity=8)
    areas = facts[1:, cv2.CC_STAT_AREA]
    kept: np.ndarray = areas[areas >= least_px]
    return kept


def border_share(drawn: Mask, field: Mask, reach_px: int) -> float:
    """Share of what is drawn within `reach_px` of the field's border (or outside it); NaN where nothing is drawn.

    The border is the edge of the collimated field and of the frame alike.
    """
    total = int(drawn.sum())
    if not total:
        return float("nan")
    side = 2 * reach_px + 1
    framed = np.pad(field, reach_px).astype(np.uint8)
    inner = cv2.erode(framed, np.ones((side, side), np.uint8))[
        reach_px : reach_px + field.shape[0], reach_px : reach_px + field.shape[1]
    ]
    return int((drawn & (inner == 0)).sum()) / total
