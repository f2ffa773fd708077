"""A source whose frames change their size in the middle, named to the pipeline as python:growing_source:GrowingSource."""

import numpy as np

from stream.frame import FrameFormat
from stream.sources.options import SourceOptions
from stream.sources.source import FormatChanged, Source, SourceFrame

CHANGE_AT = 60


class GrowingSource(Source):
    """Frames of 256 x 256, then for ever frames of 300 x 400."""

    kind = "device"
    rate_hz = 30.0

    def __init__(self, options: SourceOptions) -> None:
        self.format = FrameFormat(256, 256)
        self._random = np.random.default_rng(options.seed)
        self._index = 0

    def read(self, out: np.ndarray) -> SourceFrame:
        if self._index == CHANGE_AT and self.format.rows == 256:
            self.format = FrameFormat(300, 400)
            raise FormatChanged("frames are now 400 x 300 pixels")
        self._index += 1
        out[:] = self._random.integers(60, 180, out.shape, dtype=np.uint8)
        return SourceFrame()
