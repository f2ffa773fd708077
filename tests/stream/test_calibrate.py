"""`contrastream calib` as a user meets it."""

import dataclasses
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Phantom
from calib.record import SCHEMA, ModelIdentity, SiteRecord, SourceIdentity, read_record
from contrastream import main
from stream.calibration_page import page

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _no_handler(monkeypatch: pytest.MonkeyPatch) -> None:
    """A log handler of the command's own would outlive the test; and nobody needs many timings here."""
    monkeypatch.setattr("stream.calibrate.log_to_stderr", lambda: None)
    monkeypatch.setattr("calib.precision.MIN_TIMINGS", 4)


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs a command; its status, what it printed and what it complained of."""

    def run(*arguments: str) -> tuple[int, str, str]:
        try:
            status = main(arguments)
        except SystemExit as ended:  # tyro's, for settings out of range
            status = int(str(ended.code))
        out, err = capsys.readouterr()
        return status, out, " ".join(err.replace("│", " ").split())

    return run


Said = Callable[..., tuple[int, str, str]]


def folder(path: Path, frames: np.ndarray) -> str:
    """A folder of frames."""
    path.mkdir()
    for number, frame in enumerate(frames):
        cv2.imwrite(str(path / f"frame_{number:03}.png"), frame)
    return str(path)


@functools.cache
def rendered() -> np.ndarray:
    """(12, 192, 192) uint8 of a phantom patient without contrast."""
    phantom = Phantom(PhantomConfig(seed=3, rows=192, columns=192, collimated=False))
    return np.stack([phantom.frame(index).plain for index in range(12)])


def chest(count: int, shift_px: int = 0, side: int = 128) -> np.ndarray:
    """(count, side, side) uint8: a patient's chest that the table moves by so many pixels a frame."""
    lefts = [8 + shift_px * number for number in range(count)]
    return np.stack(
        [frame[32 : 32 + side, left : left + side] for frame, left in zip(rendered(), lefts, strict=False)]
    )


