"""Finds the field of the X-rays in a picture: blades along the sides, a round edge, cut corners, bars around it.

Our choice throughout. Each side is looked at in bands from the border inwards; an edge is a straight line on which most
bands rise out of the dark (`calib/field_edges.py`). A round edge (`calib/field_round.py`) and the blades across corners are
sought along the outline of what is really dark (`calib/field_dark.py`), which a soft blade's shadow need not be.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Float64

from calib.field import Corners, inside_field, whole_picture
from calib.field_dark import dark_outline, is_dark
from calib.field_edges import across, rises
from calib.field_round import round_edge
from calib.results import Box, FieldCircle

REACH = 0.4
"""How far from a side a blade is looked for, as a share of the picture."""
STEEPEST = np.tan(np.deg2rad(12.0))
"""A blade along a side is turned by no more than this; a blade turned further is found by the dark outline."""
NEARLY_PARALLEL = np.deg2rad(2.0)
"""Blades of a pair that differ by less are taken for parallel; those that differ by more stay as they were found."""
LEAST_BANDS = 0.55
"""Share of a side's bands that must lie on a line before it is an edge."""
LOOSE_BANDS = 0.75
"""Share that must lie within twice the distance of an edge further in than one that is found already."""
MOST_PAIRS = 8000
"""Lines that are tried along a side, each through two of its points."""
SHARP = 1 / 32
"""A blade across a corner rises within this share of the picture; where two soft edges meet is no blade."""
LEAST_SHARE = 0.15
"""A field smaller than this share of the picture is not believed."""


@dataclass(frozen=True)
class Line:
    """A straight edge from one point to another, (column, row); what is inside lies to its right, rows counted downwards."""

    start: tuple[float, float]
    end: tuple[float, float]

    def depths(self, points: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, " n"]:
        """How far points lie inside the edge, in pixels."""
        along = np.subtract(self.end, self.start)
        away = points - np.array(self.start)
        inside: np.ndarray = (along[0] * away[:, 1] - along[1] * away[:, 0]) / np.hypot(*along)
        return inside


@dataclass(frozen=True)
class Field:
    """What lies inside all corners and, where there is one, the circle. Coordinates as in `calib.results.GeometryResult`."""

    rows: int
    columns: int
    corners: Corners
    circle: FieldCircle | None
    letterbox: Box

    @property
    def mask(self) -> Bool[np.ndarray, "h w"]:
        """True inside."""
        return inside_field(self.corners, self.circle, self.rows, self.columns)


def find_field(mean: Float32[np.ndarray, "h w"], letterbox: Box | None = None) -> Field:
    """Find the field.

    Args:
        mean: A run's mean over its frames, or one picture; any linear grey scale in which shutters are dark.
        letterbox: The part that holds picture at all; all of it if left out.

    Returns:
        The field; the whole picture where no edge is found.
    """
    rows, columns = mean.shape
    bars = letterbox or Box(0, 0, columns, rows)
    # Dark bars are found as a shutter is; bright ones must not be looked at.
    box = Box(0, 0, columns, rows) if _bars_are_dark(mean, bars) else bars
    part = np.ascontiguousarray(mean[box.top : box.bottom, box.left : box.right])
    side = min(part.shape)
    calm = cv2.GaussianBlur(part, (0, 0), max(0.8, side / 400), borderType=cv2.BORDER_REPLICATE)
    darkest = float(calm.min())
    corners, circle = whole_picture(*part.shape), None
    outline = dark_outline(calm, darkest)
    circle = round_edge(calm, outline, darkest)
    if circle is None:
        for line in _side_lines(part, darkest):
            corners = clipped(corners, line)
        for line in _cut_lines(calm, outline, corners, darkest):
            corners = clipped(corners, line)
    else:
        for line in _side_lines(part, darkest):
            corners = clipped(corners, line)
    if inside_field(corners, circle, *part.shape).mean() < LEAST_SHARE:
        corners, circle = whole_picture(*part.shape), None
    moved = tuple((x + box.left, y + box.top) for x, y in corners)
    if circle is not None:
        circle = FieldCircle(circle.column + box.left, circle.row + box.top, circle.radius)
    return Field(rows, columns, moved, circle, bars)


