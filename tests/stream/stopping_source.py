"""A device that gives 80 frames, has lost 10 on the way, and then none for ever: `python:stopping_source:StoppingSource`."""

import threading
import time

import numpy as np

from stream.frame import FrameFormat
from stream.sources.options import SourceOptions
from stream.sources.source import Source, SourceFrame

GIVEN, LOST = 80, 10


class StoppingSource(Source):
    """Frames of noise, about 30 per second; none is left out, however busy the machine is."""

    kind = "device"
    live = True
    rate_hz = 30.0
    read_within_s = None

    def __init__(self, _options: SourceOptions) -> None:
        self.format = FrameFormat(128, 128)
        self._random = np.random.default_rng(5)
        self._given = 0

    def read(self, out: np.ndarray) -> SourceFrame:
        if self._given == GIVEN:
            threading.Event().wait()
        time.sleep(1 / 30)
        self._given += 1
        out[:] = self._random.integers(0, 256, out.shape, np.uint8)
        return SourceFrame(lost=LOST if self._given == GIVEN // 2 else 0)
