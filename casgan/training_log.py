"""What a run says while it goes: a table on disk, a bar on the terminal, a warning when a judge is lost."""

import csv
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

SMOOTH = 0.98
"""Decay of the moving averages that are shown."""
LONG = 200
"""Steps in a row after which a discriminator's state is worth a warning."""
EARLY = 10
LINE_EVERY_S = 30.0
"""Seconds between lines where there is no terminal for a bar."""


@dataclass(frozen=True)
class Bounds:
    """When a discriminator's loss means trouble. A least-squares one that cannot tell is at 0.25; D_Sem, told
    0.9 of what is real, at 0.69, and 0.16 is the least it can reach."""

    chance: float
    won: float


BOUNDS = {"d_x": Bounds(0.23, 0.05), "d_y": Bounds(0.23, 0.05), "d_sem": Bounds(0.66, 0.22)}


class JudgeWatch:
    """Tells once, each time it happens, that a discriminator is at chance or has won for long."""

    def __init__(self) -> None:
        self.smooth: dict[str, float] = {}
        self.since: dict[str, tuple[str, int]] = {}

    def warnings(self, losses: dict[str, float]) -> list[str]:
        """Take one step's losses in.

        Returns:
            What to print, most often nothing.
        """
        lines = []
        for name, bounds in BOUNDS.items():
            if name not in losses:
                continue
            value = losses[name]
            mean = self.smooth[name] = SMOOTH * self.smooth.get(name, value) + (1.0 - SMOOTH) * value
            state = "chance" if mean > bounds.chance else "won" if mean < bounds.won else "fair"
            before, count = self.since.get(name, ("fair", 0))
            count = count + 1 if state == before else 1
            self.since[name] = (state, count)
            if count == LONG and state != "fair":
                lines.append(
                    f"{name.upper()} {MEANING[state]} for {LONG} steps (loss {mean:.3f}); {ADVICE[state]}"
                )
        return lines

    def state(self) -> dict[str, Any]:
        return {"smooth": dict(self.smooth), "since": {name: list(of) for name, of in self.since.items()}}

    def load_state(self, state: dict[str, Any]) -> None:
        self.smooth = dict(state["smooth"])
        self.since = {name: (str(of[0]), int(of[1])) for name, of in state["since"].items()}


MEANING = {"chance": "cannot tell real from generated", "won": "tells every generated picture"}
ADVICE = {
    "chance": "it teaches nothing now: raise --discriminator-rate or --discriminator-width if that lasts",
    "won": "its gradient says little now: lower --discriminator-rate, or teach the paired stages longer",
}


class Table:
    """The losses of a stage, one row per step, as CSV.

    Args:
        path: The file. Rows from `start` on are of a run that was not kept: they are dropped.
        start: The first step to be written.
    """

    def __init__(self, path: Path, start: int) -> None:
        kept = []
        if path.is_file() and start > 0:
            with path.open(newline="", encoding="utf-8") as former:
                kept = [
                    row for row in csv.reader(former) if row and (row[0] == "step" or int(row[0]) <= start)
                ]
        path.parent.mkdir(parents=True, exist_ok=True)
        self.file = path.open("w", newline="", encoding="utf-8", buffering=1 << 16)
        self.writer = csv.writer(self.file)
        self.writer.writerows(kept)
        self.empty = not kept

    def add(self, step: int, losses: dict[str, float]) -> None:
        """One row; `step` counts from 1."""
        if self.empty:
            self.writer.writerow(["step", *losses])
            self.empty = False
        self.writer.writerow([step, *(f"{value:.6g}" for value in losses.values())])

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        self.file.close()


class Progress:
    """A bar with steps per second, time left and each loss; lines now and then where nobody watches.

    Args:
        title: The stage.
        steps: Of the stage.
        start: Steps done before.
        report: Takes a line where stderr is no terminal.
        shown: False in all processes but the first.
    """

    def __init__(
        self, title: str, steps: int, start: int, report: Callable[[str], None], shown: bool
    ) -> None:
        self.title, self.steps, self.start, self.report, self.shown = title, steps, start, report, shown
        self.smooth: dict[str, float] = {}
        self.done = start
        self.began = self.said = time.monotonic()
        self.terminal = shown and sys.stderr.isatty()
        hidden = not self.terminal
        self.bar = tqdm(
            total=steps,
            initial=start,
            desc=title,
            unit="step",
            dynamic_ncols=True,
            disable=hidden,
            position=0,
        )
        self.lines = [
            tqdm(bar_format="{desc}", dynamic_ncols=True, disable=hidden, position=1 + row, leave=False)
            for row in range(2)
        ]

    def advance(self, losses: dict[str, float]) -> None:
        """One step more."""
        self.done += 1
        for name, value in losses.items():
            before = self.smooth.get(name, value)
            self.smooth[name] = SMOOTH * before + (1.0 - SMOOTH) * value
        if self.terminal:
            words = [f"{name} {value:.3g}" for name, value in self.smooth.items()]
            middle = (len(words) + 1) // 2
            for line, half in zip(self.lines, (words[:middle], words[middle:]), strict=True):
                line.set_description_str("  ".join(half), refresh=False)
            if self.bar.update():
                for line in self.lines:
                    line.refresh()
        elif self.shown and self._is_line_due():
            self.said = time.monotonic()
            self.report(self.line())

    def _is_line_due(self) -> bool:
        # One early line, so that a wrong speed is seen before half a minute has gone.
        early = self.done - self.start == EARLY
        return early or self.done == self.steps or time.monotonic() - self.said >= LINE_EVERY_S

    def line(self) -> str:
        """The same in one line of text."""
        rate = (self.done - self.start) / max(1e-9, time.monotonic() - self.began)
        left_s = (self.steps - self.done) / rate if rate else float("nan")
        losses = "  ".join(f"{name} {value:.3g}" for name, value in self.smooth.items())
        return f"{self.title} {self.done}/{self.steps}  {rate:.2f} steps/s  {left_s:.0f} s left  {losses}"

    def say(self, line: str) -> None:
        """A line that does not break the bar."""
        if self.terminal:
            tqdm.write(line, file=sys.stderr)
        elif self.shown:
            self.report(line)

    def close(self) -> None:
        for bar in (*self.lines, self.bar):
            bar.close()
