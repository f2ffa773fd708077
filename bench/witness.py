"""What the machine itself did during a run: stalls, steal time, and what the pipeline's processes took of it.

A process that sleeps 1 ms at a time and records by how much it overslept. A spinning thread would see the same
stalls to the microsecond but would eat one of two cores; this one takes 1 to 3 % of one. It has the priority of
everybody else, so waiting for a core counts as a gap too. What took the cores is told apart by two other figures, read
once a second: steal time (the host), and the CPU time of processes that are not this run's.

`python -m bench.witness PID`, PID being the guard; the source and the engine are found among its children.
"""

import os
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench.machine import busy_ms, steal_ms
from bench.stats import slope
from bench.worker import Worker, serve
from stream.control import become_child
from stream.timing import NS_PER_MS, NS_PER_S

NAP_NS = NS_PER_MS
SAMPLE_NS = NS_PER_S
GAP_NS = 2 * NS_PER_MS
MAX_GAPS = 100_000
CHILDREN = {"stream.grab": "source", "stream.infer": "engine"}
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
TICK_MS = 1000.0 / os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class ProcessSample:
    """A process at an instant; see proc(5), /proc/PID/stat and /proc/PID/statm."""

    minor_faults: int
    resident_bytes: int
    anonymous_bytes: int
    """Resident memory that is neither a file nor the ring."""
    cpu_ms: float


def sample_process(pid: int) -> ProcessSample | None:
    """Read what a process has used; None where it is gone."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        _size, resident, shared, *_ = (int(pages) for pages in Path(f"/proc/{pid}/statm").read_text().split())
    except (OSError, ValueError):
        return None
    return ProcessSample(
        int(stat[7]),
        resident * PAGE_BYTES,
        (resident - shared) * PAGE_BYTES,
        (int(stat[11]) + int(stat[12])) * TICK_MS,
    )


def family(guard: int) -> dict[int, str | None]:
    """The guard and its children by process id, with the names of those that are the pipeline."""
    found: dict[int, str | None] = {guard: "guard"}
    for task in Path(f"/proc/{guard}/task").glob("*/children"):
        try:
            children = [int(pid) for pid in task.read_text().split()]
        except OSError:
            continue
        for pid in children:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            found[pid] = next((name for module, name in CHILDREN.items() if module in words), None)
    return found


@dataclass(frozen=True)
class Window:
    """What the witness saw between two instants."""

    longest_gap_ms: float
    gaps_over_2_ms: int
    others_share: float | None
    """Of the time of all cores: what processes other than this run's used."""
    steal_ms: float | None
    steal_share: float | None
    """Of the time of all cores."""
    processes: dict[str, dict[str, float | None]]
    """Per process: CPU per frame, page faults and growth of resident memory per 1,000 frames."""


@dataclass(frozen=True)
class WitnessRecord:
    """A whole run, as the witness wrote it."""

    gaps_ns: np.ndarray
    """(n, 2) int64: the end of an oversleep of more than 2 ms, and how long it was."""
    samples: list[dict[str, Any]]

    def window(self, start_ns: int, end_ns: int, frames: int) -> Window:
        """What happened between two instants.

        Args:
            start_ns: CLOCK_MONOTONIC.
            end_ns: As `start_ns`.
            frames: Frames that were due in that time.
        """
        inside = (self.gaps_ns[:, 0] >= start_ns) & (self.gaps_ns[:, 0] <= end_ns)
        gaps = self.gaps_ns[inside, 1] / NS_PER_MS
        samples = [sample for sample in self.samples if start_ns <= sample["at_ns"] <= end_ns]
        longest = max((sample["longest_ns"] / NS_PER_MS for sample in samples[1:]), default=0.0)
        stolen = share = others = None
        if len(samples) > 1 and samples[0]["steal_ms"] is not None:
            first, last = samples[0], samples[-1]
            cores_ms = (last["at_ns"] - first["at_ns"]) / NS_PER_MS * (os.cpu_count() or 1)
            stolen = last["steal_ms"] - first["steal_ms"]
            share = stolen / cores_ms
            busy_ms = last["busy_ms"] - first["busy_ms"]
            others = max(0.0, busy_ms - (last["ours_ms"] - first["ours_ms"])) / cores_ms
        frames_per_ns = frames / max(1, end_ns - start_ns)
        return Window(
            max(longest, float(gaps.max(initial=0.0))),
            int(gaps.size),
            others,
            stolen,
            share,
            {
                name: _use(samples, name, frames_per_ns)
                for name in ("guard", "source", "engine")
                if any(name in sample["processes"] for sample in samples)
            },
        )


