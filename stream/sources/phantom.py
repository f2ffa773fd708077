"""The digital phantom as a stream without end: a closed loop of clean pictures, noise made anew for each frame."""

import numpy as np

from calib.config import PhantomConfig
from calib.phantom import Phantom
from calib.phantom_detector import electronic_sd, noise_field
from stream.frame import FrameFormat
from stream.sources.source import Source, SourceFrame

_FULL_SCALE = 65535.0
"""Grey level 1 as a clean picture of the loop holds it."""
_NOISE_FIELDS = 2
_NOISE_MARGIN = 128
"""A field of noise is this much larger than the frame, and a window of it is used."""


class PhantomSource(Source):
    """One patient of `calib.phantom`, seen for ever.

    A picture of the loop is rendered when it is first asked for and kept with its lag, without noise; from the second pass on
    a frame costs the noise alone. The noise of a frame is a window into one of two fixed fields, which take
    turns, at a place that follows from the seed and the frame's number: so no frame repeats the one before it,
    and two sources of the same settings deliver the same bytes. It has the statistics of `Phantom.frame`'s
    noise, but not its values.

    Args:
        config: The patient and how the picture is taken. `noise` does not matter here: one picture is shown.
    """

    kind = "phantom"

    def __init__(self, config: PhantomConfig) -> None:
        self.config = config
        self.format = FrameFormat(config.rows, config.columns, config.bits_stored)
        self.rate_hz = config.rate_hz
        self.phantom = Phantom(config)
        self.sizes = {"pixel_spacing_mm": (config.spacing_mm, config.spacing_mm)}  # at the heart
        self.angles_deg = (self.phantom.view.primary_deg, self.phantom.view.secondary_deg)
        self.notes = self._notes()
        frames, shape = self.phantom.loop.frames, (config.rows, config.columns)
        self._index = 0
        # Pages of `_loop` are touched as its pictures are rendered, so it costs nothing at the start.
        self._loop = np.empty((frames, *shape), np.uint16)
        self._rendered = np.zeros(frames, bool)
        self._filled = np.zeros(frames, bool)
        rng = np.random.default_rng((config.seed, 0x5EED))
        larger = (config.rows + _NOISE_MARGIN, config.columns + _NOISE_MARGIN)
        self._noise = [noise_field(larger, rng) for _ in range(_NOISE_FIELDS)]
        for field in self._noise:
            # In stored values the spread is sqrt(value + floor) times this; see calib.phantom_detector.noisy.
            field *= np.float32(np.sqrt(config.max_value / self.phantom.quanta))
        self._floor = np.float32(config.max_value * self.phantom.quanta * electronic_sd(config) ** 2)
        self._brightest = np.float32(config.saturation * config.max_value)
        self._picture = np.empty(shape, np.float32)
        self._spread = np.empty(shape, np.float32)

    def _notes(self) -> tuple[str, ...]:
        loop, rate_hz = self.phantom.loop, self.config.rate_hz
        seconds = loop.frames / rate_hz
        motion = (
            f"digital phantom, patient {self.config.seed}: a loop of {loop.frames} frames with "
            f"{60 * loop.beats / seconds:.1f} heartbeats and {60 / seconds:.1f} breaths per minute"
        )
        if abs(60 / seconds - self.config.breaths_per_min) <= 0.1 * self.config.breaths_per_min:
            return (motion,)
        return (
            motion,
            f"{self.config.breaths_per_min:g} breaths per minute were asked for; the loop is kept to what fits in memory "
            "or in whole frames",
        )

    def read(self, out: np.ndarray) -> SourceFrame:
        """Write the next frame's stored pixel values into `out`; there is always one."""
        place = self._index % self.phantom.loop.frames
        if not self._rendered[place]:
            self._render(place)
        picture, spread = self._picture, self._spread
        maximum = np.float32(self.config.max_value)
        np.multiply(self._loop[place], maximum / np.float32(_FULL_SCALE), out=picture)
        np.add(picture, self._floor, out=spread)
        np.sqrt(spread, out=spread)
        spread *= self._noise_window(self._index)
        picture += spread
        picture += np.float32(0.5)
        np.clip(picture, np.float32(0.0), self._brightest + np.float32(0.5), out=picture)
        np.copyto(out, picture, casting="unsafe")
        self._index += 1
        return SourceFrame(contrast=bool(self._filled[place]))

    def skip(self) -> bool:
        """Pass over the next frame; it is not rendered."""
        self._index += 1
        return True

    def rewind(self) -> None:
        """Start again at the first frame, with the first frame's noise."""
        self._index = 0

    def _render(self, place: int) -> None:
        contrast = self.config.contrast
        clean = self.phantom.seen(place, contrast)
        grey = clean.angiogram if contrast else clean.plain
        np.clip(grey, 0.0, 1.0, out=grey)
        grey *= np.float32(_FULL_SCALE)
        grey += np.float32(0.5)
        np.minimum(grey, np.float32(_FULL_SCALE), out=grey)
        np.copyto(self._loop[place], grey, casting="unsafe")
        self._filled[place] = bool(clean.mask.any())
        self._rendered[place] = True

    def _noise_window(self, index: int) -> np.ndarray:
        """A frame's noise, scaled: a view into one of the fields."""
        scrambled = _scramble(index + (self.config.seed << 32))
        row = scrambled % _NOISE_MARGIN
        column = (scrambled >> 20) % _NOISE_MARGIN
        field = self._noise[index % _NOISE_FIELDS]
        return field[row : row + self.config.rows, column : column + self.config.columns]


def _scramble(number: int) -> int:
    """A 64-bit hash of a whole number (the finalizer of SplitMix64: Steele, Lea and Flood, 2014)."""
    word = (number + 1) * 0x9E3779B97F4A7C15 & (1 << 64) - 1
    word = (word ^ word >> 30) * 0xBF58476D1CE4E5B9 & (1 << 64) - 1
    word = (word ^ word >> 27) * 0x94D049BB133111EB & (1 << 64) - 1
    return word ^ word >> 31
