"""The command `record`: a client that keeps what a stream sends, until it is told to end.

It writes a capture (stream/record/capture.py) while frames come and makes the file that was asked for when it ends, so
that nothing slow stands between the stream and the disk. A recorder that cannot keep up loses frames, counts them
by their publication numbers, and delays nobody.
"""

import os
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from stream.config import RecordConfig
from stream.endpoint import choose_keys, parse_endpoint
from stream.errors import RecordError, StreamError
from stream.frame import State
from stream.record.arrays import about, write_arrays
from stream.record.capture import ENGINE_FACTS, SUFFIX, Capture, CaptureWriter
from stream.record.segment import Segment, segments
from stream.session import stopped_by_signals, write_json
from stream.subscribe import Subscriber
from stream.timing import NS_PER_S, MonotonicClock

FIRST_FRAME_S = 10.0
REFUSED_S = 1.0
"""After so long without a frame that can be read, one that cannot be is said."""
POLL_MS = 100
ENGINE_EVERY_S = 60.0
"""What draws is said when it changes and so often, for whoever looks at the middle of a long capture."""
NOT_LIVE = (State.STALE, State.NO_SIGNAL)
"""States that no frame carries."""
ENDED_S = 0.5
"""After the publisher has said that it ended, what is under way still comes."""
LINE_S = 0.5
QUEUE = 256
FORMATS = (".dcm", ".mp4", ".npz")


def record(config: RecordConfig) -> int:
    """`contrastream record`.

    Returns:
        0.

    Raises:
        RecordError: Nothing came, the disk is full, or the capture is none.
        EndpointError: `ENDPOINT` is none.
    """
    out = config.out
    _check_out(out)
    given = Path(config.endpoint)
    if given.suffix == SUFFIX and given.is_file():
        return convert(given, out)
    capture = out.with_name(out.name + SUFFIX)
    recorder = Recorder(config, capture)
    with stopped_by_signals(recorder):
        recorder.run()
    if recorder.frames == 0:
        print("record: stopped before the first frame; nothing was recorded", file=sys.stderr)
        return 0
    print(recorder.summary(), file=sys.stderr)
    status = convert(capture, out)
    capture.unlink()
    return status


def _check_out(out: Path) -> None:
    """Find out before anything is recorded that it cannot be written."""
    if out.suffix not in FORMATS:
        raise RecordError(
            f"needed a file that ends in {', '.join(FORMATS)}, got {out.name}; name one of them"
        )
    if not out.parent.is_dir() or not os.access(out.parent, os.W_OK):
        raise RecordError(f"needed a folder that can be written, got {out.parent}; make it first")
    if out.exists():
        raise RecordError(f"needed a new file, got {out}, which exists; choose another name or remove it")


