"""pytest-benchmark's file as samples, so that `bench compare` judges it like any other run."""

from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.samples import Samples

MS_PER_S = 1e3
MARGIN = 0.25
"""A part of a few microseconds differs by so much between two starts of one program, by where its memory happens to lie."""


def is_pytest_benchmark(document: dict[str, Any]) -> bool:
    """Whether a JSON document was written by `pytest --benchmark-json`."""
    return "benchmarks" in document and "machine_info" in document


def from_pytest_benchmark(document: dict[str, Any], path: Path) -> tuple[dict[str, Any], Samples]:
    """The rounds of every benchmark as series in ms, and what the floor took before each round (`floor_s` of its extra
    information, see tests/bench/micro) as that series' own floor.

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
        said = benchmark.get("extra_info") or {}
        series[f"{name}_ms"] = np.array(rounds, np.float64) * (MS_PER_S / said.get("repeats", 1))
        if len(said.get("floor_s") or ()) == len(rounds):
            series[f"floor/{name}_ms"] = np.array(said["floor_s"], np.float64) * MS_PER_S
    machine = document["machine_info"]
    cpu = machine.get("cpu") or {}
    report = {
        "schema": "pytest-benchmark",
        "margin": MARGIN,
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
