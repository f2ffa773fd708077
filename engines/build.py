"""The command `build`: a model's plan made ahead of its first start, and what there is of plans already."""

import dataclasses
import importlib
import importlib.util
import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from calib.whole_files import json_bytes, write_whole
from engines.config import BuildConfig
from engines.cuda import probe_cuda
from engines.cuda_calls import Device
from engines.elapsed import CLEAR, elapsed
from engines.engine import EngineSpec
from engines.errors import EngineError
from engines.model import file_sha256
from engines.obtain import Target, obtain_plan, target_of
from engines.plan_cache import CachedPlan
from engines.plan_facts import PlanBackend, Unfit, read_checked, recipe
from engines.plan_room import KeptPlan, clear_folder, kept_plans, plan_folder, remove_plan
from engines.plan_table import (
    ago,
    built_s,
    format_facts,
    format_inspected,
    format_list,
    home,
    megabytes,
    short_census,
)
from engines.untaught import find_model

SCHEMA = "contrastream.build/1"
EXTRAS: dict[PlanBackend, str] = {"tensorrt": "trt", "tensorrt_rtx": "trtrtx"}
SHORTEST = 4
"""Digits of a key or a hash that are enough to name it."""


def build(config: BuildConfig) -> int:
    """`contrastream build`."""
    check(config)
    with warnings_shown():
        if config.list:
            return show_list(config)
        if config.inspect:
            return inspect(config)
        if config.clear:
            return clear(config)
        return build_plan_of(config)


def check(config: BuildConfig) -> None:
    """Refuse what cannot be meant.

    Raises:
        ValueError: Says what.
    """
    asked = [name for name in ("list", "inspect", "clear") if getattr(config, name)]
    if len(asked) > 1:
        raise ValueError(f"give one of --list, --inspect and --clear, got --{' and --'.join(asked)}")
    if config.model is None and not (config.list or config.clear):
        what = "a model, or the key of a plan" if config.inspect else "a model"
        raise ValueError(
            f"needed {what}, got none; for example: contrastream build {'--inspect ' * config.inspect}compact"
        )
    if config.size is not None and (config.rows is not None or config.columns is not None):
        raise ValueError("give --size for square frames, or --rows and --columns for others, not both")
    if (config.rows is None) != (config.columns is None):
        raise ValueError(
            f"--rows and --columns go together, got only --{'columns' if config.rows is None else 'rows'}"
        )
    if config.out is not None and not config.out.parent.is_dir():
        raise ValueError(f"--out needs an existing folder, got {config.out.parent}; make it first")
    if config.out is not None and config.out.is_dir():
        raise ValueError(f"--out needs a file name, got the folder {config.out}; add a name")
    if config.out is not None and config.clear:
        raise ValueError("--out goes with a build, --list or --inspect; --clear has nothing to write")
    spec_of(config)


def spec_of(config: BuildConfig) -> EngineSpec:
    """The frames that are asked for.

    Raises:
        ValueError: No engine takes them.
    """
    size = 512 if config.size is None else config.size
    return EngineSpec(
        size if config.rows is None else config.rows,
        size if config.columns is None else config.columns,
        config.bits,
    )


@contextmanager
def warnings_shown() -> Iterator[None]:
    """The room's own warnings reach stderr, each on a line of its own."""
    handler = logging.StreamHandler(sys.stderr)
    start = CLEAR if sys.stderr.isatty() else ""
    handler.setFormatter(logging.Formatter(f"{start}contrastream: %(message)s"))
    logger = logging.getLogger("engines")
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)


def build_plan_of(config: BuildConfig) -> int:
    """Build and keep a plan, or find it."""
    assert config.model is not None
    trt, target, skipped = load_builder(config)
    spec = spec_of(config)
    with elapsed(f"preparing {Path(config.model).name}"):
        model = find_model(config.model, untaught=config.untaught)
    what = f"{model.card.preset} for {spec.rows}x{spec.columns} frames by {trt.__name__} {trt.__version__}"
    with elapsed(f"building {what}"):
        made = obtain_plan(trt, model, spec, config.precision, target)
    print(format_made(made, config.model, model.card.taught, skipped))
    write_json(config.out, {"kind": "build", "skipped": skipped, **as_json(made)})
    return 0


def load_builder(config: BuildConfig) -> tuple[ModuleType, Target, list[str]]:
    """The library that builds, what it builds for, and why an earlier one was passed over.

    Raises:
        EngineError: It is not installed, or cannot be loaded; or there is no GPU where one is needed.
    """
    skipped: list[str] = []
    for backend, extra in EXTRAS.items():
        if config.backend not in ("auto", backend):
            continue
        try:
            if importlib.util.find_spec(backend) is None:
                raise EngineError(f"it is not installed; run: pip install -e '.[{extra}]'")
            try:
                trt = importlib.import_module(backend)
            except (ImportError, OSError) as error:
                raise EngineError(f"it cannot be loaded: {error}; run: contrastream doctor") from error
            return trt, target_of(trt, gpu_of_this_machine(needed=backend == "tensorrt")), skipped
        except EngineError as error:
            skipped.append(f"{backend}: {error}")
    needed = "tensorrt or tensorrt_rtx" if config.backend == "auto" else f"the backend {config.backend}"
    raise EngineError(f"needed {needed} to build a plan, found none: {'; '.join(skipped)}")


def gpu_of_this_machine(*, needed: bool) -> Device | None:
    """The GPU that a plan is to run on; None where there is none to be used.

    Raises:
        EngineError: There is none, and it is needed.
    """
    gpu, reason = probe_cuda()
    if gpu is None and needed:
        raise EngineError(f"it builds on the GPU that the plan is for, and there is none here: {reason}")
    return gpu


