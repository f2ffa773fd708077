"""The engine and the source alone, in a process of their own: how long one inference takes with nothing around it,
and whether the steady loop allocates anything of a frame's size.

`python -m bench.alone`; `Alone` asks it.
"""

import dataclasses
import sys
import tracemalloc
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.errors import BenchError
from bench.worker import Worker, serve
from stream.control import become_child, format_from_json, format_to_json
from stream.errors import StreamError
from stream.frame import FrameFormat
from stream.gpu import GpuWatch
from stream.ring import RingMemory
from stream.sources.options import SourceOptions
from stream.sources.source import Source
from stream.timing import NS_PER_MS, NS_PER_S, MonotonicClock, sleep_until_ns

if TYPE_CHECKING:
    from engines.engine import Opened, Slot

FRAMES_KEPT = 8
ENGINE_SLOTS = 2
SETTLE = 20
"""Frames before anything is measured."""


def _loop_frames(source: Source) -> int:
    """Frames of one pass; the phantom renders its loop in the first one."""
    from stream.sources.phantom import PhantomSource

    return source.phantom.loop.frames if isinstance(source, PhantomSource) else source.frame_count or 0


class Alone:
    """Asks the process in which the engine and the source run alone."""

    def __init__(self) -> None:
        self._worker = Worker("bench.alone")
        self.engine: dict[str, Any] = {}
        """What was opened: backend, precision, model and so on; empty without an engine."""
        self.loop_frames = 0
        """Frames of one pass of the source, after which it is in its steady state."""
        self.gpu: dict[str, Any] = {"gpu": None, "why": "nothing was measured"}
        """What the GPU did during the last inferences, or why that is not known."""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._worker.pid

    def open(self, source: str, options: SourceOptions, engine: dict[str, Any] | None) -> FrameFormat:
        """Open the source and, where asked for, the engine for its frames; returns their format.

        Args:
            source: As `open_source` takes it; a recording.
            options: What was asked of it.
            engine: What `stream.infer.open_for` needs; None for no engine.

        Raises:
            BenchError: They cannot be opened; the sentence is theirs.
        """
        said = self._worker.ask("open", source=source, options=dataclasses.asdict(options), engine=engine)
        self.engine = said["engine"]
        self.loop_frames = int(said["loop_frames"])
        return format_from_json(said["format"])

    def serial_ms(self, frames: int) -> np.ndarray:
        """Inferences one after the other, (frames,) ms each."""
        return self._serial(frames=frames)

    def paced_ms(self, frames: int, rate_hz: float) -> np.ndarray:
        """Inferences at the frame rate, with sleep between them, (frames,) ms each."""
        return self._serial(frames=frames, rate_hz=rate_hz)

    def _serial(self, **asked: Any) -> np.ndarray:
        said = self._worker.ask("serial", **asked)
        self.gpu = said["gpu"]
        return np.array(said["times_ms"])

    def saturated(self, frames: int) -> tuple[np.ndarray, float]:
        """Inferences with every slot full.

        Returns:
            From submission to result, (frames,) ms each; and from the first submission to the last result, in s.
        """
        said = self._worker.ask("saturated", frames=frames)
        self.gpu = said["gpu"]
        return np.array(said["times_ms"]), float(said["total_s"])

    def limits(self, model: str) -> dict[str, Any]:
        """What the machine can do at most and what the network asks of it; see `bench.machine_limits`."""
        return self._worker.ask("limits", model=model)

    def engine_peak_bytes(self, frames: int) -> int:
        """The most Python and numpy held beyond the start while an engine's slots ran."""
        return int(self._worker.ask("engine_peak", frames=frames)["peak_bytes"])

    def source_peak_bytes(self, frames: int) -> int:
        """The most Python and numpy held beyond the start while the source was read."""
        return int(self._worker.ask("source_peak", frames=frames)["peak_bytes"])

    def close(self) -> None:
        """End it; may be called twice."""
        self._worker.close()


