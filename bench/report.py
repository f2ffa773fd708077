"""A run as a report (JSON)."""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from bench.samples import EDGE_FRAMES, Samples, back_filled_ms, histogram, measured_span, only, worst_frames
from bench.shown_report import shown_facts, shown_frames
from bench.stats import ratio_of_medians
from bench.targets import targets
from stream import accounts
from stream.display.shown import without_doubtful
from stream.frame import Reason, State
from stream.latency import summarize_ms
from stream.measure import STAGES, Measured
from stream.reported import reported_model, reported_source
from stream.timing import NS_PER_MS, Stage

if TYPE_CHECKING:
    from bench.live import Run

SCHEMA = "contrastream.bench/1"
RATES_SCHEMA = "contrastream.bench.rates/1"
LATE_LISTED = 20


def build_report(run: "Run") -> dict[str, Any]:
    """Everything that was measured, with the keys of DESIGN.md, section 2; what is missing is null."""
    measured = _measured_frames(run)
    window = _window(run, measured)
    report: dict[str, Any] = {
        "schema": SCHEMA,
        "complete": run.complete,
        "config": {
            **dataclasses.asdict(run.config),
            "out": None,
            "rate": run.rate_hz,
            "source": reported_source(run.config.source),
            "model": reported_model(run.config.model),
        },
        "workload": _workload(run),
        "machine": run.machine,
        "engine": _engine(run, measured),
        "gpu": run.gpu,
        "frames": _frames(run, measured),
        "fps": _fps(measured),
        "latency_ms": summarize_ms(_stage(measured, Stage.DUE, Stage.RECEIVED)),
        "latency_inferred_ms": summarize_ms(_stage(_inferred(measured), Stage.DUE, Stage.RECEIVED)),
        "stages_ms": {name: summarize_ms(_stage(measured, *ends)) for name, ends in STAGES.items()},
        "pacing_ms": summarize_ms(_stage(measured, Stage.DUE, Stage.GRABBED)),
        "left_out": _left_out(run),
        "worst": [] if measured is None else worst_frames(measured),
        "coordinated_omission": _omission(run, measured),
        "late": _late(run, measured, None if window is None else window.longest_gap_ms),
        "steal_ms": None if window is None else window.steal_ms,
        "steal_share": None if window is None else window.steal_share,
        "others_share": None if window is None else window.others_share,
        "witness_ms": None if window is None else window.longest_gap_ms,
        "witness": None
        if window is None
        else {
            "how": "a process of normal priority that sleeps 1 ms at a time, instead of a spinning thread, which would "
            "take a core; its longest oversleep, which holds stalls of the host and waiting for a core",
            "gaps_over_2_ms": window.gaps_over_2_ms,
        },
        "processes": {} if window is None else window.processes,
        "allocations": run.allocations,
        "floor": _floor(run, measured),
    }
    if (shown := shown_frames(run)) is not None:
        report["shown"] = shown_facts(run, shown)
        doubt_ms = shown.uncertainty_ms
        report["stages_ms"]["shown"] = without_doubtful(summarize_ms(shown.stage_ms()), doubt_ms)
        report["latency_shown_ms"] = without_doubtful(summarize_ms(shown.latency_ms()), doubt_ms)
    report["targets"] = targets(report, run)
    return report


def build_rates_report(reports: list[dict[str, Any]], rates_hz: Sequence[float]) -> dict[str, Any]:
    """Several rates in one report: a row each, and their whole reports."""
    return {
        "schema": RATES_SCHEMA,
        "complete": len(reports) == len(rates_hz) and all(report["complete"] for report in reports),
        "machine": reports[0]["machine"],
        "rows": [rate_row(report) for report in reports],
        "runs": reports,
    }


