"""Files made to harm: their headers claim what no memory holds. Each is opened in a process whose memory is bounded."""

import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGBaseline8Bit, XRayAngiographicImageStorage, generate_uid

from stream.errors import SourceError
from stream.sources.cine_header import read_header
from stream.sources.options import SourceOptions
from stream.sources.video import VideoSource

ROOT = Path(__file__).resolve().parents[3]
OPEN = """
import resource, sys
from stream.sources.open import open_source
from stream.sources.options import SourceOptions
from stream.errors import SourceError
import cv2, numpy, pydicom
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
options = SourceOptions(rate_hz=30.0)
try:
    source = open_source(sys.argv[1], options)
    out = numpy.empty((source.format.rows, source.format.columns), source.format.dtype)
    source.read(out)
except SourceError as error:
    print(f"{(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024} {error}")
"""


def dicom(rows: int, columns: int, frames: int = 1, *, jpeg: bool = False) -> bytes:
    """A small file whose header claims so much."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = XRayAngiographicImageStorage, generate_uid()
    data.Modality, data.NumberOfFrames, data.FrameTime = "XA", str(frames), 33.0
    data.Rows, data.Columns = min(rows, 65535), min(columns, 65535)
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    if jpeg:
        # SOI, a frame header of 65535 x 65535 pixels in one component, and nothing to decode
        stream = b"\xff\xd8\xff\xc0\x00\x0b\x08\xff\xff\xff\xff\x01\x01\x11\x00\xff\xd9"
        stream += b"\0" * (len(stream) % 2)
        data.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0" + struct.pack("<I", len(stream)) + stream
        data.PixelData += b"\xfe\xff\xdd\xe0\0\0\0\0"
        data["PixelData"].VR, data["PixelData"].is_undefined_length = "OB", True
    else:
        data.PixelData = bytes(64)
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = JPEGBaseline8Bit if jpeg else ExplicitVRLittleEndian
    file = BytesIO()
    data.save_as(file, enforce_file_format=True)
    return file.getvalue()


def avi(width: int, height: int) -> bytes:
    """An AVI of raw gray frames whose header claims such a size, with one small chunk of pixels."""
    header = struct.pack("<14I", 33333, 0, 0, 0x10, 1000, 0, 1, 1 << 30, width, height, 0, 0, 0, 0)
    stream = b"vidsY800" + struct.pack("<12I", 0, 0, 0, 1, 30, 0, 1000, 1 << 30, 0, 0, 0, 0)
    form = struct.pack("<IiiHH", 40, width, height, 1, 8) + b"Y800" + struct.pack("<5I", 1 << 30, 0, 0, 0, 0)

    def chunk(name: bytes, body: bytes) -> bytes:
        return name + struct.pack("<I", len(body)) + body + b"\0" * (len(body) % 2)

    strl = chunk(b"LIST", b"strl" + chunk(b"strh", stream) + chunk(b"strf", form))
    lists = chunk(b"LIST", b"hdrl" + chunk(b"avih", header) + strl)
    lists += chunk(b"LIST", b"movi" + chunk(b"00db", bytes(4096)))
    return chunk(b"RIFF", b"AVI " + lists)


def mp4(width: int, height: int) -> bytes:
    """An MP4 whose track claims such a size, with no frame in it."""

    def box(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + name + body

    entry = (
        bytes(6)
        + struct.pack(">H", 1)
        + bytes(16)
        + struct.pack(">HH", width & 0xFFFF, height & 0xFFFF)
        + bytes(50)
    )
    stbl = box(b"stsd", bytes(4) + struct.pack(">I", 1) + box(b"jpeg", entry))
    stbl += box(b"stsz", bytes(4) + struct.pack(">II", 1 << 30, 1 << 28))  # 2**28 samples of a gigabyte
    stbl += (
        box(b"stts", bytes(4) + struct.pack(">III", 1, 1 << 28, 1))
        + box(b"stsc", bytes(8))
        + box(b"stco", bytes(8))
    )
    minf = box(b"minf", box(b"vmhd", bytes(12)) + box(b"stbl", stbl))
    mdia = box(b"mdia", box(b"mdhd", bytes(12) + struct.pack(">II", 30, 1 << 28) + bytes(4))
               + box(b"hdlr", bytes(8) + b"vide" + bytes(13)) + minf)  # fmt: skip
    tkhd = box(
        b"tkhd",
        bytes(4) + bytes(72) + struct.pack(">II", width << 16 & 0xFFFFFFFF, height << 16 & 0xFFFFFFFF),
    )
    moov = box(b"moov", box(b"mvhd", bytes(100)) + box(b"trak", tkhd + mdia))
    return box(b"ftyp", b"isom" + bytes(4) + b"isom") + moov


@pytest.mark.parametrize(
    ("name", "content"),
    [
        pytest.param("a.dcm", dicom(100_000, 100_000), id="DICOM of 65535 x 65535"),
        pytest.param("a.dcm", dicom(2048, 2048, 2**31 - 1), id="DICOM of 2 thousand million frames"),
        pytest.param("a.dcm", dicom(2048, 2048, 10_000), id="DICOM cut off after 64 pixels"),
        pytest.param("a.dcm", dicom(512, 512, jpeg=True), id="JPEG of 65535 x 65535 in a DICOM of 512"),
        pytest.param("a.avi", avi(100_000, 100_000), id="AVI of 100000 x 100000"),
        pytest.param("a.avi", avi(8192, 8192), id="AVI of 8192 x 8192 with 4 kB of pixels"),
        pytest.param("a.mp4", mp4(100_000, 100_000), id="MP4 with gigabytes a sample"),
    ],
)
def test_a_header_that_claims_too_much_is_refused_in_little_memory(
    tmp_path: Path, name: str, content: bytes
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    grown_mib, _, said = done.stdout.partition(" ")
    assert said.startswith(f"{name}: "), done
    assert int(grown_mib) < 200, said


WHOLE = dicom(64, 64)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_header_is_read_or_refused_in_a_sentence(data: st.DataObject, tmp_path: Path) -> None:
    place = data.draw(st.integers(128, len(WHOLE) - 1))
    hostile = WHOLE[:place] + data.draw(st.binary(max_size=8)) + WHOLE[place + data.draw(st.integers(0, 8)) :]
    path = tmp_path / "a.dcm"
    path.write_bytes(hostile[: data.draw(st.integers(100, len(hostile)))])
    refused = ""
    with path.open("rb") as file:
        try:
            read_header("a.dcm", file)
        except SourceError as error:
            refused = str(error)
    assert refused == "" or (refused.startswith("a.dcm: ") and "\n" not in refused)


VIDEO = avi(64, 64)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_video_is_read_or_refused_in_a_sentence(data: st.DataObject, tmp_path: Path) -> None:
    place = data.draw(st.integers(12, len(VIDEO) - 1))
    hostile = (
        VIDEO[:place]
        + data.draw(st.binary(min_size=1, max_size=8))
        + VIDEO[place + data.draw(st.integers(0, 8)) :]
    )
    path = tmp_path / "a.avi"
    path.write_bytes(hostile)
    refused = ""
    refused = ""
    try:
        VideoSource(path, SourceOptions(rate_hz=30.0)).close()
    except SourceError as error:
        refused = str(error)
    assert refused == "" or refused.startswith("a.avi: ")