def _use(samples: list[dict[str, Any]], name: str, frames_per_ns: float) -> dict[str, float | None]:
    """A process' use per frame, over the samples of its last life (an engine may have been started again)."""
    seen = [
        (sample["at_ns"], *sample["processes"][name]) for sample in samples if name in sample["processes"]
    ]
    seen = [row for row in seen if row[1] == seen[-1][1]]
    at_ns, _pid, faults, resident, anonymous, cpu_ms = (
        np.array(column, np.float64) for column in zip(*seen, strict=True)
    )
    frames = (at_ns - at_ns[0]) * frames_per_ns
    passed = float(frames[-1])

    def per_thousand(values: np.ndarray) -> float | None:
        found = slope(frames, values)
        return None if found is None else 1000.0 * found

    resident_slope, anonymous_slope = per_thousand(resident), per_thousand(anonymous)
    return {
        "cpu_ms_per_frame": (cpu_ms[-1] - cpu_ms[0]) / passed if passed else None,
        "minor_faults_per_frame": (faults[-1] - faults[0]) / passed if passed else None,
        "resident_mib": float(resident[-1]) / 2**20,
        "resident_kib_per_1000_frames": None if resident_slope is None else resident_slope / 1024,
        "anonymous_kib_per_1000_frames": None if anonymous_slope is None else anonymous_slope / 1024,
    }


class Witness:
    """Watches from a process of its own, for the pipeline whose guard is this process."""

    def __init__(self) -> None:
        self._worker = Worker("bench.witness", str(os.getpid()))

    def record(self) -> WitnessRecord:
        """All it has seen so far."""
        said = self._worker.ask("record")
        return WitnessRecord(np.array(said["gaps"], np.int64).reshape(-1, 2), said["samples"])

    def close(self) -> None:
        """End it; may be called twice."""
        self._worker.close()


class Watching:
    """The witness' own loop.

    Args:
        guard: The guard's process id.
    """

    def __init__(self, guard: int) -> None:
        self._guard = guard
        self._gaps: list[tuple[int, int]] = []
        self._samples: list[dict[str, Any]] = []

    def record(self) -> dict[str, Any]:
        """What was seen so far."""
        return {"gaps": list(self._gaps), "samples": list(self._samples)}

    def watch(self) -> None:
        """Nap and look, for ever."""
        next_sample_ns = before_ns = time.monotonic_ns()
        longest_ns = 0
        while True:
            time.sleep(NAP_NS / NS_PER_S)
            now_ns = time.monotonic_ns()
            gap_ns = now_ns - before_ns - NAP_NS
            longest_ns = max(longest_ns, gap_ns)
            if gap_ns > GAP_NS and len(self._gaps) < MAX_GAPS:
                self._gaps.append((now_ns, gap_ns))
            if now_ns >= next_sample_ns:
                next_sample_ns += SAMPLE_NS
                self._sample(now_ns, longest_ns)
                longest_ns = 0
                now_ns = time.monotonic_ns()
            before_ns = now_ns

    def _sample(self, now_ns: int, longest_ns: int) -> None:
        processes: dict[str, tuple[float, ...]] = {}
        ours_ms = 0.0
        for pid, name in family(self._guard).items():
            if (used := sample_process(pid)) is None:
                continue
            ours_ms += used.cpu_ms
            if name is not None:
                processes[name] = (
                    pid,
                    used.minor_faults,
                    used.resident_bytes,
                    used.anonymous_bytes,
                    used.cpu_ms,
                )
        self._samples.append(
            {
                "at_ns": now_ns,
                "longest_ns": longest_ns,
                "steal_ms": steal_ms(),
                "busy_ms": busy_ms(),
                "ours_ms": ours_ms,
                "processes": processes,
            }
        )


def main() -> int:
    """Entry point of the witness."""
    become_child()
    watching = Watching(int(sys.argv[1]))
    threading.Thread(target=watching.watch, name="watch", daemon=True).start()
    serve({"record": watching.record})
    return 0


if __name__ == "__main__":
    sys.exit(main())
