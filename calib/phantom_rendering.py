"""Shapes as X-ray attenuation: tubes with their true thickness, smooth texture, blur."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64, Int64

_TABLE_STEPS = 2048
_PATCHES = np.array([2, 3, 4, 5, 6, 8, 10, 12, 16, 20, 24, 32, 40, 56, 80, 112, 160, 240])
"""Half sizes of the square patches tubes are drawn in, in pixels."""


def _chord_integral() -> Float32[np.ndarray, " n"]:
    """The integral of the unit circle's chord 2 sqrt(1 - v^2) from -1 to u, tabled over u in [-1, 1]."""
    u = np.linspace(-1.0, 1.0, _TABLE_STEPS + 1)
    return (u * np.sqrt(1.0 - u * u) + np.arcsin(u) + np.pi / 2).astype(np.float32)


_CHORD_INTEGRAL = _chord_integral()


@dataclass(frozen=True)
class Patch:
    """The part of a picture that some tubes touch."""

    rows: slice
    columns: slice
    thickness: Float32[np.ndarray, "h w"]
    """In pixels; empty where no tube touches the picture."""

    @property
    def place(self) -> tuple[slice, slice]:
        """Index of this part in the picture."""
        return self.rows, self.columns


def draw_tubes(
    shape: tuple[int, int],
    starts: Float32[np.ndarray, "n 2"],
    ends: Float32[np.ndarray, "n 2"],
    radii: Float32[np.ndarray, "n 2"],
    weights: Float32[np.ndarray, " n"] | None = None,
    sheets: Int64[np.ndarray, " n"] | None = None,
    margin: int = 0,
) -> Patch:
    """How much tube an X-ray passes at each pixel: the chord of a round cross section.

    Within a sheet segments unite (the largest chord counts, so joints and bifurcations are not doubled);
    sheets lie behind each other and add.

    Args:
        shape: (rows, columns) of the picture.
        starts: (x, y) of each straight segment's start, in pixels; whole numbers are pixel centres.
        ends: (x, y) of each segment's end.
        radii: Radius at start and end, in pixels, above 0.
        weights: Factor on each segment's chord, 0 to 1; 1 where None.
        sheets: Which sheet each segment lies in, from 0; all in one where None.
        margin: Pixels without tube kept around them, as far as the picture reaches.

    Returns:
        Thickness, averaged over a pixel's width across the tube. With chord 2 sqrt(r^2 - d^2) and F its
        integral, the average at distance d over width 1 is F(d + 1/2) - F(d - 1/2): its sum across the
        tube is the true cross section, however thin the tube and wherever it lies between pixels.

    Raises:
        ValueError: A segment and its radius need more than 240 pixels.
    """
    middle = 0.5 * (starts + ends)
    reach = 0.5 * np.abs(ends - starts).max(axis=1) + radii.max(axis=1) + 1.5
    size = np.array(shape[::-1])
    chosen = np.flatnonzero(((middle > -reach[:, None]) & (middle < size + reach[:, None])).all(axis=1))
    if not len(chosen):
        return Patch(slice(0, 0), slice(0, 0), np.zeros((0, 0), np.float32))
    steps = np.searchsorted(_PATCHES, reach[chosen])
    if steps.max() >= len(_PATCHES):
        raise ValueError(
            f"a tube's segment must reach at most {_PATCHES[-1]} pixels from its middle, got "
            f"{reach.max():.0f}; cut it into shorter ones"
        )
    halves = _PATCHES[steps]
    corners = np.floor(middle[chosen]).astype(np.int64) - halves[:, None]
    first = corners.min(axis=0) - margin
    last = (corners + 2 * halves[:, None] + 2).max(axis=0) + margin
    layers = np.zeros(len(chosen), np.int64) if sheets is None else sheets[chosen]
    canvas = np.zeros((int(layers.max()) + 1, int(last[1] - first[1]), int(last[0] - first[0])), np.float32)
    flat = canvas.reshape(-1)
    for half in np.unique(halves):
        group = np.flatnonzero(halves == half)
        some = chosen[group]
        side = 2 * int(half) + 2
        segment, place, chords = _chords(starts[some], ends[some], radii[some], corners[group], side)
        if weights is not None:
            chords *= weights[some].take(segment)
        column, row = (corners[group] - first).T
        corner_index = (layers[group] * canvas.shape[1] + row) * canvas.shape[2] + column
        across = np.arange(side)
        inner_index = (across[:, None] * canvas.shape[2] + across).ravel()
        np.maximum.at(flat, corner_index.take(segment) + inner_index.take(place), chords)
    low = np.maximum(first, 0)
    high = np.minimum(last, size)
    seen = canvas[:, low[1] - first[1] : high[1] - first[1], low[0] - first[0] : high[0] - first[0]]
    thickness = seen[0].copy()
    for sheet in seen[1:]:
        thickness += sheet
    return Patch(slice(int(low[1]), int(high[1])), slice(int(low[0]), int(high[0])), thickness)


