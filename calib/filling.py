"""Which frames of a run are filled with contrast medium, told by how much of them is a narrow dark line."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

PLAIN, FILLED, NEITHER = "plain", "filled", "neither"

PLAIN_GROWTH = 1.25
PLAIN_SLACK = 0.002
"""A frame stays contrast-free while its vessel area is below 1.25 times the first frame's plus 0.2 % of the picture."""
PLAIN_RISE = 0.15
"""And while it has not risen by more than this share of the run's whole rise, where that is less."""
PLAIN_AHEAD = 4
"""Contrast-free frames end this many frames before the first filled one: contrast comes before it is segmented."""
PLAIN_FRAMES = 4
"""And, for teaching, are at most the first 4 of a run: frames after them were seen to show contrast that no area told."""
PLAIN_MOST = 0.02
PLAIN_SHARE = 0.25
"""A first frame with more vessel area than 2 % of the picture and a quarter of the run's largest shows vessels; a
catheter alone was seen to have up to 1.5 %."""
FILLED_SHARE = 0.6
"""Filled is above this share of the run's largest area."""
FILLED_RISE = 0.01
"""And above the first frame by this share of the picture at least, and by half."""

LINE_PX = 11 / 128
"""Width of the widest dark line that `dark_line_share` looks for, as a share of the picture's side."""
LINE_DEPTH = 13
"""And how much darker than its surroundings it must be, in grey levels of 255."""

TREE_PX = 13 / 256
TREE_DEPTH = 8
"""The same for `connected_line_share`."""
FILLED_TREE = 0.018
"""Share of the field from which the largest connected dark line is taken for a filled tree."""


def tell_frames(areas: Float[np.ndarray, " n"], most_plain: int = PLAIN_FRAMES) -> list[tuple[str, str]]:
    """Tell the frames of one run apart by vessel area, our choice.

    A run whose first frame already shows vessels gives no contrast-free frame. A run that never fills clearly
    gives none of either kind: it may be fluoroscopy without contrast medium, but a poor segmenter sees every
    run so, and the caller has to say what it is.

    Args:
        areas: Vessel area of its frames in order, as a share of the picture, 0 to 1.
        most_plain: Frames after that many are not taken for contrast-free.

    Returns:
        "plain", "filled" or "neither" of each frame, and why.
    """
    first, largest = float(areas[0]), float(areas.max())
    fills = largest >= first + FILLED_RISE and largest >= 1.5 * first
    plain_limit = min(PLAIN_GROWTH * first + PLAIN_SLACK, first + PLAIN_RISE * (largest - first))
    filled_limit = max(FILLED_SHARE * largest, first + FILLED_RISE, 1.5 * first)
    is_filled = (areas >= filled_limit) & fills
    end = min(most_plain, max(1, int(is_filled.argmax()) - PLAIN_AHEAD + 1))
    told = []
    bare = first <= max(PLAIN_MOST, PLAIN_SHARE * largest)
    still_plain = fills and bare
    for frame, area in enumerate(areas):
        still_plain = still_plain and frame < end and float(area) <= plain_limit
        if is_filled[frame]:
            told.append((FILLED, f"area at or above {filled_limit:.4f}"))
        elif still_plain:
            told.append((PLAIN, "first frame" if frame == 0 else f"area still at or below {plain_limit:.4f}"))
        elif not fills:
            told.append((NEITHER, "the run never fills clearly; say plain or filled in an override file"))
        elif not bare:
            told.append((NEITHER, f"first frame already has {first:.4f} of vessels"))
        else:
            told.append((NEITHER, "between contrast-free and filled"))
    return told


def dark_line_share(picture: UInt8[np.ndarray, "h w"], field: Bool[np.ndarray, "h w"] | None = None) -> float:
    """Share of a picture that is a narrow dark line: a vessel area that needs no network.

    Our choice: what a closing fills by more than 13 grey levels, less a margin at the border. Catheters, clips
    and edges of the spine count too, so only changes over a run mean anything.

    Args:
        picture: Vessels dark; grey levels of 255 after the run's own normalisation.
        field: Where to look, less the same margin; None for the whole picture.

    Returns:
        Of what was looked at.
    """
    depth, inside = _line_depth(picture, field, LINE_PX, 1 / 128)
    return float((depth[inside] > LINE_DEPTH).mean()) if inside.any() else 0.0


def connected_line_share(picture: UInt8[np.ndarray, "h w"], field: Bool[np.ndarray, "h w"]) -> float:
    """Share of the field that is the largest dark line whose pixels hang together: a tree, where there is one.

    For a run that does not change, whose own first frame is no measure. Our choice; `FILLED_TREE` is what tells.

    Args:
        picture: As for `dark_line_share`.
        field: Where to look, less a margin.
    """
    depth, inside = _line_depth(picture, field, TREE_PX, 1.2 / 256)
    count, _, facts, _ = cv2.connectedComponentsWithStats(
        ((depth > TREE_DEPTH) & inside).astype(np.uint8), connectivity=8
    )
    return float(facts[1:, cv2.CC_STAT_AREA].max() / inside.sum()) if count > 1 else 0.0


def _line_depth(
    picture: UInt8[np.ndarray, "h w"], field: Bool[np.ndarray, "h w"] | None, widest: float, blur: float
) -> tuple[UInt8[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """How much a closing fills of the smoothed picture, and where that counts: inside the field, less a margin.

    Args:
        picture: Grey levels.
        field: None for the whole picture.
        widest: Width of the widest line, as a share of the picture's side.
        blur: Standard deviation, likewise.
    """
    side = min(picture.shape)
    margin = max(1, side // 16)
    inside = np.zeros(picture.shape, bool)
    inside[margin:-margin, margin:-margin] = True
    if field is not None:
        # What is outside must not make an edge.
        picture = np.where(field, picture, np.uint8(np.median(picture[field])))
        drawn_in = cv2.erode(np.pad(field, 1).astype(np.uint8), np.ones((2 * margin + 1,) * 2, np.uint8))
        inside &= drawn_in[1:-1, 1:-1] > 0
    width = max(3, round(widest * side) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    smooth = cv2.GaussianBlur(picture, (0, 0), blur * side)
    return np.asarray(cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, kernel)), inside
