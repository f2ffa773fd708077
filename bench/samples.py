"""The samples that a report keeps beside it (npz): every frame's stamps, and every other series it summarizes.

With them a page is drawn and two runs are compared without running anything again. A run of 18,000 frames takes
less than 1 MB, so the samples themselves are kept and every figure is exact. HdrHistogram's packages were looked at:
they save memory that is not short here, round to three digits, and back-fill by a guess (a sample for every interval
that a latency is long), where the frames' sequence numbers tell which ones never came.
"""

import os
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import BenchError
from stream.frame import Reason, State
from stream.measure import STAGES, Measured
from stream.timing import NS_PER_MS, NS_PER_S, Stage

SCHEMA = "contrastream.samples/1"
EDGE_FRAMES = 10
"""Frames left out at either end of what a client received, as Holoscan's data flow tracking leaves them out."""
WORST_LISTED = 10
TICK_NS = 100
"""Resolution of the kept series."""
BINS_PER_DECADE = 20
LOWEST_MS, HIGHEST_MS = 1e-3, 1e5


@dataclass(frozen=True)
class Samples:
    """What is kept of one measurement.

    Args:
        frames: Every frame received, the warm-up too; None where no frames travelled.
        first: Sequence number of the first measured frame.
        end: One past the last measured one.
        series: (n,) ms in the order they were measured, by their place in the report ("floor/floor_ms").
    """

    frames: Measured | None = None
    first: int = 0
    end: int = 0
    series: dict[str, np.ndarray] = field(default_factory=dict)

    def measured(self) -> Measured | None:
        """The frames that count."""
        if self.frames is None:
            return None
        return only(self.frames, (self.frames.sequence >= self.first) & (self.frames.sequence < self.end))

    def paths(self) -> list[str]:
        """Every series there is, by its place in the report."""
        of_frames = (
            []
            if self.frames is None
            else ["latency_ms", "pacing_ms", *(f"stages_ms/{name}" for name in STAGES)]
        )
        return of_frames + [path for path in self.series if path not in of_frames]

    def values_ms(self, path: str) -> np.ndarray:
        """One series, (n,) ms in the order of time; empty where there is none."""
        if path in self.series:
            return self.series[path]
        measured = self.measured()
        if measured is None:
            return np.zeros(0)
        if path == "latency_ms":
            return measured.stage_ms(Stage.DUE, Stage.RECEIVED)
        if path == "pacing_ms":
            return measured.stage_ms(Stage.DUE, Stage.GRABBED)
        kind, _, name = path.partition("/")
        return measured.stage_ms(*STAGES[name]) if kind == "stages_ms" and name in STAGES else np.zeros(0)


def only(measured: Measured, rows: np.ndarray) -> Measured:
    """Some of the frames."""
    return Measured(*(getattr(measured, name)[rows] for name in Measured.__dataclass_fields__))


def measured_span(measured: Measured, warmup: int, frames: int) -> tuple[int, int]:
    """Sequence numbers [first, end) that count: after the warm-up, without the first and last 10 received.

    Args:
        measured: Everything that was received, in order.
        warmup: Frames to warm up.
        frames: Frames asked for after it.
    """
    if not measured.sequence.size:
        return warmup, warmup
    first = max(warmup, int(measured.sequence[0]) + EDGE_FRAMES)
    return first, max(first, min(warmup + frames, int(measured.sequence[-1]) + 1 - EDGE_FRAMES))


# Single frames -------------------------------------------------------------------------------------------------


def split_ms(stamps_ns: np.ndarray) -> dict[str, float | None]:
    """Where one frame's time went; the parts add up to its latency.

    Args:
        stamps_ns: (6,) due, grabbed, submitted, inferred, published, received; 0 where not passed.

    Returns:
        ms by stage. A stage that was not passed is None, and the time until the next stamp belongs to the stage that
        ends there: a picture that waited in vain for its inference has that wait in `guard`.
    """
    split: dict[str, float | None] = {}
    before = int(stamps_ns[Stage.DUE])
    for name, (_, last) in STAGES.items():
        stamp = int(stamps_ns[last])
        split[name] = (stamp - before) / NS_PER_MS if stamp else None
        before = stamp or before
    return split


def worst_frames(measured: Measured, listed: int = WORST_LISTED) -> list[dict[str, Any]]:
    """The frames with the longest latency, longest first, each with its stage split."""
    if not measured.sequence.size:
        return []
    stamps = measured.stamps_ns.astype(np.int64)
    latency = stamps[:, Stage.RECEIVED] - stamps[:, Stage.DUE]
    rows = np.argsort(-latency, kind="stable")[:listed]
    return [
        {
            "sequence": int(measured.sequence[row]),
            "at_s": round(float(stamps[row, Stage.DUE] - stamps[0, Stage.DUE]) / NS_PER_S, 3),
            "latency_ms": float(latency[row]) / NS_PER_MS,
            "state": State(int(measured.state[row])).name.lower(),
            "reason": Reason(int(measured.reason[row])).name.lower(),
            "stages_ms": split_ms(stamps[row]),
        }
        for row in rows
    ]


# Coordinated omission ------------------------------------------------------------------------------------------


