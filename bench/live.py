"""The whole live path, paced, beside a floor of the same hops in the same run.

What runs, in this order; each part meets the same machine:

1. the engine alone: inferences one after the other, then at the frame rate
2. the floor alone
3. the pipeline in this process with its client in another; in every second stretch of frames the floor runs
   beside it, half a gap out of step, so that whatever the machine does hits both
4. the floor alone and the engine alone again
5. allocation: a short pass of each process' steady loop under tracemalloc, which is slow and so comes last
"""

import contextlib
import math
import sys
import tempfile
import threading
import time
import tracemalloc
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from bench.alone import Alone
from bench.config import LiveConfig
from bench.errors import BenchError
from bench.floor import Block, Floor, FloorSamples
from bench.outputs import Outputs
from bench.report import build_rates_report, build_report, samples_of
from bench.report_table import format_rates, format_table
from bench.samples import EDGE_FRAMES, Samples
from bench.shown import ShownBrowser, find_browser
from bench.witness import Witness, WitnessRecord
from stream import accounts
from stream.display.shown import ShownFrames
from stream.frame import ALL_PLANES, FrameFormat, Plane
from stream.guard import MAX_DEADLINE_NS
from stream.measure import Measured, MeasuringClient
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.reported import reported_source
from stream.session import stopped_by_signals
from stream.sources.options import SourceOptions
from stream.statusline import StatusLine, log_to_stderr
from stream.subscribe import Subscriber
from stream.timing import NS_PER_MS, NS_PER_S, Stage

WARM_UP = 100
SERIAL_FRAMES = 200
PACED_FRAMES = 100
FLOOR_FRAMES = 200
PART_S = 8.0
"""How long each part that is paced alone may take."""
BLOCK_FRAMES = 150
ALLOCATION_FRAMES = 500
SETTLE_FRAMES = 50
LEAD_NS = 200 * NS_PER_MS
FIRST_FRAME_S = 120.0
HEARTBEAT_S = 0.1


@dataclass
class Run:
    """Everything a run has gathered so far; what is missing stays None or empty."""

    config: LiveConfig
    rate_hz: float
    machine: dict[str, Any]
    brief: bool = False
    """Leave out what another rate of the same command has shown: the passes under tracemalloc."""
    warmup: int = WARM_UP
    frame_format: FrameFormat | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    serial_ms: dict[str, np.ndarray] = field(default_factory=dict)
    """Inferences one after the other, `before` and `after` the run."""
    paced_alone_ms: np.ndarray | None = None
    """Inferences at the frame rate with nothing around them."""
    floor_alone: dict[str, FloorSamples] = field(default_factory=dict)
    floor_beside: FloorSamples | None = None
    blocks: list[tuple[int, int]] = field(default_factory=list)
    """Sequence numbers [first, end) of the pipeline's frames with the floor beside them."""
    measured: Measured | None = None
    shown: ShownFrames | None = None
    """What the web viewer drew, where that was asked for."""
    browser: str = ""
    """Which browser that was."""
    status: dict[str, Any] | None = None
    gpu: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What the GPU did, by part of the run: {"gpu": ..., "why": ...}, one of them null."""
    witness: WitnessRecord | None = None
    allocations: dict[str, dict[str, int]] = field(default_factory=dict)
    """By process: the peak in bytes, and over how many frames."""
    complete: bool = False

    @property
    def period_ns(self) -> float:
        """From one frame to the next."""
        return NS_PER_S / self.rate_hz

    @property
    def deadline_ms(self) -> float:
        """How long after it was due a frame waits for its synthesis."""
        return min(self.period_ns, MAX_DEADLINE_NS) / NS_PER_MS

    @property
    def serial_median_ms(self) -> float | None:
        """The engine's serial median of this run, before and after taken together."""
        return float(np.median(np.concatenate([*self.serial_ms.values()]))) if self.serial_ms else None