class Recorder:
    """Takes a stream into a capture until it ends, `stop` is called, or enough has come.

    Args:
        config: What to record, and for how long.
        capture: The file that grows.

    Raises:
        EndpointError: The endpoint is none.
    """

    def __init__(self, config: RecordConfig, capture: Path) -> None:
        self._config = config
        self._path = capture
        self._endpoint = parse_endpoint(
            choose_keys(config.endpoint, key=config.key, server=config.server_key)
        )
        self._clock = MonotonicClock()
        self._stopped = threading.Event()
        self.frames = 0
        self.synthetic = 0
        self.lost = 0
        self._bytes = 0
        self._began_ns = 0
        self._said_engine: dict[str, Any] = {}
        self._said_engine_at = 0.0

    def stop(self) -> None:
        """End soon; safe from a signal handler."""
        self._stopped.set()

    def run(self) -> None:
        """Record.

        Raises:
            RecordError: No frame came within 10 s, those that come are of another version, or the disk is full.
        """
        subscriber = Subscriber(self._endpoint, newest_only=False, queue=QUEUE, memory=self._config.memory)
        try:
            writer = CaptureWriter(self._path)
            try:
                self._record(subscriber, writer)
                if writer.frames:
                    writer.finish(self._clock.now_ns())
            finally:
                writer.close()
                if writer.frames == 0:
                    self._path.unlink()
        finally:
            subscriber.close()
            self._line("\n" if sys.stderr.isatty() else "")

    def _record(self, subscriber: Subscriber, writer: CaptureWriter) -> None:
        begin = time.monotonic()
        said_at, ended_at = 0.0, None
        said_state: State | None = None
        while not self._stopped.is_set():
            message = subscriber.poll(POLL_MS)
            now = time.monotonic()
            if message is not None:
                writer.add(message, subscriber.received_ns)
                self._count(message.header.state, subscriber, writer)
                if self._is_enough():
                    return
                ended_at = None
            elif writer.frames == 0 and subscriber.refusal and now - begin > REFUSED_S:
                raise RecordError(f"{self._endpoint.plain}: {subscriber.refusal}")
            elif writer.frames == 0 and now - begin > FIRST_FRAME_S:
                why = subscriber.shown_state().why
                raise RecordError(
                    f"needed a running stream at {self._endpoint.plain}, got silence for {FIRST_FRAME_S:.0f} s; "
                    + (why[0].lower() + why[1:] if why else "start one with: contrastream run SOURCE")
                )
            shown = subscriber.shown_state()
            if shown.state is not said_state and shown.state in NOT_LIVE and writer.frames:
                writer.add_stop(shown.state, shown.age_ms, self._clock.now_ns())
            said_state = shown.state
            status = subscriber.status or {}
            if writer.frames:
                self._add_engine(writer, status, now)
            if status.get("ended"):
                ended_at = ended_at or now
                if now - ended_at > ENDED_S:
                    if writer.frames:
                        writer.add_stop(State.NO_SIGNAL, shown.age_ms, self._clock.now_ns())
                    return
            if now - said_at > LINE_S:
                said_at = now
                self._say(subscriber)

    def _add_engine(self, writer: CaptureWriter, status: dict[str, Any], now: float) -> None:
        engine = status.get("engine") or {}
        facts = {"stream": status.get("stream"), **{name: engine.get(name) for name in ENGINE_FACTS}}
        if not engine or (facts == self._said_engine and now - self._said_engine_at < ENGINE_EVERY_S):
            return
        self._said_engine, self._said_engine_at = facts, now
        more = {"restarts": status.get("engine_restarts"), "gpu": status.get("gpu")}
        writer.add_engine({**facts, **more}, self._clock.now_ns(), stream=status.get("stream"))

    def _count(self, state: State, subscriber: Subscriber, writer: CaptureWriter) -> None:
        self._began_ns = self._began_ns or subscriber.received_ns
        self.frames = writer.frames
        self.synthetic += state is State.SYNTHETIC
        self.lost = subscriber.statistics()["lost"]
        self._bytes = writer.bytes

    def _is_enough(self) -> bool:
        seconds, frames = self._config.seconds, self._config.frames
        enough = frames is not None and self.frames >= frames
        return enough or (seconds is not None and self._passed_s() >= seconds)

    def _passed_s(self) -> float:
        return (self._clock.now_ns() - self._began_ns) / NS_PER_S if self._began_ns else 0.0

    def _say(self, subscriber: Subscriber) -> None:
        shown = subscriber.shown_state()
        state = shown.state.name + (f"({shown.reason.name.lower()})" if shown.reason else "")
        if self.frames == 0:
            self._line(f"waiting for {self._endpoint.plain}{shown.why and ': ' + shown.why}")
        else:
            self._line(f"recording {self._passed_s():.1f} s  {self.summary()}  {state}  Ctrl-C ends")

    @staticmethod
    def _line(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)

    def summary(self) -> str:
        """What has been recorded so far."""
        return f"{self.frames} frames, {self.synthetic} of them SYNTHETIC, {self.lost} lost, {self._bytes / 1e6:.0f} MB"


def convert(capture: Path, out: Path) -> int:
    """Make files of a capture: a set for each stretch of it, NAME, NAME-2 and so on; and NAME.json about each.

    Args:
        capture: What a recorder wrote, whole or cut off.
        out: The first file; its ending says what is made.

    Returns:
        0.

    Raises:
        RecordError: The capture is none, or the disk is full. The capture stays.
    """
    opened = Capture(capture)
    if opened.cut_off is not None:
        print(f"record: {opened.cut_off}; the {len(opened)} whole frames are kept", file=sys.stderr)
    for place, segment in enumerate(segments(opened)):
        name = out if place == 0 else out.with_name(f"{out.stem}-{place + 1}{out.suffix}")
        _make(name, segment, capture)
    return 0


def _make(name: Path, segment: Segment, capture: Path) -> None:
    """Make the files of a segment: all of them, or none."""
    files: list[Path] = []
    work = len(segment) + 2 * len(segment.synthetic) * (name.suffix != ".mp4")
    try:
        with tqdm(total=work, desc=name.name, unit="frame", disable=None, leave=False) as bar:
            files = _write(name, segment, bar.update)
        said = {**about(segment), "files": [file.name for file in files], "frame": _frames(segment)}
        write_json(name.with_suffix(".json"), said)
    except StreamError as error:
        for file in files:
            file.unlink(missing_ok=True)
        raise RecordError(
            f"{error}; the recording is kept, make the files elsewhere with: contrastream record {capture} OUT"
        ) from error
    print(
        f"wrote {', '.join(file.name for file in files)} and {name.with_suffix('.json').name}",
        file=sys.stderr,
    )


def _write(out: Path, segment: Segment, progress: Callable[[], None]) -> list[Path]:
    match out.suffix:
        case ".dcm":
            from stream.record.dicom import write_dicom

            return write_dicom(out, segment, progress)
        case ".mp4":
            from stream.record.movie import write_movie

            return write_movie(out, segment, progress)
        case _:
            return write_arrays(out, segment, progress)


def _frames(segment: Segment) -> list[dict[str, Any]]:
    """Each frame's number, time and state, in the order of the live frames."""
    return [
        {
            "sequence": header.sequence,
            "time_ms": round(time_ms, 3),
            "state": header.state.name,
            "reason": header.reason.name.lower(),
            **({} if header.adaptation is None else {"adaptation": header.adaptation.key}),
        }
        for header, time_ms in zip(segment.headers, segment.times_ms(), strict=True)
    ]
