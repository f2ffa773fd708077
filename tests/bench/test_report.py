"""The report, from a run that was made up, so that every figure is known."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from bench.config import LiveConfig
from bench.live import Run, plan_blocks
from bench.machine import describe
from bench.report import build_report
from bench.report_table import format_table
from stream.measure import Measured

WARM_UP = 20
SERIAL_MS, ENGINE_MS, OVERHEAD_MS = 9.0, 10.0, 1.2
MadeUp = Callable[..., Run]
DESIGN_KEYS = {
    "schema",
    "workload",
    "machine",
    "engine",
    "frames",
    "fps",
    "latency_ms",
    "stages_ms",
    "pacing_ms",
    "late",
    "steal_ms",
    "witness_ms",
}


def _target(report: dict[str, Any], words: str) -> dict[str, Any]:
    return next(row for row in report["targets"] if words in row["name"])


def test_every_key_of_the_design_is_in_the_report(made_up_run: MadeUp) -> None:
    report = build_report(made_up_run(1000))
    assert set(report) >= DESIGN_KEYS
    assert set(report["workload"]) >= {"source", "rate_hz", "rows", "columns", "frames", "warmup"}
    assert set(report["engine"]) >= {"backend", "model_sha256", "precision"}
    assert set(report["frames"]) >= {
        "due",
        "grabbed",
        "repeated",
        "synthesized",
        "published",
        "received",
        "dropped",
    }
    summary = {"n", "min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max", "sd"}
    assert set(report["latency_ms"]) == set(report["pacing_ms"]) == summary
    assert set(report["stages_ms"]) == {"grab", "submit", "engine", "guard", "transport"}
    assert set(report["late"]) >= {"limit_ms", "count"}
    assert json.loads(json.dumps(report)) == report


@pytest.mark.parametrize(("frames", "has_p99"), [(999, False), (1000, True)], ids=["999", "1000"])
def test_p99_is_null_under_a_thousand_frames(made_up_run: MadeUp, frames: int, has_p99: bool) -> None:
    report = build_report(made_up_run(frames))
    assert report["latency_ms"]["n"] == frames
    assert (report["latency_ms"]["p99"] is not None) == has_p99
    assert report["latency_ms"]["p99.9"] is None
    assert report["latency_ms"]["p50"] == pytest.approx(ENGINE_MS + OVERHEAD_MS)


def test_the_targets_stand_beside_what_was_measured(made_up_run: MadeUp) -> None:
    report = build_report(made_up_run(1000))
    over = _target(report, "over the engine's serial median")
    assert over["value"] == pytest.approx(ENGINE_MS + OVERHEAD_MS - SERIAL_MS)
    assert over["met"] is False
    ratio = _target(report, "times the floor")
    assert ratio["value"] == pytest.approx(1.2)
    assert ratio["met"] is True
    assert _target(report, "inferred in time")["value"] == 1.0
    assert report["floor"]["ratio"]["low"] == pytest.approx(1.2)


def test_pictures_later_than_deadline_and_witness_gap_are_counted_and_listed(made_up_run: MadeUp) -> None:
    report = build_report(made_up_run(1000, late_ms=(20.5, 24.9, 26.0, 31.0)))
    assert report["witness_ms"] == pytest.approx(5.0)
    assert report["late"]["limit_ms"] == pytest.approx(25.0)
    assert (report["late"]["past_deadline"], report["late"]["count"]) == (4, 2)
    assert report["late"]["excess_ms"] == [6.0, 1.0]
    assert _target(report, "later than deadline")["met"] is False
    assert _target(report, "inferred in time")["value"] == pytest.approx(0.996)


def test_a_picture_without_inference_does_not_make_the_inferred_ones_look_fast(made_up_run: MadeUp) -> None:
    report = build_report(made_up_run(1000, late_ms=(0.5,) * 600))
    assert report["latency_ms"]["p50"] == pytest.approx(0.5)
    assert report["latency_inferred_ms"]["p50"] == pytest.approx(ENGINE_MS + OVERHEAD_MS)
    assert _target(report, "over the engine's serial median")["met"] is False


def test_an_untaught_network_is_measured_but_never_counted_as_synthetic(made_up_run: MadeUp) -> None:
    report = build_report(made_up_run(1000, untaught=True))
    assert report["frames"]["synthetic_share"] == 0.0
    assert report["frames"]["inferred_in_time_share"] == 1.0
    assert "UNTAUGHT" in format_table(report)


def test_frames_that_nobody_accounts_for_are_a_target_missed(made_up_run: MadeUp) -> None:
    run = made_up_run(1000)
    assert run.measured is not None
    run.measured = Measured(*(getattr(run.measured, name)[3:] for name in Measured.__dataclass_fields__))
    report = build_report(run)
    assert report["frames"]["unexplained"] == 3
    assert _target(report, "lost unexplained")["met"] is False


def test_a_run_that_was_stopped_early_says_so_and_makes_no_claim() -> None:
    report = build_report(Run(LiveConfig(), 30.0, describe()))
    assert report["complete"] is False
    assert report["latency_ms"]["n"] == 0
    assert all(row["met"] is None for row in report["targets"])
    assert format_table(report).startswith("INCOMPLETE")


@pytest.mark.parametrize(("frames", "expected"), [(1, 1), (60, 30), (2000, 1050), (18000, 9000)])
def test_the_floor_runs_beside_about_half_of_the_frames(frames: int, expected: int) -> None:
    blocks = plan_blocks(WARM_UP, frames)
    assert sum(end - first for first, end in blocks) == expected
    assert all(WARM_UP <= first < end <= WARM_UP + frames for first, end in blocks)


def test_the_gpu_of_each_part_of_a_run_is_in_the_report_and_the_table(made_up_run: MadeUp) -> None:
    run = made_up_run(1000)
    figure = {"min": 1500, "mean": 1745.0, "max": 1980}
    series = {"sm_mhz": figure, "readings": 20, "throttled_readings": {"power cap": 3, "idle": 1}}
    run.gpu = {
        "engine alone, before": {"gpu": None, "why": "the GPU is lost"},
        "pipeline": {"gpu": series, "why": None},
    }
    assert "gpu      " not in format_table(build_report(run)), "a CPU engine's table says nothing of it"
    run.engine["backend"] = "torch"
    report = build_report(run)
    assert report["gpu"] == run.gpu
    table = format_table(report)
    assert "\ngpu      engine alone, before: the GPU is lost\n" in table
    assert "\ngpu      pipeline: 1500 to 1980 MHz in 20 readings; slowed by power cap 3x\n" in table
