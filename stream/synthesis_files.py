"""What a synthesis writes of each frame, by threads while the next ones are inferred: pictures, or DICOM objects."""

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from stream.errors import OutputError, RecordError, SourceError
from stream.frame import ALL_PLANES, Plane, Reason, Spacing, State
from stream.record.capture import Capture, CaptureWriter
from stream.record.dicom import write_dicom
from stream.record.segment import segments
from stream.recording import Recorded, Recording
from stream.synthesis import CAPTURE, DICOM_FILES, SynthesisFolder, frame_name
from stream.synthesis_report import SAID, frame_facts
from stream.timing import NS_PER_MS, NS_PER_S
from stream.wire import Header, Layout, Message, pack_header

if TYPE_CHECKING:
    from engines.engine import FrameStatistics
    from stream.preview import Preview

WRITERS = 2
UNWRITTEN = 6
"""Frames that may wait to be written; the disk then sets the pace."""


@runtime_checkable
class FrameFiles(Protocol):
    """Where frames go."""

    def submit(self, frame: Recorded, reason: Reason) -> list[Future[None]]:
        """Begin to write a frame; its slot is in use until these are done."""
        ...

    def finish(self) -> None:
        """All frames are written: make of them what is left to make."""
        ...

    def close(self) -> None:
        """End the threads, and remove what is not finished."""
        ...


class PngFiles:
    """Two PNGs for each frame.

    Args:
        folder: Where to.
        frames: The folder of the synthetic ones within it.
    """

    def __init__(self, folder: SynthesisFolder, frames: str) -> None:
        self._folder = folder
        self._frames = frames
        self._threads = ThreadPoolExecutor(WRITERS, "write")

    def submit(self, frame: Recorded, reason: Reason) -> list[Future[None]]:
        write, view, text = self._folder.write_png, frame.view, SAID[reason]
        return [
            self._threads.submit(write, frame_name(self._frames, frame.index), view.synthetic, text),
            self._threads.submit(
                write, frame_name("attention", frame.index), view.attention, f"Attention. {text}"
            ),
        ]

    def finish(self) -> None:
        pass

    def close(self) -> None:
        self._threads.shutdown()


class DicomFiles:
    """The objects that `contrastream record` writes, by way of its capture: live, synthetic and attention.

    Args:
        folder: Where to.
        recording: Open, and asked for its frames' times.
        engine: What draws: backend, precision, model_sha256.
        spacing: How large a pixel is; None where nobody knows.

    Raises:
        SourceError: Nothing says when its frames are.
        OutputError: The disk is full.
    """

    def __init__(
        self, folder: Path, recording: Recording, engine: dict[str, Any], spacing: Spacing | None
    ) -> None:
        if recording.times_ms is None:
            raise SourceError(
                "DICOM needs the time of each frame, and nothing says it; give --rate, for example --rate 15"
            )
        self._folder = folder
        self._times_ms = recording.times_ms
        self._format = recording.format
        self._layout = Layout.of(recording.format)
        self._rate_hz = recording.rate_hz or 0.0
        self._spacing = spacing
        self._unmasked_text = recording.unmasked_text
        self._thread = ThreadPoolExecutor(1, "write")  # one, since the capture has an order
        self._capture = CaptureWriter(folder / CAPTURE)
        self._capture.add_engine(engine, 0)

    def submit(self, frame: Recorded, reason: Reason) -> list[Future[None]]:
        return [self._thread.submit(self._add, frame, reason)]

    def _add(self, frame: Recorded, reason: Reason) -> None:
        drawn = reason is Reason.NONE
        # The stamps of a stream that begins at its first second: 0 stands for none.
        due_ns = NS_PER_S + round(self._times_ms[frame.index] * NS_PER_MS)
        header = Header(
            bytes(16),
            frame.index,
            frame.index,
            self._format,
            State.SYNTHETIC if drawn else State.PASSTHROUGH,
            reason,
            ALL_PLANES if drawn else Plane.LIVE,
            stamps_ns=(due_ns, due_ns, 0, 0, due_ns),
            unmasked_text=self._unmasked_text,
            rate_hz=self._rate_hz,
            spacing=self._spacing,
        )
        raw = frame.view.bytes[: pack_header(frame.view.bytes, header, self._layout)]
        try:
            self._capture.add(Message(header, frame.view.live, raw=raw), due_ns)
        except RecordError as error:
            raise OutputError(str(error)) from error

    def finish(self) -> None:
        """Make the objects of the capture.

        Raises:
            OutputError: The disk is full.
            RecordError: One would be larger than DICOM allows.
        """
        if not self._capture.frames:
            return
        try:
            self._capture.finish(0)
            for segment in segments(Capture(self._folder / CAPTURE)):
                write_dicom(self._folder / DICOM_FILES[0], segment, lambda: None)
        except RecordError as error:
            if isinstance(error.__cause__, OSError):
                raise OutputError(str(error)) from error
            raise

    def close(self) -> None:
        self._thread.shutdown()
        self._capture.close()
        (self._folder / CAPTURE).unlink(missing_ok=True)


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
        files: Where to.
        kept: What the report says the frames are written as.
        preview: Draws every frame too.
        give_back: Called with each frame whose slot is needed no more.
    """

    def __init__(
        self, files: "FrameFiles", kept: str, preview: "Preview", give_back: Callable[[Recorded], None]
    ) -> None:
        self._files = files
        self._kept = kept
        self._preview = preview
        self._give_back = give_back
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
        files = self._files.submit(frame, reason)
        area = said.area if said.finite else 0.0
        drawn = self._drawing.submit(self._preview.add, frame.index, view, area, reason)
        facts = frame_facts(frame.index, said, self._kept)
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
        self._drawing.shutdown()
