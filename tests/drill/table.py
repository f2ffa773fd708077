"""The drill's results as a table, for a terminal and for stream/SAFETY.md."""

import re
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from drill.judge import Row

BEGIN, END = "<!-- drill -->", "<!-- end of drill -->"
_BLOCK = re.compile(re.escape(BEGIN) + ".*?" + re.escape(END), re.DOTALL)
COLUMNS = ("fault", "client", "expected", "seen", "detected, s", "recovered, s", "frames lost", "holds")


def cells(row: Row) -> tuple[str, ...]:
    """A row's texts."""

    def seconds(value: float | None) -> str:
        return "-" if value is None else f"{value:.2f}"

    return (
        f"{row.fault}: {row.what}", row.client, row.expected, row.seen, seconds(row.detect_s), seconds(row.recover_s),
        row.lost, "NO" if row.faults else "yes",
    )  # fmt: skip


def faults_of(rows: Sequence[Row]) -> list[str]:
    """What did not hold, a line each."""
    return [f"{row.fault}: {fault}" for row in rows for fault in row.faults]


def terminal_line(row: Row) -> str:
    """A row while the drill runs."""
    fault, client, _expected, seen, detected, recovered, lost, holds = cells(row)
    name = textwrap.shorten(
        fault.partition(":")[0] if not fault.startswith("engine:") else row.fault, 30, placeholder="..."
    )
    return f"{name:31}{client:16}{detected:>7}{recovered:>7}  {holds:4}{textwrap.shorten(seen, 70, placeholder=' ...')}  {lost}"


def markdown(report: dict[str, Any], rows: Sequence[Row]) -> str:
    """The whole result as a block of Markdown."""
    wrong = faults_of(rows)
    lines = [
        f"{len({row.fault for row in rows})} faults, {len(rows)} judgements, {sum(bool(row.faults) for row in rows)} that do not hold. "
        f"Machine: {report['machine']}. {report['conditions']} Command: `{report['command']}`.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|" + "---|" * len(COLUMNS),
        *("| " + " | ".join(cell.replace("|", "/") for cell in cells(row)) + " |" for row in rows),
        "",
    ]
    late = [f"- {row.fault}: {row.late}" for row in rows if row.late]
    if late:
        lines += [
            "Live frames against their deadline, and the longest gap of the witness in the same run:",
            "",
            *late,
            "",
        ]
    if wrong:
        lines += ["What did not hold in this run:", "", *(f"- {line}" for line in wrong), ""]
    return "\n".join(lines)


def check_page(page: Path) -> None:
    """Make sure that a block can be put into a page; one that is not there is made.

    Raises:
        ValueError: The page has not both marks, or no folder.
    """
    if not page.parent.is_dir():
        raise ValueError(f"--into needs a page in a folder that is there, got {page}")
    if page.exists() and not _BLOCK.search(page.read_text()):
        raise ValueError(
            f"--into {page} needs the lines {BEGIN} and {END}, got neither; add them where the table belongs"
        )


def write_into(page: Path, block: str) -> None:
    """Put the block between its two marks in a page that `check_page` let pass; one that is not there is made of it alone."""
    whole = f"{BEGIN}\n{block.strip()}\n{END}"
    if not page.exists():
        page.write_text(whole + "\n")
        return
    page.write_text(_BLOCK.sub(lambda _: whole, page.read_text(), count=1))
