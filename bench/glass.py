"""`contrastream bench glass`: how late the viewer's screen is, seen by a camera or read off the X display.

The target (`calib/target.py`) runs through the live path. Its bar code says of each frame when it was due, and a camera that
reads it off the screen stamps when it was seen: the difference holds everything, the display client and the screen too. Where
one picture shows the original beside the viewer's copy, the difference of their codes is the latency between the two, without
any clock.
"""

import contextlib
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench import machine
from bench.config import GlassConfig
from bench.errors import BenchError
from bench.glass_codes import shows_two
from bench.glass_display import Display, check_display_for, open_display
from bench.glass_report import build_glass_report, format_glass, glass_samples
from bench.glass_watch import Captures, TargetWatch
from bench.live import say
from bench.outputs import Outputs
from bench.witness import Witness, WitnessRecord
from stream.measure import Measured, MeasuringClient
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.sources.options import SourceOptions
from stream.statusline import StatusLine, log_to_stderr

SOURCE = "python:stream.sources.target:TargetSource"
WARM_UP = 30
"""Frames after the target was first seen: a browser that has just opened is slow."""
POLL_S = 0.1
AGAIN_S = 6.0
"""A window that shows nothing for so long is opened again, where the camera is the display itself."""
JOIN_S = 10.0


@dataclass
class GlassRun:
    """Everything a run has gathered so far; what is missing stays None or empty."""

    config: GlassConfig
    machine: dict[str, Any]
    camera: dict[str, Any]
    display: dict[str, Any] = field(default_factory=dict)
    first: int = 0
    """Number of the first measured frame, as the code has it."""
    captures: Captures | None = None
    measured: Measured | None = None
    """What another client received, at the same time."""
    status: dict[str, Any] | None = None
    engine: dict[str, Any] = field(default_factory=dict)
    witness: WitnessRecord | None = None
    complete: bool = False


def bench_glass(config: GlassConfig) -> int:
    """Run the workload.

    Returns:
        0 when the run is whole, 130 when Ctrl-C stopped it; the report then says so.

    Raises:
        BenchError: The camera cannot be opened, or sees no target that can be read.
        StreamError: No display, or as `Pipeline.run`.
    """
    log_to_stderr()
    outputs = Outputs(config.out)
    say(f"opening the camera {config.camera}")
    watch = TargetWatch(config.camera, rate_hz=config.camera_rate, size=config.camera_size)
    try:
        run = GlassRun(config, machine.describe(), watch.facts)
        for note in watch.facts["notes"]:
            say(note)
        if not watch.facts["this_clock"]:
            watch_recording(run, watch)
        elif config.display == "none":
            watch_live(run, watch, None, None)
        else:
            watch_pipeline(run, watch)
    finally:
        watch.close()
    report = build_glass_report(run)
    print(format_glass(report))
    outputs.write(report, [glass_samples(run)])
    return 0 if run.complete else 130


def watch_recording(run: GlassRun, watch: TargetWatch) -> None:
    """All of a recorded video; it must show two targets, since its stamps are of no clock of this host.

    Raises:
        BenchError: It shows none, or one alone.
    """
    run.display = {"kind": "none", "name": "whatever was filmed"}
    try:
        while not (said := watch.status())["ended"]:
            time.sleep(POLL_S)
    except KeyboardInterrupt:
        say("stopped; the report is incomplete")
        said = watch.status()
    else:
        run.complete = True
    run.captures = _finish(watch)
    read = run.captures.frame >= 0
    if not read.any():
        raise BenchError(
            f"needed a video that shows the target, got none in {said['captures']} pictures: {said['why']}"
        )
    if not shows_two(run.captures):
        raise BenchError(
            "a recorded video needs the original beside the viewer's copy, got one target alone; its stamps are of no clock of "
            "this host, so film both in one picture, or give a live camera (v4l2:0)"
        )
    if not read.all(axis=1).any():
        raise BenchError(
            f"needed pictures in which both targets can be read, got none: {said['why']}; film them sharper, with a shorter exposure"
        )


def watch_pipeline(run: GlassRun, watch: TargetWatch) -> None:
    """The pipeline on the target, its display client, and another client that measures, in front of the camera."""
    config = run.config
    check_display_for(config.display)
    witness = Witness()
    try:
        with tempfile.TemporaryDirectory(prefix="contrastream-bench-") as folder:
            running = RunningPipeline(pipeline_config(config))
            endpoint = running.pipeline.endpoint.text
            with running, MeasuringClient(endpoint, Path(folder) / "measured.npz", credit=False) as client:
                display = open_display(config.display, endpoint)
                run.display = display.facts
                line = StatusLine(lambda: running.pipeline.last_status)
                with contextlib.closing(display), contextlib.closing(line):
                    watch_live(run, watch, running, display)
                run.status = running.pipeline.last_status
                run.engine = running.pipeline.engine
                running.close()
                run.measured = client.finish()
        run.witness = witness.record()
    finally:
        witness.close()


