"""The size of a coded picture from its head."""

import struct

import cv2
import numpy as np
import pytest

from stream.sources.codestream import Picture, picture_of

GRAY8 = np.zeros((65, 97), np.uint8)
GRAY16 = np.zeros((65, 97), np.uint16)
COLOUR = np.zeros((65, 97, 3), np.uint8)
ALPHA = np.zeros((65, 97, 4), np.uint8)


@pytest.mark.parametrize(
    ("suffix", "pixels", "channels", "bits"),
    [
        (".png", GRAY8, 1, 8),
        (".png", GRAY16, 1, 16),
        (".png", COLOUR, 3, 8),
        (".png", ALPHA, 4, 8),
        (".jpg", GRAY8, 1, 8),
        (".jpg", COLOUR, 3, 8),
        (".bmp", GRAY8, 1, 8),
        (".bmp", COLOUR, 3, 8),
        (".tiff", GRAY8, 1, 8),
        (".tiff", GRAY16, 1, 16),
        (".tiff", COLOUR, 3, 8),
        (".jp2", None, 1, 8),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_what_opencv_writes_is_read(suffix, pixels, channels, bits):
    if suffix == ".jp2":
        done, coded = cv2.imencode(suffix, GRAY8)
        data = coded.tobytes()
        data = data[data.index(b"\xff\x4f\xff\x51") :]  # the codestream, which is what DICOM holds
    else:
        done, coded = cv2.imencode(suffix, pixels)
        data = coded.tobytes()
    assert done
    assert picture_of(data) == Picture(65, 97, channels, bits)


def test_a_big_endian_tiff_is_read():
    entries = [(256, 3, 97), (257, 3, 65), (258, 3, 16), (277, 3, 1)]
    directory = struct.pack(">H", len(entries))
    directory += b"".join(struct.pack(">HHIHH", tag, kind, 1, value, 0) for tag, kind, value in entries)
    assert picture_of(b"MM\0*" + struct.pack(">I", 8) + directory) == Picture(65, 97, 1, 16)


def test_fill_bytes_and_comments_before_a_jpeg_frame_are_passed_over():
    frame = b"\xff\xff\xff\xc0\x00\x0b\x08\x00\x41\x00\x61\x01\x01\x11\x00"
    assert picture_of(b"\xff\xd8\xff\xfe\x00\x06abcd" + frame) == Picture(65, 97, 1, 8)


def test_jpeg_ls_is_read():
    assert picture_of(b"\xff\xd8\xff\xf7\x00\x0b\x0a\x00\x41\x00\x61\x01\x01\x11\x00") == Picture(
        65, 97, 1, 10
    )


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff"])
def test_no_head_however_short_or_damaged_raises(suffix):
    data = cv2.imencode(suffix, GRAY8)[1].tobytes()
    rng = np.random.default_rng(7)
    for kept in range(min(len(data), 400)):
        picture_of(data[:kept])
    for _ in range(300):
        damaged = bytearray(data)
        for at in rng.integers(0, min(len(data), 200), 4):
            damaged[at] = int(rng.integers(0, 256))
        picture_of(damaged)


@pytest.mark.parametrize("data", [b"", b"\xff\xd8\xff", b"plain text", b"\xff\xd8\xff\xd9"], ids=repr)
def test_what_is_no_picture_is_none(data):
    assert picture_of(data) is None