def _bars_are_dark(mean: Float32[np.ndarray, "h w"], inner: Box) -> bool:
    bars = np.ones(mean.shape, bool)
    bars[inner.top : inner.bottom, inner.left : inner.right] = False
    inside = float(np.median(mean[~bars]))
    return bool(bars.any()) and float(np.median(mean[bars])) < 0.5 * inside


def _sides(left: float, top: float, right: float, bottom: float) -> list[Line]:
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    return [
        Line(
            (float(corners[at][0]), float(corners[at][1])),
            (float(corners[(at + 1) % 4][0]), float(corners[(at + 1) % 4][1])),
        )
        for at in range(4)
    ]


def clipped(corners: Corners, line: Line) -> Corners:
    """The part of a convex polygon that is inside a line (Sutherland and Hodgman, 1974)."""
    if len(corners) < 3:
        return corners
    depths = line.depths(np.array(corners))
    kept: list[tuple[float, float]] = []
    for index, (point, depth) in enumerate(zip(corners, depths, strict=True)):
        before, depth_before = corners[index - 1], depths[index - 1]
        if (depth > 0) != (depth_before > 0):
            share = depth_before / (depth_before - depth)
            kept.append(
                (
                    float(before[0] + share * (point[0] - before[0])),
                    float(before[1] + share * (point[1] - before[1])),
                )
            )
        if depth > 0:
            kept.append((float(point[0]), float(point[1])))
    return tuple(kept)


# Blades along the sides ---------------------------------------------------------------------------------------


def _side_lines(part: Float32[np.ndarray, "h w"], darkest: float) -> list[Line]:
    """The blades along the four sides; those without one are left out."""
    rows, columns = part.shape
    border = whole_picture(rows, columns)
    sides = _sides(0.0, 0.0, float(columns), float(rows))
    points = [_edge_points(part, side, darkest) for side in sides]
    found: list[Line | None] = [None] * 4
    for _ in range(2):
        # The second time only what lies inside the other edges is looked at.
        for index, side in enumerate(sides):
            others: Corners = border
            for other, line in enumerate(found):
                if line is not None and other != index:
                    others = clipped(others, line)
            found[index] = _side_line(part.shape, side, others, points[index])
    for one, other in ((0, 2), (1, 3)):
        pair = found[one], found[other]
        if pair[0] is None or pair[1] is None:
            continue
        # A ramp that the picture's border cuts off says too little of its direction.
        middles = [np.add(line.start, line.end)[None] / 2 for line in pair if line is not None]
        within = [sides[side].depths(middle)[0] for side, middle in zip((one, other), middles, strict=True)]
        if min(within) > min(rows, columns) / 64:
            found[one], found[other] = _parallel(pair[0], pair[1])
    return [line for line in found if line is not None]


def _parallel(one: Line, other: Line) -> tuple[Line, Line]:
    """Both blades of a pair, turned about their middles by half of what they differ: a collimator's are parallel."""
    angles = [
        float(np.arctan2(line.end[1] - line.start[1], line.end[0] - line.start[0])) for line in (one, other)
    ]
    # They run in opposite directions.
    turn = (angles[1] - angles[0]) % (2 * np.pi) - np.pi
    if abs(turn) > NEARLY_PARALLEL:
        return one, other
    return _turned(one, 0.5 * turn), _turned(other, -0.5 * turn)


def _turned(line: Line, angle: float) -> Line:
    start, end = np.array(line.start), np.array(line.end)
    middle = 0.5 * (start + end)
    turn = np.array([(np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))])
    ends = [middle + turn @ (point - middle) for point in (start, end)]
    return Line((float(ends[0][0]), float(ends[0][1])), (float(ends[1][0]), float(ends[1][1])))


EdgePoints = tuple[Float64[np.ndarray, " b"], list[list[float]]]
"""Each band's middle along the side, and the depths at which it rises, in pixels."""


def _edge_points(part: Float32[np.ndarray, "h w"], side: Line, darkest: float) -> EdgePoints:
    depth = part.shape[1] if side.start[0] == side.end[0] else part.shape[0]
    smooth = max(0.8, depth / 256)
    profiles, along = across(part, side.start, side.end, (0.0, float(round(REACH * depth))), darkest)
    found = [
        [rise.depth for rise in rises(profile, darkest, smooth) if rise.depth > -0.02 * depth]
        for profile in profiles
    ]
    return along, found


