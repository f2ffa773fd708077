"""The capture: what a recorder writes while it runs, frame by frame, and what a killed one leaves behind.

A file that is only ever appended to. All little-endian:

    8 bytes CSCAPTR1, u32 length, JSON {"contrastream", "begun"}                 once
    4 bytes FRME, u32 length, u32 CRC-32 of the message, i64 received in ns, message     for each frame
    4 bytes ENGN, u32 length, u32 CRC-32 of the JSON, i64 in ns, JSON of the engine      when another one draws, and every minute
    4 bytes STOP, u32 length, u32 CRC-32 of the JSON, i64 in ns, JSON {"state", "age_ms"}     when the picture stops being live
    4 bytes DONE, u32 length, u32 CRC-32 of the JSON, i64 in ns, JSON {"frames"}         when the recording ended as it should

A message is what the wire carries (stream/wire.py), so that nothing of a frame is lost here. An ENGN says whose frames its
engine draws: {"stream", "backend", "precision", "model_sha256", "taught", "restarts", "gpu"}. A STOP says what no frame can:
that a viewer showed STALE or NO_SIGNAL from then on, until the next frame. Whatever ends a recorder, all frames before the
last are whole, since each is handed to the system as it comes; a file without DONE, or with a cut-off end, says so when it is
opened.
"""

import json
import math
import mmap
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from stream.errors import RecordError, WireError
from stream.frame import State
from stream.wire import Message, unpack

MAGIC = b"CSCAPTR1"
FRAME, ENGINE, STOP, DONE = b"FRME", b"ENGN", b"STOP", b"DONE"
HEAD = struct.Struct("<8sI")
RECORD = struct.Struct("<4sIIq")
MAX_HEAD_BYTES = 4096
MAX_MESSAGE_BYTES = 64 << 20
"""Above the largest frame there is: three planes of 2048 x 2048 with 16 bits."""
ENGINE_FACTS = ("backend", "precision", "model_sha256", "taught")
"""What tells one engine from another."""
MORE_FACTS = ("restarts", "gpu")
"""What else is kept of an engine: how often it was started again, and what the GPU did; None where there is none."""
MAX_FACT = 200
"""Characters of an engine's fact; a SHA-256 has 64."""
SUFFIX = ".capture"