@pytest.fixture
def loop(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder of ten frames without contrast."""
    return folder(tmp_path_factory.mktemp("loop") / "frames", chest(10))


def test_a_run_leaves_a_record_with_figures_plots_and_one_page_beside_it(
    said: Said, loop: str, tmp_path: Path
) -> None:
    out = tmp_path / "site.toml"
    status, printed, complained = said("calib", "run", loop, "--out", str(out), "--engine", "openvino")
    assert (status, complained) == (0, ""), (printed, complained)
    record = read_record(out)
    assert (record.source.kind, record.source.rows) == ("folder", 128)
    names = {path.name for path in tmp_path.iterdir()}
    plots = {f"site-{name}.png" for name in (*record.steps, "precision-worst")}
    assert {"site.toml", "site.json", "site.html"} <= names
    assert names <= {"site.toml", "site.json", "site.html"} | plots
    for plot in names & plots:
        assert cv2.imread(str(tmp_path / plot)) is not None
    for name in record.steps:
        assert name in printed
    report = json.loads((tmp_path / "site.json").read_text())
    assert report["schema"] == "contrastream.calibration/1"
    assert set(record.steps) <= set(report["record"])
    page = (tmp_path / "site.html").read_text()
    assert "not a medical device" in page
    assert "<a href='site-precision-worst.png'>" in page
    assert page.count("data:image/png;base64") == len(record.steps)  # the worst frame is no part of it
    assert "http" not in page.replace("https://download.pytorch.org/whl", "")  # nothing is loaded
    status, shown, _ = said("calib", "show", str(out))
    assert status == 0
    assert record.model.sha256[:12] in shown
    again, _, why = said("calib", "run", loop, "--out", str(out))
    assert again == 2
    assert "is there already" in why


def test_a_single_step_changes_its_part_of_a_record_alone(said: Said, loop: str, tmp_path: Path) -> None:
    out = tmp_path / "site.toml"
    assert said("calib", "intensity", loop, "--out", str(out))[0] == 0
    first = read_record(out)
    assert list(first.steps) == ["intensity"]
    assert said("calib", "precision", loop, "--out", str(out), "--engine", "openvino")[0] == 0
    second = read_record(out)
    assert list(second.steps) == ["intensity", "precision"]
    assert second.intensity == first.intensity
    page = (tmp_path / "site.html").read_text()
    assert page.count("data:image/png;base64") == 2  # the former step's plot is kept


def test_the_worst_frame_is_shown_where_it_was_asked_for_and_a_former_one_never_stays(
    said: Said, loop: str, tmp_path: Path
) -> None:
    out, worst = tmp_path / "site.toml", tmp_path / "site-precision-worst.png"
    precision = ("calib", "precision", loop, "--out", str(out), "--engine", "openvino")
    status, printed, _ = said(*precision)
    assert status == 0
    assert "which may show a frame of this site: keep it as you keep the frames" in printed
    first = cv2.imread(str(worst))
    assert first is not None
    assert said("calib", "intensity", loop, "--out", str(out))[0] == 0
    assert worst.exists()  # it is of the precision step, which was not taken again
    assert worst.name in (tmp_path / "site.html").read_text()
    status, printed, _ = said(*precision, "--no-worst-frame")
    assert status == 0
    assert not worst.exists()
    assert worst.name not in printed + (tmp_path / "site.html").read_text()


def test_a_step_that_was_not_measured_stands_in_the_pages_table_with_its_reason() -> None:
    record = SiteRecord(
        SCHEMA,
        "",
        "0.1.0",
        SourceIdentity("cine", 512, 512, 8, "MONOCHROME2"),
        ModelIdentity("compact", "ab" * 32),
    )
    shown = page(record, "a site", {}, {"not_measured": {"intensity": "only filled frames <here>"}})
    table, rest = shown.split("</table>")
    assert "<a href='#intensity'>intensity</a>" in table
    assert "NOT MEASURED" in table
    assert "<h2 id=intensity>" in rest
    assert "only filled frames &lt;here&gt;" in rest


def gridded(count: int = 9, pitch_px: float = 24.3, side: int = 320, slide_px: int = 0) -> np.ndarray:
    """Frames of a lead grid before a bright collimated field."""
    fine = np.full((4 * side, 4 * side), 170.0, np.float32)
    for at in np.arange(15.0, side, pitch_px):
        fine[round(4 * at) : round(4 * (at + 2))] *= 0.5
        fine[:, round(4 * at) : round(4 * (at + 2))] *= 0.5
    grid = cv2.resize(cv2.GaussianBlur(fine, (0, 0), 3), (side, side), interpolation=cv2.INTER_AREA)
    rng = np.random.default_rng(0)
    frames = []
    for number in range(count):
        frame = np.roll(grid, number * slide_px, axis=1)
        frame[:12], frame[-12:], frame[:, :12], frame[:, -12:] = 8.0, 8.0, 8.0, 8.0
        frames.append(np.clip(frame + rng.normal(0, 3, frame.shape), 0, 255).astype(np.uint8))
    return np.stack(frames)


def test_a_pixels_size_is_measured_on_a_grid_into_a_record(said: Said, tmp_path: Path) -> None:
    shows_grid = folder(tmp_path / "grid", gridded())
    out = tmp_path / "site.toml"
    status, printed, complained = said(
        "calib", "geometry", shows_grid, "--grid-mm", "10", "--phantom-at", "isocentre", "--out", str(out)
    )
    assert (status, complained) == (0, "")
    assert "at the isocentre, measured on a grid of 10 mm" in " ".join(printed.split())
    measured = read_record(out).geometry
    assert measured is not None
    assert measured.spacing is not None
    assert measured.spacing.row_mm == pytest.approx(10 / 24.3, rel=0.005)
    assert measured.spacing.column_mm == pytest.approx(10 / 24.3, rel=0.005)
    assert (measured.spacing.at, measured.spacing.source) == ("isocentre", "a grid of 10 mm")
    assert 0.0 < measured.spacing.uncertainty < 0.01


def test_a_record_keeps_its_field_when_a_grid_gives_the_pixels_size(said: Said, tmp_path: Path) -> None:
    patient = folder(tmp_path / "patient", np.pad(chest(10), ((0, 0), (96, 96), (96, 96)), constant_values=4))
    shows_grid = folder(tmp_path / "grid", gridded())
    out = tmp_path / "site.toml"
    assert said("calib", "geometry", patient, "--out", str(out))[0] == 0
    before = read_record(out).geometry
    assert before is not None
    assert before.spacing is None
    for pitch, size in (("10", 10 / 24.3), ("12", 12 / 24.3)):
        assert said("calib", "geometry", shows_grid, "--grid-mm", pitch, "--out", str(out))[0] == 0
        after = read_record(out).geometry
        assert after is not None
        assert after.spacing is not None
        assert after.spacing.row_mm == pytest.approx(size, rel=0.005)
        assert dataclasses.replace(after, spacing=None, spacing_says=(), says=()) == dataclasses.replace(
            before, spacing=None, spacing_says=(), says=()
        )
        assert sum("pixel" in sentence for sentence in after.says) == 1  # what was said before is gone


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--grid-mm", "10", "--wedge-mm", "8"), "needed one of --grid-mm and --wedge-mm, got both"),
        (("--grid-mm", "0"), "--grid-mm must be 0.1 to 200 mm, got 0.0"),
        (("--phantom-box", "1,2,100,100"), "need --grid-mm or --wedge-mm, got neither"),
        (
            ("--grid-mm", "10", "--phantom-box", "1,2,3"),
            "--phantom-box must be x,y,w,h in pixels, got '1,2,3'",
        ),
        (("--grid-mm", "10", "--phantom-box", "0,0,20,20"), "w and h of 64 pixels or more, got 0,0,20,20"),
    ],
)
def test_a_grid_that_makes_no_sense_is_refused_before_the_work(
    said: Said, arguments: tuple[str, ...], sentence: str
) -> None:
    status, printed, complained = said("calib", "geometry", "/nowhere.dcm", *arguments)
    assert (status, printed) == (2, "")
    assert sentence in complained


def test_frames_without_a_grid_or_with_one_that_moves_give_no_size(said: Said, tmp_path: Path) -> None:
    out = tmp_path / "site.toml"
    patient = folder(tmp_path / "patient", rendered()[:9])
    moving = folder(tmp_path / "moving", gridded(slide_px=2))
    still = folder(tmp_path / "still", gridded())
    for source, more, sentence in (
        (patient, (), "got none that repeat through the whole part; lay the phantom along"),
        (moving, (), "needed a grid or wedge that lies still, got frames that shift by"),
        (still, ("--phantom-box", "200,200,200,200"), "must lie inside the frames of 320 columns x 320 rows"),
    ):
        status, printed, complained = said(
            "calib", "geometry", source, "--grid-mm", "10", "--out", str(out), *more
        )
        assert (status, printed) == (2, "")
        assert sentence in complained
        assert not out.exists()


def test_a_step_on_another_source_or_model_does_not_touch_the_record(
    said: Said, loop: str, tmp_path: Path
) -> None:
    out = tmp_path / "site.toml"
    assert said("calib", "intensity", loop, "--out", str(out))[0] == 0
    before = out.read_bytes()
    other = folder(tmp_path / "other", chest(10, side=96))
    status, printed, complained = said("calib", "intensity", other, "--out", str(out))
    assert (status, printed) == (2, "")
    assert "another source: needed frames of 128 x 128, got 96 x 96" in complained
    status, printed, complained = said("calib", "intensity", loop, "--out", str(out), "--model", "compact-s")
    assert (status, printed) == (2, "")
    assert "another model: needed model compact" in complained
    assert out.read_bytes() == before


@pytest.mark.parametrize(
    ("frames", "sentence"),
    [
        pytest.param(chest(1), "needed at least 2 frames, got 1", id="one frame"),
        pytest.param(chest(3), "the grey levels need 4 frames or more, got 3; record a longer loop", id="too few"),
        pytest.param(np.full((8, 128, 128), 90, np.uint8), "frames must show something, but values differ by less", id="constant"),
        pytest.param(np.full((8, 128, 128), 255, np.uint8), "more than half of the field must lie between 0 and 255", id="saturated"),
        pytest.param(chest(12, shift_px=5), "the table", id="moving table"),
    ],
)  # fmt: skip
def test_frames_on_which_nothing_can_be_measured_are_refused_in_a_sentence(
    said: Said, tmp_path: Path, frames: np.ndarray, sentence: str
) -> None:
    out = tmp_path / "site.toml"
    status, printed, complained = said(
        "calib", "intensity", folder(tmp_path / "frames", frames), "--out", str(out)
    )
    assert (status, printed) == (2, "")
    assert sentence in complained
    assert complained.startswith("contrastream: ")
    assert [path.name for path in tmp_path.iterdir()] == ["frames"]


def test_frames_that_are_all_filled_are_refused_and_counted(said: Said, tmp_path: Path) -> None:
    out = tmp_path / "site.toml"
    status, printed, complained = said(
        "calib",
        "intensity",
        "phantom",
        "--size",
        "128",
        "--frames",
        "10",
        "--seconds",
        "2",
        "--contrast",
        "--out",
        str(out),
    )
    assert (status, printed) == (2, "")
    assert "look filled with contrast medium" in complained
    assert "or give --contrast-free where you know that there is none" in complained
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--out", "/nowhere/site.toml"), "--out needs an existing folder, got /nowhere; make it first"),
        (("--out", "site.json"), "--out must end in .toml, got site.json"),
        (("--frames", "1"), "--frames must be 2 to 2000, got 1"),
        (("--seconds", "0"), "--seconds must be 0.1 to 3600 s, got 0"),
        (("--threads", "0"), "--threads must be 1 or more, got 0"),
    ],
)
def test_settings_out_of_range_are_found_before_the_work(
    said: Said, arguments: tuple[str, ...], sentence: str
) -> None:
    status, printed, complained = said("calib", "run", "/nowhere.dcm", *arguments)
    assert (status, printed) == (2, "")
    assert sentence in complained


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written_is_found_before_the_work(said: Said, tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    status, printed, complained = said("calib", "run", "/nowhere.dcm", "--out", str(tmp_path / "site.toml"))
    assert (status, printed) == (2, "")
    assert "--out needs a file that can be written" in complained


def test_a_record_that_was_edited_is_shown_with_key_and_line(said: Said, loop: str, tmp_path: Path) -> None:
    out = tmp_path / "site.toml"
    assert said("calib", "intensity", loop, "--out", str(out))[0] == 0
    text = out.read_text().replace("inverted = false", "inverted = 0")
    line = text.splitlines().index("inverted = 0") + 1
    out.write_text(text)
    status, printed, complained = said("calib", "show", str(out))
    assert (status, printed) == (2, "")
    assert f"site.toml, line {line}, key intensity.inverted: needed true or false, got 0" in complained
    status, _, complained = said("calib", "intensity", loop, "--out", str(out))
    assert status == 2
    assert f"line {line}" in complained
    assert out.read_text() == text


def test_ctrl_c_leaves_nothing_behind(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "contrastream",
        "calib",
        "run",
        "phantom",
        "--out",
        str(tmp_path / "site.toml"),
    ]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    over = time.monotonic() + 60.0
    while (
        not Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text() and time.monotonic() < over
    ):
        time.sleep(0.05)  # until it reads frames
    running.send_signal(signal.SIGINT)
    printed, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "Traceback" not in printed
    assert not list(tmp_path.iterdir())


def test_the_phantom_tests_itself_without_a_source(said: Said) -> None:
    status, printed, complained = said("calib", "phantom")
    assert (status, complained) == (0, "")
    assert "the digital phantom's own self-test" in printed
    assert "pass" in printed
    status, printed, complained = said("calib", "phantom", "--out", "/nowhere/site.toml")
    assert (status, printed) == (2, "")
    assert "--out needs an existing folder" in complained
    status, printed, complained = said("calib", "phantom", "--dose", "0")
    assert (status, printed) == (2, "")
    assert "dose" in complained


def test_a_domain_needs_three_loops(said: Said, loop: str, tmp_path: Path) -> None:
    status, printed, complained = said("calib", "domain", loop, "--out", str(tmp_path / "site.toml"))
    assert (status, printed) == (2, "")
    assert "needs 59 frames or more, got 10; give more loops" in complained
    assert not list(tmp_path.iterdir())


def test_a_domain_needs_a_model_with_statistics_and_says_how_to_get_them(
    said: Said, loop: str, tmp_path: Path
) -> None:
    shipped = ROOT / "engines" / "models" / "compact.onnx"
    model = tmp_path / "other.onnx"
    model.write_bytes(shipped.read_bytes())
    card = json.loads(shipped.with_suffix(".json").read_text())
    del card["domain"]
    model.with_suffix(".json").write_text(json.dumps(card))
    out = tmp_path / "site.toml"
    status, printed, complained = said(
        "calib", "domain", loop, "--out", str(out), "--model", str(model), "--engine", "openvino"
    )
    assert (status, printed) == (2, "")
    assert f"other.onnx without them; run: python -m engines.taught_domain {model}" in complained
    assert not out.exists()


def test_a_clock_that_nobody_answers_for_is_said(said: Said, tmp_path: Path) -> None:
    status, printed, complained = said(
        "calib", "clock", f"ipc://{tmp_path}/none", "--exchanges", "8", "--interval-ms", "5"
    )
    assert (status, printed) == (2, "")
    assert complained.startswith("contrastream: ")
