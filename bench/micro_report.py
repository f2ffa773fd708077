"""pytest-benchmark's file as samples, so that `bench compare` judges it like any other run."""

from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.samples import Samples

FLOOR = "floor"
"""The benchmark that measures the machine alone has this word in its name."""
MS_PER_S = 1e3


def is_pytest_benchmark(document: dict[str, Any]) -> bool:
    """Whether a JSON document was written by `pytest --benchmark-json`."""
    return "benchmarks" in document and "machine_info" in document


def from_pytest_benchmark(document: dict[str, Any], path: Path) -> tuple[dict[str, Any], Samples]:
    """The rounds of every benchmark as series in ms, the floor's as the floor.

    Raises:
        BenchError: The rounds themselves were not kept.
    """
    series: dict[str, np.ndarray] = {}
    for benchmark in document["benchmarks"]:
        rounds = benchmark["stats"].get("data")
        if not rounds:
            raise BenchError(
                f"needed every round's time in {path}, got only the summary of {benchmark['name']}; add --benchmark-save-data"
            )
        name = str(benchmark["name"]).removeprefix("test_")
        place = "floor/floor_ms" if FLOOR in name else f"{name}_ms"
        series[place] = np.array(rounds, np.float64) * MS_PER_S
    machine = document["machine_info"]
    cpu = machine.get("cpu") or {}
    report = {
        "schema": "pytest-benchmark",
        "workload": {"name": "micro"},
        "machine": {
            "cpu": {
                "model": cpu.get("brand_raw"),
                "cores": cpu.get("count"),
                "flags": [],
                "hypervisor": False,
            },
            "memory_gib": None,
            "gpus": [],
            "system": machine.get("system"),
            "kernel": machine.get("release"),
            "python": machine.get("python_version"),
            "load_average": [None],
            "scheduling": "not told by pytest-benchmark",
        },
    }
    return report, Samples(series=series)