class Bench:
    """The process' own side."""

    def __init__(self) -> None:
        self._clock = MonotonicClock()
        self._opened: Opened | None = None
        self._slots: list[Slot] = []
        self._memory: RingMemory | None = None
        self._source = ""
        self._options = SourceOptions()
        self._loop_frames = 0
        self._gpu: GpuWatch | None = None

    def open(self, source: str, options: dict[str, Any], engine: dict[str, Any] | None) -> dict[str, Any]:
        from stream.sources.open import open_source

        self._source, self._options = source, SourceOptions(**options)
        opened_source = open_source(source, self._options)
        if opened_source.live:
            raise BenchError(f"a benchmark needs a recording or the phantom, got the device {source}")
        frame_format = opened_source.format
        memory = self._memory = RingMemory.create(frame_format, FRAMES_KEPT)
        for view in memory.slots:
            if opened_source.read(view.live) is None:
                opened_source.rewind()
                opened_source.read(view.live)
        self._loop_frames = _loop_frames(opened_source)
        opened_source.close()
        if self._loop_frames == 1:  # the same picture again is no new frame, and is not sent
            raise BenchError(
                "a benchmark needs a loop of two frames or more, got a single frame; choose a cine loop"
            )
        said = {} if engine is None else self._open_engine(frame_format, engine)
        return {
            "format": format_to_json(frame_format),
            "engine": said,
            "loop_frames": self._loop_frames,
        }

    def _open_engine(self, frame_format: FrameFormat, config: dict[str, Any]) -> dict[str, Any]:
        from stream.infer import open_for

        start_ns = self._clock.now_ns()
        opened = self._opened = open_for(frame_format, {**config, "slots": ENGINE_SLOTS})
        self._slots = list(opened.engine.slots(ENGINE_SLOTS))
        open_ms = (self._clock.now_ns() - start_ns) / NS_PER_MS
        bus_id = getattr(opened.engine, "gpu_bus_id", None)
        self._gpu = GpuWatch(self._clock, opened.engine.backend, bus_id)
        self._infer(SETTLE)
        return {
            "backend": opened.engine.backend,
            "precision": opened.engine.precision,
            "model_sha256": opened.engine.model_sha256,
            "taught": opened.engine.taught,
            "skipped": [list(pair) for pair in opened.skipped],
            "open_ms": open_ms,
        }

    def _infer(self, frames: int, rate_hz: float | None = None) -> list[float]:
        """As the engine process does it, in ring slots, but each inference waited for."""
        assert self._memory is not None
        times_ms = []
        start_ns = self._clock.now_ns()
        for step in range(frames):
            view = self._memory.slots[step % FRAMES_KEPT]
            slot = self._slots[step % len(self._slots)]
            if rate_hz is not None:
                sleep_until_ns(start_ns + round(step * NS_PER_S / rate_hz), self._clock)
            slot.bind(view.live, view.synthetic, view.attention)
            submitted_ns = self._clock.now_ns()
            slot.submit()
            slot.wait()
            times_ms.append((self._clock.now_ns() - submitted_ns) / NS_PER_MS)
        return times_ms

    def serial(self, frames: int, rate_hz: float | None = None) -> dict[str, Any]:
        self._infer(SETTLE, rate_hz)
        if self._gpu is not None:
            self._gpu.begin_anew()
        times_ms = self._infer(frames, rate_hz)
        gpu = {"gpu": None, "why": "no engine"} if self._gpu is None else self._gpu.report()
        return {"times_ms": times_ms, "gpu": gpu}

    def saturated(self, frames: int) -> dict[str, Any]:
        """Frames go in as soon as a slot is free; results are waited for in the order of submission."""
        assert self._memory is not None
        self._infer(SETTLE)
        if self._gpu is not None:
            self._gpu.begin_anew()
        busy: deque[tuple[Slot, int]] = deque()
        times_ms = []

        def take_back() -> "Slot":
            slot, submitted_ns = busy.popleft()
            slot.wait()
            times_ms.append((self._clock.now_ns() - submitted_ns) / NS_PER_MS)
            return slot

        start_ns = self._clock.now_ns()
        for step in range(frames):
            slot = self._slots[step] if step < len(self._slots) else take_back()
            view = self._memory.slots[step % FRAMES_KEPT]
            slot.bind(view.live, view.synthetic, view.attention)
            busy.append((slot, self._clock.now_ns()))
            slot.submit()
        while busy:
            take_back()
        total_s = (self._clock.now_ns() - start_ns) / NS_PER_S
        gpu = {"gpu": None, "why": "no engine"} if self._gpu is None else self._gpu.report()
        return {"times_ms": times_ms, "total_s": total_s, "gpu": gpu}

    def limits(self, model: str) -> dict[str, Any]:
        from bench.machine_limits import machine_limits, network_work
        from engines.untaught import find_model

        assert self._memory is not None
        frame_format = self._memory.frame_format
        return {
            "machine": machine_limits(),
            "network": network_work(
                find_model(model, untaught=True).path,
                frame_format.rows,
                frame_format.columns,
                frame_format.sample_bytes,
            ),
        }

    def engine_peak(self, frames: int) -> dict[str, Any]:
        tracemalloc.start()
        self._infer(SETTLE)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        self._infer(frames)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        return {"peak_bytes": peak - before}

    def source_peak(self, frames: int) -> dict[str, Any]:
        from stream.repeats import RepeatDetector
        from stream.sources.open import open_source

        assert self._memory is not None
        source = open_source(self._source, self._options)
        repeats = RepeatDetector(source.format, noise=False)

        def read(count: int) -> None:
            assert self._memory is not None
            for step in range(count):
                live = self._memory.slots[step % FRAMES_KEPT].live
                if source.read(live) is None:
                    source.rewind()
                    source.read(live)
                repeats.is_repeat(live)

        tracemalloc.start()
        read(SETTLE + self._loop_frames)
        tracemalloc.reset_peak()
        before, _ = tracemalloc.get_traced_memory()
        read(frames)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        source.close()
        return {"peak_bytes": peak - before}


def main() -> int:
    """Entry point."""
    become_child()
    from engines.errors import EngineError

    bench = Bench()
    serve(
        {
            "open": bench.open,
            "serial": bench.serial,
            "saturated": bench.saturated,
            "limits": bench.limits,
            "engine_peak": bench.engine_peak,
            "source_peak": bench.source_peak,
        },
        expected=(StreamError, EngineError, BenchError, ValueError),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
