"""The source process: decode, stamp, mark repeats, write into a slot.

Hostile bytes and blocking drivers live in here and nowhere else. One thread decodes into the slots that the guard
has granted, which is as far as it may run ahead; the other lets each frame go at the instant it is due.
"""

import contextlib
import logging
import math
import os
import queue
import sys
import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream.alive import Alive
from stream.blank import Blank
from stream.control import (
    SLOT,
    ChildSocket,
    Kind,
    SourceDrops,
    become_child,
    end_with_any_thread,
    format_to_json,
    pack_frame,
    receive_ring,
    unpack_json,
)
from stream.errors import SourceError, SourceGone
from stream.frame import FrameFormat
from stream.outgoing import Grabbed
from stream.pacing import Pacing, Schedule, due_between, frame_times_ms
from stream.repeats import RepeatDetector
from stream.ring import RingMemory
from stream.sources.source import FormatChanged, Source
from stream.timing import NS_PER_MS, MonotonicClock, sleep_until_ns

LEAD_NS = 20 * NS_PER_MS
"""Between the first decoded frame and the instant the schedule begins."""
FRAMES_BETWEEN_WARNINGS = 64


@dataclass(frozen=True)
class Decoded:
    """A frame in its slot that waits for its time."""

    slot: int
    ring_number: int
    sequence: int
    due_ns: int | None
    """None for a live device without a driver stamp: due when it was read."""
    repeated: bool
    discontinuity: bool
    drops: SourceDrops
    """Before this one."""
    late_ns: int = 0
    """How much later than due it is let go."""


