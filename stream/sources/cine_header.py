"""What a DICOM file says of its pixels, checked, and nothing else of it.

Only the elements named here are parsed. No text of the file, and none of pydicom's (which quotes values), may
reach a message, a note, a warning or a log: a header names a patient.
"""

import contextlib
import hashlib
import logging
import math
import os
import struct
import tempfile
import warnings
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from stream.errors import SourceError
from stream.frame import Photometric
from stream.sources import cine_timing
from stream.sources.cine_frames import MAX_FRAMES
from stream.sources.cine_timing import CineTiming, read_timing

DEFLATED = "1.2.840.10008.1.2.1.99"
MAX_INFLATED_BYTES = 4 << 30
"""Most bytes that a deflated file may grow to. Our choice, above any cine, so that a bomb ends."""
_PIXEL_DATA = 0x7FE00010
_PIXEL_ELEMENTS = frozenset({0x7FE00008, 0x7FE00009, _PIXEL_DATA})
_EXTENDED_OFFSETS = 0x7FE00001
_SHARED_GROUPS = 0x52009229
_FRAME_VOI_LUT = 0x00289132
_PIXEL_TRANSFORMATION = 0x00289145
_MODALITY_LUT = 0x00283000
_INTENSITY_RELATIONSHIP = 0x00281040
_SLOPE, _INTERCEPT = 0x00281053, 0x00281052
_CENTER, _WIDTH = 0x00281050, 0x00281051
_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS = 0x00280002, 0x00280004, 0x00280008, 0x00280010, 0x00280011
_ALLOCATED, _STORED, _HIGH, _SIGNED = 0x00280100, 0x00280101, 0x00280102, 0x00280103
_DEVICE = (0x00080070, 0x00081090, 0x00181000)
"""Manufacturer, its Model Name, Device Serial Number."""
_SERIES = 0x0020000E
_SIZES = {
    "imager_spacing_mm": (0x00181164, 2),
    "source_to_detector_mm": (0x00181110, 1),
    "source_to_patient_mm": (0x00181111, 1),
    "magnification": (0x00181114, 1),
    "field_of_view_mm": (0x00181149, 2),
    "pixel_spacing_mm": (0x00280030, 2),
}
"""What a header says of sizes and distances: element and number of values, by the names of `calib.spacing.HeaderGeometry`."""
_ANGLES = (0x00181510, 0x00181511)
"""Positioner Primary Angle (LAO positive) and Secondary Angle (cranial positive), in degrees (PS3.3 C.8.7.5)."""
_TAGS = [
    *(_SAMPLES, _PHOTOMETRIC, _FRAMES, _ROWS, _COLUMNS, _ALLOCATED, _STORED, _HIGH, _SIGNED),
    *(_CENTER, _WIDTH, _SLOPE, _INTERCEPT, _INTENSITY_RELATIONSHIP, _MODALITY_LUT),
    *(_SHARED_GROUPS, _EXTENDED_OFFSETS, 0x00020010),
    *cine_timing.TAGS,
    *_DEVICE,
    _SERIES,
    *_ANGLES,
    *(tag for tag, _ in _SIZES.values()),
]
_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT", "YBR_PARTIAL_420", "PALETTE COLOR")


@dataclass(frozen=True)
class CineHeader:
    """Everything needed to find, decode and time the frames of one DICOM file."""

    transfer_syntax: str
    """Its UID (0002,0010)."""
    rows: int
    columns: int
    frames: int
    photometric: Photometric
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool
    window: tuple[float, float] | None
    """VOI window centre and width, in stored pixel values after the shift of signed ones."""
    timing: CineTiming
    notes: tuple[str, ...]
    pixel_offset: int
    """Where the pixel data's value starts in the file."""
    encapsulated: bool
    little_endian: bool
    pixel_vr: str
    extended_offsets: bytes | None
    sizes: dict[str, float | tuple[float, ...]]
    """Of `_SIZES` what it says, as plain positive numbers."""
    angles_deg: tuple[float, float] | None
    """Positioner primary and secondary angle; None where it does not say both."""
    device: str
    """A hash of what the header says of the device, which tells it from others and repeats no text of the file."""
    series: str
    """A hash of the Series Instance UID, which tells single frames of one series; empty where none is said."""

    @property
    def frame_bytes(self) -> int:
        """Bytes of one uncompressed frame."""
        return self.rows * self.columns * self.bits_allocated // 8


