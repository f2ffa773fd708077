"""Folders of frames."""

import cv2
import numpy as np
import pytest
from pydicom.uid import RLELossless

from stream.errors import SourceError
from stream.sources.folder import natural_key
from stream.sources.options import SourceOptions

AT_15 = SourceOptions(rate_hz=15.0)


@pytest.fixture
def fill(tmp_path):
    """Writes pictures under the names given, into one folder."""
    folder = tmp_path / "run"
    folder.mkdir()

    def write(**pictures):
        for name, pixels in pictures.items():
            assert cv2.imwrite(str(folder / name.replace("__", ".")), pixels)
        return folder

    return write


def test_numbers_in_names_sort_as_numbers():
    names = ["f10.png", "f2.png", "f1.png", "f02b.png", "10.png", "9.png", "a.png"]
    assert sorted(names, key=natural_key) == [
        "9.png",
        "10.png",
        "a.png",
        "f1.png",
        "f2.png",
        "f02b.png",
        "f10.png",
    ]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_gray_images_arrive_bit_for_bit_in_natural_order(suffix, ramp, fill, opening, read_all):
    pixels = ramp(frames=12, rows=67, columns=131)
    folder = fill(**{f"frame_{index}__{suffix}": frame for index, frame in enumerate(pixels)})
    source = opening(folder, AT_15)
    assert (source.kind, source.frame_count, source.rate_hz, source.interval_ms(1)) == (
        "folder",
        12,
        15.0,
        1000 / 15,
    )
    np.testing.assert_array_equal(read_all(source), pixels)


def test_jpeg_frames_are_what_opencv_decodes(ramp, fill, opening, read_all):
    pixels = [cv2.GaussianBlur(frame, (0, 0), 3) for frame in ramp(frames=3, rows=80, columns=96)]
    folder = fill(**{f"{index}__jpg": frame for index, frame in enumerate(pixels)})
    wanted = np.stack([cv2.imread(str(folder / f"{index}.jpg"), cv2.IMREAD_GRAYSCALE) for index in range(3)])
    np.testing.assert_array_equal(read_all(opening(folder, AT_15)), wanted)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bit_images_carry_the_bits_that_are_said(suffix, ramp, fill, opening, read_all):
    pixels = ramp(bits=12)
    folder = fill(**{f"{index}__{suffix}": frame for index, frame in enumerate(pixels)})
    source = opening(folder, AT_15)
    assert source.format.bits_stored == 16
    assert any("16 are assumed, --bits says fewer" in note for note in source.notes)
    np.testing.assert_array_equal(read_all(source), pixels)
    source = opening(folder, SourceOptions(rate_hz=15.0, bits=12))
    assert source.format.bits_stored == 12
    np.testing.assert_array_equal(read_all(source), pixels)


def test_values_above_the_bits_that_were_said_are_refused(ramp, fill, opening):
    folder = fill(a__png=ramp(bits=12)[0])
    source = opening(folder, SourceOptions(bits=10))
    with pytest.raises(
        SourceError, match=r"a\.png: values must be at most 1023 for --bits 10, got 4\d\d\d; give more bits"
    ):
        source.read(np.empty((65, 97), np.uint16))


def test_gray_stored_as_rgb_is_taken_exactly_with_a_note(ramp, fill, opening, read_all):
    pixels = ramp()
    colour = [cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR) for frame in pixels]
    folder = fill(a__png=colour[0], b__bmp=colour[1], c__png=pixels[2])
    source = opening(folder, AT_15)
    assert any("2 of 3 images are stored with three channels" in note for note in source.notes)
    np.testing.assert_array_equal(read_all(source), pixels)


def test_colour_is_refused_unless_gray_is_asked_for(ramp, fill, opening):
    pixels = cv2.cvtColor(ramp()[0], cv2.COLOR_GRAY2BGR)
    pixels[10:20, 10:20] = (0, 0, 255)
    folder = fill(a__png=pixels)
    out = np.empty((65, 97), np.uint8)
    with pytest.raises(
        SourceError, match=r"run: frames must be gray, got colour in a\.png; colour sources need --gray"
    ):
        opening(folder, AT_15).read(out)
    source = opening(folder, SourceOptions(rate_hz=15.0, gray=True))
    source.read(out)
    np.testing.assert_array_equal(out, cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY))
    assert any("their luma is taken" in note for note in source.notes)


