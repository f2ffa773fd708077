"""The benchmark through the command, as a user runs it. What it measures here is not judged."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.display.browser import find_chromium

SMALL = ("--rate", "60", "--warmup", "30", "--threads", "1")
Started = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture(scope="module")
def cine(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small loop as an XA cine, in which every frame differs."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, XRayAngiographicImageStorage, generate_uid

    frames = np.random.default_rng(3).integers(40, 200, (8, 64, 64)).astype(np.uint8)
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = XRayAngiographicImageStorage, generate_uid()
    data.Modality, data.NumberOfFrames, data.FrameTime = "XA", len(frames), 1000.0 / 30.0
    data.Rows, data.Columns = frames.shape[1:]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.PixelData = frames.tobytes()
    data.file_meta = FileMetaDataset()
    data.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    data.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = tmp_path_factory.mktemp("cine") / "loop.dcm"
    data.save_as(path, enforce_file_format=True)
    return str(path)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Started]:
    """Starts benchmarks on endpoints of their own and leaves none behind."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> "subprocess.Popen[str]":
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "contrastream", "bench", "live", *arguments],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "PYTHONUNBUFFERED": "1"},
            )
        )
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.slow
def test_a_whole_run_accounts_for_every_frame_and_reports_every_part(
    bench: Started, cine: str, tmp_path: Path
) -> None:
    out = tmp_path / "report.json"
    printed, said = bench(cine, *SMALL, "--frames", "60", "--out", str(out)).communicate(timeout=100)
    report = json.loads(out.read_text())
    assert report["complete"] is True, said
    frames = report["frames"]
    assert frames["due"] == 100, "30 to warm up, 60, and 10 that do not count at the end"
    assert frames["grabbed"] + sum(frames["dropped"].values()) == frames["due"]
    assert frames["received"] == frames["published"]
    assert frames["measured"] <= 60
    assert report["workload"]["rows"] == 64
    assert report["engine"]["serial_ms"]["before"]["n"] == 60
    assert report["engine"]["serial_ms"]["after"]["n"] == 60
    assert 0 < report["floor"]["floor_ms"]["n"] <= 30
    assert set(report["allocations"]) == {"guard", "source", "engine"}
    assert set(report["processes"]) == {"guard", "source", "engine"}
    assert report["latency_ms"]["p99"] is None
    assert report["witness_ms"] >= 0
    assert "end to end, due to received" in printed
    assert "not a medical device" in printed


@pytest.mark.slow
def test_a_run_without_an_engine_measures_the_path_alone(bench: Started, cine: str, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    _, said = bench(cine, *SMALL, "--engine", "off", "--frames", "20", "--out", str(out)).communicate(
        timeout=100
    )
    report = json.loads(out.read_text())
    assert report["complete"] is True, said
    assert report["frames"]["passthrough"] == {"off": report["frames"]["published"]}
    assert report["floor"]["floor_ms"]["n"] > 0
    assert set(report["floor"]["floor_stages_ms"]) == {"grab", "guard", "transport"}
    assert all(summary["min"] >= 0 for summary in report["floor"]["floor_stages_ms"].values())
    assert report["stages_ms"]["engine"]["n"] == 0
    judged = {row["name"]: row["met"] for row in report["targets"]}
    assert judged["everything but the engine, times the floor"] in (True, False)


@pytest.mark.slow
def test_ctrl_c_gives_a_report_marked_incomplete(bench: Started, cine: str, tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    process = bench(cine, *SMALL, "--frames", "5000", "--engine", "off", "--out", str(out))
    assert process.stderr is not None
    for line in process.stderr:
        if "PASSTHROUGH(off)" in line:  # frames flow
            break
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert json.loads(out.read_text())["complete"] is False
    assert printed.startswith("INCOMPLETE")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("/nowhere/loop.dcm",), "needed phantom", id="a source that is not there"),
        pytest.param(
            ("phantom", "--size", "64", "--model", "none"), "needed a model file", id="no such model"
        ),
        pytest.param(("v4l2:99",), "v4l2|video99", id="a device"),
    ],
)
def test_what_cannot_be_measured_ends_with_2_and_one_line(
    bench: Started, arguments: tuple[str, ...], said: str
) -> None:
    process = bench(*arguments)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    last = errors.strip().splitlines()[-1]
    assert last.startswith("contrastream: ")
    assert any(words in last for words in said.split("|"))


@pytest.mark.browser
@pytest.mark.slow
def test_a_run_with_a_browser_has_the_stage_shown(bench: Started, cine: str, tmp_path: Path) -> None:
    if find_chromium() is None:
        pytest.skip("needs Chromium; install the chromium package")
    out = tmp_path / "report.json"
    process = bench(
        cine,
        "--rate",
        "20",
        "--warmup",
        "30",
        "--engine",
        "off",
        "--frames",
        "60",
        "--shown",
        "--out",
        str(out),
    )
    printed, said = process.communicate(timeout=100)
    report = json.loads(out.read_text())
    assert report["complete"] is True, said
    stage, latency, shown = report["stages_ms"]["shown"], report["latency_shown_ms"], report["shown"]
    assert 30 < shown["drawn"] == stage["n"] == latency["n"] <= 60
    assert shown["exchanges"] > 8
    assert shown["uncertainty_ms"] > 0
    # A frame is due before the relay receives it.
    assert latency["mean"] > (stage["mean"] or 0.0)
    assert "Chrom" in shown["browser"]
    assert "due to shown by the web viewer" in printed
    assert "the page's clock is known within" in printed
    page = out.with_suffix(".html").read_text()
    assert "stage shown, received by the web viewer" in page
    assert "due to shown by the web viewer" in page
    with np.load(out.with_suffix(".npz")) as kept:
        assert kept["0:stages_ms/shown"].size == kept["0:latency_shown_ms"].size == shown["drawn"]


def test_a_browser_that_is_not_there_is_found_out_before_the_run(
    bench: Started, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    printed, errors = bench("phantom", "--shown").communicate(timeout=60)
    assert printed == ""
    assert errors == (
        "contrastream: --shown needs Chromium or Chrome, got none in PATH; install the chromium package, or measure without "
        "--shown\n"
    )
