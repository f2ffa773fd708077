"""The clock of the frame path, and the stamps a frame collects on its way."""

import time
from enum import IntEnum
from typing import Protocol, runtime_checkable

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000


class Stage(IntEnum):
    """Where a frame was when it was stamped, in the order of its way. The value is its place in the message.

    `DUE` is the driver's buffer stamp for a live device (exposure and the card's own latency lie before it)
    and the schedule for a replay. `RECEIVED` and `SHOWN` are stamped by the client and are not on the wire.
    """

    DUE = 0
    GRABBED = 1
    SUBMITTED = 2
    INFERRED = 3
    PUBLISHED = 4
    RECEIVED = 5
    SHOWN = 6


WIRE_STAGES = (Stage.DUE, Stage.GRABBED, Stage.SUBMITTED, Stage.INFERRED, Stage.PUBLISHED)


@runtime_checkable
class Clock(Protocol):
    """What the frame path needs of a clock; `FakeClock` stands in for it in tests."""

    def now_ns(self) -> int:
        """Nanoseconds of a clock that is system-wide and never steps."""
        ...


class MonotonicClock:
    """CLOCK_MONOTONIC: one clock for all processes of this host, and V4L2's own."""

    def now_ns(self) -> int:
        return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


class FakeClock:
    """A clock that moves only when told to.

    Args:
        start_ns: Where it begins.
    """

    def __init__(self, start_ns: int = NS_PER_S) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        return self._now_ns

    def advance_ms(self, duration_ms: float) -> None:
        """Move forward; a clock that never steps back refuses a negative duration."""
        if duration_ms < 0:
            raise ValueError(f"a monotonic clock moves forward, got {duration_ms} ms")
        self._now_ns += round(duration_ms * NS_PER_MS)


def sleep_until_ns(deadline_ns: int, clock: Clock) -> None:
    """Sleep until `clock` reads `deadline_ns`; returns at once when that has passed."""
    while (left_ns := deadline_ns - clock.now_ns()) > 0:
        time.sleep(left_ns / NS_PER_S)
