"""Bytes made to harm, at every socket: whoever reads them reads, refuses in a sentence, or hangs up. Nothing else."""

import array
import contextlib
import json
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from calib.errors import CalibrationError
from calib.record import read_record
from stream.adaptation import PatientSide
from stream.control import Kind, format_from_json, unpack_frame, unpack_json
from stream.display.relay import Viewer
from stream.engine_side import MALFORMED, EngineSide
from stream.engine_supply import SharedEngine
from stream.errors import StreamError, WireError
from stream.frame import FrameFormat
from stream.guard import Guard
from stream.memory_door import MemoryDoor
from stream.memory_reader import MemoryReader
from stream.ring import Ring
from stream.timing import FakeClock, MonotonicClock

QUICK = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
NESTED = b"[" * 3000
FORMAT = {
    "rows": 64,
    "columns": 64,
    "bits_stored": 8,
    "photometric": 2,
    "window_center": None,
    "window_width": None,
}


def mutated(whole: dict[str, Any]) -> st.SearchStrategy[bytes]:
    """A JSON object with one value replaced, or bytes that are none."""
    changed = st.builds(
        lambda name, value: json.dumps({**whole, name: value}).encode(), st.sampled_from(sorted(whole)), JSON
    )
    return changed | st.binary(max_size=60) | st.just(NESTED)


# The memory door ----------------------------------------------------------------------------------------------


@QUICK
@given(packets=st.lists(st.binary(min_size=1, max_size=80), max_size=4))
def test_the_memory_door_sends_away_who_says_what_is_no_hello(
    tmp_path_factory: pytest.TempPathFactory, packets: list[bytes]
) -> None:
    path = str(tmp_path_factory.getbasetemp() / "door")
    door = MemoryDoor(path)
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(path)
            for packet in packets:
                with contextlib.suppress(OSError):
                    client.send(packet)
                door.see_clients()
            assert door.clients <= 1
    finally:
        door.close()


