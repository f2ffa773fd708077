"""A recording as DICOM: the live frames as they came, and what was synthesized as derived objects that say so.

Three multi-frame secondary captures (PS3.3 A.8.3 and A.8.4), since nothing is known of how the X-ray was made: live,
synthetic and attention. Synthetic Data (0008,001C) is YES where pixels were drawn, Content Qualification (0018,9004) is
RESEARCH everywhere, and the derived objects name their source frames, the model's hash and the engine. Nothing of a patient is
in any of them. Frame Time Vector (0018,1065) holds the steps between the frames' due times.
"""

import itertools
import os
import struct
from collections.abc import Callable, Iterable
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from stream.errors import RecordError
from stream.frame import FrameFormat, Photometric, SpacingPlace
from stream.record.segment import Segment

BYTE = "1.2.840.10008.5.1.4.1.1.7.2"
"""Multi-frame Grayscale Byte Secondary Capture Image Storage."""
WORD = "1.2.840.10008.5.1.4.1.1.7.3"
"""Multi-frame Grayscale Word Secondary Capture Image Storage."""
PIXEL_DATA = struct.Struct("<HH2sHI")
"""Pixel Data (7FE0,0010) up to its value: tag, VR, two bytes of nothing, length."""
MAX_PIXEL_BYTES = 0xFFFFFFFE
"""A value of explicit length holds no more (PS3.5 7.1.1)."""
NOTICE = "Research tool, not a medical device."
DERIVED = ("synthetic", "attention")
Progress = Callable[[], None]


def write_dicom(out: Path, segment: Segment, progress: Progress) -> list[Path]:
    """Write the objects of a segment.

    Args:
        out: The live object's file; the others are beside it, NAME-synthetic.dcm and NAME-attention.dcm.
        segment: The frames.
        progress: Called for each frame of each object.

    Returns:
        The files written: one where nothing was synthesized, else three.

    Raises:
        RecordError: The disk is full, or one object would be larger than DICOM allows.
    """
    live = _live(segment)
    files = [_write(live, out, _live_planes(segment), progress)]
    try:
        for name in DERIVED if segment.synthetic else ():
            files.append(_derived(out, segment, live, name, progress))
    except BaseException:  # all objects of a recording, or none
        for file in files:
            file.unlink(missing_ok=True)
        raise
    return files


def write_live(
    out: Path, segment: Segment, progress: Progress, angles_deg: tuple[float, float] | None = None
) -> None:
    """Write the live object alone, whole or not at all.

    Args:
        out: The file. It grows as `partial_of(out)`, which keeps its mode where it is there already.
        segment: The frames; each is read once, in order.
        progress: Called for each frame.
        angles_deg: The C-arm's positioner angles, primary and secondary, where they are known.

    Raises:
        RecordError: The disk is full, or the object would be larger than DICOM allows.
    """
    live = _live(segment)
    if angles_deg is not None:
        live.PositionerPrimaryAngle, live.PositionerSecondaryAngle = (f"{angle:.10g}" for angle in angles_deg)
    _write(live, out, _live_planes(segment), progress)


def partial_of(out: Path) -> Path:
    """Under what name a file grows until it is whole."""
    return out.with_name(out.name + ".partial")


def _live(segment: Segment) -> Any:
    """The live object, without its pixels."""
    from pydicom.uid import generate_uid

    live = _object(segment, generate_uid(prefix=None), segment.frame_format, "live")
    live.ImageType = ["ORIGINAL", "PRIMARY"]
    live.ConversionType = "DI"
    live.SyntheticData = "NO"
    _time(live, segment.times_ms(), segment.rate_hz)
    return live


def _live_planes(segment: Segment) -> Iterable[np.ndarray]:
    top = segment.frame_format.max_value
    turned = segment.frame_format.photometric is Photometric.MONOCHROME1
    return (turn(frame.message.live, top, turned) for frame in segment)


