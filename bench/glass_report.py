"""What `bench glass` saw, as a report and as a short table."""

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.glass_codes import (
    SeenFrames,
    capture_interval_ms,
    client_rows,
    code_period_ms,
    copy_column,
    difference_ms,
    only_frames,
    seen_frames,
    shows_two,
)
from bench.glass_watch import ABSENT
from bench.machine import one_line
from bench.samples import Samples
from bench.summaries import codes_line, number
from calib.target import UNITS
from stream.latency import summarize_ms
from stream.timing import NS_PER_MS, Stage

if TYPE_CHECKING:
    from bench.glass import GlassRun

SCHEMA = "contrastream.bench.glass/1"
SERIES = (
    "seen_ms",
    "at_least_ms",
    "at_most_ms",
    "uncertainty_ms",
    "difference_ms",
    "latency_ms",
    "display_ms",
    "capture_interval_ms",
)
"""In the order in which a report has them."""
ROWS = {
    "seen_ms": "due to seen, the capture's stamp",
    "at_least_ms": "  at least",
    "at_most_ms": "  at most",
    "uncertainty_ms": "  so it is known within",
    "latency_ms": "  of that: due to received by a client",
    "display_ms": "  of that: received to seen",
    "difference_ms": "original to copy, no clock needed",
    "capture_interval_ms": "from capture to capture",
}
HOW = (
    "from when a frame was due to the first capture that shows its number; it was not there yet in the last capture that shows "
    "an earlier number, which is the bound below"
)


def _seen(run: "GlassRun") -> SeenFrames:
    """The frames that count."""
    assert run.captures is not None
    column = copy_column(run.captures)
    return only_frames(
        seen_frames(run.captures, column),
        run.captures,
        run.first,
        run.first + run.config.total_frames,
        column,
    )


def glass_series(run: "GlassRun") -> dict[str, np.ndarray]:
    """Every series of a run by its name, (n,) ms each."""
    captures = run.captures
    if captures is None or captures.stamp_ns.size < 2:
        return {}
    if not run.camera["this_clock"]:
        return {"difference_ms": difference_ms(captures)}
    seen = _seen(run)
    interval = capture_interval_ms(_captures_of(run, seen))
    # A camera gathers light for up to an interval, before its stamp or after it.
    doubt = float(np.median(interval)) if run.camera["exposes"] and interval.size else 0.0
    at_least = np.maximum(seen.not_before_ms() - doubt, 0.0)  # nothing is seen before it was due
    at_most = seen.seen_ms() + doubt
    series = {
        "seen_ms": seen.seen_ms(),
        "at_least_ms": at_least,
        "uncertainty_ms": at_most - at_least,
        "capture_interval_ms": interval,
    }
    if doubt:
        series["at_most_ms"] = at_most
    if shows_two(captures):
        series["difference_ms"] = difference_ms(captures)
    if run.measured is not None:
        in_seen, in_measured = client_rows(seen, run.measured)
        received = run.measured.stamps_ns[in_measured].astype(np.int64)
        series["latency_ms"] = (received[:, Stage.RECEIVED] - received[:, Stage.DUE]) / NS_PER_MS
        series["display_ms"] = (seen.seen_ns[in_seen] - received[:, Stage.RECEIVED]) / NS_PER_MS
    return {name: series[name] for name in SERIES if name in series}


def _captures_of(run: "GlassRun", seen: SeenFrames) -> Any:
    """The captures of the time of these frames."""
    captures = run.captures
    assert captures is not None
    if not seen.number.size:
        return dataclasses.replace(captures, stamp_ns=captures.stamp_ns[:0])
    inside = (captures.stamp_ns >= seen.before_ns[0]) & (captures.stamp_ns <= seen.seen_ns[-1])
    return dataclasses.replace(captures, stamp_ns=captures.stamp_ns[inside])


def glass_samples(run: "GlassRun") -> Samples:
    """What is kept of the run."""
    return Samples(series=glass_series(run))


def build_glass_report(run: "GlassRun") -> dict[str, Any]:
    """Everything that was measured; what is missing is null or absent."""
    series = glass_series(run)
    window = _window(run)
    return {
        "schema": SCHEMA,
        "complete": run.complete,
        "config": {**dataclasses.asdict(run.config), "out": None},
        "workload": _workload(run),
        "machine": run.machine,
        "engine": {
            name: run.engine.get(name)
            for name in ("backend", "model_sha256", "precision", "taught", "skipped")
        },
        "camera": run.camera,
        "display": run.display,
        "codes": _codes(run),
        **{name: summarize_ms(values) for name, values in series.items()},
        "how": HOW if run.camera["this_clock"] else "the difference of two codes in one picture",
        "difference_period_ms": None if "difference_ms" not in series else _period_ms(run),
        "steal_share": None if window is None else window.steal_share,
        "others_share": None if window is None else window.others_share,
        "witness_ms": None if window is None else window.longest_gap_ms,
    }


