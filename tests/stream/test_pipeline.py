"""The promises of the live path, judged by what a client in another process received while frames flow at 30 fps."""

import json
import os
import signal
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytestmark = pytest.mark.timeout(120)

SYNTHETIC_PLANES = 7
LIVE_ONLY = 1
NS = 1_000_000_000


@pytest.fixture
def flowing(start: Any, record: Any, loop: Path, endpoint: str) -> Any:
    """A pipeline that draws, at 30 fps, and a client that hears it."""
    running = start("run", str(loop), "--loop", "--endpoint", endpoint)
    client = record(endpoint)
    client.wait_for(is_synthetic, what="the first synthetic frame")
    return running, client


def is_synthetic(line: dict[str, Any]) -> bool:
    return line["what"] == "frame" and line["state"] == "SYNTHETIC"


def is_passthrough(reason: str) -> Any:
    def found(line: dict[str, Any]) -> bool:
        return line["what"] == "frame" and line["state"] == "PASSTHROUGH" and line["reason"] == reason

    return found


def is_shown(state: str) -> Any:
    def found(line: dict[str, Any]) -> bool:
        return line["what"] == "shown" and line["state"] == state

    return found


def assert_whole(frames: list[dict[str, Any]], loop_frames: np.ndarray) -> None:
    """Every frame carries the source's own pixels, in order, with the planes its state promises."""
    crcs = [zlib.crc32(frame.data) for frame in loop_frames]
    assert [f["live_crc"] for f in frames] == [crcs[f["sequence"] % len(crcs)] for f in frames]
    sequences = [f["sequence"] for f in frames]
    assert sequences == sorted(set(sequences))
    for frame in frames:
        synthetic = frame["state"] == "SYNTHETIC"
        assert frame["planes"] == (SYNTHETIC_PLANES if synthetic else LIVE_ONLY)
        assert frame.get("background_exact", True)


def publications(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["publication"] for frame in frames]


def test_frames_reach_a_client_whole_and_in_order(flowing: Any, loop_frames: np.ndarray) -> None:
    running, client = flowing
    since = client.mark()
    time.sleep(2.0)
    frames = client.of("frame", since)
    assert len(frames) > 30
    assert_whole(client.of("frame"), loop_frames)
    assert all(frame["spacing"] == [0.4, 0.4, 1] for frame in frames)  # of the header, at the detector
    numbers = publications(client.of("frame"))
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    printed = running.end()
    assert running.process.returncode == 0
    assert "SYNTHETIC" in printed
    assert "not a medical device" in printed


def test_a_killed_engine_is_named_by_the_next_frame_and_comes_back(
    flowing: Any, loop_frames: np.ndarray
) -> None:
    running, client = flowing
    engine = running.child("stream.infer")
    since = client.mark()
    killed_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    os.kill(engine, signal.SIGKILL)
    client.wait_for(is_passthrough("engine_lost"), since=since, within_s=5, what="engine_lost")
    client.wait_for(is_synthetic, since=client.mark(), what="SYNTHETIC again")
    frames = client.of("frame", since)
    # The frame in hand when the process died may have gone out just before; the one after it must say so.
    due_after = [frame for frame in frames if frame["due_ns"] > killed_ns]
    assert due_after[1]["reason"] == "engine_lost"
    assert_whole(frames, loop_frames)
    numbers = publications(frames)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert running.child("stream.infer") != engine
    assert not Path(f"/proc/{engine}").exists()


def test_a_stopped_engine_misses_deadlines_at_once_and_is_lost_after_half_a_second(
    flowing: Any, loop_frames: np.ndarray
) -> None:
    running, client = flowing
    engine = running.child("stream.infer")
    since = client.mark()
    os.kill(engine, signal.SIGSTOP)
    deadline = client.wait_for(is_passthrough("deadline"), since=since, within_s=5, what="deadline")
    lost = client.wait_for(is_passthrough("engine_lost"), since=since, within_s=5, what="engine_lost")
    client.wait_for(is_synthetic, since=client.mark(), what="SYNTHETIC again")
    assert deadline["publication"] < lost["publication"]
    assert 0.3 * NS < lost["due_ns"] - deadline["due_ns"] < 1.5 * NS
    assert not Path(f"/proc/{engine}").exists()
    assert_whole(client.of("frame", since), loop_frames)


