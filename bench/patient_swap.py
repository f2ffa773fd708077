"""A running stream through a swap: the general model, a patient's adaptation taken over, the general model again.

    python -m bench.patient_swap RUN patient.safetensors --rate 15 --out swap.json

RUN is a recording that the adaptation fits, played in a loop at its rate by `contrastream run`; `contrastream patient` commands it, and
a client here counts every message. The report says what was lost, what each phase of it showed, and how long making ready took. A
Markdown table is written beside it.
"""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from bench import machine
from bench.errors import BenchError
from stream.frame import State
from stream.latency import summarize_ms
from stream.subscribe import Subscriber
from stream.timing import NS_PER_MS, Stage

SCHEMA = "contrastream.bench.patient-swap/1"
WITHIN_S = 900.0
"""A plan for a GPU may take minutes."""
PHASES = ("general", "being made ready", "adapted", "general again")


@dataclass(frozen=True)
class SwapConfig:
    """Count what a client gets while a running stream takes a patient's adaptation over and gives it up."""

    run: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="RUN")]
    """A recording of the projection that the adaptation was taught at."""
    patient: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE")]
    """What contrastream calib patient wrote."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """The report, JSON; a table is written beside it as .md."""
    rate: Annotated[float | None, tyro.conf.arg(metavar="HZ")] = None
    """Frames per second, where the recording does not say."""
    engine: str = "auto"
    """The runtime."""
    seconds: float = 10.0
    """Of each phase."""


@dataclass
class Phase:
    """What a client got in one phase."""

    frames: int = 0
    states: Counter[str] = field(default_factory=Counter)
    adapted: int = 0
    latencies_ms: list[float] = field(default_factory=list)
    longest_without_ms: float = 0.0
    """Longest stretch from one SYNTHETIC frame to the next."""
    last_drawn_ns: int | None = None

    def take(self, message: Any, received_ns: int) -> None:
        """Count a frame."""
        header = message.header
        self.frames += 1
        name = (
            header.state.name
            if header.state is State.SYNTHETIC
            else f"{header.state.name}({header.reason.name.lower()})"
        )
        self.states[name] += 1
        self.adapted += header.adaptation is not None
        self.latencies_ms.append((received_ns - header.stamp_ns(Stage.DUE)) / NS_PER_MS)
        if header.state is State.SYNTHETIC:
            due_ns = header.stamp_ns(Stage.DUE)
            if self.last_drawn_ns is not None:
                self.longest_without_ms = max(
                    self.longest_without_ms, (due_ns - self.last_drawn_ns) / NS_PER_MS
                )
            self.last_drawn_ns = due_ns

    def report(self) -> dict[str, Any]:
        """As the report has it."""
        return {
            "frames": self.frames,
            "states": dict(self.states),
            "adapted": self.adapted,
            "due_to_received_ms": summarize_ms(np.array(self.latencies_ms)),
            "longest_between_drawn_ms": self.longest_without_ms,
        }


class Watch:
    """The client: counts, and knows in which phase it is.

    Args:
        endpoint: The stream.
    """

    def __init__(self, endpoint: str) -> None:
        self.subscriber = Subscriber(endpoint, newest_only=False, queue=1000)
        self.phases = {name: Phase() for name in PHASES}
        self.phase: Phase | None = None

    def until(self, over: Any, within_s: float, what: str) -> None:
        """Receive until `over(message, status)` says so; None for a message is a heartbeat or nothing.

        Raises:
            BenchError: It took too long.
        """
        end = time.monotonic() + within_s
        while time.monotonic() < end:
            message = self.subscriber.poll(20)
            if message is not None and self.phase is not None:
                self.phase.take(message, self.subscriber.received_ns)
            if over(message, self.subscriber.status or {}):
                return
        raise BenchError(f"needed {what} within {within_s:.0f} s, got none; look at the lines above")

    def lasting(self, name: str, seconds: float) -> None:
        """One phase for so long."""
        self.phase = self.phases[name]
        end = time.monotonic() + seconds
        self.until(lambda *_: time.monotonic() >= end, seconds + 5.0, name)


def measure(config: SwapConfig) -> dict[str, Any]:
    """Run it.

    Raises:
        BenchError: The stream does not begin, or refuses the adaptation.
    """
    with tempfile.TemporaryDirectory(prefix="contrastream-swap-") as folder:
        endpoint, summary = f"ipc://{folder}/stream", Path(folder) / "run.json"
        words = [sys.executable, "-m", "contrastream"]
        run = [
            *words,
            "run",
            config.run,
            "--loop",
            "--endpoint",
            endpoint,
            "--engine",
            config.engine,
            "--no-domain",
        ]
        run += ["--no-audit", "--out", str(summary)] + (
            [] if config.rate is None else ["--rate", f"{config.rate:g}"]
        )
        child = subprocess.Popen(run, stdout=subprocess.DEVNULL)
        watch = Watch(endpoint)
        try:
            found = _through(config, watch, [*words, "patient"], endpoint)
        finally:
            child.send_signal(signal.SIGINT)
            child.wait()
            lost = watch.subscriber.statistics()
            watch.subscriber.close()
        said = json.loads(summary.read_text())
    return {
        "schema": SCHEMA,
        "complete": True,
        "machine": machine.describe(),
        "rate_hz": said["source"]["rate_hz"],
        "engine": {
            name: said["engine"][name] for name in ("backend", "precision", "model_sha256", "inference_ms")
        },
        "engine_restarts": said["engine_restarts"],
        "publisher": said["counters"],
        "client": lost,
        **found,
        "phases": {name: phase.report() for name, phase in watch.phases.items()},
    }


def _through(config: SwapConfig, watch: Watch, command: list[str], endpoint: str) -> dict[str, Any]:
    watch.until(_drawn, 120.0, "a frame that was drawn on")
    watch.lasting("general", config.seconds)
    watch.phase = watch.phases["being made ready"]
    asked_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    taking = subprocess.Popen(
        [*command, str(config.patient), "--endpoint", endpoint],
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=_as_a_user,
    )

    def taken(message: Any, status: dict[str, Any]) -> bool:
        if taking.poll() not in (None, 0):
            raise BenchError("needed an adaptation that this stream takes, got the sentence above")
        return message is not None and message.header.adaptation is not None

    watch.until(taken, WITHIN_S, "a frame that the adaptation drew")
    first_ns = watch.subscriber.received_ns
    watch.phase = watch.phases["adapted"]
    # Frames are taken all the while: the command ends a moment later.
    watch.until(lambda *_: taking.poll() is not None, 60.0, "the command's end")
    said, _ = taking.communicate()
    watch.lasting("adapted", config.seconds)
    ready = (watch.subscriber.status or {}).get("adaptation") or {}
    off = subprocess.Popen(
        [*command, "off", "--endpoint", endpoint], stdout=subprocess.DEVNULL, preexec_fn=_as_a_user
    )
    # Until the command is there the adaptation draws; its answer comes when the pipeline has taken it.
    watch.until(lambda *_: off.poll() is not None, 60.0, "an answer to off")
    watch.lasting("general again", config.seconds)
    return {
        "adaptation": {
            name: ready.get(name)
            for name in ("words", "ready_ms", "distance", "limit", "draws", "why_general")
        },
        "said": said.strip().splitlines(),
        "command_to_first_adapted_frame_ms": (first_ns - asked_ns) / NS_PER_MS,
        "adapted_after_off_was_answered": watch.phases["general again"].adapted,
    }


def _as_a_user() -> None:
    """A command is typed in a shell, whatever priority the stream runs at."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def _drawn(message: Any, status: dict[str, Any]) -> bool:
    return message is not None and message.header.state is State.SYNTHETIC


