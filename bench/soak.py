"""`contrastream bench soak`: hours of it, in constant memory, and whether anything drifts.

Paced, latency runs from the instant a frame was due, as everywhere. Compressed, a lossless replay goes as fast as the
machine does, so that a day's frames pass in less than a day; latency then runs from the grab, and says nothing of a
room. Each window of frames gives a point for each figure that must stay flat: latency, memory, descriptors, threads.
"""

import dataclasses
import json
import math
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from bench import machine
from bench.config import SoakConfig
from bench.errors import BenchError
from bench.machine import one_line, steal_ms
from bench.outputs import Outputs
from bench.stats import slope
from bench.witness import family, sample_process
from stream import accounts
from stream.errors import StreamError
from stream.latency import summarize_ms
from stream.pacing import Pacing
from stream.pipeline import Pipeline, PipelineConfig
from stream.session import stopped_by_signals, write_json
from stream.sources.options import SourceOptions
from stream.statusline import StatusLine, log_to_stderr

SCHEMA = "contrastream.bench.soak/1"
WINDOWS = 200
"""Points of a whole run; a window holds 100 frames at least."""
LEAST_WINDOW = 100
SETTLE = 0.2
"""Share of the run that memory and caches may take to settle; drift is judged after it."""
RESAMPLES = 1_000
FINISH_S = 15.0
LIMITS = {
    "latency_p50_ms": (0.05, "ms per 1,000 frames, beyond 1 % of it"),
    "anonymous_kib": (16.0, "KiB per 1,000 frames"),
    "descriptors": (0.05, "per 1,000 frames"),
    "threads": (0.05, "per 1,000 frames"),
}
"""A slope whose whole 95 % interval lies above this is a drift."""


