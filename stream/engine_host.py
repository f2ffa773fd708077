"""The engine host: one process with the engines of several rooms, so that one GPU serves them all with fair turns.

Each room's guard talks to it over a socket of its own, as it would to an engine process (`stream/infer.py`), and its
ring is mapped here. At most two frames are in the engines at once, whoever's they are: the one that is inferred and
the one whose copies go on meanwhile. Which room is next: `stream/turns.py`. An engine is opened in a thread of its own
while the other rooms go on.
"""

import contextlib
import gc
import logging
import os
import queue
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from stream.adapted_engine import AdaptedSide
from stream.control import (
    LEASE,
    MAX_PACKET,
    ChildSocket,
    Kind,
    become_child,
    end_with_any_thread,
    pack_json,
    receive_ring,
    unpack_json,
)
from stream.drawer import Drawer
from stream.infer import Told, finish, open_warm, refusal, taken
from stream.ring import RingMemory
from stream.timing import MonotonicClock
from stream.turns import Turns

if TYPE_CHECKING:
    from engines.engine import Opened, Slot

log = logging.getLogger("contrastream.engine_host")

IN_FLIGHT = 2
"""Frames in the engines at once, as many as a single room's engine takes."""
MALFORMED = (ValueError, KeyError, TypeError, IndexError, OverflowError, struct.error)


class HostedRoom:
    """A room as the host sees it.

    Args:
        number: Its number, for the log.
        sock: The socket to its guard.
    """

    def __init__(self, number: int, sock: socket.socket) -> None:
        self.number = number
        self.socket = sock
        self.socket.setblocking(False)
        self.config: dict[str, Any] = {}
        self.memory: RingMemory | None = None
        self.opened: Opened | None = None
        self.general: Drawer | None = None
        self.adapted: AdaptedSide | None = None
        self.in_flight = 0
        self.told = Told()
        self.opening = False
        self.gone = False
        """Its guard or its engine is no more; what is in flight still ends, then all of it is closed."""

    def send(self, packet: bytes) -> None:
        """Send a packet; a guard that is gone or has stopped reading does without it, and is seen so elsewhere."""
        with contextlib.suppress(OSError):
            self.socket.send(packet)

    def close(self) -> None:
        """Give its engine and its memory back, then say goodbye: from here on nothing of it is written."""
        if self.adapted is not None:
            self.adapted.close()
        if self.opened is not None:
            self.opened.engine.close()
            self.opened = None
        if self.memory is not None:
            self.memory.close()
        self.send(bytes((Kind.LET_GO,)))
        self.socket.close()


