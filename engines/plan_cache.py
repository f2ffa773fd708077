"""Plans kept for the next start: each under everything that it was built for, and never trusted unseen.

A plan lies in ~/.cache/contrastream/plans as `KEY.plan`, with `KEY.json` beside it: what it was built for, what
it holds, and the hash of its bytes. Whatever does not fit is built anew, with a line that says why. A cache that
does not work (no right, no room) costs the time of a build and nothing else.
"""

import contextlib
import dataclasses
import hashlib
import json
import logging
import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, Protocol, runtime_checkable

from engines.cache_folder import locked, warn_once, write_whole
from engines.plan_facts import (
    FORMAT,
    PlanFacts,
    PlanKey,
    Unfit,
    difference,
    read_checked,
    read_facts,
    short_hash,
)
from engines.plan_room import LOST, make_room, plan_folder, remove_plan, sweep

log = logging.getLogger(__name__)

BlobKind = Literal["timing", "runtime"]
MAX_BLOB_BYTES = 1024**3


@runtime_checkable
class Layers(Protocol):
    """`engines.plan.LayerCount`: how many layers of a kind and number type the builder was given."""

    @property
    def kind(self) -> str: ...

    @property
    def dtype(self) -> str: ...

    @property
    def count(self) -> int: ...


@runtime_checkable
class Built(Protocol):
    """What is kept of an `engines.plan.BuiltPlan`. Named here, so that a start without a build loads no ONNX."""

    @property
    def plan(self) -> bytes: ...

    @property
    def layers(self) -> Sequence[Layers]: ...

    @property
    def activation_bytes(self) -> int | None: ...

    @property
    def weights_bytes(self) -> int | None: ...

    @property
    def warnings(self) -> tuple[str, ...]: ...


@dataclass(frozen=True)
class CachedPlan:
    """A plan that fits its key, from the cache or built now."""

    plan: bytes
    facts: PlanFacts
    path: Path | None
    """Where it lies; None where it could not be kept."""
    why_built: str
    """Empty for a plan from the cache; else why none there would do."""


def cached_plan(key: PlanKey, build: Callable[[], Built]) -> CachedPlan:
    """The plan of this key: from the cache if it fits, else built and kept.

    Two processes that need the same plan build it once; the second waits for the first and takes its plan. A cache
    that cannot be used is a warning, never an error.

    Args:
        key: Everything that the plan must have been built for.
        build: Builds it; whatever it raises goes through, and leaves nothing behind.
    """
    folder = plan_folder()
    if folder is None:
        return built_plan(key, build, "plans are not kept here")
    with contextlib.suppress(Unfit):  # looked at again under the lock, when nobody is writing
        return read_plan(folder, key)
    path = folder / f"{key.name}.plan"
    with ExitStack() as held:
        try:
            held.enter_context(locked(path))
        except OSError as error:
            warn_once(f"{LOST}: {folder}: {error.strerror or error}")
            return built_plan(key, build, "plans are not kept here")
        try:
            return read_plan(folder, key)
        except Unfit as reason:
            why = str(reason)
        level = logging.WARNING
        if not path.exists():
            level, why = (logging.WARNING, other) if (other := _nearest(folder, key)) else (logging.INFO, why)
        log.log(level, "building the plan %s: %s", key.identity, why)
        return _keep(built_plan(key, build, why, path=path), path)


def forget_plan(key: PlanKey, why: str) -> None:
    """Remove a plan that its library refuses although it is whole, so that the next call builds it anew.

    Args:
        key: The plan's.
        why: What the library said.
    """
    folder = plan_folder()
    if folder is not None:
        log.warning("the plan %s is removed from the cache: %s", key.identity, why)
        remove_plan(folder / f"{key.name}.plan")


def read_plan(folder: Path, key: PlanKey) -> CachedPlan:
    """A plan as it is kept, whole and of this key.

    Raises:
        Unfit: There is none, it is not whole, or it is of something else; says which.
    """
    path = folder / f"{key.name}.plan"
    if not path.exists():
        raise Unfit("there is none in the cache")
    facts = read_facts(path.with_suffix(".json"))
    if other := difference(facts.key, key):
        raise Unfit(other)
    plan = read_checked(path, facts)
    with contextlib.suppress(OSError):  # when it was last used; only decides what goes first
        os.utime(path)
    return CachedPlan(plan, facts, path, "")


