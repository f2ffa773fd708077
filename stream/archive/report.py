"""What an archive run says to a person: the progress line, and the lines at its end."""

from pathlib import Path
from typing import TYPE_CHECKING

from stream.archive.find import MANIFEST
from stream.archive.folder import LOOPS

if TYPE_CHECKING:
    from stream.archive.run import ArchiveRun

FAILURES_SHOWN = 20
BAR = 24


def format_progress(run: "ArchiveRun") -> str:
    """The progress line: a bar over the loops to make, failures, loops per hour, time left, and where the present one is."""
    if not run.seconds:
        return f"reading  {run.read} of {len(run.found.loops)} loops"
    done, total = run.made + sum(sha256 in run.hashes for sha256 in run.failed), max(run.todo, 1)
    filled = BAR * done // total
    per_hour = 3600 * done / run.seconds
    left_s = 3600 * (total - done) / per_hour if done else 0.0
    left = (
        "starting" if not done else f"{left_s:.0f} s left" if left_s < 120 else f"{left_s / 60:.0f} min left"
    )
    now = run.present
    return (
        f"[{'#' * filled}{'.' * (BAR - filled)}] {done}/{total} loops"
        + (f"  {len(run.failed)} failed" if run.failed else "")
        + (f"  {per_hour:.0f} loops/h" if done else "")
        + f"  {left}"
        + (f"  now frame {now['done']}/{now['total']}" if now else "")
    )


def format_archive(run: "ArchiveRun", folder: Path) -> str:
    """What was done, for a person."""
    twice = run.read - len(run.hashes) - sum(sha256 not in run.hashes for sha256 in run.failed)
    left = run.todo - run.made - sum(sha256 in run.hashes for sha256 in run.failed)
    others = f", {run.found.passed_over} other files passed over" if run.found.passed_over else ""
    lines = [
        f"loops    {len(run.found.loops)} found{others}: {run.made} made, {run.kept} were there already, {len(run.failed)} failed"
        + (f", {twice} hold the same as another" if twice > 0 else "")
        + (f", {left} left: the same command goes on" if run.stopped.is_set() else "")
    ]
    for path, error in list(run.failed.values())[:FAILURES_SHOWN]:
        lines.append(f"failed   {path.parent}: {error}")
    if len(run.failed) > FAILURES_SHOWN:
        lines.append(f"failed   and {len(run.failed) - FAILURES_SHOWN} more; {MANIFEST} has them all")
    if run.made:
        lines.append(
            f"speed    {3600 * run.made / run.seconds:.0f} loops per hour, {run.frames / run.seconds:.1f} frames/s; "
            f"{run.seconds:.1f} s, {run.workers} worker{'s' if run.workers > 1 else ''} in {run.where}"
        )
    if run.lost:
        lines.append(f"lost     {run.lost} begun by a worker that was lost; what they had made is removed")
    return "\n".join(
        [
            *lines,
            f"written  {folder}: {LOOPS}/, {MANIFEST}",
            "Research tool, not a medical device.",
        ]
    )
