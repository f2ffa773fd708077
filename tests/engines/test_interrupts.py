"""Ctrl-C while a plan is built, in a process of its own: libraries that other tests load change how a signal reaches this one."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("tensorrt_rtx", reason="plans are built by TensorRT-RTX; extra trtrtx")


@pytest.mark.slow
def test_ctrl_c_ends_a_build_is_not_lost_and_leaves_nothing() -> None:
    inside = Path(__file__).with_name("interrupted_builds.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(inside)],
        cwd=inside.parents[2],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 passed" in done.stdout
