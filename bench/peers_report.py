"""`bench peers` as a report (JSON); peers_table.py shows it."""

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.contestant import COLUMNS, KINDS, LEAD_IN, WARM_UP, Contestant
from bench.samples import Samples
from bench.stats import Ratio, ratio_of_percentiles
from stream.frame import Reason
from stream.latency import P99_SAMPLES, P999_SAMPLES, summarize_ms
from stream.timing import NS_PER_MS

if TYPE_CHECKING:
    from bench.peers import Run

SCHEMA = "contrastream.bench.peers/1"
AT_MOST = 1.1
"""The design's limit for our p50 over the plain loop's and Holoscan's."""
LOST = "lost"
"""A percentile that falls on a frame that never came, or came without its synthesis."""
Percentiles = dict[str, float | str | None]

STAGES = {
    "grab": ("due", "grabbed"),
    "submit": ("grabbed", "submitted"),
    "engine": ("submitted", "inferred"),
    "publish": ("inferred", "published"),
    "transport": ("published", "received"),
}
"""As the pipeline's own (stream/measure.py), where the guard's stage is named for what the others do there."""
COLUMN = {name: index for index, name in enumerate(COLUMNS)}


def between_ms(frames: np.ndarray, first: str, last: str) -> np.ndarray:
    """Time between two stamps in ms, (n,); infinite for a frame without one of them.

    Args:
        frames: (n, 8) int64, `bench.contestant.COLUMNS`.
        first: A column.
        last: Another.
    """
    start, end = frames[:, COLUMN[first]], frames[:, COLUMN[last]]
    return np.asarray(np.where((start > 0) & (end > 0), (end - start) / NS_PER_MS, np.inf))


def latency_ms(frames: np.ndarray) -> np.ndarray:
    """Due to received in ms, (n,); infinite for a frame that never came, and for one that came without its synthesis:
    a live picture sent at its deadline instead is a different thing, and must not look like a quick one."""
    whole = frames[:, COLUMN["inferred"]] > 0
    return np.asarray(np.where(whole, between_ms(frames, "due", "received"), np.inf))


def percentiles(samples_ms: np.ndarray) -> Percentiles:
    """p50, p95, p99 and p99.9 over all frames that were due, by nearest rank; None without enough frames."""
    found: Percentiles = {}
    for name, percent, needed in (
        ("p50", 50.0, 1),
        ("p95", 95.0, 20),
        ("p99", 99.0, P99_SAMPLES),
        ("p99.9", 99.9, P999_SAMPLES),
    ):
        value = None
        if samples_ms.size >= needed:
            value = float(np.percentile(samples_ms, percent, method="inverted_cdf"))
        found[name] = LOST if value is not None and np.isinf(value) else value
    return found


def verdict(ratio: Ratio | None, limit: float = 1.0) -> str:
    """Whether a latency is above or below `limit` times another, as far as the interval can tell."""
    if ratio is None or ratio.low is None or ratio.high is None or ratio.low <= limit <= ratio.high:
        return "cannot tell"
    return "slower" if ratio.low > limit else "faster"


def _ratio(above_ms: np.ndarray, below_ms: np.ndarray, percent: float) -> dict[str, Any] | None:
    if percent > 50.0 and min(above_ms.size, below_ms.size) < P99_SAMPLES:
        return None
    ratio = ratio_of_percentiles(above_ms, below_ms, percent)
    return {**(ratio.as_dict() if ratio is not None else _NOTHING), "verdict": verdict(ratio)}


_NOTHING: dict[str, Any] = {"value": None, "low": None, "high": None, "chunks": 0}