def test_a_stopped_source_is_stale_and_goes_on_where_it_was(flowing: Any, loop_frames: np.ndarray) -> None:
    running, client = flowing
    source = running.child("stream.grab")
    since = client.mark()
    os.kill(source, signal.SIGSTOP)
    stale = client.wait_for(is_shown("STALE"), since=since, within_s=5, what="STALE")
    client.wait_for(
        lambda line: line["what"] == "heartbeat" and line["state"] == "STALE",
        since=since,
        within_s=5,
        what="a STALE heartbeat",
    )
    last = client.of("frame", since)[-1:] or client.of("frame")[-1:]
    assert stale["at_ns"] - last[0]["at_ns"] < 1.5 * NS
    os.kill(source, signal.SIGCONT)
    client.wait_for(is_shown("SYNTHETIC"), since=client.mark(), what="SYNTHETIC again")
    assert_whole(client.of("frame", since), loop_frames)


def test_a_killed_source_starts_again_and_its_numbers_go_on(flowing: Any) -> None:
    running, client = flowing
    source = running.child("stream.grab")
    since = client.mark()
    os.kill(source, signal.SIGKILL)
    # It may be back so soon that the picture never was STALE, so the new frames are what is waited for.
    client.wait_for(
        lambda line: line["what"] == "heartbeat" and line["source_restarts"] == 1 and line["age_ms"] > 200,
        since=since,
        what="a gap after the kill",
    )
    client.wait_for(is_synthetic, since=client.mark(), what="SYNTHETIC again")
    sequences = [frame["sequence"] for frame in client.of("frame")]
    assert sequences == sorted(set(sequences))
    assert running.child("stream.grab") != source


def test_a_killed_publisher_is_no_signal_and_clients_reconnect(
    flowing: Any, start: Any, loop: Path, endpoint: str
) -> None:
    running, client = flowing
    children = running.children()
    since = client.mark()
    killed_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    running.process.kill()
    silent = client.wait_for(is_shown("NO_SIGNAL"), since=since, within_s=5, what="NO_SIGNAL")
    assert silent["at_ns"] - killed_ns < 1.0 * NS
    over = time.monotonic() + 5
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < over:
        time.sleep(0.02)
    assert [child for child in children if Path(f"/proc/{child}").exists()] == []
    start("run", str(loop), "--loop", "--endpoint", endpoint)
    client.wait_for(is_shown("SYNTHETIC"), since=client.mark(), what="SYNTHETIC from the next publisher")
    assert len({frame["stream"] for frame in client.of("frame")}) == 2


def test_ten_stopped_clients_change_nothing_for_the_eleventh(
    flowing: Any, record: Any, endpoint: str, loop_frames: np.ndarray
) -> None:
    _, client = flowing
    others = [record(endpoint) for _ in range(10)]
    for other in others:
        other.wait_for(is_synthetic, what="a frame at every client")
    before = client.of("heartbeat")[-1]
    since = client.mark()
    for other in others:
        os.kill(other.process.pid, signal.SIGSTOP)

    def let_go(line: dict[str, Any]) -> bool:
        return line["what"] == "heartbeat" and line["clients"]["subscribers"] == 1

    client.wait_for(let_go, since=since, within_s=15, what="ten clients let go")
    client.wait_for(is_synthetic, since=client.mark(), what="SYNTHETIC still")
    frames = client.of("frame", since)
    numbers = publications(frames)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert_whole(frames, loop_frames)
    beat = client.of("heartbeat")[-1]
    assert beat["ring"]["refused"] == 0
    assert beat["counters"]["dropped"] == before["counters"]["dropped"]


def test_a_lossless_replay_draws_every_frame_in_order(start: Any, loop: Path, endpoint: str) -> None:
    running = start(
        "replay",
        str(loop),
        "--lossless",
        "--speed",
        "max",
        "--loop",
        "--frames",
        "100",
        "--endpoint",
        endpoint,
    )
    printed = running.finish(60)
    assert running.process.returncode == 0
    assert "100 grabbed, 100 published, 100 received, 0 lost; 100 SYNTHETIC" in printed


def test_no_message_names_the_patient(flowing: Any) -> None:
    running, client = flowing
    heard = str(client.lines)
    printed = running.end()
    assert "LEAKED" not in heard + printed


def test_nothing_is_left_after_the_pipeline_is_killed(flowing: Any, endpoint: str) -> None:
    running, _ = flowing
    before = set(os.listdir("/dev/shm"))
    children = running.children()
    running.process.kill()
    running.process.wait()
    over = time.monotonic() + 5
    while any(Path(f"/proc/{child}").exists() for child in children) and time.monotonic() < over:
        time.sleep(0.02)
    assert [child for child in children if Path(f"/proc/{child}").exists()] == []
    assert set(os.listdir("/dev/shm")) <= before


