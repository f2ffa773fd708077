"""How late each frame of a network stream comes, told from its sender's own time stamps.

Sender and receiver have clocks of their own, so the time a frame needs from one to the other is not known; but it has a
least value, and a frame that takes longer than that was held up by the difference: in a queue of the sender, the network
or the receiver. `now - stamp` is the transit plus an unknown constant, and its least value of the last seconds stands for
the least transit.
"""

from stream.timing import NS_PER_MS, NS_PER_S

WINDOW_NS = 10 * NS_PER_S
"""How long a least value holds: two clocks 100 ppm apart drift by 1 ms in it."""
MAX_STEP_NS = NS_PER_S
"""Stamps that go back or leap by more are of another beginning: a sender that started again, or its clock was set."""
LEAST_STEP_NS = 2 * NS_PER_MS


class Transit:
    """Follows one stream."""

    def __init__(self) -> None:
        self._last_ns: int | None = None
        self._least_ns = 0
        self._before_ns = 0
        self._since_ns = 0
        self.step_ns = MAX_STEP_NS
        """From the frame before to the newest one, by the sender's stamps."""

    def late_ns(self, stamp_ns: int, now_ns: int) -> int:
        """Take in a frame: how much longer than the least its transit took, in ns, from 0.

        Args:
            stamp_ns: The sender's stamp, from any beginning.
            now_ns: When the frame is here, on the receiver's clock.
        """
        transit_ns = now_ns - stamp_ns
        step_ns = None if self._last_ns is None else stamp_ns - self._last_ns
        self._last_ns = stamp_ns
        if step_ns is None or not 0 < step_ns <= MAX_STEP_NS:
            self._least_ns = self._before_ns = transit_ns
            self._since_ns = now_ns
            return 0
        self.step_ns = max(step_ns, LEAST_STEP_NS)
        if now_ns - self._since_ns > WINDOW_NS // 2:
            # Two halves of a window: what was least in the one before still counts.
            self._before_ns, self._least_ns, self._since_ns = self._least_ns, transit_ns, now_ns
        self._least_ns = min(self._least_ns, transit_ns)
        return transit_ns - min(self._least_ns, self._before_ns)