class Grabber:
    """Runs a source into the ring.

    Args:
        guard: The socket to the guard.
        source: An open source.
        pacing: When its frames are due.
        first_sequence: The number of its first frame; above 0 where another source process came before.
        down_since_ns: When the last frame of that process was due: those due since then are counted as dropped. None where
            there is no such process, or nothing is due while there is none.
        blank: Regions of burned-in text, made black before anybody sees the frame; frames of another size are left as
            they are, and the guard says so.
        reading: Entered for the time of each read.
    """

    def __init__(
        self,
        guard: ChildSocket,
        source: Source,
        pacing: Pacing,
        *,
        first_sequence: int = 0,
        down_since_ns: int | None = None,
        blank: Blank | None = None,
        reading: AbstractContextManager[None] | None = None,
    ) -> None:
        self._blank = blank
        self._reading = reading or contextlib.nullcontext()
        self._first_sequence = self._next_sequence = first_sequence
        self._down_since_ns = down_since_ns
        self._guard = guard
        self._source = source
        self._pacing = pacing
        self._clock = MonotonicClock()
        self._granted: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._rings: queue.SimpleQueue[tuple[RingMemory, int]] = queue.SimpleQueue()
        self._decoded: queue.SimpleQueue[Decoded | FrameFormat | None] = queue.SimpleQueue()
        self._drops = SourceDrops()
        self._warned: set[str] = set()
        self._failure: BaseException | None = None

    def run(self) -> None:
        """Grab until the source ends; raises what the source raised."""
        threading.Thread(target=self._listen, name="listen", daemon=True).start()
        threading.Thread(target=self._decode, name="decode", daemon=True).start()
        while (item := self._decoded.get()) is not None:
            if isinstance(item, FrameFormat):
                # After the frames before it, since the guard gives up the ring that they are in.
                self._guard.send_json(Kind.FORMAT, format_to_json(item))
            else:
                self._release(item)
        if self._failure is not None:
            raise self._failure
        self._tell_warnings()
        self._guard.send_json(Kind.END, {"sequence": self._next_sequence, "drops": self._drops})

    # The guard's words ----------------------------------------------------------------------------------------

    def _listen(self) -> None:
        ring_number = -1
        while True:
            packet, descriptors = self._guard.receive()
            if not packet:
                os._exit(0)  # the guard is gone, and a driver may hold the other threads for ever
            if packet[0] == Kind.RING:
                memory, ring_number = receive_ring(packet, descriptors)
                self._rings.put((memory, ring_number))
            elif packet[0] == Kind.GRANT:
                self._granted.put((SLOT.unpack(packet)[1], ring_number))

    # Decode ---------------------------------------------------------------------------------------------------

    def _decode(self) -> None:
        try:
            self._decode_all()
        except BaseException as error:
            self._failure = error
        self._decoded.put(None)

    def _decode_all(self) -> None:
        memory, ring_number = self._rings.get()
        repeats = RepeatDetector(self._source.format, noise=self._source.live)
        scratch = np.empty((self._source.format.rows, self._source.format.columns), self._source.format.dtype)
        schedule: Schedule | None = None
        sequence = self._first_sequence
        index = 0
        discontinuity = sequence > 0
        blank = self._blank_for(self._source.format)
        while self._pacing.frames is None or sequence < self._pacing.frames:
            if schedule is not None and self._is_behind(schedule, index) and self._source.skip():
                schedule.advance(index)
                self._drops = self._drops.more(late=1)
                sequence, index, discontinuity = sequence + 1, index + 1, True
                self._next_sequence = sequence
                continue
            slot = self._next_slot(ring_number)
            out = scratch if slot is None else memory.slots[slot].live
            try:
                with self._reading:
                    got = self._source.read(out)
            except FormatChanged:
                self._decoded.put(self._source.format)
                memory, ring_number = self._rings.get()
                repeats = RepeatDetector(self._source.format, noise=self._source.live)
                blank = self._blank_for(self._source.format)
                scratch = np.empty(
                    (self._source.format.rows, self._source.format.columns), self._source.format.dtype
                )
                continue
            if got is None:
                if not self._pacing.loop or index == 0:
                    return
                self._source.rewind()
                if slot is not None:
                    self._granted.put((slot, ring_number))
                index = 0
                continue
            if got.lost:
                index = self._pass_lost(got.lost, schedule, index)
                sequence, discontinuity = sequence + self._count_up_to_the_last(sequence, lost=got.lost), True
                if sequence == self._pacing.frames:
                    return
            if slot is None:
                self._drops = self._drops.more(full=1)
                sequence, discontinuity = sequence + 1, True
                self._next_sequence = sequence
                continue
            due_ns = got.stamp_ns
            if due_ns is None and not self._source.live and not math.isinf(self._pacing.speed):
                if schedule is None:
                    schedule = Schedule(self._source, self._pacing, self._clock.now_ns() + LEAD_NS)
                due_ns = schedule.advance(index)
            if due_ns is None and got.late_ns:
                due_ns = self._clock.now_ns()
            if (down := self._down(due_ns)) > 0:
                sequence += self._count_up_to_the_last(sequence, down=down)
                if sequence == self._pacing.frames:
                    return
            if blank is not None:
                blank.write(
                    out, self._source.format
                )  # first, since a burned-in clock goes on while the image is held
            repeated = repeats.is_repeat(out)
            if sequence % FRAMES_BETWEEN_WARNINGS == 0:
                self._tell_warnings()
            self._decoded.put(
                Decoded(
                    slot,
                    ring_number,
                    sequence,
                    due_ns,
                    repeated,
                    discontinuity,
                    self._drops,
                    got.late_ns,
                )
            )
            sequence, index, discontinuity = sequence + 1, index + 1, False
            self._next_sequence = sequence

    def _count_up_to_the_last(self, sequence: int, *, lost: int = 0, down: int = 0) -> int:
        """Count frames from `sequence` on as dropped, but none beyond what was asked for; returns how many."""
        if (frames := self._pacing.frames) is not None:
            lost, down = min(lost, frames - sequence), min(down, frames - sequence)
        self._drops = self._drops.more(lost=lost, down=down)
        self._next_sequence = sequence + lost + down
        return lost + down

    def _pass_lost(self, lost: int, schedule: Schedule | None, index: int) -> int:
        """Frames that the source has lost were due all the same; returns the place in the recording after them."""
        passes = self._source.frame_count
        for _ in range(lost):
            if schedule is not None:
                schedule.advance(index)
            index = index + 1 if passes is None else (index + 1) % passes
        return index

    def _down(self, due_ns: int | None) -> int:
        """Frames that were due while there was no source process, once, before the first frame of this one."""
        since_ns, self._down_since_ns = self._down_since_ns, None
        if since_ns is None:
            return 0
        now_ns = self._clock.now_ns() if due_ns is None else due_ns
        return due_between(since_ns, now_ns, paced_hz(self._source, self._pacing))

    def _blank_for(self, frame_format: FrameFormat) -> Blank | None:
        return self._blank if self._blank is not None and self._blank.fits(frame_format) else None

    def _tell_warnings(self) -> None:
        """Pass on what the source has begun to warn of, each sentence once."""
        for sentence in self._source.warnings():
            if sentence not in self._warned:
                self._warned.add(sentence)
                self._guard.send_json(Kind.NOTE, {"message": sentence})

    def _is_behind(self, schedule: Schedule, index: int) -> bool:
        """Whether the frame after the next one is already due, so that the next one can only come too late."""
        if self._pacing.lossless or type(self._source).skip is Source.skip:
            return False
        return schedule.peek(index) + schedule.interval_ns(index) < self._clock.now_ns()

    def _next_slot(self, ring_number: int) -> int | None:
        """A granted slot of the present ring; None where a live device must be read without one."""
        while True:
            try:
                slot, number = self._granted.get(block=not self._source.live)
            except queue.Empty:
                return None
            if number == ring_number:
                return slot

    # Let go ---------------------------------------------------------------------------------------------------

    def _release(self, frame: Decoded) -> None:
        due_ns = frame.due_ns
        if due_ns is not None:
            sleep_until_ns(due_ns + frame.late_ns, self._clock)
        grabbed_ns = self._clock.now_ns()
        grabbed = Grabbed(
            frame.slot,
            frame.sequence,
            grabbed_ns if due_ns is None else due_ns,
            grabbed_ns,
            frame.repeated,
            frame.discontinuity,
        )
        self._guard.send(pack_frame(grabbed, frame.ring_number, frame.drops))