@contextlib.contextmanager
def hushed() -> Iterator[None]:
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


def is_dicom(head: bytes) -> bool:
    """Whether a file's first 132 bytes are a DICOM preamble (PS3.10, 7.1)."""
    return head[128:132] == b"DICM"


def read_header(name: str, file: BinaryIO) -> tuple[CineHeader, BinaryIO]:
    """Read a DICOM file's header up to its pixel data.

    Args:
        name: The file's base name, for the error sentences.
        file: The open file, unbuffered or not; its position is changed.

    Returns:
        The header, and the file that its offsets belong to: `file` itself, or an unnamed temporary file with
        the inflated content where the transfer syntax is deflated. The caller closes both.

    Raises:
        SourceError: No DICOM file, damaged, no pixel data, or pixels that no stream carries.
    """
    import pydicom
    from pydicom.uid import UID

    file.seek(0)
    if not is_dicom(file.read(132)):
        raise SourceError(f"{name}: needed a DICOM file (DICM after 128 bytes), got something else")
    syntax = _transfer_syntax(name, file)
    if syntax == DEFLATED:
        file = _inflate(name, file)
    with hushed():
        try:
            file.seek(0)
            if syntax == DEFLATED:
                dataset = pydicom.filereader.read_dataset(
                    file,
                    False,
                    True,
                    stop_when=lambda tag, _vr, _length: tag in _PIXEL_ELEMENTS,
                    specific_tags=_TAGS,
                )
            else:
                dataset = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
        except Exception:
            raise SourceError(
                f"{name}: the DICOM header cannot be read; the file is damaged or cut off"
            ) from None
        uid = UID(syntax)
        little, implicit, encapsulated = uid.is_little_endian, uid.is_implicit_VR, uid.is_encapsulated
        at_pixels = _pixel_element(name, file, little, implicit)
        header = _checked(name, dataset, syntax, at_pixels, encapsulated, little)
    return header, file


def _transfer_syntax(name: str, file: BinaryIO) -> str:
    """The transfer syntax, if the kept codecs read it."""
    import pydicom
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    file.seek(0)
    with hushed():
        try:
            meta = pydicom.filereader.read_partial(
                file, stop_when=_after_meta, specific_tags=[0x00020010]
            ).file_meta
            syntax = UID(str(meta[0x00020010].value))
        except Exception:
            raise SourceError(
                f"{name}: needed a transfer syntax in the DICOM file meta information, got none that can be read; "
                "the file is damaged or cut off"
            ) from None
        try:
            known = get_decoder(syntax).is_available
        except Exception:
            known = False
        # Only a name of the standard's own list is repeated; anything else is the file's text.
        label = (
            syntax.name
            if syntax.is_valid and syntax.name != syntax
            else "one that is not in the DICOM standard"
        )
    if not known:
        raise SourceError(
            f"{name}: needed a transfer syntax that can be decoded here, got {label}; convert the file to Explicit "
            "VR Little Endian or JPEG Lossless"
        )
    return str(syntax)


def _after_meta(tag: int, _vr: str | None, _length: int) -> bool:
    return tag >> 16 > 0x0002


def _inflate(name: str, file: BinaryIO) -> BinaryIO:
    """The data set of a deflated file (PS3.5 A.5), in an unnamed temporary file."""
    file.seek(132)
    group_length = file.read(12)
    if len(group_length) < 12 or group_length[:8] != b"\x02\x00\x00\x00UL\x04\x00":
        raise SourceError(
            f"{name}: needed the length of the file meta information, got none; the file is damaged"
        )
    file.seek(struct.unpack("<I", group_length[8:])[0], os.SEEK_CUR)
    inflated = tempfile.TemporaryFile()  # noqa: SIM115 - the caller closes it
    inflate = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        while chunk := file.read(1 << 16):
            while chunk:
                inflated.write(inflate.decompress(chunk, 1 << 20))
                chunk = inflate.unconsumed_tail
                if inflated.tell() > MAX_INFLATED_BYTES:
                    raise SourceError(
                        f"{name}: a deflated file may grow to {MAX_INFLATED_BYTES >> 30} GiB, got more; split it"
                    )
        if not inflate.eof:
            raise SourceError(f"{name}: the deflated data end too early; the file is cut off, copy it again")
    except zlib.error:
        inflated.close()
        raise SourceError(f"{name}: the deflated data cannot be inflated; the file is damaged") from None
    except SourceError:
        inflated.close()
        raise
    inflated.flush()
    return inflated


