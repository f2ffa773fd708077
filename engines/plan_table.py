"""Kept plans as a person reads them: one built, all of them, one in full."""

import os
from collections import defaultdict
from datetime import datetime
from pathlib import Path

from engines.model import INPUTS, OUTPUTS
from engines.obtain import DEFAULT_GPUS
from engines.plan_facts import PlanFacts, PlanKey
from engines.plan_room import LIMIT_BYTES, KeptPlan

NS_PER_S = 1_000_000_000


def megabytes(size: int | None) -> str:
    """A size as MB; a dash where it is not known."""
    return "-" if size is None else f"{size / 1e6:.1f}"


def built_s(facts: PlanFacts) -> float:
    """When a plan was built, wall clock in seconds."""
    return datetime.fromisoformat(facts.built).timestamp()


def ago(since_s: float) -> str:
    """How long ago, in the largest unit that is not below 1."""
    for unit, length_s in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if since_s >= length_s:
            count = int(since_s // length_s)
            return f"{count} {unit}{'s' if count > 1 else ''} ago"
    return "just now" if since_s < 10 else f"{int(since_s)} s ago"


def home(path: Path) -> str:
    """A path with ~ for the home folder."""
    text = str(path)
    base = os.path.expanduser("~")
    return f"~{text[len(base) :]}" if base != "/" and text.startswith(f"{base}/") else text


def frames(key: PlanKey) -> str:
    """What a frame of this plan is."""
    stored = "8 bits stored" if key.sample_bytes == 1 else "9 to 16 bits stored"
    return f"{key.rows} x {key.columns}, {stored}"


def runs_on(key: PlanKey) -> str:
    """Where the plan can be run."""
    if key.backend == "tensorrt":
        return f"tensorrt {key.version} on {key.device}, and on no other"
    gpus = (
        "its default GPUs: of those it lists, compute capability 8.0 and later"
        if key.device == DEFAULT_GPUS
        else f"GPUs of compute capability {key.device.replace('SM', '')}"
    )
    return f"{key.backend} {key.version}, on {gpus}"


def format_facts(facts: PlanFacts) -> list[str]:
    """What a plan was built for and how large it is, a line each."""
    key = facts.key
    memory = (
        f"plan {megabytes(facts.plan_bytes)} MB; on the GPU weights {megabytes(facts.weights_bytes)} MB, "
        f"and {megabytes(facts.activation_bytes)} MB for each frame in flight"
    )
    return [
        f"model      {key.preset or 'unnamed'} {key.model_sha256[:16]}",
        f"runs on    {runs_on(key)}",
        f"frames     {frames(key)}",
        f"precision  convolutions {key.precision}, norms and the final blend f32",
        f"memory     {memory}",
    ]


def format_census(facts: PlanFacts) -> list[str]:
    """How many layers of which type, the most important first."""
    kinds: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for name, count in facts.census.items():
        kind, _, dtype = name.rpartition(" ")
        kinds[kind].append((count, dtype))
    total = sum(facts.census.values())

    def rank(kind: str) -> tuple[bool, int, str]:
        return (
            kind not in ("CONVOLUTION", "DECONVOLUTION", "NORMALIZATION"),
            -sum(c for c, _ in kinds[kind]),
            kind,
        )

    lines = [f"layers     {total}, as the library was given them; which of them it fuses shows only on a GPU"]
    for kind in sorted(kinds, key=rank):
        counts = ", ".join(f"{count} {dtype}" for count, dtype in sorted(kinds[kind], reverse=True))
        lines.append(f"           {kind.lower():14} {counts}")
    return lines


def short_census(facts: PlanFacts) -> str:
    """The layers that do the work, in one line."""
    total = sum(facts.census.values())
    kinds = [
        f"{count} {name.rpartition(' ')[0].lower()} {name.rpartition(' ')[2].lower()}"
        for name, count in facts.census.items()
        if name.startswith(("CONVOLUTION ", "DECONVOLUTION ", "NORMALIZATION "))
    ]
    return f"{total}: {', '.join([*kinds, 'the rest around them'])}" if kinds else str(total)


def format_list(plans: list[KeptPlan], folder: Path, now_ns: int) -> str:
    """All plans as a table, the last used first; the widest column is the last, where a narrow terminal breaks it."""
    rows = [("key", "model", "frames", "precision", "MB", "GPU MB", "built", "used", "runs on")]
    for plan in plans:
        used = ago((now_ns - plan.used_ns) / NS_PER_S)
        size = megabytes(plan.size_bytes)
        if plan.facts is None:
            identity = plan.path.stem.rpartition("-")[2]
            rows.append((identity, "cannot be read", "-", "-", size, "-", "-", used, "-"))
            continue
        key = plan.facts.key
        rows.append(
            (
                key.identity,
                f"{key.preset or '-'} {key.model_sha256[:8]}",
                f"{key.rows}x{key.columns}, {'8' if key.sample_bytes == 1 else '9-16'} bits",
                key.precision,
                size,
                megabytes(plan.facts.activation_bytes),
                ago(now_ns / NS_PER_S - built_s(plan.facts)),
                used,
                f"{key.backend} {key.version}, {key.device}",
            )
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    right = ("MB", "GPU MB")
    lines = [
        "  ".join(
            cell.rjust(width) if title in right else cell.ljust(width)
            for cell, width, title in zip(row, widths, rows[0], strict=True)
        ).rstrip()
        for row in rows
    ]
    total = sum(plan.size_bytes for plan in plans)
    count = f"{len(plans)} plan{'s' if len(plans) > 1 else ''}"
    lines += [
        "",
        f"{count}, {megabytes(total)} MB in {home(folder)}; above {LIMIT_BYTES / 1e9:.1f} GB the longest unused go",
        "GPU MB: what each frame in flight takes on the GPU, beside the weights",
    ]
    return "\n".join(lines)


def format_inspected(plan: KeptPlan, whole: str, rebuilt: str, now_ns: int) -> str:
    """One plan in full.

    Args:
        plan: The plan.
        whole: Empty where its bytes are those that were written, else why not.
        rebuilt: Why the next start builds it anew whatever its bytes are; empty where it does not.
        now_ns: Wall clock.
    """
    name = plan.path.stem
    if plan.facts is None:
        return f"plan       {name}\nspoilt     {plan.why_unfit}; the next start builds it anew"
    facts = plan.facts
    built = datetime.fromisoformat(facts.built)
    state = whole or rebuilt
    sizes = {
        "rows": facts.key.rows,
        "columns": facts.key.columns,
        "bytes": facts.key.sample_bytes,
    }

    def edges(sides: dict[str, tuple[str, tuple[str | int, ...]]]) -> str:
        return ", ".join(
            f"{name} {kind} {'x'.join(str(sizes.get(str(side), side)) for side in shape)}"
            for name, (kind, shape) in sides.items()
        )

    return "\n".join(
        [
            f"plan       {facts.key.identity}",
            *format_facts(facts),
            f"input      {edges(INPUTS)}",
            f"output     {edges(OUTPUTS)}",
            f"built      {built:%Y-%m-%d %H:%M} UTC in {facts.seconds:.1f} s; "
            f"last used {ago((now_ns - plan.used_ns) / NS_PER_S)}",
            f"state      {f'{state}; the next start builds it anew' if state else 'whole: its bytes have the hash of those that were written'}",
            *(f"warning    {line}" for line in facts.warnings),
            *format_census(facts),
            f"file       {home(plan.path)}",
        ]
    )
