"""The source process's two threads, run in this one: a source in memory, a real ring, a real socket pair."""

import itertools
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from stream.blank import Blank
from stream.control import (
    MAX_PACKET,
    SLOT,
    ChildSocket,
    Kind,
    SourceDrops,
    format_from_json,
    send_ring,
    unpack_frame,
    unpack_json,
)
from stream.errors import SourceError
from stream.frame import FrameFormat
from stream.grab import Grabber
from stream.outgoing import Grabbed
from stream.pacing import Pacing, Schedule
from stream.ring import Ring
from stream.sources.source import FormatChanged, Source, SourceFrame
from stream.timing import NS_PER_MS, NS_PER_S, MonotonicClock

SMALL, LARGE = FrameFormat(64, 64), FrameFormat(96, 128, 12)
FAST_HZ = 500.0


class Loop(Source):
    """A recording in memory: a frame is a grey value, whose pixels all have it."""

    kind = "cine"

    def __init__(
        self,
        values: list[int],
        *,
        rate_hz: float | None = FAST_HZ,
        intervals_ms: list[float] | None = None,
        live: bool = False,
        fails_at: int | None = None,
        larger_from: int | None = None,
    ) -> None:
        self.format = SMALL
        self.values, self.rate_hz, self.live = values, rate_hz, live
        self.frame_count = len(values)
        self._intervals_ms, self._fails_at, self._larger_from = intervals_ms, fails_at, larger_from
        self._next = 0

    def read(self, out: np.ndarray) -> SourceFrame | None:
        if self._next == self._larger_from and self.format == SMALL:
            self.format = LARGE
            raise FormatChanged("larger frames from here on")
        if self._next == self._fails_at:
            raise SourceError(f"frame {self._next} cannot be decoded")
        if self._next == len(self.values):
            return None
        assert out.shape == (self.format.rows, self.format.columns)
        out[:] = self.values[self._next]
        self._next += 1
        return SourceFrame(stamp_ns=self._next * 1000 if self.live else None)

    def interval_ms(self, index: int) -> float | None:
        return self._intervals_ms[index] if self._intervals_ms else super().interval_ms(index)

    def rewind(self) -> None:
        self._next = 0


class Skipping(Loop):
    """A recording that can pass over a frame without decoding it."""

    def skip(self) -> bool:
        if self._next == len(self.values):
            return False
        self._next += 1
        return True


class OutlivingSocket(ChildSocket):
    """The child's end, which in a process of its own ends that process when the guard is gone; here it waits."""

    def receive(self) -> tuple[bytes, list[int]]:
        packet, descriptors = super().receive()
        if not packet:
            threading.Event().wait()
        return packet, descriptors


