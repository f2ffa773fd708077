"""Fixed slots in anonymous shared memory. A frame is written once, into its slot, and read in place.

A slot is laid out as the message is (stream/wire.py), so that publishing is one zero-copy send. Who may touch
a slot is kept in this process alone, the guard: a slot is used again only when nobody holds it any more, that
is when its source grant is done, its engine lease is returned (or the engine was killed and reaped) and every
send of it is done.

The memory is a memfd with its pages allocated: no name, so nothing is left after SIGKILL; no surprise later,
since a full machine says so here and not by SIGBUS in the middle of a frame; and its size is sealed, since a child
that decodes hostile bytes could else cut it off under the others, which is a SIGBUS too.
"""

import fcntl
import mmap
import os
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from stream.frame import FrameFormat, Plane
from stream.wire import SLOT_GENERATION_AT, Layout


@runtime_checkable
class SendTracker(Protocol):
    """What ZeroMQ gives for a zero-copy send: whether the bytes are still in use."""

    @property
    def done(self) -> bool: ...


class SlotView:
    """One slot's memory, with its planes as arrays. Made once; nothing here is allocated per frame.

    Args:
        memory: The whole ring's memory.
        index: Which slot.
        layout: Where things lie in a slot.
        frame_format: What the planes are.
    """

    def __init__(self, memory: mmap.mmap, index: int, layout: Layout, frame_format: FrameFormat) -> None:
        self.index = index
        self.bytes = memoryview(memory)[index * layout.size : (index + 1) * layout.size]
        shape = (frame_format.rows, frame_format.columns)

        def plane(which: Plane, dtype: np.dtype) -> np.ndarray:
            return np.frombuffer(
                memory, dtype, frame_format.pixels, index * layout.size + layout.offset(which)
            ).reshape(shape)

        self.live = plane(Plane.LIVE, frame_format.dtype)
        self.synthetic = plane(Plane.SYNTHETIC, frame_format.dtype)
        self.attention = plane(Plane.ATTENTION, np.dtype(np.uint8))
        self.generation = np.frombuffer(memory, "<u8", 1, index * layout.size + SLOT_GENERATION_AT)


