"""The guard: live plane now, synthetic plane if in time. Decides, for every frame, what goes out and why.

No processes, sockets or clocks of its own in here: `pipeline.py` tells it what happened and it answers through
two callbacks, so that every rule can be tested with a fake clock.

The rules (DESIGN.md, 1): a frame waits for its synthesis until its deadline, min(one period, 50 ms) after it was
due, and not at all while the engine is known to be lost. Frames leave in order. A miss is one frame without
overlay; 3 misses of the last 10 latch PASSTHROUGH for at least 1 s, so that the overlay does not flicker. A
synthetic plane of another frame is never used. Frames unlike those the network was taught on latch too: k of the last
n, or all there have been since the engine was ready, until none of n is strange any more.
"""

import logging
from collections import deque
from collections.abc import Callable

from stream.domain_watch import DomainRule, DomainWatch
from stream.frame import ALL_PLANES, Reason, State
from stream.outgoing import Counters, Grabbed, Inferred, Outgoing
from stream.ring import Ring
from stream.timing import NS_PER_MS, NS_PER_S, Clock

log = logging.getLogger("contrastream.guard")

MAX_DEADLINE_NS = 50 * NS_PER_MS
MISSES_TO_LATCH = 3
OUTCOMES_KEPT = 10
OUTCOMES_TO_UNLATCH = 5
LATCH_NS = NS_PER_S
HANG_NS = 500 * NS_PER_MS
OPENING_TIMES = 10
"""So many times as long an engine may take before it counts as hung while it opens another beside: a compiler takes the cores."""
UNCHANGED_AFTER_NS = 500 * NS_PER_MS
UNCHANGED_EVERY_NS = 250 * NS_PER_MS
STALE_AFTER_NS = 500 * NS_PER_MS
STALE_PERIODS = 3


