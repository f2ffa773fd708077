"""A contestant of `bench peers` as the benchmark sees it: a process that works, a process that receives, and what came."""

import importlib.util
import json
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from bench.errors import BenchError
from bench.witness import family
from bench.worker import Worker

COLUMNS = ("sequence", "due", "grabbed", "submitted", "inferred", "published", "received", "reason")
OPEN_S = 120.0
WARM_UP = 30
"""Frames of each contestant before the first turn."""
LEAD_IN = 10
"""Frames at the beginning of each turn that are not measured: after its pause a contestant's caches are cold."""


@dataclass(frozen=True)
class Kind:
    """What a contestant is."""

    name: str
    title: str
    sender: str
    """The module of the process that works; `client` is that of the one that receives."""
    client: str
    needs: str | None = None
    """A package that may be missing, by the name it is imported with."""
    client_first: bool = True


KINDS = (
    Kind(
        "loop",
        "plain Python loop (array, engine, imagezmq)",
        "bench.peer_loop",
        "bench.peer_loop",
        "imagezmq",
    ),
    Kind(
        "holoscan",
        "Holoscan (Python operators, greedy)",
        "bench.peer_holoscan",
        "bench.peer_pyzmq",
        "holoscan",
    ),
    Kind("pyzmq", "raw pyzmq (one process)", "bench.peer_pyzmq", "bench.peer_pyzmq"),
    Kind(
        "ours", "contrastream (isolated processes)", "bench.peer_ours", "bench.peer_ours", client_first=False
    ),
)
"""In the order of their turns. The first is what the others are compared with."""


@dataclass(frozen=True)
class Block:
    """A turn: frame i is due at start + i periods; the first `lead_in` are not measured."""

    start_ns: int
    frames: int
    lead_in: int
    period_ns: float

    @property
    def end_ns(self) -> float:
        """When the frame after its last one would be due."""
        return self.start_ns + self.frames * self.period_ns


@dataclass
class Seen:
    """What was measured of a contestant so far."""

    rows: list[np.ndarray] = field(default_factory=list)
    """Of each block: (measured frames, 8) int64, COLUMNS; a frame that never came is a row of 0."""
    blocks: list[Block] = field(default_factory=list)
    cpu_ns: list[dict[str, int]] = field(default_factory=list)
    """Of each block: CPU time of each of its processes, client and lead-in included."""
    lost: int = 0
    """Frames that never came, lead-in included."""
    planes_sha256: list[str | None] = field(default_factory=list)
    """Of each block's last frame."""

    @property
    def frames(self) -> np.ndarray:
        """(n, 8) int64: every measured frame, in the order they were due."""
        return np.concatenate(self.rows) if self.rows else np.zeros((0, len(COLUMNS)), np.int64)


@runtime_checkable
class Contestant(Protocol):
    """What the benchmark needs of a contestant; a stand-in plays it in tests."""

    kind: Kind
    seen: Seen
    said: dict[str, Any]

    def open(self) -> None: ...

    def run(self, block: Block, *, measured: bool) -> None: ...

    def close(self) -> None: ...


def why_missing(kind: Kind) -> str | None:
    """Why a contestant cannot take part, as far as it shows without starting it; None where it may."""
    if kind.needs is not None and importlib.util.find_spec(kind.needs) is None:
        return f"{kind.needs} is not installed; run: pip install -e '.[peers]'"
    return None


class ProcessContestant:
    """A contestant in processes of its own, started once and idle between its turns.

    Args:
        kind: Which.
        config: What its processes need: "format", "frames", "engine", "rate_hz".
        folder: For its sockets.
    """

    def __init__(self, kind: Kind, config: dict[str, Any], folder: Path) -> None:
        self.kind = kind
        self.seen = Seen()
        self.said: dict[str, Any] = {}
        """What it said when it opened: engine, versions, settings."""
        address = f"ipc://{folder / kind.name}"
        self._config = json.dumps({**config, "address": address, "endpoint": address})
        self._workers: list[Worker] = []
        self._sequence = 0

    def open(self) -> None:
        """Start its processes and wait until its engine is warm.

        Raises:
            BenchError: It cannot; the sentence is its own.
        """
        starts = {"sender": self._start_sender, "client": self._start_client}
        for role in ("client", "sender") if self.kind.client_first else ("sender", "client"):
            starts[role]()
        self._sender.tell("open")
        self.said = self._sender.hear(OPEN_S)

    def _start_sender(self) -> None:
        self._sender = Worker(self.kind.sender, "sender", self._config)
        self._workers.append(self._sender)

    def _start_client(self) -> None:
        self._client = Worker(self.kind.client, "client", self._config)
        self._workers.append(self._client)

    def cpu_ns(self) -> dict[str, int]:
        """CPU time that its processes have used since they began: of the client, of the one that works, and of those that
        it has started (source and engine)."""
        used = {"client": process_cpu_ns(self._client.pid)}
        for pid, name in family(self._sender.pid).items():
            # `family` calls the first of them the guard, which is so for ours alone.
            name = "main" if pid == self._sender.pid else name or "other"
            used[name] = used.get(name, 0) + process_cpu_ns(pid)
        return used

    def run(self, block: Block, *, measured: bool) -> None:
        """Have it do a block, and wait for its end.

        Raises:
            BenchError: One of its processes ended or does not answer.
        """
        before_ns = self.cpu_ns()
        self._sender.tell("run", start_ns=block.start_ns, frames=block.frames, period_ns=block.period_ns)
        self._sender.hear(max(0.0, (block.end_ns - time.monotonic_ns()) / 1e9) + OPEN_S)
        said = self._client.ask("take")
        used_ns = {name: spent - before_ns.get(name, 0) for name, spent in self.cpu_ns().items()}
        first, self._sequence = self._sequence, self._sequence + block.frames
        if not measured:
            return
        rows = rows_of_block(np.array(said["rows"], np.int64).reshape(-1, len(COLUMNS)), first, block.frames)
        self.seen.lost += int((rows[:, COLUMNS.index("received")] == 0).sum())
        self.seen.rows.append(rows[block.lead_in :])
        self.seen.blocks.append(block)
        self.seen.cpu_ns.append(used_ns)
        self.seen.planes_sha256.append(said["planes_sha256"])

    def close(self) -> None:
        """End its processes; may be called twice."""
        for worker in self._workers:
            worker.close()


def rows_of_block(rows: np.ndarray, first: int, frames: int) -> np.ndarray:
    """One row for each frame of a block, in order; 0 where it never came.

    Args:
        rows: (n, 8) int64 as a client took them, COLUMNS.
        first: The block's first sequence number.
        frames: How many it has.

    Raises:
        BenchError: A frame came twice, or one of another block.
    """
    place = rows[:, 0] - first
    if place.size and (place.min() < 0 or place.max() >= frames or np.unique(place).size < place.size):
        raise BenchError(f"frames of block {first} to {first + frames - 1} came twice or from another block")
    filled = np.zeros((frames, rows.shape[1]), np.int64)
    filled[place] = rows
    return filled


def process_cpu_ns(pid: int) -> int:
    """CPU time of a process, all its threads, in ns; 0 where it is gone. See clock_getcpuclockid(3)."""
    try:
        # glibc's MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED); Python has this call for threads only.
        return time.clock_gettime_ns((~pid << 3) | 2)
    except OSError:
        return 0
