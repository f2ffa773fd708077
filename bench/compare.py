"""`contrastream bench compare A.json B.json`: did it get slower, as far as a noisy machine lets anybody say.

Exit status: 0 nothing is slower; 4 something is slower; 5 nothing is, but of a figure that decides nobody can tell. 1 and 2
mean what they mean everywhere (a fault of ours, bad input), so a guard can tell "slower" from "broken".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.compare_runs import MARGIN, NOISE_SHARE, Compared, as_row, compare_series, verdict
from bench.errors import BenchError
from bench.machine import one_line
from bench.micro_report import from_pytest_benchmark, is_pytest_benchmark
from bench.outputs import read_report
from bench.report import RATES_SCHEMA, SCHEMA
from bench.samples import Samples, load_samples, samples_path
from bench.summaries import heading, label, number, parts, workload_name
from stream.frame import Reason, State
from stream.latency import P99_SAMPLES
from stream.session import write_json

SCHEMAS = (
    SCHEMA,
    RATES_SCHEMA,
    "contrastream.bench.engine/1",
    "contrastream.bench.transport/1",
    "contrastream.bench.peers/1",
)
COMPARE_SCHEMA = "contrastream.compare/1"
SLOWER, CANNOT_TELL = 4, 5
ALONE = "floor/floor_alone_ms/"
"""The floor before and after the pipeline ran. Not the floor beside it: a program that takes more of the cores slows that one
down too, and would hide behind it."""
FLOORS = ("floor/floor_ms", "machine_limits/product_ms", "contestants/pyzmq/latency_whole_ms")
"""Other series that are no figures of the program; the second is the floor of `bench engine`, the third that of `bench peers`:
the same engine in one process, in turns with the program."""
DECIDING = ("latency_ms", "floor/pipeline_ms", "stages_ms/engine", "contestants/ours/latency_whole_ms")
"""Of these somebody must be able to tell; a report without any of them is decided by every median."""
SHARE_MARGIN = 0.005
"""Of all frames: how much a share of frames may change before it is spoken of."""


@dataclass(frozen=True)
class Side:
    """One of the two reports.

    Args:
        path: Its file.
        report: The document.
        samples: What its measurements keep, in its order.
    """

    path: Path
    report: dict[str, Any]
    samples: list[Samples]


def load_side(path: Path) -> Side:
    """Read a report and its samples.

    Raises:
        BenchError: It is no report that can be compared: another schema, cut short, or without its samples.
    """
    report = read_report(path)
    if is_pytest_benchmark(report):
        converted, rounds = from_pytest_benchmark(report, path)
        return Side(path, converted, [rounds])
    if report.get("schema") not in SCHEMAS:
        raise BenchError(
            f"needed a report of {' or '.join(SCHEMAS)}, got {report.get('schema')} in {path}; measure again with this version"
        )
    if report.get("complete") is not True:
        raise BenchError(f"needed a whole run, got {path}, which was stopped before its end; measure again")
    samples = load_samples(samples_path(path))
    if len(samples) != len(parts(report)):
        raise BenchError(
            f"needed samples of {len(parts(report))} measurements, got {len(samples)} in {samples_path(path)}; "
            "keep each .npz with its own .json"
        )
    return Side(path, report, samples)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What makes two reports ones of different things: "CPU: 'x' and 'y'"."""

    def facts(document: dict[str, Any]) -> dict[str, Any]:
        first = parts(document)[0]
        work, engine, machine = (
            first.get("workload") or {},
            first.get("engine") or {},
            document.get("machine") or {},
        )
        cpu = machine.get("cpu") or {}
        return {
            "workload": workload_name(document),
            "source": work.get("source"),
            "rows": work.get("rows"),
            "columns": work.get("columns"),
            "bits": work.get("bits_stored"),
            "rates": [(part.get("workload") or {}).get("rate_hz") for part in parts(document)],
            "threads": work.get("threads"),
            "a browser beside it": bool((first.get("config") or {}).get("shown")),
            "engine": engine.get("backend"),
            "precision": engine.get("precision"),
            "model": (engine.get("model_sha256") or "")[:12] or None,
            "CPU": cpu.get("model"),
            "cores": cpu.get("cores"),
            "CPU flags": cpu.get("flags"),
            "GPUs": [gpu.get("name") for gpu in machine.get("gpus") or []],
            "priority": machine.get("scheduling"),
        }

    first, second = facts(before), facts(after)
    return [f"{name}: {first[name]} and {second[name]}" for name in first if first[name] != second[name]]


