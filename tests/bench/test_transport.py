"""`bench transport`: ring and wire without an engine, paced and saturated, never mixed."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bench.config import TransportConfig
from bench.machine import describe
from bench.transport import format_transport


@pytest.mark.slow
def test_a_real_run_is_paced_beside_its_floor_and_saturated(tmp_path: Path) -> None:
    out = tmp_path / "transport.json"
    command = [sys.executable, "-m", "contrastream", "bench", "transport", "--size", "64"]
    done = subprocess.run(
        [*command, "--client", "memory", "--rate", "50", "--frames", "20", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(out.read_text())
    assert made["complete"] is True
    assert [(row["rows"], row["client"]) for row in made["rows"]] == [(64, "memory")]
    for row in made["rows"]:
        assert 0 < row["latency_ms"]["n"] <= 20  # a machine that stalls may pass a frame over, and counts it
        assert row["floor_ms"]["n"] > 0
        assert row["floor_ratio"]["value"] > 0
        assert row["unexplained"] == 0
        # As fast as it goes is faster than its pace, or it was not saturated.
        assert row["saturated"]["fps"] > 50
        assert row["paced"]["frames"]["passthrough"] == {"off": row["paced"]["frames"]["published"]}
        assert row["paced"]["stages_ms"]["engine"]["n"] == 0
    assert made["rows"][0]["paced"]["allocations"]
    assert "not a medical device" in done.stdout


def test_a_single_frame_is_no_loop_to_measure(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "one.png"), np.zeros((64, 64), np.uint8))
    command = [sys.executable, "-m", "contrastream", "bench", "transport", str(tmp_path / "one.png")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert done.returncode == 2
    assert "needs a loop of two frames or more, got a single frame" in done.stderr


def test_a_run_stopped_before_its_first_row_leaves_a_report(tmp_path: Path) -> None:
    out = tmp_path / "transport.json"
    command = [sys.executable, "-m", "contrastream", "bench", "transport", "--size", "64", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if "the pipeline" in line:
            break
    process.send_signal(signal.SIGINT)
    printed, said = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert printed.startswith("INCOMPLETE")
    made = json.loads(out.read_text())
    assert (made["complete"], made["source"], made["rows"]) == (False, "phantom", [])


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param({"size": ()}, "--size must be 64 to 2048 pixels a side, got none", id="no size"),
        pytest.param({"size": (512, 32)}, "--size must be 64 to 2048 pixels a side", id="too small"),
        pytest.param({"client": ()}, "--client must be wire, memory or both, got none", id="no client"),
        pytest.param({"rate": 0.0}, "--rate must be above 0", id="rate 0"),
        pytest.param({"frames": 0}, "--frames must be 1 or more, got 0", id="no frames"),
        pytest.param({"out": Path("/nowhere/a.json")}, "--out needs an existing folder", id="no folder"),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TransportConfig(**setting)


def test_a_run_that_was_cut_short_says_so() -> None:
    assert format_transport(
        {"complete": False, "machine": describe(), "source": "phantom", "rows": []}
    ).startswith("INCOMPLETE")
