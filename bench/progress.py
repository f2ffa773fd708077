"""A progress bar on stderr for a command that goes through stages; silent where stderr is no terminal."""

import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

T = TypeVar("T")


class Progress:
    """Says which stage runs, and how far it is."""

    def __init__(self, shown: bool | None = None) -> None:
        # None: tqdm itself asks whether stderr is a terminal.
        self._disable = None if shown is None else not shown

    def over(self, items: Iterable[T] | Sequence[T], stage: str) -> Iterator[T]:
        """The items, with a bar."""
        yield from tqdm(
            items, desc=f"{stage:12}", file=sys.stderr, disable=self._disable, leave=False, ncols=78
        )

    def stage(self, name: str) -> None:
        """A stage of one step."""
        self._line(f"{name} ...")

    def note(self, line: str) -> None:
        """A line that stays."""
        self._line("")
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Leave nothing behind."""
        self._line("")

    def _line(self, text: str) -> None:
        if not self._disable and sys.stderr.isatty():
            # Back to the line's start, and clear it: ECMA-48, EL.
            print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)