def paced_hz(source: Source, pacing: Pacing) -> float | None:
    """Frames per second that are due; None where nothing says."""
    return source.rate_hz if source.live else pacing.intended_rate_hz(source.rate_hz)


def open_configured(config: dict[str, Any]) -> tuple[Source, Pacing]:
    """Open the source that the guard's first packet names."""
    from stream.sources.open import open_source
    from stream.sources.options import SourceOptions

    options = config["options"]
    if options["crop"] is not None:
        options["crop"] = tuple(options["crop"])
    return open_source(config["source"], SourceOptions(**options)), Pacing(**config["pacing"])


def with_faults(source: Source, pacing: Pacing, config: dict[str, Any], guard: ChildSocket) -> Source:
    """The source with the faults that the guard's first packet asks for, if any.

    Raises:
        SourceError: A fault that ends this process, in a recording that cannot go on where it was.
    """
    faults = config.get("faults")
    if faults is None:
        return source
    from stream.sources.faults import ENDING, parse_faults
    from stream.sources.faulty import FaultySource

    ending = [fault.text for fault in parse_faults(faults["spec"]) if fault.kind in ENDING]
    if ending and source.frame_count is not None and not pacing.loop:
        raise SourceError(
            f"--fault {ending[0]} needed a source without end, got a recording; give --loop, or use phantom"
        )
    return FaultySource(
        source,
        faults["spec"],
        faults["seed"],
        rate_hz=pacing.intended_rate_hz(source.rate_hz) or source.rate_hz,
        first=faults["first"],
        begun=[(int(place), int(ends_ns)) for place, ends_ns in faults["begun"]],
        tell=lambda place, ends_ns: guard.send_json(
            Kind.FAULT, {"place": place, "at_ns": MonotonicClock().now_ns(), "ends_ns": ends_ns}
        ),
    )


def main() -> int:
    """Entry point of the source process: `python -m stream.grab DESCRIPTOR`."""
    become_child()
    end_with_any_thread()
    logging.disable(logging.CRITICAL)  # decoders log what they read in headers
    guard = ChildSocket(int(sys.argv[1]))
    packet, _ = guard.receive()
    if not packet:
        return 0
    source: Source | None = None
    config = unpack_json(packet)
    try:
        source, pacing = open_configured(config)
        source = with_faults(source, pacing, config, guard)
        opened = {
            "kind": source.kind,
            "format": format_to_json(source.format),
            "rate_hz": paced_hz(source, pacing),
            "recorded_hz": source.rate_hz,
            "frame_count": source.frame_count,
            "live": source.live,
            "notes": list(source.notes),
            "device": source.device,
            "sizes": dict(source.sizes),
            "angles_deg": source.angles_deg,
            "times_ms": frame_times_ms(source, source.frame_count, pacing) if config.get("timed") else None,
            "read_within_s": source.read_within_s,
        }
        guard.send_json(Kind.OPENED, opened)
        alive = Alive(guard)
        blank = None if config.get("blank") is None else Blank.from_json(config["blank"])
        Grabber(
            guard,
            source,
            pacing,
            first_sequence=config["first_sequence"],
            down_since_ns=config.get("down_since_ns"),
            blank=blank,
            reading=alive,
        ).run()
    except SourceError as error:
        gone = isinstance(error, SourceGone)
        guard.send_json(Kind.ERROR, {"message": str(error), "input": True, "gone": gone})
        return 2
    except BrokenPipeError:
        return 0
    except Exception as error:
        # The text of a foreign error may hold what a header says, so only its kind leaves this process.
        guard.send_json(
            Kind.ERROR, {"message": f"the source failed with {type(error).__name__}", "input": False}
        )
        return 1
    finally:
        if source is not None:
            source.close()
    guard.receive()  # the guard closes when it has sent what is left
    return 0


if __name__ == "__main__":
    sys.exit(main())