def compare(before: Path, after: Path, *, across: bool = False, out: Path | None = None) -> int:
    """Compare two reports, print the table, write it as JSON where asked.

    Args:
        before: The first report (A), with its samples beside it; or a file of pytest-benchmark.
        after: The second (B).
        across: Compare also what was measured on other machines or otherwise; the differences are then named.
        out: Where to write the comparison as JSON.

    Returns:
        0, 4 or 5; see above.

    Raises:
        BenchError: One of them cannot be compared, or they are not of the same thing.
    """
    sides = load_side(before), load_side(after)
    differ = differences(sides[0].report, sides[1].report)
    if differ and not across:
        raise BenchError(
            f"needed two reports of the same machine and workload, got {'; '.join(differ)}; "
            "add --across to compare them nevertheless"
        )
    comparison = comparison_of(*sides, differ)
    print(format_comparison(comparison))
    write_json(out, comparison)
    return int(comparison["exit_status"])


def comparison_of(before: Side, after: Side, differ: list[str]) -> dict[str, Any]:
    """All figures of both reports that have samples, run by run."""
    runs: list[dict[str, Any]] = []
    every: list[dict[str, Any]] = []
    for name, here, there in _matched(before.report, after.report):
        first, second = parts(before.report)[here], parts(after.report)[there]
        rows = compare_run(first, second, before.samples[here], after.samples[there])
        runs.append(
            {
                "name": name,
                "rate_hz": (first.get("workload") or {}).get("rate_hz"),
                "noise": _noise(first, second),
                "figures": rows,
            }
        )
        every += rows
    slower = any(row["verdict"] in ("slower", "worse") for row in every)
    deciding = [row for row in every if row["decides"]]
    untold = not deciding or any(row["verdict"] == "cannot tell" for row in deciding)
    return {
        "schema": COMPARE_SCHEMA,
        "before": str(before.path),
        "after": str(after.path),
        "machines": [before.report.get("machine"), after.report.get("machine")],
        "differences": differ,
        "runs": runs,
        "verdict": "slower" if slower else "cannot tell" if untold else "not slower",
        "exit_status": SLOWER if slower else CANNOT_TELL if untold else 0,
    }


def _matched(before: dict[str, Any], after: dict[str, Any]) -> list[tuple[str, int, int]]:
    """(name, place in the first, place in the second) of the measurements of the same rate and size; or of the only two."""
    first, second = parts(before), parts(after)
    if len(first) == len(second) == 1:
        return [(heading(first[0]), 0, 0)]
    rates = [[(part.get("workload") or {}).get("rate_hz") for part in run] for run in (first, second)]
    # By rate alone where that names one measurement, so that --across compares sizes too.
    names: list[list[Any]] = (
        rates
        if all(len(set(each)) == len(each) for each in rates)
        else [[heading(part) for part in run] for run in (first, second)]
    )
    pairs = [
        (heading(first[here]), here, names[1].index(name))
        for here, name in enumerate(names[0])
        if name in names[1]
    ]
    if not pairs:
        raise BenchError(
            f"needed a rate that both reports have, got {names[0]} and {names[1]}; measure one of them again"
        )
    return pairs


def _noise(before: dict[str, Any], after: dict[str, Any]) -> tuple[float, float] | None:
    shares: list[float | None] = [
        None
        if report.get("steal_share") is None or report.get("others_share") is None
        else float(report["steal_share"] + report["others_share"])
        for report in (before, after)
    ]
    return None if shares[0] is None or shares[1] is None else (shares[0], shares[1])


