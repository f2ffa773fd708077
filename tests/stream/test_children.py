"""Real child processes: what they say, how they die, and that none outlives its guard."""

import errno
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from stream.children import Backoff, Child
from stream.control import PARENT_VARIABLE, Kind, pack_json, send_ring, unpack_json
from stream.engine_supply import OwnEngine
from stream.frame import FrameFormat
from stream.ring import Ring
from stream.source_side import SourceSide
from stream.timing import NS_PER_S, FakeClock

HERE = str(Path(__file__).parent)
PATIENCE_S = 30.0  # a loaded machine starts a process slowly; no test waits this long when all is well


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Child]]:
    """Starts echoing children and leaves none behind."""
    monkeypatch.setenv("PYTHONPATH", HERE)
    children: list[Child] = []

    def child(config: dict[str, Any] | None = None, **options: Any) -> Child:
        children.append(Child("echo_child", config or {}, **options))
        return children[-1]

    yield child
    for each in children:
        if each.socket.fileno() >= 0:
            each.kill()


def hear(child: Child) -> bytes:
    """The next packet of a child, waited for; empty when it is gone."""
    over = time.monotonic() + PATIENCE_S
    while (packet := child.receive()) is None:
        assert time.monotonic() < over, "the child said nothing"
        select.select([child.socket], [], [], 1.0)
    return packet


def ended(pidfd: int) -> bool:
    """Whether a process, a child or not, has ended; waits for it."""
    return bool(select.select([pidfd], [], [], PATIENCE_S)[0])


def test_a_child_gets_its_settings_and_talks_in_whole_packets(start: Callable[..., Child]) -> None:
    child = start({"model": "compact", "threads": None})
    said = unpack_json(hear(child))
    assert said == {"pid": child.pid, "config": {"model": "compact", "threads": None}}
    for length in (1, 40, 4000):
        assert child.send(b"\x04" * length)
    assert [len(hear(child)) for _ in range(3)] == [1, 40, 4000]
    assert child.receive() is None


def test_a_child_that_is_killed_is_seen_at_once_by_its_pidfd(start: Callable[..., Child]) -> None:
    child = start()
    hear(child)
    assert not select.select([child.pidfd], [], [], 0.0)[0]
    os.kill(child.pid, signal.SIGKILL)
    assert ended(child.pidfd)
    assert hear(child) == b""
    assert child.kill() == -signal.SIGKILL


def test_killing_ends_and_reaps_a_child_that_is_stopped(start: Callable[..., Child]) -> None:
    child = start()
    hear(child)
    os.kill(child.pid, signal.SIGSTOP)
    assert child.kill() == -signal.SIGKILL
    assert not Path(f"/proc/{child.pid}").exists()


def test_a_child_that_ended_by_itself_keeps_its_exit_status(start: Callable[..., Child]) -> None:
    child = start()
    hear(child)
    os.kill(child.pid, signal.SIGTERM)
    assert ended(child.pidfd)
    assert child.kill() == -signal.SIGTERM


def test_nothing_sent_to_a_dead_child_raises(start: Callable[..., Child]) -> None:
    child = start()
    hear(child)
    os.kill(child.pid, signal.SIGKILL)
    assert ended(child.pidfd)
    assert not child.send(b"\x03")
    ring = Ring(FrameFormat(64, 64), 2)
    try:
        send_ring(child.socket, ring.memory, 1)
    finally:
        ring.close()


def test_a_child_that_stopped_reading_does_not_stop_the_guard(start: Callable[..., Child]) -> None:
    child = start()
    hear(child)
    os.kill(child.pid, signal.SIGSTOP)
    sent = 0
    while child.send(bytes(4096)):
        sent += 1
        assert sent < 100_000
    assert sent > 0


def test_a_ring_reaches_a_child(start: Callable[..., Child]) -> None:
    child = start()
    hear(child)
    ring = Ring(FrameFormat(64, 64), 5)
    try:
        send_ring(child.socket, ring.memory, 9)
        assert hear(child) == bytes((Kind.READY, 9, 5))
    finally:
        ring.close()


def test_ctrl_c_is_left_to_the_guard(start: Callable[..., Child]) -> None:
    child = start()
    hear(child)
    assert os.getsid(child.pid) == child.pid
    os.kill(child.pid, signal.SIGINT)
    assert child.send(b"\x03still there")
    assert hear(child) == b"\x03still there"


def test_a_quiet_child_prints_nothing(start: Callable[..., Child], capfd: pytest.CaptureFixture[str]) -> None:
    name = "DOE^JANE"
    loud = start({"print": name})
    hear(loud)
    assert name in capfd.readouterr().err
    quiet = start({"print": name}, quiet=True)
    hear(quiet)
    assert name not in "".join(capfd.readouterr())