def test_a_frame_size_that_changes_is_passed_through_until_the_engine_is_ready_for_it(
    start: Any, record: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    start("run", "python:growing_source:GrowingSource", "--endpoint", endpoint)
    client = record(endpoint)

    def is_larger(line: dict[str, Any]) -> bool:
        return is_synthetic(line) and (line["rows"], line["columns"]) == (300, 400)

    client.wait_for(is_larger, what="a synthetic frame of the new size")
    frames = client.of("frame")
    first = next(frame for frame in frames if frame["rows"] == 300)
    assert (first["state"], first["reason"]) == ("PASSTHROUGH", "starting")
    numbers = publications(frames)
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    sequences = [frame["sequence"] for frame in frames]
    assert sequences == sorted(set(sequences))
    missing = (
        sequences[-1] - sequences[0] + 1 - len(sequences)
    )  # a host that takes the cores away makes some late
    client.wait_for(
        lambda line: (
            line["what"] == "heartbeat" and sum(line["counters"].get("dropped", {}).values()) >= missing
        ),
        what=f"{missing} frames to be counted as dropped",
    )


def test_frames_unlike_the_taught_ones_stay_live_until_they_are_like_them_again(
    start: Any, record: Any, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    source = "python:darkening_source:DarkeningSource"
    start("run", source, "--domain", "--model", "compact-s", "--endpoint", endpoint)
    client = record(endpoint)
    client.wait_for(is_synthetic, what="vessels on the phantom")
    out = client.wait_for(is_passthrough("out_of_domain"), what="out_of_domain in the dark")
    back = client.wait_for(is_synthetic, since=client.mark(), what="vessels on the phantom again")
    assert 30 < out["sequence"] <= 30 + 5  # the third strange frame of ten, and what was under way
    assert back["sequence"] >= 70 + 9  # not before ten frames in a row were like the taught ones
    dark = [frame for frame in client.of("frame") if out["sequence"] < frame["sequence"] < 70]
    assert {frame["reason"] for frame in dark} == {"out_of_domain"}
    beat = client.of("heartbeat")[-1]
    assert beat["domain"]["score"] < beat["domain"]["threshold"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["ctrl-c", "sigterm"])
def test_a_signal_ends_a_run_with_its_summary(
    number: signal.Signals, start: Any, record: Any, endpoint: str
) -> None:
    # In a process of its own: native libraries that other tests load change how a signal reaches this one.
    running = start("run", "phantom", "--engine", "off", "--endpoint", endpoint)
    client = record(endpoint)
    client.wait_for(is_passthrough("off"), what="the first frame")
    running.process.send_signal(number)
    printed = running.finish()
    assert running.process.returncode == 0
    assert "PASSTHROUGH (off" in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize("lossless", [["--lossless"], []], ids=["lossless", "paced"])
def test_a_replay_waits_for_its_measuring_client_and_not_for_another(
    lossless: list[str], start: Any, record: Any, loop: Path, endpoint: str
) -> None:
    other = record(endpoint)  # is there first, as a viewer that was left open is
    running = start("replay", str(loop), "--engine", "off", *lossless, "--endpoint", endpoint)
    printed = running.finish(30)
    assert running.process.returncode == 0
    assert "40 grabbed, 40 published, 40 received, 0 lost" in printed
    assert other.of("frame")


def test_a_replay_ends_with_a_sentence_when_its_measuring_client_is_killed(
    start: Any, record: Any, loop: Path, endpoint: str
) -> None:
    client = record(endpoint)
    running = start("replay", str(loop), "--loop", "--lossless", "--engine", "off", "--endpoint", endpoint)
    client.wait_for(is_passthrough("off"), what="the first frame")
    os.kill(running.child("stream.measure"), signal.SIGKILL)
    printed = running.finish()
    assert running.process.returncode == 1
    assert "the measuring client ended before the replay did" in printed
    assert "Traceback" not in printed


def test_every_frame_that_was_due_is_accounted_for(start: Any, endpoint: str, tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    running = start(
        "replay",
        "phantom",
        "--speed",
        "60",
        "--frames",
        "301",
        "--engine",
        "off",
        "--out",
        str(report),
        "--endpoint",
        endpoint,
    )
    running.finish(30)
    counters = json.loads(report.read_text())["publisher"]
    assert counters["due"] == 301
    assert counters["dropped"]
    out = counters["published"] + counters["repeated"] + sum(counters["dropped"].values())
    assert counters["due"] == out


def test_a_report_that_cannot_be_written_is_found_out_before_the_run(
    start: Any, endpoint: str, tmp_path: Path
) -> None:
    running = start("run", "phantom", "--engine", "off", "--out", str(tmp_path), "--endpoint", endpoint)
    printed = running.finish()
    assert running.process.returncode == 2
    assert "--out needs a file name, got the folder" in printed
