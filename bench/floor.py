"""A floor for the live path: the same hops, bytes and planes, and nothing else.

Four bare processes. The source writes the live plane into a shared slot, waits for the frame's due time and
notifies by socketpair; the publisher hands the slot to the "engine", which writes the two output planes by memcpy
and no inference; the publisher sends header and planes with raw pyzmq (copy=False) over ipc; the client receives.
No leases, deadlines, states, deaths, repeats or heartbeats: whoever does these things pays for them on top.

`python -m bench.floor ROLE CONFIG`, CONFIG being JSON.
"""

import contextlib
import json
import select
import socket
import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import zmq

from bench.worker import Worker, answer_one, answers, serve
from stream.control import become_child, format_from_json, format_to_json
from stream.frame import FrameFormat, Plane
from stream.ring import RingMemory
from stream.timing import NS_PER_MS, MonotonicClock, sleep_until_ns

SLOTS = 16
NOTE = struct.Struct("<IQQQQQQ")
"""Slot, sequence, and the stamps due, grabbed, submitted, inferred, published; also the head of the message."""
CONNECT_MS = 10_000
DRAIN_MS = 300


@dataclass(frozen=True)
class Block:
    """A stretch of frames: frame i is due at start + i periods."""

    start_ns: int
    frames: int


@dataclass(frozen=True)
class FloorSamples:
    """What the floor's client received.

    Args:
        stamps_ns: (n, 6) int64: due, grabbed, submitted, inferred, published, received.
    """

    stamps_ns: np.ndarray

    def total_ms(self) -> np.ndarray:
        """Due to received, (n,) ms."""
        return np.asarray((self.stamps_ns[:, 5] - self.stamps_ns[:, 0]) / NS_PER_MS)

    def overhead_ms(self) -> np.ndarray:
        """Due to received without the stand-in for the engine, (n,) ms."""
        inside = self.stamps_ns[:, 3] - self.stamps_ns[:, 2]
        return np.asarray(self.total_ms() - inside / NS_PER_MS)

    def stages_ms(self) -> dict[str, np.ndarray]:
        """The floor's stages, named as the pipeline's are; those of the engine only where there is a stand-in for it."""
        if not self.stamps_ns[:, 2].any():
            steps = np.diff(self.stamps_ns[:, (0, 1, 4, 5)], axis=1) / NS_PER_MS
            return {name: steps[:, column] for column, name in enumerate(("grab", "guard", "transport"))}
        steps = np.diff(self.stamps_ns, axis=1) / NS_PER_MS
        names = ("grab", "submit", "engine", "guard", "transport")
        return {name: steps[:, column] for column, name in enumerate(names)}


class Floor:
    """Runs the floor's processes; idle until asked.

    Args:
        frame_format: The format of the pipeline that it is compared with.
        planes: The planes that the pipeline's messages carry.
        engine: Whether frames go by the stand-in for the engine; without it the path has one hop less each way.

    Raises:
        BenchError: A process does not start.
    """

    def __init__(self, frame_format: FrameFormat, planes: Plane, *, engine: bool = True) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="contrastream-floor-")
        self._memory = RingMemory.create(frame_format, SLOTS)
        self.address = f"ipc://{Path(self._folder.name) / 'floor'}"
        config = {
            "format": format_to_json(frame_format),
            "address": self.address,
            "message_bytes": self._memory.layout.message_bytes(frame_format, planes),
            "engine": engine,
        }
        source, publisher_source = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        to_engine, publisher_engine = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._workers: list[Worker] = []
        try:
            with source, publisher_source, to_engine, publisher_engine:
                self._publisher = self._start("publisher", config, publisher_source, publisher_engine)
                if engine:
                    self._start("engine", config, to_engine)
                self._source = self._start("source", config, source)
                self._client = self._start("client", config)
            self._publisher.hear()
        except BaseException:
            self.close()
            raise

    def _start(self, role: str, config: dict[str, Any], *sockets: socket.socket) -> Worker:
        descriptors = [each.fileno() for each in sockets]
        said = json.dumps({**config, "memory": self._memory.descriptor, "sockets": descriptors})
        worker = Worker("bench.floor", role, said, pass_fds=(self._memory.descriptor, *descriptors))
        self._workers.append(worker)
        return worker

    def begin(self, blocks: list[Block], period_ns: float) -> None:
        """Let the floor run these blocks by itself; `finish` waits for their end."""
        self._source.tell(
            "run", blocks=[[block.start_ns, block.frames] for block in blocks], period_ns=period_ns
        )

    def finish(self, timeout_s: float) -> FloorSamples:
        """Wait for the blocks to end; returns what the client received of them."""
        self._source.hear(timeout_s)
        return self.take()

    def take(self) -> FloorSamples:
        """What the client has received since it was last asked."""
        rows = self._client.ask("take")["rows"]
        return FloorSamples(np.array(rows, np.int64).reshape(-1, 6))

    def close(self) -> None:
        """End the processes; may be called twice."""
        for worker in reversed(self._workers):  # the source before those who wait for it
            worker.close()
        self._memory.close()
        self._folder.cleanup()

    def __enter__(self) -> "Floor":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


