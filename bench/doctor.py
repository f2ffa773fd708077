"""`contrastream doctor`: what works on this machine, and how to mend the rest."""

import dataclasses
import textwrap
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from bench import checks, checks_host, machine
from bench.checks import Row
from bench.config import DoctorConfig
from stream.session import write_json

SCHEMA = "contrastream.doctor/1"
CHECKS: tuple[Callable[[], Iterator[Row]], ...] = (
    checks.check_python,
    checks.check_dependencies,
    checks.check_codecs,
    checks.check_devices,
    checks.check_engines,
    checks.check_gpu,
    checks.check_optional,
    checks_host.check_display,
    checks_host.check_transport,
    checks_host.check_timing,
)
WIDTH = 110


def examine() -> list[Row]:
    """Run every check. One that fails itself is a finding too, and never hides the others."""
    rows: list[Row] = []
    for check in CHECKS:
        try:
            rows.extend(check())
        except Exception as error:
            name = check.__name__.removeprefix("check_")
            said = f"the check failed with {type(error).__name__}: {error}"
            rows.append(
                Row(name, name, "MISSING", said, "mend what is MISSING above it first, then run it again")
            )
    return rows


def works(rows: Iterable[Row]) -> bool:
    """Whether the default path works: nothing it needs is missing."""
    return all(row.verdict != "MISSING" for row in rows)


def format_rows(rows: list[Row], facts: dict[str, Any]) -> str:
    """The table, for a terminal."""
    lines = [f"machine  {machine.one_line(facts)}"]
    group = ""
    for row in rows:
        if row.group != group:
            group = row.group
            lines += ["", group]
        head = f"  {row.verdict:8}{row.name:22}"
        lines += textwrap.wrap(
            row.found, WIDTH, initial_indent=head, subsequent_indent=" " * len(head), break_long_words=False
        ) or [head]
        if row.mend:
            indent = " " * len(head)
            lines += textwrap.wrap(
                row.mend,
                WIDTH,
                initial_indent=f"{indent}-> ",
                subsequent_indent=f"{indent}   ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    missing = [row.name for row in rows if row.verdict == "MISSING"]
    lines += [
        "",
        f"to mend: {', '.join(missing)}"
        if missing
        else "The default path works here. What is absent is optional.",
        "Research tool, not a medical device.",
    ]
    return "\n".join(lines)


def doctor(config: DoctorConfig) -> int:
    """`contrastream doctor`.

    Returns:
        0 when the default path works, else 1.
    """
    rows, facts = examine(), machine.describe()
    print(format_rows(rows, facts))
    report = {
        "schema": SCHEMA,
        "works": works(rows),
        "machine": facts,
        "checks": [dataclasses.asdict(row) for row in rows],
    }
    write_json(config.out, report)
    return 0 if works(rows) else 1
