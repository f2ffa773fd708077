"""An archive over a cluster that runs already. No part of `make test`, for which it is too long: pytest tests/stream/archive/check_cluster.py"""

import contextlib
import os
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from .test_cluster import free_port, kill_a_worker, place, wait_for

pytestmark = pytest.mark.timeout(600)
__all__ = ["place"]


@contextlib.contextmanager
def running_cluster(folder: Path, env: dict[str, str]) -> Iterator[str]:
    """A cluster that `ray start --head` began, as somebody else's would be; its address."""
    address = f"127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2", f"--port={address[10:]}",
               "--include-dashboard=false", f"--temp-dir={folder}", f"--object-store-memory={80 << 20}"]  # fmt: skip
    head = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        # It answers before its machine is in it; the driver waits for that.
        status = [sys.executable, "-m", "ray.scripts.scripts", "status", f"--address={address}"]
        answering = {**env, "RAY_AUTH_MODE": "token"}
        wait_for(lambda: subprocess.run(status, env=answering, capture_output=True).returncode == 0)
        yield address
    finally:
        head.terminate()
        head.wait(60)


def test_a_worker_of_a_cluster_that_wants_a_token_is_killed_and_no_loop_is_lost_or_made_twice(
    place: Path, model: str, loop_frames: np.ndarray
) -> None:
    (place / "token").write_text(secrets.token_hex(32))
    env = {
        **os.environ,
        "TMPDIR": str(place),
        "RAY_AUTH_TOKEN_PATH": str(place / "token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    with running_cluster(place / "ray", env) as address:
        kill_a_worker(place, model, loop_frames, env, address, "--workers", "2")
