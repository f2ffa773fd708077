"""The command on a running stream: it ends as it is told to, and whatever ends it leaves what it had."""

import json
import os
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import zmq

import contrastream
from stream.config import RecordConfig
from stream.endpoint import parse_endpoint
from stream.errors import RecordError
from stream.record import recorder
from stream.record.capture import Capture
from stream.record.recorder import record
from stream.wire import MAGIC

PATIENCE_S = 30.0


class Process:
    """`contrastream record` in a process of its own."""

    def __init__(self, *arguments: str, before: Callable[[], None] | None = None) -> None:
        command = [sys.executable, "-m", "contrastream", "record", *arguments]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, preexec_fn=before)

    def end(self, number: int | None = None) -> tuple[int, str]:
        """Send a signal where one is given, and wait; exit status and what it said."""
        if number is not None:
            self.process.send_signal(number)
        _, said = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, said


@pytest.fixture
def recording() -> Iterator[Callable[..., Process]]:
    """Starts recorders and leaves none behind."""
    started: list[Process] = []

    def run(*arguments: str, **options: Any) -> Process:
        started.append(Process(*arguments, **options))
        return started[-1]

    yield run
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def wait_for_frames(capture: Path, bytes_at_least: int) -> None:
    over = time.monotonic() + PATIENCE_S
    while not capture.exists() or capture.stat().st_size < bytes_at_least:
        assert time.monotonic() < over, f"waited {PATIENCE_S} s for {capture.name}"
        time.sleep(0.02)


def test_a_recording_of_a_stream_has_its_pixels_numbers_and_times(
    start: Any,
    recording: Callable[..., Process],
    loop: Path,
    loop_frames: np.ndarray,
    endpoint: str,
    tmp_path: Path,
) -> None:
    out = tmp_path / "r.dcm"
    running = recording(endpoint, str(out), "--frames", "50")
    start("run", str(loop), "--loop", "--engine", "off", "--endpoint", endpoint)
    status, said = running.end()
    assert status == 0, said
    made = pydicom.dcmread(out)
    about = json.loads(out.with_suffix(".json").read_text())
    assert made.NumberOfFrames == 50
    assert about["lost"] == 0
    numbers = [frame["sequence"] for frame in about["frame"]]
    assert len(set(numbers)) == 50
    np.testing.assert_array_equal(made.pixel_array, loop_frames[np.array(numbers) % 40])
    # A source that a busy machine makes late passes frames over; their numbers and times stay true.
    np.testing.assert_allclose(
        np.cumsum(made.FrameTimeVector), (np.array(numbers) - numbers[0]) * 1000 / 30, atol=0.1
    )
    assert [frame["state"] for frame in about["frame"]] == ["PASSTHROUGH"] * 50
    assert made.SyntheticData == "NO"
    assert not out.with_name("r-synthetic.dcm").exists()
    assert not list(tmp_path.glob("*.capture"))
    assert b"LEAKED" not in out.read_bytes()


def test_ctrl_c_ends_it_with_its_files(
    start: Any, recording: Callable[..., Process], loop: Path, endpoint: str, tmp_path: Path
) -> None:
    start("run", str(loop), "--loop", "--engine", "off", "--endpoint", endpoint)
    running = recording(endpoint, str(tmp_path / "c.npz"), "--memory")
    wait_for_frames(tmp_path / "c.npz.capture", 10 * 65536)
    status, said = running.end(signal.SIGINT)
    assert status == 0, said
    assert "Traceback" not in said
    with np.load(tmp_path / "c.npz") as stored:
        assert len(stored["live"]) >= 10
    assert not list(tmp_path.glob("*.capture*"))


def test_the_end_of_the_stream_ends_it(
    start: Any, recording: Callable[..., Process], loop: Path, endpoint: str, tmp_path: Path
) -> None:
    running = recording(endpoint, str(tmp_path / "e.npz"))
    start("replay", str(loop), "--engine", "off", "--endpoint", endpoint)
    status, said = running.end()
    assert status == 0, said
    with np.load(tmp_path / "e.npz") as stored:
        assert 0 < len(stored["live"]) <= 40


def test_a_killed_recorder_leaves_a_capture_that_the_command_finishes(
    start: Any,
    recording: Callable[..., Process],
    loop: Path,
    loop_frames: np.ndarray,
    endpoint: str,
    tmp_path: Path,
) -> None:
    start("run", str(loop), "--loop", "--engine", "off", "--endpoint", endpoint)
    out = tmp_path / "k.dcm"
    capture = tmp_path / "k.dcm.capture"
    running = recording(endpoint, str(out))
    wait_for_frames(capture, 20 * 65536)
    running.end(signal.SIGKILL)
    left = Capture(capture)
    assert len(left) >= 20
    assert left.cut_off is not None
    assert not out.exists()
    again, said = recording(endpoint, str(out)).end()
    assert (again, "which an earlier recording left" in said) == (2, True)
    assert contrastream.main(["record", str(capture), str(out)]) == 0
    made = pydicom.dcmread(out)
    numbers = [frame["sequence"] for frame in json.loads(out.with_suffix(".json").read_text())["frame"]]
    np.testing.assert_array_equal(made.pixel_array, loop_frames[np.array(numbers) % 40])
    assert capture.exists(), "what is not the recorder's own to remove stays"


