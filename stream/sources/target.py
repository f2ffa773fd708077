"""The glass-to-glass target as a live source, `python:stream.sources.target:TargetSource`.

A camera that films the viewer's screen sees when each frame was due; `calib.target.read_target` reads it, and
`TargetCode.age_ms` of the camera's stamp on the same host is the latency from there to the light of the screen. `contrastream
bench glass` does all of this.
"""

import numpy as np

from calib.target import UNITS, TargetCode, draw_target
from stream.errors import SourceError
from stream.frame import FrameFormat
from stream.sources.options import SourceOptions
from stream.sources.picture import check_out
from stream.sources.source import Source, SourceFrame
from stream.timing import NS_PER_S, Clock, MonotonicClock, sleep_until_ns

DEFAULT_WIDTH = 720
DEFAULT_RATE_HZ = 30.0
NARROWEST = 6 * UNITS[0]
WIDEST = 2048 // UNITS[0] * UNITS[0]


class TargetSource(Source):
    """A new bar code at every period, drawn before it is due and given out when it is.

    Args:
        options: `size` is the columns (216 to 2048, cut to whole units; 720 when none are asked for), `rate_hz` the rate
            (30).
        clock: The clock of the frame path.

    Raises:
        SourceError: A size that the target cannot have.
    """

    kind = "device"
    live = True

    def __init__(self, options: SourceOptions, clock: Clock | None = None) -> None:
        width = options.size or DEFAULT_WIDTH
        if not NARROWEST <= width <= 2048:
            raise SourceError(
                f"the target is {NARROWEST} to 2048 pixels wide, got {width}; choose another --size"
            )
        self._width = min(width, WIDEST) // UNITS[0] * UNITS[0]
        self._clock = clock or MonotonicClock()
        self.rate_hz = options.rate_hz or DEFAULT_RATE_HZ
        self.format = FrameFormat(self._width * UNITS[1] // UNITS[0], self._width)
        self.notes = (
            "a target for glass-to-glass latency, not a picture of a patient: film the viewer's screen, and run it with "
            "--engine off",
        )
        self._period_ns = round(NS_PER_S / self.rate_hz)
        self._first_ns: int | None = None
        self._frame = 0

    def read(self, out: np.ndarray) -> SourceFrame:
        check_out(out, self.format)
        now_ns = self._clock.now_ns()
        if self._first_ns is None:
            self._first_ns = now_ns + self._period_ns
        # A period that has passed by is left out, so that the code's time stays the time it is shown at.
        self._frame = max(self._frame, -((self._first_ns - now_ns) // self._period_ns))
        due_ns = self._first_ns + self._frame * self._period_ns
        out[:] = draw_target(TargetCode.of(self._frame, due_ns), self._width)
        sleep_until_ns(due_ns, self._clock)
        self._frame += 1
        return SourceFrame(stamp_ns=due_ns)
