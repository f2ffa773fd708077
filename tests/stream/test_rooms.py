"""Several rooms on one engine host, judged by a client of each room in a process of its own."""

import json
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from stream.config import RunConfig
from stream.endpoint import numbered_endpoint
from stream.errors import EndpointError
from stream.pacing import Pacing
from stream.pipeline_config import PipelineConfig
from stream.room import room_from_json, room_to_json
from stream.session import room_configs
from stream.sources.options import SourceOptions
from stream.statusline import format_rooms, format_rooms_summary

pytestmark = pytest.mark.timeout(120)

SMALL = ("--model", "compact-s", "--rate", "10")
"""Two rooms that a slow machine draws in time."""


def is_synthetic(line: dict[str, Any]) -> bool:
    return line["what"] == "frame" and line["state"] == "SYNTHETIC"


def is_lost(line: dict[str, Any]) -> bool:
    return line["what"] == "frame" and line["reason"] == "engine_lost"


@pytest.fixture
def two_rooms(start: Any, record: Any, loop: Path, endpoint: str) -> Any:
    """Two rooms that draw, and a client of each."""
    running = start("run", str(loop), str(loop), "--loop", *SMALL, "--endpoint", endpoint)
    clients = [record(f"{endpoint}-{number}") for number in (1, 2)]
    for client in clients:
        client.wait_for(is_synthetic, within_s=40, what="a synthetic frame in each room")
    return running, clients


def rooms_of(running: Any) -> list[int]:
    """Process ids of the rooms, in the order of their numbers."""
    found = []
    for pid in running.children():
        if b"stream.room\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
            found.append(pid)
    return sorted(found)


def test_one_engine_process_draws_for_every_room_and_its_death_is_named_in_each(two_rooms: Any) -> None:
    running, clients = two_rooms
    host = running.child("stream.engine_host")
    streams = {client.of("frame")[-1]["stream"] for client in clients}
    assert len(streams) == 2
    since = [client.mark() for client in clients]
    killed_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    os.kill(host, signal.SIGKILL)
    for client, mark in zip(clients, since, strict=True):
        client.wait_for(is_lost, since=mark, within_s=5, what="engine_lost in each room")
        client.wait_for(is_synthetic, since=client.mark(), within_s=40, what="SYNTHETIC again in each room")
        frames = client.of("frame", mark)
        assert [frame for frame in frames if frame["due_ns"] > killed_ns][1]["reason"] == "engine_lost"
        numbers = [frame["publication"] for frame in frames]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert running.child("stream.engine_host") != host
    assert not Path(f"/proc/{host}").exists()
    printed = running.end()
    assert running.process.returncode == 0
    assert "for all rooms, 1 restarts" in printed
    assert "Traceback" not in printed


def test_a_host_that_hangs_is_killed_by_the_rooms_that_wait_for_it(two_rooms: Any) -> None:
    running, clients = two_rooms
    host = running.child("stream.engine_host")
    marks = [client.mark() for client in clients]
    os.kill(host, signal.SIGSTOP)
    for client, mark in zip(clients, marks, strict=True):
        client.wait_for(is_lost, since=mark, within_s=5, what="engine_lost in each room")
        client.wait_for(is_synthetic, since=client.mark(), within_s=40, what="SYNTHETIC again in each room")
    assert not Path(f"/proc/{host}").exists()


def test_a_room_that_stops_or_dies_leaves_the_other_as_it_is(two_rooms: Any) -> None:
    running, clients = two_rooms
    first, second = rooms_of(running)
    host = running.child("stream.engine_host")
    os.kill(first, signal.SIGSTOP)
    since = clients[1].mark()
    time.sleep(2.0)
    frames = clients[1].of("frame", since)
    assert len(frames) > 12
    assert sum(frame["state"] == "SYNTHETIC" for frame in frames) > len(frames) // 2
    os.kill(first, signal.SIGKILL)
    clients[1].wait_for(is_synthetic, since=clients[1].mark(), what="SYNTHETIC after the other room's death")
    assert running.child("stream.engine_host") == host
    assert Path(f"/proc/{second}").exists()
    printed = running.end()
    assert "room 1: its process ended too early (signal SIGKILL)" in printed
    assert running.process.returncode == 1


