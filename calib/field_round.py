"""The round edge of a field: the circle that the outline of what is really dark lies on."""

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from calib.field import inside_field, whole_picture
from calib.field_dark import is_dark, typical_grey
from calib.field_edges import rises
from calib.results import FieldCircle


def round_edge(
    calm: Float32[np.ndarray, "h w"], outline: Float64[np.ndarray, "n 2"], darkest: float
) -> FieldCircle | None:
    """The circle that most of the dark outline lies on; None where it is not round."""
    side = min(calm.shape)
    if len(outline) < 0.1 * side:
        return None
    rng = np.random.default_rng(0)
    near = max(1.5, side / 150)
    best: tuple[int, np.ndarray] | None = None
    some = outline[:: max(1, len(outline) // 512)]
    for _ in range(150):
        fit = _circle_through(some[rng.choice(len(some), 3, replace=False)])
        if fit is None or not 0.3 * side < fit[2] < 1.5 * side:
            continue
        count = int((np.abs(np.hypot(*(some - fit[:2]).T) - fit[2]) < near).sum())
        if best is None or count > best[0]:
            best = (count, fit)
    if best is None or best[0] < 0.6 * len(some):
        return None
    fit = best[1]
    for _ in range(4):
        on = np.abs(np.hypot(*(outline - fit[:2]).T) - fit[2]) < near
        fit = _circle_of(outline[on])
    # A straight edge lies on a large circle too: a round one fits clearly better than a line.
    middle = outline[on].mean(axis=0)
    _, size, _ = np.linalg.svd(outline[on] - middle, full_matrices=False)
    as_line = size[1] / np.sqrt(on.sum())
    as_circle = float(np.sqrt(np.mean((np.hypot(*(outline[on] - fit[:2]).T) - fit[2]) ** 2)))
    if as_line < max(0.5, 2.0 * as_circle):
        return None
    radius = float(fit[2]) + _radius_change(calm, fit, outline[on], darkest)
    circle = FieldCircle(float(fit[0]), float(fit[1]), radius)
    rows, columns = calm.shape
    cut = ~inside_field(whole_picture(rows, columns), circle, rows, columns)
    if not is_dark(calm, cut, darkest, 0.85):
        return None
    # An edge that is round but no circle leaves a bright corner outside the circle.
    level = darkest + 0.5 * (typical_grey(calm, darkest) - darkest)
    bright = cv2.erode((cut & (calm > level)).astype(np.uint8), np.ones((3, 3), np.uint8))
    return None if bright.sum() > (side / 40) ** 2 else circle


def _circle_through(points: Float64[np.ndarray, "3 2"]) -> Float64[np.ndarray, " 3"] | None:
    system = np.c_[2 * points, np.ones(3)]
    if abs(np.linalg.det(system)) < 1e-6:
        return None
    return _circle_of(points)


def _circle_of(points: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, " 3"]:
    """Least squares on x^2 + y^2 = 2 a x + 2 b y + c (Kåsa, 1976)."""
    system = np.c_[2 * points, np.ones(len(points))]
    a, b, c = np.linalg.lstsq(system, (points**2).sum(axis=1), rcond=None)[0]
    return np.array([a, b, np.sqrt(max(c + a * a + b * b, 0.0))])


def _radius_change(
    calm: Float32[np.ndarray, "h w"],
    fit: Float64[np.ndarray, " 3"],
    points: Float64[np.ndarray, "n 2"],
    darkest: float,
) -> float:
    """By how much the radius differs where half of the rise is done, in the middle over radii through some points."""
    rows, columns = calm.shape
    reach = max(5, round(min(rows, columns) / 32))
    some = points[:: max(1, len(points) // 128)]
    away = some - fit[:2]
    away /= np.hypot(*away.T)[:, None]
    radii = fit[2] + reach - 0.5 - np.arange(2 * reach)
    x = fit[0] + away[:, :1] * radii
    y = fit[1] + away[:, 1:] * radii
    profiles = cv2.remap(calm, (x - 0.5).astype(np.float32), (y - 0.5).astype(np.float32), cv2.INTER_LINEAR)
    within = ((x > 0) & (x < columns) & (y > 0) & (y < rows)).all(axis=1)
    changes = []
    for profile in profiles[within]:
        at = [reach - rise.depth for rise in rises(profile, darkest, 0.8)]
        changes.extend([min(at, key=abs)] if at else [])
    return float(np.median(changes)) if len(changes) >= 8 else 0.0
