"""Contestant: this project's pipeline, whole: source, guard and engine in processes of their own, deadlines, states, leases.

`python -m bench.peer_ours sender|client CONFIG`. The sender is the guard, with the other two as its children.
"""

import json
import os
import select
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from bench.errors import BenchError
from bench.peer import DRAIN_MS, Received, due_ns, role_and_config, versions
from bench.peer_source import BLOCKS_VARIABLE, FORMAT_VARIABLE, FRAMES_VARIABLE
from bench.worker import answer_one, answers
from stream.control import become_child
from stream.errors import StreamError
from stream.frame import Plane, Reason, State
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.sources.options import SourceOptions
from stream.subscribe import Subscriber
from stream.timing import NS_PER_S, Stage
from stream.wire import Message

SETTINGS = (
    "as `run --no-domain` has it: source, guard and engine in a process each, ring in shared memory, PUB/SUB over ipc, "
    "deadline on"
)
OPEN_S = 110.0
LOOK_S = 0.02
WAIT_S = 60.0


class Guard:
    """The guard's process: runs the pipeline in its main thread and answers from another.

    Args:
        config: As the other contestants' processes have it, with "rate_hz" and "folder" for its FIFO.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        fifo = Path(config["folder"]) / "blocks"
        os.mkfifo(fifo)
        os.environ[BLOCKS_VARIABLE] = str(fifo)
        os.environ[FRAMES_VARIABLE] = config["frames"]
        os.environ[FORMAT_VARIABLE] = json.dumps(config["format"])
        # Opened for both, so that it does not wait for the source, which waits for a line.
        self._blocks = os.open(fifo, os.O_RDWR | os.O_CLOEXEC)
        self._total = 0
        self._failure: str | None = None
        engine = config["engine"]
        self.pipeline = Pipeline(
            PipelineConfig(
                source="python:bench.peer_source:BlockSource",
                options=SourceOptions(rate_hz=config["rate_hz"]),
                pacing=Pacing(rate_hz=config["rate_hz"]),
                endpoint=config["endpoint"],
                model=engine["model"],
                engine=engine["backend"],
                untaught=engine["untaught"],
                threads=engine["threads"],
                domain=False,  # nobody else leaves a frame live for its looks
                wait_for_engine=True,
                wait_for_client=True,
            )
        )

    def run(self) -> None:
        """Until standard input ends; a failure is kept as the answer to whatever is asked."""
        out = answers()
        listener = threading.Thread(target=self._listen, args=(out,), name="listen", daemon=True)
        listener.start()
        try:
            self.pipeline.run()
        except StreamError as error:
            self._failure = str(error)
        listener.join()

    def _listen(self, out: Any) -> None:
        for line in sys.stdin:
            answer_one(line, {"open": self._open, "run": self._run}, out, (BenchError,))
        self.pipeline.stop()

    def _check(self, end: float, what: str) -> None:
        if self._failure is not None:
            raise BenchError(self._failure)
        if time.monotonic() > end:
            raise BenchError(f"the pipeline {what}")
        time.sleep(LOOK_S)

    def _open(self) -> dict[str, Any]:
        end = time.monotonic() + OPEN_S
        while not self.pipeline.engine:
            self._check(end, f"had no engine within {OPEN_S:.0f} s")
        said = self.pipeline.engine
        return {
            "engine": {key: said[key] for key in ("backend", "precision", "model_sha256", "taught")},
            "versions": versions("contrastream", "pyzmq"),
            "settings": SETTINGS,
        }

    def _run(self, start_ns: int, frames: int, period_ns: float) -> dict[str, Any]:
        os.write(self._blocks, f"{start_ns} {frames} {period_ns}\n".encode())
        self._total += frames
        end = due_ns(start_ns, period_ns, frames) / NS_PER_S + WAIT_S
        while True:
            counters = (self.pipeline.last_status or {}).get("counters", {})
            if counters.get("due", 0) >= self._total:
                return {}
            self._check(end, f"did not end its block within {WAIT_S:.0f} s")


def row_of(message: Message, received_ns: int) -> tuple[int, ...]:
    """A frame as the other contestants' clients have it; submitted and inferred are 0 for a picture without synthesis, whose
    reason stands at the end."""
    header = message.header
    stamps = [header.stamp_ns(stage) for stage in (Stage.DUE, Stage.GRABBED, Stage.SUBMITTED, Stage.INFERRED)]
    inferred = stamps[3] > 0 and (header.state is State.SYNTHETIC or header.reason is Reason.UNTAUGHT)
    if not inferred:
        stamps[2:] = [0, 0]
    why = 0 if inferred else int(header.reason)
    return (header.sequence, *stamps, header.stamp_ns(Stage.PUBLISHED), received_ns, why)


def client(config: dict[str, Any]) -> None:
    """Receive and stamp."""
    received = Received()
    subscriber = Subscriber(config["endpoint"], newest_only=False, queue=1000, measuring=True)
    out = answers()

    def receive(timeout_ms: int) -> bool:
        if (message := subscriber.poll(timeout_ms)) is not None:
            received.add(row_of(message, subscriber.received_ns))
        return message is not None

    def take() -> dict[str, Any]:
        quiet_by = time.monotonic() + DRAIN_MS / 1000
        while time.monotonic() < quiet_by:
            if receive(DRAIN_MS):
                quiet_by = time.monotonic() + DRAIN_MS / 1000
        message = subscriber.latest
        planes = None
        if message is not None and row_of(message, 0)[4]:
            sent = message.planes
            planes = tuple(sent[plane].ravel() for plane in Plane if plane in sent)
        return received.take(planes)

    while True:
        receive(100)
        if select.select([sys.stdin], [], [], 0)[0]:
            if not (line := sys.stdin.readline()):
                break
            answer_one(line, {"take": take}, out, ())
    subscriber.close()


def main() -> int:
    """Entry point of its two processes."""
    become_child()
    role, config = role_and_config()
    if role == "client":
        client(config)
        return 0
    with tempfile.TemporaryDirectory(prefix="contrastream-peers-") as folder:
        Guard({**config, "folder": folder}).run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
