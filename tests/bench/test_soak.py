"""`bench soak`: hours in constant memory, and what drifts."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.config import SoakConfig
from bench.soak_client import SoakTally
from bench.soak_report import about, drifts, format_soak, soak_report
from stream.frame import Reason, State
from stream.timing import NS_PER_MS, Stage

SOAK = [
    sys.executable,
    "-m",
    "contrastream",
    "bench",
    "soak",
    "--compressed",
    "--size",
    "64",
    "--engine",
    "off",
]


def stamps(number: int, latency_ms: float) -> tuple[int, ...]:
    due = 1_000_000_000 + number * 33 * NS_PER_MS
    return tuple(due + round(share * latency_ms * NS_PER_MS) for share in (0.0, 0.1, 0.2, 0.8, 0.9, 1.0))


def windows(p50_ms: "np.ndarray") -> list[dict[str, Any]]:
    return [
        {"frames": 100 * (at + 1), "latency_ms": {"p50": float(value)}} for at, value in enumerate(p50_ms)
    ]


def points(kib: "np.ndarray", *, pids: "list[int] | None" = None) -> list[dict[str, Any]]:
    return [
        {
            "frames": 100 * (at + 1),
            "processes": {
                "engine": {
                    "pid": pids[at] if pids else 7, "anonymous_kib": float(value), "descriptors": 9.0, "threads": 4.0,
                }
            },
        }
        for at, value in enumerate(kib)
    ]  # fmt: skip


def verdicts(rows: list[dict[str, Any]]) -> dict[str, str]:
    return {row["name"]: row["verdict"] for row in rows}


def test_the_client_counts_every_frame_by_state_and_window() -> None:
    tally = SoakTally(100, Stage.DUE)
    ends = []
    for number in range(250):
        late = number % 10 == 0
        state = State.PASSTHROUGH if late else State.SYNTHETIC
        reason = Reason.DEADLINE if late else Reason.NONE
        ends.append(tally.add(state, reason, number + (3 if number >= 200 else 0), stamps(number, 10.0)))
    said = json.loads(json.dumps(tally.as_dict()))
    assert [at for at, end in enumerate(ends) if end] == [99, 199]
    assert (said["frames"], said["lost"]) == (250, 3)
    assert (said["states"]["SYNTHETIC"], said["passthrough"]) == (225, {"deadline": 25})
    assert said["latency_ms"]["p50"] == pytest.approx(10.0, rel=0.011)
    assert said["stages_ms"]["engine"]["p50"] == pytest.approx(6.0, rel=0.011)
    assert [window["frames"] for window in said["windows"]] == [100, 200]


def test_compressed_latency_runs_from_the_grab() -> None:
    tally = SoakTally(100, Stage.GRABBED)
    tally.add(State.SYNTHETIC, Reason.NONE, 0, stamps(0, 10.0))
    assert tally.as_dict()["latency_ms"]["p50"] == pytest.approx(9.0, rel=0.011)


def test_what_rises_is_named_and_what_is_flat_is_not() -> None:
    random = np.random.default_rng(0)
    noise = random.normal(0.0, 0.1, 100)
    steady = verdicts(drifts(windows(10.0 + noise), points(5000.0 + 10 * noise), 10.0))
    assert set(steady.values()) == {"flat"}
    rising = verdicts(
        drifts(windows(10.0 + noise + np.arange(100) * 0.2), points(5000.0 + 40.0 * np.arange(100)), 10.0)
    )
    assert rising["latency, p50 of a window"] == "RISES"
    assert rising["engine: anonymous memory"] == "RISES"
    assert rising["engine: threads"] == "flat"


def test_a_wide_interval_is_no_verdict() -> None:
    wild = 10.0 + np.random.default_rng(0).normal(0.0, 30.0, 20)
    assert verdicts(drifts(windows(wild), [], 10.0)) == {"latency, p50 of a window": "cannot tell"}


def test_few_windows_are_no_verdict() -> None:
    assert verdicts(drifts(windows(np.full(5, 10.0)), [], 10.0)) == {
        "latency, p50 of a window": "cannot tell: too few windows"
    }


def test_an_engine_that_was_started_again_is_judged_by_its_last_life() -> None:
    memory = np.concatenate([np.full(50, 9000.0), np.full(50, 100.0)])
    rows = drifts([], points(memory, pids=[1] * 50 + [2] * 50), None)
    assert {row["name"]: row["slope"] for row in rows}["engine: anonymous memory"] == pytest.approx(0.0)


def test_a_frame_that_nobody_accounts_for_is_shown() -> None:
    counters = {"due": 1000, "published": 990, "repeated": 4, "dropped": {"ring_full": 5}}
    status = {"counters": counters, "ended": True}
    seen = SoakTally(100, Stage.DUE).as_dict()
    report = soak_report(about(SoakConfig(frames=1000), 100), seen, [], status)
    assert report["complete"] is True
    assert report["unaccounted"] == 1
    assert "1 unaccounted for" in format_soak(report)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        pytest.param({"frames": 10}, "a soak needs 1000 frames or more, got 10", id="few"),
        pytest.param({"hours": 1.0, "frames": 5000}, "say the same in two ways", id="both"),
        pytest.param({"hours": float("inf")}, "--hours must be above 0", id="for ever"),
        pytest.param({"rate": 0.0}, "--rate must be above 0", id="rate"),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused(setting: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        SoakConfig(**setting)


def test_hours_are_frames_at_the_rate() -> None:
    assert SoakConfig(hours=0.5, rate=15.0).total_frames == 27_000
    assert SoakConfig().total_frames == 100_000


@pytest.mark.slow
def test_a_compressed_soak_runs_to_its_end_without_a_loss(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    done = subprocess.run(
        [*SOAK, "--frames", "6000", "--out", str(out)], capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr
    made = json.loads(out.read_text())
    assert made["complete"] is True
    assert (made["client"]["frames"], made["client"]["lost"], made["unaccounted"]) == (6000, 0, 0)
    assert len(made["client"]["windows"]) == 60
    assert any({"guard", "source"} <= set(point["processes"]) for point in made["usage"])
    table, page = out.with_suffix(".md").read_text(), out.with_suffix(".html").read_text()
    assert "| client, latency | 6000 |" in table
    assert "| guard: anonymous memory |" in table
    assert "as fast as they go without a loss" in table
    assert "Latency through the run, by window" in page
    assert "Memory of each process" in page
    assert "What became of 6000 frames" in page


@pytest.mark.slow
def test_ctrl_c_gives_the_whole_report_so_far(tmp_path: Path) -> None:
    out = tmp_path / "soak.json"
    process = subprocess.Popen(
        [*SOAK, "--frames", "1000000", "--out", str(out)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if "PASSTHROUGH(off)" in line:
            break
    process.send_signal(signal.SIGINT)
    printed, _ = process.communicate(timeout=60)
    assert process.returncode == 130
    assert printed.startswith("INCOMPLETE")
    assert json.loads(out.read_text())["complete"] is False
