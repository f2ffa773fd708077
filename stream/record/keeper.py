"""A viewer that keeps the last seconds of the live frames, and one key that writes them for `contrastream calib patient`.

A client of its own beside the viewer's: it takes every frame in order, while the viewer goes on taking the newest one and drawing it.
Writing is done in a thread of its own, so that neither waits for a disk.
"""

import os
import shlex
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from engines.trust import SHIPPED
from stream.control import angles_from_json
from stream.endpoint import Endpoint
from stream.errors import RecordError
from stream.record.dicom import partial_of, write_live
from stream.record.keep_settings import KeepSettings
from stream.record.kept import Held, KeptFrames
from stream.subscribe import Subscriber
from stream.timing import Clock, MonotonicClock
from stream.wire import Header

POLL_MS = 100
QUEUE = 32
"""Messages that may wait for this thread, which never waits for a disk; memory above what is said."""
GAP_S = 1.0
"""A pause in the frames above this is said."""
DEFAULT_MODEL = "compact"


@dataclass(frozen=True)
class Said:
    """What a viewer shows of it."""

    serial: int
    """Rises with each thing that is to be read."""
    writing: bool
    words: str
    """What became of the last key press, a few sentences; empty where none was."""
    command: str = ""
    """How to go on with the file that was written."""


