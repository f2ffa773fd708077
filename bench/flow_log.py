"""A run in forms that others' tools read: Holoscan's data-flow-tracking log, and trtexec's summary of an engine.

The log has an entry for each frame: its place in the log, an operator for each process it passed, an empty line.

    1:
    (source,1000000,1000100) -> (engine,1000300,1012300) -> (guard,1012300,1012500) -> (client,1012900,1012900)

Name, receive and publish stamp in us, as `Tracker(filename=...)` of Holoscan SDK 4.6 was seen to write them and as HoloHub's
`benchmarks/holoscan_flow_benchmarking/analyze.py` reads them: a path's latency is the last publish stamp minus the first
receive stamp, which here is due to received. No two names begin with the same three letters, since `--draw-cdf` shortens
them so. A frame without an inference takes the path without `engine`, and is a path of its own there. Stamps are of
CLOCK_MONOTONIC, not of the wall clock. analyze.py leaves out the first and last 10 lines of each path by itself; the
warm-up is not in the log.

`python -m bench.flow_log REPORT.json` writes REPORT.flow.log, for several rates REPORT.RATE.flow.log, from the kept samples.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.outputs import read_report, write_text
from bench.samples import load_samples, samples_path
from bench.summaries import parts
from stream.latency import P99_SAMPLES
from stream.measure import Measured

NS_PER_US = 1_000


def flow_log(measured: Measured, first: int = 0) -> str:
    """The log of a run.

    Args:
        measured: What a client received.
        first: Sequence number of the first frame after the warm-up; earlier ones are left out.
    """
    stamps = measured.stamps_ns.astype(np.int64) // NS_PER_US
    numbers = measured.sequence.astype(np.int64)
    rows = stamps[numbers >= first]
    return "".join(f"{place}:\n{_line(row)}\n\n" for place, row in enumerate(rows, 1))


def _line(row: np.ndarray) -> str:
    """One frame, from its six stamps in us; 0 where not passed."""
    due, grabbed, submitted, inferred, published, received = (int(stamp) for stamp in row)
    inferred_in_time = submitted > 0 and 0 < inferred <= published
    path = [("source", due, grabbed)]
    if inferred_in_time:
        path.append(("engine", submitted, inferred))
    path.append(("guard", inferred if inferred_in_time else grabbed, published))
    path.append(("client", received, received))
    return " -> ".join(f"({name},{receive},{publish})" for name, receive, publish in path)


def trtexec_summary(samples_ms: np.ndarray, wall_s: float) -> str:
    """An engine's times as trtexec prints them.

    Args:
        samples_ms: (n,) from submission to result, in ms.
        wall_s: How long all of them took together, in s.

    Returns:
        Throughput and Latency with min, max, mean, median and percentiles, the 99th from 1,000 samples on, and trtexec's
        warning where the times vary. Enqueue, H2D, GPU compute and D2H are not measured apart here, so those lines
        are not there; "Latency" is the whole of them, as in trtexec.

    Raises:
        ValueError: Without a sample.
    """
    samples_ms = np.asarray(samples_ms, np.float64)
    if samples_ms.size == 0 or not wall_s > 0:
        raise ValueError(f"needed samples and the time they took, got {samples_ms.size} in {wall_s} s")
    mean = float(samples_ms.mean())
    figures = {
        "min": float(samples_ms.min()),
        "max": float(samples_ms.max()),
        "mean": mean,
        "median": float(np.median(samples_ms)),
        "percentile(90%)": float(np.percentile(samples_ms, 90)),
        "percentile(95%)": float(np.percentile(samples_ms, 95)),
    }
    if samples_ms.size >= P99_SAMPLES:
        figures["percentile(99%)"] = float(np.percentile(samples_ms, 99))
    latency = ", ".join(f"{name} = {value:.6g} ms" for name, value in figures.items())
    lines = [
        "[I] === Performance summary ===",
        f"[I] Throughput: {samples_ms.size / wall_s:.6g} qps",
        f"[I] Latency: {latency}",
        f"[I] Total Host Walltime: {wall_s:.6g} s",
    ]
    variation = 100.0 * float(samples_ms.std()) / mean if mean > 0 else 0.0
    if variation > 1.0:  # trtexec's own limit
        lines.append(f"[W] * Latency is unstable, with coefficient of variance = {variation:.6g}%.")
    return "\n".join(lines) + "\n"


def write_flow_logs(report: Path) -> list[Path]:
    """Write the log of every measurement of a report beside it.

    Raises:
        BenchError: It is no report, or its samples hold no frames.
    """
    document = read_report(report)
    written = []
    measurements = parts(document)
    for part, samples in zip(measurements, load_samples(samples_path(report)), strict=True):
        if samples.frames is None:
            raise BenchError(
                f"needed a run in which frames travelled, got {report} of another kind; give one of bench live"
            )
        rate = "" if len(measurements) == 1 else f".{_rate(part)}"
        path = report.with_suffix(f"{rate}.flow.log")
        write_text(path, flow_log(samples.frames, samples.first))
        written.append(path)
    return written


def _rate(part: dict[str, Any]) -> str:
    return f"{part['workload']['rate_hz']:g}".replace(".", "_") + "hz"


def main(arguments: list[str]) -> int:
    """Entry point."""
    if len(arguments) != 1:
        print("usage: python -m bench.flow_log REPORT.json", file=sys.stderr)
        return 2
    try:
        for path in write_flow_logs(Path(arguments[0])):
            print(path)
    except BenchError as error:
        print(f"contrastream: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
