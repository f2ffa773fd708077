"""What the contestants of `bench peers` have in common, so that only what they are differs.

The same frames (a file that each maps), the same engine opened the same way, the pipeline's own message bytes, the same
schedule, the same stamps. In their favour: the next frame is copied into its message before it is due, the engine's
buffers are bound once, and what was loaded is frozen for the garbage collector, as the pipeline does too.
"""

import gc
import hashlib
import json
import struct
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Any, Protocol, runtime_checkable

import numpy as np
import zmq

from bench.errors import BenchError
from bench.worker import Handlers, answer_one
from stream.control import format_from_json
from stream.frame import ALL_PLANES, FrameFormat, Plane
from stream.infer import open_for
from stream.ring import RingMemory
from stream.timing import MonotonicClock, sleep_until_ns

HEAD = struct.Struct("<6Q")
"""Sequence, and the stamps due, grabbed, submitted, inferred, published (ns of CLOCK_MONOTONIC): a message begins with it,
where the pipeline's message has its header."""
BUFFERS = 4
WARM_UP = 4
"""Inferences in each buffer before a contestant says that it is ready."""
CONNECT_MS = 10_000
DRAIN_MS = 300

Taken = tuple[int, int, int, int]
"""A frame on its way: its buffer, its sequence number, when it was due and when it was taken."""


@runtime_checkable
class Sender(Protocol):
    """What a contestant does with a frame that is inferred."""

    def send(self, buffer: int, message: memoryview, head: tuple[int, ...]) -> None:
        """Send a message as it lies in its buffer; `head` is what HEAD holds of it."""
        ...

    def wait(self, buffer: int) -> None:
        """Wait until the buffer's last message is sent, so that it may be written again."""
        ...


def engine_facts(opened: Any) -> dict[str, Any]:
    """What must be the same for each contestant."""
    engine = opened.engine
    return {
        "backend": engine.backend,
        "precision": engine.precision,
        "model_sha256": engine.model_sha256,
        "taught": engine.taught,
    }


def versions(*packages: str) -> dict[str, str]:
    """Versions of the packages that a contestant is made of."""
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


class Work:
    """Frames, engine and messages of a contestant.

    Args:
        config: "format" and "frames" (the file's path) of the frames, "engine" as `stream.infer.open_for` takes it.

    Raises:
        EngineError: The engine cannot be opened.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.format = format_from_json(config["format"])
        self._clock = MonotonicClock()
        self._frames = np.load(config["frames"], mmap_mode="r")
        int(self._frames.max())  # every page is read once, so that no frame waits for the disk
        self._memory = RingMemory.create(self.format, BUFFERS)
        opened = open_for(self.format, {**config["engine"], "slots": BUFFERS})
        self.engine = engine_facts(opened)
        # An untaught network's planes are inferred but never sent by the pipeline, so nobody sends them.
        self.planes = ALL_PLANES if self.engine["taught"] else Plane.LIVE
        self.message_bytes = self._memory.layout.message_bytes(self.format, self.planes)
        self._opened = opened
        self._slots = list(opened.engine.slots(BUFFERS))
        for view, slot in zip(self._memory.slots, self._slots, strict=True):
            np.copyto(view.live, self._frames[0])
            slot.bind(view.live, view.synthetic, view.attention)
            for _ in range(WARM_UP):
                slot.submit()
                slot.wait()
        gc.collect()
        gc.freeze()

    def take(self, sequence: int, due_ns: int) -> Taken:
        """Copy a frame into its buffer, which must be free, and wait until it is due."""
        buffer = sequence % BUFFERS
        np.copyto(self._memory.slots[buffer].live, self._frames[sequence % len(self._frames)])
        sleep_until_ns(due_ns, self._clock)
        return buffer, sequence, due_ns, self._clock.now_ns()

    def infer(self, buffer: int) -> tuple[int, int]:
        """Run the engine in a buffer; returns when it was submitted and inferred."""
        submitted_ns = self._clock.now_ns()
        slot = self._slots[buffer]
        slot.submit()
        slot.wait()
        return submitted_ns, self._clock.now_ns()

    def send(self, taken: Taken, inferred: tuple[int, int], sender: Sender) -> None:
        """Put the stamps at the head of the message and hand it over."""
        buffer, *known = taken
        head = (*known, *inferred, self._clock.now_ns())
        message = self._memory.slots[buffer].bytes[: self.message_bytes]
        HEAD.pack_into(message, 0, *head)
        sender.send(buffer, message, head)

    def close(self) -> None:
        """Give the engine back."""
        self._opened.engine.close()
        self._memory.close()


def due_ns(start_ns: int, period_ns: float, step: int) -> int:
    """When a block's frame is due: an absolute schedule, so that a late frame moves none of those behind it."""
    return round(start_ns + step * period_ns)


