"""A client's side: the newest frame wins, and the client says for itself how old its picture is."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import zmq

from calib.clock import OneWay
from stream.admission import authenticate, client_keys
from stream.clock_exchange import ClockFollower
from stream.endpoint import Endpoint, choose_keys, parse_endpoint
from stream.errors import EndpointError, WireError
from stream.frame import Reason, State
from stream.handshake import Handshake
from stream.memory_reader import IN_ORDER, MemoryReader
from stream.timing import NS_PER_MS, NS_PER_S, Clock, MonotonicClock, Stage
from stream.wire import MEASURING, Message, unpack, unpack_status

NO_SIGNAL_AFTER_NS = 700 * NS_PER_MS
"""Silence on both endpoints that means the publisher is gone: seven missed heartbeats."""
STALE_AFTER_NS = 500 * NS_PER_MS
"""And two periods, but at least 100 ms, on top: a held image is marked UNCHANGED by the first repeat after 0.5 s,
which must not be preceded by a flash of STALE."""
RECONNECT_MS = 50
FRAMES_POLL_MS = 100
HEARTBEAT_TTL_MS = 5000
"""Asks the publisher's side to drop this connection when nothing was heard from it for so long."""


@dataclass(frozen=True)
class Shown:
    """What a client must show of its picture at this instant."""

    state: State
    reason: Reason = Reason.NONE
    age_ms: float = 0.0
    """Age of the picture: since its frame was due; for NO_SIGNAL, since anything was heard."""
    why: str = ""
    """For NO_SIGNAL: why a publisher that answers is not heard or cannot be read, for people; empty where that is not known."""


