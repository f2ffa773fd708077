"""Where the time of every frame went at the publisher, counted in buckets: constant memory, and a part of the heartbeat."""

from bisect import bisect_left
from typing import Any

from stream.measure import STAGES
from stream.timing import NS_PER_MS, Stage

BUCKETS_MS = (0.25, 0.5, 1, 2, 3, 5, 7.5, 10, 12.5, 15, 20, 25, 35, 50, 75, 100, 150, 250, 500, 1000)
"""Upper bounds, each counted in its own bucket; one more bucket holds what is above the last. Finest where budgets lie."""
_BOUNDS_NS = tuple(round(bound * NS_PER_MS) for bound in BUCKETS_MS)
PUBLISHER_STAGES = {name: ends for name, ends in STAGES.items() if ends[1] <= Stage.PUBLISHED}
"""The stages that end at the publisher."""
WHOLE = "published"
"""From due to published: all of them together."""


class LatencyHistogram:
    """Counts latencies in `BUCKETS_MS`."""

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_MS) + 1)
        self.sum_ns = 0

    def add_ns(self, latency_ns: int) -> None:
        """Take in one latency."""
        self.counts[bisect_left(_BOUNDS_NS, latency_ns)] += 1
        self.sum_ns += latency_ns


class FrameHistograms:
    """The latencies of a stream's frames by stage, from its start on."""

    def __init__(self) -> None:
        self._whole = LatencyHistogram()
        self._stages = {name: LatencyHistogram() for name in PUBLISHER_STAGES}
        self._parts = [(self._stages[name], int(a), int(b)) for name, (a, b) in PUBLISHER_STAGES.items()]

    def add(self, stamps_ns: tuple[int, int, int, int], published_ns: int) -> None:
        """Take in a frame that has been published.

        Args:
            stamps_ns: Due, grabbed, submitted, inferred; 0 where it did not pass a stage, which then counts nothing.
            published_ns: When its message was handed over.
        """
        stamps = (*stamps_ns, published_ns)
        self._whole.add_ns(published_ns - stamps[Stage.DUE])
        for histogram, first, last in self._parts:
            if stamps[first] and stamps[last]:
                histogram.add_ns(stamps[last] - stamps[first])

    def as_dict(self) -> dict[str, Any]:
        """For the heartbeat: `buckets_ms`, and by stage the counts, one more than there are bounds, and their sum in ms."""
        parts = {WHOLE: self._whole, **self._stages}
        return {
            "buckets_ms": BUCKETS_MS,
            "stages": {
                name: {"counts": list(part.counts), "sum_ms": round(part.sum_ns / NS_PER_MS, 3)}
                for name, part in parts.items()
            },
        }
