"""The last seconds of a stream's live plane, in memory whose bounds are said before: what a viewer can write when a key is pressed.

Of each frame the live plane alone is copied, once, into a slot of one mapping; the message goes back to the socket at once. Holding
whole messages would copy nothing and cost three times the memory.
"""

import itertools
import math
import mmap
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime

import numpy as np

from stream.frame import FrameFormat, State
from stream.record.capture import CapturedFrame, EngineSaid, Stop
from stream.record.segment import Segment
from stream.timing import NS_PER_S, Stage
from stream.wire import Header, Message

MOST_FRAMES = 4000
"""No more can be taught with (`stream.patient_recording.MOST_FRAMES`)."""
RATE_UNKNOWN_HZ = 60.0
"""Assumed of a stream that does not say its rate: the fastest of the field."""
SPARE = 8
"""Frames of room above the seconds asked for: a rate is nominal, and a frame is held a moment longer than it counts."""


@dataclass(frozen=True)
class Place:
    """A frame that is held."""

    header: Header
    received_ns: int
    """CLOCK_MONOTONIC of this host."""
    lost: int
    """Frames of the stream that had not come until then."""
    slot: int


class Slots:
    """The mapping that live planes of one format lie in. Pages that were never written take no memory.

    Args:
        frame_format: Of every frame.
        count: How many there is room for.
    """

    def __init__(self, frame_format: FrameFormat, count: int) -> None:
        shape = (count, frame_format.rows, frame_format.columns)
        bytes_each = frame_format.pixels * frame_format.sample_bytes
        self.planes = np.frombuffer(mmap.mmap(-1, count * bytes_each), frame_format.dtype).reshape(shape)
        self.bytes_each = bytes_each
        self._free = list(range(count - 1, -1, -1))
        self._users = [0] * count

    def take(self) -> int | None:
        """A free slot, with one user; None where there is none. Those used before come first, so that memory grows no faster."""
        if not self._free:
            return None
        slot = self._free.pop()
        self._users[slot] = 1
        return slot

    def use(self, slot: int) -> None:
        """One user more."""
        self._users[slot] += 1

    def is_shared(self, slot: int) -> bool:
        """Whether it has more users than one."""
        return self._users[slot] > 1

    def give_back(self, slot: int) -> None:
        """One user fewer; free without any."""
        self._users[slot] -= 1
        if self._users[slot] == 0:
            self._free.append(slot)


@dataclass(frozen=True)
class KeptSegment(Segment):
    """What was held at one moment, as the recorder's writers take it."""

    lost_frames: int = 0

    @property
    def lost(self) -> int:
        """Frames that did not reach the viewer. Repeats are left out on purpose, so that the numbers' gaps do not tell."""
        return self.lost_frames


@dataclass
class Held:
    """Frames that were held at one moment: a `Frames` for a segment. A frame's slot is free again once it was read."""

    slots: Slots
    places: list[Place]
    begun: str
    """When the first one came, by the wall clock."""
    cut: str
    """Why there is nothing older, where something changed on the way; else empty."""
    angles_deg: tuple[float, float] | None
    """The C-arm's, primary and secondary, where they are known."""
    lock: threading.Lock
    engines: list[EngineSaid] = field(default_factory=list)
    stops: list[Stop] = field(default_factory=list)
    cut_off: str | None = None
    _read: int = 0

    def __len__(self) -> int:
        return len(self.places)

    @property
    def segment(self) -> KeptSegment:
        """All of it."""
        lost = self.places[-1].lost - self.places[0].lost
        return KeptSegment(self, 0, tuple(place.header for place in self.places), lost)

    @property
    def seconds(self) -> float:
        """From the first frame's due time to the last one's end."""
        times = [place.header.stamp_ns(Stage.DUE) for place in (self.places[0], self.places[-1])]
        return (times[1] - times[0]) / NS_PER_S + 1.0 / self.segment.rate_hz

    @property
    def full(self) -> bool:
        """Whether there was room for no more, but for the one that is written as the next one comes."""
        return len(self.places) >= len(self.slots.planes) - 1

    @property
    def longest_gap_s(self) -> float:
        """Longest time between two frames' due times."""
        times = self.segment.times_ms()
        return max((later - before for before, later in itertools.pairwise(times)), default=0.0) / 1000.0

    @property
    def bytes(self) -> int:
        """Of their live planes."""
        return len(self.places) * self.slots.bytes_each

    def frame(self, index: int) -> CapturedFrame:
        """A frame, its live plane alone; frames are read once, in order, and the one before is given back."""
        self._give_back(index)
        place = self.places[index]
        return CapturedFrame(Message(place.header, self.slots.planes[place.slot]), place.received_ns)

    def close(self) -> None:
        """Give all that was not read back; may be called twice."""
        self._give_back(len(self.places))

    def _give_back(self, until: int) -> None:
        with self.lock:
            for place in self.places[self._read : until]:
                self.slots.give_back(place.slot)
        self._read = max(self._read, until)


