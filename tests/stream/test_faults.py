"""Injected faults in a whole pipeline: a client in another process judges, and everything says that it is a test."""

import json
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(120)
RATE_HZ = 30.0


def numbers(frames: list[dict[str, Any]]) -> list[int]:
    return [frame["sequence"] for frame in frames]


def test_a_broken_source_is_named_counted_recorded_and_comes_back(
    start: Any, record: Any, endpoint: str, tmp_path: Path
) -> None:
    spec = "drop=0.1,freeze@40:1s,hold@90:1s,size@130:320x256,unplug@150:1s,crash@190,end@220"
    client = record(endpoint)
    recorder = start("record", endpoint, str(tmp_path / "kept.npz"))
    running = start(
        "run",
        "phantom",
        *("--size", "256", "--rate", "30", "--engine", "off", "--fault", spec, "--endpoint", endpoint),
    )
    printed = running.finish(60)
    assert running.process.returncode == 0
    beat = client.of("heartbeat")[-1]
    assert beat["faults"]["spec"] == spec
    assert [fault["place"] for fault in beat["faults"]["begun"]] == [1, 2, 3, 4, 5, 6]
    assert beat["source_restarts"] >= 2
    frames = client.of("frame")
    assert numbers(frames) == sorted(set(numbers(frames)))
    assert all(frame["faults_injected"] for frame in frames)
    assert {(frame["rows"], frame["columns"]) for frame in frames} == {(256, 256), (256, 320)}
    shown = [line["state"] for line in client.of("shown")]
    assert "STALE" in shown
    assert "UNCHANGED" in shown
    counters = beat["counters"]
    # The source was asked for 220; more were due in the second without it, and while another process began, twice.
    down = counters["dropped"]["source_down"]
    assert down >= RATE_HZ
    assert counters["due"] == 220 + down
    assert max(numbers(frames)) < counters["due"]
    out = counters["published"] + counters["repeated"] + sum(counters["dropped"].values())
    assert counters["due"] == out
    # Of 220 a tenth by chance, and the second without frames.
    assert counters["dropped"]["source_lost"] >= RATE_HZ
    assert "TEST     faults were injected: drop=0.1" in printed
    assert "Traceback" not in recorder.finish(60)
    before, after = (json.loads((tmp_path / name).read_text()) for name in ("kept.json", "kept-2.json"))
    # What a viewer showed is in the recording: the freeze before the other size, unplugging and the crash after it.
    states = {frame["sequence"]: frame["state"] for frame in frames}
    for kept in (before, after):
        assert all(states.get(each["sequence"], each["state"]) == each["state"] for each in kept["frame"])
        assert "STALE" in [stop["state"] for stop in kept["not_live"]]
        assert all(
            stop["age_ms"] > 0 and 0 <= stop["after_frame"] < kept["frames"] for stop in kept["not_live"]
        )
    assert "UNCHANGED" in [frame["state"] for frame in before["frame"]]
    assert after["not_live"][-1]["state"] == "NO_SIGNAL"  # the end of the stream


def test_frames_that_were_due_when_a_run_ends_without_its_source_are_counted(
    start: Any, record: Any, endpoint: str
) -> None:
    client = record(endpoint)
    running = start(
        "run",
        "phantom",
        *(
            "--size",
            "128",
            "--rate",
            "30",
            "--engine",
            "off",
            "--fault",
            "unplug@20:60s",
            "--endpoint",
            endpoint,
        ),
    )
    client.wait_for(
        lambda line: line["what"] == "shown" and line["state"] == "STALE", within_s=60, what="STALE"
    )
    printed = running.end()
    assert running.process.returncode == 0
    counters = client.of("heartbeat")[-1]["counters"]
    # STALE is said half a second after the last frame.
    assert counters["dropped"]["source_down"] >= RATE_HZ // 2 - 1
    assert counters["due"] == counters["published"] + sum(counters["dropped"].values())
    assert f"accounts {counters['due']} due = " in printed


def test_a_room_without_faults_says_nothing_of_them(start: Any, record: Any, endpoint: str) -> None:
    client = record(endpoint)
    start("run", "phantom", "--size", "128", "--engine", "off", "--frames", "20", "--endpoint", endpoint)
    client.wait_for(lambda line: line["what"] == "frame", what="a frame")
    beat = client.wait_for(lambda line: line["what"] == "heartbeat", what="a heartbeat")
    assert beat["faults"] is None
    assert not any(frame["faults_injected"] for frame in client.of("frame"))


def test_a_recording_that_cannot_go_on_is_not_unplugged(start: Any, loop: Any, endpoint: str) -> None:
    running = start("run", str(loop), "--engine", "off", "--fault", "unplug@9:1s", "--endpoint", endpoint)
    printed = running.finish()
    assert running.process.returncode == 2
    assert "--fault unplug@9:1s needed a source without end, got a recording; give --loop" in printed


@pytest.mark.parametrize("command", ["run", "replay"])
def test_a_bad_spec_is_one_sentence(command: str, start: Any, endpoint: str) -> None:
    running = start(command, "phantom", "--fault", "black@7,frieze@3", "--endpoint", endpoint)
    printed = running.finish()
    assert running.process.returncode == 2
    assert "got 'frieze@3'" in printed
    assert len(printed.strip().splitlines()) == 1