class Subscriber:
    """Receives one stream. Not thread-safe; use one per thread. Reconnects by itself.

    Args:
        endpoint: As `parse_endpoint` takes it, or an `Endpoint`.
        newest_only: Keep the newest unread frame only (ZMQ_CONFLATE); False keeps up to `queue` frames.
        queue: Frames kept unread when not `newest_only`.
        memory: Read the frames out of the publisher's own memory, on its host; the heartbeat comes over the wire all the same.
        measuring: Tell the publisher that this is its measuring client, for which a replay waits.
        check_crc: Check the planes' CRCs where the publisher sends them.
        clock: The clock that ages are measured with.
        follow_clock: Exchange stamps with the publisher's clock four times a second, so that `one_way` knows latencies across
            hosts. On the publisher's own host there is one clock for all, and nothing to follow.
        context: The ZeroMQ context to use; None for one of its own.
        server_key: The publisher's public key (40 characters, or its file), for an address with CURVE. An `Endpoint` says both.
        key: Label of one's own key pair there; `main` where nothing says so (`contrastream keys new`).

    Raises:
        EndpointError: As `parse_endpoint`, or `memory` is wanted of an endpoint that has none, or the publisher's key is missing.
        KeyFileError: A key is not there or not as it must be.
    """

    def __init__(
        self,
        endpoint: str | Endpoint | None = None,
        *,
        newest_only: bool = True,
        queue: int = 64,
        memory: bool = False,
        measuring: bool = False,
        check_crc: bool = True,
        clock: Clock | None = None,
        follow_clock: bool = False,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        server_key: str | None = None,
        key: str | None = None,
    ) -> None:
        if not isinstance(endpoint, Endpoint):
            endpoint = parse_endpoint(choose_keys(endpoint, key=key, server=server_key))
        self.endpoint = endpoint
        self._keys = client_keys(self.endpoint.curve)
        self._clock = clock or MonotonicClock()
        at = self.endpoint.memory
        if memory and at is None:
            raise EndpointError(
                f"shared memory needs a publisher on this host, by name or ipc:///path, got {self.endpoint.text}"
            )
        self._own_context = context is None
        self._context = context or zmq.Context()
        self._poller = zmq.Poller()
        self._memory: MemoryReader | None = None
        self._memory_fd: int | None = None
        self._frames: zmq.Socket[bytes] | None = None
        if memory:
            self._memory = MemoryReader(str(at), self._clock, newest_only=newest_only, measuring=measuring)
        else:
            self._frames = self._socket(self.endpoint.frames, newest_only, queue)
            self._poller.register(self._frames, zmq.POLLIN)
            if measuring:
                self._frames.setsockopt(zmq.SUBSCRIBE, MEASURING)
        self._handshake: Handshake | None = None
        self._status = self._socket(self.endpoint.status, True, 1, watched=True)
        self._poller.register(self._status, zmq.POLLIN)
        if self._handshake is not None:
            self._poller.register(self._handshake.monitor, zmq.POLLIN)
        self.clock: ClockFollower | None = None
        """What is known of the publisher's clock, where it is followed."""
        if follow_clock:
            self.clock = ClockFollower(self.endpoint.clock, self._clock, self._context, keys=self._keys)
            self._poller.register(self.clock.socket, zmq.POLLIN)
        self._check_crc = check_crc
        self.status: dict[str, Any] | None = None
        """The last heartbeat."""
        self.latest: Message | None = None
        """The last frame."""
        self._heard_ns: int | None = None
        self._status_ns = 0
        self.received_ns = 0
        """When the last frame was received."""
        self._received = 0
        self._lost = 0
        self._refused = 0
        self.refusal = ""
        """Why the last frame was refused: another version, or no message of ours; empty where it was not."""
        self._streams = 0

    def _socket(
        self, address: str, newest_only: bool, queue: int, *, watched: bool = False
    ) -> "zmq.Socket[bytes]":
        socket = self._context.socket(zmq.SUB)
        socket.linger = 0
        authenticate(socket, self._keys)
        if newest_only:
            socket.setsockopt(zmq.CONFLATE, 1)
        socket.setsockopt(zmq.RCVHWM, queue)
        socket.setsockopt(zmq.IPV6, address.startswith("tcp://["))
        socket.setsockopt(zmq.RECONNECT_IVL, RECONNECT_MS)
        socket.setsockopt(zmq.RECONNECT_IVL_MAX, 400)
        socket.setsockopt(zmq.HEARTBEAT_IVL, 1000)
        socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, HEARTBEAT_TTL_MS)
        socket.setsockopt(zmq.HEARTBEAT_TTL, HEARTBEAT_TTL_MS)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        if watched and address.startswith("tcp://"):
            self._handshake = Handshake(socket, self._clock, keys=self._keys is not None)
        socket.connect(address)
        return socket

    def poll(self, timeout_ms: int = 0) -> Message | None:
        """Wait for a frame, taking in heartbeats on the way.

        Args:
            timeout_ms: How long to wait at most; a heartbeat ends the wait early, so that the caller can
                show a new state, and so does the publisher's clock where it is followed.

        Returns:
            The frame, its planes still in the message's bytes; None when none came.

        Raises:
            EndpointError: Torn reads of memory cannot be told on this processor, since the publisher sends no CRC.
        """
        if self.clock is not None:
            self.clock.ask()
            timeout_ms = min(timeout_ms, self.clock.due_ms())
        if self._memory is not None:
            timeout_ms = self._follow_memory(self._memory, timeout_ms)
        ready = dict(self._poller.poll(timeout_ms))
        if self.clock is not None and self.clock.socket in ready:
            self.clock.hear()
        if self._handshake is not None and self._handshake.monitor in ready:
            self._handshake.take_in()
        if self._status in ready:
            self._take_status()
        if self._frames in ready or self._memory_fd in ready:
            return self._take_frame()
        return None

    def _follow_memory(self, memory: MemoryReader, timeout_ms: int) -> int:
        """Wait on the connection there is now; without one, wait no longer than until the next attempt."""
        descriptor = memory.fileno()
        if descriptor != self._memory_fd:
            if self._memory_fd is not None:
                self._poller.unregister(self._memory_fd)
            if descriptor is not None:
                self._poller.register(descriptor, zmq.POLLIN)
            self._memory_fd = descriptor
        return timeout_ms if descriptor is not None else min(timeout_ms, RECONNECT_MS)

    def has_more(self) -> bool:
        """Whether a frame lies unread."""
        if self._memory is not None:
            return self._memory.has_more()
        assert self._frames is not None
        return bool(self._frames.poll(0))

    def _take_status(self) -> None:
        data = self._status.recv(zmq.NOBLOCK)
        try:
            self.status = unpack_status(data)
        except WireError:
            self._refused += 1
            return
        self._heard_ns = self._status_ns = self._clock.now_ns()

    def _take_frame(self) -> Message | None:
        try:
            data = self._next_bytes()
            if data is None:
                return None
            now_ns = self._clock.now_ns()
            message = unpack(data, check_crc=self._check_crc)
        except WireError as error:
            self._refused += 1
            self.refusal = str(error)
            return None
        if self._memory is not None and not IN_ORDER and message.header.crc is None:
            raise EndpointError(
                "needed the planes' CRCs to read memory on this processor, got none; start the publisher with --crc"
            )
        previous = self.latest.header if self.latest is not None else None
        if previous is None or previous.stream != message.header.stream:
            self._streams += 1
            if previous is not None and self.clock is not None:
                self.clock.forget()  # another publisher, perhaps on another host
        else:
            self._lost += max(0, message.header.publication - previous.publication - 1)
        self._received += 1
        self.refusal = ""
        self.latest = message
        self._heard_ns = self.received_ns = now_ns
        return message

    def _next_bytes(self) -> memoryview | None:
        if self._memory is not None:
            return self._memory.receive()
        assert self._frames is not None
        return self._frames.recv(zmq.NOBLOCK, copy=False).buffer

    def shown_state(self, now_ns: int | None = None) -> Shown:
        """What to show now. Call it on a timer, not only when a frame comes."""
        now_ns = self._clock.now_ns() if now_ns is None else now_ns
        if self._heard_ns is None or now_ns - self._heard_ns > NO_SIGNAL_AFTER_NS:
            silent_ns = 0 if self._heard_ns is None else now_ns - self._heard_ns
            why = "" if self._handshake is None else self._handshake.why()
            return Shown(State.NO_SIGNAL, age_ms=silent_ns / NS_PER_MS, why=why or self.refusal)
        said = self.status or {}
        if self.latest is None and self.refusal:
            return Shown(State.NO_SIGNAL, why=self.refusal)  # a heartbeat is heard, and no frame can be read
        if self.latest is None:
            return Shown(
                State(said.get("state_code", State.PASSTHROUGH)),
                Reason(said.get("reason_code", Reason.STARTING)),
                float(said.get("age_ms", 0.0)),
            )
        header = self.latest.header
        age_ns = now_ns - header.stamp_ns(Stage.DUE)
        newer = self._status_ns > self.received_ns
        of_another = said.get("stream") not in (None, header.stream.hex())
        if newer and (said.get("state_code") == State.STALE or of_another):
            # The frame may also be that of a publisher which is gone, while the next one has not sent any yet.
            return Shown(State.STALE, age_ms=age_ns / NS_PER_MS)
        if header.state is State.UNCHANGED:
            held_ns = now_ns - self.received_ns + header.age_ms * NS_PER_MS
            return Shown(State.UNCHANGED, age_ms=held_ns / NS_PER_MS)
        period_ns = NS_PER_S / header.rate_hz if header.rate_hz > 0 else 0.0
        margin_ns = max(2 * period_ns, 100 * NS_PER_MS)
        if now_ns - self.received_ns > max(STALE_AFTER_NS, 3 * period_ns) + margin_ns:
            return Shown(State.STALE, age_ms=age_ns / NS_PER_MS)
        return Shown(header.state, header.reason, age_ns / NS_PER_MS)

    def one_way(self, message: Message, stage: Stage = Stage.DUE) -> OneWay | None:
        """How long the newest frame took from one of its stages to here, in ms, with its uncertainty.

        Args:
            message: The frame that `poll` returned last.
            stage: From where; `Stage.DUE` is end to end.

        Returns:
            None where the publisher's clock is not followed or not known yet, or the frame has not passed the stage.
            A latency whose uncertainty is larger than itself is no number: `OneWay.shown_ms` is then None.
        """
        stamp_ns = message.header.stamp_ns(stage)
        if self.clock is None or stamp_ns == 0:
            return None
        return self.clock.one_way(stamp_ns, self.received_ns)

    def statistics(self) -> dict[str, int]:
        """Frames received, lost (gaps in the publication numbers; of them overtaken in memory), refused, publishers seen."""
        return {
            "received": self._received,
            "lost": self._lost,
            "overtaken": self._memory.overtaken if self._memory else 0,
            "refused": self._refused,
            "publishers": self._streams,
        }

    def close(self) -> None:
        """Close the sockets; may be called twice."""
        if self._frames is not None:
            self._frames.close()
        if self._memory is not None:
            self._memory.close()
        if self._handshake is not None and not self._status.closed:
            self._handshake.close()
        self._status.close()
        if self.clock is not None:
            self.clock.close()
        if self._own_context:
            self._context.term()