def pipeline_config(config: GlassConfig) -> PipelineConfig:
    """The pipeline as a room has it, on an endpoint of its own."""
    return PipelineConfig(
        source=SOURCE,
        options=SourceOptions(rate_hz=config.rate, size=config.size),
        endpoint=f"bench-glass-{time.monotonic_ns()}",
        model=config.model,
        engine=config.engine,
        untaught=True,
        domain=False,  # no frame of the target looks like an X-ray picture; what is measured is how long the drawing takes
        threads=config.threads,
        wait_for_engine=config.engine != "off",
    )


class RunningPipeline:
    """A pipeline in a thread of this process, ended with the block it is used in."""

    def __init__(self, config: PipelineConfig) -> None:
        self.pipeline = Pipeline(config)
        self._fault: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="pipeline", daemon=True)

    def _run(self) -> None:
        try:
            self.pipeline.run()
        except BaseException as error:  # a thread cannot raise to who waits for it; `check` does
            self._fault = error

    def check(self) -> None:
        """Raise what ended it, if anything did."""
        if self._fault is not None:
            raise self._fault
        if not self._thread.is_alive():
            raise BenchError("the pipeline ended by itself; see the lines above")

    def close(self) -> None:
        """Stop it and wait; may be called twice."""
        self.pipeline.stop()
        self._thread.join(JOIN_S)

    def __enter__(self) -> "RunningPipeline":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def watch_live(
    run: GlassRun, watch: TargetWatch, running: RunningPipeline | None, display: Display | None
) -> None:
    """Wait until the camera sees the target, then until it has seen enough frames; Ctrl-C ends the second.

    Args:
        run: Gets the captures and the first frame that counts.
        watch: The camera.
        running: The pipeline; None where it is somebody else's.
        display: The display client; None where it is somebody else's.
    """
    config = run.config
    if display is None:
        run.display = {"kind": "none", "name": "whatever the camera sees"}
    looks = _looks(watch, running, display)
    try:
        number = _wait_for_target(run, looks, display)
        run.first = number + WARM_UP
        say(f"the target is seen; {WARM_UP} frames to warm up, {config.total_frames} measured")
        _wait_for_frame(run, looks, run.first + config.total_frames)
        run.complete = True
    except KeyboardInterrupt:
        say("stopped; the report is incomplete")
    run.captures = _finish(watch)


def _looks(
    watch: TargetWatch, running: RunningPipeline | None, display: Display | None
) -> Iterator[dict[str, Any]]:
    """What the camera says, now and then; raises when anything of the run has ended."""
    while True:
        if running is not None:
            running.check()
        if display is not None and (why := display.why_ended()) is not None:
            raise BenchError(why)
        said = watch.status()
        if said["ended"]:
            raise BenchError("the camera gave no more pictures; check that it is plugged in")
        yield said
        time.sleep(POLL_S)


def _wait_for_target(run: GlassRun, looks: Iterator[dict[str, Any]], display: Display | None) -> int:
    begun = opened = time.monotonic()
    for said in looks:
        if said["seen"]:
            return int(max(said["seen"]))
        now = time.monotonic()
        if now - begun > run.config.within:
            raise BenchError(
                f"the camera {run.config.camera} needed to see the target within {run.config.within:g} s, got: "
                f"{said['why']}"
            )
        if display is not None and run.camera["kind"] == "screen" and now - opened > AGAIN_S:
            opened = now if display.again() else float("inf")
    raise AssertionError("the looks never end")


def _wait_for_frame(run: GlassRun, looks: Iterator[dict[str, Any]], end: int) -> None:
    """Until a frame with this number, or a later one, was seen."""
    seen_s = time.monotonic()
    newest = 0
    for said in looks:
        now_s = time.monotonic()
        if said["seen"] and max(said["seen"]) > newest:
            newest, seen_s = max(said["seen"]), now_s
        if newest >= end:
            return
        if now_s - seen_s > run.config.within:
            raise BenchError(
                f"the camera {run.config.camera} saw no new frame for {run.config.within:g} s, got: {said['why']}; keep camera and "
                "screen as they are, with nothing before them"
            )


def _finish(watch: TargetWatch) -> Captures:
    with tempfile.TemporaryDirectory(prefix="contrastream-bench-") as folder:
        return watch.finish(Path(folder) / "captures.npz")