def _period_ms(run: "GlassRun") -> float | None:
    return None if run.captures is None else code_period_ms(run.captures, copy_column(run.captures))


def _window(run: "GlassRun") -> Any:
    if run.witness is None or run.captures is None:
        return None
    seen = _seen(run)
    if not seen.number.size:
        return None
    return run.witness.window(int(seen.due_ns[0]), int(seen.seen_ns[-1]), int(np.ptp(seen.number)) + 1)


def _workload(run: "GlassRun") -> dict[str, Any]:
    config = run.config
    ours = run.camera["this_clock"] and config.display != "none"
    columns = config.size // UNITS[0] * UNITS[0]
    period_ms = _period_ms(run)
    return {
        "name": "glass",
        "source": "the target, a new bar code at every period",
        "rate_hz": config.rate if ours else None if period_ms is None else 1000.0 / period_ms,
        "rows": columns * UNITS[1] // UNITS[0] if ours else None,
        "columns": columns if ours else None,
        "bits_stored": 8 if ours else None,
        "frames": config.total_frames if run.camera["this_clock"] else None,
        "warmup": run.first if run.camera["this_clock"] else None,
        "pacing": "paced: each frame has an instant at which it is due, and it stands in the frame's own code",
        "threads": config.threads,
    }


def _codes(run: "GlassRun") -> dict[str, Any]:
    """What became of the codes of the frames that count."""
    captures = run.captures
    if captures is None:
        return {}
    if not run.camera["this_clock"]:
        both = (captures.frame >= 0).all(axis=1)
        return {
            "captures": int(captures.stamp_ns.size),
            "both_read": int(both.sum()),
            "refused": int(((captures.frame != ABSENT).all(axis=1) & ~both).sum()),
        }
    seen = _seen(run)
    if not seen.number.size:
        return {"due": 0, "seen": 0, "never_seen": 0, "captures": 0, "refused": 0}
    # Cut short, a run's later frames were not missed: nobody looked.
    end = run.first + run.config.total_frames if run.complete else int(seen.number[-1]) + 1
    due = end - run.first
    counts: dict[str, Any] = {
        "due": due,
        "seen": int(seen.number.size),
        "never_seen": due - int(seen.number.size),
        "captures": seen.captures,
        "refused": seen.refused,
    }
    if run.measured is not None:
        counts["received_by_a_client"] = _received(run, seen)
        counts["never_seen_but_received"] = counts["received_by_a_client"] - int(
            client_rows(seen, run.measured)[0].size
        )
    return counts


def _received(run: "GlassRun", seen: SeenFrames) -> int:
    """How many of the frames that were due while these were seen another client received."""
    assert run.measured is not None
    due = run.measured.stamps_ns[:, Stage.DUE].astype(np.int64) // 1000
    return int(((due >= seen.due_ns[0] // 1000) & (due <= seen.due_ns[-1] // 1000)).sum())


# The table -----------------------------------------------------------------------------------------------------


def _row(name: str, summary: dict[str, Any]) -> str:
    figures = "".join(f"{number(summary[key]):>9}" for key in ("mean", "p50", "p95", "p99", "max"))
    return f"  {name:40}{summary['n']:>7}{figures}"


def engine_words(report: dict[str, Any]) -> str:
    """The engine in a few words."""
    engine = report["engine"]
    if not engine["backend"]:
        return "off"
    return f"{engine['backend']} {engine['precision']}, model {(engine['model_sha256'] or '')[:8]}"


def format_glass(report: dict[str, Any]) -> str:
    """The report as a short table for a terminal."""
    work, camera = report["workload"], report["camera"]
    size = f" {work['columns']}x{work['rows']}," if work["rows"] else ""
    rate = f" {work['rate_hz']:.4g} per second" if work["rate_hz"] else ""
    lines = [
        "" if report["complete"] else "INCOMPLETE: stopped before its end\n",
        f"machine  {one_line(report['machine'])}",
        f"workload target,{size}{rate}" + (f", {work['frames']} frames" if work["frames"] else ""),
        f"engine   {engine_words(report)}",
        f"display  {report['display'].get('name', '-')}",
        f"camera   {camera['kind']}: {camera['name']}, {camera['columns']}x{camera['rows']}; stamps: {camera['stamps']}",
        f"not in   {camera['not_in_it']}",
        f"frames   {codes_line(report['codes'])}",
        "",
        f"{'  ms':42}{'n':>7}" + "".join(f"{name:>9}" for name in ("mean", "p50", "p95", "p99", "max")),
        *(_row(name, report[key]) for key, name in ROWS.items() if key in report),
        "",
    ]
    if report["difference_period_ms"] is not None:
        lines.append(
            f"Original to copy: every value is a number of whole periods of {report['difference_period_ms']:.1f} ms; the mean is the "
            "latency."
        )
    lines.append("p99 wants 1,000 frames. Research tool, not a medical device.")
    return "\n".join(lines).lstrip("\n")
