"""A site's own table: from phantom frames of known grey levels, from frames that cannot serve, and from real ones."""

import functools
from pathlib import Path

import numpy as np

from calib.config import PhantomConfig
from calib.intensity_site import measure_intensity
from calib.phantom import Phantom

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
REFERENCE = (
    (1.0, 0.341), (5.0, 0.377), (10.0, 0.398), (25.0, 0.437), (50.0, 0.499), (75.0, 0.585), (90.0, 0.643), (95.0, 0.671),
    (99.0, 0.717),
)  # fmt: skip
SIDE = 192


@functools.cache
def patient(seed: int = 3, contrast: bool = False, bits: int = 12) -> tuple[np.ndarray, np.ndarray]:
    """Eight frames of a phantom patient and the field inside the blades."""
    phantom = Phantom(PhantomConfig(seed=seed, rows=SIDE, columns=SIDE, bits_stored=bits))
    found = [phantom.frame(index) for index in range(8)]
    frames = np.stack([frame.angiogram if contrast else frame.plain for frame in found])
    frames.setflags(write=False)
    return frames, phantom.field > 0.99


def test_frames_come_out_at_the_reference_grey_levels() -> None:
    frames, field = patient()
    found = measure_intensity(frames, field, 12, reference=REFERENCE)
    assert found.passed
    assert (found.frames, found.filled_frames, found.moved_frames) == (8, (), ())
    percents, expected = zip(*REFERENCE, strict=True)
    greys = [np.interp(frame[field], np.linspace(0.0, 4095.0, 256), found.table) for frame in frames]
    seen = np.median([np.percentile(each, percents) for each in greys], axis=0)
    np.testing.assert_allclose(seen, expected, atol=0.005)
    assert found.reference_from == "model"
