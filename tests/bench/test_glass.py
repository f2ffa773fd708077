"""`bench glass` as a user runs it: real pixels of a real X server, a real window, a real browser, and recorded videos."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bench.config import GlassConfig
from bench.glass_watch import TargetWatch
from calib.target import TargetCode, draw_target

ROOT = Path(__file__).resolve().parents[2]
DELAY_MS = 100.0
RATE_HZ = 8.0


@pytest.fixture(scope="module")
def display() -> Iterator[str]:
    """The name of a virtual X display."""
    if shutil.which("Xvfb") is None:
        pytest.skip("needs Xvfb; install the xvfb package")
    pytest.importorskip("mss", reason="needs mss; run: pip install -e '.[glass]'")
    reader, writer = os.pipe()
    child = subprocess.Popen(
        f"Xvfb -displayfd {writer} -screen 0 1280x800x24 -nolisten tcp -noreset".split(),
        pass_fds=[writer],
        stderr=subprocess.DEVNULL,
    )
    os.close(writer)
    with os.fdopen(reader) as numbers:
        yield f":{numbers.readline().strip()}"
    child.terminate()
    child.wait(10)


def start(*arguments: str, **environment: str) -> "subprocess.Popen[str]":
    """`contrastream bench glass` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "contrastream", "bench", "glass", *arguments],
        cwd=ROOT,
        env={**os.environ, "WAYLAND_DISPLAY": "", "DISPLAY": "", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def measure(out: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """The report of a run to its end."""
    process = start(*arguments, "--out", str(out), **environment)
    printed, said = process.communicate(timeout=110)
    assert process.returncode == 0, said
    assert "not a medical device" in printed
    report: dict[str, Any] = json.loads(out.read_text())
    assert report["complete"] is True
    return report


SLOWLY = ("screen", "--rate", f"{RATE_HZ:g}", "--frames", "16", "--size", "432")


@pytest.mark.display
@pytest.mark.slow
def test_a_client_that_shows_100_ms_later_is_seen_100_ms_later(display: str, tmp_path: Path) -> None:
    found = {}
    for delay_ms in (0.0, DELAY_MS):
        runner = (
            "import sys, bench.glass_display, contrastream; bench.glass_display.WINDOW_MODULE = 'late_window'; "
            "sys.exit(contrastream.main())"
        )
        out = tmp_path / f"late-{delay_ms:g}.json"
        done = subprocess.run(
            [sys.executable, "-c", runner, "bench", "glass", *SLOWLY, "--out", str(out)],
            cwd=ROOT,
            env={
                **os.environ,
                "DISPLAY": display,
                "DELAY_MS": f"{delay_ms:g}",
                "PYTHONPATH": f"{ROOT}:{Path(__file__).parent}",
            },
            capture_output=True,
            text=True,
            timeout=55,
        )
        assert done.returncode == 0, done.stderr
        found[delay_ms] = json.loads(out.read_text())
    early, late = found[0.0], found[DELAY_MS]
    for report in (early, late):
        assert report["codes"]["seen"] >= 12, report["codes"]
        assert report["at_least_ms"]["p50"] <= report["seen_ms"]["p50"]
        assert report["seen_ms"]["p99"] is None
    more = {name: late[name]["p50"] - early[name]["p50"] for name in ("seen_ms", "display_ms", "latency_ms")}
    # It shows in what was seen, as a part of the display, and not in what another client received.
    assert more["seen_ms"] > 0.8 * DELAY_MS
    assert more["display_ms"] > 0.8 * DELAY_MS
    assert more["latency_ms"] < 0.5 * DELAY_MS
    assert late["at_least_ms"]["p50"] > 0.8 * DELAY_MS


@pytest.mark.display
@pytest.mark.slow
def test_the_desktop_window_is_seen_with_everything_that_a_report_has(display: str, tmp_path: Path) -> None:
    out = tmp_path / "glass.json"
    report = measure(out, *SLOWLY, DISPLAY=display)
    assert {path.suffix for path in tmp_path.iterdir()} == {".json", ".md", ".html", ".npz"}
    assert report["camera"]["kind"] == "screen"
    assert "light of the panel" in report["camera"]["not_in_it"]
    assert report["display"]["kind"] == "window"
    codes = report["codes"]
    assert codes["due"] == 16 == codes["seen"] + codes["never_seen"]
    assert report["seen_ms"]["n"] == codes["seen"] > 0
    assert report["seen_ms"]["min"] > 0
    assert report["latency_ms"]["n"] <= codes["seen"]
    with np.load(tmp_path / "glass.npz") as kept:
        assert kept["0:seen_ms"].size == codes["seen"]
    page = out.with_suffix(".html").read_text()
    assert "Due to seen through the run" in page
    assert "light of the panel" in out.with_suffix(".md").read_text()


@pytest.mark.browser
@pytest.mark.display
@pytest.mark.slow
def test_the_web_viewer_is_seen_in_a_real_browser(display: str, tmp_path: Path) -> None:
    if shutil.which("chromium") is None:
        pytest.skip("needs Chromium; install the chromium package")
    report = measure(tmp_path / "web.json", *SLOWLY, "--display", "web", DISPLAY=display)
    assert "Chrom" in report["display"]["name"]
    assert report["codes"]["seen"] > 8, report["codes"]
    assert report["display_ms"]["p50"] > 0


@pytest.mark.display
@pytest.mark.slow
def test_ctrl_c_gives_a_report_marked_incomplete(display: str, tmp_path: Path) -> None:
    out = tmp_path / "glass.json"
    process = start("screen", "--rate", "20", "--size", "432", "--out", str(out), DISPLAY=display)
    assert process.stderr is not None
    for line in process.stderr:
        if "the target is seen" in line:
            break
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert json.loads(out.read_text())["complete"] is False
    assert printed.startswith("INCOMPLETE")


def video(path: Path, *, latency_ms: float | None, pictures: int = 90, narrow: bool = False) -> Path:
    """A film at 25 per second of the original beside a copy that is so much later; the copy alone for None."""
    columns = 90 if narrow else 360
    film = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (960, 320))
    assert film.isOpened()
    period_ms = 1000.0 / 30.0

    def shown(at_ms: float) -> np.ndarray:
        number = int(at_ms // period_ms)
        return draw_target(TargetCode.of(1000 + number, round(number * period_ms * 1e6)), 432)

    for picture in range(pictures):
        scene = np.full((320, 960), 120, np.uint8)
        # At the beginning of a picture as the next: 40 ms and 33.3 ms meet at every place of a period.
        for left, late_ms in ((40, 0.0), (520, latency_ms)):
            if late_ms is not None:
                target = cv2.resize(
                    shown(1000.0 + 40.0 * picture + 1.7 - late_ms),
                    (columns, columns * 20 // 36),
                    interpolation=cv2.INTER_AREA,
                )
                scene[60 : 60 + target.shape[0], left : left + columns] = target
        film.write(cv2.cvtColor(scene, cv2.COLOR_GRAY2BGR))
    film.release()
    return path


def test_a_film_of_original_and_copy_gives_a_latency_without_a_clock(tmp_path: Path) -> None:
    film = video(tmp_path / "film.avi", latency_ms=112.0)
    report = measure(tmp_path / "film.json", str(film))
    assert report["codes"] == {"captures": 90, "both_read": 90, "refused": 0}
    assert report["difference_period_ms"] == pytest.approx(1000.0 / 30.0, abs=0.01)
    assert report["difference_ms"]["mean"] == pytest.approx(112.0, abs=6.0)
    assert report["workload"]["rate_hz"] == pytest.approx(30.0, abs=0.01)
    assert "seen_ms" not in report


def test_an_answer_that_nobody_heard_does_not_stand_for_the_next_one(tmp_path: Path) -> None:
    """Ctrl-C may come between a question to the camera's process and its answer."""
    watch = TargetWatch(str(video(tmp_path / "film.avi", latency_ms=50.0, pictures=6)))
    try:
        watch._worker.tell("status")
        while not watch.status()["ended"]:
            pass
        assert watch.finish(tmp_path / "captures.npz").stamp_ns.size == 6
    finally:
        watch.close()


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        pytest.param({"latency_ms": None}, "needs the original beside the viewer's copy, got one target alone", id="one"),
        pytest.param(
            {"latency_ms": 50.0, "narrow": True}, "3 pixels wide or more, so the target 108, got a cell of 2.5", id="too small"
        ),
    ],
)  # fmt: skip
def test_a_film_that_tells_nothing_says_why(tmp_path: Path, shown: dict[str, Any], said: str) -> None:
    process = start(str(video(tmp_path / "film.avi", pictures=8, **shown)))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    last = errors.strip().splitlines()[-1]
    assert last.startswith("contrastream: ")
    assert said in last


def test_a_film_without_a_target_says_so(tmp_path: Path) -> None:
    film = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 25.0, (320, 240))
    for grey in range(5):
        film.write(np.full((240, 320, 3), 40 * grey, np.uint8))
    film.release()
    process = start(str(tmp_path / "a.avi"))
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "needed a video that shows the target, got none in 5 pictures" in errors
    assert "terminate called" not in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("screen",), "the camera screen reads an X display, got no DISPLAY", id="no display"),
        pytest.param(("v4l2:99",), "/dev/video99: needed a capture device", id="no device"),
        pytest.param(("nothing.mp4",), "a camera is screen, v4l2:0 or a recorded video, got nothing.mp4", id="no file"),
        pytest.param((__file__,), "a recorded video is MP4, AVI", id="no video"),
    ],
)  # fmt: skip
def test_a_camera_that_is_not_there_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    process = start(*arguments)
    printed, errors = process.communicate(timeout=60)
    assert (process.returncode, printed) == (2, "")
    assert said in errors.strip().splitlines()[-1]


