"""What is made of a capture, read by others: pydicom, dciodvfy, our own replay, OpenCV and numpy."""

import errno
import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pydicom
import pytest

from stream.errors import RecordError
from stream.extensions import Adaptation
from stream.frame import FrameFormat, Photometric, Spacing, SpacingPlace
from stream.record import dicom
from stream.record.capture import Capture
from stream.record.dicom import write_dicom
from stream.record.recorder import convert
from stream.record.segment import segments
from stream.sources.cine import CineSource
from stream.sources.options import SourceOptions

Captured = Callable[..., Path]


@pytest.fixture
def objects(captured: Captured, tmp_path: Path) -> dict[str, Path]:
    """The three DICOM objects of a capture."""
    convert(captured(), tmp_path / "a.dcm")
    return {
        "live": tmp_path / "a.dcm",
        "synthetic": tmp_path / "a-synthetic.dcm",
        "attention": tmp_path / "a-attention.dcm",
    }


def test_pydicom_reads_the_same_pixels_and_times(objects: dict[str, Path], captured: Captured) -> None:
    capture = Capture(captured(name="again.capture"))
    frames = [frame.message for frame in capture]
    live = pydicom.dcmread(objects["live"])
    assert live.pixel_array.shape == (8, 96, 128)
    np.testing.assert_array_equal(live.pixel_array, [frame.live for frame in frames])
    assert [float(step) for step in live.FrameTimeVector] == [0, 50, 50, 50, 50, 200, 50, 50]
    drawn = [frame for frame in frames if frame.synthetic is not None]
    synthetic, attention = (pydicom.dcmread(objects[name]) for name in ("synthetic", "attention"))
    np.testing.assert_array_equal(synthetic.pixel_array, [frame.synthetic for frame in drawn])
    np.testing.assert_array_equal(attention.pixel_array, [frame.attention for frame in drawn])
    assert [float(step) for step in synthetic.FrameTimeVector] == [0, 50, 100, 50, 200, 50, 50]
    (source,) = synthetic.SourceImageSequence
    assert source.ReferencedSOPInstanceUID == live.SOPInstanceUID
    assert list(source.ReferencedFrameNumber) == [1, 2, 4, 5, 6, 7, 8]


def test_an_adaptation_that_drew_is_named_by_its_key(captured: Captured, tmp_path: Path) -> None:
    (segment,) = segments(Capture(captured(adaptation=Adaptation("0f" * 16, 615))))
    assert segment.adaptations == {"0f" * 16: 7}
    _, synthetic, _ = write_dicom(tmp_path / "adapted.dcm", segment, lambda: None)
    said = pydicom.dcmread(synthetic).DerivationDescription
    assert f"In 7 of 7 frames with its weights adapted to one patient (adaptation {'0f' * 16})." in said


def test_synthetic_objects_say_so_and_hold_nothing_of_a_patient(objects: dict[str, Path]) -> None:
    live, synthetic, attention = (pydicom.dcmread(path) for path in objects.values())
    assert live.SyntheticData == "NO"
    assert list(live.ImageType) == ["ORIGINAL", "PRIMARY"]
    for derived in (synthetic, attention):
        assert derived.SyntheticData == "YES"
        assert list(derived.ImageType) == ["DERIVED", "SECONDARY"]
        assert "ab" * 32 in derived.DerivationDescription
        assert "not this patient's" in derived.DerivationDescription
        assert derived.StudyInstanceUID == live.StudyInstanceUID
        assert derived.SeriesInstanceUID != live.SeriesInstanceUID
    for each in (live, synthetic, attention):
        assert each.ContentQualification == "RESEARCH"
        assert each.PatientName == ""
        assert each.PatientID == "RESEARCH"
    assert (live.BitsAllocated, live.BitsStored, live.HighBit) == (16, 12, 11)
    assert (float(live.WindowCenter), float(live.WindowWidth)) == (2000.0, 3000.0)


@pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="dciodvfy is not installed: Debian's dicom3tools"
)
@pytest.mark.parametrize(
    "frame_format",
    [
        pytest.param(FrameFormat(96, 128, 12, window_center=2000.0, window_width=3000.0), id="12 bits"),
        pytest.param(FrameFormat(65, 67), id="8 bits, odd"),
        pytest.param(FrameFormat(64, 64, 16, Photometric.MONOCHROME1), id="16 bits, inverted"),
    ],
)
def test_dciodvfy_finds_no_fault(captured: Captured, tmp_path: Path, frame_format: FrameFormat) -> None:
    spacing = Spacing(0.3, 0.2, SpacingPlace.ISOCENTRE)
    convert(captured(frame_format=frame_format, spacing=spacing), tmp_path / "v.dcm")
    for path in sorted(tmp_path.glob("v*.dcm")):
        done = subprocess.run(["dciodvfy", "-new", str(path)], capture_output=True, text=True, timeout=60)
        errors = [line for line in done.stderr.splitlines() if line.startswith("Error")]
        # Debian's dicom3tools are older than Synthetic Data (0008,001C), which DICOM got in 2023.
        assert [line for line in errors if "(0008,001c)" not in line.lower()] == [], path.name
        assert "SCImage" in done.stderr, done.stderr


def test_our_own_replay_plays_the_recording_at_its_times(
    objects: dict[str, Path], captured: Captured
) -> None:
    source = CineSource(objects["live"], SourceOptions())
    assert source.frame_count == 8
    out = np.empty((96, 128), "<u2")
    for index, frame in enumerate(Capture(captured(name="again.capture"))):
        assert source.read(out) is not None
        np.testing.assert_array_equal(out, frame.message.live)
        if index:
            assert source.interval_ms(index) == (200.0 if index == 5 else 50.0)
    assert source.format.window_center == 2000.0
    source.close()


