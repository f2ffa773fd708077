"""`contrastream bench scale`: 1, 2, 4 ... streams on one engine host, each with a client of its own, until frames miss.

A stream keeps up when at least 98 % of its frames went out with their synthesis in time. All streams of a step are
measured over the time in which all of them run; the first step in which one does not keep up is the last.
"""

import contextlib
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.config import ScaleConfig
from bench.errors import BenchError
from bench.machine import busy_ms, one_line, steal_ms
from bench.outputs import Outputs
from stream import accounts
from stream.endpoint import numbered_endpoint
from stream.frame import Reason, State
from stream.latency import summarize_ms
from stream.measure import Measured, MeasuringClient
from stream.pacing import Pacing
from stream.pipeline_config import PipelineConfig
from stream.rooms import Rooms
from stream.session import stopped_by_signals
from stream.sources.options import SourceOptions
from stream.statusline import StatusLine, format_rooms, log_to_stderr
from stream.timing import NS_PER_MS, Stage

SCHEMA = "contrastream.bench.scale/1"
KEEPS_UP = 0.98
"""Share of a stream's frames in time; as bench live's."""
WARM_UP = 60
LATER = 30
"""Frames that each stream goes on after its measured ones, so that all run while any is measured."""


def bench_scale(config: ScaleConfig) -> int:
    """Run the workload.

    Returns:
        0 when the run is whole, 130 when Ctrl-C stopped it; the report then says so.

    Raises:
        BenchError: The streams cannot be started.
    """
    log_to_stderr()
    outputs = Outputs(config.out)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "complete": False,
        "machine": machine.describe(),
        "workload": {
            "name": "scale",
            "source": "phantom" if config.source == "phantom" else "recording",
            "size": config.size if config.source == "phantom" else None,
            "rate_hz": config.rate,
            "frames": config.frames,
            "warmup": WARM_UP,
            "threads": config.threads,
            "keeps_up": f"at least {KEEPS_UP:g} of a stream's frames with their synthesis in time",
        },
        "engine": {},
        "steps": [],
    }
    for count in config.streams:
        print(f"bench: {count} stream{'s' if count > 1 else ''}", file=sys.stderr, flush=True)
        step, engine, complete = measure_step(config, count)
        report["engine"] = engine or report["engine"]
        if step is not None:
            report["steps"].append(step)
        if not complete:
            break
        if step is not None and not step["keeps_up"]:
            report["complete"] = True
            break
    else:
        report["complete"] = True
    kept = [step["streams"] for step in report["steps"] if step["keeps_up"]]
    report["streams_kept_up"] = max(kept, default=0)
    report["limit_found"] = any(not step["keeps_up"] for step in report["steps"])
    print(format_scale(report))
    outputs.write(report)
    return 0 if report["complete"] else 130


def measure_step(config: ScaleConfig, count: int) -> tuple[dict[str, Any] | None, dict[str, Any], bool]:
    """So many streams: their row, what engine drew them, and whether they ran to their end."""
    total = WARM_UP + config.frames + LATER
    base = f"bench-scale-{time.monotonic_ns()}"
    endpoints = [numbered_endpoint(base, number) for number in range(1, count + 1)]
    rooms = Rooms([room_config(config, endpoint, number, total) for number, endpoint in enumerate(endpoints)])
    with tempfile.TemporaryDirectory(prefix="contrastream-bench-") as folder, contextlib.ExitStack() as stack:
        seen = [Path(folder) / f"{number}.npz" for number in range(count)]
        clients = [
            stack.enter_context(MeasuringClient(endpoint, out, credit=False))
            for endpoint, out in zip(endpoints, seen, strict=True)
        ]
        load = LoadWatch()
        line = StatusLine(lambda: rooms.statuses, form=format_rooms)
        try:
            with stopped_by_signals(rooms):
                rooms.run()
        finally:
            line.close()
            used = load.finish()
        measured = [client.finish() for client in clients]
    for status in rooms.statuses:
        accounts.check(status["counters"] if status else {})
    statuses = [status for status in rooms.statuses if status is not None]
    engine: dict[str, Any] = next((s["engine"] for s in statuses if s["engine"]), {})
    complete = len(statuses) == count and all(status["counters"].get("due") == total for status in statuses)
    step = step_row(measured, config, statuses) if complete else None
    if step is not None:
        step |= used
    return step, engine, complete


def room_config(config: ScaleConfig, endpoint: str, number: int, frames: int) -> PipelineConfig:
    """One stream; each phantom is another patient."""
    phantom = config.source == "phantom"
    return PipelineConfig(
        source=config.source,
        options=SourceOptions(
            rate_hz=config.rate, size=config.size if phantom else None, seed=number if phantom else None
        ),
        pacing=Pacing(rate_hz=config.rate, loop=True, frames=frames),
        endpoint=endpoint,
        model=config.model,
        engine=config.engine,
        untaught=True,
        domain=False,  # what is measured is the drawing, also of a loop on which nobody should see it
        threads=config.threads,
        wait_for_engine=True,
        wait_for_client=True,
    )


