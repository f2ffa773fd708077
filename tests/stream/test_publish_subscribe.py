"""Publisher and subscriber over real sockets, judged by the bytes that came."""

import contextlib
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from stream.connections import MAX_CONNECTIONS, MAX_SUBSCRIPTIONS
from stream.endpoint import Endpoint, parse_endpoint
from stream.errors import EndpointError
from stream.frame import FrameFormat, Plane, Reason, State
from stream.outgoing import Grabbed, Inferred, Outgoing
from stream.publish import SEND_QUEUE, Publisher
from stream.ring import Ring
from stream.subscribe import Shown, Subscriber, frames
from stream.timing import NS_PER_MS, FakeClock
from stream.wire import MAGIC, Message

FORMAT = FrameFormat(256, 320, 12)  # above 64 KiB, below which pyzmq copies although told not to
ALL = Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION
PATIENCE_S = 30.0


def until(condition: Callable[[], bool], what: str) -> None:
    """Wait for something that another thread or process does; fails when it never comes."""
    over = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < over, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.002)


class Stream:
    """A publisher with its ring, and frames whose pixels tell their number."""

    def __init__(
        self, endpoint: str | Endpoint, clock: FakeClock, *, slots: int = 16, **options: Any
    ) -> None:
        address = parse_endpoint(endpoint) if isinstance(endpoint, str) else endpoint
        self.clock = clock
        self.ring = Ring(FORMAT, slots)
        self.publisher = Publisher(address, clock, **options)
        self.sequence = 0

    def send(self, state: State = State.SYNTHETIC, reason: Reason = Reason.NONE, *, age_ms: int = 0) -> None:
        """Publish the next frame as the guard does."""
        slot = self.ring.grant()
        assert slot is not None, self.ring.statistics()
        view = self.ring.slots[slot]
        view.live[:] = self.sequence % 4000
        view.synthetic[:] = (self.sequence + 1) % 4000
        view.attention[:] = self.sequence % 251
        self.ring.fill(slot)
        now_ns = self.clock.now_ns()
        out = Outgoing(Grabbed(slot, self.sequence, now_ns, now_ns), None, state=state, reason=reason)
        out.age_ms = age_ms
        if state is State.SYNTHETIC:
            out.planes = ALL
            out.result = Inferred(slot, 1, now_ns, now_ns, True)
        self.publisher.publish(self.ring, out)
        self.ring.release(slot)
        self.sequence += 1

    def heartbeat(self, state: State, **fields: Any) -> None:
        """Say how the stream is doing."""
        self.publisher.heartbeat({"state_code": int(state), "reason_code": 0, "age_ms": 0.0, **fields})

    def wait_for_subscribers(self, count: int) -> None:
        def seen() -> bool:
            self.publisher.see_clients()
            return self.publisher.subscribers == count

        until(seen, f"{count} subscribers")

    def wait_until_idle(self) -> None:
        def idle() -> bool:
            self.publisher.see_clients()
            return self.ring.idle()

        until(idle, "every slot to come back")

    def close(self) -> None:
        self.publisher.close()
        self.ring.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An ipc endpoint with a short path, whatever the test is called."""
    return f"ipc://{tmp_path_factory.mktemp('s')}/s"


@pytest.fixture
def publish(clock: FakeClock, address: str) -> Iterator[Callable[..., Stream]]:
    """Starts streams and closes them."""
    streams: list[Stream] = []

    def start(endpoint: str | Endpoint = address, **options: Any) -> Stream:
        streams.append(Stream(endpoint, clock, **options))
        return streams[-1]

    yield start
    for stream in streams:
        stream.close()


@pytest.fixture
def subscribe(clock: FakeClock, address: str) -> Iterator[Callable[..., Subscriber]]:
    """Starts subscribers and closes them."""
    with contextlib.ExitStack() as closing:

        def start(endpoint: str | Endpoint = address, **options: Any) -> Subscriber:
            return closing.enter_context(contextlib.closing(Subscriber(endpoint, clock=clock, **options)))

        yield start


def receive(subscriber: Subscriber) -> Message:
    """The next frame, waited for."""
    over = time.monotonic() + PATIENCE_S
    while (message := subscriber.poll(100)) is None:
        assert time.monotonic() < over, "no frame came"
    return message


def hear_heartbeat(stream: Stream, subscriber: Subscriber, state: State, /, **fields: Any) -> None:
    """Send heartbeats until the subscriber has this one; frames on the way are taken in too."""
    mark = {"mark": time.monotonic_ns()}

    def heard() -> bool:
        stream.heartbeat(state, **mark, **fields)
        subscriber.poll(20)
        return subscriber.status is not None and subscriber.status.get("mark") == mark["mark"]

    until(heard, "a heartbeat")


# Bytes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["ipc", "tcp"])
@pytest.mark.parametrize("crc", [False, True], ids=["plain", "crc"])
def test_a_client_receives_what_lies_in_the_slot(
    publish: Callable[..., Stream],
    subscribe: Callable[..., Subscriber],
    address: str,
    transport: str,
    crc: bool,
) -> None:
    where = address if transport == "ipc" else f"tcp://127.0.0.1:{free_port()}"
    stream, subscriber = publish(where, crc=crc, rate_hz=15.0), subscribe(where, newest_only=False)
    stream.wait_for_subscribers(1)
    stream.sequence = 1234
    stream.send()
    message = receive(subscriber)
    header = message.header
    assert (header.sequence, header.publication, header.state) == (1234, 0, State.SYNTHETIC)
    assert header.stream == stream.publisher.stream
    assert header.publisher_pid == os.getpid()
    assert header.rate_hz == 15.0
    assert (header.crc is not None) == crc
    assert header.frame_format == FORMAT
    assert message.synthetic is not None
    assert message.attention is not None
    assert np.unique(message.live).tolist() == [1234]
    assert np.unique(message.synthetic).tolist() == [1235]
    assert np.unique(message.attention).tolist() == [1234 % 251]


def test_a_passthrough_carries_the_live_plane_only(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream, subscriber = publish(), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    stream.send(State.PASSTHROUGH, Reason.ENGINE_LOST)
    message = receive(subscriber)
    assert message.planes.keys() == {Plane.LIVE}
    assert message.header.reason is Reason.ENGINE_LOST
    assert len(message.raw) == 512 + 256 * 320 * 2


def test_what_a_client_holds_does_not_change_when_its_slot_is_used_again(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream, subscriber = publish(slots=6), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    held = []
    for _ in range(20):
        stream.send()
        held.append(receive(subscriber))
        stream.wait_until_idle()
    for number, message in enumerate(held):
        assert np.unique(message.live).tolist() == [number]


# Newest, every one, lost --------------------------------------------------------------------------------------


def test_a_queue_gets_every_publication_in_order(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream, subscriber = publish(), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    received = []
    for _ in range(100):
        stream.send()
        received.append(receive(subscriber).header.publication)
    assert received == list(range(100))
    assert subscriber.statistics() == {
        "received": 100,
        "lost": 0,
        "overtaken": 0,
        "refused": 0,
        "publishers": 1,
    }
    assert stream.publisher.statistics()["published"] == 100


def test_the_newest_frame_wins(publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]) -> None:
    stream, slow, witness = publish(), subscribe(), subscribe(newest_only=False)
    stream.wait_for_subscribers(2)
    for _ in range(30):
        stream.send()
        receive(witness)  # so that no send queue overflows
    stream.wait_until_idle()
    received = [receive(slow).header.sequence]
    while received[-1] != 29:
        received.append(receive(slow).header.sequence)
    assert len(received) < 30
    statistics = slow.statistics()
    assert statistics["received"] == len(received)
    assert statistics["lost"] == 29 - received[0] - (len(received) - 1)


def test_a_publisher_of_another_version_is_no_signal_with_the_reason(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream, subscriber = publish(), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    stream.publisher.frames.send(MAGIC + struct.pack("<H", 2) + bytes(182))
    until(lambda: subscriber.poll(20) is None and subscriber.statistics()["refused"] == 1, "the refusal")
    stream.publisher.heartbeat({})
    until(lambda: subscriber.poll(20) is None and subscriber.status is not None, "the heartbeat")
    shown = subscriber.shown_state()
    assert (shown.state, shown.why) == (
        State.NO_SIGNAL,
        "needed a message of version 1.x, got 2; update the older side",
    )
    stream.send()
    receive(subscriber)
    assert subscriber.shown_state().why == ""


def test_other_bytes_are_counted_and_passed_over(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream, subscriber = publish(), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    stream.publisher.frames.send(b"no frame of ours")
    until(lambda: subscriber.poll(20) is None and subscriber.statistics()["refused"] == 1, "the refusal")
    stream.send()
    assert receive(subscriber).header.publication == 0


def test_subscribers_are_counted_as_they_come_and_go(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream = publish()
    first, second = subscribe(), subscribe()
    stream.wait_for_subscribers(2)
    first.close()
    stream.wait_for_subscribers(1)
    second.close()
    second.close()
    stream.wait_for_subscribers(0)


def test_a_message_is_copied_when_few_slots_are_free(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream, subscriber = publish(slots=8), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    for free, copied in ((4, 0), (3, 1)):
        held = [stream.ring.grant() for _ in range(8 - 1 - free)]
        assert len(held) == 7 - free
        stream.send()
        assert stream.publisher.copied == copied
        assert np.unique(receive(subscriber).live).tolist() == [stream.sequence - 1]
        stream.ring.revoke_grants()
        stream.wait_until_idle()


# What a client shows ------------------------------------------------------------------------------------------


def test_nothing_heard_is_no_signal(subscribe: Callable[..., Subscriber], clock: FakeClock) -> None:
    subscriber = subscribe()
    assert subscriber.poll() is None
    assert subscriber.shown_state() == Shown(State.NO_SIGNAL)
    clock.advance_ms(5_000.0)
    assert subscriber.shown_state().state is State.NO_SIGNAL


def test_before_the_first_frame_the_heartbeat_says_the_state(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream, subscriber = publish(), subscribe()
    hear_heartbeat(stream, subscriber, State.PASSTHROUGH, reason_code=int(Reason.STARTING))
    assert subscriber.shown_state() == Shown(State.PASSTHROUGH, Reason.STARTING)


def test_a_silent_publisher_is_no_signal_within_a_second(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber], clock: FakeClock
) -> None:
    stream, subscriber = publish(rate_hz=30.0), subscribe()
    stream.wait_for_subscribers(1)
    stream.send()
    receive(subscriber)
    assert subscriber.shown_state().state is State.SYNTHETIC
    clock.advance_ms(700.0)
    assert subscriber.shown_state().state is State.STALE
    clock.advance_ms(1.0)
    assert subscriber.shown_state() == Shown(State.NO_SIGNAL, age_ms=701.0)


def test_the_age_of_a_picture_counts_from_when_its_frame_was_due(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber], clock: FakeClock
) -> None:
    stream, subscriber = publish(rate_hz=30.0), subscribe()
    stream.wait_for_subscribers(1)
    stream.send(State.PASSTHROUGH, Reason.DEADLINE)
    clock.advance_ms(12.0)
    receive(subscriber)
    clock.advance_ms(30.0)
    assert subscriber.shown_state() == Shown(State.PASSTHROUGH, Reason.DEADLINE, 42.0)


def test_a_stopped_source_is_stale_as_soon_as_the_heartbeat_says_so(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber], clock: FakeClock
) -> None:
    stream, subscriber = publish(rate_hz=30.0), subscribe()
    stream.wait_for_subscribers(1)
    stream.send()
    receive(subscriber)
    clock.advance_ms(510.0)
    hear_heartbeat(stream, subscriber, State.STALE)
    assert subscriber.shown_state() == Shown(State.STALE, age_ms=510.0)
    stream.send()
    receive(subscriber)
    assert subscriber.shown_state().state is State.SYNTHETIC


@pytest.mark.parametrize(
    ("rate_hz", "fresh_ms", "stale_ms"), [(0.0, 590.0, 610.0), (30.0, 590.0, 610.0), (7.5, 760.0, 770.0)]
)
def test_frames_that_do_not_come_are_stale_though_the_heartbeat_goes_on(
    publish: Callable[..., Stream],
    subscribe: Callable[..., Subscriber],
    clock: FakeClock,
    rate_hz: float,
    fresh_ms: float,
    stale_ms: float,
) -> None:
    stream, subscriber = publish(rate_hz=rate_hz), subscribe()
    stream.wait_for_subscribers(1)
    stream.send()
    receive(subscriber)
    clock.advance_ms(fresh_ms)
    hear_heartbeat(stream, subscriber, State.SYNTHETIC)
    assert subscriber.shown_state().state is State.SYNTHETIC
    clock.advance_ms(stale_ms - fresh_ms)
    assert subscriber.shown_state().state is State.STALE


@pytest.mark.parametrize("rate_hz", [60.0, 30.0, 25.0, 15.0, 10.0, 7.5])
def test_a_held_image_goes_from_live_to_unchanged_without_a_flash_of_stale(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber], clock: FakeClock, rate_hz: float
) -> None:
    stream, subscriber = publish(rate_hz=rate_hz), subscribe()
    stream.wait_for_subscribers(1)
    stream.send()
    receive(subscriber)
    period_ms = 1000.0 / rate_hz
    first_marked_ms = period_ms * -(-500.0 // period_ms)
    clock.advance_ms(first_marked_ms + 20.0)  # the way to the client
    hear_heartbeat(stream, subscriber, State.SYNTHETIC)
    assert subscriber.shown_state().state is State.SYNTHETIC
    stream.send(State.UNCHANGED, age_ms=round(first_marked_ms))
    receive(subscriber)
    clock.advance_ms(100.0)
    shown = subscriber.shown_state()
    assert shown == Shown(State.UNCHANGED, age_ms=round(first_marked_ms) + 100.0)


# Who may publish where ----------------------------------------------------------------------------------------


def free_port() -> int:
    """A TCP port whose two followers are free too, at this instant."""
    for _ in range(100):
        with socket.socket() as first:
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            if port > 65533:
                continue
            with contextlib.suppress(OSError), socket.socket() as second, socket.socket() as third:
                second.bind(("127.0.0.1", port + 1))
                third.bind(("127.0.0.1", port + 2))
                return port
    raise AssertionError("no three free ports in a row")


def test_a_second_publisher_on_an_endpoint_is_refused_and_harms_nothing(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber], clock: FakeClock
) -> None:
    stream, subscriber = publish(), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    with pytest.raises(EndpointError, match=f"in use by process {os.getpid()}; stop it or choose another"):
        Publisher(stream.publisher.endpoint, clock)
    stream.send()
    assert receive(subscriber).header.sequence == 0


@pytest.mark.parametrize("taken", ["frames", "status"])
def test_a_loopback_port_in_use_is_refused(clock: FakeClock, taken: str) -> None:
    port = free_port()
    endpoint = parse_endpoint(f"tcp://127.0.0.1:{port}")
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", port + (taken == "status")))
        holder.listen()
        with pytest.raises(
            EndpointError,
            match=f"needed a free address, got {getattr(endpoint, taken)}: Address already in use",
        ):
            Publisher(endpoint, clock)


@pytest.mark.skipif(not socket.has_ipv6 or not Path("/proc/net/if_inet6").exists(), reason="no IPv6 here")
def test_the_ipv6_loopback_carries_frames(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    where = f"tcp://[::1]:{free_port()}"
    stream, subscriber = publish(where), subscribe(where, newest_only=False)
    stream.wait_for_subscribers(1)
    stream.send()
    assert receive(subscriber).header.sequence == 0


def test_a_stranger_s_giant_message_is_hung_up_on_on_loopback_too(clock: FakeClock) -> None:
    endpoint = parse_endpoint(f"tcp://127.0.0.1:{free_port()}")
    publisher = Publisher(endpoint, clock)
    try:
        for address in (endpoint.frames, endpoint.status, endpoint.clock):
            with socket.create_connection(
                ("127.0.0.1", int(address.rpartition(":")[2])), timeout=30.0
            ) as peer:
                peer.sendall(b"\xff" + bytes(7) + b"\x01\x7f\x03\x00NULL" + bytes(16 + 32))
                kind = b"DEALER" if address == endpoint.clock else b"SUB"
                said = b"\x05READY\x0bSocket-Type" + struct.pack(">I", len(kind)) + kind
                peer.sendall(b"\x04" + bytes((len(said),)) + said)
                peer.sendall(b"\x02" + struct.pack(">Q", 1 << 28))
                # Its greeting and its READY, then the end: not one byte of the message is waited for.
                with contextlib.suppress(ConnectionResetError):
                    while peer.recv(4096):
                        pass
    finally:
        publisher.close()


def session(address: str) -> socket.socket:
    """A stranger's session at a socket without CURVE, its handshake over; ZMTP 3.0 by hand.

    Raises:
        ConnectionError: It is hung up on before that.
    """
    said = b"\x05READY\x0bSocket-Type\0\0\0\x03SUB"
    greeting = b"\xff" + bytes(7) + b"\x01\x7f\x03\0NULL" + bytes(16 + 32)
    with contextlib.ExitStack() as undo:
        at = ("127.0.0.1", int(address.rpartition(":")[2]))
        peer = undo.enter_context(socket.create_connection(at, timeout=PATIENCE_S))
        peer.sendall(greeting + b"\x04" + bytes((len(said),)) + said)
        heard = b""
        while len(heard) < 64 + 27:  # the publisher's greeting and its READY
            if not (more := peer.recv(4096)):
                raise ConnectionResetError
            heard += more
        undo.pop_all()
    return peer


def subscribe_to(peer: socket.socket, topic: bytes) -> None:
    peer.sendall(bytes((0, 1 + len(topic), 1)) + topic)


def test_a_flood_of_whole_sessions_on_loopback_costs_64_connections_and_ends_no_client(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    endpoint = parse_endpoint(f"tcp://127.0.0.1:{free_port()}")
    stream, subscriber = publish(endpoint), subscribe(endpoint.text, newest_only=False)
    stream.wait_for_subscribers(1)
    for address in (endpoint.frames, endpoint.status):
        before = len(os.listdir("/proc/self/fd"))
        strangers = []
        for _ in range(3 * MAX_CONNECTIONS):
            with contextlib.suppress(ConnectionError, TimeoutError):
                strangers.append(session(address))
                subscribe_to(strangers[-1], b"")
            stream.publisher.see_clients()
        limit = before + len(strangers) + MAX_CONNECTIONS + 2
        until(lambda limit=limit: len(os.listdir("/proc/self/fd")) <= limit, "those beyond 64 to be ended")
        for stranger in strangers:
            stranger.close()
    assert stream.publisher.statistics()["refused"] >= 2 * MAX_CONNECTIONS
    stream.send()
    assert receive(subscriber).header.sequence == 0  # who was there first is there still
    assert subscriber.statistics()["publishers"] == 1


def test_a_stranger_that_subscribes_without_end_is_ended(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    # libzmq keeps a subscription byte by byte and files it in the thread that publishes: 5 MB of them cost 230 MiB and 2 s.
    endpoint = parse_endpoint(f"tcp://127.0.0.1:{free_port()}")
    stream, subscriber = publish(endpoint), subscribe(endpoint.text, newest_only=False)
    stream.wait_for_subscribers(1)
    for count, topic in (
        (10_000, 40),
        (MAX_SUBSCRIPTIONS + 1, 4),
    ):  # much at once; and too many, however small
        ended = stream.publisher.statistics()["talkers"]
        with session(endpoint.frames) as stranger, contextlib.suppress(ConnectionError):
            for number in range(count):
                subscribe_to(stranger, number.to_bytes(topic, "little"))

            def is_ended(ended: int = ended) -> bool:
                stream.publisher.see_clients()
                return stream.publisher.statistics()["talkers"] == ended + 1

            until(is_ended, "its end")
    stream.wait_for_subscribers(1)
    stream.send()
    assert receive(subscriber).header.sequence == 0


def test_a_closed_publisher_leaves_its_endpoint_free_and_nothing_in_the_folder(
    address: str, clock: FakeClock
) -> None:
    endpoint = parse_endpoint(address)
    assert endpoint.lock is not None
    for _ in range(2):
        stream = Stream(endpoint, clock)
        stream.close()
        assert list(endpoint.lock.parent.iterdir()) == []


def test_a_frame_of_a_publisher_that_is_gone_is_stale_when_the_next_one_is_heard(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber], clock: FakeClock
) -> None:
    stream, subscriber = publish(), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    stream.send()
    receive(subscriber)
    clock.advance_ms(1.0)
    hear_heartbeat(stream, subscriber, State.SYNTHETIC, stream=b"another publ.ish".hex())
    assert subscriber.shown_state().state is State.STALE


def test_a_measuring_client_is_told_from_others(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream = publish()
    other = subscribe()
    stream.wait_for_subscribers(1)
    assert stream.publisher.measuring == 0
    measuring = subscribe(newest_only=False, measuring=True)
    stream.wait_for_subscribers(2)

    def known() -> bool:
        stream.publisher.see_clients()
        return stream.publisher.measuring == 1

    until(known, "the measuring client")
    measuring.close()

    def gone() -> bool:
        stream.publisher.see_clients()
        return (stream.publisher.measuring, stream.publisher.subscribers) == (0, 1)

    until(gone, "the measuring client's end")
    other.close()


def test_a_subscriber_finds_the_next_publisher_by_itself(
    subscribe: Callable[..., Subscriber], address: str, clock: FakeClock
) -> None:
    subscriber = subscribe(newest_only=False)
    seen = []
    for _ in range(2):
        with contextlib.closing(Stream(address, clock)) as stream:

            def arrived(stream: Stream = stream) -> bool:
                stream.publisher.see_clients()
                subscriber.poll(5)  # a SUB subscribes anew only when its owner looks at it
                return stream.publisher.subscribers == 1

            until(arrived, "the subscriber")
            stream.send()
            seen.append(receive(subscriber).header)
    assert seen[0].stream != seen[1].stream
    assert [header.publication for header in seen] == [0, 0]
    assert subscriber.statistics() == {
        "received": 2,
        "lost": 0,
        "overtaken": 0,
        "refused": 0,
        "publishers": 2,
    }


# A client that does not read ----------------------------------------------------------------------------------


@contextlib.contextmanager
def stopped_client(stream: Stream, folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A client in a process of its own, subscribed and then stopped by a signal."""
    others = stream.publisher.subscribers
    client = subprocess.Popen(
        [sys.executable, "-m", "stream.measure", stream.publisher.endpoint.text, str(folder / "out.npz")],
        stdin=subprocess.PIPE,
    )
    try:
        stream.wait_for_subscribers(others + 1)
        client.send_signal(signal.SIGSTOP)
        yield client
    finally:
        client.kill()
        client.communicate()


