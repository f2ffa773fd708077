"""What lies in a folder: runs, patients and everything that cannot be used."""

import os
from pathlib import Path

import cv2
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage, generate_uid

from casgan.archive import read_archive
from casgan.errors import DataError

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"


def write_run(place: Path, count: int = 3, size: tuple[int, int] = (48, 64), suffix: str = ".png") -> None:
    place.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(place)))
    for index in range(count):
        cv2.imwrite(str(place / f"frame_{index}{suffix}"), rng.integers(0, 255, size, dtype=np.uint8))


def write_dicom(
    path: Path,
    patient_id: str,
    bits_stored: int = 12,
    frames: int = 2,
    inverted: bool = False,
    rows: int = 40,
) -> np.ndarray:
    pixels = np.random.default_rng(rows).integers(0, 1 << bits_stored, (frames, rows, 48)).astype(np.uint16)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = XRayAngiographicImageStorage
    dataset.SOPInstanceUID = generate_uid()
    dataset.PatientID, dataset.PatientName = patient_id, "DOE^JANE"
    dataset.Rows, dataset.Columns, dataset.NumberOfFrames = rows, 48, frames
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1" if inverted else "MONOCHROME2"
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, bits_stored, bits_stored - 1
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return pixels


def test_a_folder_of_images_is_a_run_of_the_patient_whose_folder_it_lies_in(tmp_path: Path) -> None:
    write_run(tmp_path / "Patient_10" / "Run_1" / "frames", 12)
    write_run(tmp_path / "Patient_2" / "Run_1", suffix=".bmp")
    write_run(tmp_path / "Patient_3", suffix=".jpg")
    archive = read_archive(tmp_path)
    assert archive.patients == ("Patient_2", "Patient_3", "Patient_10")
    assert [run.name for run in archive.runs] == ["Patient_2/Run_1", "Patient_3", "Patient_10/Run_1"]
    long = archive.runs[-1]
    assert [path.name for path in long.paths][-3:] == ["frame_9.png", "frame_10.png", "frame_11.png"]
    assert long.frames().shape == (12, 48, 64)
    assert (long.frames()[10] == cv2.imread(str(long.paths[10]), cv2.IMREAD_UNCHANGED)).all()


def test_masks_and_other_files_are_passed_over_and_said(tmp_path: Path) -> None:
    write_run(tmp_path / "A" / "frames")
    write_run(tmp_path / "A" / "segmentedFrames")
    cv2.imwrite(str(tmp_path / "A" / "frames" / "frame_0_gt.png"), np.zeros((48, 64), np.uint8))
    (tmp_path / "notes.csv").write_text("x")
    archive = read_archive(tmp_path)
    assert [run.count for run in archive.runs] == [3]
    assert archive.notes == (
        "2 folders or files of masks are passed over",
        "1 files that are no pictures are passed over",
    )


def test_loose_images_are_grouped_by_what_their_names_share(tmp_path: Path) -> None:
    for name in ("14_002_5_0016", "14_002_5_0017", "14_003_1_0001"):
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.zeros((40, 40), np.uint8))
    archive = read_archive(tmp_path)
    assert [(run.patient, run.name, run.count) for run in archive.runs] == [
        ("14_002", "14_002_5", 2),
        ("14_003", "14_003_1", 1),
    ]


def test_xcads_layout_names_the_domains_and_says_that_patients_are_unknown(tmp_path: Path) -> None:
    for place in ("trainA", "trainB", "trainC"):
        (tmp_path / "train" / place).mkdir(parents=True)
        for index in range(10):
            picture = np.full((40, 40), index, np.uint8)
            cv2.imwrite(str(tmp_path / "train" / place / f"{place}{index:04d}.png"), picture)
    write_run(tmp_path / "test" / "images", 2)
    write_run(tmp_path / "test" / "masks", 2)
    archive = read_archive(tmp_path)
    assert sorted(run.domain for run in archive.runs if run.domain) == ["filled"] * 10 + ["plain"] * 10
    assert len(archive.patients) == 5
    assert any("cannot be proved" in note for note in archive.notes)
    assert [(image.name, mask.parent.name) for image, mask in archive.annotated] == [
        ("frame_0.png", "masks"),
        ("frame_1.png", "masks"),
    ]


def test_xcads_layout_needs_both_domains(tmp_path: Path) -> None:
    write_run(tmp_path / "trainB")
    with pytest.raises(DataError, match=r"got no pictures in trainC; add them"):
        read_archive(tmp_path)


def test_a_dicom_file_is_a_run_whose_patient_is_told_apart_but_never_named(tmp_path: Path) -> None:
    pixels = write_dicom(tmp_path / "a" / "1.dcm", "HOSPITAL-4711", inverted=True)
    write_dicom(tmp_path / "b" / "2.dcm", " HOSPITAL-4711 ")
    write_dicom(tmp_path / "b" / "noending", "HOSPITAL-4712", bits_stored=10)
    write_run(tmp_path / "Patient_1")
    archive = read_archive(tmp_path)
    labels = {run.name: run.patient for run in archive.runs}
    assert labels["a/1.dcm"] == labels["b/2.dcm"] != labels["b/noending"]
    assert labels["Patient_1"] == "Patient_1"
    assert "4711" not in repr(archive)
    assert "DOE" not in repr(archive)
    (run,) = (run for run in archive.runs if run.name == "a/1.dcm")
    assert (run.inverted, run.bits_stored) == (True, 12)
    np.testing.assert_array_equal(run.frames(), pixels)


