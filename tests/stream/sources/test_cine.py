"""DICOM cines: pixels bit for bit, formats, bad files, memory, and no patient in any message."""

import logging
import struct
import traceback
import tracemalloc
import warnings

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    EnhancedXAImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from stream.errors import SourceError
from stream.frame import Photometric
from stream.sources.options import SourceOptions

MARK = "ZZPLANTED"


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEG2000Lossless,
    ],
    ids=["explicit", "implicit", "big-endian", "deflated", "rle", "jpeg2000"],
)
def test_stored_values_arrive_bit_for_bit(bits, syntax, ramp, write_cine, read_all, opening):
    pixels = ramp(frames=3, rows=65, columns=98, bits=bits)
    source = opening(write_cine(pixels, bits=bits, syntax=syntax))
    assert (source.format.rows, source.format.columns, source.format.bits_stored) == (65, 98, bits)
    assert source.format.dtype == (np.uint8 if bits == 8 else np.dtype("<u2"))
    assert source.frame_count == 3
    np.testing.assert_array_equal(read_all(source), pixels)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["explicit", "rle"])
def test_odd_sizes_arrive_bit_for_bit(syntax, ramp, write_cine, read_all, opening):
    pixels = ramp(frames=3, rows=67, columns=129)
    np.testing.assert_array_equal(read_all(opening(write_cine(pixels, syntax=syntax))), pixels)


def test_eight_bits_stored_in_sixteen_allocated_are_delivered_as_bytes(ramp, write_cine, read_all, opening):
    pixels = ramp(bits=8).astype(np.uint16)
    source = opening(write_cine(pixels, bits=8))
    assert source.format.dtype == np.uint8
    np.testing.assert_array_equal(read_all(source), pixels)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["explicit", "rle"])
def test_overlay_bits_above_the_bits_stored_are_cleared(syntax, ramp, write_cine, read_all, opening):
    pixels = ramp(bits=12)
    with_overlay = pixels | np.uint16(0x1000) | np.uint16(0x8000)
    source = opening(write_cine(with_overlay, bits=12, syntax=syntax))
    np.testing.assert_array_equal(read_all(source), pixels)


def test_a_high_bit_above_the_bits_stored_shifts_the_values_down(ramp, write_cine, read_all, opening):
    pixels = ramp(bits=12)
    source = opening(write_cine(pixels << 4 | np.uint16(0xF), bits=12, HighBit=15))
    np.testing.assert_array_equal(read_all(source), pixels)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless], ids=["explicit", "rle"])
def test_signed_values_are_shifted_up_with_their_window_and_a_note(
    syntax, ramp, write_cine, read_all, opening
):
    unsigned = ramp(bits=12)
    signed = (unsigned.astype(np.int32) - 2048).astype(np.int16)
    path = write_cine(
        signed, bits=12, syntax=syntax, PixelRepresentation=1, WindowCenter="-100", WindowWidth="400"
    )
    source = opening(path)
    assert (source.format.window_center, source.format.window_width) == (1948.0, 400.0)
    assert any("shifted up by 2048" in note for note in source.notes)
    np.testing.assert_array_equal(read_all(source), unsigned)


@pytest.mark.parametrize("photometric", list(Photometric), ids=lambda each: each.name)
def test_photometric_is_carried_and_not_applied(photometric, ramp, write_cine, read_all, opening):
    pixels = ramp()
    source = opening(write_cine(pixels, PhotometricInterpretation=photometric.name))
    assert source.format.photometric is photometric
    np.testing.assert_array_equal(read_all(source), pixels)


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({}, (None, None)),
        ({"WindowCenter": "128", "WindowWidth": "256"}, (128.0, 256.0)),
        ({"WindowCenter": ["60", "200"], "WindowWidth": ["80", "10"]}, (60.0, 80.0)),
        ({"WindowCenter": "128", "WindowWidth": "0"}, (None, None)),
        ({"WindowCenter": "128"}, (None, None)),
        (
            {"WindowCenter": "100", "WindowWidth": "50", "RescaleSlope": "2", "RescaleIntercept": "-20"},
            (60.0, 25.0),
        ),
        (
            {
                "WindowCenter": "100",
                "WindowWidth": "50",
                "RescaleSlope": "2",
                "RescaleIntercept": "-20",
                "PixelIntensityRelationship": "LOG",
            },
            (100.0, 50.0),
        ),
    ],
    ids=["none", "one", "first-of-two", "no-width", "half", "rescaled", "log-is-not-rescaled"],
)
def test_the_window_is_in_stored_pixel_values(elements, expected, ramp, write_cine, opening):
    source = opening(write_cine(ramp(), **elements))
    assert (source.format.window_center, source.format.window_width) == expected