def test_a_stopped_client_stops_nobody_is_let_go_and_gives_its_slots_back(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber], tmp_path: Path, clock: FakeClock
) -> None:
    stream, reader = publish(slots=24), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    with stopped_client(stream, tmp_path) as client:
        for _ in range(40):
            stream.send()
            assert receive(reader).header.sequence == stream.sequence - 1
        until(
            lambda: 1 <= stream.ring.statistics()["sending"] <= SEND_QUEUE + 2,
            "the stopped client to hold no more than its queue",
        )

        stream.publisher.see_clients()
        clock.advance_ms(4_900.0)
        stream.publisher.see_clients()
        assert stream.publisher.disconnected == 0
        clock.advance_ms(200.0)
        stream.publisher.see_clients()
        assert stream.publisher.disconnected == 1
        stream.wait_until_idle()
        stream.wait_for_subscribers(1)

        for _ in range(5):
            stream.send()
            assert receive(reader).header.sequence == stream.sequence - 1

        client.send_signal(signal.SIGCONT)
        stream.wait_for_subscribers(2)
    assert reader.statistics()["lost"] == 0


def test_a_client_that_reads_slowly_is_not_let_go(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber], clock: FakeClock
) -> None:
    stream, slow = publish(slots=24), subscribe(newest_only=False, queue=1)
    stream.wait_for_subscribers(1)
    for _ in range(12):
        stream.send()
    for _ in range(60):  # it reads two of a second, of which ten are sent: its socket is always full
        stream.publisher.see_clients()
        while slow.poll(100) is None:
            stream.send()  # the ones before were all dropped at a full socket
        for _ in range(5):
            stream.send()
            clock.advance_ms(100.0)
            time.sleep(
                0.002
            )  # this clock's time is not that of the threads that move the bytes: they need some too
            stream.publisher.see_clients()
    assert stream.publisher.disconnected == 0


