"""The page of commands from the parser itself, made whenever the site is built, so it cannot be behind."""

import contextlib
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

import contrastream

OUT = Path(__file__).parent / "reference" / "commands.md"
COLUMNS = "98"
HEAD = """# Commands

What `--help` prints of each command, made from the parser when this site was built.

Exit status of every command: 0 done, 1 a fault of ours, 2 bad input or usage, with one line on stderr that says what was needed, what came and what
to do. `bench compare`, `audit verify` and `run --healthcheck` answer by their status too, and say so.

`contrastream completion bash|zsh|fish` prints the script by which a shell completes all of this.
"""
CHOICES = re.compile(r"\{([a-z0-9,-]+)\}")


def help_of(command: tuple[str, ...]) -> str:
    """What `--help` prints, as it is."""
    printed = io.TextIOWrapper(
        io.BytesIO(), "utf-8"
    )  # frames of the help are those of a terminal that has them
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = COLUMNS
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            contrastream.parse([*command, "--help"])
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    printed.seek(0)
    return printed.read()


def commands(command: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], str]]:
    """Every command and its help, those without subcommands of their own and those with, in the parser's order."""
    text = help_of(command)
    yield command, text
    if "─ subcommands ─" in text:
        usage = text.partition("\n\n")[0]
        for name in CHOICES.findall(usage)[-1].split(","):
            yield from commands((*command, name))


def plain(text: str) -> str:
    """The help without its frames."""
    lines = []
    for line in text.rstrip().splitlines():
        if title := re.match(r"╭─ (.+?) ─*╮$", line):
            lines += ["", f"{title[1]}:"]
        elif inside := re.match(r"│ (.*) │$", line):
            lines.append(f"  {inside[1]}".rstrip())
        elif not line.startswith("╰"):
            lines.append(line.rstrip())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines))


def reference() -> str:
    """The whole page."""
    parts = [HEAD]
    for command, text in commands():
        name = " ".join(("contrastream", *command))
        parts.append(f"{'#' * (2 + (len(command) > 1))} {name}\n\n```text\n{plain(text)}\n```\n")
    return "\n".join(parts)