def bench_live(config: LiveConfig) -> int:
    """`contrastream bench live`: one rate with its whole table, or several with a row each.

    Returns:
        0 when the run is whole, 130 when it was stopped by Ctrl-C; the report then says so.

    Raises:
        BenchError: The source or the engine cannot be opened, or a helper process failed.
        StreamError: As `Pipeline.run`.
        DisplayError: A browser was asked for, and there is none.
    """
    log_to_stderr()
    outputs = Outputs(config.out)
    if config.shown:
        find_browser()  # or end here, before anything is measured
    facts = machine.describe()
    reports: list[dict[str, Any]] = []
    kept: list[Samples] = []
    for place, rate_hz in enumerate(config.rate):
        if len(config.rate) > 1:
            say(f"rate {place + 1} of {len(config.rate)}: {rate_hz:g} per second")
        run = Run(config, rate_hz, facts, brief=place > 0)
        try:
            measure(run)
            run.complete = True
        except KeyboardInterrupt:
            say("stopped; the report is incomplete")
        reports.append(build_report(run))
        kept.append(samples_of(run))
        if not run.complete:
            break
    if len(config.rate) == 1:
        print(format_table(reports[0]))
        outputs.write(reports[0], kept)
    else:
        report = build_rates_report(reports, config.rate)
        print(format_rates(report))
        outputs.write(report, kept)
    for report in reports:
        accounts.refuse(report["frames"]["accounts"])
    return 0 if all(report["complete"] for report in reports) else 130


