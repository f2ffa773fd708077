"""What the noise says of the detector: a linear or a logarithmic response, values cut off at the ends, values piled up."""

import itertools
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float64

BINS = 12
LEAST_IN_BIN = 200
LEAST_SPREAD = 1.1
"""The brightest bin must be this many times as bright as the darkest for a slope to mean anything."""
LEAST_VARIANCE = 0.3
"""Noise variance in stored values squared below which rounding hides it."""
LINEAR_FROM = 0.3
LOGARITHMIC_TO = -1.0
"""A slope between these, or nearer to 0 than twice its uncertainty, does not tell. A square root gives 0, and less where
electronic noise adds to it; a logarithm over the whole stored range gave -4.2 to -2.8 on the digital phantom."""
PILED_SHARE = 0.005
PILED_TIMES = 8.0
"""A plateau holds this share of the pixels and this many times as many as a value beside it."""


def response_by_noise(
    pairs: Sequence[tuple[np.ndarray, np.ndarray]], field: Bool[np.ndarray, "h w"], largest: float
) -> tuple[str, float | None]:
    """The detector's response by how its noise goes with the signal.

    Quanta are Poisson distributed: of a linear response y = g I the variance is g y, so that d ln var / d ln y = 1;
    of y = a ln I + b it is a^2 / I, which falls as y rises. Black level, gamma and noise reduction change the
    slope, so only its sign is taken. Noise is what differs between two neighbouring frames at the finest scale
    (the diagonal difference of 2 x 2 pixels), where motion shows least.

    Args:
        pairs: Neighbouring frames of one run, stored values, the right way round (bright where more quanta came).
        field: True inside the collimated field.
        largest: The largest stored value; pixels at it or at 0 are left out.

    Returns:
        "linear", "logarithmic" or "cannot tell", and the slope d ln var / d ln y; None where none could be fitted.
    """
    signal, noise = [], []
    rows, columns = (side // 2 * 2 for side in field.shape)
    whole = _cells(field[:rows, :columns]).all(axis=0)
    for first, second in pairs:
        one, two = (_cells(frame[:rows, :columns].astype(np.float64)) for frame in (first, second))
        usable = whole & ((one > 0) & (one < largest) & (two > 0) & (two < largest)).all(axis=0)
        change = (two - one)[:, usable]
        signal.append(0.5 * (one + two)[:, usable].mean(axis=0))
        # Four pixels of two frames, halved: twice the variance of one pixel.
        noise.append(0.5 * np.square(0.5 * (change[0] - change[1] - change[2] + change[3])))
    if not signal:
        return "cannot tell", None
    return _slope(np.concatenate(signal), np.concatenate(noise))


def _slope(signal: Float64[np.ndarray, " n"], noise: Float64[np.ndarray, " n"]) -> tuple[str, float | None]:
    """The slope of ln variance over ln signal, and what it tells."""
    if len(signal) < BINS * LEAST_IN_BIN:
        return "cannot tell", None
    edges = np.percentile(signal, np.linspace(2.0, 98.0, BINS + 1))
    means, variances = [], []
    for low, high in itertools.pairwise(edges):
        inside = (signal >= low) & (signal < high)
        if inside.sum() < LEAST_IN_BIN:
            continue
        some = noise[inside]
        # What moves makes a tail of its own; the lower nine tenths go with the variance all the same.
        means.append(float(signal[inside].mean()))
        variances.append(float(some[some <= np.percentile(some, 90.0)].mean()) - 1.0 / 12.0)
    if len(means) < 4 or min(variances) < LEAST_VARIANCE or means[-1] < LEAST_SPREAD * means[0]:
        return "cannot tell", None
    x, y = np.log(means), np.log(variances)
    x = x - x.mean()
    slope = float((x * y).sum() / (x * x).sum())
    error = float(np.sqrt(np.square(y - y.mean() - slope * x).sum() / (len(x) - 2) / (x * x).sum()))
    if LOGARITHMIC_TO < slope < LINEAR_FROM or abs(slope) < 2.0 * error:
        return "cannot tell", slope
    return ("linear" if slope > 0.0 else "logarithmic"), slope


def _cells(plane: np.ndarray) -> np.ndarray:
    """(4, cells): the four pixels of each 2 x 2 cell."""
    return np.stack([plane[row::2, column::2].ravel() for row in (0, 1) for column in (0, 1)])


def plateaus(counts: np.ndarray) -> tuple[int | None, int | None]:
    """Stored values, other than 0 and the largest, at which the darkest or the brightest pixels pile up.

    A detector that saturates below the largest value, or a window applied before the grabber, leaves them.

    Args:
        counts: How often each stored value occurs, from 0 to the largest.

    Returns:
        (the dark one, the bright one); None for none.
    """
    bright = _piled(counts)
    dark = _piled(counts[::-1])
    return None if dark is None else len(counts) - 1 - dark, bright


def _piled(counts: np.ndarray) -> int | None:
    total = int(counts.sum())
    used = np.flatnonzero(counts[:-1])
    if not len(used):
        return None
    # The brightest fiftieth and one value more: hot pixels may lie above the plateau.
    above = total - np.cumsum(counts)[used] + counts[used]
    candidates = used[-1 - int((above <= 0.02 * total).sum()) :]
    value = int(candidates[counts[candidates].argmax()])
    before = used[used < value][-8:]
    if len(before) < 4 or counts[value] < PILED_SHARE * total:
        return None
    return value if counts[value] > PILED_TIMES * counts[before].mean() else None
