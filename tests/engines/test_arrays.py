"""An engine on one array after another: the same pixels as a slot's, its own arrays, and sentences for what is no frame."""

from collections.abc import Iterator

import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Phantom
from engines.arrays import ArrayEngine
from engines.engine import EngineSpec
from engines.errors import ModelError
from engines.open import open_engine


@pytest.fixture(scope="module")
def engine() -> Iterator[ArrayEngine]:
    with ArrayEngine("compact-s", "openvino") as opened:
        yield opened


@pytest.fixture(scope="module")
def frame() -> np.ndarray:
    """A frame of the digital phantom, 256 x 256."""
    live = Phantom(PhantomConfig(rows=256, columns=256)).frame(0).live
    assert live.dtype == np.uint8
    return live


def test_a_call_draws_what_a_slot_draws(engine: ArrayEngine, frame: np.ndarray) -> None:
    made = engine(frame)
    opened = open_engine("compact-s", EngineSpec(256, 256, slots=1), "openvino").engine
    synthetic, attention = np.zeros_like(frame), np.zeros_like(frame)
    (slot,) = opened.slots(1)
    slot.bind(frame.copy(), synthetic, attention)
    slot.submit()
    slot.wait()
    opened.close()
    np.testing.assert_array_equal(made.synthetic, synthetic)
    np.testing.assert_array_equal(made.attention, attention)
    assert attention.any()
    np.testing.assert_array_equal(made.synthetic[made.attention == 0], frame[made.attention == 0])
    assert made.statistics.finite


def test_the_arrays_are_the_caller_s_own_and_another_size_opens_another_engine(
    engine: ArrayEngine, frame: np.ndarray
) -> None:
    first = engine(frame)
    kept = first.synthetic.copy()
    other = engine(np.full((96, 128), 4000, np.uint16), bits_stored=12)
    assert other.synthetic.shape == (96, 128)
    assert other.synthetic.dtype == np.uint16
    np.testing.assert_array_equal(first.synthetic, kept)
    np.testing.assert_array_equal(engine(frame).synthetic, kept)


@pytest.mark.parametrize(
    ("shape", "dtype", "bits", "said"),
    [
        pytest.param((4, 96, 96), np.uint8, None, "needed one grey frame", id="a loop"),
        pytest.param((96, 96), np.float32, None, "needed one grey frame", id="floats"),
        pytest.param((96, 96), np.uint16, None, "needed bits_stored for a uint16 frame", id="bits unsaid"),
        pytest.param((96, 96), np.uint16, 8, "needed 8 bits stored for uint8 and 9 to 16", id="8 of 16 bits"),
        pytest.param((96, 96), np.uint8, 12, "needed 8 bits stored for uint8 and 9 to 16", id="12 of 8 bits"),
        pytest.param((10, 96), np.uint8, None, "64 to 2048 pixels a side", id="small"),
    ],
)
def test_what_is_no_frame_is_a_sentence(
    engine: ArrayEngine, shape: tuple[int, ...], dtype: type, bits: int | None, said: str
) -> None:
    with pytest.raises(ValueError, match=said):
        engine(np.zeros(shape, dtype), bits_stored=bits)


def test_values_beyond_the_bits_are_refused(engine: ArrayEngine) -> None:
    with pytest.raises(ValueError, match="needed values of 10 bits, got 1024"):
        engine(np.full((96, 96), 1024, np.uint16), bits_stored=10)


def test_a_model_that_is_not_there_is_the_engine_s_own_sentence() -> None:
    with pytest.raises(ModelError, match="nowhere"), ArrayEngine("nowhere.onnx") as missing:
        missing(np.zeros((96, 96), np.uint8))
