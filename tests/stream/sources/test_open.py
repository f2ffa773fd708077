"""From what a person names to a source."""

import os

import cv2
import numpy as np
import pytest

from stream.errors import SourceError
from stream.sources.open import open_source
from stream.sources.options import SourceOptions


def test_the_phantom_follows_what_is_asked(read_all):
    source = open_source("phantom", SourceOptions(size=96, rate_hz=30.0, bits=10, seed=3, contrast=True))
    assert source.kind == "phantom"
    assert (source.format.rows, source.format.columns, source.format.bits_stored) == (96, 96, 10)
    assert source.rate_hz == 30.0
    out = np.zeros((96, 96), np.uint16)
    frame = source.read(out)
    assert frame is not None
    assert out.any()


def test_the_phantom_is_not_cropped():
    with pytest.raises(SourceError, match="the phantom is not cropped; give --size"):
        open_source("phantom", SourceOptions(crop=(0, 0, 64, 64)))


@pytest.mark.parametrize("spec", ["nowhere.dcm", "http://example.org/a.mp4", "v4l3:0", "a\0b"], ids=repr)
def test_a_missing_file_is_named_with_what_could_be_named(spec):
    with pytest.raises(
        SourceError,
        match=r"needed phantom, v4l2:0, rtsp://host/path, .* a DICOM file, .* but this cannot be opened",
    ):
        open_source(spec)


def test_an_empty_file_is_refused(tmp_path):
    (tmp_path / "cine.dcm").touch()
    with pytest.raises(SourceError, match=r"cine\.dcm: needed .* got an empty file"):
        open_source(str(tmp_path / "cine.dcm"))


def test_a_pipe_is_refused_without_waiting_for_its_other_end(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(SourceError, match="got a pipe, socket or device; name a regular file"):
        open_source(str(tmp_path / "pipe"))


def test_a_single_image_is_a_recording_of_one_frame(tmp_path, read_all):
    pixels = np.arange(70 * 70, dtype=np.uint16).reshape(1, 70, 70)
    path = tmp_path / "frame.png"
    assert cv2.imwrite(str(path), pixels[0])
    source = open_source(str(path), SourceOptions(bits=13))
    assert (source.kind, source.frame_count, source.format.bits_stored) == ("image", 1, 13)
    np.testing.assert_array_equal(read_all(source), pixels)


def test_an_image_file_that_is_none_is_refused(tmp_path):
    (tmp_path / "frame.png").write_bytes(b"no image at all")
    with pytest.raises(SourceError, match=r"frame\.png: needed a PNG, JPEG, BMP or TIFF image"):
        open_source(str(tmp_path / "frame.png"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path):
    path = tmp_path / "cine.dcm"
    path.write_bytes(b"secret")
    path.chmod(0)
    with pytest.raises(SourceError, match=r"cine\.dcm: the file cannot be read: Permission denied"):
        open_source(str(path))


def test_a_dicom_is_known_by_its_content_whatever_its_name(ramp, write_cine, read_all):
    pixels = ramp()
    source = open_source(str(write_cine(pixels, name="loop.mp4")))
    assert source.kind == "cine"
    np.testing.assert_array_equal(read_all(source), pixels)


def test_a_source_of_ones_own_is_called_with_the_options(tmp_path, monkeypatch):
    (tmp_path / "myroom.py").write_text(
        "from stream.sources.source import Source\n"
        "class Room(Source):\n"
        "    kind = 'room'\n"
        "    def __init__(self, options):\n        self.rate_hz = options.rate_hz\n"
        "    def read(self, out):\n        return None\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    source = open_source("python:myroom:Room", SourceOptions(rate_hz=30.0))
    assert (source.kind, source.rate_hz) == ("room", 30.0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "python:no_such_module:Room",
            "needed python:module:Class with a module that can be imported from here",
        ),
        ("python:json:Room", "needed python:module:Class .* has no attribute 'Room'"),
        ("python:", "needed python:module:Class"),
        ("python:json:JSONDecoder", "needed a subclass of stream.sources.source.Source"),
    ],
    ids=["no module", "no class", "nothing", "no source"],
)
def test_a_source_of_ones_own_that_is_none_is_refused(spec, message):
    with pytest.raises(SourceError, match=message):
        open_source(spec)
