"""The guard's source process: started, watched for a hang, killed without waiting for its end, started again.

What its packets say is the pipeline's; here is whether it lives. A process that is held up in a driver may not even die of
SIGKILL, so nothing here waits for it, and another is started only when it is dead: it holds the device until then.
"""

import logging
import math
import select
from collections.abc import Callable
from typing import Any

from stream.children import Backoff, Child, exit_words
from stream.control import ALIVE
from stream.timing import NS_PER_MS, NS_PER_S, Clock

log = logging.getLogger("contrastream.pipeline")

SILENT_NS = 5 * NS_PER_S
"""A source process that beats four times a second and is not heard for so long hangs."""
OPEN_NS = 30 * NS_PER_S
"""So long opening may take: a driver is given 15 s, an OpenIGTLink server as long (`stream/sources`)."""
LONGEST_STEP_NS = NS_PER_S // 2
"""Of the silence between two looks no more than this counts: the guard itself may have been stopped meanwhile."""
END_S = 1.0


class SourceSide:
    """One pipeline's source, whichever process it is at the moment.

    Args:
        clock: The clock of the frame path.
        config: Gives the first packet of a process that is started now.
    """

    def __init__(self, clock: Clock, config: Callable[[], dict[str, Any]]) -> None:
        self._clock, self._config = clock, config
        self._backoff = Backoff(clock)
        self._at_ns: int | None = None
        self._dying: Child | None = None
        self.child: Child | None = None
        self.has_ring = False
        """Whether this process has been given the ring, or is being."""
        self.why: str | None = None
        """Why no frame comes where that is known, for the heartbeat."""
        self.cause: str | None = None
        """What ended the last process, in one word for the audit log: "no_answer", "ended" or "malformed"."""
        self._began = False
        self._read_ns = OPEN_NS
        self._seen_ns = 0
        self._silent_ns = 0
        self._reading_ns = 0
        self._told = False

    @property
    def restarts(self) -> int:
        """How often a process was lost and another planned."""
        return self._backoff.restarts

    @property
    def is_down(self) -> bool:
        """Whether no process gives frames now, since it is gone, has given none yet or is known to hang."""
        return self.child is None or not self._began or self._told

    # Its life -------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start a process."""
        self._at_ns = None
        self._began = self.has_ring = self._told = False
        self._read_ns = OPEN_NS
        self._silent_ns = self._reading_ns = 0
        self._seen_ns = self._clock.now_ns()
        self.child = Child("stream.grab", self._config(), quiet=True)

    def start_if_due(self) -> None:
        """Start the process that was planned, if its time has come."""
        if self._at_ns is None or self._clock.now_ns() < self._at_ns:
            return
        try:
            self.start()
        except OSError as error:  # too many descriptors or processes now
            self._at_ns = self._backoff.died()
            self.why = f"the source process cannot be started: {error.strerror}"
            log.warning(
                "%s; trying again in %.2f s", self.why, (self._at_ns - self._clock.now_ns()) / NS_PER_S
            )

    def take_opened(self, opened: dict[str, Any]) -> None:
        """It is open; from here on it beats.

        Args:
            opened: What it said; `read_within_s` is how long a read may take, None for as long as it likes.
        """
        within_s = opened.get("read_within_s")
        self._read_ns = 0 if within_s is None else round(float(within_s) * NS_PER_S)
        self._silent_ns = 0

    def take_alive(self, packet: bytes) -> None:
        """It has beaten."""
        self._reading_ns = ALIVE.unpack(packet)[1] * NS_PER_MS

    def take_frame(self) -> None:
        """It has given a frame."""
        self._reading_ns = 0
        if not self._began:
            self._began, self.why = True, None
            self._backoff.healthy()

    def heard(self) -> None:
        """Some packet of it came."""
        self._silent_ns = 0

    # A hang ---------------------------------------------------------------------------------------------------

    def hang(self, opened: bool) -> str | None:
        """Why it counts as hung, once for each process and hang; None while it answers. Call it ten times a second or so.

        Args:
            opened: Whether it has said that it is open.
        """
        now_ns = self._clock.now_ns()
        step_ns, self._seen_ns = min(now_ns - self._seen_ns, LONGEST_STEP_NS), now_ns
        if self.child is None:
            return None
        self._silent_ns += step_ns
        if not opened:
            found = (
                f"the source has not opened within {OPEN_NS // NS_PER_S} s"
                if self._silent_ns > OPEN_NS
                else None
            )
        elif self._silent_ns > SILENT_NS:
            found = f"the source process has not been heard for {SILENT_NS // NS_PER_S} s"
        elif 0 < self._read_ns < self._reading_ns:
            found = f"the source has not returned from a read for {math.floor(self._read_ns / NS_PER_S)} s"
        else:
            found = None
        if found is None and self._told:
            self.why = None
        new, self._told = found if not self._told else None, found is not None
        return new

    # Its death ------------------------------------------------------------------------------------------------

    def give_up(self, cause: str, why: str | None = None) -> None:
        """Kill the process and wait for nothing; `buried` says when it is dead. Until then it may still write.

        Args:
            cause: One word for the audit log.
            why: A sentence's beginning for the heartbeat; None where its exit status says it.
        """
        assert self.child is not None
        self._dying, self.child = self.child, None
        self.has_ring = False
        self.cause, self.why = cause, why
        self._dying.end_soon()

    def buried(self) -> int | None:
        """The exit status of the process that was given up, once, when it is dead; None before and without one."""
        if self._dying is None or not self._dying.has_ended():
            return None
        dying, self._dying = self._dying, None
        return dying.kill()

    def plan(self, status: int) -> None:
        """Have another process started after a wait."""
        self._at_ns = self._backoff.died()
        wait_s = (self._at_ns - self._clock.now_ns()) / NS_PER_S
        said = (
            f"the source process ended ({exit_words(status)})" if self.why is None else f"{self.why}; killed"
        )
        self.why = self.why or said
        log.warning("%s; starting it again in %.2f s", said, wait_s)

    def end(self) -> None:
        """The pipeline is over."""
        if self.child is not None:
            self.give_up("ended")
        if self._dying is None:
            return
        if select.select([self._dying.pidfd], [], [], END_S)[0]:
            self._dying.kill()
        else:
            # Held up in the kernel by its driver; it dies when that lets it, and this one must not wait for it.
            log.warning(
                "the source process %d has not ended within %.0f s of SIGKILL", self._dying.pid, END_S
            )
        self._dying = None
