"""One file from outside at a time: what its head claims, and its pixels once the claim is acceptable."""

import contextlib
import hashlib
import logging
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8, UInt16
from PIL import Image

from casgan.errors import DataError

MIN_SIDE = 32
MAX_SIDE = 4096
"""No picture of more rows or columns is decoded: a head of a few bytes may claim gigabytes."""
MAX_FRAMES = 10_000
"""Most frames of one DICOM file."""
NEUTRAL_TOLERANCE = 8
"""Grey levels by which the channels of a gray picture stored in colour may differ. Our choice: lossy coding of
neutral pictures was seen to move them by up to 3, and colour differs by far more."""

_DEFLATED = "1.2.840.10008.1.2.1.99"
_BITS = {"L": 8, "RGB": 8, "RGBA": 8, "P": 8, "LA": 8, "I;16": 16, "I;16B": 16, "I": 16, "1": 8}
_TAGS = [
    *("PatientID", "SOPInstanceUID", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel"),
    *("PhotometricInterpretation", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
]


def natural_key(name: str) -> tuple[tuple[int, int, str], ...]:
    """A sort key that puts frame 2 before frame 10."""
    return tuple(
        (0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", name)
    )


@dataclass(frozen=True)
class ImageHead:
    """What an image file says of its picture."""

    rows: int
    columns: int
    bits: int

    def __str__(self) -> str:
        return f"{self.rows} rows x {self.columns} columns of {self.bits} bits"


@dataclass(frozen=True)
class DicomHeader:
    """What a DICOM file says of its pixels, and for a moment whose they are."""

    patient: str
    instance: str
    rows: int
    columns: int
    frames: int
    bits_stored: int
    inverted: bool


def image_head(file: Path) -> ImageHead:
    """Size and depth of a JPEG, PNG or BMP, without decoding it.

    Raises:
        DataError: No such image, or one too small, too large or of an unknown kind.
    """
    with _opened(file) as image:
        bits = _BITS.get(image.mode)
        head = ImageHead(image.height, image.width, bits or 0)
        if bits is None:
            raise DataError(
                f"{file.name}: needed a gray image, got Pillow's mode {image.mode}; convert it to 8 or 16 bits gray"
            )
    _check_sides(file, head.rows, head.columns)
    return head


def image_pixels(file: Path) -> UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]:
    """The grey levels of an image as stored; equal channels become one.

    Raises:
        DataError: Truncated or damaged, too large, or in colour.
    """
    with _opened(file) as image:
        _check_sides(file, image.height, image.width)
        try:
            image.load()
        except (OSError, SyntaxError, ValueError, EOFError):
            raise DataError(
                f"{file.name}: the image cannot be decoded; it is cut short or damaged: copy it again or remove its run"
            ) from None
        if image.mode in ("I;16", "I;16B", "I"):
            deep: np.ndarray = np.clip(np.asarray(image), 0, 65535).astype(np.uint16)
            return deep
        if image.mode == "L":
            gray: np.ndarray = np.array(image)
            return gray
        channels = np.asarray(image.convert("RGB"))
        if int(np.ptp(channels, axis=2).max()) > NEUTRAL_TOLERANCE:
            raise DataError(f"{file.name}: needed a gray picture, got colour; convert the run to gray")
        return np.array(channels[..., 1])


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; `_check_sides` refuses them.
            warnings.simplefilter("ignore")
            image = Image.open(file, formats=("JPEG", "PNG", "BMP"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):
        raise DataError(
            f"{file.name}: needed a JPEG, PNG or BMP image, got something that is none or too damaged to tell; copy it "
            "again or remove it"
        ) from None
    with image:
        yield image


def _check_sides(file: Path, rows: int, columns: int) -> None:
    if not (MIN_SIDE <= rows <= MAX_SIDE and MIN_SIDE <= columns <= MAX_SIDE):
        raise DataError(
            f"{file.name}: a picture must be {MIN_SIDE} to {MAX_SIDE} pixels a side, got {rows} rows x {columns} "
            "columns; resample or remove it"
        )


def is_dicom(file: Path) -> bool:
    """Whether a file starts with a DICOM preamble (PS3.10, 7.1)."""
    try:
        with file.open("rb") as opened:
            return opened.read(132)[128:] == b"DICM"
    except OSError as error:
        raise DataError(
            f"{file.name}: the file cannot be read: {error.strerror}; give access to it"
        ) from None


def patient_label(patient: str, instances: list[str]) -> str:
    """A name for a patient that does not tell the PatientID.

    Hospital numbers are short: a plain hash of one is undone by trying them all. So the hash also takes the
    smallest of the patient's SOP Instance UIDs, which nobody guesses without having the files.
    """
    secret = f"{patient}\0{min(instances)}".encode()
    return "dicom-" + hashlib.sha256(secret).hexdigest()[:10]


@contextlib.contextmanager
def _hushed() -> Iterator[None]:
    """Let nothing of pydicom's warnings and log lines out: they quote header values."""
    logger = logging.getLogger("pydicom")
    propagate = logger.propagate
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.propagate = propagate


def dicom_header(file: Path) -> DicomHeader:
    """What is needed of a DICOM file's header.

    Raises:
        DataError: Damaged, deflated, no gray pixels, or too large. The sentence quotes no header text.
    """
    import pydicom

    with _hushed():
        try:
            syntax = str(pydicom.filereader.read_file_meta_info(str(file)).get("TransferSyntaxUID", ""))
            header = None
            if syntax != _DEFLATED:
                dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
                header = DicomHeader(
                    str(dataset.get("PatientID", "") or "").strip(),
                    str(dataset.get("SOPInstanceUID", "")),
                    int(dataset.Rows),
                    int(dataset.Columns),
                    int(dataset.get("NumberOfFrames", 1) or 1),
                    int(dataset.BitsStored),
                    str(dataset.PhotometricInterpretation) == "MONOCHROME1",
                )
                gray = str(dataset.PhotometricInterpretation) in ("MONOCHROME1", "MONOCHROME2")
                gray = gray and int(dataset.SamplesPerPixel) == 1
        except Exception:
            raise DataError(
                f"{file.name}: the DICOM header is damaged or describes no picture; copy the file again or remove it"
            ) from None
    if header is None:
        raise DataError(
            f"{file.name}: deflated DICOM files are not read, since what they grow to is not known; convert the file"
        )
    if not gray or not 8 <= header.bits_stored <= 16:
        raise DataError(
            f"{file.name}: needed gray pixels of 8 to 16 bits stored, got {'gray' if gray else 'colour'} of "
            f"{header.bits_stored}; remove the file"
        )
    if not 1 <= header.frames <= MAX_FRAMES:
        raise DataError(
            f"{file.name}: a file must have 1 to {MAX_FRAMES} frames, got {header.frames}; split it"
        )
    _check_sides(file, header.rows, header.columns)
    return header


def dicom_frames(file: Path) -> Iterator[UInt8[np.ndarray, "h w"] | UInt16[np.ndarray, "h w"]]:
    """The stored pixel values of a DICOM file frame by frame, signed ones shifted up to start at 0.

    Raises:
        DataError: A frame cannot be decoded.
    """
    import pydicom
    from pydicom.pixels import iter_pixels

    with _hushed():
        dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
    stored = int(dataset.BitsStored)
    shift = int(dataset.HighBit) + 1 - stored
    signed = int(dataset.PixelRepresentation) == 1
    kind = np.uint8 if stored == 8 else np.uint16
    decoded = iter_pixels(file, raw=True)
    index = 0
    while True:
        with _hushed():
            try:
                picture = next(decoded, None)
            except Exception:
                raise DataError(
                    f"{file.name}: frame {index} cannot be decoded by the codecs kept here; it is damaged or of a "
                    "variety they do not know: convert the file with another tool or remove it"
                ) from None
        if picture is None:
            return
        bits = picture.view(np.uint8 if picture.itemsize == 1 else np.uint16) >> max(shift, 0)
        # PS3.5 8.1.1: only the bits from High Bit down to High Bit - Bits Stored + 1 are pixel values.
        bits = bits & ((1 << stored) - 1)
        if signed:
            bits = bits ^ (1 << (stored - 1))
        yield bits.astype(kind)
        index += 1