def _chords(
    starts: Float32[np.ndarray, "n 2"],
    ends: Float32[np.ndarray, "n 2"],
    radii: Float32[np.ndarray, "n 2"],
    corner: Int64[np.ndarray, "n 2"],
    side: int,
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"], Float32[np.ndarray, " p"]]:
    """Chords of each segment in its own square patch, whose first pixel is `corner`.

    Returns:
        For each pixel that a tube touches: the segment, the pixel's number in its patch, and the chord.
    """
    across = np.arange(side, dtype=np.float32)
    x = (corner[:, 0] - starts[:, 0]).astype(np.float32)[:, None] + across
    y = (corner[:, 1] - starts[:, 1]).astype(np.float32)[:, None] + across
    step = ends - starts
    length_2 = np.maximum((step**2).sum(axis=1), np.float32(1e-6))
    x_part = x * (step[:, 0] / length_2)[:, None]
    y_part = y * (step[:, 1] / length_2)[:, None]
    along = y_part[:, :, None] + x_part[:, None, :]  # (n, side, side), 0 at the start and 1 at the end
    np.clip(along, 0.0, 1.0, out=along)
    away_2 = x[:, None, :] - along * step[:, 0, None, None]
    np.square(away_2, out=away_2)
    other = along * step[:, 1, None, None]
    np.subtract(y[:, :, None], other, out=other)
    np.square(other, out=other)
    away_2 += other
    reach_2 = np.square(radii.max(axis=1) + np.float32(0.5))
    inside = np.flatnonzero(away_2 < reach_2[:, None, None])
    segment = inside // (side * side)
    distance = np.sqrt(away_2.take(inside))
    radius = along.take(inside)
    radius *= (radii[:, 1] - radii[:, 0]).take(segment)
    radius += radii[:, 0].take(segment)
    per_radius = np.float32(0.5 * _TABLE_STEPS) / radius
    distance *= per_radius
    distance += np.float32(0.5 * _TABLE_STEPS)
    per_radius *= np.float32(0.5)
    near = np.clip(distance + per_radius, 0, _TABLE_STEPS).astype(np.int32)
    far = np.clip(distance - per_radius, 0, _TABLE_STEPS).astype(np.int32)
    chord: np.ndarray = _CHORD_INTEGRAL.take(near)
    chord -= _CHORD_INTEGRAL.take(far)
    chord *= radius
    chord *= radius
    return segment, inside - segment * (side * side), chord


def smooth_noise(
    shape: tuple[int, int], grain: float, rng: np.random.Generator
) -> Float32[np.ndarray, "h w"]:
    """Random texture of standard deviation near 1 whose blobs are about `grain` pixels across."""
    rows, columns = shape
    small = (max(4, round(rows / grain) + 3), max(4, round(columns / grain) + 3))
    knots = rng.standard_normal(small, dtype=np.float32)
    knots *= np.float32(1.6)  # interpolation averages neighbours and so lowers the spread
    texture: np.ndarray = cv2.resize(knots, (columns, rows), interpolation=cv2.INTER_CUBIC)
    return texture


def blur(picture: Float32[np.ndarray, "h w"], sigma: float) -> Float32[np.ndarray, "h w"]:
    """Gaussian blur that reaches `blur_reach(sigma)` pixels and no further. A new array."""
    side = 2 * blur_reach(sigma) + 1
    blurred: np.ndarray = cv2.GaussianBlur(picture, (side, side), sigma, borderType=cv2.BORDER_REPLICATE)
    return blurred


def blur_reach(sigma: float) -> int:
    """How far `blur` carries a pixel's value, in pixels."""
    return max(1, int(np.ceil(2.5 * sigma)))


def soft_step(distance: Float32[np.ndarray, "*dims"], softness: float) -> Float32[np.ndarray, "*dims"]:
    """0 far below zero, 1 far above, smooth within +-`softness` (3 t^2 - 2 t^3)."""
    t = distance * np.float32(0.5 / softness) + np.float32(0.5)
    np.clip(t, 0.0, 1.0, out=t)
    step: np.ndarray = t * t * (np.float32(3.0) - np.float32(2.0) * t)
    return step


def spline(knots: Float64[np.ndarray, "k d"], step: float) -> Float64[np.ndarray, "n d"]:
    """A Catmull-Rom curve through `knots`, cut into pieces about `step` long."""
    ends = np.vstack([2 * knots[0] - knots[1], knots, 2 * knots[-1] - knots[-2]])
    gaps = np.sqrt((np.diff(knots, axis=0) ** 2).sum(axis=1))
    counts = np.maximum(2, np.ceil(gaps / step)).astype(np.int64)
    piece = np.repeat(np.arange(len(counts)), counts)
    t = ((np.arange(len(piece)) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[piece])[:, None]
    before, here, there, after = (ends[piece + place] for place in range(4))
    curve = here + 0.5 * t * (
        there
        - before
        + t * (2 * before - 5 * here + 4 * there - after + t * (3 * (here - there) - before + after))
    )
    whole: np.ndarray = np.vstack([curve, knots[-1:]])
    return whole


def store(grey: Float32[np.ndarray, "h w"], max_value: int) -> np.ndarray:
    """Grey levels, 0 to 1, as stored pixel values: uint8 up to 255, else uint16. `grey` is overwritten."""
    grey *= np.float32(max_value)
    grey += np.float32(0.5)
    np.clip(grey, 0.0, np.float32(max_value), out=grey)
    return grey.astype(np.uint8 if max_value == 255 else np.uint16)