def frames(
    endpoint: str | None = None, *, memory: bool = False, wait_s: float | None = None
) -> Iterator[Message]:
    """A stream's frames, the newest at each step: `for frame in frames("main")`.

    Args:
        endpoint: As `parse_endpoint` takes it; None for this host's default stream.
        memory: Read the publisher's shared memory, on its host.
        wait_s: End when no frame has come for so long; None waits for ever.

    Yields:
        Messages; `frame.live`, and where `frame.header.state` is SYNTHETIC `frame.synthetic` and `frame.attention`, all of one
        frame. Ends when the publisher says that it has ended.

    Raises:
        EndpointError: As `Subscriber`.
        WireError: The publisher speaks another version.
    """
    subscriber = Subscriber(endpoint, memory=memory)
    clock = MonotonicClock()
    since_ns = clock.now_ns()
    try:
        while True:
            if (message := subscriber.poll(FRAMES_POLL_MS)) is not None:
                since_ns = clock.now_ns()
                yield message
                continue
            if subscriber.latest is None and subscriber.refusal:
                raise WireError(subscriber.refusal)
            ended = subscriber.status is not None and subscriber.status.get("ended")
            silent_ns = clock.now_ns() - since_ns
            if (ended and not subscriber.has_more()) or (
                wait_s is not None and silent_ns > wait_s * NS_PER_S
            ):
                return
    finally:
        subscriber.close()
