"""A line on stderr that says what is being waited for, and since when; only on a terminal."""

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PERIOD_S = 0.5
CLEAR = "\r\x1b[K"
"""Back to the line's start, and clear it: ECMA-48, EL."""


@contextmanager
def elapsed(what: str) -> Iterator[None]:
    """Show `what ... 12 s` while the block runs; nothing of it stays.

    Args:
        what: What is being done, for example `building`.
    """
    if not sys.stderr.isatty():
        yield
        return
    done = threading.Event()
    start = time.monotonic()

    def show() -> None:
        while True:
            print(f"{CLEAR}{what} ... {time.monotonic() - start:.0f} s", end="", file=sys.stderr, flush=True)
            if done.wait(PERIOD_S):
                return

    thread = threading.Thread(target=show, name="elapsed", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        print(CLEAR, end="", file=sys.stderr, flush=True)
