"""The room that kept plans take: which there are, which go first, and what a killed process left."""

import contextlib
import logging
from dataclasses import dataclass
from pathlib import Path

from engines.cache_folder import FRESH, LOCK, cache_folder, locked
from engines.plan_facts import PlanFacts, Unfit, read_facts

log = logging.getLogger(__name__)

LIMIT_BYTES = 4 * 1024**3
"""Of all plans together: more than fifty of the largest preset. Above it the plans longest unused go."""
LOST = "plans are not kept, so every start builds anew"


@dataclass(frozen=True)
class KeptPlan:
    """A plan that lies in the cache."""

    path: Path
    size_bytes: int
    used_ns: int
    """When it was built or last used, wall clock."""
    facts: PlanFacts | None
    """None where the sidecar cannot be read."""
    why_unfit: str
    """Why it cannot."""


def plan_folder() -> Path | None:
    """Where plans are kept; None, said once, where they cannot be."""
    return cache_folder("plans", LOST)


def kept_plans(folder: Path) -> list[KeptPlan]:
    """Every plan in the folder, the last used first."""
    kept = []
    for path in folder.glob("*.plan"):
        with contextlib.suppress(OSError):  # another process may just remove it
            there = path.stat()
            facts, why = None, ""
            try:
                facts = read_facts(path.with_suffix(".json"))
            except Unfit as reason:
                why = str(reason)
            kept.append(KeptPlan(path, there.st_size, there.st_mtime_ns, facts, why))
    return sorted(kept, key=lambda plan: (-plan.used_ns, plan.path.name))


def make_room(folder: Path, keep: str, limit_bytes: int = LIMIT_BYTES) -> list[str]:
    """Remove the plans longest unused until all together are below the limit.

    Args:
        folder: The plans' folder.
        keep: The name of the plan that stays in any case.
        limit_bytes: Of all of them together.

    Returns:
        The names of those removed. One that another process is just making stays.
    """
    plans = kept_plans(folder)
    total = sum(plan.size_bytes for plan in plans)
    removed = []
    for plan in reversed(plans):
        if total <= limit_bytes:
            break
        name = plan.path.stem
        if name != keep and remove_plan(plan.path):
            log.info("removed the plan %s, the longest unused: %d MB are kept", name, limit_bytes // 10**6)
            removed.append(name)
            total -= plan.size_bytes
    return removed


def remove_plan(path: Path) -> bool:
    """Remove a plan, its sidecar and its blobs; False where another process is making it."""
    try:
        with locked(path, wait=False):
            for each in (path, *path.parent.glob(f"{path.stem}[.-]*")):
                if each.suffix != LOCK:
                    each.unlink(missing_ok=True)
    except OSError as error:
        log.info("the plan %s was not removed: %s", path.stem, error.strerror or error)
        return False
    return True


def sweep(folder: Path) -> None:
    """Remove what a killed process left: its lock file, and the file that it had begun to write."""
    for lock in folder.glob(f"*{LOCK}"):
        path = lock.with_suffix("")
        with contextlib.suppress(OSError), locked(path, wait=False):
            for half in {path, path.with_suffix(".json")}:
                half.with_name(half.name + FRESH).unlink(missing_ok=True)


def clear_folder(folder: Path) -> None:
    """Remove what is left when all plans are gone: timing caches, sidecars without a plan, what killed processes left."""
    sweep(folder)
    for path in folder.iterdir():
        plan = path.with_suffix(".plan")
        if path.suffix in (".timing", ".json", ".runtime") and not plan.exists():
            with contextlib.suppress(OSError), locked(plan, wait=False):
                path.unlink()