class GuardsEnd:
    """The guard's side: a ring whose slots are granted, and what came back."""

    def __init__(
        self,
        source: Source,
        pacing: Pacing,
        *,
        slots: int = 16,
        first_sequence: int = 0,
        down_since_ns: int | None = None,
        blank: Blank | None = None,
    ) -> None:
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(30.0)
        self.rings: list[Ring] = []
        self.failure: BaseException | None = None
        self.frames: list[Grabbed] = []
        self.pixels: list[int] = []
        self.picture = np.zeros(0)
        """The last frame; its first 8 rows may be blanked."""
        self.drops = SourceDrops()
        self._slots = slots
        self.use(source.format)
        self.grabber = Grabber(
            OutlivingSocket(theirs.detach()),
            source,
            pacing,
            first_sequence=first_sequence,
            down_since_ns=down_since_ns,
            blank=blank,
        )
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.grabber.run()
        except BaseException as error:
            self.failure = error

    def use(self, frame_format: FrameFormat) -> None:
        """Hand over a new ring."""
        self.rings.append(Ring(frame_format, self._slots))
        send_ring(self.socket, self.rings[-1].memory, len(self.rings))

    def grant(self, count: int = 1) -> None:
        """Let the source write so many slots."""
        for _ in range(count):
            slot = self.rings[-1].grant()
            assert slot is not None
            self.socket.send(SLOT.pack(Kind.GRANT, slot))

    def hear(self) -> Grabbed | dict[str, Any]:
        """The next packet: a frame, whose slot is given back at once, or a format."""
        packet = self.socket.recv(MAX_PACKET)
        if packet[0] == Kind.FORMAT:
            return unpack_json(packet)
        grabbed, ring_number, self.drops = unpack_frame(packet)
        assert ring_number == len(self.rings)
        ring = self.rings[-1]
        ring.fill(grabbed.slot)
        self.picture = ring.slots[grabbed.slot].live.copy()
        values = np.unique(self.picture[8:])
        assert len(values) == 1
        ring.release(grabbed.slot)
        self.frames.append(grabbed)
        self.pixels.append(int(values[0]))
        return grabbed

    def hear_frames(self, count: int, *, grants: bool = True) -> list[Grabbed]:
        """So many frames, a slot granted for each."""
        for _ in range(count):
            assert isinstance(self.hear(), Grabbed)
            if grants:
                self.grant()
        return self.frames

    def hear_the_end(self) -> dict[str, Any]:
        """What it says at its end, where no frame comes before that."""
        packet = self.socket.recv(MAX_PACKET)
        assert packet[0] == Kind.END
        return unpack_json(packet)

    def wait_for_the_end(self) -> None:
        self._thread.join(30.0)
        assert not self._thread.is_alive()

    def close(self) -> None:
        self.socket.close()
        for ring in self.rings:
            ring.close()


@pytest.fixture
def guard() -> Iterator[Callable[..., GuardsEnd]]:
    """Starts grabbers, each with the guard's end of it."""
    ends: list[GuardsEnd] = []

    def start(source: Source, pacing: Pacing | None = None, **options: Any) -> GuardsEnd:
        ends.append(GuardsEnd(source, pacing or Pacing(), **options))
        return ends[-1]

    yield start
    for end in ends:
        end.close()


# When frames are due ------------------------------------------------------------------------------------------


def due_ms(source: Source, pacing: Pacing, indices: list[int]) -> list[float]:
    """When the frames of a schedule that begins at 0 are due, in ms."""
    schedule = Schedule(source, pacing, 0)
    return [schedule.advance(index) / NS_PER_MS for index in indices]


@pytest.mark.parametrize(
    ("pacing", "step_ms"),
    [
        (Pacing(), 40.0),
        (Pacing(rate_hz=10.0), 100.0),
        (Pacing(speed=2.0), 20.0),
        (Pacing(rate_hz=10.0, speed=0.5), 200.0),
    ],
    ids=["its own", "rate", "speed", "both"],
)
def test_frames_are_due_at_the_recordings_pace_unless_told_otherwise(pacing: Pacing, step_ms: float) -> None:
    assert due_ms(Loop([1] * 4, rate_hz=25.0), pacing, [0, 1, 2, 3]) == [0, step_ms, 2 * step_ms, 3 * step_ms]


def test_each_interval_of_a_frame_time_vector_is_kept_also_round_the_end() -> None:
    source = Loop([1, 2, 3], intervals_ms=[70.0, 10.0, 25.0])
    assert due_ms(source, Pacing(loop=True), [0, 1, 2, 0, 1, 2]) == [0, 10, 35, 105, 115, 140]


def test_a_schedule_does_not_drift_by_rounding() -> None:
    times = due_ms(Loop([1], rate_hz=30.0), Pacing(), [0, *[1] * 100_000])
    assert times[-1] == pytest.approx(100_000 * 1000 / 30, abs=0.01)