class FalsePublisher:
    """A socket where a publisher's memory door would be, and a reader connected to it."""

    def __init__(self, path: str) -> None:
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen(1)
        self.reader = MemoryReader(path, MonotonicClock(), newest_only=False, measuring=False)
        assert self.reader.fileno() is not None
        self.peer, _ = self.listener.accept()

    def say(self, packet: bytes, descriptors: list[int]) -> None:
        rights = (
            [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        )
        self.peer.sendmsg([packet], rights)

    def close(self) -> None:
        self.reader.close()
        self.peer.close()
        self.listener.close()


@pytest.fixture
def memory() -> Iterator[int]:
    descriptor = os.memfd_create("hostile", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(descriptor, 1 << 16)
    yield descriptor
    os.close(descriptor)


def open_descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@QUICK
@given(
    kind=st.integers(0, 255) | st.sampled_from([1, 2]),
    body=mutated({"format": FORMAT, "slots": 16})
    | st.builds(lambda slots: json.dumps({"format": FORMAT, "slots": slots}).encode(), JSON)
    | st.builds(lambda rows: json.dumps({"format": {**FORMAT, "rows": rows}, "slots": 4}).encode(), JSON)
    | st.builds(struct.Struct("<IQQ").pack, st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1)),
    beside=st.integers(0, 2),
)  # fmt: skip
def test_a_false_publisher_s_packets_are_refused_and_leave_no_descriptor(
    tmp_path_factory: pytest.TempPathFactory, memory: int, kind: int, body: bytes, beside: int
) -> None:
    path = tmp_path_factory.getbasetemp() / "false"
    path.unlink(missing_ok=True)
    before = open_descriptors()
    false = FalsePublisher(str(path))
    try:
        false.say(bytes((kind,)) + body, [memory] * beside)
        with contextlib.suppress(WireError):
            assert false.reader.receive() is None
    finally:
        false.close()
    assert open_descriptors() == before


# The children's packets ---------------------------------------------------------------------------------------


@QUICK
@given(packet=st.binary(min_size=1, max_size=80) | mutated(FORMAT).map(lambda body: b"B" + body))
def test_a_source_s_packets_raise_nothing_but_what_the_guard_takes_for_malformed(packet: bytes) -> None:
    for read in (unpack_frame, lambda said: format_from_json(unpack_json(said))):
        with contextlib.suppress(*MALFORMED):
            read(packet)


class SilentLink:
    """An engine that says what it is told to."""

    def __init__(self, packet: bytes) -> None:
        self.packets: list[bytes | None] = [packet, None]
        self.killed = False

    def receive(self) -> bytes | None:
        return self.packets.pop(0) if self.packets else None

    def end_soon(self) -> None:
        self.killed = True

    def has_ended(self) -> bool:
        return True

    def kill(self) -> int:
        self.killed = True
        return 0


class NoSupply:
    """Gives no engine."""

    restarts = 0

    def descriptor(self) -> int | None: ...

    def hear(self) -> None: ...

    def due(self) -> Any: ...

    def healthy(self) -> None: ...

    def lost(self, link: Any, status: int | None, *, said: bool) -> None: ...

    def replace(self, link: Any) -> bool: ...

    def refused(self) -> None: ...

    def end(self, link: Any) -> None: ...

    def watch_gpu(self, backend: str, bus_id: str | None) -> Any: ...


READY = {"backend": "openvino", "precision": "f32", "model_sha256": "0" * 64, "taught": True, "inference_ms": 5.0, "open_ms": 5.0,
         "domain": {"threshold": 1.0, "strange": 3, "of": 10}, "rooms": 1}  # fmt: skip


@QUICK
@given(
    packet=st.binary(min_size=1, max_size=60)
    | st.builds(lambda kind, body: bytes((kind,)) + body, st.sampled_from([Kind.READY, Kind.NOTE, Kind.ERROR, Kind.ADAPTED, Kind.NOT_ADAPTED]), mutated(READY))
)  # fmt: skip
def test_an_engine_that_says_what_it_must_not_is_killed_and_the_guard_goes_on(packet: bytes) -> None:
    side = EngineSide(
        NoSupply(),
        wanted=True,
        domain=True,
        may_wait=True,
        note=lambda _said: None,
        patient=PatientSide(FakeClock(), lambda *_: None),
    )  # type: ignore[arg-type]
    side.watch_gpu = lambda _backend, _bus: None  # type: ignore[method-assign]
    ring = Ring(FrameFormat(64, 64), 2)
    side.guard = Guard(ring, MonotonicClock(), lambda _out: None, lambda _slot, _epoch: None, rate_hz=30.0)
    link = SilentLink(packet)
    side.link = link  # type: ignore[assignment]
    side.hear()
    ring.close()
    assert link.killed or side.link is link


@QUICK
@given(
    packet=st.binary(min_size=1, max_size=60)
    | mutated({"gpu": None, "why": "x"}).map(lambda body: bytes((Kind.GPU_SEEN,)) + body)
)
def test_a_supervisor_s_packets_do_not_end_a_room(packet: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        supply = SharedEngine(ours, {}, lambda: None, MonotonicClock())
        theirs.send(packet)
        supply.hear()
        assert len(supply.watch_gpu("x", None).look()) == 2


# The viewer's page --------------------------------------------------------------------------------------------


@QUICK
@given(
    text=st.text(max_size=60)
    | mutated({"type": "ping", "sent_ms": 1}).map(lambda body: body.decode("utf-8", "replace"))
)
def test_a_websocket_s_text_is_taken_or_refused(text: str) -> None:
    viewer = Viewer()
    with contextlib.suppress(ValueError, RecursionError):
        viewer.asked(text, 1)


# A site's record ----------------------------------------------------------------------------------------------


@QUICK
@given(data=st.data())
def test_a_hostile_record_is_refused_in_a_sentence(data: st.DataObject, tmp_path: Path) -> None:
    path = tmp_path / "site.toml"
    path.write_bytes(
        data.draw(st.binary(max_size=200) | st.text(max_size=200).map(lambda text: text.encode("utf-8", "replace"))
                  | st.sampled_from([b"a = " + b"[" * 5000, b"schema = 1e999\n", b"a.b.c = 1\na.b = 2\n", b"\xff\xfe"]))
    )  # fmt: skip
    with pytest.raises((CalibrationError, StreamError)):
        read_record(path)