def loop_handlers(
    config: dict[str, Any], make: Callable[[], Sender], facts: Callable[[], dict[str, Any]]
) -> Handlers:
    """A worker's handlers for a contestant that is one loop: take, infer, send.

    Args:
        config: As `Work` takes it.
        make: Makes its sender.
        facts: What it says of itself when it is open: versions and settings.
    """
    state: dict[str, Any] = {"sequence": 0}

    def open_() -> dict[str, Any]:
        state["work"] = Work(config)
        state["sender"] = make()
        return {"engine": state["work"].engine, **facts()}

    def run(start_ns: int, frames: int, period_ns: float) -> dict[str, Any]:
        work: Work = state["work"]
        sender: Sender = state["sender"]
        for step in range(frames):
            sequence = state["sequence"]
            sender.wait(sequence % BUFFERS)
            taken = work.take(sequence, due_ns(start_ns, period_ns, step))
            work.send(taken, work.infer(taken[0]), sender)
            state["sequence"] = sequence + 1
        return {}

    return {"open": open_, "run": run}


# The client ----------------------------------------------------------------------------------------------------


class Received:
    """What a client has stamped since it was last asked."""

    def __init__(self) -> None:
        self._rows: list[tuple[int, ...]] = []

    def add(self, row: tuple[int, ...]) -> None:
        """Take in a frame: sequence, due, grabbed, submitted, inferred, published, received, and why it is live only (0)."""
        self._rows.append(row)

    def take(self, planes: tuple[np.ndarray, ...] | None) -> dict[str, Any]:
        """The rows, and a hash of the last frame's planes, so that the contestants' work can be compared."""
        rows, self._rows = self._rows, []
        return {"rows": rows, "planes_sha256": None if planes is None else hash_of(planes)}


def hash_of(planes: tuple[np.ndarray, ...]) -> str:
    """SHA-256 of planes, one after the other."""
    digest = hashlib.sha256()
    for plane in planes:
        digest.update(np.ascontiguousarray(plane).tobytes())
    return digest.hexdigest()


def planes_of(message: Any, frame_format: FrameFormat) -> tuple[np.ndarray, ...]:
    """The planes that a contestant's message carries: live alone, or live, synthetic and attention.

    Raises:
        BenchError: Neither; then a message was cut.
    """
    from stream.wire import Layout

    layout = Layout.of(frame_format)
    for planes in (Plane.LIVE, ALL_PLANES):
        if len(memoryview(message)) == layout.message_bytes(frame_format, planes):
            return tuple(
                np.frombuffer(
                    message,
                    np.uint8 if plane is Plane.ATTENTION else frame_format.dtype,
                    frame_format.pixels,
                    layout.offset(plane),
                )
                for plane in planes
            )
    raise BenchError(f"a message of {len(memoryview(message))} bytes came, which no contestant sends")


def run_client(socket: "zmq.Socket[bytes]", receive: Callable[[], None], take: Callable[[], Any]) -> None:
    """Receive until standard input ends, and answer `take` in between.

    Args:
        socket: What it listens to.
        receive: Takes in one message that is there, and stamps it.
        take: The answer, once nothing more comes.
    """
    from bench.worker import answers

    out = answers()

    def drained() -> Any:
        while socket.poll(DRAIN_MS):
            receive()
        return take()

    poller = zmq.Poller()
    poller.register(socket, zmq.POLLIN)
    poller.register(sys.stdin, zmq.POLLIN)
    while True:
        ready = dict(poller.poll())
        if socket in ready:
            receive()
        if sys.stdin.fileno() in ready:
            if not (line := sys.stdin.readline()):
                return
            answer_one(line, {"take": drained}, out, (BenchError,))


def role_and_config() -> tuple[str, dict[str, Any]]:
    """The two arguments of a contestant's process: sender or client, and its JSON."""
    return sys.argv[1], json.loads(sys.argv[2])
