"""A subscriber that measures: every frame's stamps, read in a process of its own.

`python -m stream.measure ENDPOINT OUT` receives until its standard input ends, then writes OUT (npz). With
`--credit` it tells the publisher what it has read, which is what makes a replay lossless; with `--memory` it reads the frames
in the publisher's memory.
"""

import argparse
import select
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import zmq

from stream.admission import authenticate, client_keys
from stream.control import die_with_parent
from stream.endpoint import parse_endpoint
from stream.errors import PipelineError
from stream.frame import Reason, State
from stream.latency import summarize_ms
from stream.subscribe import Subscriber
from stream.timing import NS_PER_MS, NS_PER_S, Stage

DRAIN_MS = 300
FINISH_S = 10.0
STAGES = {
    "grab": (Stage.DUE, Stage.GRABBED),
    "submit": (Stage.GRABBED, Stage.SUBMITTED),
    "engine": (Stage.SUBMITTED, Stage.INFERRED),
    "guard": (Stage.INFERRED, Stage.PUBLISHED),
    "transport": (Stage.PUBLISHED, Stage.RECEIVED),
}
"""The stages of a frame's way, each from one stamp to another."""


@dataclass(frozen=True)
class Measured:
    """What a measuring client saw, one row per frame received.

    Args:
        sequence: (n,) uint64 source's frame numbers.
        publication: (n,) uint64 publisher's message numbers.
        state: (n,) uint8 `State`.
        reason: (n,) uint8 `Reason`.
        stamps_ns: (n, 6) uint64: due, grabbed, submitted, inferred, published, received; 0 where not passed.
    """

    sequence: np.ndarray
    publication: np.ndarray
    state: np.ndarray
    reason: np.ndarray
    stamps_ns: np.ndarray

    @classmethod
    def load(cls, path: Path) -> "Measured":
        """Read what the client wrote."""
        with np.load(path) as stored:
            return cls(*(stored[name] for name in cls.__dataclass_fields__))

    def stage_ms(self, first: Stage, last: Stage) -> np.ndarray:
        """Time between two stamps in ms, of the frames that passed both."""
        stamps = self.stamps_ns.astype(np.int64)
        passed = (stamps[:, first] > 0) & (stamps[:, last] > 0)
        return np.asarray((stamps[passed, last] - stamps[passed, first]) / NS_PER_MS)

    def check_clock(self) -> None:
        """Refuse stamps of a clock that went back, or of two clocks: no latency can be told from them.

        Raises:
            PipelineError: A frame has a stage's stamp before that of an earlier stage. Due is left out: it is a plan.
        """
        stamps = self.stamps_ns[:, Stage.GRABBED :].astype(np.int64)
        reached = np.maximum.accumulate(stamps, axis=1)
        back_ns = np.where(stamps > 0, reached - stamps, 0).max(axis=1, initial=0)
        if back_ns.any():
            raise PipelineError(
                f"needed stamps that rise from grabbed to received, got {int((back_ns > 0).sum())} of {len(stamps)} frames "
                f"where they fall, by {back_ns.max() / NS_PER_MS:.3f} ms at most; publisher and client must share one clock that "
                "does not go back: run both on one host"
            )

    def summary(self) -> dict[str, object]:
        """fps, latency from due to received, by stage, and what the frames were."""
        received = self.stamps_ns[:, Stage.RECEIVED].astype(np.int64)
        span_s = (received[-1] - received[0]) / NS_PER_S if received.size > 1 else 0.0
        reasons = self.reason[self.state == State.PASSTHROUGH]
        gaps = np.diff(self.publication.astype(np.int64)) - 1
        return {
            "received": int(received.size),
            "lost": int(gaps.sum()) if gaps.size else 0,
            "synthetic": int((self.state == State.SYNTHETIC).sum()),
            "unchanged": int((self.state == State.UNCHANGED).sum()),
            "passthrough": {
                Reason(int(reason)).name.lower(): int((reasons == reason).sum())
                for reason in np.unique(reasons)
            },
            "fps": (received.size - 1) / span_s if span_s > 0 else None,
            "latency_ms": summarize_ms(self.stage_ms(Stage.DUE, Stage.RECEIVED)),
            "stages_ms": {name: summarize_ms(self.stage_ms(*ends)) for name, ends in STAGES.items()},
        }


class MeasuringClient:
    """Runs a measuring client in a process of its own.

    Args:
        endpoint: Where to listen.
        out: Where it writes; read it with `Measured.load`.
        credit: Make the replay wait for this client.
        memory: Read shared memory instead of the wire.
    """

    def __init__(self, endpoint: str, out: Path, *, credit: bool, memory: bool = False) -> None:
        settings = [*(["--credit"] if credit else []), *(["--memory"] if memory else [])]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stream.measure", endpoint, str(out), *settings],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        self._out = out

    def finish(self) -> Measured:
        """Let it take in what is under way and write; returns what it saw.

        Raises:
            PipelineError: It was killed or stopped, or the clock went back.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=FINISH_S)
            measured = Measured.load(self._out)
        except (subprocess.TimeoutExpired, OSError) as error:
            raise PipelineError(f"the measuring client did not report ({type(error).__name__})") from error
        measured.check_clock()
        return measured

    def __enter__(self) -> "MeasuringClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


def receive(endpoint: str, *, credit: bool, memory: bool = False) -> Measured:
    """Receive until standard input ends."""
    subscriber = Subscriber(endpoint, newest_only=False, queue=1000, memory=memory, measuring=True)
    credits = credit_socket(endpoint) if credit else None
    rows: list[tuple[int, int, int, int]] = []
    stamps: list[tuple[int, ...]] = []
    ended = False
    while True:
        message = subscriber.poll(DRAIN_MS if ended else 100)
        if message is not None:
            header = message.header
            rows.append((header.sequence, header.publication, header.state, header.reason))
            stamps.append((*header.stamps_ns, subscriber.received_ns))
            if credits is not None:
                credits.send((1).to_bytes(4, "little"))
        elif ended and not subscriber.has_more():
            break
        ended = ended or bool(select.select([sys.stdin], [], [], 0)[0])
    if credits is not None:
        credits.close(linger=0)
    subscriber.close()
    table = np.array(rows, np.uint64).reshape(-1, 4)
    return Measured(
        table[:, 0],
        table[:, 1],
        table[:, 2].astype(np.uint8),
        table[:, 3].astype(np.uint8),
        np.array(stamps, np.uint64).reshape(-1, 6),
    )


def credit_socket(endpoint: str) -> "zmq.Socket[bytes]":
    """On which a measuring client of a lossless replay says how many frames more it has read, 4 bytes, little-endian."""
    socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PUSH)
    socket.linger = 0
    found = parse_endpoint(endpoint)
    authenticate(socket, client_keys(found.curve))
    socket.connect(found.credit)
    return socket


def main() -> int:
    """Entry point of the measuring client."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("out", type=Path)
    parser.add_argument("--credit", action="store_true")
    parser.add_argument("--memory", action="store_true")
    arguments = parser.parse_args()
    die_with_parent()
    measured = receive(arguments.endpoint, credit=arguments.credit, memory=arguments.memory)
    np.savez(arguments.out, **{name: getattr(measured, name) for name in Measured.__dataclass_fields__})
    return 0


if __name__ == "__main__":
    sys.exit(main())
