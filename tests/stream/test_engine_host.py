"""The engine host with real sockets and real rings, and slots that finish when a test lets them."""

import socket
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import stream.engine_host
from calib.domain import FEATURES
from engines.engine import FrameStatistics
from engines.errors import CudaLost, CudaOutOfMemory, EngineError, ModelError
from stream.control import DONE, LEASE, MAX_PACKET, ChildSocket, Kind, pack_json, send_ring, unpack_json
from stream.engine_host import EngineHost
from stream.frame import FrameFormat
from stream.ring import RingMemory

PATIENCE_S = 20.0


class HeldSlot:
    """A slot whose inference ends when `Bench.let` says so; then both planes hold the live plane's first value."""

    def __init__(self, bench: "Bench", room: str) -> None:
        self._bench, self._room = bench, room
        self._planes: tuple[np.ndarray, ...] = ()

    def bind(self, live: np.ndarray, synthetic: np.ndarray, attention: np.ndarray) -> None:
        self._planes = (live, synthetic, attention)

    def submit(self) -> None:
        self._bench.submitted.append((self._room, int(self._planes[0][0, 0])))
        self._bench.flying.release()

    def wait(self) -> FrameStatistics:
        assert self._bench.may_end.acquire(timeout=PATIENCE_S)
        if (failure := self._bench.failures.pop(self._room, None)) is not None:
            raise failure
        live, synthetic, attention = self._planes
        synthetic[:], attention[:] = live, live
        return FrameStatistics(True, 0.0, 1.0, 0.5, 0.25, 0.7, np.zeros(FEATURES, np.float32))


class Guard:
    """A room's guard as the host hears it."""

    def __init__(self, bench: "Bench", name: str) -> None:
        self.name = name
        self.memory = RingMemory.create(FrameFormat(64, 64), 4)
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.settimeout(PATIENCE_S)
        with theirs:
            socket.send_fds(bench.supervisor, [pack_json(Kind.ROOM, {"number": 1})], [theirs.fileno()])
        self.socket.send(pack_json(Kind.CONFIG, {"name": name, "slots": 2}))
        send_ring(self.socket, self.memory, 1)

    def lease(self, index: int, value: int = 0) -> None:
        """Give a slot whose live plane holds `value`; its epoch is `value` too."""
        self.memory.slots[index].live[:] = value % 256
        self.socket.send(LEASE.pack(Kind.LEASE, index, value, 0))

    def hear(self) -> tuple[Kind, Any]:
        """The next packet."""
        packet = self.socket.recv(MAX_PACKET)
        if not packet:
            raise EOFError
        kind = Kind(packet[0])
        if kind is Kind.DONE:
            return kind, DONE.unpack(packet)[1:3]
        if kind is Kind.PASSED_OVER:
            return kind, LEASE.unpack(packet)[1:3]
        return kind, unpack_json(packet) if len(packet) > 1 else None

    def close(self) -> None:
        self.socket.close()
        self.memory.close()


class Bench:
    """A host in a thread of this process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.submitted: list[tuple[str, int]] = []
        """Room and value of each frame, in the order in which they went into the engines."""
        self.flying, self.may_end = threading.Semaphore(0), threading.Semaphore(0)
        self.failures: dict[str, Exception] = {}
        """What the next inference of a room raises."""
        self.refusals: dict[str, Exception] = {}
        """What opening a room's engine raises."""
        self.closed: list[str] = []
        self.ended: list[int] = []
        self.may_open = threading.Event()
        self.may_open.set()
        monkeypatch.setattr(stream.engine_host, "open_warm", self._open)
        self.supervisor, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._guards: list[Guard] = []
        host = EngineHost(ChildSocket(theirs.detach()), 3, end=self.ended.append)
        self._thread = threading.Thread(target=host.run)
        self._thread.start()

    def _open(self, memory: RingMemory, config: dict[str, Any]) -> Any:
        name = config["name"]
        if name.startswith("slow"):
            assert self.may_open.wait(PATIENCE_S)
        if name in self.refusals:
            raise self.refusals[name]
        engine = SimpleNamespace(close=lambda: self.closed.append(name))
        slots = [HeldSlot(self, name) for _ in range(config["slots"])]
        return SimpleNamespace(engine=engine), slots, {"backend": "held"}

    def room(self, name: str, *, ready: bool = True) -> Guard:
        """One more room, its engine open."""
        guard = Guard(self, name)
        self._guards.append(guard)
        if ready:
            assert guard.hear() == (Kind.READY, {"backend": "held", "rooms": 3})
        return guard

    def fly(self, count: int = 1) -> None:
        """Wait until so many more frames are in the engines."""
        for _ in range(count):
            assert self.flying.acquire(timeout=PATIENCE_S)

    def let(self, count: int = 1) -> None:
        """Let so many inferences end."""
        self.may_end.release(count)

    def close(self) -> None:
        self.may_open.set()
        self.let(100)
        self.supervisor.close()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        for guard in self._guards:
            guard.close()


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    bench = Bench(monkeypatch)
    yield bench
    bench.close()


def test_two_frames_are_in_the_engines_and_no_more(bench: Bench) -> None:
    rooms = [bench.room(name) for name in "abc"]
    for value, room in enumerate(rooms):
        room.lease(0, value)
        room.lease(1, 10 + value) if value == 0 else None
    bench.fly(2)
    assert not bench.flying.acquire(timeout=0.2)
    bench.let()
    bench.fly()
    assert len(bench.submitted) == 3


