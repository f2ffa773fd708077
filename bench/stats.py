"""Intervals and slopes. Percentiles of latencies live in stream/latency.py, once."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

CHUNK = 50
"""Frames that are resampled together, since neighbouring frames share the machine's mood (1.7 s at 30 Hz)."""
MIN_CHUNKS = 4
RESAMPLES = 2_000
BLOCK = 100_000
"""Samples that are resampled at once, which stay in a cache; all at once would be 150 MB for 18,000 frames."""


@dataclass(frozen=True)
class Ratio:
    """A ratio of two medians with its 95 % interval; no interval where there are too few chunks for one."""

    value: float
    low: float | None
    high: float | None
    chunks: int

    def as_dict(self) -> dict[str, float | int | None]:
        """For the report."""
        return asdict(self)


def resampled_quantiles(values: np.ndarray, counts: np.ndarray, quantile: float) -> np.ndarray:
    """The quantile of each resampling over chunks of time.

    Args:
        values: (n,) in the order of time.
        counts: (resamples, chunks) how often each chunk of time was drawn.
        quantile: 0 to 1.

    Returns:
        (resamples,) the smallest value that so much of the resampled series does not exceed.
    """
    chunk_of = np.repeat(
        np.arange(counts.shape[1]), [part.size for part in np.array_split(values, counts.shape[1])]
    )
    order = np.argsort(values, kind="stable")
    ordered, chunk_of = values[order], chunk_of[order]
    found = np.empty(counts.shape[0])
    small = counts.astype(np.int32)
    together = max(1, BLOCK // values.size)
    for start in range(0, counts.shape[0], together):
        passed = np.cumsum(small[start : start + together].take(chunk_of, axis=1), axis=1, dtype=np.int32)
        needed = np.ceil(quantile * passed[:, -1:]).astype(np.int32)
        found[start : start + together] = ordered[(passed >= needed).argmax(axis=1)]
    return found


def ratio_of_medians(
    numerator: np.ndarray, denominator: np.ndarray, *, chunk: int = CHUNK, seed: int = 0
) -> Ratio | None:
    """Compare two series that were measured side by side.

    Args:
        numerator: (n,) values in the order they were measured.
        denominator: (m,) values of the same stretch of time, in order.
        chunk: Values that are resampled together.
        seed: Of the resampling, so that a report can be made again.

    Returns:
        The ratio of the medians and a 95 % percentile bootstrap over chunks of time, both series resampled
        by the same chunks; None where either series is empty or the denominator's median is not above 0.
    """
    return ratio_of_percentiles(numerator, denominator, 50.0, chunk=chunk, seed=seed)


def ratio_of_percentiles(
    numerator: np.ndarray, denominator: np.ndarray, percent: float, *, chunk: int = CHUNK, seed: int = 0
) -> Ratio | None:
    """As `ratio_of_medians`, of another percentile. The caller sees to it that there are enough values for one.

    Args:
        numerator: (n,) values in the order they were measured; infinite for one that never came.
        denominator: (m,) values of the same stretch of time, in order; as `numerator`.
        percent: Which percentile, 0 to 100; its nearest rank, but the usual median for 50.
        chunk: Values that are resampled together.
        seed: Of the resampling.

    Returns:
        As `ratio_of_medians`; None also where so many values are infinite that a percentile is, and no interval where
        that, or a denominator of 0, happens in a resampling.
    """

    def percentile(values: np.ndarray) -> float:
        if percent == 50.0:
            return float(np.median(values))
        return float(np.percentile(values, percent, method="inverted_cdf"))

    if not numerator.size or not denominator.size:
        return None
    above, below = percentile(numerator), percentile(denominator)
    if below <= 0 or not np.isfinite((above, below)).all():
        return None
    value = above / below
    chunks = min(numerator.size, denominator.size) // chunk
    if chunks < MIN_CHUNKS:
        return Ratio(value, None, None, chunks)
    generator = np.random.default_rng(seed)
    counts = generator.multinomial(chunks, np.full(chunks, 1 / chunks), size=RESAMPLES)
    aboves = resampled_quantiles(numerator, counts, percent / 100.0)
    belows = resampled_quantiles(denominator, counts, percent / 100.0)
    if not (np.isfinite(aboves).all() and np.isfinite(belows).all() and (belows > 0).all()):
        return Ratio(value, None, None, chunks)
    ratios = aboves / belows
    low, high = np.percentile(ratios, (2.5, 97.5))
    return Ratio(value, float(low), float(high), chunks)


def slope(x: np.ndarray, y: np.ndarray) -> float | None:
    """Slope of the least-squares line through (x, y); None for fewer than three different x."""
    if np.unique(x).size < 3:
        return None
    return float(slopes(np.atleast_2d(x), np.atleast_2d(y))[0])


def slopes(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Slopes of the least-squares lines through many sets of points at once.

    Args:
        x: (sets, points).
        y: (sets, points).

    Returns:
        (sets,) float64; NaN where a set has one x only.
    """
    x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
    centred = x - x.mean(axis=1, keepdims=True)
    above = (centred * (y - y.mean(axis=1, keepdims=True))).sum(axis=1)
    below = (centred**2).sum(axis=1)
    found = np.full(len(x), np.nan)
    np.divide(above, below, out=found, where=below > 0)
    return found


def mean_interval(
    values: np.ndarray, groups: Sequence[str], *, seed: int = 0
) -> tuple[float | None, float | None, float | None]:
    """A mean with its 95 % interval, resampled by patient, since the frames of one patient are alike.

    Args:
        values: (n,) one per frame; NaN where the figure does not exist, and left out.
        groups: Whose frame each one is.
        seed: Of the resampling, so that a report can be made again.

    Returns:
        (mean, low, high); no interval for fewer than 4 patients, nothing at all without a value.
    """
    known = ~np.isnan(values)
    names, whose = np.unique(np.asarray(groups)[known], return_inverse=True)
    if not names.size:
        return None, None, None
    sums = np.bincount(whose, values[known])
    counts = np.bincount(whose).astype(np.float64)
    mean = float(sums.sum() / counts.sum())
    if names.size < MIN_CHUNKS:
        return mean, None, None
    drawn = np.random.default_rng(seed).integers(names.size, size=(RESAMPLES, names.size))
    low, high = np.percentile(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1), (2.5, 97.5))
    return mean, float(low), float(high)
