"""`calib patient`: what it reads, and what it refuses before it writes anything."""

from pathlib import Path

import cv2
import numpy as np
import pytest

import contrastream
from calib.config import CalibPatientConfig
from calib.intensity import default_tables
from calib.patient_facts import levels_name
from calib.phantom import Phantom, PhantomConfig
from engines.model import load_model
from stream.patient_look import GraphLook
from stream.patient_recording import read_patient_recordings
from stream.sources.options import SourceOptions


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Frames of a phantom that nothing was injected in, wider than high."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    folder.mkdir()
    phantom = Phantom(PhantomConfig(seed=901, rows=96, columns=128, rate_hz=15.0))
    for index in range(12):
        cv2.imwrite(str(folder / f"frame_{index:03d}.png"), phantom.frame(index).live)
    return folder


def test_a_recording_comes_at_the_networks_size_in_both_grey_levels(plain_run: Path) -> None:
    look = GraphLook(load_model("compact-s"), None, 1)
    try:
        read = read_patient_recordings(
            (str(plain_run), str(plain_run)), SourceOptions(rate_hz=15.0), 64, look
        )
    finally:
        look.close()
    assert read.grey.shape == read.clear.shape == (24, 64, 64)
    assert read.rate_hz == 15.0
    first = cv2.imread(str(plain_run / "frame_000.png"), cv2.IMREAD_GRAYSCALE)
    small = cv2.resize(first, (64, 48), interpolation=cv2.INTER_AREA)
    assert np.abs(read.grey[0, 8:56].astype(int) - small).max() <= 1
    assert not read.field[:8].any()
    assert read.field.sum() > 1000
    assert read.features.shape == (24, 71)
    np.testing.assert_array_equal(read.features[:12], read.features[12:])
    assert read.levels_sha256 == levels_name(default_tables(8)[0])
    assert read.angles_deg is None


def test_a_run_without_contrast_medium_is_refused_and_nothing_is_written(
    plain_run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "patient.safetensors"
    status = contrastream.main(["calib", "patient", str(plain_run), "--rate", "15", "--out", str(out)])
    assert status == 2
    assert "needed a run with contrast medium, got one whose vessel area" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_the_settings_are_checked_before_anything_is_read(tmp_path: Path) -> None:
    there = tmp_path / "patient.safetensors"
    there.touch()
    with pytest.raises(ValueError, match="needed a RUN with one injection, got none"):
        CalibPatientConfig(())
    with pytest.raises(ValueError, match=r"--out must end in \.safetensors, got x\.toml"):
        CalibPatientConfig(("run.dcm",), out=tmp_path / "x.toml")
    with pytest.raises(ValueError, match=r"is there already; choose another, or replace it with --overwrite"):
        CalibPatientConfig(("run.dcm",), out=there)
    with pytest.raises(ValueError, match="needed recordings, got a source without an end"):
        CalibPatientConfig(("v4l2:0",), out=tmp_path / "new.safetensors")