def _nearest(folder: Path, key: PlanKey) -> str:
    """What a plan for the same purpose was built for, where it is not this; empty where there is none."""
    for path in folder.glob(f"{key.purpose}-*.json"):
        with contextlib.suppress(Unfit):
            if other := difference(read_facts(path).key, key):
                return other
    return ""


def built_plan(key: PlanKey, build: Callable[[], Built], why: str, *, path: Path | None = None) -> CachedPlan:
    """A plan that is built now and not kept yet.

    Args:
        key: Everything that it is built for.
        build: Builds it.
        why: Why none of the cache will do.
        path: Where it will lie; None where it will not be kept.
    """
    start = time.monotonic()
    built = build()
    facts = PlanFacts(
        key,
        hashlib.sha256(built.plan).hexdigest(),
        len(built.plan),
        built.activation_bytes,
        built.weights_bytes,
        time.monotonic() - start,
        {f"{layers.kind} {layers.dtype}": layers.count for layers in built.layers},
        tuple(built.warnings),
        datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return CachedPlan(built.plan, facts, path, why)


def _keep(made: CachedPlan, path: Path) -> CachedPlan:
    """Write plan, then sidecar: between the two, the old sidecar or none does not have the new plan's hash."""
    sidecar = {"format": FORMAT, **dataclasses.asdict(made.facts)}
    try:
        write_whole(path, made.plan)
        write_whole(path.with_suffix(".json"), (json.dumps(sidecar, indent=2) + "\n").encode())
    except BaseException as error:
        # A plan without its sidecar, or beside another's, would only be a riddle for the next start.
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
            path.with_suffix(".json").unlink(missing_ok=True)
        if not isinstance(error, OSError):
            raise
        log.warning(
            "the plan %s is used but not kept, so the next start builds it anew: %.1f MB could not be written "
            "into %s: %s; make room, or run: contrastream build --clear",
            made.facts.key.identity,
            len(made.plan) / 1e6,
            path.parent,
            error.strerror or error,
        )
        return dataclasses.replace(made, path=None)
    sweep(path.parent)
    make_room(path.parent, path.stem)
    return made


def read_blob(key: PlanKey, kind: BlobKind, device: str = "") -> bytes | None:
    """What a library wants to see again: TensorRT's timing cache, TensorRT-RTX's runtime cache.

    Args:
        key: The plan's. A timing cache is shared by all plans of its backend, version and device.
        kind: Which.
        device: The GPU at hand, where the key does not name it.

    Returns:
        Its bytes as they were written; None where there are none, said where they were spoilt.
    """
    folder = plan_folder()
    if folder is None:
        return None
    path = folder / _blob_name(key, kind, device)
    try:
        if path.stat().st_size > MAX_BLOB_BYTES:
            raise ValueError("it is too large")
        content = path.read_bytes()
        if hashlib.sha256(content[32:]).digest() != content[:32]:
            raise ValueError("it was cut off or changed")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        log.warning("the %s cache is made anew: %s", kind, error)
        return None
    return content[32:]


def write_blob(key: PlanKey, kind: BlobKind, content: bytes, device: str = "") -> bool:
    """Keep such a blob; whether that was possible. The last writer's stays."""
    folder = plan_folder()
    if folder is None:
        return False
    path = folder / _blob_name(key, kind, device)
    try:
        with locked(path):
            write_whole(path, hashlib.sha256(content).digest() + content)
    except OSError as error:
        warn_once(f"the {kind} cache is not kept in {folder}: {error.strerror or error}")
        return False
    return True


def _blob_name(key: PlanKey, kind: BlobKind, device: str) -> str:
    if kind == "timing":
        return f"{key.backend}-{short_hash(json.dumps([key.version, key.device, device]))}.timing"
    return f"{key.name}-{short_hash(device)}.runtime" if device else f"{key.name}.runtime"
