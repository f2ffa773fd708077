"""What a soak's processes hold, watched from a process of its own, so that watching is not what grows.

`python -m bench.soak_watch JOB` reads a status a line from its standard input, takes a point of every process of its
parent's pipeline at each, and writes the report so far. The job is JSON: `about` (as `bench.soak_report.about`), `seen`
(the client's snapshot) and `out` (the report; null writes none). When its input ends it leaves `points.json` beside the
job.
"""

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from bench.soak_report import soak_report
from bench.witness import family, sample_process
from stream.control import die_with_parent
from stream.errors import StreamError
from stream.session import write_json


def point(guard: int, frames: int) -> dict[str, Any]:
    """What every process of a pipeline holds now: memory in KiB, descriptors, threads."""
    processes: dict[str, dict[str, float]] = {}
    for pid, name in family(guard).items():
        used = sample_process(pid) if name is not None else None
        if used is not None and name is not None:
            processes[name] = {
                "pid": pid,
                "anonymous_kib": used.anonymous_bytes / 1024,
                "descriptors": _count(Path(f"/proc/{pid}/fd")),
                "threads": _count(Path(f"/proc/{pid}/task")),
            }
    return {"frames": frames, "processes": processes}


def _count(folder: Path) -> float:
    try:
        return float(sum(1 for _ in folder.iterdir()))
    except OSError:
        return math.nan


def watch(job: dict[str, Any], guard: int) -> list[dict[str, Any]]:
    """Take a point at each status that comes in; all of them when no more do."""
    points: list[dict[str, Any]] = []
    for line in sys.stdin:
        status = json.loads(line)
        points.append(point(guard, int(status["counters"]["published"])))
        if job["out"] is not None and Path(job["seen"]).exists():
            try:
                seen = json.loads(Path(job["seen"]).read_text())
                write_json(Path(job["out"]), soak_report(job["about"], seen, points, status))
            except StreamError as error:  # a disk that is full now may not be at the end
                print(f"bench: {error}", file=sys.stderr, flush=True)
    return points


def main() -> int:
    """Entry point."""
    die_with_parent()
    path = Path(sys.argv[1])
    points = watch(json.loads(path.read_text()), os.getppid())
    (path.parent / "points.json").write_text(json.dumps(points))
    return 0


if __name__ == "__main__":
    sys.exit(main())
