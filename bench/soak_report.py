"""What a soak has come to: its report, what drifts in it, and the table for a terminal."""

from typing import Any

import numpy as np

from bench import machine
from bench.config import SoakConfig
from bench.machine import one_line
from bench.stats import slope, slopes
from stream.latency import summarize_ms

SCHEMA = "contrastream.bench.soak/1"
SETTLE = 0.2
"""Share of the run that memory and caches may take to settle; drift is judged after it."""
RESAMPLES = 1_000
LIMITS = {
    "latency_p50_ms": (0.05, "ms per 1,000 frames, beyond 1 % of it"),
    "anonymous_kib": (16.0, "KiB per 1,000 frames"),
    "descriptors": (0.05, "per 1,000 frames"),
    "threads": (0.05, "per 1,000 frames"),
}
"""A slope whose whole 95 % interval lies above this is a drift."""


def about(config: SoakConfig, window: int) -> dict[str, Any]:
    """What is known before the first frame: the machine and the work."""
    return {
        "schema": SCHEMA,
        "machine": machine.describe(),
        "workload": {
            "name": "soak",
            "rate_hz": config.rate,
            "compressed": config.compressed,
            "frames": config.total_frames,
            "window": window,
            "size": config.size if config.source == "phantom" else None,
            "latency_from": "grabbed: compressed time has no due times of a room"
            if config.compressed
            else "due",
            "settle_share": SETTLE,
        },
    }


def soak_report(
    known: dict[str, Any], seen: dict[str, Any], points: list[dict[str, Any]], status: dict[str, Any]
) -> dict[str, Any]:
    """What a soak has come to so far.

    Args:
        known: As `about` gives it.
        seen: The client's last snapshot.
        points: What the processes held, as `bench.soak_watch` takes them.
        status: The pipeline's last.
    """
    counters = status.get("counters") or {}
    due = int(counters.get("due", 0))
    accounted = (
        int(counters.get("published", 0))
        + int(counters.get("repeated", 0))
        + sum(int(count) for count in (counters.get("dropped") or {}).values())
    )
    source = {"source": (status.get("source") or {}).get("kind")}
    return {
        **known,
        "complete": due >= known["workload"]["frames"] and bool(status.get("ended")),
        "workload": {**known["workload"], **source},
        "engine": status.get("engine") or {},
        "counters": counters,
        "unaccounted": due - accounted,
        "restarts": {name: status.get(f"{name}_restarts") for name in ("engine", "source")},
        "client": seen,
        "usage": points,
        "drift": drifts(seen.get("windows", []), points, seen.get("latency_ms", {}).get("p50")),
    }


def drifts(
    windows: list[dict[str, Any]], points: list[dict[str, Any]], p50_ms: float | None
) -> list[dict[str, Any]]:
    """Whether a figure rises over the run, each with its slope's 95 % interval.

    Args:
        windows: The client's, with the latency of each.
        points: What the processes held.
        p50_ms: Of the whole run; latency may move by one per cent of it.
    """
    rows = []
    frames = np.array([window["frames"] for window in windows], np.float64)
    p50 = np.array([window["latency_ms"]["p50"] for window in windows], np.float64)
    limit, unit = LIMITS["latency_p50_ms"]
    rows.append(_drift("latency, p50 of a window", frames, p50, limit + 0.01 * (p50_ms or 0.0), unit))
    names = sorted({name for point in points for name in point["processes"]})
    for name in names:
        own = [(point["frames"], point["processes"][name]) for point in points if name in point["processes"]]
        last = own[-1][1]["pid"]
        own = [(count, used) for count, used in own if used["pid"] == last]  # of its last life
        at = np.array([count for count, _ in own], np.float64)
        for figure in ("anonymous_kib", "descriptors", "threads"):
            values = np.array([used[figure] for _, used in own], np.float64)
            limit, unit = LIMITS[figure]
            rows.append(_drift(f"{name}: {figure.replace('_kib', ' memory')}", at, values, limit, unit))
    return rows


def _drift(name: str, frames: np.ndarray, values: np.ndarray, limit: float, unit: str) -> dict[str, Any]:
    settled = frames >= SETTLE * frames.max(initial=0.0)
    frames, values = frames[settled], values[settled]
    row: dict[str, Any] = {
        "name": name,
        "slope": None,
        "low": None,
        "high": None,
        "limit": limit,
        "unit": unit,
    }
    found = slope(frames, values)
    if found is None or frames.size < 8:
        return {**row, "verdict": "cannot tell: too few windows"}
    chosen = np.random.default_rng(0).integers(frames.size, size=(RESAMPLES, frames.size))
    drawn = slopes(frames[chosen], values[chosen])
    low, high = np.nanpercentile(drawn, (2.5, 97.5)) * 1000.0
    verdict = "RISES" if low > limit else "flat" if high <= limit else "cannot tell"
    return {**row, "slope": 1000.0 * found, "low": float(low), "high": float(high), "verdict": verdict}


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def format_soak(report: dict[str, Any]) -> str:
    """The report as a short table for a terminal."""
    work, engine, client, counters = (report[key] for key in ("workload", "engine", "client", "counters"))
    passed = f"{report['seconds'] / 60:.1f} minutes" if "seconds" in report else ""
    empty = summarize_ms(np.zeros(0))
    lines = [
        "" if report["complete"] else "INCOMPLETE: stopped before its end\n",
        f"machine  {one_line(report['machine'])}",
        f"workload {work['source']}, {work['frames']} frames "
        + (
            "as fast as they go without a loss"
            if work["compressed"]
            else f"at {work['rate_hz']:g} per second"
        )
        + f", {client['frames']} seen in {passed}; windows of {work['window']}",
        f"engine   {engine.get('backend', 'none')} {engine.get('precision', '')} {(engine.get('model_sha256') or '')[:8]}, "
        f"{report['restarts']['engine']} restarts",
        f"frames   {counters.get('published', 0)} published, {client['lost']} lost on the way, {report['unaccounted']} "
        f"unaccounted for; PASSTHROUGH {client['passthrough'] or 'none'}, dropped {counters.get('dropped') or 'none'}",
        "",
        f"{'ms':34}{'n':>9}" + "".join(f"{name:>9}" for name in ("p50", "p95", "p99", "p99.9", "max")),
    ]
    latency = {
        f"{work['latency_from'].partition(':')[0]} to received": client["latency_ms"],
        **client["stages_ms"],
    }
    for name, summary in latency.items():
        summary = {**empty, **summary}
        figures = "".join(f"{_number(summary[key]):>9}" for key in ("p50", "p95", "p99", "p99.9", "max"))
        lines.append(f"  {name:32}{summary['n']:>9}{figures}")
    lines += ["", f"{'drift, per 1,000 frames':34}{'slope':>11}{'95 % interval':>26}{'limit':>10}"]
    for row in report["drift"]:
        interval = f"{_number(row['low'], '.4f')} to {_number(row['high'], '.4f')}"
        lines.append(
            f"  {row['name']:32}{_number(row['slope'], '.4f'):>11}{interval:>26}{row['limit']:>10.2f}  {row['verdict']}"
        )
    lines.append(
        "Percentiles to 1 %; p99 wants 1,000 frames, p99.9 10,000. Research tool, not a medical device."
    )
    return "\n".join(lines).lstrip("\n")
