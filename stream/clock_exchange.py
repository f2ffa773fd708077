"""Exchanges of stamps between a publisher and its clients, from which `calib/clock.py` estimates the publisher's clock.

    client, DEALER                                      publisher, ROUTER
    magic, number, t1                       24 bytes -> t2 when it is read
    magic, number, t1, t2, t3               40 bytes <- t3 when it is answered

All little-endian: 8 bytes of magic, an unsigned number that the client chooses, signed stamps in nanoseconds. Whatever
else arrives is dropped. The publisher answers in a thread of its own, which sleeps until something arrives, holds a few
messages at most and answers so often and no more: whoever asks faster is not answered.
"""

import contextlib
import struct
import threading
from collections import deque

import numpy as np
import zmq
from jaxtyping import Int64

from calib.clock import LIMIT_MS, MIN_EXCHANGES, ClockEstimate, OneWay, estimate_clock, measure_clock
from calib.errors import CalibrationError
from calib.results import ClockResult
from stream.admission import authenticate, client_keys, open_turnstile, user_of
from stream.connections import Connections, bound_strangers
from stream.endpoint import Curve, Endpoint, parse_endpoint
from stream.errors import EndpointError, StreamError
from stream.keys import KeyPair
from stream.timing import NS_PER_MS, NS_PER_S, Clock, MonotonicClock

MAGIC = b"CSCLOCK1"
REQUEST = struct.Struct("<8sQq")
REPLY = struct.Struct("<8sQqqq")
MAX_ANSWERS_PER_S = 500
QUEUE = 16
MAX_BYTES = 512
"""Of a message; what is longer ends its connection. ZeroMQ's own handshake must fit too."""
KEPT = 240
"""Exchanges that a follower keeps: the last minute at four a second."""
QUICK = 2 * MIN_EXCHANGES
QUICK_NS = 20 * NS_PER_MS
SLOW_NS = 250 * NS_PER_MS


class ClockResponder:
    """The publisher's side.

    Args:
        address: Where to answer.
        clock: The clock of the frame path.
        curve: The publisher's keys; None for an address without CURVE.

    Raises:
        EndpointError: The address is in use or cannot be bound.
        KeyFileError: As `Admission`.
    """

    def __init__(self, address: str, clock: Clock, curve: Curve | None = None) -> None:
        self._clock = clock
        self._connections: Connections | None = None
        self.answered = 0
        self.refused = 0
        """Messages that were no request of ours, or came too fast."""
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._turnstile = open_turnstile(self._context, address, curve)
        socket = self._context.socket(zmq.ROUTER)
        socket.linger = 0
        socket.setsockopt(zmq.RCVHWM, QUEUE)
        socket.setsockopt(zmq.SNDHWM, QUEUE)
        bound_strangers(socket)
        if self._turnstile is not None:
            self._connections = self._turnstile.protect(socket)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        socket.setsockopt(zmq.IPV6, address.startswith("tcp://["))
        try:
            socket.bind(address)
        except zmq.ZMQError as error:
            socket.close(linger=0)
            self._context.term()
            raise EndpointError(
                f"needed a free address, got {address}: {error.strerror}; stop what uses it or choose another with "
                "--endpoint"
            ) from error
        self._thread = threading.Thread(target=self._answer, args=(socket,), name="clock", daemon=True)
        self._thread.start()

    def _answer(self, socket: "zmq.Socket[bytes]") -> None:
        second, answered = 0, 0
        with contextlib.suppress(zmq.ContextTerminated):
            while True:
                frames = socket.recv_multipart(copy=False)
                received_ns = self._clock.now_ns()
                parts = [frame.bytes for frame in frames]
                if not self._admits(frames[-1]):
                    self.refused += 1
                    continue
                if received_ns // NS_PER_S != second:
                    second, answered = received_ns // NS_PER_S, 0
                known = len(parts) == 2 and len(parts[1]) == REQUEST.size and parts[1].startswith(MAGIC)
                if not known or answered >= MAX_ANSWERS_PER_S:
                    self.refused += 1
                    continue
                _, number, sent_ns = REQUEST.unpack(parts[1])
                answer = REPLY.pack(MAGIC, number, sent_ns, received_ns, self._clock.now_ns())
                with contextlib.suppress(zmq.Again):
                    socket.send_multipart([parts[0], answer], zmq.NOBLOCK)
                    answered += 1
                    self.answered += 1
        socket.close(linger=0)

    def _admits(self, frame: zmq.Frame) -> bool:
        """Whether a request is of a client that may still ask; always without CURVE."""
        if self._turnstile is None or self._connections is None:
            return True
        known = user_of(frame)
        if known is None:
            return False
        self._connections.belongs(*known)
        return self._turnstile.admits(known[1])

    def close(self) -> None:
        """Stop answering; may be called twice."""
        self._context.term()  # wakes the threads, and waits until they have closed their sockets
        self._thread.join()