def rate_row(report: dict[str, Any]) -> dict[str, Any]:
    """What one rate comes to."""
    frames, floor = report["frames"], report["floor"] or {}
    return {
        "rate_hz": report["workload"]["rate_hz"],
        "complete": report["complete"],
        "fps": report["fps"],
        "measured": frames["measured"],
        "synthetic_share": frames["synthetic_share"],
        "inferred_in_time_share": frames["inferred_in_time_share"],
        "dropped": sum(frames["dropped"].values()),
        "unexplained": frames["unexplained"],
        "pacing_ms": report["pacing_ms"],
        "latency_ms": report["latency_ms"],
        "engine_ms": report["engine"]["in_pipeline_ms"],
        "serial_median_ms": report["engine"]["serial_median_ms"],
        "overhead_ms": floor.get("pipeline_ms"),
        "floor_ratio": floor.get("ratio"),
        "late": report["late"]["count"],
        "steal_share": report["steal_share"],
        "others_share": report["others_share"],
        "witness_ms": report["witness_ms"],
        **({"latency_shown_ms": report["latency_shown_ms"]} if "latency_shown_ms" in report else {}),
    }


# Parts ---------------------------------------------------------------------------------------------------------


def _measured_frames(run: "Run") -> Measured | None:
    """The frames that count: after the warm-up, without the first and last of what was received."""
    if run.measured is None:
        return None
    first, end = measured_span(run.measured, run.warmup, run.config.frames)
    return only(run.measured, (run.measured.sequence >= first) & (run.measured.sequence < end))


def samples_of(run: "Run") -> Samples:
    """What is kept of the run: its frames and every other series that the report summarizes."""
    series: dict[str, np.ndarray] = {
        f"engine/serial_ms/{when}": times for when, times in run.serial_ms.items()
    }
    if run.paced_alone_ms is not None:
        series["engine/paced_alone_ms"] = run.paced_alone_ms
    for when, floor in run.floor_alone.items():
        series[f"floor/floor_alone_ms/{when}"] = floor.overhead_ms()
    if run.measured is None:
        return Samples(series=series)
    measured = _measured_frames(run)
    assert measured is not None
    series["latency_inferred_ms"] = _stage(_inferred(measured), Stage.DUE, Stage.RECEIVED)
    beside, quiet = _beside(run, measured)
    if run.floor_alone:
        series["floor/pipeline_ms"] = overhead_ms(beside)
        series["floor/pipeline_without_floor_beside_ms"] = overhead_ms(quiet)
    if run.floor_beside is not None:
        series["floor/floor_ms"] = run.floor_beside.overhead_ms()
    if (shown := shown_frames(run)) is not None:
        series["stages_ms/shown"] = shown.stage_ms()
        series["latency_shown_ms"] = shown.latency_ms()
    return Samples(run.measured, *measured_span(run.measured, run.warmup, run.config.frames), series)


def _left_out(run: "Run") -> dict[str, Any]:
    span = None if run.measured is None else measured_span(run.measured, run.warmup, run.config.frames)
    return {
        "warmup": run.warmup,
        "first_and_last": EDGE_FRAMES,
        "span": None if span is None else list(span),
        "how": f"the {run.warmup} frames of the warm-up, and the first and last {EDGE_FRAMES} that were received",
    }


def _omission(run: "Run", measured: Measured | None) -> dict[str, Any]:
    """The plain histogram, and the back-filled one where it differs."""
    found: dict[str, Any] = {
        "how": "a frame that never came counts from when it was due to when the next one was received; every other "
        "latency runs from the due time already, so that a stall hides no frame behind it",
        "missing": None,
        "without_successor": None,
        "latency_ms": None,
        "histogram": None,
        "histogram_back_filled": None,
    }
    if measured is None:
        return found
    found["histogram"] = histogram(_stage(measured, Stage.DUE, Stage.RECEIVED))
    counters = (run.status or {}).get("counters") or {}
    if counters.get("repeated", 0):
        found["how"] = (
            "not told: the source repeated images, which are not sent and leave the same gap as a lost frame"
        )
        return found
    _, end = (
        measured_span(run.measured, run.warmup, run.config.frames) if run.measured is not None else (0, 0)
    )
    filled, unanswered = back_filled_ms(measured, end)
    found |= {"missing": int(filled.size - measured.sequence.size), "without_successor": unanswered}
    if found["missing"]:
        found |= {"latency_ms": summarize_ms(filled), "histogram_back_filled": histogram(filled)}
    return found