def bench_soak(config: SoakConfig) -> int:
    """Run the workload.

    Returns:
        0 when the run is whole, 130 when Ctrl-C stopped it; the report is then of what there was, and says so.

    Raises:
        BenchError: The client does not report.
        StreamError: As `Pipeline.run`.
    """
    log_to_stderr()
    outputs = Outputs(config.out)
    window = max(LEAST_WINDOW, config.total_frames // WINDOWS)
    pipeline = Pipeline(pipeline_config(config))
    usage = UsageLog()
    stolen_ms, start_s = steal_ms(), time.monotonic()
    with (
        tempfile.TemporaryDirectory(prefix="contrastream-soak-") as folder,
        SoakClient(
            pipeline.endpoint.text, Path(folder) / "seen.json", window, credit=config.compressed
        ) as client,
    ):
        watcher = WindowWatcher(pipeline, usage, window, client, config)
        line = StatusLine(lambda: pipeline.last_status)
        try:
            watcher.start()
            with stopped_by_signals(pipeline):
                pipeline.run()
        finally:
            watcher.finish()
            line.close()
        seen = client.finish()
    status = pipeline.last_status or {}
    report = soak_report(config, window, seen, usage.points, status)
    now_ms = steal_ms()
    passed_ms = (time.monotonic() - start_s) * 1e3
    report["steal_share"] = None if now_ms is None or stolen_ms is None else (now_ms - stolen_ms) / passed_ms
    report["seconds"] = passed_ms / 1e3
    print(format_soak(report))
    outputs.write(report)
    accounts.check(status.get("counters") or {})
    return 0 if report["complete"] else 130


def pipeline_config(config: SoakConfig) -> PipelineConfig:
    """The pipeline as a room has it; compressed, as a lossless replay."""
    pacing = Pacing(rate_hz=config.rate, loop=True, frames=config.total_frames)
    if config.compressed:
        pacing = dataclasses.replace(pacing, speed=math.inf, lossless=True)
    size = config.size if config.source == "phantom" else None
    return PipelineConfig(
        source=config.source,
        options=SourceOptions(rate_hz=config.rate, size=size),
        pacing=pacing,
        endpoint=f"bench-soak-{time.monotonic_ns()}",
        model=config.model,
        engine=config.engine,
        untaught=True,
        domain=False,  # what is measured is the drawing, also of a loop on which nobody should see it
        threads=config.threads,
        wait_for_engine=True,
        wait_for_client=True,
    )


class SoakClient:
    """Runs the soak's client.

    Args:
        endpoint: Where to listen.
        snapshot: Where it writes.
        window: Frames of a window.
        credit: Make the replay wait for it.
    """

    def __init__(self, endpoint: str, snapshot: Path, window: int, *, credit: bool) -> None:
        command = [sys.executable, "-m", "bench.soak_client", endpoint, str(snapshot), str(window)]
        self._process = subprocess.Popen(
            [*command, *(["--credit"] if credit else [])], stdin=subprocess.PIPE, start_new_session=True
        )
        self._snapshot = snapshot

    def seen(self) -> dict[str, Any] | None:
        """Its last snapshot; None before the first."""
        try:
            return dict(json.loads(self._snapshot.read_text()))
        except FileNotFoundError:
            return None

    def finish(self) -> dict[str, Any]:
        """Let it take in what is under way; returns what it saw.

        Raises:
            BenchError: It was killed or stopped, before its first snapshot.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(FINISH_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
        if (seen := self.seen()) is None:
            raise BenchError("the soak's client ended before it had seen a window of frames")
        return seen

    def __enter__(self) -> "SoakClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()


class UsageLog:
    """What the pipeline's processes hold, a point a window."""

    def __init__(self) -> None:
        self.points: list[dict[str, Any]] = []

    def take(self, frames: int) -> None:
        """Look at every process now."""
        processes: dict[str, dict[str, float]] = {}
        for pid, name in family(os.getpid()).items():
            used = sample_process(pid) if name is not None else None
            if used is not None and name is not None:
                processes[name] = {
                    "pid": pid,
                    "anonymous_kib": used.anonymous_bytes / 1024,
                    "descriptors": _count(Path(f"/proc/{pid}/fd")),
                    "threads": _count(Path(f"/proc/{pid}/task")),
                }
        self.points.append({"frames": frames, "processes": processes})


def _count(folder: Path) -> float:
    try:
        return float(sum(1 for _ in folder.iterdir()))
    except OSError:
        return math.nan


class WindowWatcher:
    """Takes a point of usage each window and writes a report so far, from a thread of its own."""

    def __init__(
        self, pipeline: Pipeline, usage: UsageLog, window: int, client: SoakClient, config: SoakConfig
    ) -> None:
        self._pipeline, self._usage, self._window = pipeline, usage, window
        self._client, self._config = client, config
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="soak-watch", daemon=True)
        self.start = self._thread.start

    def _watch(self) -> None:
        next_at = self._window
        while not self._over.wait(0.2):
            status = self._pipeline.last_status or {}
            published = int(status.get("counters", {}).get("published", 0))
            if published >= next_at:
                next_at = (published // self._window + 1) * self._window
                self._usage.take(published)
                self._write_so_far(status)

    def _write_so_far(self, status: dict[str, Any]) -> None:
        if self._config.out is None or (seen := self._client.seen()) is None:
            return
        try:
            write_json(
                self._config.out, soak_report(self._config, self._window, seen, self._usage.points, status)
            )
        except StreamError as error:  # a disk that is full now may not be at the end
            print(f"bench: {error}", file=sys.stderr, flush=True)

    def finish(self) -> None:
        """Stop looking; may be called before it began."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()


# The report ----------------------------------------------------------------------------------------------------


def soak_report(
    config: SoakConfig,
    window: int,
    seen: dict[str, Any],
    points: list[dict[str, Any]],
    status: dict[str, Any],
) -> dict[str, Any]:
    """What a soak has come to so far."""
    counters = status.get("counters") or {}
    due = int(counters.get("due", 0))
    accounted = (
        int(counters.get("published", 0))
        + int(counters.get("repeated", 0))
        + sum(int(count) for count in (counters.get("dropped") or {}).values())
    )
    return {
        "schema": SCHEMA,
        "complete": due >= config.total_frames and bool(status.get("ended")),
        "machine": machine.describe(),
        "workload": {
            "name": "soak",
            "source": (status.get("source") or {}).get("kind"),
            "rate_hz": config.rate,
            "compressed": config.compressed,
            "frames": config.total_frames,
            "window": window,
            "size": config.size if config.source == "phantom" else None,
            "latency_from": "grabbed: compressed time has no due times of a room"
            if config.compressed
            else "due",
            "settle_share": SETTLE,
        },
        "engine": status.get("engine") or {},
        "counters": counters,
        "unaccounted": due - accounted,
        "restarts": {name: status.get(f"{name}_restarts") for name in ("engine", "source")},
        "client": seen,
        "usage": points,
        "drift": drifts(seen.get("windows", []), points, seen.get("latency_ms", {}).get("p50")),
    }


def drifts(
    windows: list[dict[str, Any]], points: list[dict[str, Any]], p50_ms: float | None
) -> list[dict[str, Any]]:
    """Whether a figure rises over the run, each with its slope's 95 % interval.

    Args:
        windows: The client's, with the latency of each.
        points: What the processes held.
        p50_ms: Of the whole run; latency may move by one per cent of it.
    """
    rows = []
    frames = np.array([window["frames"] for window in windows], np.float64)
    p50 = np.array([window["latency_ms"]["p50"] for window in windows], np.float64)
    limit, unit = LIMITS["latency_p50_ms"]
    rows.append(_drift("latency, p50 of a window", frames, p50, limit + 0.01 * (p50_ms or 0.0), unit))
    names = sorted({name for point in points for name in point["processes"]})
    for name in names:
        own = [(point["frames"], point["processes"][name]) for point in points if name in point["processes"]]
        last = own[-1][1]["pid"]
        own = [(count, used) for count, used in own if used["pid"] == last]  # of its last life
        at = np.array([count for count, _ in own], np.float64)
        for figure in ("anonymous_kib", "descriptors", "threads"):
            values = np.array([used[figure] for _, used in own], np.float64)
            limit, unit = LIMITS[figure]
            rows.append(_drift(f"{name}: {figure.replace('_kib', ' memory')}", at, values, limit, unit))
    return rows


def _drift(name: str, frames: np.ndarray, values: np.ndarray, limit: float, unit: str) -> dict[str, Any]:
    settled = frames >= SETTLE * frames.max(initial=0.0)
    frames, values = frames[settled], values[settled]
    found = slope(frames, values)
    row: dict[str, Any] = {
        "name": name,
        "slope": None,
        "low": None,
        "high": None,
        "limit": limit,
        "unit": unit,
    }
    if found is None or frames.size < 8:
        return {**row, "verdict": "cannot tell: too few windows"}
    random = np.random.default_rng(0)
    drawn = []
    for _ in range(RESAMPLES):
        chosen = random.integers(frames.size, size=frames.size)
        if (one := slope(frames[chosen], values[chosen])) is not None:
            drawn.append(one)
    low, high = np.percentile(drawn, (2.5, 97.5)) * 1000.0
    verdict = "RISES" if low > limit else "flat" if high <= limit else "cannot tell"
    return {**row, "slope": 1000.0 * found, "low": float(low), "high": float(high), "verdict": verdict}


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def format_soak(report: dict[str, Any]) -> str:
    """The report as a short table for a terminal."""
    work, engine, client, counters = (report[key] for key in ("workload", "engine", "client", "counters"))
    passed = f"{report['seconds'] / 60:.1f} minutes" if "seconds" in report else ""
    empty = summarize_ms(np.zeros(0))
    lines = [
        "" if report["complete"] else "INCOMPLETE: stopped before its end\n",
        f"machine  {one_line(report['machine'])}",
        f"workload {work['source']}, {work['frames']} frames "
        + (
            "as fast as they go without a loss"
            if work["compressed"]
            else f"at {work['rate_hz']:g} per second"
        )
        + f", {client['frames']} seen in {passed}; windows of {work['window']}",
        f"engine   {engine.get('backend', 'none')} {engine.get('precision', '')} {(engine.get('model_sha256') or '')[:8]}, "
        f"{report['restarts']['engine']} restarts",
        f"frames   {counters.get('published', 0)} published, {client['lost']} lost on the way, {report['unaccounted']} "
        f"unaccounted for; PASSTHROUGH {client['passthrough'] or 'none'}, dropped {counters.get('dropped') or 'none'}",
        "",
        f"{'ms':34}{'n':>9}" + "".join(f"{name:>9}" for name in ("p50", "p95", "p99", "p99.9", "max")),
    ]
    latency = {
        f"{work['latency_from'].partition(':')[0]} to received": client["latency_ms"],
        **client["stages_ms"],
    }
    for name, summary in latency.items():
        summary = {**empty, **summary}
        figures = "".join(f"{_number(summary[key]):>9}" for key in ("p50", "p95", "p99", "p99.9", "max"))
        lines.append(f"  {name:32}{summary['n']:>9}{figures}")
    lines += ["", f"{'drift, per 1,000 frames':34}{'slope':>11}{'95 % interval':>26}{'limit':>10}"]
    for row in report["drift"]:
        interval = f"{_number(row['low'], '.4f')} to {_number(row['high'], '.4f')}"
        lines.append(
            f"  {row['name']:32}{_number(row['slope'], '.4f'):>11}{interval:>26}{row['limit']:>10.2f}  {row['verdict']}"
        )
    lines.append(
        "Percentiles to 1 %; p99 wants 1,000 frames, p99.9 10,000. Research tool, not a medical device."
    )
    return "\n".join(lines).lstrip("\n")
