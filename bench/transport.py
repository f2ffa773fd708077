"""`contrastream bench transport`: ring and wire without an engine, or ring and shared memory.

Paced, the path is measured as `bench live` measures it, beside a floor of bare processes with the same hops, bytes and
plane. Saturated, a lossless replay goes as fast as source, ring, guard, wire and one client do. The two are never
mixed: latency is the paced part's, frames per second the saturated one's.
"""

import dataclasses
import itertools
import math
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench import machine
from bench.config import Client, LiveConfig, TransportConfig
from bench.live import Run, measure, pipeline_config
from bench.machine import one_line
from bench.outputs import Outputs
from bench.report import build_report, samples_of
from bench.samples import Samples
from stream import accounts
from stream.measure import MeasuringClient
from stream.pacing import Pacing
from stream.pipeline import Pipeline
from stream.reported import reported_source
from stream.session import stopped_by_signals
from stream.statusline import log_to_stderr

SCHEMA = "contrastream.bench.transport/1"
CLIENTS = {"wire": "a client on the wire", "memory": "a client in shared memory"}


def bench_transport(config: TransportConfig) -> int:
    """Run the workload.

    Returns:
        0 when the run is whole, 130 when Ctrl-C stopped it; the report then says so.

    Raises:
        BenchError: A helper process failed.
        StreamError: As `Pipeline.run`.
    """
    log_to_stderr()
    outputs = Outputs(config.out)
    kept: list[Samples] = []
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "complete": False,
        "machine": machine.describe(),
        "source": reported_source(config.source),
        "rows": [],
    }
    try:
        # A recorded loop has one size, its own.
        sizes = config.size if config.source == "phantom" else config.size[:1]
        for place, (side, client) in enumerate(itertools.product(sizes, config.client)):
            what = f"{side} x {side}" if config.source == "phantom" else reported_source(config.source)
            print(f"bench: {what}, {CLIENTS[client]}", file=sys.stderr, flush=True)
            run = Run(_live(config, side, client), config.rate, report["machine"], brief=place > 0)
            measure(run)
            run.complete = True
            saturated = measure_saturated(run)
            report["rows"].append(transport_row(build_report(run), saturated))
            kept.append(samples_of(run))
        report["complete"] = True
    except KeyboardInterrupt:
        print("bench: stopped; the report is incomplete", file=sys.stderr)
    print(format_transport(report))
    outputs.write(report, kept or None)
    for row in report["rows"]:
        accounts.refuse(row["paced"]["frames"]["accounts"])
    return 0 if report["complete"] else 130


def _live(config: TransportConfig, side: int, client: Client) -> LiveConfig:
    return LiveConfig(
        config.source, size=side, rate=(config.rate,), frames=config.frames, engine="off", client=client
    )


def measure_saturated(run: Run) -> dict[str, Any]:
    """A lossless replay as fast as it goes: frames per second at the client, in MB/s too.

    Raises:
        KeyboardInterrupt: Ctrl-C, which the pipeline takes for itself.
    """
    frames = run.warmup + run.config.frames
    asked = pipeline_config(run.config, run.rate_hz, frames)
    pacing = Pacing(rate_hz=run.rate_hz, speed=math.inf, loop=True, lossless=True, frames=frames)
    pipeline = Pipeline(dataclasses.replace(asked, pacing=pacing))
    with tempfile.TemporaryDirectory(prefix="contrastream-bench-") as folder:
        seen = Path(folder) / "measured.npz"
        memory = run.config.client == "memory"
        with MeasuringClient(pipeline.endpoint.text, seen, credit=True, memory=memory) as client:
            with stopped_by_signals(pipeline):
                pipeline.run()
            measured = client.finish()
    counters = (pipeline.last_status or {})["counters"]
    if counters["due"] < frames:
        raise KeyboardInterrupt
    received = measured.stamps_ns[run.warmup :, -1].astype(float)
    fps = (received.size - 1) / ((received[-1] - received[0]) / 1e9)
    assert run.frame_format is not None
    plane_bytes = run.frame_format.pixels * run.frame_format.sample_bytes
    return {"frames": int(received.size), "fps": float(fps), "mbytes_per_s": float(fps * plane_bytes / 1e6)}


def transport_row(report: dict[str, Any], saturated: dict[str, Any]) -> dict[str, Any]:
    """What one size comes to; the paced part's whole report is in it."""
    floor = report["floor"] or {}
    return {
        "client": report["workload"]["client"],
        "rows": report["workload"]["rows"],
        "columns": report["workload"]["columns"],
        "rate_hz": report["workload"]["rate_hz"],
        "latency_ms": report["latency_ms"],
        "floor_ms": floor.get("floor_ms"),
        "floor_ratio": floor.get("ratio"),
        "unexplained": report["frames"]["unexplained"],
        "saturated": saturated,
        "paced": report,
    }


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def format_transport(report: dict[str, Any]) -> str:
    """The report as a short table for a terminal."""
    lines = [
        "" if report["complete"] else "INCOMPLETE: stopped before its end\n",
        f"machine  {one_line(report['machine'])}",
        f"workload {report['source']} without an engine: source, ring, guard, ZeroMQ over ipc or the ring's memory, a client in another process; the live plane alone",
        "",
        f"{'':>11}{'':>8}|{'paced: due to received, ms':^40} |{'floor, ms':^20} |{'x floor, 95 %':^22}|{'saturated':^19}",
        f"{'frames':>11}{'client':>8}|{'per s':>8}{'p50':>8}{'p95':>8}{'p99':>8}{'max':>8} |{'p50':>10}{'p99':>10} |{'':22}|{'per s':>9}{'MB/s':>9}",
    ]
    for row in report["rows"]:
        latency, floor, ratio = row["latency_ms"], row["floor_ms"] or {}, row["floor_ratio"] or {}
        size = f"{row['rows']}x{row['columns']}"
        interval = (
            f"{_number(ratio.get('value'))} ({_number(ratio.get('low'))} to {_number(ratio.get('high'))})"
        )
        lines.append(
            f"{size:>11}{row['client']:>8}|{row['rate_hz']:>8g}"
            + "".join(f"{_number(latency[key]):>8}" for key in ("p50", "p95", "p99", "max"))
            + f" |{_number(floor.get('p50')):>10}{_number(floor.get('p99')):>10} |{interval:^22}|"
            f"{row['saturated']['fps']:>9.0f}{row['saturated']['mbytes_per_s']:>9.0f}"
        )
    lines += ["", "p99 wants 1,000 frames. Research tool, not a medical device."]
    return "\n".join(lines).lstrip("\n")