def test_every_send_ends_when_the_context_does(address: str, clock: FakeClock, tmp_path: Path) -> None:
    stream = Stream(address, clock, slots=24)
    with stopped_client(stream, tmp_path):
        for _ in range(12):
            stream.send()
        assert not stream.ring.idle()
        start = time.monotonic()
        stream.close()
        assert time.monotonic() - start < PATIENCE_S
        until(stream.ring.idle, "every slot to come back")


def test_a_subscriber_in_a_context_of_the_callers_leaves_it_open(address: str, clock: FakeClock) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    Subscriber(address, clock=clock, context=context).close()
    assert not context.closed
    context.term()


def test_a_poll_waits_as_long_as_it_was_told(subscribe: Callable[..., Subscriber]) -> None:
    subscriber = subscribe()
    start = time.monotonic_ns()
    assert subscriber.poll(20) is None
    assert time.monotonic_ns() - start >= 19 * NS_PER_MS
    assert not subscriber.has_more()


def zmtp(address: str) -> socket.socket:
    """A bare peer: a SUB by ZMTP 3.0 (RFC 23), its handshake done."""
    peer = socket.socket(socket.AF_UNIX)
    peer.settimeout(5.0)
    peer.connect(address.removeprefix("ipc://"))
    peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32))
    ready = b"\x05READY\x0bSocket-Type\x00\x00\x00\x03SUB"
    peer.sendall(b"\x04" + bytes([len(ready)]) + ready)
    while b"READY" not in peer.recv(4096):
        pass
    return peer


