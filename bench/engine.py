"""`contrastream bench engine`: the engine with nothing around it, serial and saturated, beside the machine's own limits.

Serial: each inference waits for the one before, which is what a frame waits for in the live path. Saturated: every
slot is full, which is what the machine can draw per second. The two are never mixed. They take turns, so that what
the machine does in a bad minute hits both.
"""

import math
import sys
from typing import Any

import numpy as np

from bench import machine
from bench.alone import ENGINE_SLOTS, Alone
from bench.config import EngineConfig
from bench.flow_log import trtexec_summary
from bench.machine import one_line, steal_ms
from bench.machine_limits import SIDE, least_ms
from bench.outputs import Outputs
from bench.progress import Progress
from bench.samples import Samples
from stream.latency import summarize_ms
from stream.sources.options import SourceOptions
from stream.timing import NS_PER_MS, MonotonicClock

SCHEMA = "contrastream.bench.engine/1"
EDGE = 10
"""Inferences at the beginning and the end of each round that are left out."""


def bench_engine(config: EngineConfig) -> int:
    """Run the workload.

    Returns:
        0 when the run is whole, 130 when Ctrl-C stopped it; the report then says so.

    Raises:
        BenchError: The source or the engine cannot be opened.
    """
    outputs = Outputs(config.out)
    report, kept = measure_engine(config)
    print(format_engine(report))
    if (serial_ms := kept.values_ms("serial_ms")).size:
        print(
            "\nserial, as trtexec says it:\n" + trtexec_summary(serial_ms, float(serial_ms.sum()) / 1e3),
            end="",
        )
    outputs.write(report, [kept])
    return 0 if report["complete"] else 130


def measure_engine(config: EngineConfig) -> tuple[dict[str, Any], Samples]:
    """Run it; returns the report and what is kept beside it."""
    alone = Alone()
    serial: list[np.ndarray] = []
    saturated: list[np.ndarray] = []
    rates_hz: list[float] = []
    limits: list[dict[str, Any]] = []
    complete = False
    clock = MonotonicClock()
    try:
        size = config.size if config.source == "phantom" else None
        asked = {"model": config.model, "backend": config.engine, "untaught": True, "threads": config.threads}
        frame_format = alone.open(config.source, SourceOptions(rate_hz=30.0, size=size), asked)
        frames = 2 * EDGE + math.ceil(config.frames / config.rounds)
        stolen_before_ms, start_ns = steal_ms(), clock.now_ns()
        for _ in Progress().over(range(config.rounds), "rounds"):
            serial.append(alone.serial_ms(frames)[EDGE:-EDGE])
            times_ms, total_s = alone.saturated(frames)
            saturated.append(times_ms[EDGE:-EDGE])
            rates_hz.append(frames / total_s)
            limits.append(alone.limits(config.model))
        complete = True
    except KeyboardInterrupt:
        print("bench: stopped; the report is incomplete", file=sys.stderr)
        if not serial:
            raise
    finally:
        alone.close()
    stolen_ms, passed_ms = steal_ms(), (clock.now_ns() - start_ns) / NS_PER_MS
    stolen = None if stolen_ms is None or stolen_before_ms is None else stolen_ms - stolen_before_ms
    report = engine_report(
        config,
        {
            "complete": complete,
            "workload": {
                "name": "engine",
                "source": "phantom" if config.source == "phantom" else "recording",
                "rows": frame_format.rows,
                "columns": frame_format.columns,
                "bits_stored": frame_format.bits_stored,
                "slots": ENGINE_SLOTS,
                "rounds": len(rates_hz),
                "threads": config.threads,
                "left_out": f"the first and last {EDGE} of each round, and a warm-up before it",
            },
            "machine": machine.describe(),
            "engine": alone.engine,
            "gpu": alone.gpu,
            "steal_share": None if stolen is None else stolen / passed_ms,
        },
        serial,
        saturated,
        rates_hz,
        limits,
    )
    # What a comparison of two runs divides by: the machine's own speed, after each round.
    products_ms = [2e-6 * SIDE**3 / each["machine"]["gflops"] for each in limits]
    series = {
        "serial_ms": np.concatenate(serial) if serial else np.zeros(0),
        "saturated_ms": np.concatenate(saturated) if saturated else np.zeros(0),
        "machine_limits/product_ms": np.array(products_ms, np.float64),
    }
    return report, Samples(series=series)