def _beside(run: "Run", measured: Measured) -> tuple[Measured, Measured]:
    """The measured frames with the floor beside them, and those without."""
    rows = np.zeros(measured.sequence.size, bool)
    for first, end in run.blocks:
        rows |= (measured.sequence >= first) & (measured.sequence < end)
    return only(measured, rows), only(measured, ~rows)


def _window(run: "Run", measured: Measured | None) -> Any:
    if run.witness is None or measured is None or not measured.sequence.size:
        return None
    frames = int(measured.sequence[-1] - measured.sequence[0]) + 1
    start_ns, end_ns = int(measured.stamps_ns[0, Stage.DUE]), int(measured.stamps_ns[-1, Stage.RECEIVED])
    return run.witness.window(start_ns, end_ns, frames)


def _workload(run: "Run") -> dict[str, Any]:
    config, frame_format = run.config, run.frame_format
    return {
        "name": "live",
        "source": ((run.status or {}).get("source") or {}).get("kind", reported_source(config.source)),
        "rate_hz": run.rate_hz,
        "rows": frame_format.rows if frame_format else None,
        "columns": frame_format.columns if frame_format else None,
        "bits_stored": frame_format.bits_stored if frame_format else None,
        "frames": config.frames,
        "warmup": run.warmup,
        "client": config.client,
        "pacing": "paced: each frame has an instant at which it is due, and latency runs from there",
        "threads": config.threads,
    }


def _engine(run: "Run", measured: Measured | None) -> dict[str, Any]:
    serial = run.serial_median_ms
    said = run.engine
    return {
        "backend": said.get("backend"),
        "model_sha256": said.get("model_sha256"),
        "precision": said.get("precision"),
        "taught": said.get("taught"),
        "skipped": said.get("skipped", []),
        "restarts": (run.status or {}).get("engine_restarts"),
        "open_ms": said.get("open_ms"),
        "serial_median_ms": serial,
        "serial_ms": {when: summarize_ms(times) for when, times in run.serial_ms.items()},
        "paced_alone_ms": None if run.paced_alone_ms is None else summarize_ms(run.paced_alone_ms),
        "in_pipeline_ms": summarize_ms(_stage(measured, Stage.SUBMITTED, Stage.INFERRED)),
    }


def _frames(run: "Run", measured: Measured | None) -> dict[str, Any]:
    """Whole-run counts, so that they add up, and the measured frames' own."""
    counters = (run.status or {}).get("counters") or {}
    dropped = dict(counters.get("dropped", {}))
    grabbed = int(counters.get("grabbed", 0))
    published, repeated = int(counters.get("published", 0)), int(counters.get("repeated", 0))
    received = int(run.measured.sequence.size) if run.measured is not None else 0
    made = _synthesized(measured)
    due = grabbed + sum(dropped.values())
    return {
        "due": due,
        "grabbed": grabbed,
        "repeated": repeated,
        "synthesized": int(counters.get("synthetic", 0)),
        "passthrough": dict(counters.get("passthrough", {})),
        "late_results": int(counters.get("late_results", 0)),
        "published": published,
        "received": received,
        "dropped": dropped,
        "unexplained": grabbed - repeated - received,
        "accounts": accounts.problem(counters, run.measured),
        "copied": ((run.status or {}).get("clients") or {}).get("copied"),
        "measured": 0 if measured is None else int(measured.sequence.size),
        "inferred_in_time_share": None
        if measured is None or not measured.sequence.size
        else float(made.sum()) / run.config.frames,
        "synthetic_share": None
        if measured is None or not measured.sequence.size
        else float((measured.state == State.SYNTHETIC).sum()) / run.config.frames,
    }


