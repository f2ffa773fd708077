"""How a run ends when it is told to, and what a supervisor hears of it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tyro
import zmq

import contrastream as door
from stream.healthcheck import healthcheck
from stream.wire import pack_status

ROOT = Path(__file__).resolve().parents[2]
UNIT = ROOT / "docs" / "systemd" / "contrastream.service"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_signal_ends_a_run_within_2_s_with_status_0_and_nothing_left(
    endpoint: str,
    tmp_path: Path,
    start: Callable[..., Any],
    record: Callable[..., Any],
    number: signal.Signals,
) -> None:
    client = record(endpoint)
    run = start("run", "phantom", "--size", "64", "--rate", "30", "--model", "compact-s", "--endpoint", endpoint,
                "--audit-folder", str(tmp_path / "audit"))  # fmt: skip
    client.wait_for(
        lambda line: line["what"] == "frame" and line["state"] == "SYNTHETIC", what="a synthetic frame"
    )
    children = run.children()
    at = time.monotonic()
    run.process.send_signal(number)
    printed = run.finish(within_s=10.0)
    took_s = time.monotonic() - at
    assert run.process.returncode == 0, printed
    assert took_s < 2.0
    assert "published" in printed
    assert [pid for pid in children if Path(f"/proc/{pid}").exists()] == []
    assert sorted(path.name for path in tmp_path.glob("stream*")) == []
    # The frames that had been decided have left; the last heartbeat says that it is over.
    last = client.wait_for(
        lambda line: line["what"] == "heartbeat" and line["ended"], within_s=2.0, what="the last heartbeat"
    )
    assert "stopped" not in last["counters"]["dropped"]


@pytest.mark.timeout(120)
def test_the_frames_in_hand_go_out_before_a_run_ends(
    endpoint: str, start: Callable[..., Any], record: Callable[..., Any]
) -> None:
    # Without a deadline some frames wait for the engine at every instant.
    client = record(endpoint)
    run = start("replay", "phantom", "--frames", "100000", "--speed", "max", "--lossless", "--size", "256", "--endpoint", endpoint)  # fmt: skip
    client.wait_for(
        lambda line: line["what"] == "frame" and line["sequence"] > 20, within_s=60, what="frames"
    )
    run.process.send_signal(signal.SIGTERM)
    run.finish(within_s=20.0)
    assert run.process.returncode == 0
    last = client.wait_for(
        lambda line: line["what"] == "heartbeat" and line["ended"], what="the last heartbeat"
    )
    assert last["counters"]["synthetic"] > 0
    assert "stopped" not in last["counters"]["dropped"]
    assert last["counters"]["due"] == last["counters"]["published"] + last["counters"]["repeated"]


def ask(endpoint: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "contrastream", "run", "--healthcheck", "--endpoint", endpoint],
        cwd=ROOT, capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_a_supervisor_hears_of_a_run_that_lives_that_hangs_and_that_is_gone(
    endpoint: str, start: Callable[..., Any], record: Callable[..., Any]
) -> None:
    client = record(endpoint)
    run = start("run", "phantom", "--engine", "off", "--size", "64", "--endpoint", endpoint)
    client.wait_for(lambda line: line["what"] == "frame", what="a frame")
    alive = ask(endpoint)
    assert alive.returncode == 0, alive
    assert re.fullmatch(
        rf"healthy: PASSTHROUGH\(off\), [\d.]+ frames/s out, process {run.process.pid}\n", alive.stdout
    )
    os.kill(run.process.pid, signal.SIGSTOP)
    try:
        hung = ask(endpoint)
    finally:
        os.kill(run.process.pid, signal.SIGCONT)
    assert (hung.returncode, hung.stderr) == (1, "")
    assert hung.stdout.startswith("not healthy: ")
    run.end()
    gone = ask(endpoint)
    assert (gone.returncode, gone.stdout.startswith("not healthy: no heartbeat within 2 s")) == (1, True)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        (b"GARBAGE", "a status message is JSON"),
        (pack_status({"stamp_ns": 1, "state": "STALE"}), "its heartbeat is"),
        (pack_status({"stamp_ns": 1 << 63, "ended": True}), "it has ended"),
    ],
    ids=["no heartbeat", "an old one", "the last one"],
)
def test_what_is_no_fresh_heartbeat_is_not_healthy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], said: bytes, why: str
) -> None:
    with zmq.Context() as context, context.socket(zmq.XPUB) as publisher:
        publisher.bind(f"ipc://{tmp_path}/s.status")
        publisher.setsockopt(zmq.XPUB_VERBOSE, 1)

        def send() -> None:
            publisher.recv()  # its subscription
            publisher.send(said)

        sending = threading.Thread(target=send)
        sending.start()
        assert healthcheck(f"ipc://{tmp_path}/s") == 1
        sending.join()
    assert why in capsys.readouterr().out


def test_run_without_a_source_says_what_it_needs() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "contrastream", "run"], cwd=ROOT, capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stderr) == (
        2, "contrastream: needed a source, got none; for example: contrastream run phantom\n",
    )  # fmt: skip


def test_the_systemd_unit_s_commands_are_commands_of_ours() -> None:
    text = UNIT.read_text()
    commands = re.findall(r"/contrastream/\.venv/bin/contrastream ([^\n]*?)(?: &&|$)", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        parsed = tyro.cli(
            door.Command,
            args=command.split(),
            config=(tyro.conf.OmitSubcommandPrefixes, tyro.conf.OmitArgPrefixes),
        )
        assert type(parsed).__name__ == "RunConfig"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_the_systemd_unit_is_one(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/contrastream/.venv/bin/contrastream", "/bin/true"))
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=30
    )
    assert [line for line in done.stderr.splitlines() if "contrastream.service" in line] == []