def engine_report(
    config: EngineConfig,
    facts: dict[str, Any],
    serial: list[np.ndarray],
    saturated: list[np.ndarray],
    rates_hz: list[float],
    limits: list[dict[str, Any]],
) -> dict[str, Any]:
    """The figures of all rounds.

    Args:
        config: What was asked.
        facts: What is known beside the figures.
        serial: (n,) ms of each round.
        saturated: (n,) ms of each round, submission to result.
        rates_hz: Frames per second of each saturated round.
        limits: What the machine could do, after each round.
    """
    best = (
        {name: max(each["machine"][name] for each in limits) for name in limits[0]["machine"]}
        if limits
        else None
    )
    work = limits[0]["network"] if limits else None
    least = None if best is None else least_ms(work, best)
    medians = [float(np.median(times)) for times in serial]
    all_serial = summarize_ms(np.concatenate(serial) if serial else np.zeros(0))
    return {
        "schema": SCHEMA,
        **facts,
        "serial_ms": all_serial,
        "serial_median_ms_by_round": medians,
        "saturated_ms": summarize_ms(np.concatenate(saturated) if saturated else np.zeros(0)),
        "saturated_fps": float(np.median(rates_hz)) if rates_hz else None,
        "saturated_fps_by_round": rates_hz,
        "network": work,
        "machine_limits": best,
        "least_ms": least,
        "serial_median_times_least": None
        if least is None or all_serial["p50"] is None
        else all_serial["p50"] / least["larger"],
    }


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _spread(values: list[float], form: str = ".2f") -> str:
    return f"{_number(min(values), form)} to {_number(max(values), form)}" if values else "-"


def format_engine(report: dict[str, Any]) -> str:
    """The report as a short table for a terminal."""
    work, engine = report["workload"], report["engine"]
    lines = [
        "" if report["complete"] else "INCOMPLETE: stopped before its end\n",
        f"machine  {one_line(report['machine'])}",
        f"workload {work['source']} {work['rows']}x{work['columns']}, {work['bits_stored']} bits, {work['rounds']} rounds, "
        f"{work['slots']} slots; left out: {work['left_out']}",
        f"engine   {engine['backend']} {engine['precision']} {engine['model_sha256'][:8]}"
        + (" (UNTAUGHT)" if engine["taught"] is False else ""),
        "host     "
        + (
            "steal time is not counted here"
            if report["steal_share"] is None
            else f"{100 * report['steal_share']:.1f} % of a core stolen"
        ),
        "",
        f"{'ms':26}{'n':>7}"
        + "".join(f"{name:>9}" for name in ("min", "p50", "p95", "p99", "max"))
        + "   medians by round",
    ]
    for name, key, spread in (
        ("serial", "serial_ms", _spread(report["serial_median_ms_by_round"])),
        ("saturated, each", "saturated_ms", ""),
    ):
        summary = report[key]
        figures = "".join(f"{_number(summary[figure]):>9}" for figure in ("min", "p50", "p95", "p99", "max"))
        lines.append(f"{name:26}{summary['n']:>7}{figures}   {spread}")
    lines.append(
        f"saturated, frames per second: {_number(report['saturated_fps'], '.1f')} "
        f"(rounds {_spread(report['saturated_fps_by_round'], '.1f')})"
    )
    least, limits, network = report["least_ms"], report["machine_limits"], report["network"]
    if least is not None:
        lines.append(
            f"the network asks {network['gmac']:.2f} GMAC and {network['mbytes']:.1f} MB; these cores gave "
            f"{limits['gflops']:.0f} GFLOP/s (fp32 matrix product) and {limits['gbytes_per_s']:.1f} GB/s (copy): at least "
            f"{least['larger']:.2f} ms in fp32; the serial median is {_number(report['serial_median_times_least'])} times that"
        )
    lines.append("p99 wants 1,000 inferences. Research tool, not a medical device.")
    return "\n".join(lines).lstrip("\n")
