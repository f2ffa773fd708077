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
from typing import TYPE_CHECKING, Any

from stream.config import SynthesizeConfig
from stream.errors import SourceError
from stream.frame import Reason, Spacing
from stream.recording import GRANTS, Recorded, Recording
from stream.session import stopped_by_signals
from stream.site import open_site
from stream.sources.options import SourceOptions, parse_crop
from stream.spacing import live_spacing
from stream.statusline import StatusLine, log_to_stderr
from stream.synthesis import SynthesisFolder
from stream.synthesis_engine import EngineKeeper
from stream.synthesis_files import UNWRITTEN, DicomFiles, FrameFiles, FrameWriters, PngFiles
from stream.synthesis_report import (
    NOTICE,
    first_facts,
    format_report,
    progress_bar,
    report,
    synthetic_folder,
)
from stream.timing import NS_PER_S

if TYPE_CHECKING:
    from engines.engine import Engine, Opened, Slot

log = logging.getLogger("contrastream.synthesize")

ENGINE_SLOTS = 2
RING_SLOTS = GRANTS + ENGINE_SLOTS + UNWRITTEN + 1


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
                timed=config.dicom,
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
                () if config.dicom else (synthetic_folder(opened.engine.taught), "attention"),
                report(facts, [], seconds=0.0, complete=False),
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

    def _spacing(self, recording: Recording) -> Spacing | None:
        geometry = None if self._site is None else self._site.geometry
        return live_spacing(recording.sizes, recording.format, None if geometry is None else geometry.spacing)

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
        kept = synthetic_folder(engine.taught)
        files: FrameFiles
        if self.config.dicom:
            files = DicomFiles(self._folder.path, recording, facts["engine"], self._spacing(recording))
        else:
            files = PngFiles(self._folder, kept)
        writers = FrameWriters(files, kept, preview, recording.give_back)
        self._written = writers.written
        with contextlib.closing(preview), contextlib.closing(files), contextlib.closing(writers):
            infer_all(recording, engine, writers)
            files.finish()
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
    if config.dicom and config.untaught:
        raise ValueError("--dicom needs a taught model, got --untaught; leave one of them out")
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