def back_filled_ms(measured: Measured, end: int) -> tuple[np.ndarray, int]:
    """Latencies with those of the frames that never came put in.

    Whoever waited for a frame that never came saw the next one that did. Its latency therefore runs from when the
    missing frame was due (its place between its neighbours' due times) to when that next one was received.

    Args:
        measured: The frames that count.
        end: One past the last sequence number that counts.

    Returns:
        (latencies in ms: the received frames' first, then the missing ones'; how many after the last received one have
        no successor and are in neither).
    """
    stamps = measured.stamps_ns.astype(np.int64)
    plain = np.asarray((stamps[:, Stage.RECEIVED] - stamps[:, Stage.DUE]) / NS_PER_MS)
    numbers = measured.sequence.astype(np.int64)
    if not numbers.size:
        return plain, 0
    missing = np.setdiff1d(np.arange(numbers[0], numbers[-1] + 1), numbers, assume_unique=True)
    due = np.interp(missing, numbers, (stamps[:, Stage.DUE] - stamps[0, Stage.DUE]).astype(np.float64))
    received = (stamps[:, Stage.RECEIVED] - stamps[0, Stage.DUE])[np.searchsorted(numbers, missing)]
    return np.concatenate([plain, (received - due) / NS_PER_MS]), max(0, end - 1 - int(numbers[-1]))


def histogram(samples_ms: np.ndarray) -> dict[str, list[float] | list[int]]:
    """Counts in 20 bins a decade, from the first to the last that is not empty.

    Args:
        samples_ms: (n,) in ms; what lies outside 1 us to 100 s counts in the first or last bin.
    """
    decades = round(np.log10(HIGHEST_MS / LOWEST_MS))
    edges = np.logspace(np.log10(LOWEST_MS), np.log10(HIGHEST_MS), decades * BINS_PER_DECADE + 1)
    counts, _ = np.histogram(np.clip(samples_ms, LOWEST_MS, HIGHEST_MS), edges)
    used = np.flatnonzero(counts)
    if not used.size:
        return {"edges_ms": [], "counts": []}
    low, high = int(used[0]), int(used[-1]) + 1
    return {
        "edges_ms": [float(f"{edge:.5g}") for edge in edges[low : high + 1]],
        "counts": [int(count) for count in counts[low:high]],
    }


# The file ------------------------------------------------------------------------------------------------------


def samples_path(report: Path) -> Path:
    """Where a report's samples lie."""
    return report.with_suffix(".npz")


def save_samples(path: Path, parts: list[Samples]) -> None:
    """Write the samples of a report, whole or not at all.

    Args:
        path: The file.
        parts: One for each measurement in the report, in its order.

    Raises:
        BenchError: It cannot be written.
    """
    arrays: dict[str, np.ndarray] = {"schema": np.array(SCHEMA), "parts": np.array(len(parts))}
    for index, part in enumerate(parts):
        for name, values in part.series.items():
            ticks = np.round(values * (NS_PER_MS / TICK_NS))
            arrays[f"{index}:{name}"] = np.clip(ticks, -(2**31), 2**31 - 1).astype(np.int32)
        if part.frames is not None:
            arrays[f"{index}:span"] = np.array([part.first, part.end])
            arrays |= {f"{index}:frames.{name}": kept for name, kept in _packed(part.frames).items()}
    partial = path.with_name(path.name + ".partial")
    try:
        with partial.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        os.replace(partial, path)
    except OSError as error:
        raise BenchError(
            f"needed to write the samples to {path}, got: {error.strerror}; choose another --out"
        ) from error


def _packed(frames: Measured) -> dict[str, np.ndarray]:
    """Differences instead of the numbers themselves: a third of the size once they are compressed."""
    stamps = frames.stamps_ns.astype(np.int64)
    due = stamps[:, Stage.DUE]
    since = np.where(stamps > 0, stamps - due[:, None], -1)[:, 1:]
    return {
        "sequence": np.diff(frames.sequence.astype(np.int64), prepend=0),
        "publication": np.diff(frames.publication.astype(np.int64), prepend=0),
        "state": frames.state,
        "reason": frames.reason,
        "due_ns": np.diff(due, prepend=0),
        "since_due_ns": since,
    }


def load_samples(path: Path) -> list[Samples]:
    """Read what `save_samples` wrote.

    Raises:
        BenchError: The file is missing or is none of ours.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
            if str(stored["schema"]) != SCHEMA:
                raise BenchError(
                    f"needed samples of {SCHEMA}, got {stored['schema']} in {path}; measure again"
                )
            return [_part(stored, index) for index in range(int(stored["parts"]))]
    except FileNotFoundError as error:
        raise BenchError(
            f"needed the samples beside the report, got no file {path}; keep the .npz with its .json, or measure again"
        ) from error
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise BenchError(
            f"needed samples written by contrastream bench, got {path}: {type(error).__name__}; measure again"
        ) from error


def _part(stored: Any, index: int) -> Samples:
    prefix = f"{index}:"
    names = [name.removeprefix(prefix) for name in stored.files if name.startswith(prefix)]
    series = {
        name: stored[prefix + name] * (TICK_NS / NS_PER_MS)
        for name in names
        if name != "span" and not name.startswith("frames.")
    }
    if "span" not in names:
        return Samples(series=series)
    kept = {name: stored[f"{prefix}frames.{name}"] for name in names_of_frames()}
    due = np.cumsum(kept["due_ns"])
    since = kept["since_due_ns"]
    later = np.where(since < 0, 0, due[:, None] + since)
    frames = Measured(
        np.cumsum(kept["sequence"]).astype(np.uint64),
        np.cumsum(kept["publication"]).astype(np.uint64),
        kept["state"],
        kept["reason"],
        np.column_stack([due, later]).astype(np.uint64),
    )
    first, end = (int(number) for number in stored[f"{prefix}span"])
    return Samples(frames, first, end, series)


def names_of_frames() -> tuple[str, ...]:
    """The arrays in which the frames are kept."""
    return ("sequence", "publication", "state", "reason", "due_ns", "since_due_ns")
