"""Ctrl-C while a library works: kept until it is done, since an exception inside its callbacks would be lost."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def held_interrupts(what: str) -> Iterator[None]:
    """Ctrl-C takes effect at the block's end; a second one ends the process at once.

    TensorRT calls our logger from the thread that builds, and swallows what is raised there: an interrupt that
    Python raises inside that call is never seen again.

    Args:
        what: What is being done and cannot be stopped, for the line that says so.
    """
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    held = False

    def hold(*_: Any) -> None:
        nonlocal held
        held = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        log.warning("stopping when %s is done; Ctrl-C once more stops it at once", what)

    before = signal.signal(signal.SIGINT, hold)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)