def test_a_dicom_file_without_an_id_belongs_to_its_folder(tmp_path: Path) -> None:
    write_dicom(tmp_path / "someone" / "1.dcm", "")
    assert read_archive(tmp_path).patients == ("someone",)
    write_dicom(tmp_path / "2.dcm", "")
    with pytest.raises(DataError, match=r"2\.dcm: its PatientID is empty.*folder of their own"):
        read_archive(tmp_path)


def test_no_folder_and_an_empty_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needed cine runs .* got none; name the folder"):
        read_archive(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(DataError, match=r"needed a folder of cine runs, got a file"):
        read_archive(tmp_path / "file")
    with pytest.raises(DataError, match=r"got nothing there"):
        read_archive(tmp_path / "absent")


def test_frames_of_two_sizes_in_one_run_are_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "A")
    cv2.imwrite(str(tmp_path / "A" / "frame_7.png"), np.zeros((50, 64), np.uint8))
    with pytest.raises(
        DataError, match=r"frame_7\.png: .* of one size and depth, 48 rows x 64 columns of 8 bits"
    ):
        read_archive(tmp_path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    write_run(tmp_path / "outside")
    write_run(tmp_path / "inside" / "A")
    os.symlink(tmp_path / "outside", tmp_path / "inside" / "B")
    with pytest.raises(DataError, match=r"B: a link must stay inside inside, this one leads out of it"):
        read_archive(tmp_path / "inside")


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_image_is_named_when_its_run_is_read(tmp_path: Path, suffix: str) -> None:
    write_run(tmp_path / "A", suffix=suffix)
    path = tmp_path / "A" / f"frame_1{suffix}"
    path.write_bytes(path.read_bytes()[:-900])
    (run,) = read_archive(tmp_path).runs
    with pytest.raises(DataError, match=rf"frame_1{suffix}: the image cannot be decoded; it is cut short"):
        run.frames()


def test_a_file_that_is_no_image_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "A")
    (tmp_path / "A" / "frame_5.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"frame_5\.png: needed a JPEG, PNG or BMP image"):
        read_archive(tmp_path)


def test_a_picture_that_claims_to_be_huge_is_refused_before_it_is_decoded(tmp_path: Path) -> None:
    write_run(tmp_path / "A", 1)
    path = tmp_path / "A" / "frame_0.png"
    data = bytearray(path.read_bytes())
    data[16:24] = (60_000).to_bytes(4, "big") * 2
    # A PNG's head has a checksum: make it fit the claim.
    import zlib

    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"frame_0\.png: (a picture must be 32 to 4096|needed a JPEG)"):
        read_archive(tmp_path)


def test_colour_is_refused_and_gray_stored_as_colour_is_not(tmp_path: Path) -> None:
    gray = np.random.default_rng(0).integers(0, 200, (40, 40), dtype=np.uint8)
    (tmp_path / "A").mkdir()
    cv2.imwrite(str(tmp_path / "A" / "0.png"), np.stack([gray] * 3, 2))
    (run,) = read_archive(tmp_path).runs
    np.testing.assert_array_equal(run.frames()[0], gray)
    cv2.imwrite(str(tmp_path / "A" / "0.png"), np.stack([gray, gray, gray + 50], 2))
    with pytest.raises(DataError, match=r"0\.png: needed a gray picture, got colour"):
        read_archive(tmp_path).runs[0].frames()


def test_a_damaged_dicom_file_is_named_without_quoting_it(tmp_path: Path) -> None:
    write_dicom(tmp_path / "A" / "1.dcm", "SECRET-1")
    whole = (tmp_path / "A" / "1.dcm").read_bytes()
    (tmp_path / "A" / "1.dcm").write_bytes(whole[:-500])
    with pytest.raises(DataError, match=r"1\.dcm: frame \d cannot be decoded") as caught:
        read_archive(tmp_path).runs[0].frames()
    assert "SECRET" not in str(caught.value)
    dataset = pydicom.dcmread(tmp_path / "A" / "1.dcm", stop_before_pixels=True)
    dataset.Rows = 5000
    dataset.save_as(tmp_path / "A" / "1.dcm")
    with pytest.raises(DataError, match=r"1\.dcm: a picture must be 32 to 4096 pixels a side, got 5000"):
        read_archive(tmp_path)


@pytest.mark.real
def test_real_runs_are_found_and_masks_left_alone() -> None:
    if not REAL.is_dir():
        pytest.skip(f"no real X-ray data at {REAL}")
    archive = read_archive(REAL / "angiodata_cine")
    assert len(archive.runs) == 35
    assert len(archive.patients) == 7
    assert sum(run.count for run in archive.runs) == 1175
    phantoms = read_archive(REAL / "xa_phantom_cine")
    assert phantoms.patients == (phantoms.runs[0].patient,)
    assert phantoms.runs[0].frames().shape == (14, 512, 512)