class ClockFollower:
    """A client's side: asks now and then, never waits, and always knows how well it knows.

    Args:
        address: The publisher's.
        clock: The client's clock.
        context: The ZeroMQ context to use.
        patient: Keep a request until a publisher is there, rather than not asking while there is none.
        keys: What `client_keys` gives for an address with CURVE.
    """

    def __init__(
        self,
        address: str,
        clock: Clock,
        context: "zmq.Context[zmq.Socket[bytes]]",
        *,
        patient: bool = False,
        keys: tuple[KeyPair, bytes] | None = None,
    ) -> None:
        self._clock = clock
        self.socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
        authenticate(self.socket, keys)
        self.socket.linger = 0
        self.socket.setsockopt(zmq.RCVHWM, QUEUE)
        self.socket.setsockopt(zmq.SNDHWM, 1)
        self.socket.setsockopt(zmq.MAXMSGSIZE, MAX_BYTES)
        self.socket.setsockopt(zmq.IPV6, address.startswith("tcp://["))
        self.socket.setsockopt(zmq.IMMEDIATE, not patient)
        self.socket.connect(address)
        self.sent = 0
        self._next_ns = 0
        self._open: deque[tuple[int, int]] = deque(maxlen=QUEUE)
        """Number and t1 of the requests that may still be answered."""
        self._stamps: deque[tuple[int, int, int, int]] = deque(maxlen=KEPT)
        self._estimate: ClockEstimate | None = None
        self._estimated = 0
        self.answered = 0
        self.contradiction = ""
        """Why there is no estimate although there are exchanges."""

    def ask(self, *, now: bool = False) -> None:
        """Send a request if one is due, or in any case; never waits."""
        now_ns = self._clock.now_ns()
        if now_ns < self._next_ns and not now:
            return
        self._next_ns = now_ns + (QUICK_NS if self.answered < QUICK else SLOW_NS)
        with contextlib.suppress(zmq.Again):
            sent_ns = self._clock.now_ns()
            self.socket.send(REQUEST.pack(MAGIC, self.sent, sent_ns), zmq.NOBLOCK)
            self._open.append((self.sent, sent_ns))
            self.sent += 1

    def due_ms(self) -> int:
        """Until the next request is due."""
        return max(0, (self._next_ns - self._clock.now_ns()) // NS_PER_MS)

    def hear(self) -> None:
        """Take in answers; never waits."""
        with contextlib.suppress(zmq.Again):
            while True:
                data = self.socket.recv(zmq.NOBLOCK)
                now_ns = self._clock.now_ns()
                if len(data) != REPLY.size or not data.startswith(MAGIC):
                    continue
                _, number, sent_ns, there_in_ns, there_out_ns = REPLY.unpack(data)
                if (number, sent_ns) not in self._open:
                    continue  # of another run, answered twice, or invented
                self._open.remove((number, sent_ns))
                self._stamps.append((sent_ns, there_in_ns, there_out_ns, now_ns))
                self.answered += 1

    def forget(self) -> None:
        """Begin anew, for instance with another publisher."""
        self._stamps.clear()
        self._open.clear()
        self._estimate, self._estimated, self.contradiction = None, self.answered, ""

    @property
    def stamps_ns(self) -> Int64[np.ndarray, "n 4"]:
        """The exchanges that are kept."""
        return np.array(self._stamps, np.int64).reshape(-1, 4)

    def estimate(self) -> ClockEstimate | None:
        """What is known of the publisher's clock; None while there are too few exchanges, or while they contradict each other.

        Made anew where there are at least four more exchanges than the last time.
        """
        stale = self._estimate is None or self.answered - self._estimated >= 4
        if len(self._stamps) >= MIN_EXCHANGES and stale and self.answered != self._estimated:
            self._estimated = self.answered
            try:
                self._estimate, self.contradiction = estimate_clock(self.stamps_ns), ""
            except CalibrationError as error:
                # A clock was set: what was exchanged before is worth nothing.
                self.forget()
                self.contradiction = str(error)
        return self._estimate

    def one_way(self, sent_there_ns: int, received_here_ns: int) -> OneWay | None:
        """A latency from the publisher to here with its uncertainty; None while the clock is not known."""
        known = self.estimate()
        return None if known is None else known.one_way(sent_there_ns, received_here_ns)

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()


def exchange_clocks(
    address: str,
    *,
    exchanges: int = 64,
    interval_ms: int = 20,
    wait_ms: int = 2000,
    clock: Clock | None = None,
    keys: tuple[KeyPair, bytes] | None = None,
) -> tuple[Int64[np.ndarray, "n 4"], int]:
    """Exchange stamps with a publisher, one after the other.

    Args:
        address: Its clock's address: `Endpoint.clock`.
        exchanges: How many are asked for, 240 at most.
        interval_ms: From one to the next.
        wait_ms: How long an answer is waited for.
        clock: This host's clock.
        keys: What `client_keys` gives for an address with CURVE.

    Returns:
        t1, t2, t3, t4 of each answered exchange, and how many were not answered.

    Raises:
        StreamError: Nobody answers there.
    """
    clock = clock or MonotonicClock()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    follower = ClockFollower(address, clock, context, patient=True, keys=keys)
    try:
        for index in range(exchanges):
            began_ns = clock.now_ns()
            follower.ask(now=True)
            follower.socket.poll(wait_ms)
            follower.hear()
            if index == 0 and not follower.answered:
                raise StreamError(
                    f"needed an answer of the publisher's clock, got none from {address} within {wait_ms / 1000:g} s; is "
                    "`contrastream run` of this version running there?"
                )
            if (left_ms := interval_ms - (clock.now_ns() - began_ns) // NS_PER_MS) > 0:
                follower.socket.poll(left_ms)
                follower.hear()
        return follower.stamps_ns, follower.sent - follower.answered
    finally:
        follower.close()
        context.term()


def measure_publisher_clock(
    endpoint: str | Endpoint | None = None,
    *,
    exchanges: int = 64,
    interval_ms: int = 20,
    limit_ms: float = LIMIT_MS,
) -> ClockResult:
    """The step `clock`: the publisher's clock against this host's.

    Args:
        endpoint: As `parse_endpoint` takes it.
        exchanges: How many, 240 at most; drift shows only over a long time, so more of them at a longer interval.
        interval_ms: From one to the next.
        limit_ms: The uncertainty above which no offset is given.

    Raises:
        StreamError: Nobody answers there, or not to this key.
        CalibrationError: Too few answers, or clocks that contradict themselves.
    """
    found = endpoint if isinstance(endpoint, Endpoint) else parse_endpoint(endpoint)
    stamps, lost = exchange_clocks(
        found.clock, exchanges=exchanges, interval_ms=interval_ms, keys=client_keys(found.curve)
    )
    return measure_clock(stamps, lost, limit_ms)