def _side_line(shape: tuple[int, ...], side: Line, others: Corners, points: EdgePoints) -> Line | None:
    depth = shape[1] if side.start[0] == side.end[0] else shape[0]
    length = float(np.hypot(*np.subtract(side.end, side.start)))
    direction = np.subtract(side.end, side.start) / length
    inwards = np.array([-direction[1], direction[0]])
    chosen: list[tuple[int, float, float]] = []
    usable = 0
    for band, (where, rising) in enumerate(zip(*points, strict=True)):
        probe = np.array(side.start) + direction * where + inwards * 0.3 * depth
        if not _well_inside(others, probe, margin=length / 32):
            continue
        usable += 1
        chosen.extend((band, float(where), each) for each in rising)
    if usable < 8 or len(chosen) < 8:
        return None
    bands, wheres, depths = (np.array(column) for column in zip(*chosen, strict=True))
    line = _line_of_most(bands, wheres, depths, usable, max(1.5, depth / 250), length)
    if line is None:
        return None
    offset, slope = line
    if max(offset, offset + slope * length) < 0.75:
        return None  # it lies outside the picture
    ends = [np.array(side.start) + direction * t + inwards * (offset + slope * t) for t in (0.0, length)]
    return Line((float(ends[0][0]), float(ends[0][1])), (float(ends[1][0]), float(ends[1][1])))


def _well_inside(corners: Corners, point: Float64[np.ndarray, " 2"], margin: float) -> bool:
    return all(
        Line(start, end).depths(point[None])[0] >= margin
        for start, end in zip(corners, (*corners[1:], corners[0]), strict=True)
    )


def _line_of_most(
    bands: np.ndarray, wheres: np.ndarray, depths: np.ndarray, usable: int, near: float, length: float
) -> tuple[float, float] | None:
    """The innermost line (depth at the side's start, slope) on which enough bands lie."""
    one, other = np.nonzero(wheres[None] - wheres[:, None] >= 0.25 * length)
    slopes = (depths[other] - depths[one]) / (wheres[other] - wheres[one])
    flat = np.abs(slopes) <= STEEPEST
    one, slopes = one[flat], slopes[flat]
    if len(one) > MOST_PAIRS:
        some = np.random.default_rng(0).choice(len(one), MOST_PAIRS, replace=False)
        one, slopes = one[some], slopes[some]
    offsets = depths[one] - slopes * wheres[one]
    off = np.abs(offsets[:, None] + slopes[:, None] * wheres - depths)
    nearest = np.stack([off[:, bands == band].min(axis=1) for band in np.unique(bands)], axis=1)
    tight = np.maximum(0.0, 1.0 - nearest / (1.5 * near)).sum(axis=1)
    tight[(nearest < near).sum(axis=1) < LEAST_BANDS * usable] = 0.0
    loose = (nearest < 2.0 * near).sum(axis=1) / usable
    loose[loose <= LOOSE_BANDS] = 0.0
    if not (tight.any() or loose.any()):
        return None
    best = int(np.argmax(tight + 1e-3 * loose))
    middles = offsets + 0.5 * slopes * length
    # Scatter makes an edge of the picture's border before that of the blade; the innermost one counts.
    further = np.flatnonzero((loose > 0) & (middles > middles[best] + 8 * near))
    if len(further):
        best = int(further[np.argmax(loose[further] + 1e-3 * tight[further])])
    offset, slope = float(offsets[best]), float(slopes[best])
    for _ in range(12):
        off = depths - offset - slope * wheres
        close = [
            index
            for band in np.unique(bands)
            for index in [np.flatnonzero(bands == band)[np.abs(off[bands == band]).argmin()]]
            if abs(off[index]) < 15 * near
        ]
        # Least absolute deviations, by weights: a band that anatomy has spoilt pulls no more than another.
        weights = np.sqrt(1.0 / np.maximum(np.abs(off[close]), 0.3))
        slope, offset = (float(value) for value in np.polyfit(wheres[close], depths[close], 1, w=weights))
    return offset, slope


