"""`bench engine`: serial and saturated are never mixed, and stand beside the machine's limits."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bench.config import EngineConfig
from bench.engine import bench_engine, engine_report, format_engine, measure_engine
from bench.errors import BenchError
from bench.machine import describe

FACTS: dict[str, Any] = {
    "complete": True,
    "workload": {
        "name": "engine",
        "source": "phantom",
        "rows": 512,
        "columns": 512,
        "bits_stored": 8,
        "slots": 2,
        "rounds": 2,
        "threads": None,
        "left_out": "none",
    },
    "engine": {"backend": "openvino", "precision": "f32", "model_sha256": "ab" * 32, "taught": True},
    "gpu": {"gpu": None, "why": "CPU"},
    "steal_share": 0.01,
}


def report(frames: int) -> dict[str, Any]:
    """Two rounds: 10 and 12 ms serial, 18 ms each saturated at 100 and 110 per second."""
    limits = {"machine": {"gflops": 100.0, "gbytes_per_s": 10.0}, "network": {"gmac": 0.5, "mbytes": 4.0}}
    slower = {"machine": {"gflops": 50.0, "gbytes_per_s": 12.0}, "network": {"gmac": 0.5, "mbytes": 4.0}}
    return engine_report(
        EngineConfig(),
        {**FACTS, "machine": describe()},
        [np.full(frames, 10.0), np.full(frames, 12.0)],
        [np.full(frames, 18.0)] * 2,
        [100.0, 110.0],
        [limits, slower],
    )


def test_rounds_are_shown_one_by_one_and_together() -> None:
    made = report(500)
    assert made["serial_ms"]["n"] == 1000
    assert made["serial_median_ms_by_round"] == [10.0, 12.0]
    assert made["saturated_fps"] == 105.0
    assert made["saturated_ms"]["p50"] == 18.0
    assert json.loads(json.dumps(made)) == made


def test_the_limit_is_the_best_the_machine_showed_in_any_round() -> None:
    made = report(500)
    assert made["machine_limits"] == {"gflops": 100.0, "gbytes_per_s": 12.0}
    assert made["least_ms"]["by_flop"] == pytest.approx(10.0)
    assert made["serial_median_times_least"] == pytest.approx(1.1)


def test_too_few_inferences_give_no_p99() -> None:
    assert report(100)["serial_ms"]["p99"] is None
    assert "p99 wants 1,000 inferences" in format_engine(report(100))


def test_a_run_that_was_stopped_before_its_first_round_has_no_figures() -> None:
    made = engine_report(EngineConfig(), {**FACTS, "machine": describe(), "complete": False}, [], [], [], [])
    assert made["serial_ms"]["p50"] is None
    assert format_engine(made).startswith("INCOMPLETE")


def test_a_real_engine_runs_serial_and_saturated(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "engine.json"
    config = EngineConfig(size=64, model="compact-s", threads=1, frames=8, rounds=2, out=out)
    assert bench_engine(config) == 0
    made = json.loads(out.read_text())
    assert made["complete"] is True
    assert made["serial_ms"]["n"] == made["saturated_ms"]["n"] == 8
    assert made["saturated_fps"] > 0
    assert made["network"]["gmac"] > 0.1
    printed = capsys.readouterr().out
    assert "saturated, frames per second" in printed
    assert "not a medical device" in printed
    assert re.search(
        r"^\[I\] Throughput: [0-9.]+ qps\n\[I\] Latency: min = [0-9.]+ ms, max = ", printed, re.MULTILINE
    )


def test_a_model_that_is_not_there_is_the_engine_s_own_sentence() -> None:
    with pytest.raises(BenchError, match="needed a model file, found none at"):
        measure_engine(EngineConfig(size=64, model="no-such-model"))
