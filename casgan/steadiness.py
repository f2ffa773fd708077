"""How steadily vessels are drawn: the same picture moved, and consecutive frames of a run.

A picture without vessels never flickers, so every figure here is relative to the strength of the layer that was
drawn, y_g - x, and stands beside how much was drawn. Grey levels are of 255 whatever the bits stored.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

Layer = Float[np.ndarray, "h w"]
SHIFTS_PX = (1, 2, 3, 4, 5, 6, 7)
STRONG = 0.5
"""Share of the layer's own 99th percentile above which it counts as drawn."""
EDGE_PX = 8
"""Rim left out on each side, beyond the shift: there the moved picture shows other tissue."""
WAYS = ((0, 1), (1, 0))
"""A shift along the columns, and one along the rows."""


@dataclass(frozen=True)
class ShiftTest:
    """How a layer changes when the picture moves under the network's grid."""

    change: dict[int, float]
    """By shift in pixels: mean |change| of the layer, moved back, over its mean strength, where it is drawn."""
    strength: float
    """Mean |y_g - x| where it is drawn, in grey levels of 255."""
    drawn: float
    """Share of the picture where it is drawn."""

    @property
    def worst(self) -> float:
        """The largest change over all shifts."""
        return max(self.change.values())


def shift_test(
    draw: Callable[[np.ndarray], Layer], wide: np.ndarray, shifts_px: Sequence[int] = SHIFTS_PX
) -> ShiftTest:
    """Cut a window out of a larger picture, then the same window moved, and compare what is drawn.

    Args:
        draw: From a picture of the window's size, stored pixel values, to the layer y_g - x in grey levels.
        wide: The picture, `max(shifts_px)` pixels larger than the window on either axis; what is shown at
            the border then really moves in, and nothing has to be made up.
        shifts_px: In pixels.

    Returns:
        NaN for every shift where nothing was drawn at all.
    """
    most = max(shifts_px)
    rows, columns = (side - most for side in wide.shape)

    def window(down: int, right: int) -> np.ndarray:
        cut: np.ndarray = np.ascontiguousarray(wide[down : down + rows, right : right + columns])
        return cut

    still = draw(window(0, 0))
    change = {}
    for shift in shifts_px:
        relative = []
        for down, right in WAYS:
            moved = draw(window(down * shift, right * shift))
            # What lay at (r, c) now lies at (r - down, c - right).
            here = still[down * shift :, right * shift :]
            there = moved[: rows - down * shift, : columns - right * shift]
            relative.append(relative_change(_inner(here), _inner(there)))
        change[shift] = float(np.mean(relative))
    drawn = strong(_inner(still))
    strength = _mean(np.abs(_inner(still)), drawn) if drawn.any() else 0.0
    return ShiftTest(change, strength, float(drawn.mean()))


def _inner(layer: np.ndarray) -> np.ndarray:
    return layer[EDGE_PX:-EDGE_PX, EDGE_PX:-EDGE_PX]


def strong(layer: Layer) -> Bool[np.ndarray, "h w"]:
    """Where a layer is drawn: above half its own 99th percentile, and by 1 grey level at least."""
    size = np.abs(layer)
    # Of what was drawn at all: an empty background must not set the scale.
    touched = size[size > 0]
    if not touched.size:
        return np.zeros(layer.shape, bool)
    drawn: np.ndarray = size > max(1.0, STRONG * float(np.percentile(touched, 99)))
    return drawn


def relative_change(first: Layer, second: Layer) -> float:
    """Mean |second - first| over mean strength, where either is drawn; NaN where neither is."""
    drawn = strong(first) | strong(second)
    if not drawn.any():
        return float("nan")
    size = 0.5 * _mean(np.abs(first) + np.abs(second), drawn)
    return _mean(np.abs(second - first), drawn) / size


def _mean(values: Layer, where: Bool[np.ndarray, "h w"]) -> float:
    """In fp64: the order in which fp32 is added up depends on where an array lies in memory."""
    return float(values[where].mean(dtype=np.float64))


@dataclass(frozen=True)
class Flicker:
    """How a layer changes from frame to frame."""

    ratio: float
    """Mean |change| of the layer over its mean strength, where it is drawn; up to 2 for one that jumps wholly."""
    excess: float
    """Mean |y_g' - y_g| - |x' - x| where it is drawn, in grey levels: what the eye sees beyond the run's own motion."""
    truth_ratio: float
    """`ratio` of the true layer, y - x: vessels that move do change. NaN without a truth."""
    strength: float
    """Mean |y_g - x| where it is drawn, in grey levels."""
    drawn: float
    """Share of the picture where it is drawn."""


def flicker(
    live: Sequence[Layer], synthetic: Sequence[Layer], angiogram: Sequence[Layer] | None = None
) -> Flicker:
    """Consecutive frames of one run.

    Args:
        live: x, grey levels.
        synthetic: y_g of each.
        angiogram: y of each where there is a truth.

    Raises:
        ValueError: Fewer than two frames.
    """
    if len(live) < 2:
        raise ValueError(f"flicker needs 2 consecutive frames or more, got {len(live)}")
    layers = [drawn - picture for picture, drawn in zip(live, synthetic, strict=True)]
    ratios, excesses = [], []
    for at in range(len(live) - 1):
        ratios.append(relative_change(layers[at], layers[at + 1]))
        drawn = strong(layers[at]) | strong(layers[at + 1])
        if drawn.any():
            output = _mean(np.abs(synthetic[at + 1] - synthetic[at]), drawn)
            excesses.append(output - _mean(np.abs(live[at + 1] - live[at]), drawn))
    truth = []
    if angiogram is not None:
        true_layers = [y - x for x, y in zip(live, angiogram, strict=True)]
        truth = [relative_change(*true_layers[at : at + 2]) for at in range(len(live) - 1)]
    places = [strong(layer) for layer in layers]
    strengths = [
        _mean(np.abs(layer), place) for layer, place in zip(layers, places, strict=True) if place.any()
    ]
    return Flicker(
        mean_known(ratios),
        mean_known(excesses),
        mean_known(truth),
        float(np.mean(strengths)) if strengths else 0.0,
        float(np.mean([place.mean() for place in places])),
    )


def mean_known(values: Sequence[float]) -> float:
    """The mean of the numbers among them; NaN where there are none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