def test_peeking_does_not_advance() -> None:
    schedule = Schedule(Loop([1], rate_hz=25.0), Pacing(), 5)
    assert [schedule.peek(0), schedule.peek(0), schedule.advance(0)] == [5, 5, 5]
    assert [schedule.peek(1), schedule.advance(1)] == [5 + 40 * NS_PER_MS] * 2


def test_a_recording_that_does_not_say_its_pace_needs_a_rate() -> None:
    with pytest.raises(SourceError, match="the recording does not say it; add --rate"):
        due_ms(Loop([1, 2], rate_hz=None), Pacing(), [0, 1])


@pytest.mark.parametrize(
    ("pacing", "recorded_hz", "intended_hz"),
    [
        (Pacing(), 30.0, 30.0),
        (Pacing(), None, None),
        (Pacing(rate_hz=15.0), 30.0, 15.0),
        (Pacing(speed=2.0), 30.0, 60.0),
        (Pacing(rate_hz=10.0, speed=0.5), None, 5.0),
        (Pacing(speed=math.inf), 30.0, None),
    ],
    ids=["recorded", "unknown", "rate", "speed", "both", "max"],
)
def test_the_intended_rate_is_that_of_the_schedule(
    pacing: Pacing, recorded_hz: float | None, intended_hz: float | None
) -> None:
    assert pacing.intended_rate_hz(recorded_hz) == intended_hz


# Decode and let go --------------------------------------------------------------------------------------------


def test_frames_come_in_order_in_their_slots_at_their_time(guard: Callable[..., GuardsEnd]) -> None:
    end = guard(Loop([10, 20, 30, 40, 50]))
    end.grant(3)
    frames = end.hear_frames(5)
    assert end.pixels == [10, 20, 30, 40, 50]
    assert [frame.sequence for frame in frames] == [0, 1, 2, 3, 4]
    steps = np.diff([frame.due_ns for frame in frames])
    assert steps == pytest.approx(NS_PER_S / FAST_HZ, abs=2)
    assert all(frame.grabbed_ns >= frame.due_ns for frame in frames)
    assert not any(frame.repeated or frame.discontinuity for frame in frames)
    end.wait_for_the_end()
    assert end.failure is None


def test_a_source_runs_no_further_ahead_than_it_was_granted(guard: Callable[..., GuardsEnd]) -> None:
    source = Loop([1, 2, 3, 4, 5, 6])
    end = guard(source)
    end.grant(2)
    end.hear_frames(2, grants=False)
    assert source._next == 2
    end.grant(2)
    end.hear_frames(2, grants=False)
    assert source._next == 4
    assert end.pixels == [1, 2, 3, 4]


def test_as_fast_as_can_be_a_frame_is_due_when_it_is_there(guard: Callable[..., GuardsEnd]) -> None:
    end = guard(Loop([1, 2, 3], rate_hz=0.001), Pacing(speed=math.inf))
    end.grant(3)
    assert all(frame.due_ns == frame.grabbed_ns for frame in end.hear_frames(3))


def test_repeats_are_marked(guard: Callable[..., GuardsEnd]) -> None:
    end = guard(Loop([7, 7, 8, 8, 8, 7]))
    end.grant(3)
    assert [frame.repeated for frame in end.hear_frames(6)] == [False, True, False, True, True, False]


def test_a_loop_begins_again_without_a_gap_in_number_or_time(guard: Callable[..., GuardsEnd]) -> None:
    end = guard(Loop([1, 2, 3]), Pacing(loop=True, frames=8))
    end.grant(3)
    frames = end.hear_frames(8)
    assert end.pixels == [1, 2, 3, 1, 2, 3, 1, 2]
    assert [frame.sequence for frame in frames] == list(range(8))
    assert np.diff([frame.due_ns for frame in frames]) == pytest.approx(NS_PER_S / FAST_HZ, abs=2)
    end.wait_for_the_end()


def test_an_empty_recording_ends_even_when_looped(guard: Callable[..., GuardsEnd]) -> None:
    end = guard(Loop([]), Pacing(loop=True))
    end.grant(3)
    end.wait_for_the_end()
    assert end.failure is None