class Guard:
    """Decides what goes out.

    Args:
        ring: The slots of the present format.
        clock: The clock of the frame path.
        publish: Sends a frame that has been decided.
        submit: Gives a slot to the engine under an epoch.
        rate_hz: The source's rate, for the deadline; None where it is unknown.
        engine_slots: How many frames the engine takes at once.
        wait_for_engine: No deadlines: a frame waits for its synthesis as long as the engine lives.
    """

    def __init__(
        self,
        ring: Ring,
        clock: Clock,
        publish: Callable[[Outgoing], None],
        submit: Callable[[int, int], None],
        *,
        rate_hz: float | None,
        engine_slots: int = 2,
        wait_for_engine: bool = False,
    ) -> None:
        self.ring = ring
        self._clock = clock
        self._publish = publish
        self._submit = submit
        self._engine_slots = engine_slots
        self._period_ns = round(NS_PER_S / rate_hz) if rate_hz else MAX_DEADLINE_NS
        self._deadline_ns = None if wait_for_engine else min(self._period_ns, MAX_DEADLINE_NS)
        self._pending: deque[Outgoing] = deque()
        self._leased: dict[int, Outgoing] = {}
        self._epoch = 0
        self._engine_reason = Reason.STARTING
        self._hang_ns = HANG_NS
        self._outcomes: deque[bool] = deque(maxlen=OUTCOMES_KEPT)
        self._latched_until_ns: int | None = None
        self.domain = DomainWatch()
        self._frame_ns: int | None = None
        self._unique_ns: int | None = None
        self._unchanged_sent_ns = 0
        self.counters = Counters()
        self.state = State.PASSTHROUGH
        self.reason = Reason.STARTING
        self.opening_beside: Callable[[], bool] = lambda: False
        """Whether the engine's process compiles an adapted model at present."""
        self.on_state: Callable[[str, str], None] = lambda _before, _after: None
        """Called with the names of the state that ends and of the one that begins."""

    # What happened ------------------------------------------------------------------------------------------

    def frame_grabbed(self, frame: Grabbed) -> None:
        """The source filled a slot. The frame goes out now, or when its synthesis or its deadline comes."""
        now_ns = self._clock.now_ns()
        self.counters.grabbed += 1
        self._frame_ns = now_ns
        if frame.repeated and self._unique_ns is not None:
            self._take_repeat(frame, now_ns)
            return
        self._unique_ns = frame.due_ns
        deadline_ns = None if self._deadline_ns is None else frame.due_ns + self._deadline_ns
        self._pending.append(Outgoing(frame, deadline_ns))
        self._feed_engine(now_ns)
        self._flush(now_ns)

    def _take_repeat(self, frame: Grabbed, now_ns: int) -> None:
        assert self._unique_ns is not None
        held_ns = frame.due_ns - self._unique_ns
        if held_ns < UNCHANGED_AFTER_NS or now_ns - self._unchanged_sent_ns < UNCHANGED_EVERY_NS:
            self.counters.repeated += 1
            self.ring.release(frame.slot)
            return
        self._unchanged_sent_ns = now_ns
        held = Outgoing(frame, now_ns, state=State.UNCHANGED, age_ms=held_ns // NS_PER_MS)
        self._pending.append(held)
        self._flush(now_ns)

    def engine_ready(self, *, taught: bool, inference_ns: int, domain: DomainRule | None = None) -> None:
        """The engine is warm.

        Args:
            taught: Whether its network was.
            inference_ns: What one inference took: a slow engine is not called hung early.
            domain: When frames are strange; None where they are not judged.
        """
        self.domain = DomainWatch(domain)
        self._engine_reason = Reason.NONE if taught else Reason.UNTAUGHT
        self._hang_ns = max(HANG_NS, 4 * inference_ns)
        self._outcomes.clear()
        self._latched_until_ns = None

    def engine_gone(self, reason: Reason) -> None:
        """The engine process is dead and reaped, or not wanted: leases are over, waiting frames go out live."""
        self.ring.revoke_leases()
        self.engine_dying(reason)

    def engine_dying(self, reason: Reason) -> None:
        """The engine is lost and may still write: waiting frames go out live now, its slots stay leased until it is dead."""
        self._engine_reason = reason
        self._leased.clear()
        self._flush(self._clock.now_ns())

    def frame_inferred(self, result: Inferred) -> None:
        """The engine returned a lease. Its planes are used only if its frame still waits for them."""
        now_ns = self._clock.now_ns()
        outgoing = self._leased.get(result.slot)
        if not self.ring.return_lease(result.slot, result.epoch) or outgoing is None:
            return
        del self._leased[result.slot]
        outgoing.result = result
        outgoing.failed = not result.valid
        if result.valid:
            self.domain.judge(result.domain, now_ns)
        if outgoing.gone:
            self.counters.late_results += 1
        # A miss is counted when the frame leaves, not here. While latched every frame is gone before its result:
        # whether it would have been in time is what counts.
        counts = self._latched_until_ns is not None if outgoing.gone else outgoing.made_it
        if counts:
            self._outcomes.append(outgoing.made_it)
        self._feed_engine(now_ns)
        self._flush(now_ns)

    def frame_passed_over(self, slot: int, epoch: int) -> None:
        """The engine returned a lease unused: it serves other rooms too, and a newer frame took this one's turn."""
        now_ns = self._clock.now_ns()
        outgoing = self._leased.get(slot)
        if not self.ring.return_lease(slot, epoch) or outgoing is None:
            return
        del self._leased[slot]
        self.counters.passed_over += 1
        outgoing.passed_over = True
        if outgoing.gone and self._latched_until_ns is not None:
            self._outcomes.append(False)
        self._feed_engine(now_ns)
        self._flush(now_ns)

    def tick(self) -> None:
        """A deadline, or the time of the next check, has come."""
        now_ns = self._clock.now_ns()
        self._flush(now_ns)
        self._see_stale(now_ns)

    # When and what to look at next --------------------------------------------------------------------------

    def next_deadline_ns(self) -> int | None:
        """When the first waiting frame must go; None where none waits."""
        return self._pending[0].deadline_ns if self._pending else None

    def hung_since_ns(self) -> int | None:
        """When the oldest lease that is overdue was given; None while the engine answers."""
        oldest = min((out.leased_ns for out in self._leased.values()), default=None)
        limit_ns = OPENING_TIMES * self._hang_ns if self.opening_beside() else self._hang_ns
        if oldest is None or self._clock.now_ns() - oldest < limit_ns:
            return None
        return oldest

    def age_ms(self) -> float:
        """For how long the source has held its image where it is UNCHANGED, else how long ago a frame came, in ms."""
        since_ns = self._unique_ns if self.state is State.UNCHANGED else self._frame_ns
        return 0.0 if since_ns is None else (self._clock.now_ns() - since_ns) / NS_PER_MS

    def end(self) -> None:
        """The stream is over: frames that still wait are dropped, and counted."""
        if self._pending:
            dropped = self.counters.dropped
            dropped["stopped"] = dropped.get("stopped", 0) + len(self._pending)
            self._pending.clear()

    def waiting(self) -> int:
        """How many frames wait to go out."""
        return len(self._pending)

    def drained(self) -> bool:
        """Whether no frame waits to go out."""
        return not self._pending

    # The decision -------------------------------------------------------------------------------------------

    def _feed_engine(self, now_ns: int) -> None:
        """Give the engine the newest waiting frame; older ones it has not seen will go out without it."""
        if self._engine_reason in (Reason.STARTING, Reason.ENGINE_LOST, Reason.OFF):
            return
        if len(self._leased) >= self._engine_slots:
            return
        waiting = [out for out in self._pending if out.epoch == 0 and out.state is not State.UNCHANGED]
        if self._deadline_ns is not None:
            waiting = waiting[-1:]
        for outgoing in waiting[: self._engine_slots - len(self._leased)]:
            self._epoch += 1
            outgoing.epoch = self._epoch
            outgoing.leased_ns = now_ns
            self.ring.lease(outgoing.frame.slot, self._epoch)
            self._leased[outgoing.frame.slot] = outgoing
            self._submit(outgoing.frame.slot, self._epoch)

    def _flush(self, now_ns: int) -> None:
        while self._pending and self._decide(self._pending[0], now_ns):
            outgoing = self._pending.popleft()
            self._see_state(outgoing.state, outgoing.reason)
            self._count(outgoing)
            outgoing.gone = True
            self._publish(outgoing)
            self.ring.release(outgoing.frame.slot)

    def _decide(self, out: Outgoing, now_ns: int) -> bool:
        """Settle a frame's state; False while it may still wait."""
        if out.state is State.UNCHANGED:
            return True
        if self._engine_reason not in (Reason.NONE, Reason.UNTAUGHT):
            out.reason = self._engine_reason
            return True
        if out.failed:
            out.reason = Reason.OUTPUT_INVALID
            return True
        if self.domain.out:
            # The inference goes on here too, to see whether the frames are like the taught ones again.
            if out.deadline_ns is None and out.result is None:
                return False
            out.reason = Reason.OUT_OF_DOMAIN
            return True
        if self._is_latched(now_ns):
            # The inference goes on, to see whether the engine keeps up again; its planes do not go out.
            out.reason = Reason.DEADLINE
            return True
        if out.passed_over:
            out.reason = Reason.DEADLINE
            self._miss(now_ns)
            return True
        if out.made_it and self._engine_reason is Reason.UNTAUGHT:
            # It is inferred, so that an untaught network can be measured, but never shown.
            out.reason = Reason.UNTAUGHT
            return True
        if out.made_it:
            out.state, out.reason = State.SYNTHETIC, Reason.NONE
            out.planes = ALL_PLANES
            return True
        if out.deadline_ns is not None and now_ns >= out.deadline_ns:
            out.reason = Reason.DEADLINE
            self._miss(now_ns)
            return True
        return False

    def _miss(self, now_ns: int) -> None:
        self._outcomes.append(False)
        if self._latched_until_ns is None and self._outcomes.count(False) >= MISSES_TO_LATCH:
            self._latched_until_ns = now_ns + LATCH_NS
            self._outcomes.clear()

    def _is_latched(self, now_ns: int) -> bool:
        if self._latched_until_ns is None:
            return False
        recovered = (
            len(self._outcomes) >= OUTCOMES_TO_UNLATCH and self._outcomes.count(False) < MISSES_TO_LATCH
        )
        if now_ns >= self._latched_until_ns and recovered:
            self._latched_until_ns = None
            self._outcomes.clear()
            return False
        return True

    # What is said of it -------------------------------------------------------------------------------------

    def _count(self, out: Outgoing) -> None:
        if out.state is State.SYNTHETIC:
            self.counters.synthetic += 1
        elif out.state is State.UNCHANGED:
            self.counters.unchanged += 1
        else:
            name = out.reason.name.lower()
            self.counters.passthrough[name] = self.counters.passthrough.get(name, 0) + 1

    def _see_stale(self, now_ns: int) -> None:
        limit_ns = max(STALE_AFTER_NS, STALE_PERIODS * self._period_ns)
        if self._frame_ns is not None and now_ns - self._frame_ns > limit_ns:
            self._see_state(State.STALE, Reason.NONE)

    def _see_state(self, state: State, reason: Reason) -> None:
        if (state, reason) == (self.state, self.reason):
            return
        before, after = _named(self.state, self.reason), _named(state, reason)
        log.info("%s -> %s", before, after)
        self.state, self.reason = state, reason
        self.on_state(before, after)


def _named(state: State, reason: Reason) -> str:
    return f"{state.name}({reason.name.lower()})" if reason is not Reason.NONE else state.name