def test_no_room_has_two_turns_while_another_waits(bench: Bench) -> None:
    greedy, modest, third = (bench.room(name) for name in ("greedy", "modest", "third"))
    greedy.lease(0, 1)
    greedy.lease(1, 2)
    bench.fly(2)
    greedy.lease(2, 3)
    modest.lease(0, 4)
    third.lease(0, 5)
    for _ in range(3):
        bench.let()
        bench.fly()
    assert sorted(bench.submitted[2:]) == [("greedy", 3), ("modest", 4), ("third", 5)]
    for value in range(6, 12):  # as fast as it can, and still every other turn is somebody else's
        greedy.lease(value % 4, value)
        modest.lease(value % 4, 100 + value)
        bench.let(2)
        bench.fly(2)
    assert {name for name, _ in bench.submitted[-2:]} == {"greedy", "modest"}


def test_the_newest_frame_of_a_room_wins_and_the_older_one_comes_back_unused(bench: Bench) -> None:
    busy, room = bench.room("busy"), bench.room("room")
    busy.lease(0, 1)
    busy.lease(1, 2)
    bench.fly(2)
    room.lease(0, 7)
    room.lease(1, 8)
    assert room.hear() == (Kind.PASSED_OVER, (0, 7))
    bench.let()
    bench.fly()
    assert bench.submitted[-1] == ("room", 8)
    bench.let(2)
    assert room.hear() == (Kind.DONE, (1, 8))
    assert int(room.memory.slots[1].synthetic[0, 0]) == 8
    assert int(room.memory.slots[0].synthetic[0, 0]) == 0


def test_a_room_that_goes_leaves_the_others_and_its_engine_is_closed_after_its_last_frame(
    bench: Bench,
) -> None:
    leaving, staying = bench.room("leaving"), bench.room("staying")
    leaving.lease(0, 1)
    bench.fly()
    leaving.socket.close()
    staying.lease(0, 2)
    bench.fly()
    assert bench.closed == []
    bench.let(2)
    assert staying.hear() == (Kind.DONE, (0, 2))
    staying.lease(1, 3)
    bench.let()
    assert staying.hear() == (Kind.DONE, (1, 3))
    assert wait_until(lambda: bench.closed == ["leaving"])


def test_a_guard_that_reads_nothing_keeps_no_other_waiting(bench: Bench) -> None:
    deaf, room = bench.room("deaf"), bench.room("room")
    bench.let(2000)
    for value in range(600):  # more answers than its socket holds
        deaf.lease(0, value)
    for value in range(5):
        room.lease(value % 4, value)
        assert room.hear() == (Kind.DONE, (value % 4, value))


def test_an_engine_that_opens_slowly_keeps_no_other_waiting(bench: Bench) -> None:
    bench.may_open.clear()
    slow, room = bench.room("slow", ready=False), bench.room("room")
    bench.let()
    room.lease(0, 1)
    assert room.hear() == (Kind.DONE, (0, 1))
    bench.may_open.set()
    assert slow.hear()[0] is Kind.READY


def test_a_room_that_goes_while_its_engine_opens_has_it_closed(bench: Bench) -> None:
    bench.may_open.clear()
    bench.room("slow", ready=False).socket.close()
    bench.room("room")
    bench.may_open.set()
    assert wait_until(lambda: bench.closed == ["slow"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModelError("needed a taught model"), {"message": "needed a taught model", "input": True}),
        (
            CudaOutOfMemory("the GPU is full", call="cudaMalloc", code="cudaErrorMemoryAllocation"),
            {"message": "the GPU is full", "input": False, "retry": True},
        ),
        (
            RuntimeError("odd"),
            {"message": "the engine could not be opened: RuntimeError: odd", "input": False},
        ),
    ],
    ids=["input", "memory", "fault"],
)
def test_an_engine_that_cannot_be_opened_is_said_to_its_room_alone(
    error: Exception, said: dict[str, Any], bench: Bench
) -> None:
    bench.refusals["bad"] = error
    bad, good = bench.room("bad", ready=False), bench.room("good")
    assert bad.hear() == (Kind.ERROR, said)
    assert bad.hear() == (Kind.LET_GO, None)
    with pytest.raises(EOFError):
        bad.hear()
    bench.let()
    good.lease(0, 1)
    assert good.hear() == (Kind.DONE, (0, 1))


def test_an_inference_that_fails_is_said_to_its_room_and_the_next_goes_on(bench: Bench) -> None:
    room = bench.room("room")
    bench.failures["room"] = EngineError("the kernel failed")
    bench.let(2)
    room.lease(0, 1)
    assert room.hear() == (Kind.NOTE, {"message": "the kernel failed"})
    assert room.hear() == (Kind.DONE, (0, 1))
    room.lease(1, 2)
    assert room.hear() == (Kind.DONE, (1, 2))


def test_a_lost_gpu_ends_the_process(bench: Bench) -> None:
    room = bench.room("room")
    bench.failures["room"] = CudaLost(
        "it fell off the bus", call="cudaEventSynchronize", code="cudaErrorUnknown"
    )
    bench.let()
    room.lease(0, 1)
    assert room.hear() == (Kind.NOTE, {"message": "it fell off the bus"})
    assert wait_until(lambda: bench.ended == [1])


@pytest.mark.parametrize("packet", [b"\x04", b"\x01{", b"\x01[]"], ids=["lease", "json", "list"])
def test_a_room_that_sends_what_it_must_not_is_let_go(packet: bytes, bench: Bench) -> None:
    odd, room = bench.room("odd"), bench.room("room")
    odd.socket.send(packet)
    assert odd.hear() == (Kind.LET_GO, None)
    bench.let()
    room.lease(0, 1)
    assert room.hear() == (Kind.DONE, (0, 1))


def wait_until(found: Callable[[], bool]) -> bool:
    """Whether something is so within the time that a loaded machine may need."""
    over = threading.Event()
    for _ in range(round(PATIENCE_S / 0.02)):
        if found():
            return True
        over.wait(0.02)
    return found()
