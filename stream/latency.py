"""Latencies in constant memory, and percentiles that are given only where the sample is large enough."""

import numpy as np

from stream.timing import NS_PER_MS, NS_PER_S

P99_SAMPLES = 1_000
P999_SAMPLES = 10_000


def summarize_ms(samples_ms: np.ndarray) -> dict[str, float | int | None]:
    """Summarize latencies as the reports do.

    Args:
        samples_ms: (n,) latencies in ms, in any order.

    Returns:
        n, min, mean, p50, p90, p95, p99, p99.9, max, sd in ms. A percentile whose sample is too small is
        None: p99 wants 1,000 frames and p99.9 wants 10,000; everything but n is None where n is 0.
    """
    samples_ms = np.asarray(samples_ms, np.float64)
    count = int(samples_ms.size)
    if count == 0:
        return {"n": 0} | dict.fromkeys(
            ("min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max", "sd"), None
        )
    p50, p90, p95, p99, p999 = (float(p) for p in np.percentile(samples_ms, (50, 90, 95, 99, 99.9)))
    return {
        "n": count,
        "min": float(samples_ms.min()),
        "mean": float(samples_ms.mean()),
        "p50": p50,
        "p90": p90,
        "p95": p95,
        "p99": p99 if count >= P99_SAMPLES else None,
        "p99.9": p999 if count >= P999_SAMPLES else None,
        "max": float(samples_ms.max()),
        "sd": float(samples_ms.std()),
    }


class RecentLatencies:
    """The last latencies of a stream, for its status line.

    Args:
        size: How many are kept.
    """

    def __init__(self, size: int = 2 * P99_SAMPLES) -> None:
        self._samples_ms = np.zeros(size, np.float64)
        self._count = 0
        # numpy's first percentile takes 8 ms, three times that on a busy machine: here, and not while a frame waits.
        summarize_ms(self._samples_ms[:1])

    def add_ns(self, latency_ns: int) -> None:
        """Take in one latency."""
        self._samples_ms[self._count % self._samples_ms.size] = latency_ns / NS_PER_MS
        self._count += 1

    def summary(self) -> dict[str, float | int | None]:
        """As `summarize_ms`, over the last ones."""
        return summarize_ms(self._samples_ms[: min(self._count, self._samples_ms.size)])


class RecentRate:
    """Frames per second over the last frames of a stream.

    Args:
        frames: How many frames it looks back.
    """

    def __init__(self, frames: int = 30) -> None:
        self._stamps_ns = [0] * frames
        self._count = 0

    def add(self, stamp_ns: int) -> None:
        """Take in a frame."""
        self._stamps_ns[self._count % len(self._stamps_ns)] = stamp_ns
        self._count += 1

    def hz(self) -> float:
        """N stamps hold N - 1 intervals; 0 where there is no interval yet."""
        seen = sorted(self._stamps_ns[: self._count])
        if len(seen) < 2 or seen[-1] == seen[0]:
            return 0.0
        return (len(seen) - 1) * NS_PER_S / (seen[-1] - seen[0])