class CaptureWriter:
    """Appends frames to a new file, each by one write that a killed process has done or not.

    Args:
        path: The file; must not exist, since it may hold what a killed recorder left.

    Raises:
        RecordError: It exists or cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.frames = 0
        self.bytes = 0
        try:
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except FileExistsError as error:
            raise RecordError(
                f"needed a new file, got {path.name}, which an earlier recording left; keep it with: contrastream record "
                f"{path} OUT, or remove it"
            ) from error
        except OSError as error:
            raise RecordError(
                f"needed to write {path}, got: {error.strerror}; choose another folder"
            ) from error
        begun = datetime.now(UTC).isoformat(timespec="seconds")
        said = json.dumps({"contrastream": version("contrastream"), "begun": begun}).encode()
        try:
            self._append(HEAD.pack(MAGIC, len(said)), said)
        except OSError as error:
            self.close()
            path.unlink()
            raise RecordError(f"needed to write {path}, got: {error.strerror}; free some space") from error

    def add(self, message: Message, received_ns: int) -> None:
        """Append a frame.

        Raises:
            RecordError: The disk is full or gone. The frames before are whole; half a frame is cut off again.
        """
        self._add(FRAME, memoryview(message.raw).cast("B"), received_ns)
        self.frames += 1

    def add_engine(self, engine: dict[str, Any], now_ns: int, *, stream: str | None = None) -> None:
        """Append what draws from here on.

        Args:
            engine: `ENGINE_FACTS`, and `MORE_FACTS` where they are known.
            now_ns: When this was said, CLOCK_MONOTONIC of this host.
            stream: Whose frames it draws, as the heartbeat names it; None for all.

        Raises:
            RecordError: As `add`.
        """
        said = {name: engine.get(name) for name in (*ENGINE_FACTS, *MORE_FACTS)}
        self._add(ENGINE, json.dumps({"stream": stream, **said}).encode(), now_ns)

    def add_stop(self, state: State, age_ms: float, now_ns: int) -> None:
        """Append that the picture is not live from here on.

        Args:
            state: What a viewer shows then: STALE or NO_SIGNAL.
            age_ms: How old the last frame is.
            now_ns: When, CLOCK_MONOTONIC of this host.

        Raises:
            RecordError: As `add`.
        """
        said = {"state": state.name, "age_ms": round(age_ms, 1)}
        self._add(STOP, json.dumps(said).encode(), now_ns)

    def finish(self, now_ns: int) -> None:
        """Append that the recording ended as it should, and close the file.

        Raises:
            RecordError: As `add`.
        """
        self._add(DONE, json.dumps({"frames": self.frames}).encode(), now_ns)
        self.close()

    def _add(self, mark: bytes, raw: bytes | memoryview, stamp_ns: int) -> None:
        head = RECORD.pack(mark, len(raw), zlib.crc32(raw), stamp_ns)
        try:
            self._append(head, raw)
        except OSError as error:
            os.ftruncate(self._file, self.bytes)
            raise RecordError(
                f"needed {len(raw) / 1e6:.1f} MB more for {self.path.name}, got: {error.strerror}; the {self.frames} frames "
                f"before are kept: free some space, then make the files with: contrastream record {self.path} OUT"
            ) from error

    def _append(self, head: bytes, body: bytes | memoryview) -> None:
        whole = len(head) + len(body)
        written = os.writev(self._file, [head, body])
        while written < whole:
            rest = body[written - len(head) :] if written >= len(head) else head[written:]
            written += os.write(self._file, rest)
        self.bytes += whole

    def close(self) -> None:
        """Close the file; may be called twice."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


@dataclass(frozen=True)
class CapturedFrame:
    """A frame of a capture."""

    message: Message
    """Its planes look into the file."""
    received_ns: int
    """When the recorder got it, CLOCK_MONOTONIC of its host."""


@dataclass(frozen=True)
class Stop:
    """The picture stopped being live, until the next frame."""

    after: int
    """The place of the frame before it; -1 where there was none."""
    state: State
    age_ms: float
    at_ns: int
    """CLOCK_MONOTONIC of the recorder's host."""


@dataclass(frozen=True)
class EngineSaid:
    """What drew, as the publisher said it at one moment."""

    after: int
    """The place of the frame before it; -1 where there was none."""
    stream: str | None
    """Whose frames; None for all."""
    facts: dict[str, Any]
    """`ENGINE_FACTS`."""
    more: dict[str, Any]
    """`MORE_FACTS` of that moment."""


