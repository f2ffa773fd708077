"""An archive over Ray: a real cluster of two workers on this machine, one of which is killed; and clusters that are not there."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.archive import cluster
from stream.archive.run import ArchiveRun
from stream.config import SynthesizeConfig
from stream.errors import ClusterError

from .conftest import write_loop
from .test_run import check_hashes, inodes

pytest.importorskip("ray", reason="extra ray")
ROOT = Path(__file__).resolve().parents[3]
LOOPS, FRAMES = 8, 40


@pytest.fixture
def place() -> Iterator[Path]:
    """A folder with a short path, since Ray keeps its sockets below it."""
    with tempfile.TemporaryDirectory(prefix="csp-", dir="/tmp") as folder:
        yield Path(folder)


def wait_for(holds: Callable[[], bool], within_s: float = 100.0) -> None:
    over = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < over
        time.sleep(0.02)


def kill_in_the_middle(made: Path) -> bool:
    """Kill the worker that makes a loop, if it has written frames of it and is not done."""
    worker = int(made.name.split("-")[1])
    with contextlib.suppress(ProcessLookupError):
        os.kill(worker, signal.SIGSTOP)  # so that it does not end the loop between the look and the kill
        caught = any(made.glob("*/frame_*.png"))
        os.kill(worker, signal.SIGKILL if caught else signal.SIGCONT)
        return caught
    return False


@pytest.mark.slow
def test_a_worker_that_is_killed_loses_no_loop_and_none_is_made_twice(
    place: Path, model: str, loop_frames: np.ndarray
) -> None:
    kill_a_worker(place, model, loop_frames, dict(os.environ), "local:2")
    assert list(place.glob("csr-*")) == []  # nothing of Ray stays


def kill_a_worker(place: Path, model: str, loop_frames: np.ndarray, env: dict[str, str], *ray: str) -> None:
    """Have loops made by two workers, one of which is killed when it has written frames of a loop."""
    lab, out = place / "DOE^JANE", place / "out"
    for number in range(LOOPS):
        write_loop(lab / f"MILLER^ANN{number}", np.roll(loop_frames[:FRAMES], number + 1, 1))
    command = [sys.executable, "-m", "contrastream", "synthesize", str(lab), "--out", str(out), "--model", model,
               "--no-film", "--ray", *ray]  # fmt: skip
    process = subprocess.Popen(
        command, cwd=ROOT, env={**env, "TMPDIR": str(place)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )  # fmt: skip
    try:
        # In the middle: some loops lie in their place, and this worker has written frames of another.
        wait_for(lambda: process.poll() is not None or ((out / "loops").is_dir() and len(inodes(out)) >= 2))
        killed = False
        while not killed:
            assert process.poll() is None, process.communicate()[0]
            killed = any(kill_in_the_middle(made) for made in (out / ".partial").glob("*-*-*"))
        before = inodes(out)
        assert len(before) < LOOPS
        wait_for(lambda: len(inodes(out)) > len(before) or process.poll() is not None)
        logs = [path for path in place.glob("*/session_*/logs/**/*") if path.is_file()]
        leaks = [path for path in logs if b"DOE^JANE" in (data := path.read_bytes()) or b"MILLER" in data]
        printed, _ = process.communicate(timeout=100)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0, printed
    assert f"loops    {LOOPS} found: {LOOPS} made, 0 were there already, 0 failed" in printed
    assert "2 workers in a Ray cluster of 1 machine" in printed
    assert "lost     1 begun by a worker that was lost" in printed
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["complete"] is True
    assert len({loop["sha256"] for loop in manifest["loops"]}) == len(manifest["loops"]) == LOOPS
    assert {Path(loop["folder"]).name for loop in manifest["loops"]} == set(inodes(out))
    assert {loop["frames"] for loop in manifest["loops"]} == {FRAMES}
    assert {name: inode for name, inode in inodes(out).items() if name in before} == before
    check_hashes(out, manifest)
    assert manifest["runs"][0]["lost_with_their_worker"] == 1
    assert logs
    assert leaks == []


def free_port() -> int:
    with contextlib.closing(socket.socket()) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@pytest.mark.parametrize(
    ("address", "said"),
    [
        (
            "127.0.0.1:{port}",
            r"--ray 127\.0\.0\.1:\d+: needed a Ray cluster, got: Connection refused; start one",
        ),
        ("local:0", "--ray needs local:N with 1 to 64 workers, HOST:PORT or auto, got local:0"),
        ("local", "--ray needs local:N with 1 to 64 workers"),
        ("ray://127.0.0.1:10001", "--ray needs local:N, HOST:PORT or auto, got ray://"),
        ("nonsense", "--ray needs local:N, HOST:PORT or auto, got nonsense; for example"),
    ],
)
def test_a_cluster_that_is_not_there_is_said(address: str, said: str) -> None:
    config = SynthesizeConfig(sources=("a",), out=Path("b"))
    with pytest.raises(ClusterError, match=said):
        cluster.Cluster(address.format(port=free_port()), config, threading.Event())


def test_a_port_where_something_else_listens_is_said_and_nothing_is_left(
    lab: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "READY_S", 0.5)
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        config = SynthesizeConfig(sources=(str(lab),), out=tmp_path / "out", model=model, ray=address)
        with pytest.raises(ClusterError, match="needed a Ray cluster, and none answered within"):
            ArchiveRun(config).run()
    assert not (tmp_path / "out").exists()


def test_ctrl_c_ends_the_wait_for_a_cluster_that_does_not_answer(
    lab: Path, tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cluster, "READY_S", 1000.0)  # the test's own limit is far below
    with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as other:
        address = f"127.0.0.1:{other.getsockname()[1]}"
        run = ArchiveRun(
            SynthesizeConfig(sources=(str(lab),), out=tmp_path / "out", model=model, ray=address)
        )
        pressed = threading.Timer(1.0, run.stop)
        pressed.start()
        assert run.run() == 130
        pressed.join()