def _pixel_element(name: str, file: BinaryIO, little: bool, implicit: bool) -> tuple[int, str, bool]:
    """Offset, VR and whether the length is undefined of the pixel data that `file` is positioned at."""
    order = "<" if little else ">"
    head = file.read(8 if implicit else 12)
    missing = SourceError(
        f"{name}: needed pixel data (7FE0,0010), got none; the file holds no image or is cut off"
    )
    if len(head) < (8 if implicit else 12):
        raise missing
    group, element = struct.unpack_from(order + "HH", head)
    if (group << 16 | element) not in _PIXEL_ELEMENTS:
        raise missing
    if (group << 16 | element) != _PIXEL_DATA:
        raise SourceError(
            f"{name}: needed whole numbers as pixel data, got floating point; convert the file to 16 bits"
        )
    vr = "OW" if implicit else head[4:6].decode("latin-1")
    (length,) = struct.unpack_from(order + "I", head, 4 if implicit else 8)
    return file.tell(), vr, length == 0xFFFFFFFF


def _checked(
    name: str, dataset: Any, syntax: str, pixels: tuple[int, str, bool], encapsulated: bool, little: bool
) -> CineHeader:
    offset, vr, undefined = pixels
    if vr not in ("OB", "OW") or undefined != encapsulated:
        raise SourceError(
            f"{name}: the pixel data are not laid out as the transfer syntax says; the file is damaged"
        )
    samples = _whole(name, dataset, _SAMPLES, "Samples per Pixel", 1)
    photometric = _photometric(name, dataset, samples)
    rows = _whole(name, dataset, _ROWS, "Rows")
    columns = _whole(name, dataset, _COLUMNS, "Columns")
    frames = _whole(name, dataset, _FRAMES, "Number of Frames", 1)
    if not 1 <= frames <= MAX_FRAMES:
        raise SourceError(
            f"{name}: needed 1 to {MAX_FRAMES} frames, got {frames}; the header is wrong or the file empty"
        )
    allocated = _whole(name, dataset, _ALLOCATED, "Bits Allocated")
    stored = _whole(name, dataset, _STORED, "Bits Stored", allocated)
    high = _whole(name, dataset, _HIGH, "High Bit", stored - 1)
    if allocated not in (8, 16) or not 8 <= stored <= allocated or not stored - 1 <= high < allocated:
        raise SourceError(
            f"{name}: needed 8 to 16 bits stored in 8 or 16 allocated, got {stored} in {allocated} with high bit "
            f"{high}; convert the file"
        )
    if encapsulated and high != stored - 1:
        raise SourceError(
            f"{name}: compressed pixels need the high bit {stored - 1}, got {high}; decompress the file first"
        )
    signed = _whole(name, dataset, _SIGNED, "Pixel Representation", 0) == 1
    timing = read_timing(dataset, frames)
    notes = list(timing.notes)
    if signed:
        notes.append(
            f"Signed pixel values are carried shifted up by {1 << (stored - 1)}, so that none is negative."
        )
    window = _window(dataset, notes)
    if window is not None and signed:
        window = (window[0] + (1 << (stored - 1)), window[1])
    table = _value(dataset, _EXTENDED_OFFSETS)
    return CineHeader(
        transfer_syntax=syntax,
        rows=rows,
        columns=columns,
        frames=frames,
        photometric=photometric,
        bits_allocated=allocated,
        bits_stored=stored,
        high_bit=high,
        signed=signed,
        window=window,
        timing=timing,
        notes=tuple(notes),
        pixel_offset=offset,
        encapsulated=encapsulated,
        little_endian=little,
        pixel_vr=vr,
        extended_offsets=table if isinstance(table, bytes) and table else None,
        sizes=_sizes(dataset),
        angles_deg=_angles(dataset),
        device=_device(dataset),
        series=_hashed(str(_value(dataset, _SERIES) or "").strip()),
    )