# The processes -------------------------------------------------------------------------------------------------


def run_source(memory: RingMemory, notify: socket.socket) -> None:
    """Write the live plane ahead of time, as the pipeline's source does, and let it go when it is due."""
    clock = MonotonicClock()
    frame_format = memory.frame_format
    pixels = np.random.default_rng(0).integers(
        0, frame_format.max_value + 1, (frame_format.rows, frame_format.columns)
    )
    image = pixels.astype(frame_format.dtype)
    sequence = 0

    def run(blocks: list[list[int]], period_ns: float) -> dict[str, Any]:
        nonlocal sequence
        for start_ns, frames in blocks:
            for step in range(frames):
                slot = sequence % SLOTS
                np.copyto(memory.slots[slot].live, image)
                due_ns = round(start_ns + step * period_ns)
                sleep_until_ns(due_ns, clock)
                notify.send(NOTE.pack(slot, sequence, due_ns, clock.now_ns(), 0, 0, 0))
                sequence += 1
        return {}

    serve({"run": run})


def run_engine(memory: RingMemory, guard: socket.socket) -> None:
    """Stand in for the engine: write its two planes by memcpy."""
    clock = MonotonicClock()
    frame_format = memory.frame_format
    shape = (frame_format.rows, frame_format.columns)
    synthetic, attention = np.ones(shape, frame_format.dtype), np.ones(shape, np.uint8)
    while packet := guard.recv(NOTE.size):
        slot, sequence, due_ns, grabbed_ns, *_ = NOTE.unpack(packet)
        submitted_ns = clock.now_ns()
        np.copyto(memory.slots[slot].synthetic, synthetic)
        np.copyto(memory.slots[slot].attention, attention)
        guard.send(NOTE.pack(slot, sequence, due_ns, grabbed_ns, submitted_ns, clock.now_ns(), 0))


def run_publisher(
    memory: RingMemory,
    source: socket.socket,
    engine: socket.socket,
    address: str,
    message_bytes: int,
    has_engine: bool,
) -> None:
    """Pass each frame to the engine, where there is one, and then to the client."""
    clock = MonotonicClock()
    out = answers()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    frames = context.socket(zmq.XPUB)
    frames.linger = 0
    frames.bind(address)
    ready = {"ready": True} if frames.poll(CONNECT_MS) else {"error": "the floor's client did not connect"}
    out.write(json.dumps(ready) + "\n")
    poller = select.poll()
    for each in (source, engine) if has_engine else (source,):
        poller.register(each, select.POLLIN)

    def send(packet: bytes) -> None:
        slot, *fields = NOTE.unpack(packet)
        view = memory.slots[slot].bytes[:message_bytes]
        NOTE.pack_into(view, 0, slot, *fields[:-1], clock.now_ns())
        frames.send(view, copy=False)

    while True:
        for descriptor, _event in poller.poll():
            if descriptor == source.fileno():
                if not (packet := source.recv(NOTE.size)):
                    context.destroy(linger=0)
                    return
                if has_engine:
                    engine.send(packet)
                else:
                    send(packet)
            elif packet := engine.recv(NOTE.size):
                send(packet)


def run_client(address: str) -> None:
    """Receive and stamp."""
    clock = MonotonicClock()
    out = answers()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    frames = context.socket(zmq.SUB)
    frames.linger = 0
    frames.setsockopt(zmq.SUBSCRIBE, b"")
    frames.connect(address)
    rows: list[tuple[int, ...]] = []

    def receive() -> None:
        message = frames.recv(zmq.NOBLOCK, copy=False)
        received_ns = clock.now_ns()
        _slot, _sequence, *stamps = NOTE.unpack_from(message.buffer)
        rows.append((*stamps, received_ns))

    def take() -> dict[str, Any]:
        while frames.poll(DRAIN_MS):
            receive()
        taken = list(rows)
        rows.clear()
        return {"rows": taken}

    poller = zmq.Poller()
    poller.register(frames, zmq.POLLIN)
    poller.register(sys.stdin, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if frames in ready:
            receive()
        if sys.stdin.fileno() in ready:
            if not (line := sys.stdin.readline()):
                break
            answer_one(line, {"take": take}, out, ())
    context.destroy(linger=0)


def main() -> int:
    """Entry point of the floor's processes."""
    become_child()
    role, config = sys.argv[1], json.loads(sys.argv[2])
    sockets = [socket.socket(fileno=descriptor) for descriptor in config["sockets"]]
    if role == "client":
        run_client(config["address"])
        return 0
    memory = RingMemory(config["memory"], format_from_json(config["format"]), SLOTS)
    with contextlib.suppress(ConnectionError):
        if role == "source":
            run_source(memory, sockets[0])
        elif role == "engine":
            run_engine(memory, sockets[0])
        else:
            run_publisher(
                memory,
                sockets[0],
                sockets[1],
                config["address"],
                int(config["message_bytes"]),
                bool(config["engine"]),
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