def test_a_window_behind_a_modality_table_is_left_out_with_a_note(ramp, write_cine, opening):
    table = Dataset()
    table.LUTDescriptor = [256, 0, 16]
    table.ModalityLUTType = "US"
    table.LUTData = bytes(512)
    path = write_cine(ramp(), WindowCenter="9000", WindowWidth="100", ModalityLUTSequence=Sequence([table]))
    source = opening(path)
    assert source.format.window_center is None
    assert any("modality table" in note for note in source.notes)


def test_an_enhanced_object_gives_its_window_from_the_functional_groups(ramp, write_cine, opening):
    voi = Dataset()
    voi.WindowCenter, voi.WindowWidth = "77", "99"
    shared = Dataset()
    shared.FrameVOILUTSequence = Sequence([voi])
    source = opening(write_cine(ramp(), SharedFunctionalGroupsSequence=Sequence([shared])))
    assert (source.format.window_center, source.format.window_width) == (77.0, 99.0)


def test_an_enhanced_object_is_timed_by_its_frame_stamps(ramp, write_cine, opening, read_all):
    groups = []
    for stamp in ("20200101120000.000", "20200101120000.100", "20200101120000.350"):
        content = Dataset()
        content.FrameAcquisitionDateTime = stamp
        group = Dataset()
        group.FrameContentSequence = Sequence([content])
        groups.append(group)
    pixels = ramp(bits=12)
    path = write_cine(
        pixels,
        bits=12,
        syntax=JPEG2000Lossless,
        FrameTime=None,
        SOPClassUID=EnhancedXAImageStorage,
        PerFrameFunctionalGroupsSequence=Sequence(groups),
    )
    source = opening(path)
    assert [source.interval_ms(index) for index in (1, 2)] == [100.0, 250.0]
    assert source.interval_ms(0) == pytest.approx(175)
    np.testing.assert_array_equal(read_all(source), pixels)


def test_a_crop_delivers_its_region(ramp, write_cine, read_all, opening):
    pixels = ramp(rows=90, columns=120)
    for syntax in (ExplicitVRLittleEndian, RLELossless):
        path = write_cine(pixels, syntax=syntax)
        source = opening(path, SourceOptions(crop=(10, 20, 70, 66)))
        assert (source.format.rows, source.format.columns) == (66, 70)
        np.testing.assert_array_equal(read_all(source), pixels[:, 20:86, 10:80])


def test_skip_and_rewind_reach_any_frame(ramp, write_cine, opening):
    pixels = ramp(frames=4)
    source = opening(write_cine(pixels, syntax=RLELossless))
    out = np.empty(pixels.shape[1:], np.uint8)
    assert source.skip()
    assert source.skip()
    assert source.read(out) is not None
    np.testing.assert_array_equal(out, pixels[2])
    assert source.skip()
    assert not source.skip()
    assert source.read(out) is None
    source.rewind()
    source.read(out)
    np.testing.assert_array_equal(out, pixels[0])
    source.close()
    source.close()


def test_a_buffer_of_another_size_is_refused(ramp, write_cine, opening):
    source = opening(write_cine(ramp()))
    with pytest.raises(
        ValueError, match=r"out must be writable, contiguous \(65, 97\) uint8, got \(65, 96\)"
    ):
        source.read(np.empty((65, 96), np.uint8))


