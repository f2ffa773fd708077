"""The conversation with the source: what its process says, what was due and dropped, and what becomes of it when it ends or hangs.

`stream/source_side.py` knows whether the process lives; here is what the pipeline makes of it.
"""

import dataclasses
import logging
from collections.abc import Callable
from typing import Any

from stream.children import exit_words
from stream.control import Kind, SourceDrops, format_from_json, unpack_frame, unpack_json
from stream.credit import Credit
from stream.engine_side import MALFORMED
from stream.errors import PipelineError, SourceError, SourceGone, StreamError
from stream.frame import FrameFormat
from stream.guard import Guard
from stream.latency import RecentRate
from stream.pacing import due_between
from stream.pipeline_config import PipelineConfig
from stream.rings import Rings
from stream.source_side import SourceSide
from stream.timing import Clock

log = logging.getLogger("contrastream.pipeline")


class SourceTalk:
    """One pipeline's source, as it speaks.

    Args:
        config: What runs.
        clock: The clock of the frame path.
        rings: Where its frames lie.
        credit: Of a lossless replay; None for none.
        opened: Takes what a source process says when it has opened.
        changed: Takes the format of the next frame, where that is another one.
        note: Takes a sentence for a person.
    """

    def __init__(
        self,
        config: PipelineConfig,
        clock: Clock,
        rings: Rings,
        credit: Credit | None,
        *,
        opened: Callable[[dict[str, Any]], None],
        changed: Callable[[FrameFormat], None],
        note: Callable[[str], None],
    ) -> None:
        self.side = SourceSide(clock, self._first_packet)
        self.guard: Guard | None = None
        """Set once there is one."""
        self.opened: dict[str, Any] = {}
        """What the source said when it opened."""
        self.next_sequence = 0
        self.ended = False
        """Whether no more frames come."""
        self.failure: StreamError | None = None
        """Why, where that is no recording's end."""
        self.rate = RecentRate()
        """Of the frames that came."""
        self._config, self._clock, self._rings, self._credit = config, clock, rings, credit
        self._take_opened, self._changed, self._note = opened, changed, note
        self._due_ns: int | None = None
        """When the last frame that came was due."""
        self._dropped_before: dict[str, int] = {}
        """Drops of source processes that are gone; each one counts from 0."""
        self._faults_begun: list[dict[str, int]] = []
        """Injected faults, each with its place, when it began and when it ends."""

    def _first_packet(self) -> dict[str, Any]:
        """The first packet of a source process that is started now."""
        config = self._config
        return {
            "source": config.source,
            "options": dataclasses.asdict(config.options),
            "pacing": dataclasses.asdict(config.pacing),
            "first_sequence": self.next_sequence,
            "down_since_ns": None if config.pacing.lossless else self._due_ns,
            "blank": None if config.site is None else config.site.blank_json,
            "faults": None
            if config.fault is None
            else {
                "spec": config.fault,
                "seed": config.fault_seed,
                # Of those it was asked for, so that the same seed does the same however long a process was gone.
                "first": self.next_sequence - self._dropped_before.get("source_down", 0),
                "begun": [(fault["place"], fault["ends_ns"]) for fault in self._faults_begun],
            },
        }

    # What it says ---------------------------------------------------------------------------------------------

    def hear(self) -> None:
        """Take every packet that is there."""
        while self.side.child is not None and (packet := self.side.child.receive()):
            self.side.heard()
            try:
                self._take(packet)
            except MALFORMED as error:
                self._lose("malformed", f"the source process sent what it must not ({type(error).__name__})")

    def _take(self, packet: bytes) -> None:
        kind = packet[0]
        if kind == Kind.FRAME:
            self._take_frame(packet)
        elif kind == Kind.ALIVE:
            self.side.take_alive(packet)
        elif kind == Kind.OPENED:
            opened = unpack_json(packet)
            self.side.take_opened(opened)
            self.opened = opened
            self._take_opened(opened)
            self.side.has_ring = True
        elif kind == Kind.FORMAT:
            self._changed(format_from_json(unpack_json(packet)))
        elif kind == Kind.NOTE:
            self._note(str(unpack_json(packet)["message"]))
        elif kind == Kind.FAULT:
            self._take_fault(unpack_json(packet))
        elif kind == Kind.END:
            said = unpack_json(packet)
            self._count_due(int(said["sequence"]), SourceDrops(*(int(count) for count in said["drops"])))
            self.ended = True
        elif kind == Kind.ERROR:
            self._take_error(unpack_json(packet))

    def _take_error(self, said: dict[str, Any]) -> None:
        """It cannot go on."""
        if (self.opened.get("live") or said.get("gone")) and self.next_sequence > 0:
            # A device that is gone may come back: its process ends now and is started again.
            self._note(str(said["message"]))
            return
        kind_of = SourceGone if said.get("gone") else SourceError if said["input"] else PipelineError
        self.failure = kind_of(said["message"])
        self.ended = True

    def _take_fault(self, said: dict[str, Any]) -> None:
        """An injected fault begins."""
        begun = {name: int(said[name]) for name in ("place", "at_ns", "ends_ns")}
        self._faults_begun.append(begun)
        text = str(self._config.fault).split(",")[begun["place"]].strip()
        log.warning("injected fault: %s", text)

    def faults(self) -> dict[str, Any] | None:
        """Which faults are injected, for the heartbeat; None in a room."""
        if self._config.fault is None:
            return None
        return {"spec": self._config.fault, "seed": self._config.fault_seed, "begun": self._faults_begun}

    # Frames, and those that did not come ----------------------------------------------------------------------

    def _take_frame(self, packet: bytes) -> None:
        grabbed, ring_number, drops = unpack_frame(packet)
        guard, ring = self.guard, self._rings.ring
        if guard is None or ring is None:
            return
        self._due_ns = grabbed.due_ns
        self._count_due(grabbed.sequence + 1, drops)
        if ring_number != self._rings.number:
            self._count_dropped("former_ring")
            return
        self.rate.add(grabbed.grabbed_ns)
        self.side.take_frame()
        ring.fill(grabbed.slot)
        repeated = guard.counters.repeated
        guard.frame_grabbed(grabbed)
        if self._credit is not None:
            self._credit.give_back(guard.counters.repeated - repeated)

    def _count_due(self, next_sequence: int, drops: SourceDrops) -> None:
        """Take in how far the source is, and what it has dropped on the way."""
        self.next_sequence = next_sequence
        if self.guard is not None:
            dropped = self.guard.counters.dropped
            counts = {
                "source_late": drops.late,
                "ring_full": drops.full,
                "source_lost": drops.lost,
                "source_down": drops.down,
            }
            for reason, count in counts.items():
                if count:
                    dropped[reason] = self._dropped_before.get(reason, 0) + count

    def _count_dropped(self, reason: str, frames: int = 1) -> None:
        if self.guard is not None and frames > 0:
            dropped = self.guard.counters.dropped
            dropped[reason] = dropped.get(reason, 0) + frames

    def count_down(self) -> None:
        """At the run's end: a process that is gone or hangs counts nothing, so what has been due since its last frame is counted here."""
        pacing = self._config.pacing
        if self._due_ns is None or self.ended or pacing.lossless or not self.side.is_down:
            return
        # One period later the next frame would have been due.
        frames = due_between(self._due_ns, self._clock.now_ns(), self.opened["rate_hz"])
        if pacing.frames is not None:
            frames = min(frames, pacing.frames - self.next_sequence)
        self.next_sequence += frames
        self._count_dropped("source_down", frames)

    # Its hang, its end and another one ------------------------------------------------------------------------

    @property
    def _may_restart(self) -> bool:
        """Whether the source can go on in another process: it has no end, or begins anew anyway."""
        endless = self.opened.get("frame_count", 0) is None or self._config.pacing.loop
        return self.next_sequence > 0 and endless

    def see_death(self, ready: set[int]) -> None:
        """Hear the last words of a process that has ended.

        Args:
            ready: Descriptors that have something.
        """
        # Asked for once more, since a child started in this round may have taken over a dead one's descriptor.
        child = self.side.child
        if child is not None and child.pidfd in ready and child.has_ended():
            self.hear()
            if self.side.child is not None:
                self._lose("ended")

    def see_hang(self) -> None:
        """A source process that does not answer is killed where another can go on, and is named in any case."""
        why = self.side.hang(opened=self.side.has_ring)
        if why is None or self.ended:
            return
        if self._may_restart:
            self._lose("no_answer", why)
        else:
            # A recording cannot go on where it was, so what may still come of it is not given up.
            self.side.why = why
            once = "a recording is not started again, so " if self.opened else ""
            self._note(f"{why}; {once}it is waited for, and Ctrl-C ends the run")

    def _lose(self, cause: str, why: str | None = None) -> None:
        """Give the source process up; what becomes of it is seen when it is dead."""
        self.side.give_up(cause, why)
        self.bury()

    def bury(self) -> None:
        """Once the source process is dead: take its grants back, and plan another where it can go on."""
        if (status := self.side.buried()) is None:
            return
        self._rings.take_back()
        if self.guard is not None:
            self._dropped_before = dict(self.guard.counters.dropped)
        if self.ended:
            return
        if not self._may_restart:
            words = self.side.why or exit_words(status)
            self.failure = PipelineError(f"the source process ended too early ({words})")
            self.ended = True
            return
        self.side.plan(status)
