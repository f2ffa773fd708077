"""What drawing did to the picture: how much was left alone, how dark vessels are, and whether a grid shows."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, UInt8

LATTICE_PERIODS_PX = (8, 4)
"""What a network of stride 8 with pixel shuffle by 4 would leave, in its own pixels."""


def exact_fraction(attention: UInt8[np.ndarray, "h w"], where: Bool[np.ndarray, "h w"]) -> float:
    """Share of the pixels `where` whose 8-bit attention is 0: there the live pixel is passed on bit for bit."""
    return float((attention[where] == 0).mean()) if where.any() else float("nan")


def squared_error(
    first: Float[np.ndarray, "h w"], second: Float[np.ndarray, "h w"], where: Bool[np.ndarray, "h w"]
) -> float:
    """Mean squared difference over the pixels `where`, in squared grey levels."""
    return (
        float(np.mean((first[where] - second[where]) ** 2, dtype=np.float64)) if where.any() else float("nan")
    )


def psnr(mean_squared_error: float, largest: float) -> float:
    """Peak signal to noise in dB, 10 log10(largest^2 / error); infinite for equal pictures."""
    if mean_squared_error == 0.0:
        return math.inf
    return 10.0 * math.log10(largest**2 / mean_squared_error)


def darkening(
    live: Float[np.ndarray, "h w"], synthetic: Float[np.ndarray, "h w"], where: Bool[np.ndarray, "h w"]
) -> float:
    """Mean of x - y_g over the pixels `where`, in grey levels: what an eye can see of the vessels."""
    return float((live[where] - synthetic[where]).mean(dtype=np.float64)) if where.any() else float("nan")


def lattice(
    planes: Sequence[Float[np.ndarray, "h w"]], periods_px: Sequence[int] = LATTICE_PERIODS_PX
) -> dict[str, dict[str, float]]:
    """How far a grid stands out of the spectrum of what was drawn; 1 is not at all.

    The planes' power spectra (Hann window) are added up. A grid of period p gives peaks at 1/p cycles per
    pixel along the rows, the columns and both, spread by the drawing's own shape. So: the power within 1 bin of
    such a place over the power 4 to 10 bins around it, geometric means (what falls off steadily with frequency
    then cancels), the largest of the four places. A ratio says nothing of how strong a grid is: where a drawing is
    soft there is next to no power beside it. So also the grid's amplitude: the root of the power that stands out at
    all places, over that of the whole drawing.

    Args:
        planes: Attention, all of one size, at the network's own pixels.
        periods_px: Periods to look for.

    Returns:
        `ratio` and `amplitude`, each by "1/p"; NaN where nothing was drawn.
    """
    rows, columns = planes[0].shape
    window = np.outer(np.hanning(rows), np.hanning(columns))
    power = np.zeros((rows, columns))
    for plane in planes:
        power += np.abs(np.fft.fft2((plane - plane.mean()) * window)) ** 2
    ratios, amplitudes = {}, {}
    total = float(power.sum())
    for period in periods_px:
        places = [(rows // period, 0), (0, columns // period)]
        places += [(rows // period, columns // period), (rows // period, -(columns // period))]
        peaks = [_peak(power, row, column) for row, column in places]
        ratios[f"1/{period}"] = max(ratio for ratio, _ in peaks)
        # Twice, since a real picture's spectrum is mirrored.
        excess = 2.0 * sum(power for _, power in peaks)
        amplitudes[f"1/{period}"] = float(np.sqrt(excess / total)) if total > 0 else float("nan")
    return {"ratio": ratios, "amplitude": amplitudes}


def _peak(power: Float[np.ndarray, "h w"], row: int, column: int) -> tuple[float, float]:
    """How far a place of the spectrum stands out, and the power by which it does."""
    reach = 10
    away = np.arange(-reach, reach + 1)
    around = power[np.ix_((row + away) % power.shape[0], (column + away) % power.shape[1])]
    distance = np.hypot(away[:, None], away)
    if around.max() == 0.0:
        return float("nan"), 0.0
    level = np.log(np.maximum(around, np.finfo(np.float64).tiny))
    beside = level[(distance >= 4) & (distance <= reach)].mean()
    ratio = float(np.exp(level[distance <= 1].mean() - beside))
    near = around[distance <= 2]
    return ratio, max(0.0, float((near - np.exp(beside)).sum()))