def format_made(made: CachedPlan, model: str, taught: bool, skipped: list[str]) -> str:
    """A plan that was built or found, as a short table."""
    facts = made.facts
    if made.why_built:
        state = f"built in {facts.seconds:.1f} s"
        state += f", and kept in {home(made.path.parent)}" if made.path else ", and NOT kept"
    else:
        when = ago(time.time() - built_s(facts))
        state = f"was in the cache, built {when} in {facts.seconds:.1f} s"
    lines = [
        f"plan       {facts.key.identity}: {state}",
        *format_facts(facts),
        f"layers     {short_census(facts)}",
    ]
    lines += [f"warning    {line}" for line in facts.warnings]
    lines += [f"note       passed over {reason}" for reason in skipped]
    if not taught:
        lines.append(
            "note       UNTAUGHT: its weights are random; it can be measured, and is never shown as synthetic"
        )
    lines.append(f"more       contrastream build --inspect {facts.key.identity}")
    if taught:
        lines.append(
            f"next       on such a GPU: contrastream run SOURCE --model {model} --engine {facts.key.backend}"
        )
    return "\n".join(lines)


def show_list(config: BuildConfig) -> int:
    """`--list`."""
    folder = needed_folder()
    plans = kept_plans(folder)
    if config.model is not None:
        plans = chosen(plans, config.model)
    if plans:
        print(format_list(plans, folder, time.time_ns()))
    else:
        print(f"no plans in {home(folder)}; build one: contrastream build compact")
    write_json(config.out, {"kind": "list", "plans": [kept_as_json(plan) for plan in plans]})
    return 0


def inspect(config: BuildConfig) -> int:
    """`--inspect`."""
    assert config.model is not None
    plans = chosen(kept_plans(needed_folder()), config.model)
    pages, said = [], []
    for plan in plans:
        whole = ""
        if plan.facts is not None:
            try:
                read_checked(plan.path, plan.facts)
            except Unfit as reason:
                whole = str(reason)
        rebuilt = ""
        if plan.facts is not None and plan.facts.key.recipe != recipe():
            rebuilt = "built by another version of contrastream"
        pages.append(format_inspected(plan, whole, rebuilt, time.time_ns()))
        said.append({**kept_as_json(plan), "spoilt": plan.why_unfit or whole})
    print("\n\n".join(pages))
    write_json(config.out, {"kind": "inspect", "plans": said})
    return 0


def clear(config: BuildConfig) -> int:
    """`--clear`."""
    folder = needed_folder()
    plans = kept_plans(folder)
    if config.model is not None:
        plans = chosen(plans, config.model)
    removed = [plan for plan in plans if remove_plan(plan.path)]
    if config.model is None:
        clear_folder(folder)
    total = megabytes(sum(plan.size_bytes for plan in removed))
    if not plans:
        print(f"no plans in {home(folder)}, nothing to remove")
        return 0
    print(f"removed {len(removed)} plan{'s' * (len(removed) != 1)}, {total} MB, from {home(folder)}")
    for plan in plans:
        if plan not in removed:
            print(f"left    {plan.path.stem.rpartition('-')[2]}: another process is making it")
    return 0


def needed_folder() -> Path:
    """Where plans are kept.

    Raises:
        EngineError: There is no such place.
    """
    folder = plan_folder()
    if folder is None:
        raise EngineError(
            "needed a folder for plans, found none, see above; set XDG_CACHE_HOME to one of your own"
        )
    return folder


def chosen(plans: list[KeptPlan], name: str) -> list[KeptPlan]:
    """The plans of a model, or the one of a key.

    Args:
        plans: All.
        name: A preset, an ONNX file, or the first digits of a key or of a model's SHA-256.

    Raises:
        EngineError: There is none.
    """
    sha256 = file_sha256(Path(name)) if Path(name).is_file() else None
    found = []
    for plan in plans:
        key = None if plan.facts is None else plan.facts.key
        digits = (plan.path.stem, plan.path.stem.rpartition("-")[2], key.model_sha256 if key else "")
        if sha256 is not None:
            fits = key is not None and key.model_sha256 == sha256
        else:
            fits = (key is not None and key.preset == name) or (
                len(name) >= SHORTEST and any(text.startswith(name) for text in digits)
            )
        if fits:
            found.append(plan)
    if not found:
        raise EngineError(
            f"needed a kept plan of the model or key {Path(name).name}, found none of {len(plans)}; "
            "see: contrastream build --list"
        )
    return found


def as_json(made: CachedPlan) -> dict[str, Any]:
    """A plan that was built or found."""
    return {
        "from_cache": not made.why_built,
        "why_built": made.why_built,
        "kept": made.path is not None,
        "plan": {"identity": made.facts.key.identity, **dataclasses.asdict(made.facts)},
    }


def kept_as_json(plan: KeptPlan) -> dict[str, Any]:
    """A plan that lies in the cache; without the folder, which may hold a person's name."""
    facts = {} if plan.facts is None else dataclasses.asdict(plan.facts)
    return {
        "identity": plan.path.stem.rpartition("-")[2],
        "file": plan.path.name,
        "size_bytes": plan.size_bytes,
        "spoilt": plan.why_unfit,
        **facts,
    }


def write_json(out: Path | None, said: dict[str, Any]) -> None:
    """Write what was shown, where that was asked for.

    Raises:
        EngineError: It cannot be written.
    """
    if out is None:
        return
    try:
        write_whole({out: json_bytes({"schema": SCHEMA, **said})})
    except OSError as error:
        raise EngineError(
            f"--out {out} could not be written: {error.strerror or error}; choose another file"
        ) from error
