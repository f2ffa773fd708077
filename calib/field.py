"""The field as corners and a circle, and the mask that follows from it. numpy alone: the guard's side may import it."""

import numpy as np
from jaxtyping import Bool, Float64, UInt8

from calib.results import Box, FieldCircle, GeometryResult

Corners = tuple[tuple[float, float], ...]


def field_mask(result: GeometryResult, rows: int, columns: int) -> UInt8[np.ndarray, "h w"]:
    """Where vessels may be drawn and grey levels be measured.

    Args:
        result: What `calib.geometry.measure_geometry` found.
        rows: Of the frames that the mask is for.
        columns: The same.

    Returns:
        255 inside the field, 0 outside it and in every burned-in box. A new array.

    Raises:
        ValueError: The geometry is that of frames of another size.
    """
    if (rows, columns) != (result.rows, result.columns):
        raise ValueError(
            f"needed frames of {result.rows} x {result.columns} as in the geometry's record, got {rows} x {columns}; "
            "calibrate again at this size: contrastream calib geometry SOURCE --out site.toml"
        )
    inside = inside_field(result.corners, result.circle, rows, columns)
    for box in result.burned_in:
        inside[box.top : box.bottom, box.left : box.right] = False
    return np.where(inside, np.uint8(255), np.uint8(0))


def inside_field(
    corners: Corners, circle: FieldCircle | None, rows: int, columns: int
) -> Bool[np.ndarray, "h w"]:
    """Pixels whose middle lies inside all edges.

    Args:
        corners: Of a convex polygon, (column, row), clockwise as seen; at least three.
        circle: A round edge besides; None where there is none.
        rows: Of the picture.
        columns: The same.
    """
    column = np.arange(columns)[None] + 0.5
    row = np.arange(rows)[:, None] + 0.5
    inside = np.ones((rows, columns), bool)
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        # Clockwise with rows counted downwards: what is inside lies to the right of each side.
        inside &= (x1 - x0) * (row - y0) - (y1 - y0) * (column - x0) >= 0.0
    if circle is not None:
        inside &= (column - circle.column) ** 2 + (row - circle.row) ** 2 <= circle.radius**2
    return inside


def whole_picture(rows: int, columns: int) -> Corners:
    """The picture's own corners."""
    return ((0.0, 0.0), (float(columns), 0.0), (float(columns), float(rows)), (0.0, float(rows)))


def whole_box(rows: int, columns: int) -> Box:
    """All of the picture."""
    return Box(0, 0, columns, rows)


def outline_of(
    corners: Corners, circle: FieldCircle | None, rows: int, columns: int, step: float = 2.0
) -> Float64[np.ndarray, "n 2"]:
    """Points (column, row) about `step` pixels apart along a field's edge, the picture's border where it has none.

    Args:
        corners: As for `inside_field`.
        circle: The same.
        rows: Of the picture.
        columns: The same.
        step: Pixels between two points.
    """
    along = []
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        count = max(2, int(np.hypot(x1 - x0, y1 - y0) / step) + 1)
        share = np.linspace(0.0, 1.0, count)[:, None]
        along.append(np.array([(x0, y0)]) * (1 - share) + np.array([(x1, y1)]) * share)
    points: Float64[np.ndarray, "n 2"] = np.concatenate(along)
    if circle is None:
        return points
    away = np.hypot(points[:, 0] - circle.column, points[:, 1] - circle.row)
    angles = np.linspace(0.0, 2 * np.pi, max(8, int(2 * np.pi * circle.radius / step)), endpoint=False)
    arc = np.stack(
        [circle.column + circle.radius * np.cos(angles), circle.row + circle.radius * np.sin(angles)], axis=1
    )
    inside = np.ones(len(arc), bool)
    for (x0, y0), (x1, y1) in zip(corners, (*corners[1:], corners[0]), strict=True):
        inside &= (x1 - x0) * (arc[:, 1] - y0) - (y1 - y0) * (arc[:, 0] - x0) >= 0.0
    both: Float64[np.ndarray, "n 2"] = np.concatenate([points[away <= circle.radius], arc[inside]])
    return both
