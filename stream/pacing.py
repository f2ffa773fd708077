"""When frames are due: the intended schedule of a replay, against which its latency is measured."""

import itertools
import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from stream.errors import SourceError
from stream.timing import NS_PER_MS, NS_PER_S

MAX_TIMED = 4000
"""Frames whose times fit into a packet (stream.control.MAX_PACKET)."""


@dataclass(frozen=True)
class Pacing:
    """When frames are due.

    Args:
        rate_hz: Overrides the recording's own times; None keeps them.
        speed: How many times faster than that; infinite, and a frame is due as soon as it is decoded and there is
            room for it.
        loop: Begin again at the end.
        lossless: Never pass over a frame when the source falls behind.
        frames: End after so many; None for no limit.
    """

    rate_hz: float | None = None
    speed: float = 1.0
    loop: bool = False
    lossless: bool = False
    frames: int | None = None

    def intended_rate_hz(self, recorded_hz: float | None) -> float | None:
        """Frames per second of a replay of a recording at `recorded_hz`; None where nothing says, or as fast as can be."""
        rate_hz = self.rate_hz or recorded_hz
        return None if rate_hz is None or math.isinf(self.speed) else rate_hz * self.speed


@runtime_checkable
class Timed(Protocol):
    """What a schedule needs of a source."""

    def interval_ms(self, index: int) -> float | None:
        """Time from frame `index - 1` to frame `index`; None where nothing says."""
        ...


class Schedule:
    """The instants at which a recording's frames are due, fixed from the first frame on."""

    def __init__(self, source: Timed, pacing: Pacing, start_ns: int) -> None:
        self._source = source
        self._period_ms = None if pacing.rate_hz is None else 1000.0 / pacing.rate_hz
        self._speed = pacing.speed
        self._due_ns = float(start_ns)
        self._first = True

    def peek(self, index: int) -> float:
        """The instant the next frame, the recording's `index`, is due, in ns of CLOCK_MONOTONIC."""
        return self._due_ns if self._first else self._due_ns + self.interval_ns(index)

    def advance(self, index: int) -> int:
        """As `peek`, and go on to the frame after it."""
        self._due_ns = self.peek(index)
        self._first = False
        return round(self._due_ns)

    def interval_ns(self, index: int) -> float:
        """Time from the frame before to frame `index`."""
        interval_ms = self._period_ms if self._period_ms is not None else self._source.interval_ms(index)
        if interval_ms is None:
            raise SourceError("needed the frame rate, but the recording does not say it; add --rate")
        return interval_ms * NS_PER_MS / self._speed


def due_between(before_ns: int, now_ns: int, rate_hz: float | None) -> int:
    """Frames that were due after the one at `before_ns` and before one at `now_ns`; 0 where nothing says how many come.

    Args:
        before_ns: When the frame before was due.
        now_ns: When the next one is.
        rate_hz: Frames per second.
    """
    if not rate_hz:
        return 0
    return max(0, round((now_ns - before_ns) * rate_hz / NS_PER_S) - 1)


def frame_times_ms(source: Timed, frames: int | None, pacing: Pacing) -> list[float] | None:
    """When each frame of a recording is, from the first on, in ms; None where nothing says.

    Args:
        source: The recording.
        frames: How many it has; None where it has no end of its own.
        pacing: Its rate and how many are taken.

    Raises:
        SourceError: There are more than one packet tells of.
    """
    count = min((each for each in (frames, pacing.frames) if each is not None), default=0)
    if count > MAX_TIMED:
        raise SourceError(f"the times of at most {MAX_TIMED} frames can be kept, got {count}; give --frames")
    period_ms = None if pacing.rate_hz is None else 1000.0 / pacing.rate_hz
    steps = [source.interval_ms(index) if period_ms is None else period_ms for index in range(1, count)]
    known = [step for step in steps if step is not None]
    if len(known) < len(steps):
        return None
    return [round(time, 3) for time in itertools.accumulate(known, initial=0.0)]
