"""The frames of `bench peers`: decoded once, into a file that every contestant maps; and, for the pipeline, a source that
plays them in blocks.

`python -m bench.peer_source`, a worker: codecs run in a process of their own here too.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.worker import serve
from stream.control import become_child, format_from_json, format_to_json
from stream.errors import StreamError
from stream.sources.options import SourceOptions
from stream.sources.source import Source, SourceFrame

BLOCKS_VARIABLE = "CONTRASTREAM_BENCH_BLOCKS"
"""Environment variable: the FIFO that tells `BlockSource` its blocks."""
FRAMES_VARIABLE = "CONTRASTREAM_BENCH_FRAMES"
"""Environment variable: the file of frames."""
FORMAT_VARIABLE = "CONTRASTREAM_BENCH_FORMAT"
"""Environment variable: their format as JSON."""
MAX_BYTES = 1 << 28
"""Of frames that are kept; a longer loop is cut, and the report says how many frames it has."""


def distinct_frames(source: Source, *, max_bytes: int = MAX_BYTES) -> np.ndarray:
    """One pass of a recording, (n, rows, columns), without frames that repeat the one before bit for bit.

    The pipeline marks such repeats and does not infer them again, so with them it would do less than its peers.

    Raises:
        BenchError: A live device, or fewer than two frames that differ.
        StreamError: A frame cannot be decoded.
    """
    from stream.sources.phantom import PhantomSource

    if source.live:
        raise BenchError(
            "needed phantom or a recorded loop, got a live device; its frames never come twice, so nothing can be compared"
        )
    frame_format = source.format
    frame = np.empty((frame_format.rows, frame_format.columns), frame_format.dtype)
    count = source.phantom.loop.frames if isinstance(source, PhantomSource) else source.frame_count
    frames: list[np.ndarray] = []
    while (count is None or len(frames) < count) and (len(frames) + 1) * frame.nbytes <= max_bytes:
        if source.read(frame) is None:
            break
        if not frames or not np.array_equal(frames[-1], frame):
            frames.append(frame.copy())
        elif count is not None:
            count -= 1
    if len(frames) > 1 and np.array_equal(frames[0], frames[-1]):
        frames.pop()  # they meet where the loop begins again
    if len(frames) < 2:
        raise BenchError(f"needed a loop of two frames or more that differ, got {len(frames)}; use another")
    return np.stack(frames)


def load(source: str, options: dict[str, Any], path: str) -> dict[str, Any]:
    """Decode a recording into a file of frames (npy)."""
    from stream.sources.open import open_source

    opened = open_source(source, SourceOptions(**options))
    try:
        kind, frame_format = opened.kind, opened.format
        frames = distinct_frames(opened)
    finally:
        opened.close()
    np.save(path, frames)
    return {"format": format_to_json(frame_format), "frames": len(frames), "kind": kind}


class BlockSource(Source):
    """Plays the file of frames in blocks: each line of the FIFO says when a block's first frame is due, how many it has
    and the time between two. Waits for the next line after a block.

    `python:bench.peer_source:BlockSource` is its name as a source.
    """

    kind = "cine"

    def __init__(self, options: SourceOptions) -> None:
        self.format = format_from_json(json.loads(os.environ[FORMAT_VARIABLE]))
        self.rate_hz = options.rate_hz
        self._frames = np.load(os.environ[FRAMES_VARIABLE], mmap_mode="r")
        self._fifo = Path(os.environ[BLOCKS_VARIABLE]).open()  # noqa: SIM115 - closed with the source
        self._sequence = 0
        self._step = self._left = 0
        self._start_ns = self._period_ns = 0.0

    def read(self, out: np.ndarray) -> SourceFrame | None:
        while not self._left:
            if not (line := self._fifo.readline()):
                return None
            start_ns, frames, period_ns = line.split()
            self._start_ns, self._left, self._period_ns = float(start_ns), int(frames), float(period_ns)
            self._step = 0
        np.copyto(out, self._frames[self._sequence % len(self._frames)])
        due_ns = round(self._start_ns + self._step * self._period_ns)
        self._sequence, self._step, self._left = self._sequence + 1, self._step + 1, self._left - 1
        return SourceFrame(stamp_ns=due_ns)

    def close(self) -> None:
        self._fifo.close()


def main() -> int:
    """Entry point of the worker that decodes."""
    become_child()
    serve({"load": load}, expected=(StreamError, BenchError, ValueError))
    return 0


if __name__ == "__main__":
    sys.exit(main())
