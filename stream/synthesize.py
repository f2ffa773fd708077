"""The command `synthesize`: every frame of a recording through the engine, into a folder of pictures.

The source process decodes ahead into a ring's slots, the engine has two frames in flight, and threads write what
is done; a slot goes round only when its frame lies on the disk.
"""

import contextlib
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from stream.config import SynthesizeConfig
from stream.errors import SourceError
from stream.frame import Reason
from stream.recording import GRANTS, Recorded, Recording
from stream.session import stopped_by_signals
from stream.site import open_site
from stream.sources.options import SourceOptions, parse_crop
from stream.statusline import StatusLine, log_to_stderr
from stream.synthesis import SynthesisFolder, frame_name
from stream.synthesis_engine import EngineKeeper
from stream.synthesis_report import (
    NOTICE,
    SAID,
    first_facts,
    format_report,
    frame_facts,
    progress_bar,
    report,
    synthetic_folder,
)
from stream.timing import NS_PER_S

if TYPE_CHECKING:
    from engines.engine import Engine, FrameStatistics, Opened, Slot
    from stream.preview import Preview

log = logging.getLogger("contrastream.synthesize")

ENGINE_SLOTS = 2
WRITERS = 2
UNWRITTEN = 6
"""Frames that may wait to be written; the disk then sets the pace."""
RING_SLOTS = GRANTS + ENGINE_SLOTS + UNWRITTEN + 1


@dataclass(frozen=True)
class Unwritten:
    """A frame whose files are being written."""

    frame: Recorded
    facts: dict[str, Any]
    files: list[Future[None]]
    drawn: Future[None]


class FrameWriters:
    """Threads that write frames while the next ones are inferred.

    Args:
        folder: Where to.
        frames: The folder of the synthetic frames within it.
        preview: Draws every frame too.
        give_back: Called with each frame whose slot is needed no more.
    """

    def __init__(
        self, folder: SynthesisFolder, frames: str, preview: "Preview", give_back: Callable[[Recorded], None]
    ) -> None:
        self._folder = folder
        self._frames = frames
        self._preview = preview
        self._give_back = give_back
        self._files = ThreadPoolExecutor(WRITERS, "write")
        self._drawing = ThreadPoolExecutor(1, "preview")
        self._unwritten: deque[Unwritten] = deque()
        self.written: list[dict[str, Any]] = []
        """What is said of each frame whose files are whole."""

    def keep(self, frame: Recorded, said: "FrameStatistics", reason: Reason) -> None:
        """Have a frame written, the live one in its place where the network gave no numbers.

        Args:
            frame: Its slot, with all planes; the writers' until it is given back.
            said: What the engine said of it.
            reason: Why it may not be shown as synthetic; NONE where it may.
        """
        view = frame.view
        if not said.finite:
            np.copyto(view.synthetic, view.live)
            view.attention.fill(0)
            reason = Reason.OUTPUT_INVALID
        write, text = self._folder.write_png, SAID[reason]
        files = [
            self._files.submit(write, frame_name(self._frames, frame.index), view.synthetic, text),
            self._files.submit(
                write, frame_name("attention", frame.index), view.attention, f"Attention. {text}"
            ),
        ]
        area = said.area if said.finite else 0.0
        drawn = self._drawing.submit(self._preview.add, frame.index, view, area, reason)
        facts = frame_facts(frame.index, said, self._frames)
        self._unwritten.append(Unwritten(frame, facts, files, drawn))

    def reap(self, most: int) -> None:
        """Give back the slots of what is written; waits until at most so many frames are not.

        Raises:
            StreamError: A file could not be written; its frame is left out of `written`.
        """
        while self._unwritten:
            oldest = self._unwritten[0]
            futures = [*oldest.files, oldest.drawn]
            if len(self._unwritten) <= most and not all(future.done() for future in futures):
                return
            self._unwritten.popleft()
            wait(futures)
            self._give_back(oldest.frame)
            if not any(future.exception() for future in oldest.files):
                self.written.append(oldest.facts)
            for future in futures:
                future.result()

    @property
    def idle(self) -> bool:
        """Whether everything is written."""
        return not self._unwritten

    def close(self) -> None:
        """End the threads."""
        self._files.shutdown()
        self._drawing.shutdown()


