"""A source process that hangs or dies: what counts as a hang, and what becomes of the stream."""

import json
import os
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.accounts import parts
from stream.alive import Alive
from stream.audit_log import chain_files
from stream.control import ALIVE, MAX_PACKET, ChildSocket, Kind
from stream.source_side import OPEN_NS, SILENT_NS, SourceSide
from stream.timing import NS_PER_MS, NS_PER_S, FakeClock

# What counts as a hang ----------------------------------------------------------------------------------------


class NoProcess:
    """Stands where a process is started: only time counts here."""

    def __init__(self, *_arguments: Any, **_options: Any) -> None:
        pass


@pytest.fixture
def clock() -> FakeClock:
    """Of the side below."""
    return FakeClock()


@pytest.fixture
def side(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> SourceSide:
    """A source that is open and has given a frame."""
    monkeypatch.setattr("stream.source_side.Child", NoProcess)
    made = SourceSide(clock, dict)
    made.start()
    made.take_opened({"read_within_s": 5.0})
    made.take_frame()
    return made


def pass_time(
    side: SourceSide, clock: FakeClock, ns: int, *, heard: bool = False, reading_ms: int = 0
) -> list[str]:
    """Let time pass in steps of 100 ms, as the guard's loop looks; what was said."""
    said = []
    for _ in range(ns // (100 * NS_PER_MS)):
        clock.advance_ms(100.0)
        if heard:
            side.heard()
            side.take_alive(ALIVE.pack(Kind.ALIVE, reading_ms))
        said.append(side.hang(opened=True))
    return [why for why in said if why]


def test_silence_is_a_hang_said_once_and_over_when_it_is_heard_again(
    side: SourceSide, clock: FakeClock
) -> None:
    assert pass_time(side, clock, SILENT_NS) == []
    assert pass_time(side, clock, 2 * NS_PER_S) == ["the source process has not been heard for 5 s"]
    assert pass_time(side, clock, NS_PER_S, heard=True) == []
    assert len(pass_time(side, clock, SILENT_NS + NS_PER_S)) == 1


def test_a_read_that_does_not_return_is_a_hang_though_the_process_lives(
    side: SourceSide, clock: FakeClock
) -> None:
    assert pass_time(side, clock, 60 * NS_PER_S, heard=True, reading_ms=5000) == []
    said = pass_time(side, clock, NS_PER_S, heard=True, reading_ms=5250)
    assert said == ["the source has not returned from a read for 5 s"]


def test_a_source_that_may_wait_never_hangs_in_a_read(side: SourceSide, clock: FakeClock) -> None:
    side.take_opened({"read_within_s": None})
    assert pass_time(side, clock, 60 * NS_PER_S, heard=True, reading_ms=60_000) == []


def test_a_guard_that_was_stopped_itself_blames_nobody(side: SourceSide, clock: FakeClock) -> None:
    clock.advance_ms(3_600_000.0)
    assert side.hang(opened=True) is None


def test_opening_may_take_longer_and_not_for_ever(side: SourceSide, clock: FakeClock) -> None:
    side.start()
    said = []
    for _ in range(OPEN_NS // (100 * NS_PER_MS) + 1):
        assert not said
        clock.advance_ms(100.0)
        said = [why for why in [side.hang(opened=False)] if why]
    assert said == ["the source has not opened within 30 s"]


@pytest.fixture
def beating() -> Iterator[tuple[Alive, socket.socket]]:
    """A process's beats, and the guard's end of them."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(30.0)
    guard = ChildSocket(theirs.detach())
    alive = Alive(guard, beat_s=0.01)
    yield alive, ours
    ours.close()
    alive.thread.join()
    guard._socket.close()


def test_beats_say_how_long_the_read_in_hand_has_taken(beating: tuple[Alive, socket.socket]) -> None:
    alive, ours = beating

    def waited_ms() -> int:
        return int(ALIVE.unpack(ours.recv(MAX_PACKET))[1])

    assert waited_ms() == 0
    returns = threading.Event()

    def read() -> None:
        with alive:
            returns.wait(30.0)

    reader = threading.Thread(target=read)
    reader.start()
    while waited_ms() < 30:
        pass
    returns.set()
    reader.join()
    while waited_ms() > 0:
        pass


# In a whole pipeline ------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def hangs_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where `hanging_source.py` says that it has hung; its folder can be imported from by the source process."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    monkeypatch.setenv("HANGS_ONCE", str(tmp_path / "hung"))
    return tmp_path / "hung"


def beat_with(start: str) -> Any:
    return lambda line: line["what"] == "heartbeat" and (line["source_why"] or "").startswith(start)


@pytest.mark.timeout(120)
def test_a_source_that_hangs_is_killed_and_started_again_and_its_numbers_go_on(
    start: Any, record: Any, endpoint: str, tmp_path: Path
) -> None:
    client = record(endpoint)
    spec = "python:hanging_source:HangingSource"
    audit = tmp_path / "audit"
    running = start("run", spec, "--engine", "off", "--endpoint", endpoint, "--audit-folder", str(audit))
    client.wait_for(lambda line: line["what"] == "frame", what="a frame")
    first = running.child("stream.grab")
    client.wait_for(beat_with("the source has not returned from a read for 1 s"), what="the hang")
    since = client.mark()
    client.wait_for(lambda line: line["what"] == "frame", since=since, what="a frame of the next process")
    assert not Path(f"/proc/{first}").exists()
    # The next one is stopped: it cannot even say that it lives.
    second = running.child("stream.grab")
    os.kill(second, signal.SIGSTOP)
    since = client.mark()
    client.wait_for(
        beat_with("the source process has not been heard for 5 s"), since=since, what="the silence"
    )
    client.wait_for(lambda line: line["what"] == "frame", since=client.mark(), what="a frame of the third")
    client.wait_for(
        lambda line: line["what"] == "heartbeat" and line["source_why"] is None,
        since=client.mark(),
        what="health",
    )
    assert not Path(f"/proc/{second}").exists()
    printed = running.end()
    assert running.process.returncode == 0
    assert "from a read for 1 s; killed; starting it again in" in printed
    numbers = [frame["sequence"] for frame in client.of("frame")]
    assert numbers == sorted(set(numbers))
    assert any(line["state"] == "STALE" for line in client.of("shown"))
    (chain,) = [path for path in audit.iterdir() if path.is_dir()] or [audit]
    entries = [json.loads(line) for line in chain_files(chain)[0].read_bytes().splitlines()]
    restarts = [(each["source"], each["source_cause"]) for each in entries if each["event"] == "restart"]
    assert restarts == [(1, "no_answer"), (2, "no_answer")]
    counters = client.of("heartbeat")[-1]["counters"]
    assert counters["dropped"]["source_down"] > 6 * 15, counters  # a second in a read, five of silence
    assert parts(counters)["dropped"] + counters["published"] + counters["repeated"] == counters["due"]


@pytest.mark.timeout(120)
def test_a_recording_that_hangs_is_named_waited_for_and_goes_on(
    start: Any, record: Any, endpoint: str
) -> None:
    client = record(endpoint)
    running = start("run", "python:hanging_source:SlowRecording", "--engine", "off", "--endpoint", endpoint)
    client.wait_for(beat_with("the source has not returned from a read"), what="the hang")
    printed = running.finish(30)
    assert running.process.returncode == 0
    assert "a recording is not started again, so it is waited for, and Ctrl-C ends the run" in printed
    beat = client.of("heartbeat")[-1]
    assert beat["source_restarts"] == 0
    assert beat["counters"]["due"] == 40


@pytest.mark.timeout(120)
def test_bytes_that_kill_a_codec_end_a_recording_in_one_sentence(
    start: Any, record: Any, endpoint: str
) -> None:
    client = record(endpoint)
    running = start("run", "python:hanging_source:DeadlyRecording", "--engine", "off", "--endpoint", endpoint)
    printed = running.finish(30)
    assert running.process.returncode == 1
    assert printed.strip().splitlines()[-1].endswith("the source process ended too early (signal SIGSEGV)")
    assert len(client.of("frame")) <= 20
