"""Whether frames are too unlike those the network was taught on for anything to be drawn on them, with hysteresis."""

import math
from collections import deque
from dataclasses import dataclass

from stream.timing import NS_PER_S

OUT_NS = NS_PER_S
"""So long nothing is drawn at least, so that the overlay does not flicker."""


@dataclass(frozen=True)
class DomainRule:
    """When frames are too unlike the taught ones for anything to be drawn on them.

    Raises:
        ValueError: A threshold that is no number above 0, or not 1 <= strange <= of.
    """

    threshold: float
    """Score above which a frame is strange (`calib/domain.py`)."""
    strange: int = 3
    """So many strange frames ..."""
    of: int = 10
    """... of the last so many end the synthesis; it comes back when none of so many is strange."""

    def __post_init__(self) -> None:
        if not 0.0 < self.threshold < math.inf:
            raise ValueError(f"the domain's threshold must be above 0, got {self.threshold}")
        if not 1 <= self.strange <= self.of:
            raise ValueError(f"needed 1 <= strange <= of, got {self.strange} of {self.of}")


class DomainWatch:
    """Counts strange frames, with hysteresis; what `Guard` knows of the domain.

    Args:
        rule: None where frames are not judged.
    """

    def __init__(self, rule: DomainRule | None = None) -> None:
        self.rule = rule
        self.score: float | None = None
        """Of the newest frame that was judged."""
        self._strange: deque[bool] = deque(maxlen=rule.of if rule else 1)
        self._out_until_ns: int | None = None

    @property
    def out(self) -> bool:
        """Whether nothing is drawn at present."""
        return self._out_until_ns is not None

    def as_dict(self) -> dict[str, object]:
        """For the heartbeat; empty of numbers where frames are not judged."""
        return {
            "score": self.score,
            "threshold": self.rule.threshold if self.rule else None,
            "out": self.out,
        }

    def judge(self, score: float, now_ns: int) -> None:
        """Take in a frame's score; NaN is none."""
        if math.isnan(score):
            return
        self.score = score
        if self.rule is None:
            return
        self._strange.append(score > self.rule.threshold)
        strange = self._strange.count(True)
        if not self.out:
            # The first frames have nothing before them that would speak for them.
            if strange >= min(self.rule.strange, len(self._strange)):
                self._out_until_ns = now_ns + OUT_NS
        elif strange == 0 and len(self._strange) == self.rule.of and now_ns >= (self._out_until_ns or 0):
            self._out_until_ns = None