class Synthesis:
    """One recording's synthesis.

    Args:
        config: What to synthesize; of its sources the only one.
        engines: Keeps the engine open for the next recording; None to close it at the end of this one.
        quiet: Log nothing.

    Raises:
        ValueError: A setting is out of range.
        StreamError: The folder cannot be used.
    """

    def __init__(
        self, config: SynthesizeConfig, engines: EngineKeeper | None = None, *, quiet: bool = False
    ) -> None:
        (self._source,) = config.sources
        self.config = config
        self._options = source_options(config)
        self._engines = engines
        self._warn: Callable[[str], None] = (lambda _: None) if quiet else log.warning
        self._site = open_site(config.site, self._options, model=config.model)
        self._folder = SynthesisFolder(config.out, overwrite=config.overwrite)
        if self._folder.holds(self._source):
            raise SourceError(
                f"{self._source} lies in --out {config.out}, which is written anew; name another"
            )
        self._stop = threading.Event()
        self._written: list[dict[str, Any]] = []
        self._total = 0
        self._started_ns = 0

    def stop(self) -> None:
        """End soon, with what is begun finished; safe from a signal handler."""
        self._stop.set()

    @property
    def progress(self) -> dict[str, Any] | None:
        """How far it is; None before the first frame is asked for."""
        if not self._started_ns:
            return None
        last = self._written[-1]["area"] if self._written else None
        return {
            "done": len(self._written),
            "total": self._total,
            "seconds": self._seconds(),
            "area": last or 0.0,
        }

    def run(self) -> dict[str, Any]:
        """Synthesize until the recording's end or `stop`.

        Returns:
            What synthesis.json holds.

        Raises:
            SourceError: The recording cannot be opened or read; the frames before are kept.
            StreamError: A file cannot be written.
            EngineError: The engine cannot be opened, or failed.
            KeyboardInterrupt: Stopped before anything was written.
        """
        config, folder = self.config, self._folder
        slots = RING_SLOTS
        with (
            Recording(
                self._source,
                self._options,
                frames=config.frames,
                slots=slots,
                stopped=self._stop.is_set,
                blank=None if self._site is None else self._site.blank_json,
            ) as recording,
            contextlib.nullcontext(self._engines) if self._engines is not None else EngineKeeper() as engines,
        ):
            if self._site is not None:
                self._site.check({"kind": recording.kind, "device": recording.device}, recording.format)
                for sentence in self._site.unused:
                    self._warn(sentence)
            for note in recording.notes:
                self._warn(note)
            self._total = recording.frame_count
            opened, inference_ns = self._open_engine(recording, engines)
            facts = first_facts(config, recording, opened, inference_ns)
            facts["site"] = None if self._site is None else self._site.as_facts()
            folder.prepare(
                synthetic_folder(opened.engine.taught), report(facts, [], seconds=0.0, complete=False)
            )
            self._started_ns = time.monotonic_ns()
            complete = False
            try:
                self._work(recording, opened.engine, facts)
                complete = recording.ended
            finally:
                said = report(facts, self._written, seconds=self._seconds(), complete=complete)
                folder.write_report(said)
                if not complete:
                    self._warn(f"ended early; {len(self._written)} whole frames are in {folder.path}")
        return said

    def _seconds(self) -> float:
        return (time.monotonic_ns() - self._started_ns) / NS_PER_S

    def _open_engine(self, recording: Recording, engines: EngineKeeper) -> "tuple[Opened, int]":
        config = self.config
        settings = {
            "model": config.model,
            "backend": config.engine,
            "untaught": config.untaught,
            "threads": config.threads,
            "slots": ENGINE_SLOTS,
            "site": None if self._site is None else self._site.engine_settings(),
        }
        return engines.open(recording.format, settings)

    def _work(self, recording: Recording, engine: "Engine", facts: dict[str, Any]) -> None:
        from stream.preview import Preview

        preview = Preview(
            self._folder.path,
            recording.format,
            rate_hz=recording.rate_hz,
            unmasked_text=recording.kind != "phantom" and (self._site is None or self._site.blank is None),
            head=f"{facts['model']['name']} {engine.model_sha256[:8]}",
            film=self.config.film,
        )
        writers = FrameWriters(self._folder, synthetic_folder(engine.taught), preview, recording.give_back)
        self._written = writers.written
        with contextlib.closing(preview), contextlib.closing(writers):
            infer_all(recording, engine, writers)
        if self._written:
            self._folder.write_png("preview.png", preview.still, f"Preview. {NOTICE}")


def infer_all(recording: Recording, engine: "Engine", writers: FrameWriters) -> None:
    """Run every frame through the engine, two in flight: the oldest is seen to while the newest is inferred.

    What was begun is finished, whatever becomes of one frame; then the first thing that failed is raised.
    """
    reason = Reason.NONE if engine.taught else Reason.UNTAUGHT
    idle = deque(engine.slots(ENGINE_SLOTS))
    busy: deque[tuple[Slot, Recorded]] = deque()

    def finish_oldest() -> None:
        slot, frame = busy.popleft()
        idle.append(slot)
        writers.keep(frame, slot.wait(), reason)

    failures: list[Exception] = []

    @contextlib.contextmanager
    def remembered() -> Iterator[None]:
        try:
            yield
        except Exception as error:
            failures.append(error)

    with remembered():
        while (frame := recording.read()) is not None:
            if not idle:
                finish_oldest()
            slot = idle.popleft()
            slot.bind(frame.view.live, frame.view.synthetic, frame.view.attention)
            slot.submit()
            busy.append((slot, frame))
            writers.reap(UNWRITTEN)
    while busy or not writers.idle:
        with remembered():
            if busy:
                finish_oldest()
            else:
                writers.reap(0)
    if failures:
        raise failures[0]


def source_options(config: SynthesizeConfig) -> SourceOptions:
    """What is asked of the source.

    Raises:
        ValueError: A setting is out of range.
    """
    for name in ("frames", "threads", "workers"):
        if (value := getattr(config, name)) is not None and value < 1:
            raise ValueError(f"--{name} must be 1 or more, got {value}")
    return SourceOptions(
        rate_hz=config.rate,
        crop=None if config.crop is None else parse_crop(config.crop),
        gray=config.gray,
        bits=config.bits,
        size=config.size,
        seed=config.seed,
        contrast=config.contrast,
        untimed=True,
    )


def synthesize(config: SynthesizeConfig) -> int:
    """`contrastream synthesize`: one recording into a folder of its own, or an archive (stream/archive)."""
    from stream.archive.run import is_archive, synthesize_archive

    log_to_stderr()
    source_options(config)
    if is_archive(config):
        return synthesize_archive(config)
    synthesis = Synthesis(config)
    line = StatusLine(lambda: synthesis.progress, form=progress_bar)
    try:
        with stopped_by_signals(synthesis):
            said = synthesis.run()
    finally:
        line.close()
    print(format_report(said, config.out))
    return 0 if said["complete"] else 130