def step_row(measured: list[Measured], config: ScaleConfig, statuses: list[dict[str, Any]]) -> dict[str, Any]:
    """What so many streams come to, over the time in which all of them run.

    Args:
        measured: What each stream's client saw.
        config: What was asked.
        statuses: Each stream's last heartbeat.

    Raises:
        BenchError: The streams did not run at the same time.
    """
    due_ns = [each.stamps_ns[:, Stage.DUE].astype(np.int64) for each in measured]
    firsts = [due[each.sequence >= WARM_UP] for due, each in zip(due_ns, measured, strict=True)]
    if any(first.size == 0 for first in firsts):
        raise BenchError("a stream's client saw none of its frames; run it again with more --frames")
    start_ns = max(int(first[0]) for first in firsts)
    end_ns = min(int(due[-1]) for due in due_ns)
    rows: list[dict[str, Any]] = []
    for each, due, status in zip(measured, due_ns, statuses, strict=True):
        inside = (due >= start_ns) & (due <= end_ns) & (each.sequence >= WARM_UP)
        latency = (each.stamps_ns[inside, Stage.RECEIVED].astype(np.int64) - due[inside]) / NS_PER_MS
        untaught = (each.state == State.PASSTHROUGH) & (each.reason == Reason.UNTAUGHT)
        in_time = ((each.state == State.SYNTHETIC) | untaught)[inside]
        # By number, so that a frame that never came counts as missed.
        numbers = each.sequence[inside].astype(np.int64)
        frames = int(numbers[-1] - numbers[0]) + 1 if numbers.size else 0
        rows.append(
            {
                "frames": frames,
                "received": int(numbers.size),
                "in_time_share": float(in_time.sum()) / frames if frames else None,
                "latency_ms": summarize_ms(latency),
                "passed_over": int(status["counters"].get("passed_over", 0)),
                "dropped": dict(status["counters"].get("dropped", {})),
            }
        )
    if any(not row["frames"] for row in rows):
        raise BenchError("the streams did not run at the same time; run it again with more --frames")
    in_time = [float(row["in_time_share"] or 0.0) for row in rows]
    overlap_s = (end_ns - start_ns) / 1e9
    return {
        "streams": len(rows),
        "overlap_s": overlap_s,
        "least_in_time_share": min(in_time),
        "keeps_up": min(in_time) >= KEEPS_UP,
        "synthesized_fps": sum(share * row["frames"] for share, row in zip(in_time, rows, strict=True))
        / max(overlap_s, 1e-9),
        "worst_p50_ms": max(float(row["latency_ms"]["p50"]) for row in rows),
        "worst_p95_ms": max(float(row["latency_ms"]["p95"]) for row in rows),
        "worst_p99_ms": max(
            (float(row["latency_ms"]["p99"]) for row in rows if row["latency_ms"]["p99"] is not None),
            default=None,
        ),
        "worst_max_ms": max(float(row["latency_ms"]["max"]) for row in rows),
        "rooms": rows,
    }


class LoadWatch:
    """Steal and busy time of the machine over a step."""

    def __init__(self) -> None:
        self._start_s, self._busy_ms, self._steal_ms = time.monotonic(), busy_ms(), steal_ms()

    def finish(self) -> dict[str, float | None]:
        """Cores that were busy on average, and the share of a core that the host took."""
        passed_ms = (time.monotonic() - self._start_s) * 1e3
        steal = steal_ms()
        return {
            "busy_cores": (busy_ms() - self._busy_ms) / passed_ms,
            "steal_share": None
            if steal is None or self._steal_ms is None
            else (steal - self._steal_ms) / passed_ms,
        }


def _number(value: float | None, form: str = ".1f") -> str:
    return "-" if value is None else format(value, form)


def format_scale(report: dict[str, Any]) -> str:
    """The report as a short table for a terminal."""
    work, engine = report["workload"], report["engine"]
    size = f" {work['size']}x{work['size']}" if work["size"] else ""
    lines = [
        "" if report["complete"] else "INCOMPLETE: stopped before its end\n",
        f"machine  {one_line(report['machine'])}",
        f"workload {work['source']}{size}, {work['rate_hz']:g} per second each, {work['frames']} frames after "
        f"{work['warmup']} to warm up; one engine process for all",
        f"engine   {engine.get('backend', 'none')} {engine.get('precision', '')} {engine.get('model_sha256', '')[:8]}"
        + (" (UNTAUGHT: inferred but not sent as synthetic)" if engine.get("taught") is False else ""),
        "",
        f"{'':>7}|{'in time, of the':^17}|{'drawn':>9} |{'due to received, worst stream, ms':^36}|{'busy':>7}{'host':>8}",
        f"{'streams':>7}|{'worst stream':^17}|{'per s':>9} |{'p50':>9}{'p95':>9}{'p99':>9}{'max':>9}|{'cores':>7}{'steal':>8}",
    ]
    for step in report["steps"]:
        verdict = "" if step["keeps_up"] else "  <- does not keep up"
        latency = "".join(f"{_number(step[f'worst_{name}_ms']):>9}" for name in ("p50", "p95", "p99", "max"))
        steal = "-" if step["steal_share"] is None else f"{100 * step['steal_share']:.1f} %"
        lines.append(
            f"{step['streams']:>7}|{100 * step['least_in_time_share']:>14.1f} % |{step['synthesized_fps']:>9.1f} |"
            f"{latency}|{step['busy_cores']:>7.2f}{steal:>8}{verdict}"
        )
    kept = report["streams_kept_up"]
    tail = "" if report["limit_found"] else ", and the limit was not found: try more with --streams"
    lines += [
        "",
        f"{kept} stream{'' if kept == 1 else 's'} kept up ({work['keeps_up']}){tail}.",
        "p99 wants 1,000 frames of a stream. Research tool, not a medical device.",
    ]
    return "\n".join(lines).lstrip("\n")