def _sizes(dataset: Any) -> dict[str, float | tuple[float, ...]]:
    said: dict[str, float | tuple[float, ...]] = {}
    for name, (tag, count) in _SIZES.items():
        value = _value(dataset, tag)
        try:
            numbers = tuple(float(each) for each in (value if count == 2 else [value]))
        except (TypeError, ValueError):
            continue
        if len(numbers) == count and all(math.isfinite(each) and each > 0 for each in numbers):
            said[name] = numbers if count == 2 else numbers[0]
    return said


def _angles(dataset: Any) -> tuple[float, float] | None:
    primary, secondary = (_number(dataset, tag) for tag in _ANGLES)
    if primary is None or secondary is None or max(abs(primary), abs(secondary)) > 360.0:
        return None
    return primary, secondary


def _device(dataset: Any) -> str:
    said = [str(_value(dataset, tag) or "").strip() for tag in _DEVICE]
    if not any(said):
        return ""
    return f"DICOM device {_hashed(chr(0).join(said))}"


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else ""


def _value(dataset: Any, tag: int) -> Any:
    """An element's value; None where it is absent or cannot be read (its error text quotes the header)."""
    try:
        return dataset[tag].value
    except Exception:
        return None


def _whole(name: str, dataset: Any, tag: int, label: str, default: int | None = None) -> int:
    value = _value(dataset, tag)
    if value is None and default is not None and tag not in dataset:
        return default
    try:
        return int(value)
    except (TypeError, ValueError):
        raise SourceError(
            f"{name}: needed one whole number as {label} ({tag >> 16:04x},{tag & 0xFFFF:04x}), got none; the header "
            "is damaged"
        ) from None


def _photometric(name: str, dataset: Any, samples: int) -> Photometric:
    text = _value(dataset, _PHOTOMETRIC)
    if samples == 1 and text in ("MONOCHROME1", "MONOCHROME2"):
        return Photometric[text]
    got = text if text in _COLOURS else "another"
    raise SourceError(
        f"{name}: needed one sample a pixel, MONOCHROME1 or MONOCHROME2, got {samples} ({got}); export the loop in "
        "gray, since colour of a file is not converted"
    )


def _window(dataset: Any, notes: list[str]) -> tuple[float, float] | None:
    """The first VOI window, turned into stored pixel values (PS3.3 C.11.2).

    A window lies after the Modality LUT: stored = (value - intercept) / slope, but for XA and XRF with a LOG or
    DISP relationship the Modality LUT is not part of the display (PS3.4 N.2.1.2) and nothing is to be undone.
    """
    holder, transformation = dataset, dataset
    shared = _first(dataset, _SHARED_GROUPS)
    per_frame = _first(dataset, cine_timing.PER_FRAME_GROUPS)
    for group in (shared, per_frame):
        if group is not None:
            holder = _first(group, _FRAME_VOI_LUT) or holder
            transformation = _first(group, _PIXEL_TRANSFORMATION) or transformation
    center, width = _number(holder, _CENTER), _number(holder, _WIDTH)
    if center is None or width is None or width < 1:
        return None
    if _value(dataset, _INTENSITY_RELATIONSHIP) in ("LOG", "DISP"):
        return center, width
    if _value(dataset, _MODALITY_LUT) is not None:
        notes.append("The header's window lies after a modality table that is not applied, and is left out.")
        return None
    slope, intercept = _number(transformation, _SLOPE), _number(transformation, _INTERCEPT)
    slope, intercept = (1.0 if slope is None else slope), intercept or 0.0
    if slope <= 0:
        notes.append("The header's rescale slope is not above 0, and its window is left out.")
        return None
    return (center - intercept) / slope, width / slope


def _first(dataset: Any, tag: int) -> Any:
    sequence = _value(dataset, tag)
    try:
        return sequence[0]
    except (TypeError, IndexError, KeyError):
        return None


def _number(dataset: Any, tag: int) -> float | None:
    """An element's first value as a finite number."""
    value = _value(dataset, tag)
    try:
        number = float(value[0] if hasattr(value, "__getitem__") and not isinstance(value, str) else value)
    except (TypeError, ValueError, IndexError):
        return None
    return number if math.isfinite(number) else None