@pytest.mark.display
def test_a_camera_that_never_sees_the_target_says_so_in_time(display: str) -> None:
    process = start("screen", "--display", "none", "--within", "1", DISPLAY=display)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    last = errors.strip().splitlines()[-1]
    assert (
        "needed to see the target within 1 s, got: needed the target's 4 markers once each, found none"
        in last
    )
    assert "108 pixels wide or more" in last


@pytest.mark.display
def test_a_screen_that_no_longer_answers_is_one_sentence(display: str) -> None:
    process = start("screen", DISPLAY=":4711")
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 2
    assert "needs a display that answers, got DISPLAY=:4711" in errors.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param({"rate": 0.0}, "--rate must be above 0", id="rate"),
        pytest.param({"frames": 0}, "--frames must be 1 or more, got 0", id="frames"),
        pytest.param({"frames": 5, "seconds": 2.0}, "--seconds and --frames say the same", id="both"),
        pytest.param({"seconds": -1.0}, "--seconds must be above 0", id="seconds"),
        pytest.param({"size": 100}, "--size must be 216 to 2048 columns, got 100", id="size"),
        pytest.param({"within": 0.0}, "--within must be above 0 seconds", id="within"),
        pytest.param({"camera_rate": 0.0}, "--camera-rate must be above 0", id="camera rate"),
        pytest.param({"camera_size": (0, 480)}, "--camera-size must be columns and rows", id="camera size"),
        pytest.param({"threads": 0}, "--threads must be 1 or more", id="threads"),
        pytest.param({"out": Path("/nowhere/a.json")}, "--out needs an existing folder", id="no folder"),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        GlassConfig("screen", **setting)


def test_seconds_are_frames_at_the_rate() -> None:
    assert GlassConfig("screen", seconds=4.0, rate=15.0).total_frames == 60
    assert GlassConfig("screen").total_frames == 1050