def test_a_source_that_was_started_again_goes_on_counting_and_says_so(
    guard: Callable[..., GuardsEnd],
) -> None:
    end = guard(Loop([1, 2, 3]), Pacing(frames=12), first_sequence=10)
    end.grant(3)
    frames = end.hear_frames(2)
    assert [(frame.sequence, frame.discontinuity) for frame in frames] == [(10, True), (11, False)]
    end.wait_for_the_end()


def test_frames_that_were_due_while_there_was_no_process_are_counted(
    guard: Callable[..., GuardsEnd],
) -> None:
    since_ns = MonotonicClock().now_ns() - 30 * round(NS_PER_S / FAST_HZ)
    end = guard(Loop([1, 2, 3]), Pacing(), first_sequence=10, down_since_ns=since_ns)
    end.grant(3)
    frame, after = end.hear_frames(2)
    due = round((frame.due_ns - since_ns) * FAST_HZ / NS_PER_S) - 1
    assert due >= 30
    assert end.drops == SourceDrops(down=due)
    assert (frame.sequence, after.sequence) == (10 + due, 11 + due)
    end.wait_for_the_end()


def test_no_more_frames_are_counted_than_were_asked_for(guard: Callable[..., GuardsEnd]) -> None:
    since_ns = MonotonicClock().now_ns() - 30 * round(NS_PER_S / FAST_HZ)
    end = guard(Loop([1, 2, 3]), Pacing(frames=12), first_sequence=10, down_since_ns=since_ns)
    end.grant(1)
    said = end.hear_the_end()
    assert (said["sequence"], said["drops"]) == (12, [0, 0, 0, 2])
    end.wait_for_the_end()


def test_frames_before_one_that_cannot_be_decoded_still_come(guard: Callable[..., GuardsEnd]) -> None:
    end = guard(Loop([1, 2, 3, 4], fails_at=2))
    end.grant(3)
    end.hear_frames(2)
    end.wait_for_the_end()
    assert end.pixels == [1, 2]
    with pytest.raises(SourceError, match="frame 2 cannot be decoded"):
        raise end.failure or AssertionError("it did not fail")


def test_frames_before_a_change_of_format_come_before_it_is_announced(
    guard: Callable[..., GuardsEnd],
) -> None:
    end = guard(Loop([1, 2, 3, 4, 5], larger_from=2))
    end.grant(3)
    end.hear_frames(2, grants=False)
    announced = end.hear()
    assert isinstance(announced, dict)
    assert format_from_json(announced) == LARGE
    end.use(LARGE)
    end.grant(3)
    end.hear_frames(3)
    assert end.pixels == [1, 2, 3, 4, 5]
    assert [frame.sequence for frame in end.frames] == [0, 1, 2, 3, 4]


def test_a_recording_that_falls_behind_passes_frames_over_and_counts_them(
    guard: Callable[..., GuardsEnd],
) -> None:
    end = guard(Skipping([(index + 1) % 251 for index in range(5000)]))
    end.grant(1)
    end.hear_frames(1, grants=False)
    first = end.frames[0]
    while end.frames[-1].grabbed_ns < first.due_ns + 40 * NS_PER_MS:  # twenty periods pass without a grant
        threading.Event().wait(0.05)
        end.grant(1)
        end.hear_frames(1, grants=False)
    end.grant(1)
    end.hear_frames(1, grants=False)
    after, late = end.frames[-1], end.drops.late
    assert late >= 10
    assert after.sequence <= len(end.frames) - 1 + late  # the count runs ahead: some after this frame too
    assert end.pixels[-1] == (after.sequence + 1) % 251
    assert after.due_ns - first.due_ns == pytest.approx(after.sequence * NS_PER_S / FAST_HZ, abs=200)
    for before, frame in itertools.pairwise(end.frames):
        assert frame.discontinuity == (frame.sequence > before.sequence + 1)