@pytest.mark.parametrize(
    ("place", "said"),
    [
        pytest.param(SpacingPlace.ISOCENTRE, ("PixelSpacing", "GEOMETRY"), id="isocentre"),
        pytest.param(SpacingPlace.OBJECT, ("PixelSpacing", "FIDUCIAL"), id="measured"),
        pytest.param(SpacingPlace.DETECTOR, ("ImagerPixelSpacing", None), id="detector"),
    ],
)
def test_a_pixel_s_size_keeps_the_place_where_it_holds(
    captured: Captured, tmp_path: Path, place: SpacingPlace, said: tuple[str, str | None]
) -> None:
    convert(captured(spacing=Spacing(0.3, 0.2, place)), tmp_path / "p.dcm")
    made = pydicom.dcmread(tmp_path / "p.dcm")
    assert [float(value) for value in made[said[0]].value] == [0.3, 0.2]
    assert made.get("PixelSpacingCalibrationType") == said[1]


def test_monochrome1_is_turned_and_says_monochrome2(captured: Captured, tmp_path: Path) -> None:
    inverted = FrameFormat(64, 64, 12, Photometric.MONOCHROME1, 1000.0, 500.0)
    path = captured(frame_format=inverted)
    convert(path, tmp_path / "m.dcm")
    made = pydicom.dcmread(tmp_path / "m.dcm")
    np.testing.assert_array_equal(made.pixel_array, [4095 - frame.message.live for frame in Capture(path)])
    assert made.PhotometricInterpretation == "MONOCHROME2"
    assert float(made.WindowCenter) == 3096.0  # 4095 - 1000 + 1: exactly the same grey levels


def test_too_many_pixels_for_one_object_are_refused_before_they_are_written(
    captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom, "MAX_PIXEL_BYTES", 100_000)
    path = captured()
    with pytest.raises(RecordError, match=r"less than 4 GiB of pixels"):
        convert(path, tmp_path / "b.dcm")
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.capture"]


@pytest.mark.parametrize("ending", [".dcm", ".mp4", ".npz"])
def test_a_disk_that_is_full_while_files_are_made_leaves_none_of_them_and_says_how_to_go_on(
    captured: Captured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    """The last thing that is written does not fit: the attention of the DICOM objects, the JSON beside the others."""
    path = captured()
    replace = os.replace

    def full(partial: Any, out: Any) -> None:
        if "attention" in str(out) or str(out).endswith(".json"):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        replace(partial, out)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        RecordError, match=r"No space left on device; .* with: contrastream record .*a\.capture OUT"
    ):
        convert(path, tmp_path / f"d{ending}")
    assert [each.name for each in tmp_path.iterdir()] == ["a.capture"]


def test_the_film_keeps_time_and_dims_what_is_missing(captured: Captured, tmp_path: Path) -> None:
    convert(captured(), tmp_path / "f.mp4")
    film = cv2.VideoCapture(str(tmp_path / "f.mp4"))
    assert film.get(cv2.CAP_PROP_FPS) == 20.0
    pictures = []
    while (read := film.read())[0]:
        pictures.append(read[1])
    # 500 ms from first to last at 20 per second, the gap of 200 ms held by three pictures.
    assert len(pictures) == 11
    live = pictures[0][60:140, :200].mean()
    assert pictures[6][60:140, :200].mean() < 0.8 * live, "a held picture is dimmed"


def test_the_arrays_hold_everything(captured: Captured, tmp_path: Path) -> None:
    path = captured()
    convert(path, tmp_path / "n.npz")
    frames = list(Capture(path))
    with np.load(tmp_path / "n.npz") as stored:
        np.testing.assert_array_equal(stored["live"], [frame.message.live for frame in frames])
        np.testing.assert_array_equal(stored["synthetic_frame"], [0, 1, 3, 4, 5, 6, 7])
        np.testing.assert_array_equal(stored["synthetic"][2], frames[3].message.synthetic)
        np.testing.assert_array_equal(stored["attention"][2], frames[3].message.attention)
        np.testing.assert_array_equal(stored["stamps_ns"][:, 5], [frame.received_ns for frame in frames])
        np.testing.assert_array_equal(stored["state"], [1, 1, 2, 1, 1, 1, 1, 1])
        about: dict[str, Any] = json.loads(str(stored["about"]))
    assert [engine["model_sha256"] for engine in about["engines"]] == ["ab" * 32]
    assert "synthetic" in about["notice"]
    said = json.loads((tmp_path / "n.json").read_text())
    assert said["files"] == ["n.npz"]
    assert [frame["state"] for frame in said["frame"]][:3] == ["SYNTHETIC", "SYNTHETIC", "PASSTHROUGH"]
    assert said["frame"][5]["time_ms"] == 400.0


def test_a_cut_off_capture_makes_what_is_whole_and_says_so(
    captured: Captured, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = captured()
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"DONE") - 100])
    convert(path, tmp_path / "c.dcm")
    assert "the recording was cut off" in capsys.readouterr().err
    assert pydicom.dcmread(tmp_path / "c.dcm").NumberOfFrames == 7
    assert json.loads((tmp_path / "c.json").read_text())["cut_off"]


def test_two_sizes_make_two_sets(captured: Captured, tmp_path: Path) -> None:
    path = captured(3)
    other = captured(3, "b.capture", frame_format=FrameFormat(64, 64))
    data = other.read_bytes()
    begun = path.read_bytes()
    path.write_bytes(begun[: begun.rindex(b"DONE")] + data[data.index(b"FRME") :])
    convert(path, tmp_path / "t.dcm")
    assert len(segments(Capture(path))) == 2
    assert pydicom.dcmread(tmp_path / "t.dcm").Rows == 96
    assert pydicom.dcmread(tmp_path / "t-2.dcm").Rows == 64