def test_a_crop_delivers_its_region(ramp, fill, opening, read_all):
    pixels = ramp(frames=2, rows=100, columns=120)
    folder = fill(a__png=pixels[0], b__png=cv2.cvtColor(pixels[1], cv2.COLOR_GRAY2BGR))
    source = opening(folder, SourceOptions(rate_hz=15.0, crop=(10, 20, 70, 66)))
    np.testing.assert_array_equal(read_all(source), pixels[:, 20:86, 10:80])


def test_rewind_and_skip(ramp, fill, opening):
    pixels = ramp()
    source = opening(fill(a__png=pixels[0], b__png=pixels[1], c__png=pixels[2]), AT_15)
    out = np.empty((65, 97), np.uint8)
    assert source.skip()
    source.read(out)
    np.testing.assert_array_equal(out, pixels[1])
    assert source.skip()
    assert not source.skip()
    assert source.read(out) is None
    source.rewind()
    source.read(out)
    np.testing.assert_array_equal(out, pixels[0])


def test_frames_without_timing_need_a_rate(ramp, fill, opening):
    folder = fill(a__png=ramp()[0], b__png=ramp()[1])
    with pytest.raises(
        SourceError,
        match="run: 2 frames in a folder need a rate, since files say nothing of time; give --rate",
    ):
        opening(folder)


def test_one_frame_needs_no_rate(ramp, fill, opening):
    assert opening(fill(a__png=ramp()[0])).rate_hz is None


def test_the_first_file_of_another_size_is_named(ramp, fill, opening):
    frame = ramp(rows=80, columns=96)[0]
    folder = fill(f1__png=frame, f2__png=frame, f10__png=frame[:70], f11__png=frame[:66])
    with pytest.raises(
        SourceError,
        match=r"f10\.png: all frames of a folder must be like the first, 96x80 pixels of 8 bits, got 96x70 of 8",
    ):
        opening(folder, AT_15)


def test_the_first_file_of_another_depth_is_named(ramp, fill, opening):
    folder = fill(f1__png=ramp()[0], f2__png=ramp(bits=12)[0])
    with pytest.raises(SourceError, match=r"f2\.png: .*97x65 pixels of 8 bits, got 97x65 of 16"):
        opening(folder, AT_15)


def test_an_empty_folder_is_refused(fill, opening):
    with pytest.raises(
        SourceError, match=r"run: needed a folder with \.png, .* or DICOM files, got none; sub-folders"
    ):
        opening(fill(), AT_15)


def test_other_files_are_passed_over_with_a_note(ramp, fill, opening):
    folder = fill(a__png=ramp()[0])
    (folder / "notes.txt").write_text("not a frame")
    (folder / ".hidden.png").write_bytes(b"")
    source = opening(folder)
    assert source.frame_count == 1
    assert any("2 other files of the folder are passed over" in note for note in source.notes)


def test_a_file_that_is_no_image_is_named(ramp, fill, opening):
    folder = fill(a__png=ramp()[0])
    (folder / "b.png").write_text("no picture")
    with pytest.raises(
        SourceError, match=r"b\.png: needed a PNG, JPEG, BMP or TIFF image, got something else"
    ):
        opening(folder, AT_15)


