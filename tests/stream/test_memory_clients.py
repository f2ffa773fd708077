"""Clients that read the ring's memory: real sockets and processes, judged by the pixels that came."""

import fcntl
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.control import format_to_json
from stream.endpoint import parse_endpoint
from stream.errors import EndpointError
from stream.frame import FrameFormat, Plane, State
from stream.measure import MeasuringClient
from stream.memory_door import MAX_CLIENTS, NOTE, NOTE_KIND, RING
from stream.outgoing import Grabbed, Inferred, Outgoing
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.publish import Publisher
from stream.ring import Ring
from stream.sources.options import SourceOptions
from stream.subscribe import Subscriber
from stream.timing import MonotonicClock
from stream.wire import HEADER_ROOM, Layout

FORMAT = FrameFormat(256, 320, 12)
ALL = Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION
PATIENCE_S = 30.0


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something that another thread or process does; fails when it never comes."""
    over = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < over, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.002)


class Stream:
    """A publisher with its ring, and frames whose pixels tell their number."""

    def __init__(self, endpoint: str, *, slots: int = 16, frame_format: FrameFormat = FORMAT) -> None:
        self.clock = MonotonicClock()
        self.publisher = Publisher(parse_endpoint(endpoint), self.clock)
        self.ring = Ring(frame_format, slots)
        self.sequence = 0

    def send(self, planes: Plane = ALL) -> None:
        """Publish the next frame as the guard does."""
        slot = self.ring.grant()
        assert slot is not None, self.ring.statistics()
        view = self.ring.slots[slot]
        view.live[:] = self.sequence % 4000
        view.synthetic[:] = (self.sequence + 1) % 4000
        view.attention[:] = self.sequence % 251
        self.ring.fill(slot)
        now_ns = self.clock.now_ns()
        out = Outgoing(Grabbed(slot, self.sequence, now_ns, now_ns), None, planes=planes)
        if planes == ALL:
            out.state, out.result = State.SYNTHETIC, Inferred(slot, 1, now_ns, now_ns, True)
        self.publisher.publish(self.ring, out)
        self.ring.release(slot)
        self.sequence += 1

    def change_format(self, frame_format: FrameFormat) -> None:
        self.ring.close()
        self.ring = Ring(frame_format, 16)

    def wait_for_clients(self, count: int) -> None:
        def seen() -> bool:
            self.publisher.see_clients()
            return self.publisher.subscribers == count

        until(seen, f"{count} clients")

    def end(self) -> None:
        self.publisher.heartbeat({"state_code": int(State.PASSTHROUGH), "reason_code": 0, "ended": True})

    def close(self) -> None:
        self.publisher.close()
        self.ring.close()


@pytest.fixture
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An ipc endpoint with a short path, whatever the test is called."""
    return f"ipc://{tmp_path_factory.mktemp('m')}/m"


@pytest.fixture
def stream(address: str) -> Iterator[Stream]:
    made = Stream(address)
    yield made
    made.close()


@pytest.fixture
def reader(address: str, stream: Stream) -> Iterator[Subscriber]:
    """A client that is there, takes every frame, and is closed."""
    made = Subscriber(address, memory=True, newest_only=False)
    made.poll(0)
    stream.wait_for_clients(1)
    yield made
    made.close()