def table(report: dict[str, Any]) -> str:
    """The report for people."""
    adaptation, engine, client = report["adaptation"], report["engine"], report["client"]
    lines = [
        "# A stream through a swap to a patient's adaptation and back",
        "",
        f"`python -m bench.patient_swap`, {report['rate_hz']:g} frames per second, {engine['backend']} {engine['precision']}, model "
        f"{engine['model_sha256'][:8]}; {machine.one_line(report['machine'])}.",
        "",
        f"- Published {report['publisher']['published']}, received {client['received']} from the first drawn frame on, **lost {client['lost']}**; "
        f"dropped: {report['publisher']['dropped'] or 'none'}; engine restarts: {report['engine_restarts']}.",
        f"- {adaptation['words']}: made ready in {adaptation['ready_ms'] / 1000:.2f} s; {report['command_to_first_adapted_frame_ms'] / 1000:.2f} s from the "
        "command's start (which loads Python and checks the file first) to the first frame that it drew.",
        f"- Frames that it drew after `off` was answered, which were in the engine then: {report['adapted_after_off_was_answered']}.",
        "",
        "| phase | frames | SYNTHETIC | of these adapted | others | due to received p50, ms | p95 | max | longest from drawn to drawn, ms |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for name, phase in report["phases"].items():
        latency, states = phase["due_to_received_ms"], dict(phase["states"])
        drawn = states.pop("SYNTHETIC", 0)
        others = ", ".join(f"{state} {count}" for state, count in states.items()) or "none"

        def number(value: float | None) -> str:
            return "-" if value is None else f"{value:.1f}"

        figures = " | ".join(number(latency[column]) for column in ("p50", "p95", "max"))
        lines.append(
            f"| {name} | {phase['frames']} | {drawn} | {phase['adapted']} | {others} | {figures} | {phase['longest_between_drawn_ms']:.0f} |"
        )
    lines += ["", "Research tool, not a medical device."]
    return "\n".join(lines) + "\n"


def main() -> int:
    """The command: exit status 0, 1 where frames were lost, 2 for what the user can mend."""
    config = tyro.cli(SwapConfig, prog="python -m bench.patient_swap")
    try:
        report = measure(config)
    except BenchError as error:
        print(f"contrastream: {error}", file=sys.stderr)
        return 2
    config.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    config.out.with_suffix(".md").write_text(table(report), encoding="utf-8")
    print(table(report))
    return 1 if report["client"]["lost"] else 0


if __name__ == "__main__":
    sys.exit(main())