def say(text: str) -> None:
    """A line of progress."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


def source_options(config: LiveConfig, rate_hz: float) -> SourceOptions:
    """What is asked of the source."""
    return SourceOptions(rate_hz=rate_hz, size=config.size if config.source == "phantom" else None)


def measure(run: Run) -> None:
    """All parts, in order; fills `run`."""
    config = run.config
    has_engine = config.engine != "off"
    alone = Alone()
    floor: Floor | None = None
    try:
        say(f"opening the {reported_source(config.source)} and the engine")
        asked = {
            "model": config.model,
            "backend": config.engine,
            "untaught": True,
            "threads": config.threads,
        }
        run.frame_format = alone.open(
            config.source, source_options(config, run.rate_hz), asked if has_engine else None
        )
        run.engine = alone.engine
        run.warmup = config.warmup if config.warmup is not None else max(WARM_UP, alone.loop_frames)
        if has_engine:
            measure_engine(run, alone, "before")
        # An untaught network's planes are inferred but never sent, so the floor does not send them either.
        drawn = has_engine and run.engine["taught"]
        sent = ALL_PLANES if drawn else Plane.LIVE
        floor = Floor(run.frame_format, sent, engine=has_engine)
        measure_floor(run, floor, "before")
        measure_pipeline(run, floor)
        measure_floor(run, floor, "after")
        if has_engine:
            measure_engine(run, alone, "after")
        if not run.brief:
            measure_allocations(run, alone)
    finally:
        if floor is not None:
            floor.close()
        alone.close()


def measure_engine(run: Run, alone: Alone, when: str) -> None:
    """The engine with nothing around it."""
    frames = min(SERIAL_FRAMES, max(20, run.config.frames))
    say(f"the engine alone, {when}: {frames} inferences one after the other")
    run.serial_ms[when] = alone.serial_ms(frames)
    run.gpu[f"engine alone, {when}"] = alone.gpu
    if when == "before":
        frames = within(PART_S, run.rate_hz, min(PACED_FRAMES, max(20, run.config.frames)))
        say(f"the engine alone, {when}: {frames} at {run.rate_hz:g} per second")
        run.paced_alone_ms = alone.paced_ms(frames, run.rate_hz)


def measure_floor(run: Run, floor: Floor, when: str) -> None:
    """The floor with nothing beside it."""
    frames = within(PART_S, run.rate_hz, min(FLOOR_FRAMES, max(20, run.config.frames)))
    say(f"the floor alone, {when}: {frames} frames")
    floor.begin([Block(time.monotonic_ns() + LEAD_NS, frames)], run.period_ns)
    run.floor_alone[when] = floor.finish(30.0 + 2.0 * frames / run.rate_hz)


def within(seconds: float, rate_hz: float, frames: int) -> int:
    """As many frames as fit into so long at a rate, 20 at least, so that slow rates take no longer than fast ones."""
    return min(frames, max(20, round(seconds * rate_hz)))


def plan_blocks(warmup: int, frames: int) -> list[tuple[int, int]]:
    """The stretches of frames [first, end) with the floor beside them: every second one after the warm-up."""
    length = max(1, min(BLOCK_FRAMES, frames // 2))
    firsts = range(warmup, warmup + frames, 2 * length)
    return [(first, min(first + length, warmup + frames)) for first in firsts]


def measure_pipeline(run: Run, floor: Floor | None) -> None:
    """The pipeline in this process, its client in another, the floor and the witness beside it."""
    config = run.config
    total = run.warmup + config.frames + EDGE_FRAMES
    say(
        f"the pipeline: {run.warmup} frames to warm up, {config.frames} measured, at {run.rate_hz:g} per second"
    )
    witness = Witness()
    try:
        pipeline = Pipeline(pipeline_config(config, run.rate_hz, total))
        beside = (
            threading.Thread(target=_run_floor_beside, args=(run, pipeline, floor), daemon=True)
            if floor is not None
            else None
        )
        with (
            tempfile.TemporaryDirectory(prefix="contrastream-bench-") as folder,
            contextlib.ExitStack() as stack,
        ):
            seen = Path(folder) / "measured.npz"
            browser: ShownBrowser | None = None
            if config.shown:
                say("opening the web viewer in a headless Chromium")
                browser = stack.enter_context(
                    contextlib.closing(ShownBrowser(pipeline.endpoint.text, Path(folder) / "shown.npz"))
                )
                run.browser = browser.name
            client = stack.enter_context(
                MeasuringClient(pipeline.endpoint.text, seen, credit=False, memory=config.client == "memory")
            )
            line = StatusLine(lambda: pipeline.last_status)
            if beside is not None:
                beside.start()
            try:
                with stopped_by_signals(pipeline):
                    pipeline.run()
            finally:
                line.close()
            run.measured = client.finish()
            if browser is not None:
                run.shown = browser.finish()
        run.status = pipeline.last_status
        run.gpu["pipeline"] = pipeline.gpu
        run.engine = {**run.engine, **pipeline.engine}
        run.witness = witness.record()
        counters = (run.status or {}).get("counters", {})
        if counters.get("grabbed", 0) + sum(counters.get("dropped", {}).values()) < total:
            raise KeyboardInterrupt  # the pipeline takes Ctrl-C for itself, and ends in peace
        if floor is not None and beside is not None:
            beside.join(FIRST_FRAME_S)
            run.floor_beside = floor.finish(30.0)
    finally:
        witness.close()


def pipeline_config(config: LiveConfig, rate_hz: float, frames: int) -> PipelineConfig:
    """The pipeline as `replay` has it, on an endpoint of its own."""
    return PipelineConfig(
        source=config.source,
        options=source_options(config, rate_hz),
        pacing=Pacing(rate_hz=rate_hz, loop=True, frames=frames),
        endpoint=f"bench-{time.monotonic_ns()}",
        model=config.model,
        engine=config.engine,
        untaught=True,
        domain=False,  # what is measured is the drawing, also of a loop on which nobody should see it
        threads=config.threads,
        wait_for_engine=True,
        wait_for_client=True,
    )


def _run_floor_beside(run: Run, pipeline: Pipeline, floor: Floor) -> None:
    """Find out when the pipeline's frames are due, and let the floor run between them.

    The floor gets its whole plan at once, so that nothing of the benchmark runs in this process afterwards.
    """
    first_due_ns = _first_due_ns(pipeline, run.period_ns)
    blocks = plan_blocks(run.warmup, run.config.frames)
    # Half-way from the end of an inference to the next frame's due time.
    busy_ns = min((run.serial_median_ms or 0.0) * NS_PER_MS, run.period_ns)
    offset_ns = (busy_ns + run.period_ns) / 2
    # After a short warm-up the first block may have begun already; a frame due in the past would measure nothing.
    begun = (time.monotonic_ns() + LEAD_NS - first_due_ns - offset_ns) / run.period_ns
    run.blocks = [(max(first, math.ceil(begun)), end) for first, end in blocks if end > begun]
    plan = [
        Block(round(first_due_ns + first * run.period_ns + offset_ns), end - first)
        for first, end in run.blocks
    ]
    floor.begin(plan, run.period_ns)


def _first_due_ns(pipeline: Pipeline, period_ns: float) -> float:
    """When frame 0 was due, as one frame tells any client."""
    end = time.monotonic() + FIRST_FRAME_S
    # Not before the measuring client is there: the pipeline begins with its first subscriber.
    while (pipeline.last_status or {}).get("counters", {}).get("published", 0) == 0:
        if time.monotonic() > end:
            raise BenchError(f"the pipeline sent no frame within {FIRST_FRAME_S:.0f} s")
        time.sleep(HEARTBEAT_S)
    subscriber = Subscriber(pipeline.endpoint)
    try:
        while time.monotonic() < end:
            if (message := subscriber.poll(100)) is not None:
                header = message.header
                return header.stamp_ns(Stage.DUE) - header.sequence * period_ns
    finally:
        subscriber.close()
    raise BenchError(f"no frame came within {FIRST_FRAME_S:.0f} s")


def measure_allocations(run: Run, alone: Alone) -> None:
    """The most that each process' steady loop allocates, in passes of their own."""
    frames = min(ALLOCATION_FRAMES, max(20, run.config.frames))
    say(f"allocation: {frames} frames of each process under tracemalloc")
    run.allocations["source"] = {"peak_bytes": alone.source_peak_bytes(frames), "frames": frames}
    if run.config.engine != "off":
        run.allocations["engine"] = {"peak_bytes": alone.engine_peak_bytes(frames), "frames": frames}
    pipeline = Pipeline(pipeline_config(run.config, run.rate_hz, SETTLE_FRAMES + frames))
    peak = _PeakWatch(pipeline)
    with (
        tempfile.TemporaryDirectory(prefix="contrastream-bench-") as folder,
        MeasuringClient(pipeline.endpoint.text, Path(folder) / "measured.npz", credit=False) as client,
    ):
        tracemalloc.start()
        try:
            peak.start()
            with stopped_by_signals(pipeline):
                pipeline.run()
            after = peak.finish()
        finally:
            tracemalloc.stop()
        client.finish()
    if after is None:
        raise KeyboardInterrupt
    run.allocations["guard"] = {"peak_bytes": after, "frames": frames}


class _PeakWatch:
    """Resets tracemalloc's peak when a pipeline has settled; the peak since then is what its loop takes."""

    def __init__(self, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self._settled: int | None = None
        self._thread = threading.Thread(target=self._watch, name="peak-watch", daemon=True)
        self.start = self._thread.start
        self._over = threading.Event()

    def _watch(self) -> None:
        while not self._over.wait(HEARTBEAT_S):
            counters = (self._pipeline.last_status or {}).get("counters", {})
            if counters.get("published", 0) >= SETTLE_FRAMES:
                tracemalloc.reset_peak()
                self._settled, _ = tracemalloc.get_traced_memory()
                return

    def finish(self) -> int | None:
        """The peak in bytes beyond what was held when the pipeline had settled; None where it never did."""
        _, peak = tracemalloc.get_traced_memory()
        self._over.set()
        self._thread.join()
        return None if self._settled is None else peak - self._settled