class EngineHost:
    """Serves the rooms that the supervisor hands over, until the supervisor is gone.

    Args:
        supervisor: The socket to it.
        rooms: How many rooms there will be, for the guards to know how long a round may take.
        end: Ends this process at once with a status.
    """

    def __init__(
        self, supervisor: ChildSocket, rooms: int, *, end: Callable[[int], object] = os._exit
    ) -> None:
        self._supervisor = supervisor
        self._round = rooms
        self._end = end
        self._clock = MonotonicClock()
        self._rooms: list[HostedRoom] = []
        self._turns: Turns[HostedRoom, tuple[int, int, int]] = Turns()
        self._in_flight = 0
        self._alive = True
        self._submitted: queue.SimpleQueue[tuple[HostedRoom, Drawer, Slot, int, int, int] | None] = (
            queue.SimpleQueue()
        )
        self._happened: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        """What the other threads leave for the loop to do."""
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._selector = selectors.DefaultSelector()
        self._selector.register(supervisor.fileno(), selectors.EVENT_READ, self._hear_supervisor)
        self._selector.register(self._wake, selectors.EVENT_READ, self._woken)

    def run(self) -> None:
        """Serve until the supervisor is gone."""
        waiter = threading.Thread(target=self._wait_for_results, name="return-leases")
        waiter.start()
        while self._alive:
            for key, _ in self._selector.select():
                key.data()
            self._serve()
        self._submitted.put(None)
        waiter.join()
        for room in self._rooms:
            if not room.opening:
                room.close()

    # What comes ----------------------------------------------------------------------------------------------

    def _hear_supervisor(self) -> None:
        packet, descriptors = self._supervisor.receive()
        if not packet:
            self._alive = False
        elif packet[0] == Kind.ROOM:
            room = HostedRoom(int(unpack_json(packet)["number"]), socket.socket(fileno=descriptors[0]))
            self._rooms.append(room)
            self._selector.register(room.socket, selectors.EVENT_READ, lambda: self._hear(room))

    def _hear(self, room: HostedRoom) -> None:
        try:
            packet, descriptors, _, _ = socket.recv_fds(room.socket, MAX_PACKET, 1)
        except BlockingIOError:
            return
        except ConnectionError:
            packet, descriptors = b"", []
        try:
            if not packet:
                self._let_go(room)
            elif packet[0] == Kind.LEASE:
                _, index, epoch, serial = LEASE.unpack(packet)
                older = self._turns.add(room, (index, epoch, serial))
                if older is not None:
                    room.send(LEASE.pack(Kind.PASSED_OVER, *older))
            elif packet[0] in (Kind.PATIENT, Kind.PATIENT_OFF) and room.adapted is not None:
                room.adapted.take(packet, list(descriptors))
            elif packet[0] == Kind.CONFIG:
                room.config = unpack_json(packet)
            elif packet[0] == Kind.RING and room.memory is None:
                room.memory, _ = receive_ring(packet, list(descriptors))
                room.opening = True
                threading.Thread(
                    target=self._open, args=(room,), name=f"open-{room.number}", daemon=True
                ).start()
        except MALFORMED as error:
            log.warning(
                "room %d sent what it must not (%s); letting it go", room.number, type(error).__name__
            )
            self._let_go(room)

    def _woken(self) -> None:
        os.eventfd_read(self._wake)
        while not self._happened.empty():
            self._happened.get()()

    def _tell_loop(self, what: Callable[[], None]) -> None:
        """From another thread: have the loop do something."""
        self._happened.put(what)
        os.eventfd_write(self._wake, 1)

    # A room's engine -----------------------------------------------------------------------------------------

    def _open(self, room: HostedRoom) -> None:
        """In a thread of its own: open a room's engine; the others go on meanwhile."""
        assert room.memory is not None
        try:
            opened, slots, ready = open_warm(room.memory, room.config)
        except Exception as error:
            said = refusal(error)
            self._tell_loop(lambda: self._refuse(room, said))
            return
        self._tell_loop(lambda: self._take_opened(room, opened, slots, ready))

    def _take_opened(
        self, room: HostedRoom, opened: "Opened", slots: "list[Slot]", ready: dict[str, Any]
    ) -> None:
        room.opening, room.opened = False, opened
        if room.gone:
            self._close_if_over(room)
            return
        assert room.memory is not None
        room.general = Drawer(slots, room.memory)
        room.adapted = AdaptedSide(
            lambda kind, said: room.send(pack_json(kind, said)), room.memory, room.config, opened
        )
        gc.freeze()  # what is loaded lives as long as the room
        room.send(pack_json(Kind.READY, {**ready, "rooms": self._round}))

    def _refuse(self, room: HostedRoom, said: dict[str, Any]) -> None:
        room.opening = False
        room.send(pack_json(Kind.ERROR, said))
        self._let_go(room)

    def _let_go(self, room: HostedRoom) -> None:
        """Serve a room no more; what is in flight for it ends first."""
        if not room.gone:
            room.gone = True
            self._selector.unregister(room.socket)
            self._turns.leave(room)
        self._close_if_over(room)

    def _close_if_over(self, room: HostedRoom) -> None:
        if room in self._rooms and not room.in_flight and not room.opening:
            self._rooms.remove(room)
            # In a thread, since giving an engine back may take longer than the others' frames can wait.
            threading.Thread(target=room.close, name=f"close-{room.number}").start()

    # Turns ---------------------------------------------------------------------------------------------------

    def _serve(self) -> None:
        """Fill the engines with the frames whose turn it is."""
        while self._in_flight < IN_FLIGHT and (turn := self._turns.next()) is not None:
            room, (index, epoch, serial) = turn
            assert room.general is not None
            drawer, slot = taken(room.general, room.adapted, index, serial)
            submitted_ns = self._clock.now_ns()
            slot.submit()
            room.in_flight += 1
            self._in_flight += 1
            self._submitted.put((room, drawer, slot, index, epoch, submitted_ns))

    def _wait_for_results(self) -> None:
        """In a thread of its own: wait for each inference in the order of submission and say so."""
        from engines.errors import CudaLost

        while (work := self._submitted.get()) is not None:
            room, drawer, slot, index, epoch, submitted_ns = work
            gate = None if room.adapted is None else room.adapted.gate
            done, failure = finish(slot, index, epoch, submitted_ns, drawer.serial, gate)
            if failure is not None and room.told.is_new(failure):
                room.send(pack_json(Kind.NOTE, {"message": str(failure)}))
            if isinstance(failure, CudaLost):
                # Only a new process may find the GPU again, and closing things in this one would fail or hang.
                self._end(1)
                return
            room.send(done)
            self._tell_loop(partial(self._take_back, room, drawer, slot, index))

    def _take_back(self, room: HostedRoom, drawer: Drawer, slot: "Slot", index: int) -> None:
        self._in_flight -= 1
        room.in_flight -= 1
        drawer.give_back(slot, index)
        if room.gone:
            self._close_if_over(room)


def main() -> int:
    """Entry point of the engine host: `python -m stream.engine_host DESCRIPTOR`."""
    become_child()
    end_with_any_thread()
    supervisor = ChildSocket(int(sys.argv[1]))
    packet, _ = supervisor.receive()
    if not packet:
        return 0
    config = unpack_json(packet)
    from engines.open import load_runtime

    load_runtime(config["backend"])
    EngineHost(supervisor, int(config["rooms"])).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