def compare_run(
    first: dict[str, Any], second: dict[str, Any], before: Samples, after: Samples
) -> list[dict[str, Any]]:
    """The rows of one measurement: every series that both have, the median, and p99 from 1,000 samples on."""
    noise = _noise(first, second)
    margin = float(first.get("margin", MARGIN))
    shared = [path for path in before.paths() if path in after.paths()]
    common = _machine(before, after)
    paths = [
        path
        for path in shared
        if path not in FLOORS
        and "alone_ms/" not in path
        and not (path.startswith("floor/") and path.removeprefix("floor/") in shared)
    ]
    in_time = [_in_time(samples) for samples in (before, after)]
    fewer = all(flags.size for flags in in_time) and in_time[1].mean() < in_time[0].mean() - SHARE_MARGIN
    some_decide = any(path in DECIDING for path in paths)
    rows = []
    for path in paths:
        series = before.values_ms(path), after.values_ms(path)
        own = f"floor/{path}"
        floors = (before.values_ms(own), after.values_ms(own)) if own in shared else common
        for quantile, name in ((0.5, "p50"), (0.99, "p99")):
            if name == "p99" and min(values.size for values in series) < P99_SAMPLES:
                continue
            compared = compare_series(*series, quantile, floors)
            decides = name == "p50" and (path in DECIDING or not some_decide)
            row = _row(path, name, compared, noise, margin, decides=decides)
            if path == "latency_ms" and row["verdict"] == "faster" and fewer:
                row |= {
                    "verdict": "cannot tell",
                    "why": "fewer frames had their synthesis in B, and a picture without one comes sooner",
                }
            rows.append(row)
    if common is not None:
        # The floor against itself says how far the machine has moved; nobody is blamed for that.
        moved = compare_series(*common, 0.5)
        rows.append(
            {
                "path": None,
                "figure": "the machine itself (floor)",
                "quantile": "p50",
                "decides": False,
                **as_row(moved),
                "verdict": "-",
                "why": "what every figure is divided by",
            }
        )
    return rows + _counted(first, second, before, after, noise)


def _machine(before: Samples, after: Samples) -> tuple[np.ndarray, np.ndarray] | None:
    """What both runs measured of the machine alone."""

    def alone(samples: Samples) -> np.ndarray:
        parts = [values for path, values in samples.series.items() if path.startswith(ALONE)]
        return np.concatenate(parts) if parts else np.zeros(0)

    found = alone(before), alone(after)
    if all(values.size for values in found):
        return found
    path = next((path for path in FLOORS if path in before.series and path in after.series), None)
    return None if path is None else (before.values_ms(path), after.values_ms(path))


def _row(
    path: str,
    quantile: str,
    compared: Compared | None,
    noise: tuple[float, float] | None,
    margin: float,
    *,
    decides: bool,
) -> dict[str, Any]:
    said, why = verdict(compared, noise, margin)
    return {
        "path": path,
        "figure": label(path),
        "quantile": quantile,
        "decides": decides,
        **as_row(compared),
        "verdict": said,
        "why": why,
    }


