"""Gray conversion, regions and buffers."""

import cv2
import numpy as np
import pytest

from stream.errors import SourceError
from stream.frame import FrameFormat
from stream.sources.picture import (
    NEUTRAL_TOLERANCE,
    SAMPLE_STEP,
    GrayFromColour,
    check_out,
    decode_image,
    frame_format,
    is_neutral,
    region,
)


def test_the_luma_of_equal_channels_is_the_channel_itself():
    gray = np.arange(256, dtype=np.uint8).reshape(16, 16)
    out = np.empty_like(gray)
    GrayFromColour("a", convert=False).write(cv2.merge([gray, gray, gray]), out)
    np.testing.assert_array_equal(out, gray)


@pytest.mark.parametrize("channel", [0, 1, 2], ids=["blue", "green", "red"])
@pytest.mark.parametrize("sign", [-1, 1], ids=["below", "above"])
def test_channels_may_differ_by_the_tolerance_and_no_more(channel, sign):
    picture = np.full((64, 64, 3), 100, np.uint8)
    picture[8, 16, channel] = 100 + sign * NEUTRAL_TOLERANCE
    assert is_neutral(picture)
    picture[8, 16, channel] = 100 + sign * (NEUTRAL_TOLERANCE + 1)
    assert not is_neutral(picture)


def test_the_first_picture_is_looked_at_wholly_and_the_next_ones_in_a_grid():
    gray = np.full((64, 64, 3), 100, np.uint8)
    dot = gray.copy()
    dot[SAMPLE_STEP + 1, SAMPLE_STEP + 1] = (0, 0, 255)
    out = np.empty((64, 64), np.uint8)
    with pytest.raises(
        SourceError, match="loop: frames must be gray, got colour; colour sources need --gray"
    ):
        GrayFromColour("loop", convert=False).write(dot, out)
    later = GrayFromColour("loop", convert=False)
    later.write(gray, out)
    later.write(dot, out)
    dot[SAMPLE_STEP, SAMPLE_STEP] = (0, 0, 255)
    with pytest.raises(SourceError, match="got colour in frame 9"):
        later.write(dot, out, " in frame 9")


def test_a_region_is_a_view():
    picture = np.zeros((80, 90), np.uint8)
    part = region(picture, (10, 20, 30, 40))
    assert part.shape == (40, 30)
    assert np.shares_memory(part, picture)
    assert region(picture, None) is picture


def test_a_crop_to_less_than_a_stream_carries_is_refused():
    with pytest.raises(
        SourceError, match="a: frames must be 64 to 2048 pixels a side, got 40 rows x 30 columns"
    ):
        frame_format("a", 480, 640, (0, 0, 30, 40))


def test_no_picture_however_it_would_be_cropped_may_be_larger_than_the_limit():
    with pytest.raises(SourceError, match="at most 8192 pixels a side to be cropped, got 9000 rows"):
        frame_format("a", 9000, 9000, (0, 0, 100, 100))


@pytest.mark.parametrize(
    "out",
    [
        np.zeros((64, 65), np.uint8),
        np.zeros((64, 64), np.uint16),
        np.zeros((64, 128), np.uint8)[:, ::2],
        np.zeros((64, 64), np.uint8, order="F"),
        np.frombuffer(bytes(64 * 64), np.uint8).reshape(64, 64),
    ],
    ids=["shape", "dtype", "strided", "columns first", "read-only"],
)
def test_a_buffer_that_cannot_be_written_in_place_is_refused(out):
    with pytest.raises(ValueError, match=r"out must be writable, contiguous \(64, 64\) uint8, got"):
        check_out(out, FrameFormat(64, 64))


def test_what_is_no_image_decodes_to_none():
    assert decode_image(np.arange(100, dtype=np.uint8), cv2.IMREAD_UNCHANGED) is None
    huge = bytearray(cv2.imencode(".png", np.zeros((64, 64), np.uint8))[1].tobytes())
    huge[16:24] = b"\x7f\xff\xff\xff" * 2
    assert decode_image(np.frombuffer(huge, np.uint8), cv2.IMREAD_UNCHANGED) is None