def test_a_peer_that_gives_up_what_it_never_had_takes_nothing_from_the_others(
    publish: Callable[..., Stream], subscribe: Callable[..., Subscriber]
) -> None:
    stream, subscriber = publish(), subscribe(newest_only=False)
    stream.wait_for_subscribers(1)
    with zmtp(stream.publisher.endpoint.frames) as odd:
        odd.sendall(5 * b"\x00\x01\x00")  # unsubscribe from everything, five times

        def heard() -> bool:
            stream.publisher.see_clients()
            return stream.publisher.subscribers < 0

        until(heard, "the false count")
        for number in range(10):
            stream.send()
            assert receive(subscriber).header.publication == number


# A loop over frames --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [False, True], ids=["wire", "memory"])
def test_a_loop_over_frames_ends_with_the_stream(
    publish: Callable[..., Stream], address: str, memory: bool
) -> None:
    stream = publish()
    seen: list[int] = []

    def follow() -> None:
        for frame in frames(address, memory=memory):
            assert (frame.live == frame.header.sequence % 4000).all()
            seen.append(frame.header.sequence)

    following = threading.Thread(target=follow)
    following.start()
    stream.wait_for_subscribers(1)
    for number in range(5):
        stream.send()
        until(lambda number=number: number in seen, "the frame")  # type: ignore[misc]
    until(
        lambda: not following.is_alive() or bool(stream.heartbeat(State.PASSTHROUGH, ended=True)), "the end"
    )
    following.join(5.0)
    assert not following.is_alive()
    assert seen == list(range(5))


def test_a_loop_over_frames_ends_after_so_long_a_silence(address: str) -> None:
    assert list(frames(address, wait_s=0.2)) == []
