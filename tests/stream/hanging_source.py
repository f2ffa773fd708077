"""The digital phantom behind a driver with bugs, named to the pipeline as python:hanging_source:CLASS."""

import ctypes
import os
import time
from pathlib import Path

import numpy as np

from calib.config import PhantomConfig
from stream.sources.options import SourceOptions
from stream.sources.phantom import PhantomSource
from stream.sources.source import SourceFrame

AT = 20


class HangingSource(PhantomSource):
    """A device whose driver never returns from frame 20, once: the file that HANGS_ONCE names says that it has."""

    live = False
    read_within_s = 1.0
    lasts_s = 3600.0

    def __init__(self, options: SourceOptions) -> None:
        super().__init__(PhantomConfig(seed=3, rows=128, columns=128, rate_hz=30.0))
        self._hung = Path(os.environ["HANGS_ONCE"])

    def read(self, out: np.ndarray) -> SourceFrame:
        if self._index == AT and not self._hung.exists():
            self._hung.write_text("yes")
            time.sleep(self.lasts_s)
        return super().read(out)


class SlowRecording(HangingSource):
    """A recording of 40 frames on a disk that takes its time once."""

    lasts_s = 2.5

    def __init__(self, options: SourceOptions) -> None:
        super().__init__(options)
        self.frame_count = 40

    def read(self, out: np.ndarray) -> SourceFrame | None:  # type: ignore[override] - a phantom has no end
        return None if self._index >= self.frame_count else super().read(out)

    def skip(self) -> bool:
        return self._index < self.frame_count and super().skip()


class DeadlyRecording(SlowRecording):
    """A recording with bytes at frame 20 that make its codec read where no memory is."""

    def read(self, out: np.ndarray) -> SourceFrame | None:  # type: ignore[override]
        if self._index == AT:
            ctypes.string_at(8)
        return super().read(out)
