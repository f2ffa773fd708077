"""`bench scale`: how many streams keep up."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.config import ScaleConfig
from bench.errors import BenchError
from bench.machine import describe
from bench.scale import WARM_UP, format_scale, step_row
from stream.frame import Reason, State
from stream.measure import Measured
from stream.timing import NS_PER_MS, NS_PER_S

PERIOD_NS = NS_PER_S // 20
STATUS: dict[str, Any] = {"counters": {"passed_over": 2, "dropped": {}}}


def stream(
    frames: int = 200, *, start_ns: int = 0, missed: int = 0, untaught: bool = False, latency_ms: float = 9.0
) -> Measured:
    """A client that saw a stream at 20 frames per second; `missed` frames after the warm-up had no synthesis."""
    numbers = np.arange(frames, dtype=np.uint64)
    due = NS_PER_S + start_ns + np.arange(frames, dtype=np.int64) * PERIOD_NS
    steps = np.array([0.0, 0.2, 0.4, 8.0, 8.5, latency_ms]) * NS_PER_MS
    stamps = (due[:, None] + np.round(steps).astype(np.int64)).astype(np.uint64)
    state = np.full(frames, State.PASSTHROUGH if untaught else State.SYNTHETIC, np.uint8)
    reason = np.full(frames, Reason.UNTAUGHT if untaught else Reason.NONE, np.uint8)
    late = slice(WARM_UP + 20, WARM_UP + 20 + missed)
    state[late], reason[late] = State.PASSTHROUGH, Reason.DEADLINE
    return Measured(numbers, numbers, state, reason, stamps)


def row(*streams: Measured) -> dict[str, Any]:
    return step_row(list(streams), ScaleConfig(rate=20.0), [STATUS] * len(streams))


def test_streams_that_draw_every_frame_keep_up() -> None:
    made = row(stream(), stream(untaught=True))
    assert made["keeps_up"] is True
    assert made["least_in_time_share"] == 1.0
    assert made["worst_p50_ms"] == pytest.approx(9.0)
    assert made["synthesized_fps"] == pytest.approx(40.0, rel=0.02)


def test_one_stream_that_misses_is_enough() -> None:
    made = row(stream(), stream(missed=10))
    assert made["keeps_up"] is False
    assert [round(each["in_time_share"], 3) for each in made["rooms"]] == [1.0, round(1 - 10 / 140, 3)]


def test_a_frame_that_never_came_counts_as_missed() -> None:
    whole = stream()
    holes = np.ones(200, bool)
    holes[100:120] = False
    made = row(whole, Measured(*(getattr(whole, name)[holes] for name in Measured.__dataclass_fields__)))
    assert made["rooms"][1]["frames"] == 140
    assert made["rooms"][1]["in_time_share"] == pytest.approx(120 / 140)
    assert made["keeps_up"] is False


def test_only_the_time_in_which_all_run_is_measured() -> None:
    made = row(stream(), stream(start_ns=40 * PERIOD_NS))
    assert made["overlap_s"] == pytest.approx((200 - WARM_UP - 40 - 1) / 20.0)
    assert all(each["frames"] == 200 - WARM_UP - 40 for each in made["rooms"])


def test_streams_that_never_ran_together_are_an_error() -> None:
    with pytest.raises(BenchError, match="the streams did not run at the same time"):
        row(stream(), stream(start_ns=400 * PERIOD_NS))


def test_a_stream_without_a_frame_is_an_error() -> None:
    with pytest.raises(BenchError, match="saw none of its frames"):
        row(stream(), stream(frames=10))


@pytest.mark.slow
def test_two_real_streams_are_measured_by_a_client_each(tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    command = [sys.executable, "-m", "contrastream", "bench", "scale", "--size", "64", "--model", "compact-s"]
    done = subprocess.run(
        [*command, "--rate", "30", "--streams", "1", "2", "--frames", "20", "--out", str(out)],
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(out.read_text())
    assert made["complete"] is True
    assert made["steps"][0]["streams"] == 1
    assert all(len(step["rooms"]) == step["streams"] for step in made["steps"])
    assert "Frames in time, of the stream that fared worst" in out.with_suffix(".html").read_text()
    assert "not a medical device" in done.stdout


def test_a_limit_that_was_not_found_is_said() -> None:
    made: dict[str, Any] = {
        "complete": True,
        "machine": describe(),
        "workload": {
            "source": "phantom", "size": 64, "rate_hz": 20.0, "frames": 140, "warmup": WARM_UP, "keeps_up": "98 %",
        },
        "engine": {},
        "steps": [{**row(stream()), "busy_cores": 1.0, "steal_share": None}],
        "streams_kept_up": 1,
        "limit_found": False,
    }  # fmt: skip
    assert "1 stream kept up (98 %), and the limit was not found: try more with --streams." in format_scale(
        made
    )
