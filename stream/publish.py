"""ZeroMQ PUB: one single-part message per frame, straight out of its slot; the heartbeat on a socket of its own.

Clients on this host may read the slot itself instead (`stream/memory_door.py`).
"""

import contextlib
import os
import secrets
import weakref
from collections import deque
from typing import Any

import zmq

from stream.admission import open_turnstile, user_of
from stream.clock_exchange import ClockResponder
from stream.connections import Connections, bound_strangers, end_connection, unread_bytes
from stream.endpoint import Endpoint, EndpointLock
from stream.errors import EndpointError, KeyFileError
from stream.frame import Spacing
from stream.memory_door import MemoryDoor
from stream.outgoing import Outgoing
from stream.ring import Ring
from stream.timing import NS_PER_S, Clock
from stream.turnstile import Turnstile
from stream.wire import MEASURING, Header, pack_header, pack_status, plane_crcs

LINGER_MS = 200
"""So long the last messages may take to leave."""
SEND_QUEUE = 8
"""Frames a client may be behind before it loses some. 1 and 2 lost frames that had been read (facts: pyzmq)."""
SLOTS_IN_RESERVE = 4
"""With fewer free slots than this a message is copied, so that slow clients cannot take the ring away."""
MAX_HEARD = 64
"""Subscriptions that are taken in at once; a frame does not wait for more."""
STUCK_NS = 5 * NS_PER_S
# As plain numbers: an enumeration's members cost more than what is asked with them.
_EVENTS, _READABLE = int(zmq.EVENTS), int(zmq.POLLIN)


class Sending:
    """A send whose bytes may still be in use.

    pyzmq holds the view until ZeroMQ is done with its bytes, so its end is theirs. pyzmq's own tracker makes an event for
    each message and sets it from another thread, which costs as much as the send.

    Args:
        message: What is sent, without a copy; nobody else may hold this view.
    """

    __slots__ = ("_message",)

    def __init__(self, message: memoryview) -> None:
        self._message = weakref.ref(message)

    @property
    def done(self) -> bool:
        """Whether ZeroMQ has let go of the bytes."""
        return self._message() is None


