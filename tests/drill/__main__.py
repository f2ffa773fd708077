"""Break a running stream in every way of the fault matrix, and say what each client showed: `make drill`.

Fault by fault, a real pipeline at 15 frames per second, watched by a plain subscriber, the web viewer in headless Chromium, the
desktop window under Xvfb and the recorder. Prints what was expected and seen, the time to detect and to recover, and the frames lost. Exit
status 0 when everything holds, 1 when something does not, 2 for what the user can mend, 130 after Ctrl-C.
"""

import argparse
import dataclasses
import json
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drill import special
from drill.cases import CASES, LONG_CASES, RATE_HZ, Case
from drill.clients import CHROMIUM, CHROMIUM_ARGUMENTS, Client, Page, Plain, Window
from drill.flood import floods
from drill.judge import SIZE, Judged, Row
from drill.recorder import Recorder
from drill.running import Unready
from drill.table import check_page, faults_of, markdown, terminal_line, write_into

from bench.machine import describe, one_line
from bench.witness import Witness

SPECIALS = ("network cut", "tab in the background", "floods", "SIGKILL", "100000 frames")
CLIENTS = ("web", "window", "recorder")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make drill, or python -m drill", description=__doc__)
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        metavar="NAME",
        help="the faults whose name holds NAME; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="name the faults and end")
    parser.add_argument(
        "--long", action="store_true", help="also those that take a minute: an engine that aborts ten times"
    )
    parser.add_argument(
        "--without", action="append", default=[], choices=CLIENTS, help="leave a client out; may be repeated"
    )
    parser.add_argument(
        "--frames",
        type=int,
        default=special.FRAMES,
        metavar="N",
        help="of the check of planes (default: %(default)s)",
    )
    parser.add_argument(
        "--out", type=Path, metavar="FILE", help="write drill.json, and the same name with .md beside it"
    )
    parser.add_argument(
        "--into",
        type=Path,
        metavar="PAGE",
        help="put the table between the drill marks of a page, such as stream/SAFETY.md",
    )
    return parser.parse_args(arguments)  # fmt: skip


def chosen(options: argparse.Namespace) -> tuple[list[Case], list[str]]:
    """The cases and special cases that were asked for.

    Raises:
        ValueError: None has such a name, or a number is out of range.
    """
    if options.frames < 1000:
        raise ValueError(f"--frames must be 1000 or more, got {options.frames}")
    if options.out is not None and (options.out.suffix != ".json" or not options.out.parent.is_dir()):
        raise ValueError(
            f"--out needs a file that ends in .json in a folder that is there, got {options.out}"
        )
    if options.into is not None:
        check_page(options.into)
    cases = [*CASES, *(LONG_CASES if options.long else ())]
    specials = list(SPECIALS)
    for name in options.only:
        if not any(name in each for each in [*(case.name for case in cases), *specials]):
            raise ValueError(f"--only needed part of a fault's name, got {name!r}; see --list")
    if options.only:
        cases = [case for case in cases if any(name in case.name for name in options.only)]
        specials = [each for each in specials if any(name in each for name in options.only)]
    if "web" in options.without:
        specials = [each for each in specials if not each.startswith("tab")]
    return cases, specials


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