def test_a_long_cine_is_never_held_in_memory(write_cine, opening):
    frame = np.arange(256 * 256, dtype=np.uint32).astype(np.uint8).reshape(256, 256)
    pixels = np.broadcast_to(frame, (1000, 256, 256))
    path = write_cine(pixels)
    assert path.stat().st_size > 65_000_000
    out = np.empty((256, 256), np.uint8)
    opening(path).close()  # imports and caches are not the cine's
    tracemalloc.start()
    source = opening(path)
    count = 0
    while source.read(out) is not None:
        count += 1
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    source.close()
    assert count == 1000
    assert peak < 512 * 1024


def test_a_long_compressed_cine_is_never_held_in_memory(ramp, write_cine, opening):
    pixels = np.tile(ramp(frames=4, rows=256, columns=256), (50, 1, 1))
    path = write_cine(pixels, syntax=JPEGBaseline8Bit)
    assert path.stat().st_size > 4_000_000
    out = np.empty((256, 256), np.uint8)
    opening(path).close()
    tracemalloc.start()
    source = opening(path)
    while source.read(out) is not None:
        pass
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    source.close()
    assert peak < 1024 * 1024


def test_uncompressed_frames_allocate_nothing_of_frame_size(ramp, write_cine, opening):
    source = opening(write_cine(ramp(frames=20, rows=512, columns=512, bits=12), bits=12))
    out = np.empty((512, 512), np.uint16)
    source.read(out)
    tracemalloc.start()
    for _ in range(10):
        source.read(out)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    source.close()
    assert peak < 64 * 1024


# --- bad input ---------------------------------------------------------------------------------------------


def test_a_cine_without_timing_needs_a_rate(ramp, write_cine, opening):
    path = write_cine(ramp(), FrameTime=None)
    with pytest.raises(
        SourceError, match=r"3 frames need a rate, but the header holds no frame time.*give --rate"
    ):
        opening(path)
    source = opening(path, SourceOptions(rate_hz=7.5))
    assert source.rate_hz == 7.5
    assert source.interval_ms(1) == pytest.approx(1000 / 7.5)


def test_a_rate_that_is_asked_for_wins_over_the_header(ramp, write_cine, opening):
    source = opening(write_cine(ramp(), FrameTime="40"), SourceOptions(rate_hz=10.0))
    assert (source.rate_hz, source.interval_ms(1)) == (10.0, 100.0)


def test_the_device_is_told_apart_without_a_word_of_the_header(ramp, write_cine, opening):
    def device(**elements):
        return opening(write_cine(ramp(), **elements)).device

    one = device(Manufacturer="DOE^JANE", ManufacturerModelName="X", DeviceSerialNumber="1")
    assert one == device(Manufacturer="DOE^JANE", ManufacturerModelName="X", DeviceSerialNumber="1")
    assert one != device(Manufacturer="DOE^JANE", ManufacturerModelName="X", DeviceSerialNumber="2")
    assert one.startswith("DICOM device ")
    assert "JANE" not in one
    assert device() == ""


def test_what_the_header_says_of_sizes_is_carried_as_plain_numbers(ramp, write_cine, opening):
    sizes = {
        "ImagerPixelSpacing": ["0.2", "0.3"],
        "DistanceSourceToDetector": "1000",
        "DistanceSourceToPatient": "0",
        "FieldOfViewDimensions": ["160", "170"],
    }
    path = write_cine(ramp(), **sizes)
    carried = {"imager_spacing_mm": (0.2, 0.3), "source_to_detector_mm": 1000.0}
    assert opening(path).sizes == {**carried, "field_of_view_mm": (160.0, 170.0)}
    crop = SourceOptions(crop=(0, 0, 64, 64))
    assert opening(write_cine(ramp(rows=80, columns=80), **sizes), crop).sizes == carried
    assert opening(write_cine(ramp())).sizes == {}