class Publisher:
    """Publishes one stream.

    Args:
        endpoint: Where to.
        clock: The clock of the frame path.
        rate_hz: The source's rate, told to clients; 0 where it is unknown.
        crc: Send a CRC-32 of each plane.

    Raises:
        EndpointError: The address is in use or cannot be bound.
        KeyFileError: The address needs CURVE, and the key pair is not there or not this user's alone.
    """

    def __init__(self, endpoint: Endpoint, clock: Clock, *, rate_hz: float = 0.0, crc: bool = False) -> None:
        self.endpoint = endpoint
        self.stream = secrets.token_bytes(16)
        self.rate_hz = rate_hz
        self.unmasked_text = True
        self.faults_injected = False
        """Whether the picture may hold burned-in text that no site calibration masks."""
        self.spacing: Spacing | None = None
        """How large a pixel is, told to clients; None where nobody knows."""
        self._clock = clock
        self._crc = crc
        self._lock = EndpointLock(endpoint)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._bound: list[tuple[zmq.Socket[bytes], Connections]] = []
        self._door: MemoryDoor | None = None
        self.turnstile: Turnstile | None = None
        """Who holds clients down, and of an address with CURVE says who may come in; None of one that this user alone reaches."""
        try:
            self.turnstile = open_turnstile(self._context, endpoint.frames, endpoint.curve)
            self._door = self._open_door(endpoint)
            self.frames, self._connections = self._bind(endpoint.frames, SEND_QUEUE)
            self._status, self._status_connections = self._bind(endpoint.status, 4)
            self._clock_responder = self._answer_clocks(endpoint)
        except (EndpointError, KeyFileError):
            self._close_sockets(linger_ms=0)
            if self._door is not None:
                self._door.close()
            self._lock.close()
            raise
        self._in_flight: deque[tuple[int, Sending]] = deque()
        """Sends by age, with when they began; never more than the ring has slots, since each holds one."""
        self.publications = 0
        self._subscribers = 0
        self._measuring = 0
        self.copied = 0
        """Messages that were copied because few slots were free."""
        self.disconnected = 0
        """Clients that did not read for 5 s."""

    def _bind(self, address: str, queue: int) -> "tuple[zmq.Socket[bytes], Connections]":
        # XPUB tells of subscriptions: a lossless replay waits for its client's, and they say whose a connection is.
        socket = self._context.socket(zmq.XPUB)
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
        bound_strangers(socket)
        connections = (
            Connections(socket) if self.turnstile is None else self.turnstile.protect(socket, sends_only=True)
        )
        self._bound.append((socket, connections))
        socket.setsockopt(zmq.SNDHWM, queue)
        socket.setsockopt(zmq.IPV6, address.startswith("tcp://["))
        before = os.umask(0o077)  # an ipc socket is for this user alone, wherever its folder is
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            raise EndpointError(
                f"needed a free address, got {address}: {error.strerror}; stop what uses it or choose another with "
                "--endpoint"
            ) from error
        finally:
            os.umask(before)
        return socket, connections

    @staticmethod
    def _open_door(endpoint: Endpoint) -> MemoryDoor | None:
        return None if endpoint.memory is None else MemoryDoor(str(endpoint.memory))

    @property
    def subscribers(self) -> int:
        """Clients now, over the wire and through shared memory."""
        return self._subscribers + (self._door.clients if self._door else 0)

    @property
    def measuring(self) -> int:
        """Measuring clients now; whatever is published from here on reaches them."""
        return self._measuring + (self._door.measuring if self._door else 0)

    def _answer_clocks(self, endpoint: Endpoint) -> ClockResponder:
        before = os.umask(0o077)
        try:
            return ClockResponder(endpoint.clock, self._clock, endpoint.curve)
        finally:
            os.umask(before)

    def publish(self, ring: Ring, out: Outgoing) -> None:
        """Send a frame that the guard has decided; its slot stays held until the last byte has gone."""
        slot = ring.slots[out.frame.slot]
        crc = plane_crcs(slot.bytes, ring.frame_format, out.planes, ring.layout) if self._crc else None
        now_ns = self._clock.now_ns()
        header = Header(
            stream=self.stream,
            sequence=out.frame.sequence,
            publication=self.publications,
            frame_format=ring.frame_format,
            state=out.state,
            reason=out.reason,
            planes=out.planes,
            generation=ring.generation(out.frame.slot),
            stamps_ns=(*out.stamps_ns, now_ns),
            age_ms=out.age_ms,
            unmasked_text=self.unmasked_text,
            faults_injected=self.faults_injected,
            discontinuity=out.frame.discontinuity,
            rate_hz=self.rate_hz,
            publisher_pid=os.getpid(),
            crc=crc,
            spacing=self.spacing,
            adaptation=out.adaptation,
        )
        length = pack_header(slot.bytes, header, ring.layout)
        self.publications += 1
        if self._door is not None:
            self._door.tell(ring, out.frame.slot, length)
        # Takes in what clients have read. `send` alone looks for that once in 3 million CPU ticks only, and drops a
        # frame for a client that has read all before it when more than the queue's length leave in between.
        if self.frames.getsockopt(_EVENTS) & _READABLE:  # type: ignore[operator]
            self._count_subscriptions()
        if self._subscribers <= 0 and not self._connections.held:
            # A send costs as much as all the rest of this, and would reach nobody. The count alone is not to be trusted:
            # a peer that gives up subscriptions it never had lowers it.
            return
        if ring.has_free(SLOTS_IN_RESERVE):
            message = slot.bytes[:length]
            sending = Sending(message)
            self.frames.send(message, copy=False)
            ring.sent(out.frame.slot, sending)
            self._in_flight.append((now_ns, sending))
        else:
            self.frames.send(slot.bytes[:length], copy=True)
            self.copied += 1

    def heartbeat(self, status: dict[str, Any]) -> None:
        """Send the heartbeat."""
        self._status.send(pack_status(status))

    def see_clients(self) -> None:
        """Take in who came and went, and let go of clients that have not read for 5 s. Call it every 100 ms or so.

        A client that stops reading holds the slots of the messages queued for it, for ever if it is stopped by a
        signal: ZeroMQ's own heartbeat is not sent while the client's socket is full. Two signs are needed. A socket
        that stays equally full may also be that of a client that reads slowly, since it fills up again at once; so
        a send must have been under way for as long too.
        """
        self._count_subscriptions()
        self._hear_status_clients()
        if self._door is not None:
            self._door.see_clients()
        if self.turnstile is None:  # which follows them in a thread of its own
            self._connections.take_in()
            self._status_connections.take_in()
        now_ns = self._clock.now_ns()
        while self._in_flight and self._in_flight[0][1].done:
            self._in_flight.popleft()
        held = bool(self._in_flight) and now_ns - self._in_flight[0][0] > STUCK_NS
        for connection in self._connections.held:
            unread = unread_bytes(connection)
            if unread == 0 or unread != connection.unread:
                connection.unread, connection.since_ns = unread, now_ns
            elif held and now_ns - connection.since_ns > STUCK_NS:
                self.disconnected += end_connection(connection)
                connection.since_ns = now_ns

    def _count_subscriptions(self) -> None:
        with contextlib.suppress(zmq.Again):
            for _ in range(MAX_HEARD):
                frame = self.frames.recv(zmq.NOBLOCK, copy=False)
                self._attribute(self._connections, frame)
                message = frame.bytes
                change = 1 if message[:1] == b"\x01" else -1
                if message[1:] == MEASURING:
                    self._measuring += change
                else:  # to all frames, or to any beginning of one
                    self._subscribers += change

    def _hear_status_clients(self) -> None:
        with contextlib.suppress(zmq.Again):
            for _ in range(MAX_HEARD):
                self._attribute(self._status_connections, self._status.recv(zmq.NOBLOCK, copy=False))

    def _attribute(self, connections: Connections, frame: zmq.Frame) -> None:
        """A client has subscribed, or taken that back."""
        if self.turnstile is not None and (known := user_of(frame)) is not None:
            connections.belongs(*known)
            connections.subscribed(known[0], 1 if frame.bytes[:1] == b"\x01" else -1)

    def statistics(self) -> dict[str, int]:
        """Messages sent, messages copied, subscribers now and how many of them read memory, clients let go of, notes missed."""
        return {
            "published": self.publications,
            "copied": self.copied,
            "subscribers": self.subscribers,
            "in_memory": self._door.clients if self._door else 0,
            "disconnected": self.disconnected,
            **({} if self.turnstile is None else self.turnstile.statistics()),
            "notes_missed": self._door.missed if self._door else 0,
        }

    def close(self) -> None:
        """Give the last messages 200 ms to leave, then close the sockets."""
        self._clock_responder.close()
        if self._door is not None:
            self._door.close()
        self._close_sockets(linger_ms=LINGER_MS)
        if self.endpoint.frames.startswith("ipc://"):
            for address in (self.endpoint.frames, self.endpoint.status, self.endpoint.clock):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(address.removeprefix("ipc://"))
        self._lock.close()

    def _close_sockets(self, linger_ms: int) -> None:
        for socket, connections in self._bound:
            socket.disable_monitor()
            if self.turnstile is None:
                connections.monitor.close(linger=0)
            socket.close(linger=linger_ms)
        self._context.term()  # the turnstile's thread wakes and closes its own
        if self.turnstile is not None:
            self.turnstile.join()