class Keeper(threading.Thread):
    """Takes a stream's live frames into memory and writes them when it is told to.

    Args:
        endpoint: The stream.
        settings: What is kept, and where it goes.
        memory: Read the publisher's shared memory.
        clock: The clock by which frames grow old.
        on_note: Takes each sentence that belongs on the terminal, in a thread of this one.

    Raises:
        EndpointError, KeyFileError: As `Subscriber`.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        settings: KeepSettings,
        *,
        memory: bool = False,
        clock: Clock | None = None,
        on_note: Callable[[str], object] = print,
    ) -> None:
        import pydicom  # noqa: F401 - half a second, in which no picture must wait when the key is pressed

        super().__init__(name="keeper", daemon=True)
        self._settings, self._on_note = settings, on_note
        self._clock = clock or MonotonicClock()
        self._subscriber = Subscriber(endpoint, newest_only=False, queue=QUEUE, memory=memory, clock=clock)
        self._kept = KeptFrames(settings.seconds, settings.most_bytes)
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._writer: threading.Thread | None = None
        self._writing = False
        self.said = Said(0, False, "")
        """What there is to read; replaced as a whole."""
        self.fault: BaseException | None = None
        """What ended this thread, if anything did."""

    def run(self) -> None:
        try:
            while not self._ending.is_set():
                message = self._subscriber.poll(POLL_MS)
                if message is None:
                    continue
                lost = self._subscriber.statistics()["lost"]
                if self._kept.add(message, self._subscriber.received_ns, lost, self._angles()):
                    self._on_note(self._announcement(message.header))
        except BaseException as error:  # the viewer asks for it and ends; a thread cannot raise to it
            self.fault = error
        finally:
            self._subscriber.close()

    def _angles(self) -> tuple[float, float] | None:
        """The C-arm's, where the heartbeat says them."""
        source = (self._subscriber.status or {}).get("source")
        try:
            return angles_from_json(source) if isinstance(source, dict) else None
        except ValueError:
            return None

    def _announcement(self, header: Header) -> str:
        """How much memory is taken, and what a key press will do."""
        frame_format, seconds = header.frame_format, self._settings.seconds
        frames = self._kept.capacity(frame_format, header.rate_hz)
        size = frames * frame_format.pixels * frame_format.sample_bytes / 1e6
        rate = f"at {header.rate_hz:g} per second" if header.rate_hz else "at a rate that is not known"
        held_s = frames / header.rate_hz if header.rate_hz else seconds
        what = f"keeping the last {seconds:g} s"
        if held_s < seconds:
            what = f"keeping the last {held_s:.0f} s only, not {seconds:g}: --keep-memory and {frames} frames are the limits;"
        return (
            f"{what} of live frames in memory, up to {size:.0f} MB ({frame_format.rows} x {frame_format.columns}, "
            f"{frame_format.bits_stored} bits, {rate}); the key k writes them into {self._settings.folder}"
        )

    @property
    def held_s(self) -> float:
        """Seconds that would be written now."""
        return self._kept.held_s(self._clock.now_ns())

    @property
    def seconds(self) -> float:
        """Seconds that are kept."""
        return self._settings.seconds

    def press(self) -> None:
        """Write what is held; returns at once. What becomes of it is in `said`, and a note."""
        with self._lock:
            if self._writing:
                self._say("Still writing the ones before; press again when that is done.")
                return
            held = self._kept.take(self._clock.now_ns())
            if held is None:
                self._say(f"Nothing to write: no frame has come in the last {self._settings.seconds:g} s.")
                return
            self._writing = True
            self._say(
                f"Writing the last {held.seconds:.1f} s: {len(held)} frames, {held.bytes / 1e6:.0f} MB."
            )
            self._writer = threading.Thread(target=self._write, args=(held,), name="keeper-writer")
            self._writer.start()

    def _write(self, held: Held) -> None:
        words, command = "Not written, a fault of ours.", ""
        try:
            out = self._new_file()
            try:
                write_live(out, held.segment, lambda: None, held.angles_deg)
            finally:
                partial_of(out).unlink(missing_ok=True)
            words, command = self._written(held, out), self._command(out)
        except RecordError as error:
            words = f"Not written: {error}"
        finally:
            held.close()
            with self._lock:  # nobody is told "still writing" of what was written
                self._writing = False
                self._say(words, command)

    def _new_file(self) -> Path:
        """A name that is nobody's, held by a file of this user's alone; it tells the time and nothing else.

        Raises:
            RecordError: The folder cannot be written any more.
        """
        stem = time.strftime("kept-%Y%m%dT%H%M%S")
        for number in range(1, 100):
            out = self._settings.folder / (f"{stem}.dcm" if number == 1 else f"{stem}-{number}.dcm")
            if out.exists():
                continue
            try:
                os.close(os.open(partial_of(out), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
            except FileExistsError:
                continue
            except OSError as error:
                raise RecordError(
                    f"needed to write {out}, got: {error.strerror}; mend that and press the key again"
                ) from error
            if not out.exists():
                return out
            partial_of(out).unlink()  # another viewer has just made a whole file of that name
        raise RecordError(
            f"needed a new name in {self._settings.folder}, got 99 of this second; press the key again"
        )

    def _written(self, held: Held, out: Path) -> str:
        """What was written, and what of it is not as it was asked for."""
        segment, seconds = held.segment, self._settings.seconds
        words = [
            f"Wrote the last {held.seconds:.1f} s, {len(held)} frames, to {out}. It shows the patient: keep it as you keep a "
            "recording."
        ]
        if held.cut:
            words.append(f"Nothing older is in it, since {held.cut}.")
        elif held.seconds < seconds - GAP_S:
            why = "--keep-memory holds no more" if held.full else "no more came in that time"
            words.append(f"{seconds:g} s were asked for: {why}.")
        if held.longest_gap_s > GAP_S:
            words.append(f"The picture paused in it, for {held.longest_gap_s:.1f} s at the longest.")
        if segment.lost:
            words.append(f"{segment.lost} frames between them did not reach this viewer.")
        if segment.unmasked_text:
            words.append("Burned-in text is not masked: it may show who the patient is.")
        if any(header.faults_injected for header in segment.headers):
            words.append("TEST, FAULTS INJECTED: it is of no room.")
        return " ".join(words)

    def _command(self, out: Path) -> str:
        """The line to go on with. A site's record and a model of one's own are files whose names no heartbeat says."""
        status = self._subscriber.status or {}
        engine = status.get("engine")
        sha256 = engine.get("model_sha256") if isinstance(engine, dict) else None
        model = SHIPPED.get(str(sha256), "MODEL.onnx") if sha256 else DEFAULT_MODEL
        words = ["contrastream", "calib", "patient", str(out), "--out", str(out.with_suffix(".safetensors"))]
        words += ["--model", model] if model != DEFAULT_MODEL else []
        words += ["--site", "SITE.toml"] if status.get("site") else []
        return shlex.join(words)

    def _say(self, words: str, command: str = "") -> None:
        """Say it on the terminal, then in the viewer; the lock is held."""
        self._on_note(words)
        if command:
            self._on_note(f"go on with:  {command}")
        self.said = Said(self.said.serial + 1, self._writing, words, command)

    def check(self) -> None:
        """Raise what ended the thread.

        Raises:
            BaseException: That.
        """
        if self.fault is not None:
            raise self.fault

    def end(self) -> None:
        """End; what is being written is written first."""
        self._ending.set()
        if self.is_alive():
            self.join(1.0)
        if self._writer is not None:
            self._writer.join()