def test_a_single_frame_needs_no_rate(ramp, write_cine, read_all, opening):
    pixels = ramp(frames=1)
    source = opening(write_cine(pixels, FrameTime=None, NumberOfFrames=1))
    assert source.rate_hz is None
    np.testing.assert_array_equal(read_all(source), pixels)


def test_a_file_that_is_no_dicom_is_named(tmp_path, opening):
    path = tmp_path / "cine.dcm"
    path.write_bytes(b"not a DICOM" * 100)
    with pytest.raises(SourceError, match=r"cine\.dcm: needed a DICOM file \(DICM after 128 bytes\), got"):
        opening(path)


@pytest.mark.parametrize("kept", [140, 300], ids=["in the meta information", "in the header"])
def test_a_header_that_is_cut_off_is_refused(kept, ramp, write_cine, opening):
    path = write_cine(ramp())
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(
        SourceError, match=r"transfer syntax|cannot be read|holds no image or is cut off|needed one whole"
    ):
        opening(path)


def test_a_truncated_uncompressed_file_is_refused_before_the_first_frame(ramp, write_cine, opening):
    path = write_cine(ramp(frames=3))
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(
        SourceError, match=r"3 frames need 18915 bytes of pixel data, got 1791.; the file is cut off"
    ):
        opening(path)


def test_a_truncated_fragment_is_refused_before_the_first_frame(ramp, write_cine, opening):
    path = write_cine(ramp(frames=3), syntax=RLELossless)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(SourceError, match="the file ends inside fragment 3; it is cut off"):
        opening(path)


def test_fewer_fragments_than_frames_are_refused(ramp, write_cine, opening):
    path = write_cine(
        ramp(frames=3), syntax=RLELossless, after=lambda dataset: setattr(dataset, "NumberOfFrames", 5)
    )
    with pytest.raises(SourceError, match="promises 5 frames, got 3 fragments"):
        opening(path)


def test_a_file_without_pixel_data_is_refused(ramp, write_cine, opening):
    path = write_cine(ramp(), change=lambda dataset: delattr(dataset, "PixelData"))
    with pytest.raises(SourceError, match=r"needed pixel data \(7FE0,0010\), got none"):
        opening(path)


def test_floating_point_pixels_are_refused(ramp, write_cine, opening):
    def change(dataset):
        del dataset.PixelData
        dataset.FloatPixelData = bytes(4 * 65 * 97)

    with pytest.raises(SourceError, match="needed whole numbers as pixel data, got floating point"):
        opening(write_cine(ramp(frames=1), change=change))


