import tracemalloc

import numpy as np
import pytest

from stream.frame import FrameFormat
from stream.repeats import RepeatDetector

SIZES = pytest.mark.parametrize(
    ("rows", "columns"), [(256, 256), (65, 67), (463, 511)], ids=["blocks", "small odd", "odd"]
)
BITS = pytest.mark.parametrize("bits", [8, 10, 12, 16])


def picture(frame_format: FrameFormat, seed: int = 1) -> np.ndarray:
    """A picture of smooth anatomy, at mid grey."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[0 : frame_format.rows, 0 : frame_format.columns]
    phase = random.uniform(0, 6)
    grey = 0.45 + 0.2 * np.sin(columns / 40 + phase) + 0.1 * np.cos(rows / 25)
    return np.round(grey * frame_format.max_value).astype(frame_format.dtype)


def changed(frame_format: FrameFormat, frame: np.ndarray, grey_levels: np.ndarray) -> np.ndarray:
    """`frame` with a difference given in grey levels of 255."""
    step = frame_format.max_value / 255.0
    summed = np.round(frame + grey_levels * step)
    return np.clip(summed, 0, frame_format.max_value).astype(frame_format.dtype)


def verdict(frame_format: FrameFormat, first: np.ndarray, second: np.ndarray, *, noise: bool) -> bool:
    """Whether the second frame is called a repeat of the first."""
    detector = RepeatDetector(frame_format, noise=noise)
    assert not detector.is_repeat(first)
    return detector.is_repeat(second)


@BITS
@SIZES
@pytest.mark.parametrize("noise", [False, True], ids=["recording", "device"])
def test_the_same_bits_again_are_a_repeat(rows: int, columns: int, bits: int, noise: bool) -> None:
    frame_format = FrameFormat(rows, columns, bits)
    frame = picture(frame_format)
    assert verdict(frame_format, frame, frame.copy(), noise=noise)


@BITS
@SIZES
def test_of_a_recording_one_bit_makes_a_new_frame(rows: int, columns: int, bits: int) -> None:
    frame_format = FrameFormat(rows, columns, bits)
    frame = picture(frame_format)
    other = frame.copy()
    other[-1, -1] ^= 1
    assert not verdict(frame_format, frame, other, noise=False)


@BITS
@SIZES
def test_converter_noise_is_a_repeat_of_a_device_only(rows: int, columns: int, bits: int) -> None:
    frame_format = FrameFormat(rows, columns, bits)
    frame = picture(frame_format)
    converter = np.random.default_rng(2).integers(-1, 2, (rows, columns))
    other = changed(frame_format, frame, converter)
    assert verdict(frame_format, frame, other, noise=True)
    assert not verdict(frame_format, frame, other, noise=False)


@BITS
@SIZES
def test_quantum_noise_is_a_new_frame(rows: int, columns: int, bits: int) -> None:
    frame_format = FrameFormat(rows, columns, bits)
    clean = picture(frame_format)
    random = np.random.default_rng(3)
    first, second = (changed(frame_format, clean, random.normal(0.0, 4.0, (rows, columns))) for _ in range(2))
    assert not verdict(frame_format, first, second, noise=True)


@BITS
@pytest.mark.parametrize("columns_moved", [2, 5])
def test_a_thin_wire_that_moved_is_a_new_frame(bits: int, columns_moved: int) -> None:
    frame_format = FrameFormat(256, 256, bits)
    clean = picture(frame_format)

    def with_wire(at: int) -> np.ndarray:
        contrast = np.zeros((256, 256))
        contrast[60:100, at : at + 2] = -40.0  # a guide wire of two pixels, 40 grey levels darker
        return changed(frame_format, clean, contrast)

    assert not verdict(frame_format, with_wire(120), with_wire(120 + columns_moved), noise=True)


def test_the_first_frame_is_no_repeat_and_each_is_compared_with_the_one_before() -> None:
    frame_format = FrameFormat(64, 64)
    first, second = picture(frame_format, 1), picture(frame_format, 2)
    detector = RepeatDetector(frame_format, noise=False)
    frames = [first, first.copy(), second, first.copy(), first.copy()]
    assert [detector.is_repeat(frame) for frame in frames] == [False, True, False, False, True]


def test_a_frame_written_over_the_one_before_is_not_called_a_repeat() -> None:
    frame_format = FrameFormat(64, 64)
    slot = picture(frame_format)
    detector = RepeatDetector(frame_format, noise=False)
    detector.is_repeat(slot)
    slot[:] = picture(frame_format, 2)
    assert not detector.is_repeat(slot)


def test_frames_are_never_written() -> None:
    frame_format = FrameFormat(128, 128)
    frames = [picture(frame_format, seed) for seed in (1, 2)]
    for frame in frames:
        frame.flags.writeable = False
    assert not verdict(frame_format, frames[0], frames[1], noise=True)


@pytest.mark.parametrize("noise", [False, True], ids=["recording", "device"])
def test_nothing_of_frame_size_is_allocated(noise: bool) -> None:
    frame_format = FrameFormat(512, 512)
    frames = [picture(frame_format, seed) for seed in (1, 2, 3)]
    detector = RepeatDetector(frame_format, noise=noise)
    detector.is_repeat(frames[0])
    detector.is_repeat(frames[1])
    tracemalloc.start()
    try:
        for index in range(30):
            detector.is_repeat(frames[index % 3])
        assert tracemalloc.get_traced_memory()[1] < 512 * 512 // 16
    finally:
        tracemalloc.stop()


def test_a_slow_fade_is_no_repeat_for_ever() -> None:
    frame_format = FrameFormat(128, 128)
    detector = RepeatDetector(frame_format, noise=True)
    fading = [np.full((128, 128), 200 - step, np.uint8) for step in range(10)]
    assert [detector.is_repeat(frame) for frame in fading] == [False, True] * 5
