"""`contrastream bench soak`: hours of it, in constant memory, and whether anything drifts.

Paced, latency runs from the instant a frame was due, as everywhere. Compressed, a lossless replay goes as fast as the
machine does, so that a day's frames pass in less than a day; latency then runs from the grab, and says nothing of a
room. Each window of frames gives a point for each figure that must stay flat: latency, memory, descriptors, threads.
"""

import contextlib
import dataclasses
import json
import math
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from bench.config import SoakConfig
from bench.errors import BenchError
from bench.machine import steal_ms
from bench.outputs import Outputs
from bench.soak_report import about, format_soak, soak_report
from stream import accounts
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.session import stopped_by_signals
from stream.sources.options import SourceOptions
from stream.statusline import StatusLine, log_to_stderr

WINDOWS = 200
"""Points of a whole run; a window holds 100 frames at least."""
LEAST_WINDOW = 100
FINISH_S = 15.0


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
    known = about(config, window)
    pipeline = Pipeline(pipeline_config(config))
    stolen_ms, start_s = steal_ms(), time.monotonic()
    with tempfile.TemporaryDirectory(prefix="contrastream-soak-") as name:
        folder, snapshot = Path(name), Path(name) / "seen.json"
        job = {
            "about": known,
            "seen": str(snapshot),
            "out": None if config.out is None else str(config.out.absolute()),
        }
        with (
            SoakClient(pipeline.endpoint.text, snapshot, window, credit=config.compressed) as client,
            SoakWatch(pipeline, job, folder) as watch,
        ):
            line = StatusLine(lambda: pipeline.last_status)
            try:
                watch.start()
                with stopped_by_signals(pipeline):
                    pipeline.run()
            finally:
                line.close()
            points, seen = watch.finish(), client.finish()
    status = pipeline.last_status or {}
    report = soak_report(known, seen, points, status)
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


class SoakWatch:
    """Hands the status to the process that watches memory and writes the report so far, window after window.

    Nothing of that is kept here: what this process holds is what the soak measures.

    Args:
        pipeline: Whose status.
        job: What the watcher is told, as `bench.soak_watch` reads it.
        folder: Where the job lies, and the points at the end.
    """

    def __init__(self, pipeline: Pipeline, job: dict[str, Any], folder: Path) -> None:
        self._pipeline, self._folder, self._window = pipeline, folder, job["about"]["workload"]["window"]
        path = folder / "job.json"
        path.write_text(json.dumps(job))
        self._process = subprocess.Popen(
            [sys.executable, "-m", "bench.soak_watch", str(path)],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._tell, name="soak-watch", daemon=True)
        self.start = self._thread.start

    def _tell(self) -> None:
        assert self._process.stdin is not None
        next_at = self._window
        while not self._over.wait(0.2):
            status = self._pipeline.last_status or {}
            published = int(status.get("counters", {}).get("published", 0))
            if published >= next_at:
                next_at = (published // self._window + 1) * self._window
                try:
                    self._process.stdin.write(json.dumps(status) + "\n")
                    self._process.stdin.flush()
                except BrokenPipeError:
                    return  # `finish` says so

    def finish(self) -> list[dict[str, Any]]:
        """Stop looking; what the processes held, a point a window.

        Raises:
            BenchError: The watcher was killed.
        """
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self._process.communicate(timeout=FINISH_S)
            return list(json.loads((self._folder / "points.json").read_text()))
        except (subprocess.TimeoutExpired, BrokenPipeError, FileNotFoundError) as error:
            raise BenchError(
                "the process that watches the soak's memory was ended before the soak was"
            ) from error

    def __enter__(self) -> "SoakWatch":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        if self._process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()


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