@pytest.mark.parametrize(
    ("uid", "label"),
    [
        ("1.2.840.10008.1.2.4.100", "MPEG2 Main Profile / Main Level"),
        ("1.2.3.4.5.6.7", "one that is not in the DICOM standard"),
        ("1.2.840.10008.5.1.4.1.1.12.1", "X-Ray Angiographic Image Storage"),
    ],
    ids=["mpeg2", "private", "no-syntax"],
)
def test_a_transfer_syntax_without_a_codec_is_named(uid, label, ramp, write_cine, opening):
    path = write_cine(ramp())
    marked = path.read_bytes().replace(
        b"\x02\x00\x10\x00UI\x14\x00" + ExplicitVRLittleEndian.encode() + b"\0",
        b"\x02\x00\x10\x00UI"
        + struct.pack("<H", (len(uid) + 1) // 2 * 2)
        + uid.encode()
        + b"\0" * (len(uid) % 2),
    )
    # the group length counts the bytes behind it
    grown = len(marked) - path.stat().st_size
    (length,) = struct.unpack_from("<I", marked, 140)
    path.write_bytes(marked[:140] + struct.pack("<I", length + grown) + marked[144:])
    with pytest.raises(SourceError, match=f"needed a transfer syntax that can be decoded here, got {label}"):
        opening(path)


@pytest.mark.parametrize(
    ("photometric", "samples"),
    [("RGB", 3), ("YBR_FULL", 3), ("PALETTE COLOR", 1)],
    ids=["rgb", "ybr", "palette"],
)
def test_colour_of_a_dicom_is_refused(photometric, samples, write_cine, opening):
    pixels = np.zeros((2, 64, 64), np.uint8)

    def change(dataset):
        dataset.SamplesPerPixel = samples
        dataset.PhotometricInterpretation = photometric
        if samples == 3:
            dataset.PlanarConfiguration = 0
            dataset.PixelData = bytes(pixels.size * 3)

    with pytest.raises(SourceError, match=rf"MONOCHROME1 or MONOCHROME2, got {samples} \({photometric}\)"):
        opening(write_cine(pixels, change=change))


@pytest.mark.parametrize("frames", [0, -3, 300_000], ids=["zero", "negative", "absurd"])
def test_a_number_of_frames_that_no_cine_has_is_refused(frames, ramp, write_cine, opening):
    path = write_cine(
        ramp(), NumberOfFrames=3, change=lambda dataset: setattr(dataset, "NumberOfFrames", frames)
    )
    with pytest.raises(SourceError, match=rf"needed 1 to 200000 frames, got {frames}"):
        opening(path)


def test_4096_by_4096_is_refused_but_may_be_cropped(write_cine, read_all, opening):
    pixels = np.zeros((1, 4096, 4096), np.uint8)
    pixels[0, 1000:1064, 2000:2100] = 7
    path = write_cine(pixels)
    with pytest.raises(
        SourceError, match="frames must be 64 to 2048 pixels a side, got 4096 rows x 4096 columns; crop"
    ):
        opening(path)
    source = opening(path, SourceOptions(crop=(2000, 1000, 100, 64)))
    assert (read_all(source) == 7).all()


def test_a_crop_outside_the_picture_is_refused(ramp, write_cine, opening):
    with pytest.raises(SourceError, match=r"--crop must lie inside 97x65 pixels, got x 50 to 150, y 0 to 65"):
        opening((write_cine(ramp())), SourceOptions(crop=(50, 0, 100, 65)))


@pytest.mark.parametrize(
    ("elements", "message"),
    [
        ({"BitsAllocated": 32}, "got 8 in 32"),
        ({"BitsStored": 7, "HighBit": 6}, "got 7 in 8"),
        ({"HighBit": 3}, "high bit 3"),
    ],
    ids=["32 allocated", "7 stored", "high bit below"],
)
def test_bits_that_no_stream_carries_are_refused(elements, message, ramp, write_cine, opening):
    def change(dataset):
        for keyword, value in elements.items():
            setattr(dataset, keyword, value)

    with pytest.raises(SourceError, match=f"8 to 16 bits stored in 8 or 16 allocated.*{message}"):
        opening(write_cine(ramp(), change=change))


def test_a_codestream_of_another_size_than_the_header_is_refused(ramp, write_cine, opening):
    path = write_cine(
        ramp(frames=1), syntax=JPEGBaseline8Bit, after=lambda dataset: setattr(dataset, "Rows", 66)
    )
    with pytest.raises(
        SourceError, match=r"frame 0 must be 97x66 gray as the header says, got 97x65 pixels, 8 bits, gray"
    ):
        opening(path)


def test_a_codestream_that_claims_gigabytes_is_refused_before_it_is_decoded(ramp, write_cine, opening):
    path = write_cine(ramp(frames=1), syntax=JPEGBaseline8Bit)
    data = path.read_bytes()
    at = data.index(b"\xff\xc0")
    path.write_bytes(data[: at + 5] + b"\xff\xf0\xff\xf0" + data[at + 9 :])
    with pytest.raises(SourceError, match="got 65520x65520 pixels"):
        opening(path)


@pytest.mark.parametrize(
    "syntax", [JPEGBaseline8Bit, JPEG2000Lossless, RLELossless], ids=["jpeg", "j2k", "rle"]
)
def test_a_damaged_frame_is_named_and_the_next_one_is_read(syntax, ramp, write_cine, opening):
    pixels = ramp(frames=3, rows=80, columns=80)
    path = write_cine(pixels, syntax=syntax)
    source = opening(path)
    index = source._index
    data = bytearray(path.read_bytes())
    data[index.starts[1] + 8 : index.ends[1]] = b"\x13" * (index.ends[1] - index.starts[1] - 8)
    path.write_bytes(data)  # the same inode: the open source sees it
    out = np.empty((80, 80), np.uint8)
    assert source.read(out) is not None
    with pytest.raises(SourceError, match=r"cine\.dcm: frame 1 (cannot be decoded|is no image)"):
        source.read(out)
    assert source.read(out) is not None
    assert source.read(out) is None


def test_a_file_cut_while_open_is_an_error_not_old_pixels(ramp, write_cine, opening):
    path = write_cine(ramp(frames=3))
    source = opening(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size - 70)
    out = np.empty((65, 97), np.uint8)
    source.read(out)
    source.read(out)
    with pytest.raises(SourceError, match="the file ends inside frame 2"):
        source.read(out)


# --- no patient in any message -----------------------------------------------------------------------------


def _plant(dataset):
    dataset.PatientName = f"{MARK}^NAME"
    dataset.PatientID = f"{MARK}-ID"
    dataset.PatientBirthDate = "19290102"
    dataset.StudyDescription = f"{MARK} study"
    dataset.InstitutionName = f"{MARK} hospital"
    dataset.StudyDate = "19310405"
    dataset.OperatorsName = f"{MARK}^OPERATOR"


def _raw(tag, value, vr):
    """An element with text that no reader of its kind expects, as a damaged or careless writer leaves it."""

    def change(dataset):
        dataset._dict[pydicom.tag.Tag(tag)] = pydicom.dataelem.RawDataElement(
            pydicom.tag.Tag(tag), vr, len(value), value, 0, False, True
        )

    return change


PLANTED = {
    "healthy": lambda dataset: None,
    "photometric": _raw(0x00280004, MARK.encode() + b"\0", "CS"),
    "frames": _raw(0x00280008, MARK.encode() + b" ", "IS"),
    "rows": _raw(0x00280010, MARK.encode() + b" ", "US"),
    "frame time": _raw(0x00181063, MARK.encode() + b" ", "DS"),
    "frame time vector": _raw(0x00181065, MARK.encode() + b" ", "DS"),
    "cine rate": _raw(0x00180040, MARK.encode() + b" ", "IS"),
    "window": _raw(0x00281050, MARK.encode() + b" ", "DS"),
    "name as a number": _raw(0x00100010, MARK.encode() + b" ", "DS"),
    "sequence": _raw(0x52009229, MARK.encode() + b" ", "SQ"),
    "intercept": _raw(0x00281052, MARK.encode() + b" ", "DS"),
    "bits": _raw(0x00280100, MARK.encode() + b" ", "US"),
}


@pytest.mark.parametrize("damage", PLANTED, ids=str)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGBaseline8Bit], ids=["explicit", "jpeg"])
@pytest.mark.parametrize("kept", [1.0, 0.9, 0.05], ids=["whole", "cut in the pixels", "cut early"])
def test_nothing_of_a_header_reaches_a_message_a_note_a_warning_or_a_log(
    damage, syntax, kept, ramp, write_cine, caplog, capfd, opening
):
    def after(dataset):
        _plant(dataset)
        PLANTED[damage](dataset)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pydicom's own, while writing what it would not write
        path = write_cine(ramp(), syntax=syntax, after=after)
    caplog.clear()  # pydicom's, while writing
    data = path.read_bytes()
    assert MARK.encode() in data
    path.write_bytes(data[: int(len(data) * kept)])
    said = []
    with warnings.catch_warnings(record=True) as warned, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        try:
            source = opening(path)
            said += [*source.notes, *source.warnings(), source.kind, str(source.format)]
            out = np.empty((source.format.rows, source.format.columns), source.format.dtype)
            while source.read(out) is not None:
                pass
            source.close()
        except SourceError as error:
            said += ["".join(traceback.format_exception(error)), repr(error.args)]
    said += [str(each.message) for each in warned] + [caplog.text, *capfd.readouterr()]
    assert said
    for text in said:
        for planted in (MARK, MARK[:3], "19290102", "19310405"):
            assert planted not in text


