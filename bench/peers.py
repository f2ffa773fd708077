"""`bench peers`: the same work done by what people use instead, in one run, in turns.

Contestants (bench/contestant.py): a plain Python loop with imagezmq, Holoscan, raw pyzmq, and the pipeline of this project. Each
is started once, warmed up, and then idle between its turns: A B C D A B C D ..., so that all of them meet the same
machine. Same frames, same engine and threads, same schedule, same bytes to a client in a process of its own. Latency runs from the
instant a frame was due to the instant the client holds it; a frame that never came, or came without its synthesis, counts
as later than any other.
"""

import dataclasses
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.config import PeersConfig
from bench.contestant import KINDS, LEAD_IN, WARM_UP, Block, Contestant, Kind, ProcessContestant, why_missing
from bench.errors import BenchError
from bench.outputs import Outputs
from bench.peers_report import build_report, samples_of
from bench.peers_table import format_peers
from bench.witness import Witness, WitnessRecord
from bench.worker import Worker
from stream.reported import reported_source
from stream.sources.options import SourceOptions
from stream.timing import NS_PER_MS, NS_PER_S

LEAD_NS = 250 * NS_PER_MS


@dataclass
class Run:
    """Everything a run has gathered so far."""

    config: PeersConfig
    machine: dict[str, Any]
    source: dict[str, Any] = field(default_factory=dict)
    """Kind, format and number of distinct frames."""
    contestants: list[Contestant] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)
    """By name: why a contestant did not take part, or not to the end."""
    rounds: int = 0
    """Whole rounds that were measured."""
    steal_ms: float | None = None
    busy_ms: float = 0.0
    """CPU time of all processes of this machine during the rounds."""
    wall_ms: float = 0.0
    """Time the rounds took."""
    witness: WitnessRecord | None = None
    complete: bool = False


def bench_peers(config: PeersConfig) -> int:
    """`contrastream bench peers`.

    Returns:
        0 when the run is whole, 130 when it was stopped by Ctrl-C; the report then says so, and holds whole rounds only.

    Raises:
        BenchError: The source or the engine cannot be opened, this project's own pipeline failed, or the report cannot be written.
    """
    outputs = Outputs(config.out)
    run = Run(config, machine.describe())
    try:
        measure(run)
        run.complete = True
    except KeyboardInterrupt:
        say("stopped; the report is incomplete and holds the rounds that were whole")
    report = build_report(run)
    print(format_peers(report))
    outputs.write(report, [samples_of(run)])
    return 0 if run.complete else 130


def say(text: str) -> None:
    """A line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def turns(frames: int, rounds: int) -> list[int]:
    """Frames measured in each round; they add up to `frames`, and no two differ by more than one."""
    return [frames // rounds + (1 if index < frames % rounds else 0) for index in range(rounds)]


def measure(run: Run) -> None:
    """Open everything, then the rounds; fills `run`."""
    config = run.config
    with tempfile.TemporaryDirectory(prefix="contrastream-peers-") as name:
        folder = Path(name)
        say(f"decoding the {reported_source(config.source)}")
        setup = load_frames(run, folder)
        try:
            # Ours first: what is wrong with the model or the engine is then said once, as an error.
            for kind in reversed(KINDS):
                open_contestant(run, kind, setup, folder)
            run.contestants.reverse()
            check_same_engine(run.contestants)
            measure_rounds(run)
        finally:
            for contestant in run.contestants:
                contestant.close()


def load_frames(run: Run, folder: Path) -> dict[str, Any]:
    """Decode the source into a file; returns what each contestant is told.

    Raises:
        BenchError: It cannot be opened, or is no recording.
    """
    config = run.config
    options = SourceOptions(rate_hz=config.rate, size=config.size if config.source == "phantom" else None)
    path = folder / "frames.npy"
    worker = Worker("bench.peer_source")
    try:
        run.source = worker.ask(
            "load", source=config.source, options=dataclasses.asdict(options), path=str(path)
        )
    finally:
        worker.close()
    return {
        "format": run.source["format"],
        "frames": str(path),
        "rate_hz": config.rate,
        "engine": {
            "model": config.model,
            "backend": config.engine,
            "untaught": True,
            "threads": config.threads,
        },
    }


def open_contestant(run: Run, kind: Kind, setup: dict[str, Any], folder: Path) -> None:
    """Start and warm up a contestant, or note why it does not take part.

    Raises:
        BenchError: Ours cannot be opened.
    """
    if (reason := why_missing(kind)) is not None:
        say(f"{kind.name} is left out: {reason}")
        run.skipped[kind.name] = reason
        return
    say(f"opening {kind.name}")
    contestant = ProcessContestant(kind, setup, folder)
    try:
        contestant.open()
        contestant.run(block_at(run.config, WARM_UP, 0), measured=False)
    except BenchError as error:
        contestant.close()
        if kind.name == "ours":
            raise
        say(f"{kind.name} is left out: {error}")
        run.skipped[kind.name] = str(error)
        return
    except BaseException:
        contestant.close()
        raise
    run.contestants.append(contestant)


def check_same_engine(contestants: Sequence[Contestant]) -> None:
    """Refuse to compare different engines.

    Raises:
        BenchError: They differ, as they may when `auto` finds a GPU that only one of them can use.
    """
    engines = {json.dumps(contestant.said["engine"], sort_keys=True) for contestant in contestants}
    if len(engines) > 1:
        raise BenchError(
            f"needed the same engine for each contestant, got {' and '.join(sorted(engines))}; name one with --engine"
        )


def block_at(config: PeersConfig, frames: int, lead_in: int) -> Block:
    """A block that begins soon."""
    return Block(time.monotonic_ns() + LEAD_NS, lead_in + frames, lead_in, NS_PER_S / config.rate)


def measure_rounds(run: Run) -> None:
    """Turn by turn. A peer that fails is left out from then on, with the reason; ours failing ends the run."""
    witness = Witness()
    start_ns, steal_ms, busy_ms = time.monotonic_ns(), machine.steal_ms(), machine.busy_ms()
    try:
        for frames in turns(run.config.frames, run.config.rounds):
            say(f"round {run.rounds + 1} of {run.config.rounds}: {frames} frames each")
            for contestant in list(run.contestants):
                take_turn(run, contestant, block_at(run.config, frames, LEAD_IN))
            run.rounds += 1
    finally:
        run.wall_ms = (time.monotonic_ns() - start_ns) / NS_PER_MS
        run.busy_ms = machine.busy_ms() - busy_ms
        stolen = machine.steal_ms()
        run.steal_ms = None if stolen is None or steal_ms is None else stolen - steal_ms
        try:
            run.witness = witness.record()
        finally:
            witness.close()


def take_turn(run: Run, contestant: Contestant, block: Block) -> None:
    """One block of one contestant."""
    try:
        contestant.run(block, measured=True)
    except BenchError as error:
        if contestant.kind.name == "ours":
            raise
        say(f"{contestant.kind.name} failed in round {run.rounds + 1}: {error}")
        run.skipped[contestant.kind.name] = f"failed in round {run.rounds + 1}: {error}"
        contestant.close()
        run.contestants.remove(contestant)