class KeptFrames:
    """Holds the live plane of the frames that came in the last seconds. Frames come in one thread, are taken in any.

    Args:
        seconds: How long, by this host's clock.
        most_bytes: Of live planes, at most. Where that is not enough for the seconds, fewer are held.
    """

    def __init__(self, seconds: float, most_bytes: int) -> None:
        self._seconds, self._most_bytes = seconds, most_bytes
        self._lock = threading.Lock()
        self._places: deque[Place] = deque()
        self._slots: Slots | None = None
        self._capacity = 0
        self._of: Header | None = None
        """What the newest frame said of itself."""
        self._angles: tuple[float, float] | None = None
        self._passed_over = 0
        self._cut, self._cut_ns = "", 0

    def add(
        self,
        message: Message,
        received_ns: int,
        lost: int,
        angles_deg: tuple[float, float] | None = None,
    ) -> bool:
        """Hold a frame, unless it only repeats the one before.

        Args:
            message: The frame; nothing of it is held but its header and a copy of its live plane.
            received_ns: When it came.
            lost: Frames of the stream that have not come so far.
            angles_deg: The C-arm's, where they are known.

        Returns:
            Whether a stretch begins with it, since it is the first one or of another kind.
        """
        header = message.header
        if header.state is State.UNCHANGED:
            return False
        changed = self._changed(header, angles_deg)
        with self._lock:
            if changed is not None:
                self._begin(header, changed, received_ns)
            self._of, self._angles = header, angles_deg or self._angles
            self._expire(received_ns)
            slots = self._slots
            assert slots is not None
            slot = slots.take()
            if slot is None and self._places and not slots.is_shared(self._places[0].slot):
                slots.give_back(self._places.popleft().slot)
                slot = slots.take()
            if slot is None:  # what is being written has all of it
                self._passed_over += 1
                return changed is not None
        slots.planes[slot] = message.live
        with self._lock:
            self._places.append(Place(header, received_ns, lost + self._passed_over, slot))
        return changed is not None

    def _changed(self, header: Header, angles_deg: tuple[float, float] | None) -> str | None:
        """Why frames before this one are not of its recording; empty where there are none, None where they are."""
        before = self._of
        if before is None:
            return ""
        was, now = before.frame_format, header.frame_format
        if was != now:
            sizes = [f"{each.rows} x {each.columns}" for each in (was, now)]
            how = f"from {sizes[0]} to {sizes[1]}" if sizes[0] != sizes[1] else "in depth or window"
            return f"the frames changed {how}"
        if header.stream != before.stream:
            return "the run was started again"
        if header.spacing != before.spacing:
            return "the size of a pixel changed"
        if header.stamp_ns(Stage.DUE) <= before.stamp_ns(Stage.DUE):
            return "the publisher's clock went back"
        # A heartbeat says the angles, and comes a little after the first frame.
        if None not in (angles_deg, self._angles) and angles_deg != self._angles:
            return "the C-arm was turned"
        return None

    def _begin(self, header: Header, why: str, now_ns: int) -> None:
        """Forget what was held: one recording holds frames of one kind."""
        self._cut, self._cut_ns = why, now_ns
        for place in self._places:
            assert self._slots is not None
            self._slots.give_back(place.slot)
        self._places.clear()
        self._angles = None
        frame_format, capacity = header.frame_format, self.capacity(header.frame_format, header.rate_hz)
        if self._of is None or self._of.frame_format != frame_format or capacity != self._capacity:
            # What is being written goes on holding the former ones until it is.
            self._slots, self._capacity = Slots(frame_format, capacity), capacity

    def capacity(self, frame_format: FrameFormat, rate_hz: float) -> int:
        """How many frames of a stream are held at most."""
        wanted = math.ceil(self._seconds * (rate_hz or RATE_UNKNOWN_HZ)) + SPARE
        room = self._most_bytes // (frame_format.pixels * frame_format.sample_bytes)
        return max(1, min(wanted, MOST_FRAMES, room))

    def _expire(self, now_ns: int) -> None:
        while self._places and self._places[0].received_ns < now_ns - self._seconds * NS_PER_S:
            assert self._slots is not None
            self._slots.give_back(self._places.popleft().slot)

    def held_s(self, now_ns: int) -> float:
        """Seconds of the stream that a recording would hold now; 0 where no frame is held."""
        with self._lock:
            self._expire(now_ns)
            if not self._places:
                return 0.0
            first, last = self._places[0].header, self._places[-1].header
        return (last.stamp_ns(Stage.DUE) - first.stamp_ns(Stage.DUE)) / NS_PER_S

    def take(self, now_ns: int) -> Held | None:
        """What is held now, to be read and closed; it goes on being held here too. None where nothing is."""
        with self._lock:
            self._expire(now_ns)
            if not self._places:
                return None
            assert self._slots is not None
            for place in self._places:
                self._slots.use(place.slot)
            places = list(self._places)
            since_s = (now_ns - self._cut_ns) / NS_PER_S
            cut = f"{self._cut} {since_s:.0f} s ago" if self._cut and since_s < self._seconds else ""
            slots, angles_deg = self._slots, self._angles
        begun = datetime.fromtimestamp(time.time() - (now_ns - places[0].received_ns) / NS_PER_S, UTC)
        return Held(slots, places, begun.isoformat(timespec="seconds"), cut, angles_deg, self._lock)