def _synthesized(measured: Measured | None) -> np.ndarray:
    """(n,) bool: frames whose inference ended in time; with a taught model they went out SYNTHETIC."""
    if measured is None:
        return np.zeros(0, bool)
    untaught = (measured.state == State.PASSTHROUGH) & (measured.reason == Reason.UNTAUGHT)
    inferred = measured.stamps_ns[:, Stage.INFERRED] > 0
    return np.asarray(((measured.state == State.SYNTHETIC) | untaught) & inferred)


def _inferred(measured: Measured | None) -> Measured | None:
    """The frames that waited for an inference and got it; a picture without one comes sooner."""
    return None if measured is None else only(measured, _synthesized(measured))


def _fps(measured: Measured | None) -> float | None:
    fps = None if measured is None else measured.summary()["fps"]
    return float(fps) if isinstance(fps, int | float) else None


def _stage(measured: Measured | None, first: Stage, last: Stage) -> np.ndarray:
    return np.zeros(0) if measured is None else measured.stage_ms(first, last)


def _late(run: "Run", measured: Measured | None, gap_ms: float | None) -> dict[str, Any]:
    """Live pictures that a client held later than the deadline plus the witness' longest gap."""
    latency = _stage(measured, Stage.DUE, Stage.RECEIVED)
    if gap_ms is None:
        return {"limit_ms": None, "count": None, "excess_ms": [], "past_deadline": None}
    limit_ms = run.deadline_ms + gap_ms
    excess = np.sort(latency[latency > limit_ms] - limit_ms)[::-1]
    return {
        "limit_ms": limit_ms,
        "deadline_ms": run.deadline_ms,
        "count": int(excess.size),
        "excess_ms": [round(float(value), 3) for value in excess[:LATE_LISTED]],
        "past_deadline": int((latency > run.deadline_ms).sum()),
    }


def overhead_ms(measured: Measured) -> np.ndarray:
    """Due to received without the engine's share, (n,) ms: of the frames inferred in time, and of those that went by none."""
    off = (measured.state == State.PASSTHROUGH) & (measured.reason == Reason.OFF)
    stamps = measured.stamps_ns[_synthesized(measured) | off].astype(np.int64)
    inside = stamps[:, Stage.INFERRED] - stamps[:, Stage.SUBMITTED]
    return np.asarray((stamps[:, Stage.RECEIVED] - stamps[:, Stage.DUE] - inside) / NS_PER_MS)


def _floor(run: "Run", measured: Measured | None) -> dict[str, Any] | None:
    if not run.floor_alone or measured is None:
        return None
    beside, quiet = _beside(run, measured)
    floor = run.floor_beside
    ratio = None if floor is None else ratio_of_medians(overhead_ms(beside), floor.overhead_ms())
    alone = np.concatenate([samples.overhead_ms() for samples in run.floor_alone.values()])
    to_alone = ratio_of_medians(overhead_ms(quiet), alone)
    return {
        "how": "due to received without the engine (floor: without its memcpy); the floor's processes ran beside the "
        "pipeline, between its frames, in every second stretch of the run",
        "ratio": None if ratio is None else ratio.as_dict(),
        "ratio_to_floor_alone": None if to_alone is None else to_alone.as_dict(),
        "pipeline_ms": summarize_ms(overhead_ms(beside)),
        "pipeline_without_floor_beside_ms": summarize_ms(overhead_ms(quiet)),
        "floor_ms": None if floor is None else summarize_ms(floor.overhead_ms()),
        "floor_alone_ms": {when: summarize_ms(seen.overhead_ms()) for when, seen in run.floor_alone.items()},
        "floor_stages_ms": None
        if floor is None
        else {name: summarize_ms(times) for name, times in floor.stages_ms().items()},
    }