def _derived(out: Path, segment: Segment, live: Any, name: str, progress: Progress) -> Path:
    """Write what was synthesized, or its attention."""
    drawn, frame_format = segment.synthetic, segment.frame_format
    plane_format = (
        FrameFormat(frame_format.rows, frame_format.columns) if name == "attention" else frame_format
    )
    derived = _object(segment, live.StudyInstanceUID, plane_format, name)
    derived.ImageType = ["DERIVED", "SECONDARY"]
    derived.ConversionType = "SYN"
    derived.SyntheticData = "YES"
    derived.DerivationDescription = _derivation(name, segment)
    derived.SourceImageSequence = _sources(live, drawn)
    _time(derived, segment.times_ms(drawn), segment.rate_hz)
    planes = _planes(segment, drawn, name)
    return _write(derived, out.with_name(f"{out.stem}-{name}.dcm"), planes, progress)


def turn(plane: np.ndarray, top: int, turned: bool) -> np.ndarray:
    """The plane with its grey levels the other way round, since these objects know MONOCHROME2 only; or as it is."""
    return np.subtract(top, plane, dtype=plane.dtype) if turned else plane


def _planes(segment: Segment, places: tuple[int, ...], name: str) -> Iterable[np.ndarray]:
    top = segment.frame_format.max_value
    turned = segment.frame_format.photometric is Photometric.MONOCHROME1
    for place in places:
        message = segment.capture.frame(segment.first + place).message
        assert message.synthetic is not None  # unpack refuses a SYNTHETIC message without
        assert message.attention is not None
        yield turn(message.synthetic, top, turned) if name == "synthetic" else message.attention


