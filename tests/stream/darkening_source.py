"""The digital phantom with the beam off for a while, named to the pipeline as python:darkening_source:DarkeningSource."""

import numpy as np

from calib.config import PhantomConfig
from stream.sources.options import SourceOptions
from stream.sources.phantom import PhantomSource
from stream.sources.source import SourceFrame

DARK_FROM, DARK_TO = 30, 70


class DarkeningSource(PhantomSource):
    """Frames 30 to 69 are a detector's own noise, as it comes when there are no X-rays."""

    def __init__(self, options: SourceOptions) -> None:
        super().__init__(PhantomConfig(seed=3, rows=256, columns=256, rate_hz=10.0))
        self._dark = np.random.default_rng(0)

    def read(self, out: np.ndarray) -> SourceFrame:
        dark = DARK_FROM <= self._index < DARK_TO
        frame = super().read(out)
        if dark:
            out[:] = self._dark.integers(0, 4, out.shape, dtype=out.dtype)
        return frame