class Drill:
    """All clients, and the rows so far.

    Args:
        options: Of the command line.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.rows: list[Row] = []
        self._folder = Path(tempfile.mkdtemp(prefix="drill-"))
        # An audit log, keys and trusted models of its own, not this user's.
        os.environ["XDG_STATE_HOME"] = str(self._folder / "state")
        self._endpoint = f"ipc://{self._folder}/stream"
        self._witness = Witness()
        self._playwright: Any = None
        self._browser: Any = None
        self.clients: list[Client] = []

    def open(self, endpoint: str) -> list[Client]:
        """One client of each kind."""
        made: list[Client] = [Plain(endpoint)]
        try:
            if "web" not in self._options.without:
                made.append(Page(endpoint, self._chromium()))
            if "window" not in self._options.without:
                made.append(Window(endpoint))
            if "recorder" not in self._options.without:
                made.append(Recorder(endpoint))
        except BaseException:
            for client in made:
                client.close()
            raise
        return made

    def _chromium(self) -> Any:
        if self._browser is None:
            from playwright.sync_api import sync_playwright

            self._playwright = sync_playwright().start()
            # Ctrl-C is ours: the browser is closed when the page has been read.
            self._browser = self._playwright.chromium.launch(
                executable_path=str(CHROMIUM), args=list(CHROMIUM_ARGUMENTS), handle_sigint=False
            )
        return self._browser

    def run(self, cases: Sequence[Case], specials: Sequence[str]) -> None:
        """Everything that was asked for."""
        total = len(cases) + len(specials)
        if cases or any(each.startswith("tab") for each in specials):
            self.clients = self.open(self._endpoint)
        for place, case in enumerate(cases, 1):
            say(f"[{place}/{total}] {case.name}: {case.what}")
            self._take(
                lambda case=case: Judged(case, self.clients, self._endpoint, self._witness).run(), case.name
            )
        for place, name in enumerate(specials, len(cases) + 1):
            say(f"[{place}/{total}] {name}")
            self._take(lambda name=name: self._special(name), name)

    def _take(self, work: Callable[[], list[Row]], name: str) -> None:
        try:
            rows = work()
        except Unready as error:
            rows = [Row(name, "", "all", "-", "-", None, 0.0, None, faults=(str(error),))]
        self.rows += rows
        for row in rows:
            print(terminal_line(row), flush=True)
            for fault in row.faults:
                print(f"    {fault}", flush=True)

    def _special(self, name: str) -> list[Row]:
        if name == "network cut":
            return special.network_cut(self.open)
        if name == "tab in the background":
            page = next(client for client in self.clients if isinstance(client, Page))
            plain = next(client for client in self.clients if isinstance(client, Plain))
            return special.tab_in_background(page, plain, self._endpoint)
        if name == "floods":
            return floods(self._witness)
        if name == "SIGKILL":
            return special.guard_killed(self._endpoint)
        return special.hundred_thousand(self._folder, self._options.frames)

    def close(self) -> None:
        """Leave nothing."""
        for client in self.clients:
            client.close()
        if self._browser is not None:
            self._browser.close()
        if self._playwright is not None:
            self._playwright.stop()
        self._witness.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def report_of(drill: Drill, complete: bool, arguments: Sequence[str]) -> dict[str, Any]:
    """What is written."""
    return {
        "schema": "contrastream.drill/1",
        "complete": complete,
        "command": " ".join(["make drill", *([f'ARGS="{" ".join(arguments)}"'] if arguments else [])]),
        "machine": f"{one_line(describe())}, Python {platform.python_version()}",
        "conditions": f"The digital phantom, {SIZE} x {SIZE}, {RATE_HZ:g} frames per second; load average at the end "
        f"{os.getloadavg()[1]:.1f} (5 min).",
        "finished": time.strftime("%Y-%m-%d %H:%M"),
        "rows": [dataclasses.asdict(row) for row in drill.rows],
        "wrong": faults_of(drill.rows),
    }


def write(options: argparse.Namespace, report: dict[str, Any], rows: Sequence[Row]) -> None:
    """Write what was asked for."""
    text = markdown(report, rows)
    if options.out is not None:
        options.out.write_text(json.dumps(report, indent=2) + "\n")
        options.out.with_suffix(".md").write_text(text)
    if options.into is not None:
        write_into(options.into, text)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the drill."""
    options = parse(arguments)
    try:
        cases, specials = chosen(options)
    except ValueError as error:
        print(f"drill: {error}", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join([*(f"{case.name}: {case.what}" for case in cases), *specials]))
        return 0
    for program, client in ((str(CHROMIUM), "web"), ("Xvfb", "window")):
        if client not in options.without and shutil.which(program) is None:
            print(
                f"drill: needed {program}, which is not here; install it, or leave it out: --without {client}",
                file=sys.stderr,
            )
            return 2  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    drill = Drill(options)
    complete = False
    try:
        drill.run(cases, specials)
        complete = True
    except KeyboardInterrupt:
        say("drill: stopped; the result is incomplete")
    finally:
        drill.close()
    report = report_of(drill, complete, sys.argv[1:] if arguments is None else arguments)
    print(f"\n{len(drill.rows)} judgements, {sum(bool(row.faults) for row in drill.rows)} that do not hold")
    if complete:
        write(options, report, drill.rows)
        return 1 if report["wrong"] else 0
    return 130


if __name__ == "__main__":
    sys.exit(main())
