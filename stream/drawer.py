"""An engine's slots for one ring, each bound ahead to the ring slot it will most likely be asked for.

Binding takes longer than anything else between a frame and its inference, and ring slots are given out in turn.
"""

import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from stream.ring import RingMemory

if TYPE_CHECKING:
    from engines.engine import Slot


class Drawer:
    """What draws into a ring: the general engine, or an adapted one beside it.

    Args:
        slots: The engine's slots, warm.
        memory: The ring.
        serial: The adaptation's serial number; 0 for the general model.
        close: Gives the engine back; called once, when nothing is in it any more and it is retired.
    """

    def __init__(
        self,
        slots: list["Slot"],
        memory: RingMemory,
        *,
        serial: int = 0,
        close: Callable[[], object] = lambda: None,
    ) -> None:
        self.serial = serial
        self._memory = memory
        self._ahead = len(slots)
        self._close = close
        self._lock = threading.Lock()
        self._in_flight = 0
        self._retired = False
        self.ended = threading.Event()
        """Set when the engine has been given back."""
        self._idle: queue.SimpleQueue[tuple[Slot, int]] = queue.SimpleQueue()
        for index, slot in enumerate(slots):
            self._bind_ahead(slot, index)

    def take(self, index: int) -> "Slot | None":
        """An idle engine slot, bound to a ring slot; waits for one. None where this engine is retired."""
        with self._lock:
            if self._retired:
                return None
            self._in_flight += 1
        slot, bound = self._idle.get()
        if bound != index:
            self._bind(slot, index)
        return slot

    def give_back(self, slot: "Slot", index: int) -> None:
        """An engine slot is idle again.

        Args:
            slot: What `take` gave, waited for.
            index: The ring slot that it was taken for.
        """
        self._bind_ahead(slot, (index + self._ahead) % len(self._memory.slots))
        with self._lock:
            self._in_flight -= 1
            over = self._retired and not self._in_flight
        if over:
            self._end()

    def retire(self) -> None:
        """Take no more frames; the engine is given back when the last one in it is done."""
        with self._lock:
            over = not self._retired and not self._in_flight
            self._retired = True
        if over:
            self._end()

    def _end(self) -> None:
        # In a thread, since giving an engine back may take longer than frames can wait.
        threading.Thread(target=self._close_engine, name="close-engine").start()

    def _close_engine(self) -> None:
        try:
            self._close()
        finally:
            self.ended.set()

    def _bind(self, slot: "Slot", index: int) -> None:
        view = self._memory.slots[index]
        slot.bind(view.live, view.synthetic, view.attention)

    def _bind_ahead(self, slot: "Slot", index: int) -> None:
        self._bind(slot, index)
        self._idle.put((slot, index))