def build_report(run: "Run") -> dict[str, Any]:
    """Everything that was measured; what is missing is null, and who is missing stands under `skipped` with the reason."""
    frames = {each.kind.name: _whole_rounds(each, run.rounds) for each in run.contestants}
    latencies = {name: latency_ms(rows) for name, rows in frames.items()}
    baseline = next((kind.name for kind in KINDS if kind.name in latencies), None)
    contestants = {
        each.kind.name: _contestant(each, run, frames[each.kind.name], latencies, baseline)
        for each in run.contestants
    }
    engine = next((each.said.get("engine") for each in run.contestants), None)
    return {
        "schema": SCHEMA,
        "complete": run.complete,
        "config": {**dataclasses.asdict(run.config), "out": None, "source": _source_name(run.config.source)},
        "workload": {
            "name": "peers",
            "source": _source_name(run.config.source),
            "distinct_frames": run.source.get("frames"),
            **{key: (run.source.get("format") or {}).get(key) for key in ("rows", "columns", "bits_stored")},
            "rate_hz": run.config.rate,
            "frames": run.config.frames,
            "warmup": WARM_UP,
            "lead_in": LEAD_IN,
            "rounds": run.config.rounds,
            "rounds_measured": run.rounds,
            "frames_measured": max((len(rows) for rows in frames.values()), default=0),
            "threads": run.config.threads,
            "pacing": "each contestant is started once, warmed up, and idle between its turns (A B C D A B C D ...); the first "
            "frames of each turn are not measured; frames lie in memory for all; latency from the instant a frame was due "
            "(an absolute schedule) to the instant a client in another process holds it; a frame that never came, or came "
            "without its synthesis, counts as later than any other",
        },
        "machine": run.machine,
        "engine": engine,
        "baseline": baseline,
        "contestants": contestants,
        "skipped": dict(run.skipped),
        "ours_to_others": _ours_to_others(latencies),
        "isolation": _isolation(contestants),
        "same_planes": _same_planes(run.contestants, run.rounds),
        "targets": _targets(latencies, run.skipped),
        "steal_ms": run.steal_ms,
        "steal_share": _share(run.steal_ms, run.wall_ms),
        "others_share": _share(_others_ms(run), run.wall_ms),
        "witness_ms": _witness_gap(run),
    }


def samples_of(run: "Run") -> Samples:
    """What the report keeps beside it: each contestant's latency and parts of it, of the frames that came whole."""
    series = {}
    for each in run.contestants:
        frames = _whole_rounds(each, run.rounds)
        latency = latency_ms(frames)
        whole = np.isfinite(latency)
        engine = between_ms(frames, "submitted", "inferred")
        series[f"contestants/{each.kind.name}/latency_whole_ms"] = latency[whole]
        series[f"contestants/{each.kind.name}/outside_engine_ms"] = latency[whole] - engine[whole]
    return Samples(series=series)


def _source_name(source: str) -> str:
    """The phantom's name or that a recording was given: a file's name may be a patient's."""
    return source if source == "phantom" else "a recording"


def _whole_rounds(contestant: Contestant, rounds: int) -> np.ndarray:
    rows = contestant.seen.rows[:rounds]
    return np.concatenate(rows) if rows else np.zeros((0, len(COLUMNS)), np.int64)


def _contestant(
    contestant: Contestant,
    run: "Run",
    frames: np.ndarray,
    latencies: dict[str, np.ndarray],
    baseline: str | None,
) -> dict[str, Any]:
    name = contestant.kind.name
    latency = latencies[name]
    whole = np.isfinite(latency)
    engine = between_ms(frames, "submitted", "inferred")
    came = frames[:, COLUMN["received"]] > 0
    done = sum(block.frames for block in contestant.seen.blocks[: run.rounds])
    cpu_ms = {process: spent / NS_PER_MS / done for process, spent in _cpu_ns(contestant, run.rounds).items()}
    below = latencies[baseline] if baseline is not None and baseline != name else None
    return {
        "title": contestant.kind.title,
        "versions": contestant.said.get("versions", {}),
        "settings": contestant.said.get("settings"),
        "frames": int(frames.shape[0]),
        "lost": int((~came).sum()),
        "live_only": int((came & ~whole).sum()),
        "live_only_reasons": {
            Reason(int(reason)).name.lower(): int(count)
            for reason, count in zip(
                *np.unique(frames[came & ~whole, COLUMN["reason"]], return_counts=True), strict=True
            )
        },
        "latency_ms": {**percentiles(latency), "max": float(latency[whole].max()) if whole.any() else None},
        "latency_whole_ms": summarize_ms(latency[whole]),
        "engine_ms": summarize_ms(engine[whole]),
        "outside_engine_ms": summarize_ms(latency[whole] - engine[whole]),
        "pacing_ms": summarize_ms(between_ms(frames, "due", "grabbed")[came]),
        "stages_ms": {
            stage: summarize_ms(between_ms(frames, *ends)[whole]) for stage, ends in STAGES.items()
        },
        "cpu_ms_per_frame": sum(cpu_ms.values()) if done else None,
        "cpu_ms_per_frame_by_process": cpu_ms,
        "p50_ratio": None if below is None else _ratio(latency, below, 50.0),
        "p99_ratio": None if below is None else _ratio(latency, below, 99.0),
    }