@pytest.mark.parametrize(
    ("pixels", "got"),
    [
        (np.zeros((70, 70, 4), np.uint8), "70x70 pixels, 8 bits, colour with alpha"),
        (np.zeros((70, 70, 3), np.uint16), "70x70 pixels, 16 bits, colour"),
    ],
    ids=["alpha", "16-bit colour"],
)
def test_images_that_no_stream_carries_are_refused(pixels, got, fill, opening):
    with pytest.raises(SourceError, match=rf"a\.png: images must be gray of 8 or 16 bits.*got {got}"):
        opening(fill(a__png=pixels))


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_an_image_that_is_cut_off_is_an_error_not_a_gray_picture(suffix, ramp, fill, opening, capfd):
    frame = ramp(rows=200, columns=200)[0]
    folder = fill(**{f"a__{suffix}": frame, f"b__{suffix}": frame})
    path = folder / f"b.{suffix}"
    data = path.read_bytes()
    # a TIFF's directory comes last here, and without it nothing is known of the picture
    path.write_bytes(data[: len(data) // 2] if suffix != "tif" else data[:8] + data[len(data) // 2 :])
    out = np.empty((200, 200), np.uint8)
    with pytest.raises(SourceError, match=rf"b\.{suffix}: "):  # noqa: PT012 - a TIFF fails when opening
        source = opening(folder, AT_15)
        source.read(out)
        source.read(out)


def test_an_image_changed_while_open_is_refused(ramp, fill, opening):
    folder = fill(a__png=ramp()[0], b__png=ramp()[1])
    source = opening(folder, AT_15)
    fill(a__png=ramp(rows=70, columns=70)[0])
    with pytest.raises(
        SourceError, match=r"a\.png: needed 97x65 pixels of uint8, got 70x70 of uint8; was it changed"
    ):
        source.read(np.empty((65, 97), np.uint8))
    (folder / "b.png").unlink()
    with pytest.raises(SourceError, match=r"b\.png: the frame cannot be read: No such file"):
        source.read(np.empty((65, 97), np.uint8))


# --- DICOM ---


def test_single_frame_dicoms_are_one_cine(ramp, tmp_path, write_cine, opening, read_all):
    pixels = ramp(frames=11, bits=12)
    (tmp_path / "series").mkdir()
    for index, frame in enumerate(pixels):
        write_cine(
            frame[None],
            name=f"series/IM{index}",
            bits=12,
            syntax=RLELossless,
            NumberOfFrames=1,
            FrameTime=None,
        )
    source = opening(tmp_path / "series", AT_15)
    assert (source.kind, source.frame_count, source.format.bits_stored) == ("folder", 11, 12)
    np.testing.assert_array_equal(read_all(source), pixels)


def test_a_folder_with_one_dicom_cine_is_that_cine(ramp, tmp_path, write_cine, opening, read_all):
    pixels = ramp()
    (tmp_path / "study").mkdir()
    write_cine(pixels, name="study/IM1")
    (tmp_path / "study" / "DICOMDIR").write_bytes(b"")
    source = opening(tmp_path / "study")
    assert (source.kind, source.rate_hz) == ("cine", 25.0)
    np.testing.assert_array_equal(read_all(source), pixels)


def test_several_cines_are_refused(ramp, tmp_path, write_cine, opening):
    (tmp_path / "study").mkdir()
    write_cine(ramp(), name="study/IM1")
    write_cine(ramp(), name="study/IM2")
    with pytest.raises(
        SourceError, match="IM1: a folder holds single frames or one cine, got a cine of 3 frames among 2"
    ):
        opening(tmp_path / "study")


def test_the_first_dicom_of_another_format_is_named(ramp, tmp_path, write_cine, opening):
    (tmp_path / "series").mkdir()
    for name, rows, photometric in (
        ("1", 65, "MONOCHROME2"),
        ("2", 65, "MONOCHROME1"),
        ("3", 80, "MONOCHROME2"),
    ):
        write_cine(
            ramp(frames=1, rows=rows),
            name=f"series/{name}",
            NumberOfFrames=1,
            PhotometricInterpretation=photometric,
        )
    with pytest.raises(
        SourceError,
        match=r"2: all frames of a folder must be like the first, 97x65 pixels of 8 bits MONOCHROME2, got .* MONOCHROME1",
    ):
        opening(tmp_path / "series", AT_15)


def test_images_and_dicoms_together_are_refused(ramp, fill, write_cine, tmp_path, opening):
    folder = fill(a__png=ramp()[0])
    write_cine(ramp(), name="run/b")
    with pytest.raises(
        SourceError, match="must hold one kind of frames, got images and DICOM files \\(b is the first"
    ):
        opening(folder, AT_15)


# --- real ---


@pytest.mark.real
def test_a_real_run_of_jpegs_is_read_in_order(real_data, opening, read_all):
    folder = real_data / "angiodata_cine" / "Patient_1" / "Coro_1" / "frames"
    if not folder.is_dir():
        folder = next(path.parent for path in sorted((real_data / "angiodata_cine").rglob("frame_00000.jpg")))
    got = read_all(opening(folder, AT_15))
    files = sorted(folder.glob("*.jpg"))
    assert got.shape == (len(files), 512, 512)
    np.testing.assert_array_equal(got[-1], cv2.imread(str(files[-1]), cv2.IMREAD_UNCHANGED))


@pytest.mark.real
def test_real_bitmaps_that_are_gray_in_rgb_are_taken_exactly(real_data, opening, read_all):
    folder = real_data / "stenosis_bmp_run"
    source = opening(folder, AT_15)
    wanted = np.stack([cv2.imread(str(path))[..., 1] for path in sorted(folder.glob("*.bmp"))])
    np.testing.assert_array_equal(read_all(source), wanted)
    assert any("6 other files" in note for note in source.notes)
