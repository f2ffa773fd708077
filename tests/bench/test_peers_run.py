"""`bench peers` through the command: real processes, few frames. What it measures here is not judged."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from bench.contestant import COLUMNS, KINDS, Block, ProcessContestant
from bench.errors import BenchError
from stream.control import format_to_json
from stream.frame import FrameFormat


def bench_peers(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "contrastream", "bench", "peers", *arguments],
        capture_output=True,
        text=True,
        timeout=110,
        env={**os.environ, "XDG_RUNTIME_DIR": str(folder)},
    )


@pytest.mark.slow
def test_every_contestant_that_is_installed_does_the_same_work_and_the_others_are_named(
    tmp_path: Path,
) -> None:
    out = tmp_path / "peers.json"
    small = ("--size", "64", "--model", "compact-s", "--threads", "1", "--rate", "60")
    process = bench_peers(tmp_path, *small, "--frames", "12", "--rounds", "2", "--out", str(out))
    assert process.returncode == 0, process.stderr
    report = json.loads(out.read_text())
    assert report["complete"] is True
    for name, package in (("loop", "imagezmq"), ("holoscan", "holoscan"), ("pyzmq", "zmq"), ("ours", "zmq")):
        if importlib.util.find_spec(package) is None:
            assert report["skipped"][name] == f"{package} is not installed; run: pip install -e '.[peers]'"
            assert f"left out: {package} is not installed" in process.stdout
            continue
        seen = report["contestants"][name]
        assert seen["frames"] == 12
        assert seen["lost"] == 0
        assert seen["versions"]
        assert seen["cpu_ms_per_frame"] > 0
        assert set(seen["cpu_ms_per_frame_by_process"]) == (
            {"main", "source", "engine", "client"} if name == "ours" else {"main", "client"}
        )
        assert seen["pacing_ms"]["min"] >= 0
        if name == "ours":  # the one that leaves a frame live when the engine is late
            assert seen["latency_whole_ms"]["n"] + seen["live_only"] == 12
        else:
            assert seen["live_only"] == 0
            assert seen["latency_ms"]["p50"] > seen["engine_ms"]["p50"] > 0
            assert seen["latency_ms"]["p99"] is None
    assert report["same_planes"] is not False
    assert report["engine"]["taught"] is True
    assert "| contrastream (isolated processes) | 12 |" in out.with_suffix(".md").read_text()


def test_a_contestant_whose_process_dies_says_so(tmp_path: Path) -> None:
    np.save(tmp_path / "frames.npy", np.random.default_rng(0).integers(0, 256, (3, 64, 64)).astype(np.uint8))
    config = {
        "format": format_to_json(FrameFormat(64, 64)),
        "frames": str(tmp_path / "frames.npy"),
        "rate_hz": 60.0,
        "engine": {"model": "compact-s", "backend": "auto", "untaught": True, "threads": 1},
    }
    contestant = ProcessContestant(next(kind for kind in KINDS if kind.name == "pyzmq"), config, tmp_path)
    try:
        contestant.open()
        contestant.run(Block(time.monotonic_ns() + 10**8, 4, 1, 1e9 / 60), measured=True)
        assert contestant.seen.frames.shape == (3, len(COLUMNS))
        os.kill(contestant._sender.pid, signal.SIGKILL)
        with pytest.raises(BenchError, match=r"the bench\.peer_pyzmq process ended"):
            contestant.run(Block(time.monotonic_ns() + 10**8, 4, 1, 1e9 / 60), measured=True)
    finally:
        contestant.close()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("/nowhere/loop.dcm",), "/nowhere/loop.dcm: needed phantom", id="no source"),
        pytest.param(("--size", "64", "--model", "none"), "needed a model file", id="no such model"),
        pytest.param(("--rate", "0"), "--rate must be above 0", id="rate 0"),
    ],
)
def test_what_cannot_be_compared_ends_with_2(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    process = bench_peers(tmp_path, *arguments)
    assert process.returncode == 2
    assert said in process.stderr
    assert process.stdout == ""