# --- real data ---------------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "tolerance"),
    [
        ("RLE", 0),
        ("JPLL", 0),
        ("JLSL", 0),
        ("J2KR", 0),
        ("JLSN", 4),
        ("J2KI", 8),
        ("UNC", 0),
    ],
    ids=lambda value: str(value),
)
def test_a_real_frame_is_the_same_in_every_transfer_syntax(name, tolerance, real_data, read_all, opening):
    folder = real_data / "xa_single_codecs"
    with (folder / "XA1_UNC.dcm").open("rb") as file:
        wanted = pydicom.dcmread(file).pixel_array
    source = opening(folder / f"XA1_{name}.dcm")
    assert (source.format.rows, source.format.columns, source.format.bits_stored) == (1024, 1024, 10)
    got = read_all(source)[0]
    assert int(np.abs(got.astype(int) - wanted.astype(int)).max()) <= tolerance
    assert got.max() >= 490


@pytest.mark.real
def test_a_real_frame_that_no_kept_codec_reads_is_a_clean_error(real_data, capfd, opening):
    with pytest.raises(
        SourceError, match=r"frame 0 cannot be decoded by the codecs kept here \(JPEG Extended"
    ):
        opening(real_data / "xa_single_codecs" / "XA1_JPLY.dcm")


@pytest.mark.real
@pytest.mark.parametrize(("name", "frames"), [("IM1", 14), ("IM5", 16)])
def test_a_real_cine_is_read_at_its_own_rate(name, frames, real_data, read_all, opening):
    path = real_data / "xa_phantom_cine" / f"{name}.dcm"
    source = opening(path)
    assert source.rate_hz == pytest.approx(15, rel=1e-5)
    assert source.interval_ms(3) == pytest.approx(66.6667)
    assert (source.format.window_center, source.format.window_width) == (128.0, 256.0)
    got = read_all(source)
    assert got.shape == (frames, 512, 512)
    np.testing.assert_array_equal(got, pydicom.dcmread(path).pixel_array)