class ReaderChild:
    """A reader in a process of its own, killed at the end whatever became of it.

    Args:
        address: The endpoint.
        frames: The last frame it waits for is the one before this.
        pause_ms: Between two frames.
    """

    def __init__(self, address: str, frames: int, pause_ms: float) -> None:
        child = Path(__file__).parent / "memory_reader_child.py"
        command = [sys.executable, str(child), address, str(frames), str(pause_ms)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def finish(self, stream: Stream) -> dict[str, int]:
        """Say that the stream is over until the child has heard it; what it saw."""

        def told() -> bool:
            stream.end()
            return self.process.poll() is not None

        until(told, "the client to end")
        assert self.process.stdout is not None
        seen: dict[str, int] = json.loads(self.process.stdout.read())
        return seen

    def __enter__(self) -> "ReaderChild":
        return self

    def __exit__(self, *_error: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


# What comes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "planes", [pytest.param(ALL, id="synthetic"), pytest.param(Plane.LIVE, id="live only")]
)
def test_a_frame_comes_bit_for_bit(stream: Stream, reader: Subscriber, planes: Plane) -> None:
    stream.send(planes)
    message = reader.poll(1000)
    assert message is not None
    assert message.header.sequence == 0
    assert message.header.planes == planes
    assert set(message.planes) == {
        plane for plane in (Plane.LIVE, Plane.SYNTHETIC, Plane.ATTENTION) if plane in planes
    }
    np.testing.assert_array_equal(message.live, np.zeros((256, 320), np.uint16))
    if planes == ALL:
        np.testing.assert_array_equal(message.synthetic, np.ones((256, 320), np.uint16))


def test_a_message_that_is_kept_stays_as_it_was(stream: Stream, reader: Subscriber) -> None:
    kept = []
    for number in range(40):
        stream.send()
        message = reader.poll(1000)
        assert message is not None
        if number % 4 == 0:
            kept.append(message)
    for message in kept:
        assert (message.live == message.header.sequence).all()
        assert message.synthetic is not None
        assert (message.synthetic == message.header.sequence + 1).all()


def test_the_newest_wins_where_that_is_asked_for(address: str, stream: Stream) -> None:
    reader = Subscriber(address, memory=True)
    reader.poll(0)
    stream.wait_for_clients(1)
    for _ in range(5):
        stream.send()
    message = reader.poll(1000)
    assert message is not None
    assert message.header.sequence == 4
    assert reader.poll(0) is None
    reader.close()


def test_a_client_may_come_before_and_after_the_publisher(address: str) -> None:
    reader = Subscriber(address, memory=True, newest_only=False)
    assert reader.poll(10) is None
    for number in range(2):
        stream = Stream(address)

        def came(stream: Stream = stream) -> bool:
            reader.poll(10)
            stream.publisher.see_clients()
            return stream.publisher.subscribers == 1

        until(came, f"the client to come to publisher {number}")
        stream.send()
        message = reader.poll(1000)
        assert message is not None
        assert message.header.stream == stream.publisher.stream
        stream.close()
    assert reader.statistics()["publishers"] == 2
    reader.close()


def test_a_change_of_format_brings_the_new_memory(stream: Stream, reader: Subscriber) -> None:
    stream.send()
    assert (first := reader.poll(1000)) is not None
    stream.change_format(FrameFormat(96, 64))
    stream.send(Plane.LIVE)
    assert (second := reader.poll(1000)) is not None
    assert second.live.shape == (96, 64)
    assert (second.live == 1).all()
    assert (first.live == 0).all()


@pytest.mark.parametrize(
    "pause_ms", [pytest.param(0.0, id="as fast as it can"), pytest.param(3.0, id="slow")]
)
def test_no_frame_is_mixed_however_fast_the_writer_is(address: str, pause_ms: float) -> None:
    frames = 6000
    stream = Stream(address, slots=4)
    with ReaderChild(address, frames, pause_ms) as child:
        stream.wait_for_clients(1)
        for number in range(frames):
            stream.send()
            if number >= frames - 50:
                time.sleep(0.01)  # else all that a slow client hears of is gone before it looks
        seen = child.finish(stream)
    stream.close()
    assert seen["mixed"] == 0
    assert seen["refused"] == 0
    assert seen["received"] > 0
    if pause_ms:
        assert seen["overtaken"] > 0, (
            "the writer must have overtaken a reader that waits, or nothing was tested"
        )
    # Every frame is there or counted: before the first nothing is, after the last nothing is left.
    assert seen["received"] + seen["lost"] <= frames
    assert seen["overtaken"] <= frames - seen["received"]


# What a client cannot do ----------------------------------------------------------------------------------------


def test_a_client_cannot_write_into_the_ring(stream: Stream, reader: Subscriber) -> None:
    stream.send()
    message = reader.poll(1000)
    assert message is not None
    with pytest.raises(ValueError, match="read-only"):
        message.live[0, 0] = 1
    with connect(stream) as door:
        said, descriptors, _flags, _from = socket.recv_fds(door, 4096, 1)
        assert said[0] == RING
        try:
            with pytest.raises(OSError, match=r"not permitted|Bad file descriptor"):
                os.write(descriptors[0], b"x")
            with pytest.raises(OSError, match=r"not permitted|Invalid argument"):
                os.ftruncate(descriptors[0], 0)
        finally:
            os.close(descriptors[0])


def connect(stream: Stream, hello: bytes = b"CSMEMRY1\x00") -> socket.socket:
    """A bare client, its hello heard."""
    door = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    door.settimeout(5.0)
    door.connect(str(stream.publisher.endpoint.memory))
    door.send(hello)
    stream.publisher.see_clients()
    stream.publisher.see_clients()
    return door


def has_been_left(door: socket.socket) -> bool:
    """Whether the other side has closed; with words of ours unread that is a reset."""
    try:
        return door.recv(64) == b""
    except ConnectionResetError:
        return True


def test_a_stopped_client_holds_no_slot_and_no_publisher(address: str) -> None:
    stream = Stream(address)
    with ReaderChild(address, 10_000, 0.0) as child:
        stream.wait_for_clients(1)
        os.kill(child.process.pid, signal.SIGSTOP)
        for _ in range(2000):  # more notes than its socket takes
            stream.send()
        assert stream.publisher.statistics()["notes_missed"] > 0
        until(stream.ring.idle, "every slot to come back")
        os.kill(child.process.pid, signal.SIGCONT)
        seen = child.finish(stream)
    stream.close()
    assert seen["mixed"] == 0
    assert seen["overtaken"] > 0


@pytest.mark.parametrize(
    "hello",
    [
        pytest.param(b"GET / HTTP/1", id="another protocol"),
        pytest.param(b"CSMEMRY2\x00", id="another version"),
        pytest.param(b"x", id="short"),
        pytest.param(b"x" * 5000, id="long"),
    ],
)
def test_who_is_no_client_is_sent_away(stream: Stream, reader: Subscriber, hello: bytes) -> None:
    with connect(stream, hello) as door:
        assert has_been_left(door)
    stream.send()
    assert reader.poll(1000) is not None


def test_a_client_that_says_nothing_gets_nothing(stream: Stream, reader: Subscriber) -> None:
    silent = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    silent.connect(str(stream.publisher.endpoint.memory))
    stream.publisher.see_clients()
    stream.send()
    silent.setblocking(False)
    with pytest.raises(BlockingIOError):
        silent.recv(64)
    assert reader.poll(1000) is not None
    silent.close()


def test_one_client_too_many_is_sent_away(stream: Stream) -> None:
    doors = [connect(stream) for _ in range(MAX_CLIENTS)]
    assert stream.publisher.subscribers == MAX_CLIENTS
    with connect(stream) as one_more:
        assert has_been_left(one_more)
    for door in doors:
        door.close()
    stream.wait_for_clients(0)


def test_the_socket_is_for_this_user_alone_and_gone_at_the_end(address: str) -> None:
    stream = Stream(address)
    path = parse_endpoint(address).memory
    assert path is not None
    assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0
    stream.close()
    assert not path.exists()


def test_an_endpoint_over_tcp_has_no_memory() -> None:
    with pytest.raises(EndpointError, match="needs a publisher on this host"):
        Subscriber("tcp://127.0.0.1:5555", memory=True)


# A publisher that is none ---------------------------------------------------------------------------------------


def ring_packet(slots: int) -> bytes:
    return bytes((RING,)) + json.dumps({"format": format_to_json(FORMAT), "slots": slots}).encode()


def memory_file(size: int, *, sealed: bool) -> int:
    made = os.memfd_create("test", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(made, size)
    if sealed:
        fcntl.fcntl(made, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return made


SLOT = Layout.of(FORMAT).size


@pytest.mark.parametrize(
    ("packet", "size", "sealed"),
    [
        pytest.param(ring_packet(4), 4 * SLOT, False, id="memory that may be cut off"),
        pytest.param(ring_packet(4), 3 * SLOT, True, id="memory that is too small"),
        pytest.param(ring_packet(0), 0, True, id="no slots"),
        pytest.param(bytes((RING,)) + b"{", SLOT, True, id="no JSON"),
        pytest.param(bytes((RING,)) + b'{"slots": 1}', SLOT, True, id="no format"),
        pytest.param(NOTE.pack(NOTE_KIND, 0, 1, HEADER_ROOM + 1), None, True, id="a note before any ring"),
        pytest.param(NOTE.pack(NOTE_KIND, 0, 1, 9)[:-1], None, True, id="half a note"),
    ],
)
def test_a_false_publisher_is_refused_and_left(
    address: str, packet: bytes, size: int | None, sealed: bool
) -> None:
    path = parse_endpoint(address).memory
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as false:
        false.bind(str(path))
        false.listen(1)
        reader = Subscriber(address, memory=True)
        reader.poll(0)
        door, _address = false.accept()
        if size is None:
            door.send(packet)
        else:
            descriptor = memory_file(size, sealed=sealed)
            socket.send_fds(door, [packet], [descriptor])
            os.close(descriptor)
        until(lambda: reader.poll(10) is None and reader.statistics()["refused"] == 1, "the refusal")
        assert door.recv(64)  # its hello
        assert has_been_left(door)
        door.close()
        reader.close()


@pytest.mark.parametrize(
    ("slot", "length"),
    [
        pytest.param(4, SLOT, id="a slot that is not there"),
        pytest.param(0, SLOT + 1, id="longer than a slot"),
        pytest.param(0, 10, id="shorter than a header"),
    ],
)
def test_a_note_of_memory_that_is_not_there_is_refused(address: str, slot: int, length: int) -> None:
    path = parse_endpoint(address).memory
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as false:
        false.bind(str(path))
        false.listen(1)
        reader = Subscriber(address, memory=True)
        reader.poll(0)
        door, _address = false.accept()
        descriptor = memory_file(4 * SLOT, sealed=True)
        socket.send_fds(door, [ring_packet(4)], [descriptor])
        os.close(descriptor)
        door.send(NOTE.pack(NOTE_KIND, slot, 0, length))
        until(lambda: reader.poll(10) is None and reader.statistics()["refused"] == 1, "the refusal")
        door.close()
        reader.close()


# The whole path ---------------------------------------------------------------------------------------------------


def test_a_lossless_run_reaches_a_client_in_memory_whole(tmp_path: Path) -> None:
    frames = 60
    pipeline = Pipeline(
        PipelineConfig(
            source="phantom",
            options=SourceOptions(rate_hz=30.0, size=128),
            pacing=Pacing(rate_hz=30.0, speed=float("inf"), loop=True, lossless=True, frames=frames),
            endpoint=f"memory-{os.getpid()}",
            engine="off",
            wait_for_client=True,
        )
    )
    with MeasuringClient(pipeline.endpoint.text, tmp_path / "seen.npz", credit=True, memory=True) as client:
        pipeline.run()
        measured = client.finish()
    assert measured.sequence.tolist() == list(range(frames))
    assert measured.summary()["lost"] == 0
    assert pipeline.last_status is not None
    assert pipeline.last_status["clients"]["published"] == frames