class Capture:
    """A capture, opened. Frames are read when they are asked for.

    Args:
        path: The file.

    Raises:
        RecordError: It cannot be read, is none, or holds no whole frame.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) if size else None
        except OSError as error:
            raise RecordError(
                f"needed a capture, got {path}: {error.strerror}; give the {SUFFIX} file"
            ) from error
        self._bytes = memoryview(self._map) if self._map is not None else memoryview(b"")
        self.begun = self._read_head()
        self._starts: list[tuple[int, int, int]] = []
        self.engines: list[EngineSaid] = []
        """What drew, in order, said again every minute."""
        self.stops: list[Stop] = []
        """When the picture was not live, in order."""
        self.cut_off: str | None = None
        """What is missing at the end, in words; None where nothing is."""
        self._done = False
        self._index()
        if self.cut_off is None and not self._done:
            self.cut_off = (
                "the recording was cut off: its recorder was killed or the disk was full, and what came after its frame "
                f"{len(self._starts)} is missing"
            )
        if not self._starts:
            raise RecordError(f"needed at least one whole frame, got none in {path.name}; record again")

    def _read_head(self) -> str:
        try:
            magic, length = HEAD.unpack_from(self._bytes)
            if magic != MAGIC or length > MAX_HEAD_BYTES:
                raise ValueError
            said = json.loads(bytes(self._bytes[HEAD.size : HEAD.size + length]))
            self._first = HEAD.size + length
            return datetime.fromisoformat(said["begun"]).isoformat()
        except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
            raise RecordError(
                f"needed a capture of contrastream record, got {self.path.name}, which does not begin like one"
            ) from error

    def _index(self) -> None:
        """Find the frames by their heads; a recorder that was killed leaves half a frame at the end at most."""
        at, size = self._first, len(self._bytes)
        while at < size:
            whole = False
            if at + RECORD.size <= size:
                mark, length, crc, received_ns = RECORD.unpack_from(self._bytes, at)
                start = at + RECORD.size
                whole = (
                    mark in (FRAME, ENGINE, STOP, DONE)
                    and length <= MAX_MESSAGE_BYTES
                    and start + length <= size
                )
                # Only the last one can be half there with its full length, after the machine itself went down.
                if whole and start + length == size:
                    whole = zlib.crc32(self._bytes[start:]) == crc
            if not whole:
                self.cut_off = f"the recording was cut off: {size - at} bytes after its frame {len(self._starts)} are no whole frame"
                return
            if mark == FRAME:
                self._starts.append((start, length, received_ns))
            elif mark == ENGINE:
                self._read_engine(bytes(self._bytes[start : start + length]))
            elif mark == DONE:
                self._done = True
            else:
                self._read_stop(bytes(self._bytes[start : start + length]), received_ns)
            at = start + length

    def _read_engine(self, text: bytes) -> None:
        try:
            said = json.loads(text)
            json.dumps(said, allow_nan=False)  # what is made of it is JSON again
            facts = {name: said.get(name) for name in ENGINE_FACTS}
            stream, more = said.get("stream"), {name: said.get(name) for name in MORE_FACTS}
            if not all(
                value is None
                or isinstance(value, bool)
                or (isinstance(value, str) and len(value) <= MAX_FACT)
                for value in (stream, *facts.values())
            ):
                raise ValueError("a fact that is no short text")
            self.engines.append(EngineSaid(len(self._starts) - 1, stream, facts, more))
        except (ValueError, AttributeError, RecursionError) as error:
            raise RecordError(
                f"{self.path.name}: what it says of the engine is damaged; restore the file"
            ) from error

    def _read_stop(self, text: bytes, at_ns: int) -> None:
        try:
            said = json.loads(text)
            state, age_ms = State[said["state"]], float(said["age_ms"])
            if not 0.0 <= age_ms < math.inf:
                raise ValueError(f"an age of {age_ms} ms")
            self.stops.append(Stop(len(self._starts) - 1, state, age_ms, at_ns))
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            raise RecordError(
                f"{self.path.name}: what it says of a stop is damaged; restore the file"
            ) from error

    def __len__(self) -> int:
        return len(self._starts)

    def frame(self, index: int) -> CapturedFrame:
        """A frame by its place.

        Raises:
            RecordError: Its bytes are damaged.
        """
        start, length, received_ns = self._starts[index]
        raw = self._bytes[start : start + length]
        _, _, crc, _ = RECORD.unpack_from(self._bytes, start - RECORD.size)
        if zlib.crc32(raw) != crc:
            raise RecordError(
                f"{self.path.name}: frame {index} is damaged (its CRC differs); restore the file"
            )
        try:
            return CapturedFrame(unpack(raw), received_ns)
        except WireError as error:
            raise RecordError(f"{self.path.name}: frame {index}: {error}") from error

    def __iter__(self) -> Iterator[CapturedFrame]:
        return (self.frame(index) for index in range(len(self)))