@pytest.mark.real
def test_fast_and_slow_lossless_decoders_agree_on_real_frames(real_data, read_all, opening):
    path = real_data / "xa_phantom_cine" / "IM6.dcm"
    fast, slow = opening(path), opening(path)
    assert fast._turbo
    slow._turbo, slow._first = False, None
    np.testing.assert_array_equal(read_all(fast), read_all(slow))


@pytest.mark.real
def test_a_real_frame_of_odd_shape_is_read(real_data, read_all, opening):
    source = opening(real_data / "rf_single" / "KarstenHilbertRF.dcm")
    assert (source.format.rows, source.format.columns) == (464, 512)
    assert read_all(source).shape == (1, 464, 512)


def test_jpeg_ls_is_among_the_decoders_kept_here():
    from pydicom.pixels import get_decoder

    assert get_decoder(JPEGLSLossless).is_available


def test_a_frame_in_several_fragments_is_joined(ramp, write_cine, read_all, opening):
    pixels = ramp(frames=1, rows=80, columns=80)
    whole = read_all(opening(write_cine(pixels, syntax=JPEGBaseline8Bit)))

    def split(dataset):
        coded = next(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=1))
        dataset.PixelData = encapsulate([coded], fragments_per_frame=3)
        dataset["PixelData"].is_undefined_length = True

    path = write_cine(pixels, name="split.dcm", syntax=JPEGBaseline8Bit, after=split)
    np.testing.assert_array_equal(read_all(opening(path)), whole)
