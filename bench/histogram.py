"""Latencies of hours in constant memory.

Our own few lines of numpy, not the hdrhistogram package: that takes about 10 microseconds a value in Python, and brings
setuptools and pbr into an install that needs neither.
"""

import math

import numpy as np

LEAST_MS = 1e-3
MOST_MS = 1e6
WIDTH = 1.01
"""Each bin ends so many times where it begins: a percentile is known to one per cent."""
EDGES_MS = LEAST_MS * WIDTH ** np.arange(math.ceil(math.log(MOST_MS / LEAST_MS, WIDTH)) + 1)
P99_COUNT = 1_000
P999_COUNT = 10_000


class Histogram:
    """Counts of latencies from a microsecond to a quarter of an hour, by bins one per cent wide."""

    def __init__(self) -> None:
        self.counts = np.zeros(
            EDGES_MS.size + 1, np.int64
        )  # the first and the last hold what is below and above
        self.count = 0
        self.least_ms = math.inf
        self.most_ms = -math.inf
        self._sum_ms = 0.0

    def add(self, values_ms: np.ndarray) -> None:
        """Take in some latencies, (n,) ms."""
        if values_ms.size:
            np.add.at(self.counts, np.searchsorted(EDGES_MS, values_ms, side="right"), 1)
            self.count += int(values_ms.size)
            self.least_ms = min(self.least_ms, float(values_ms.min()))
            self.most_ms = max(self.most_ms, float(values_ms.max()))
            self._sum_ms += float(values_ms.sum())

    def percentile_ms(self, percent: float) -> float:
        """The value below which so many lie, to one per cent of it (nearest rank; the bin's geometric middle)."""
        rank = max(1, math.ceil(percent / 100.0 * self.count))
        index = int(np.searchsorted(np.cumsum(self.counts), rank))
        middle = float(EDGES_MS[min(max(index - 1, 0), EDGES_MS.size - 1)] * math.sqrt(WIDTH))
        return min(max(middle, self.least_ms), self.most_ms)

    def summary(self) -> dict[str, float | int | None]:
        """As reports have it; a percentile without enough values is None."""
        if not self.count:
            return {"n": 0} | dict.fromkeys(("min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max"), None)
        return {
            "n": self.count,
            "min": self.least_ms,
            "mean": self._sum_ms / self.count,
            "p50": self.percentile_ms(50.0),
            "p90": self.percentile_ms(90.0),
            "p95": self.percentile_ms(95.0),
            "p99": self.percentile_ms(99.0) if self.count >= P99_COUNT else None,
            "p99.9": self.percentile_ms(99.9) if self.count >= P999_COUNT else None,
            "max": self.most_ms,
        }