def test_a_full_disk_keeps_what_came_before(
    start: Any, recording: Callable[..., Process], loop: Path, endpoint: str, tmp_path: Path
) -> None:
    def little_room() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    running_stream = start("run", str(loop), "--loop", "--engine", "off", "--endpoint", endpoint)
    status, said = recording(endpoint, str(tmp_path / "f.dcm"), before=little_room).end()
    assert status == 2
    assert "MB more for f.dcm.capture, got: File too large" in said
    assert "Traceback" not in said
    capture = Capture(tmp_path / "f.dcm.capture")
    assert capture.cut_off is not None
    assert 10 <= len(capture) <= 15
    assert running_stream.process.poll() is None


def test_a_stopped_recorder_delays_nobody_and_counts_what_it_lost(
    start: Any, recording: Callable[..., Process], loop: Path, endpoint: str, tmp_path: Path, record: Any
) -> None:
    start("run", str(loop), "--loop", "--engine", "off", "--endpoint", endpoint)
    other = record(endpoint)
    running = recording(endpoint, str(tmp_path / "s.npz"), "--memory")
    wait_for_frames(tmp_path / "s.npz.capture", 5 * 65536)
    os.kill(running.process.pid, signal.SIGSTOP)
    before = len(other.of("frame"))
    time.sleep(2.0)  # longer than the ring's 16 frames at 30 per second
    assert len(other.of("frame")) - before > 30
    os.kill(running.process.pid, signal.SIGCONT)
    time.sleep(0.5)
    status, said = running.end(signal.SIGINT)
    assert status == 0, said
    about = json.loads((tmp_path / "s.json").read_text())
    with np.load(tmp_path / "s.npz") as stored:
        publications = stored["publication"]
    assert about["lost"] == int(np.diff(publications.astype(np.int64)).sum()) + 1 - len(publications)
    assert about["lost"] > 0


def test_ctrl_c_before_the_first_frame_leaves_nothing(
    recording: Callable[..., Process], endpoint: str, tmp_path: Path
) -> None:
    running = recording(endpoint, str(tmp_path / "w.dcm"))
    wait_for_frames(tmp_path / "w.dcm.capture", 1)
    status, said = running.end(signal.SIGINT)
    assert (status, said) == (0, "record: stopped before the first frame; nothing was recorded\n")
    assert not list(tmp_path.iterdir())


# What is refused --------------------------------------------------------------------------------------------------


def test_silence_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "FIRST_FRAME_S", 0.3)
    with pytest.raises(RecordError, match=r"needed a running stream at .*, got silence"):
        record(RecordConfig(endpoint, tmp_path / "n.dcm"))
    assert not list(tmp_path.iterdir())


def test_a_publisher_of_another_version_is_a_sentence_and_leaves_nothing(
    tmp_path: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recorder, "REFUSED_S", 0.0)
    over = threading.Event()
    with zmq.Context() as context, context.socket(zmq.PUB) as publisher:
        publisher.linger = 0
        publisher.bind(parse_endpoint(endpoint).frames)

        def send() -> None:
            while not over.wait(0.02):
                publisher.send(MAGIC + struct.pack("<H", 2) + bytes(182))

        sending = threading.Thread(target=send)
        sending.start()
        try:
            with pytest.raises(
                RecordError, match=r"needed a message of version 1.x, got 2; update the older side"
            ):
                record(RecordConfig(endpoint, tmp_path / "v.dcm"))
        finally:
            over.set()
            sending.join()
    assert not list(tmp_path.glob("v*"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(
            ["main", "{}/a.avi"], "needed a file that ends in .dcm, .mp4, .npz, got a.avi", id="ending"
        ),
        pytest.param(["main", "{}/no/a.dcm"], "needed a folder that can be written", id="folder"),
        pytest.param(["main", "{}/there.dcm"], "which exists; choose another name", id="there already"),
        pytest.param(["a/b", "{}/a.dcm"], "an endpoint is a name", id="endpoint"),
        pytest.param(
            ["tcp://127.0.0.1:5599", "{}/a.dcm", "--memory"], "needs a publisher on this host", id="memory"
        ),
    ],
)
def test_what_cannot_be_recorded_ends_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    (tmp_path / "there.dcm").write_text("")
    assert contrastream.main(["record", *(each.format(tmp_path) for each in arguments)]) == 2
    printed = capsys.readouterr().err
    assert said in printed
    assert printed.count("\n") == 1
    assert sorted(each.name for each in tmp_path.iterdir()) == ["there.dcm"]


@pytest.mark.parametrize("setting", [{"seconds": 0.0}, {"frames": 0}])
def test_a_setting_that_cannot_be_followed_is_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        RecordConfig("main", Path("a.dcm"), **setting)