def _counted(
    first: dict[str, Any],
    second: dict[str, Any],
    before: Samples,
    after: Samples,
    noise: tuple[float, float] | None,
) -> list[dict[str, Any]]:
    """Frames that were lost, and frames whose inference came too late."""
    rows: list[dict[str, Any]] = []

    def add(figure: str, values: Sequence[Any], said: str, why: str) -> None:
        empty = {"ratio": None, "machine": None, "by_floor": None}
        named: dict[str, Any] = {"path": None, "figure": figure, "quantile": "", "decides": True}
        rows.append(named | {"before": values[0], "after": values[1], **empty, "verdict": said, "why": why})

    lost = [(report.get("frames") or {}).get("unexplained") for report in (first, second)]
    if lost[0] is not None and lost[1] is not None:
        said = "worse" if lost[1] > lost[0] else "same" if lost[1] == lost[0] else "better"
        add("frames lost unexplained", lost, said, "every frame has to be accounted for")
    in_time = [_in_time(samples) for samples in (before, after)]
    if all(flags.size for flags in in_time):
        shares = float(in_time[0].mean()), float(in_time[1].mean())
        # The error of a difference of two shares; neighbours share a mood, hence chunks instead of frames.
        error = math.hypot(*(_share_error(flags) for flags in in_time))
        change = shares[1] - shares[0]
        if abs(change) <= SHARE_MARGIN and 2.6 * error <= SHARE_MARGIN:
            said, why = "same", f"within {100 * SHARE_MARGIN:.1f} % of the frames"
        elif noise is not None and noise[1] - noise[0] > NOISE_SHARE and change < 0:
            said, why = (
                "cannot tell",
                "others took more of the cores in B, and a missed deadline may be theirs",
            )
        elif abs(change) > max(SHARE_MARGIN, 2.6 * error):
            said, why = ("worse" if change < 0 else "better"), "beyond the 99 % interval of the difference"
        else:
            said, why = "cannot tell", f"the difference is known to {100 * 2.6 * error:.1f} % of the frames"
        add("share of frames inferred in time", shares, said, why)
    return rows


def _in_time(samples: Samples) -> np.ndarray:
    """(n,) 0 or 1: the frame's inference came in time. Empty where no engine ran."""
    measured = samples.measured()
    if measured is None:
        return np.zeros(0)
    untaught = (measured.state == State.PASSTHROUGH) & (measured.reason == Reason.UNTAUGHT)
    made = ((measured.state == State.SYNTHETIC) | untaught).astype(np.float64)
    return made if made.any() else np.zeros(0)


def _share_error(flags: np.ndarray, chunk: int = 50) -> float:
    """Standard error of a share, from the shares of chunks of time; at least that of a share one frame away from 0 or 1."""
    chunks = max(1, flags.size // chunk)
    means = np.array([part.mean() for part in np.array_split(flags, chunks)])
    least = 1.0 / flags.size
    return max(least, float(means.std(ddof=1) / np.sqrt(chunks))) if chunks > 1 else 1.0


# The table -----------------------------------------------------------------------------------------------------


def _interval(ratio: dict[str, float | None] | None) -> str:
    if ratio is None:
        return f"{'-':>23}"
    if ratio["low"] is None:
        return f"{ratio['value']:>7.3f} {'':15}"
    return f"{ratio['value']:>7.3f} ({ratio['low']:.3f}-{ratio['high']:.3f})".ljust(23)


def format_comparison(comparison: dict[str, Any]) -> str:
    """The comparison as a table for a terminal."""
    lines = [f"A  {comparison['before']}", f"B  {comparison['after']}"]
    machines = [one_line(machine) for machine in comparison["machines"] if machine]
    lines += [f"   {machine}" for machine in dict.fromkeys(machines)]
    lines += [f"   different: {each}" for each in comparison["differences"]]
    for run in comparison["runs"]:
        name = run["name"] if run["rate_hz"] is not None else ""
        lines += [
            "",
            f"{name:46}{'A':>9}{'B':>9}   {'B / A, 99 % interval':23} {'the same by the floor':23} verdict",
        ]
        for row in run["figures"]:
            name = f"{'*' if row['decides'] else ' '} {row['figure']} {row['quantile']}"
            lines.append(
                f"{name:46.46}{number(row['before']):>9}{number(row['after']):>9}   {_interval(row['ratio'])} "
                f"{_interval(row['by_floor'])} {row['verdict']}: {row['why']}"
            )
    lines += [
        "",
        f"{comparison['verdict'].upper()} (exit status {comparison['exit_status']}). ms; * decides. By the floor: divided by "
        "how far the same run's floor",
        "has moved; a change is claimed only where both ratios say it.",
    ]
    return "\n".join(lines)