def _cpu_ns(contestant: Contestant, rounds: int) -> dict[str, int]:
    """CPU time of each of a contestant's processes over whole rounds."""
    total: dict[str, int] = {}
    for block in contestant.seen.cpu_ns[:rounds]:
        for process, spent in block.items():
            total[process] = total.get(process, 0) + spent
    return total


def _ours_to_others(latencies: dict[str, np.ndarray]) -> dict[str, Any]:
    """Our p50 and p99 over each of theirs."""
    if "ours" not in latencies:
        return {}
    ours = latencies["ours"]
    return {
        name: {"p50": _ratio(ours, theirs, 50.0), "p99": _ratio(ours, theirs, 99.0)}
        for name, theirs in latencies.items()
        if name != "ours"
    }


def _isolation(contestants: dict[str, Any]) -> dict[str, Any] | None:
    """What it costs to have source, guard and engine in processes of their own: ours minus raw pyzmq, which has one."""
    if not {"ours", "pyzmq"} <= contestants.keys():
        return None
    ours, theirs = contestants["ours"], contestants["pyzmq"]

    def minus(one: Any, other: Any) -> float | None:
        return one - other if isinstance(one, float) and isinstance(other, float) else None

    return {
        "how": "contrastream minus raw pyzmq with the engine in the same process",
        "p50_ms": minus(ours["latency_ms"]["p50"], theirs["latency_ms"]["p50"]),
        "outside_engine_p50_ms": minus(ours["outside_engine_ms"]["p50"], theirs["outside_engine_ms"]["p50"]),
        "engine_p50_ms": minus(ours["engine_ms"]["p50"], theirs["engine_ms"]["p50"]),
        "cpu_ms_per_frame": minus(ours["cpu_ms_per_frame"], theirs["cpu_ms_per_frame"]),
    }


def _same_planes(contestants: list[Contestant], rounds: int) -> bool | None:
    """Whether each contestant's client held the same bytes at the end of each block; None where nothing can be compared."""
    compared = False
    for block in range(rounds):
        hashes = {found for each in contestants if (found := each.seen.planes_sha256[block]) is not None}
        compared = compared or sum(each.seen.planes_sha256[block] is not None for each in contestants) > 1
        if len(hashes) > 1:
            return False
    return True if compared else None


def _targets(latencies: dict[str, np.ndarray], skipped: dict[str, str]) -> list[dict[str, Any]]:
    """The design's: p50 no worse than 1.1 times the plain loop's and Holoscan's; `met` is None where it cannot be told."""
    rows = []
    for name in ("loop", "holoscan"):
        ratio = (
            ratio_of_percentiles(latencies["ours"], latencies[name], 50.0)
            if {"ours", name} <= latencies.keys()
            else None
        )
        told = verdict(ratio, AT_MOST)
        rows.append(
            {
                "name": f"end to end p50, times that of {name}",
                "needed": f"<= {AT_MOST:g}",
                "value": None if ratio is None else ratio.value,
                "interval": None if ratio is None else [ratio.low, ratio.high],
                "met": None if told == "cannot tell" else told == "faster",
                "why_not_measured": skipped.get(name),
            }
        )
    return rows


def _share(time_ms: float | None, wall_ms: float) -> float | None:
    """Of the time of all cores."""
    return None if time_ms is None or wall_ms <= 0 else time_ms / (wall_ms * (os.cpu_count() or 1))


def _others_ms(run: "Run") -> float:
    """CPU time of this machine during the rounds that was not the contestant's whose turn it was."""
    spent = sum(sum(_cpu_ns(each, len(each.seen.cpu_ns)).values()) for each in run.contestants)
    return max(0.0, run.busy_ms - spent / NS_PER_MS)


def _witness_gap(run: "Run") -> float | None:
    """The longest stall that a process of the same priority saw during the turns, ms."""
    blocks = [block for each in run.contestants for block in each.seen.blocks]
    if run.witness is None or not blocks:
        return None
    return max(
        run.witness.window(block.start_ns, round(block.end_ns), block.frames).longest_gap_ms
        for block in blocks
    )