def test_killing_leaves_no_descriptor(start: Callable[..., Child]) -> None:
    before = len(os.listdir("/proc/self/fd"))
    child = start()
    hear(child)
    child.kill()
    assert len(os.listdir("/proc/self/fd")) == before


GUARD = """
import time
from stream.children import Child
child = Child("echo_child", {})
while child.receive() is None:
    time.sleep(0.01)
print(child.pid, flush=True)
time.sleep(600)
"""


def test_a_child_dies_with_a_guard_that_was_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": HERE}
    with subprocess.Popen(
        [sys.executable, "-c", GUARD], stdout=subprocess.PIPE, text=True, env=environment
    ) as guard:
        assert guard.stdout is not None
        grandchild = int(guard.stdout.readline())
        pidfd = os.pidfd_open(grandchild)
        try:
            guard.kill()
            assert ended(pidfd)
        finally:
            os.close(pidfd)


def test_a_child_whose_guard_died_before_it_began_ends_at_once() -> None:
    code = "from stream.control import become_child; become_child(); print('began')"
    for parent, printed in ((os.getpid(), "began\n"), (2**22 + 1, "")):
        child = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, PARENT_VARIABLE: str(parent)},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=True,
        )
        assert child.stdout == printed


def test_packets_that_are_no_json_objects_are_refused() -> None:
    with pytest.raises(ValueError, match="a packet's body is a JSON object, got list"):
        unpack_json(bytes((Kind.OPENED,)) + b"[]")
    assert unpack_json(pack_json(Kind.OPENED, {"a": 1})) == {"a": 1}


# When to start again ------------------------------------------------------------------------------------------


def waits_s(backoff: Backoff, clock: FakeClock, deaths: int) -> list[float]:
    """How long each restart is put off when a child dies again at once."""
    waits = []
    for _ in range(deaths):
        at_ns = backoff.died()
        waits.append((at_ns - clock.now_ns()) / NS_PER_S)
        clock.advance_ms((at_ns - clock.now_ns()) / 1e6)
    return waits


def test_restarts_wait_twice_as_long_each_time_up_to_eight_seconds() -> None:
    clock = FakeClock()
    backoff = Backoff(clock)
    assert waits_s(backoff, clock, 8) == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert backoff.restarts == 8


@pytest.mark.parametrize(("healthy_s", "wait_s"), [(29, 1.0), (31, 0.25)], ids=["not long enough", "long"])
def test_half_a_minute_of_health_forgives(healthy_s: int, wait_s: float) -> None:
    clock = FakeClock()
    backoff = Backoff(clock)
    waits_s(backoff, clock, 2)
    backoff.healthy()
    clock.advance_ms(1000.0 * healthy_s)
    assert waits_s(backoff, clock, 1) == [wait_s]


def test_a_child_that_never_became_healthy_is_not_forgiven() -> None:
    clock = FakeClock()
    backoff = Backoff(clock)
    waits_s(backoff, clock, 3)
    clock.advance_ms(60_000.0)
    assert waits_s(backoff, clock, 1) == [2.0]


def test_a_thread_that_fails_ends_its_process() -> None:
    code = """
import threading
from stream.control import end_with_any_thread
end_with_any_thread()
threading.Thread(target=lambda: 1 / 0).start()
threading.Event().wait(60)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr


@pytest.mark.parametrize("fails", ["subprocess.Popen", "os.pidfd_open"])
def test_a_child_that_cannot_be_started_leaves_nothing_and_the_engine_is_tried_again(
    fails: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object, **_options: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    clock = FakeClock()
    supply = OwnEngine(clock, {})
    before = len(os.listdir("/proc/self/fd"))
    children = Path(f"/proc/self/task/{os.getpid()}/children")
    others = children.read_text()  # of tests before this one
    with monkeypatch.context() as patched:
        patched.setattr(f"stream.children.{fails}", refuse)
        assert supply.due() is None
    assert len(os.listdir("/proc/self/fd")) == before
    assert set(children.read_text().split()) <= set(others.split())
    assert supply.due() is None  # its wait is not over
    clock.advance_ms(300.0)
    found = supply.due()
    assert found is not None
    supply.end(found)
    assert supply.restarts == 1


def test_a_source_that_cannot_be_started_again_is_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    started = []

    def start(*_arguments: object, **_options: object) -> str:
        started.append(1)
        if len(started) == 1:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        return "a child"

    monkeypatch.setattr("stream.source_side.Child", start)
    clock = FakeClock()
    side = SourceSide(clock, dict)
    side.plan(-9)
    clock.advance_ms(300.0)
    side.start_if_due()
    assert (side.child, side.why) == (None, "the source process cannot be started: Too many open files")
    clock.advance_ms(600.0)
    side.start_if_due()
    assert side.child == "a child"  # type: ignore[comparison-overlap]