def _object(segment: Segment, study: str, frame_format: FrameFormat, name: str) -> Any:
    """What all objects of a recording say alike."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    byte = frame_format.sample_bytes == 1
    begun = datetime.fromisoformat(segment.capture.begun)
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = BYTE if byte else WORD
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid(prefix=None)
    made.SpecificCharacterSet = "ISO_IR 192"
    made.PatientName = made.PatientBirthDate = made.PatientSex = ""
    made.PatientID = "RESEARCH"  # nothing of a patient, but an archive wants one
    made.StudyInstanceUID = study
    made.StudyDate = made.SeriesDate = made.ContentDate = begun.strftime("%Y%m%d")
    made.StudyTime = made.SeriesTime = made.ContentTime = begun.strftime("%H%M%S")
    made.StudyID = "1"
    made.AccessionNumber = made.ReferringPhysicianName = ""
    made.TimezoneOffsetFromUTC = "+0000"
    made.SeriesInstanceUID = generate_uid(prefix=None)
    made.SeriesNumber = {"live": 1, "synthetic": 2, "attention": 3}[name]
    made.SeriesDescription = {
        "live": "live",
        "synthetic": "synthetic vessels, research only",
        "attention": "share that is synthetic, 255 is all",
    }[name]
    made.Modality = "OT"
    made.Manufacturer = "contrastream"
    made.ManufacturerModelName = "contrastream"
    made.SoftwareVersions = version("contrastream")
    made.InstanceNumber = 1
    made.PatientOrientation = ""
    made.Laterality = ""  # wanted where the body part is not known to be an unpaired one
    made.BurnedInAnnotation = "YES" if segment.unmasked_text and name != "attention" else "NO"
    made.ContentQualification = "RESEARCH"
    made.ImageComments = NOTICE + (
        f" {segment.lost} frames did not reach the recorder." if segment.lost else ""
    )
    made.SamplesPerPixel = 1
    made.PhotometricInterpretation = "MONOCHROME2"
    made.Rows, made.Columns = frame_format.rows, frame_format.columns
    made.BitsAllocated = 8 * frame_format.sample_bytes
    made.BitsStored = frame_format.bits_stored
    made.HighBit = frame_format.bits_stored - 1
    made.PixelRepresentation = 0
    made.RescaleIntercept, made.RescaleSlope, made.RescaleType = 0, 1, "US"
    made.PresentationLUTShape = "IDENTITY"
    if name != "attention":
        _window(made, frame_format)
    _spacing(made, segment)
    return made


def _window(made: Any, frame_format: FrameFormat) -> None:
    if frame_format.window_center is None or frame_format.window_width is None:
        return
    center = frame_format.window_center
    if frame_format.photometric is Photometric.MONOCHROME1:
        center = (
            frame_format.max_value + 1 - center
        )  # exactly: a window reaches from its centre - 0.5 (PS3.3 C.11.2.1.2.1)
    made.WindowCenter, made.WindowWidth = f"{center:.10g}", f"{frame_format.window_width:.10g}"


def _spacing(made: Any, segment: Segment) -> None:
    if (spacing := segment.spacing) is None:
        return
    said = [f"{spacing.row_mm:.10g}", f"{spacing.column_mm:.10g}"]
    if spacing.place is SpacingPlace.DETECTOR:
        made.ImagerPixelSpacing = said
        return
    made.PixelSpacing = said
    at_isocentre = spacing.place is SpacingPlace.ISOCENTRE
    made.PixelSpacingCalibrationType = "GEOMETRY" if at_isocentre else "FIDUCIAL"
    made.PixelSpacingCalibrationDescription = (
        "at the isocentre" if at_isocentre else "where the measured object lay"
    )


def _time(made: Any, times_ms: list[float], rate_hz: float) -> None:
    from pydicom.tag import Tag

    # Rounded as times, not as steps, so that a thousand steps add up to the true time.
    rounded = [round(time, 3) for time in times_ms]
    steps = [0.0, *(later - before for before, later in itertools.pairwise(rounded))]
    made.NumberOfFrames = len(times_ms)
    made.FrameIncrementPointer = Tag(0x0018, 0x1065)
    made.FrameTimeVector = [f"{step:.3f}" for step in steps]
    made.CineRate = max(1, round(rate_hz))


def _derivation(name: str, segment: Segment) -> str:
    what = "Vessels drawn into the live frames" if name == "synthetic" else "Where vessels were drawn"
    models = [
        f"model SHA-256 {engine['model_sha256'] or 'unknown'}"
        + (f", engine {engine['backend']} {engine['precision']}" if engine["backend"] else "")
        for engine in segment.engines
    ]
    adapted = "".join(
        f" In {count} of {len(segment.synthetic)} frames with its weights adapted to one patient (adaptation {key})."
        for key, count in segment.adaptations.items()
    )
    return (
        f"{what} by contrastream {version('contrastream')} (CAS-GAN), {', then '.join(models) or 'model SHA-256 unknown'}.{adapted} They "
        f"are synthetic: plausible, not this patient's. {NOTICE}"
    )


def _sources(live: Any, places: tuple[int, ...]) -> Any:
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = live.SOPClassUID, live.SOPInstanceUID
    source.ReferencedFrameNumber = [place + 1 for place in places]
    return Sequence([source])


def _write(made: Any, out: Path, planes: Iterable[np.ndarray], progress: Progress) -> Path:
    """Write an object whole or not at all; its pixels follow frame by frame, so that an hour needs no hour of memory.

    They are the last element by its tag, of explicit length and without compression (PS3.5 7.1.2, 8.2.1): 12 bytes, the planes one
    after the other, and a zero byte where their length is odd.
    """
    from pydicom import dcmwrite

    frame_bytes = made.Rows * made.Columns * made.BitsAllocated // 8
    total = frame_bytes * made.NumberOfFrames
    if total > MAX_PIXEL_BYTES:
        raise RecordError(
            f"needed less than 4 GiB of pixels in one DICOM object, got {total / 2**30:.1f} GiB; record shorter stretches "
            "(--seconds), or make an .npz of the capture"
        )
    partial = partial_of(out)
    kind = b"OB" if made.BitsAllocated == 8 else b"OW"
    try:
        with partial.open("wb") as file:
            dcmwrite(file, made, enforce_file_format=True)
            file.write(PIXEL_DATA.pack(0x7FE0, 0x0010, kind, 0, total + total % 2))
            for plane in planes:
                file.write(np.ascontiguousarray(plane).data)
                progress()
            file.write(bytes(total % 2))
        os.replace(partial, out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RecordError(f"needed to write {out}, got: {error.strerror}; free some space") from error
    return out