def test_a_lossless_replay_passes_nothing_over(guard: Callable[..., GuardsEnd]) -> None:
    end = guard(Skipping(list(range(1, 31))), Pacing(lossless=True))
    end.grant(1)
    end.hear_frames(1, grants=False)
    threading.Event().wait(0.05)
    end.grant(3)
    end.hear_frames(29)
    assert end.pixels == list(range(1, 31))
    assert (end.drops.late, end.drops.full) == (0, 0)


def test_a_device_is_read_on_without_a_slot_and_the_loss_is_counted(guard: Callable[..., GuardsEnd]) -> None:
    source = Loop([1, 2, 3, 4], live=True)
    end = guard(source)
    while source._next < 4:  # nothing is granted, and a device does not wait
        threading.Event().wait(0.005)
    end.wait_for_the_end()
    assert end.frames == []


def test_the_stamp_of_a_devices_driver_is_when_its_frame_was_due(guard: Callable[..., GuardsEnd]) -> None:
    gate = threading.Event()

    class Gated(Loop):
        def read(self, out: np.ndarray) -> SourceFrame | None:
            gate.wait(30.0)
            return super().read(out)

    end = guard(Gated([1, 2], live=True))
    end.grant(3)
    while end.grabber._granted.qsize() < 2:  # heard by another thread; the first frame may have gone without
        threading.Event().wait(0.005)
    gate.set()
    end.wait_for_the_end()
    frame = end.hear_frames(1, grants=False)[0]
    assert frame.due_ns == 1000 * (1 + frame.sequence)
    assert frame.grabbed_ns > NS_PER_MS


def test_a_recording_that_says_when_its_frames_are_due_is_followed(guard: Callable[..., GuardsEnd]) -> None:
    start_ns = time.monotonic_ns() + 100 * NS_PER_MS
    times_ns = [start_ns, start_ns + NS_PER_MS, start_ns + 150 * NS_PER_MS]

    class Scheduled(Loop):
        def read(self, out: np.ndarray) -> SourceFrame | None:
            got = super().read(out)
            return None if got is None else SourceFrame(stamp_ns=times_ns[self._next - 1])

    end = guard(Scheduled([1, 2, 3]))
    end.grant(3)
    frames = end.hear_frames(3, grants=False)
    assert [frame.due_ns for frame in frames] == times_ns
    assert all(frame.grabbed_ns >= frame.due_ns for frame in frames)


# Burned-in text -----------------------------------------------------------------------------------------------


class Clock(Loop):
    """A held image with a burned-in clock that goes on."""

    def read(self, out: np.ndarray) -> SourceFrame | None:
        said = super().read(out)
        out[2:6, 4:20] = self._next
        return said


def test_burned_in_regions_are_black_before_anybody_sees_the_frame(guard: Callable[..., GuardsEnd]) -> None:
    end = guard(Clock([200] * 3), blank=Blank(64, 64, ((0, 2, 7, 22),)))
    end.grant(3)
    frames = end.hear_frames(3)
    assert not end.picture[0:7, 2:22].any()
    assert (end.picture[7:] == 200).all()
    assert (end.picture[:7, 22:] == 200).all()
    assert [frame.repeated for frame in frames] == [False, True, True]  # the clock no longer hides it


def test_frames_of_another_size_are_not_blanked_in_the_wrong_place(guard: Callable[..., GuardsEnd]) -> None:
    end = guard(Loop([200, 200], larger_from=1), blank=Blank(64, 64, ((0, 0, 8, 64),)))
    end.grant(2)
    assert isinstance(end.hear(), Grabbed)
    assert not end.picture[:8].any()
    assert isinstance(end.hear(), dict)
    end.use(LARGE)
    end.grant(2)
    assert isinstance(end.hear(), Grabbed)
    assert (end.picture == 200).all()