class RingMemory:
    """A ring's memory as any process sees it: mapped from its descriptor.

    Args:
        descriptor: The memfd; stays open for as long as this object is, and is closed with it.
        frame_format: The format of the frames in it.
        slots: How many slots it has.

    Raises:
        ValueError: The descriptor's size is not that of so many slots.
    """

    def __init__(self, descriptor: int, frame_format: FrameFormat, slots: int) -> None:
        self.frame_format = frame_format
        self.layout = Layout.of(frame_format)
        self.descriptor = descriptor
        needed = self.layout.size * slots
        if (got := os.fstat(descriptor).st_size) != needed:
            raise ValueError(f"a ring of {slots} slots must be {needed} bytes, got {got}")
        self._memory = mmap.mmap(descriptor, needed)
        self.slots = [SlotView(self._memory, index, self.layout, frame_format) for index in range(slots)]

    @classmethod
    def create(cls, frame_format: FrameFormat, slots: int) -> "RingMemory":
        """Make the memory of a new ring, all pages allocated.

        Raises:
            OSError: The machine has not that much memory left.
        """
        size = Layout.of(frame_format).size * slots
        descriptor = os.memfd_create("contrastream", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            os.posix_fallocate(descriptor, 0, size)
            fcntl.fcntl(
                descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
            )
            return cls(descriptor, frame_format, slots)
        except BaseException:
            os.close(descriptor)
            raise

    def close(self) -> None:
        """Close the descriptor. The mapping goes when the last view of it does."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass
class Holders:
    """Who holds a slot."""

    generation: int = 0
    """How often the slot was given out for writing."""
    granted: bool = False
    """The source may write the live plane."""
    waiting: bool = False
    """Filled; the guard has not yet let it go."""
    lease: int = 0
    """Epoch under which the engine may write synthetic and attention; 0 for none."""
    sends: list[SendTracker] = field(default_factory=list)
    """Sends whose bytes may still be in use."""


class Ring:
    """The guard's bookkeeping over a ring's memory.

    Args:
        frame_format: The format of the frames.
        slots: How many frames it holds.
    """

    def __init__(self, frame_format: FrameFormat, slots: int) -> None:
        self.memory = RingMemory.create(frame_format, slots)
        self.frame_format = frame_format
        self.layout = self.memory.layout
        self.slots = self.memory.slots
        self._holders = [Holders() for _ in range(slots)]
        self._next = 0
        self._granted = 0
        self._refused = 0

    def grant(self) -> int | None:
        """Give the source a free slot to write into, the one given out longest ago; None where none is free."""
        for step in range(len(self.slots)):
            index = (self._next + step) % len(self.slots)
            if self._is_free(index):
                self._next = (index + 1) % len(self.slots)
                holders = self._holders[index]
                holders.granted = True
                self._granted += 1
                holders.generation += 1
                # Before anybody may write: who copies this slot just now sees afterwards that it was too late.
                self.slots[index].generation[0] = holders.generation
                return index
        self._refused += 1
        return None

    def fill(self, index: int) -> None:
        """The source has written the slot it was granted."""
        holders = self._holders[index]
        if not holders.granted:
            raise ValueError(f"slot {index} was filled without a grant")
        holders.granted = False
        self._granted -= 1
        holders.waiting = True

    def revoke_grants(self) -> None:
        """Take back the source's grants. Only when it is dead and reaped, or this ring is never granted from again."""
        for holders in self._holders:
            holders.granted = False
        self._granted = 0

    def lease(self, index: int, epoch: int) -> None:
        """Let the engine write the slot's synthetic and attention planes, under `epoch` (above 0)."""
        holders = self._holders[index]
        if holders.lease or not holders.waiting:
            raise ValueError(f"slot {index} cannot be leased: {holders}")
        holders.lease = epoch

    def return_lease(self, index: int, epoch: int) -> bool:
        """The engine is done with a slot. False for a lease that is not the present one, which changes nothing."""
        holders = self._holders[index]
        if holders.lease != epoch:
            return False
        holders.lease = 0
        return True

    def revoke_leases(self) -> None:
        """Take back every lease. Only when the engine process is dead and reaped, since it could still write."""
        for holders in self._holders:
            holders.lease = 0

    def sent(self, index: int, tracker: SendTracker) -> None:
        """A send reads the slot's bytes in place until `tracker` is done."""
        self._holders[index].sends.append(tracker)

    def release(self, index: int) -> None:
        """The guard needs the slot no more; it is free once its lease and its sends are over."""
        self._holders[index].waiting = False

    def generation(self, index: int) -> int:
        """How often the slot has been given out."""
        return self._holders[index].generation

    def granted(self) -> int:
        """Slots that the source may write now."""
        return self._granted

    def free(self) -> int:
        """Slots that could be granted now."""
        return sum(self._is_free(index) for index in range(len(self.slots)))

    def has_free(self, count: int) -> bool:
        """Whether so many slots could be granted now. Looks no further than it must: it is asked for every frame."""
        for index in range(len(self.slots)):
            if self._is_free(index):
                count -= 1
                if count == 0:
                    return True
        return count <= 0

    def idle(self) -> bool:
        """Whether nobody holds any slot, so that the memory can go."""
        return self.free() == len(self.slots)

    def statistics(self) -> dict[str, int]:
        """Slots by holder, and how often a grant found no free slot."""
        holders = self._holders
        return {
            "slots": len(self.slots),
            "free": self.free(),
            "granted": self.granted(),
            "waiting": sum(h.waiting for h in holders),
            "leased": sum(h.lease > 0 for h in holders),
            "sending": sum(bool(h.sends) for h in holders),
            "refused": self._refused,
        }

    def _is_free(self, index: int) -> bool:
        holders = self._holders[index]
        if holders.sends:
            holders.sends = [tracker for tracker in holders.sends if not tracker.done]
        return not (holders.granted or holders.waiting or holders.lease or holders.sends)

    def close(self) -> None:
        """Close the descriptor."""
        self.memory.close()