# The dark outline: round edges and cut corners ---------------------------------------------------------------------


def _cut_lines(
    calm: Float32[np.ndarray, "h w"],
    outline: Float64[np.ndarray, "n 2"],
    corners: Corners,
    darkest: float,
) -> list[Line]:
    """Blades across the corners, or a collimator turned far: straight parts of the dark outline inside the sides' edges."""
    side = min(calm.shape)
    near = max(1.0, side / 400)
    found: list[Line] = []
    rng = np.random.default_rng(0)
    for _ in range(16):
        inside = np.ones(len(outline), bool)
        for start, end in zip(corners, (*corners[1:], corners[0]), strict=True):
            inside &= Line(start, end).depths(outline) > 1.5 * near
        left = outline[inside]
        if len(left) < max(6, side / 85):
            break
        best: tuple[int, np.ndarray, np.ndarray] | None = None
        for _ in range(200):
            one, other = left[rng.choice(len(left), 2, replace=False)]
            away = other - one
            if np.hypot(*away) < side / 100:
                continue
            normal = np.array([-away[1], away[0]]) / np.hypot(*away)
            on = np.abs((left - one) @ normal) < near
            if best is None or on.sum() > best[0]:
                best = (int(on.sum()), left[on], normal)
        if best is None or best[0] < max(6, side / 85):
            break
        line = _along(best[1], calm.shape)
        refined = _refined_line(calm, line, best[1], darkest)
        if refined is None or not _dark_beyond(calm, refined, corners, darkest):
            # Not an edge: these points are not looked at again.
            outline = outline[~np.isin(outline, best[1]).all(axis=1)]
            continue
        found.append(refined)
        corners = clipped(corners, refined)
    return found


def _along(points: Float64[np.ndarray, "n 2"], shape: tuple[int, ...]) -> Line:
    """The line through points, the picture's middle to its right."""
    middle = points.mean(axis=0)
    _, _, axes = np.linalg.svd(points - middle, full_matrices=False)
    where = (points - middle) @ axes[0]
    start, end = middle + axes[0] * where.min(), middle + axes[0] * where.max()
    centre = np.array([[shape[1] / 2, shape[0] / 2]])
    line = Line((float(start[0]), float(start[1])), (float(end[0]), float(end[1])))
    return line if line.depths(centre)[0] > 0 else Line(line.end, line.start)


def _refined_line(
    calm: Float32[np.ndarray, "h w"], line: Line, points: Float64[np.ndarray, "n 2"], darkest: float
) -> Line | None:
    """The line through the places where half of the rise is done; None where there is no dark, sharp rise."""
    side = min(calm.shape)
    reach = max(6.0, side / 16)
    length = float(np.hypot(*np.subtract(line.end, line.start)))
    profiles, along = across(calm, line.start, line.end, (-reach, reach), darkest, max(4, round(length / 3)))
    direction = np.subtract(line.end, line.start) / length
    inwards = np.array([-direction[1], direction[0]])
    places = []
    for profile, where in zip(profiles, along, strict=True):
        at = [
            rise
            for rise in rises(profile, darkest, 0.8)
            if abs(rise.depth - reach) < 0.6 * reach
            and rise.outside < 0.5 * rise.inside
            and rise.width < SHARP * side
        ]
        if at:
            depth = min((rise.depth - reach for rise in at), key=abs)
            places.append(np.array(line.start) + direction * where + inwards * depth)
    if len(places) < 0.6 * len(profiles):
        return None
    found = np.array(places)
    for _ in range(3):
        fitted = _along(found, calm.shape)
        off = np.abs(fitted.depths(found))
        if off.max() < max(1.0, side / 300):
            break
        found = found[off < max(1.0, 2.0 * float(np.median(off)))]
        if len(found) < 0.5 * len(profiles):
            return None
    return _along(found, calm.shape)


def _dark_beyond(calm: Float32[np.ndarray, "h w"], line: Line, corners: Corners, darkest: float) -> bool:
    """Whether what a line cuts off is really dark."""
    rows, columns = calm.shape
    cut = inside_field(corners, None, rows, columns) & ~inside_field(
        clipped(corners, line), None, rows, columns
    )
    return is_dark(calm, cut, darkest, 0.7)