def test_a_room_whose_frames_change_size_has_another_engine_of_the_same_host(
    start: Any, record: Any, loop: Path, endpoint: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    growing = "python:growing_source:GrowingSource"
    running = start("run", growing, str(loop), "--loop", *SMALL, "--endpoint", endpoint)
    clients = [record(f"{endpoint}-{number}") for number in (1, 2)]
    clients[0].wait_for(
        lambda line: is_synthetic(line) and (line["rows"], line["columns"]) == (300, 400),
        within_s=60,
        what="a synthetic frame of the new size",
    )
    clients[1].wait_for(is_synthetic, within_s=40, what="SYNTHETIC in the other room")
    assert not [line for line in clients[1].of("frame") if line["reason"] == "engine_lost"]
    assert "for all rooms, 0 restarts" in running.end()


def test_a_source_that_is_not_there_ends_every_room_with_its_sentence(
    start: Any, loop: Path, endpoint: str, tmp_path: Path
) -> None:
    missing = str(tmp_path / "missing.dcm")
    running = start("run", str(loop), missing, "--loop", *SMALL, "--endpoint", endpoint)
    printed = running.finish(60)
    assert running.process.returncode == 2
    (said,) = [line for line in printed.splitlines() if line.startswith("contrastream:")]
    assert "room 2: " in said
    assert "Traceback" not in printed


def test_a_sender_that_is_not_there_is_said_and_ends_no_other_room(
    start: Any, loop: Path, endpoint: str, tmp_path: Path
) -> None:
    report = tmp_path / "rooms.json"
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        sender = f"rtsp://127.0.0.1:{taken.getsockname()[1]}/x"
        running = start(
            "run", str(loop), sender, "--engine", "off", "--endpoint", endpoint, "--out", str(report)
        )
        printed = running.finish(60)
    assert running.process.returncode == 2
    assert "room 2: needed an RTSP server at 127.0.0.1" in printed
    assert "the other rooms go on" in printed
    assert "Traceback" not in printed
    assert json.loads(report.read_text())["rooms"][0]["counters"]["due"] == 40


def test_rooms_end_when_their_recordings_do_and_the_report_has_each(
    start: Any, loop: Path, endpoint: str, tmp_path: Path
) -> None:
    report = tmp_path / "rooms.json"
    running = start(
        "run", str(loop), str(loop), "--engine", "off", "--endpoint", endpoint, "--out", str(report)
    )
    printed = running.finish(30)
    assert running.process.returncode == 0
    assert "not a medical device" in printed
    body = json.loads(report.read_text())
    assert body["schema"] == "contrastream.rooms/1"
    assert [room["counters"]["due"] for room in body["rooms"]] == [40, 40]
    assert [room["ended"] for room in body["rooms"]] == [True, True]


def test_nothing_is_left_when_the_supervisor_is_killed(two_rooms: Any) -> None:
    running, _ = two_rooms
    pids = running.children()
    pids += [int(pid) for room in rooms_of(running) for pid in children_of(room)]
    assert len(pids) >= 5  # two rooms with a source each, and the host
    running.process.kill()
    running.process.wait()
    over = time.monotonic() + 10
    while any(Path(f"/proc/{pid}").exists() for pid in pids) and time.monotonic() < over:
        time.sleep(0.02)
    assert [pid for pid in pids if Path(f"/proc/{pid}").exists()] == []


def children_of(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


# What is asked and said --------------------------------------------------------------------------------------


def test_each_room_has_an_endpoint_and_a_port_of_its_own() -> None:
    rooms = room_configs(RunConfig("a", more=("b", "c"), endpoint="lab", port=9000))
    assert [(room.source, room.endpoint, room.port) for room in rooms] == [
        ("a", "lab-1", 9000),
        ("b", "lab-2", 9001),
        ("c", "lab-3", 9002),
    ]


@pytest.mark.parametrize(
    ("text", "second"),
    [
        (None, "main-2"),
        ("lab", "lab-2"),
        ("ipc:///run/x", "ipc:///run/x-2"),
        ("tcp://127.0.0.1:5570", "tcp://127.0.0.1:5580"),
    ],
    ids=str,
)
def test_endpoints_are_numbered(text: str | None, second: str) -> None:
    assert numbered_endpoint(text, 2) == second


def test_an_endpoint_that_is_none_cannot_be_numbered() -> None:
    with pytest.raises(EndpointError, match="an endpoint is a name"):
        numbered_endpoint("a b", 1)


def test_too_many_rooms_are_refused() -> None:
    with pytest.raises(ValueError, match="a run takes 1 to 32 sources, got 33"):
        room_configs(RunConfig("a", more=("b",) * 32))


def test_a_rooms_settings_survive_their_way_to_it() -> None:
    config = PipelineConfig(
        "v4l2:0",
        SourceOptions(crop=(1, 2, 300, 400)),
        Pacing(speed=2.0, loop=True),
        endpoint="x-1",
        threads=2,
    )
    assert room_from_json(json.loads(json.dumps(room_to_json(config, 4)))) == (config, 4)


def test_a_room_that_says_nothing_yet_is_starting() -> None:
    assert format_rooms([None, None]) == "1 starting | 2 starting"
    assert "no frame came" in format_rooms_summary([None], 0)
