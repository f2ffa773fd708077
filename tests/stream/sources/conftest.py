"""Makes the files that the sources read: real DICOMs by pydicom, real images and videos by OpenCV."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    XRayAngiographicImageStorage,
    generate_uid,
)

from stream.sources.open import open_source
from stream.sources.options import SourceOptions

REAL = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture
def real_data() -> Path:
    """The folder of real X-ray data beside the checkout."""
    if not REAL.is_dir():
        pytest.skip(f"no real X-ray data at {REAL}")
    return REAL


@pytest.fixture
def ramp() -> Callable[..., np.ndarray]:
    """Frames in which every row, column and frame differs, using all values of the bits stored."""

    def make(frames: int = 3, rows: int = 65, columns: int = 97, bits: int = 8) -> np.ndarray:
        frame, row, column = np.ogrid[:frames, :rows, :columns]
        values = (row * 131 + column * 257 + frame * 7919) % (1 << bits)
        return values.astype(np.uint8 if bits <= 8 else np.uint16)

    return make


@pytest.fixture
def write_cine(tmp_path: Path) -> Callable[..., Path]:
    """Writes (frame, row, column) pixels as a DICOM file; `change` may alter the dataset before it is written."""

    def write(
        pixels: np.ndarray,
        *,
        name: str = "cine.dcm",
        bits: int = 8,
        syntax: str = ExplicitVRLittleEndian,
        change: Callable[[Dataset], Any] | None = None,
        after: Callable[[Dataset], Any] | None = None,
        **elements: Any,
    ) -> Path:
        dataset = Dataset()
        dataset.file_meta = FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        dataset.SOPClassUID = XRayAngiographicImageStorage
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=[name])
        dataset.Modality = "XA"
        dataset.SamplesPerPixel = 1
        dataset.PhotometricInterpretation = "MONOCHROME2"
        dataset.NumberOfFrames, dataset.Rows, dataset.Columns = pixels.shape
        dataset.BitsAllocated = pixels.itemsize * 8
        dataset.BitsStored = bits
        dataset.HighBit = bits - 1
        dataset.PixelRepresentation = 0
        for keyword, value in {"FrameTime": "40", **elements}.items():
            if value is not None:
                setattr(dataset, keyword, value)
        dataset.PixelData = pixels.tobytes()
        if len(dataset.PixelData) % 2:
            dataset.PixelData += b"\0"
        dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
        if change is not None:
            change(dataset)
        if syntax == JPEGBaseline8Bit:
            dataset.file_meta.TransferSyntaxUID = syntax
            coded = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in pixels]
            dataset.PixelData = encapsulate(coded)
            dataset["PixelData"].is_undefined_length = True
        elif syntax.startswith(("1.2.840.10008.1.2.4.", "1.2.840.10008.1.2.5")):
            dataset.compress(syntax, generate_instance_uid=False)
        else:
            if syntax == "1.2.840.10008.1.2.2":  # big endian: pydicom writes what it is given
                if pixels.itemsize == 2:
                    dataset.PixelData = pixels.byteswap().tobytes()
                dataset["PixelData"].VR = "OW" if pixels.itemsize == 2 else "OB"
            dataset.file_meta.TransferSyntaxUID = syntax
        if after is not None:
            after(dataset)
        path = tmp_path / name
        dataset.save_as(path, enforce_file_format=True)
        return path

    return write


@pytest.fixture
def write_video(tmp_path: Path) -> Callable[..., Path]:
    """Writes gray (frame, row, column) or BGR (frame, row, column, 3) pixels as a video file."""

    def write(
        pixels: np.ndarray, *, name: str = "loop.avi", codec: str = "FFV1", rate_hz: float = 15.0
    ) -> Path:
        path = tmp_path / name
        size = (pixels.shape[2], pixels.shape[1])
        writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*codec), rate_hz, size)
        assert writer.isOpened(), f"this OpenCV cannot write {codec}"
        for frame in pixels:
            writer.write(cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) if frame.ndim == 2 else frame)
        writer.release()
        return path

    return write


@pytest.fixture
def read_all() -> Callable[..., np.ndarray]:
    """Reads a source to its end: (frame, row, column)."""

    def read(source: Any) -> np.ndarray:
        frames = []
        while True:
            out = np.full((source.format.rows, source.format.columns), 0xA5, source.format.dtype)
            if source.read(out) is None:
                assert (out == 0xA5).all(), "the buffer was touched at the end"
                break
            frames.append(out)
        source.close()
        return np.stack(frames)

    return read


@pytest.fixture
def opening() -> Iterator[Callable[..., Any]]:
    """`open_source` for a path, closed when the test ends."""
    with contextlib.ExitStack() as stack:

        def open_path(path: Path | str, options: SourceOptions | None = None) -> Any:
            source = open_source(str(path), options)
            stack.callback(source.close)
            return source

        yield open_path
