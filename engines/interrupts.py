"""Ctrl-C while a library works: told to it where it asks, else kept until it is done.

An exception inside a library's callbacks would be lost: TensorRT calls our logger and our progress monitor from
the thread that builds, or from threads of its own, and swallows what is raised there.
"""

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

log = logging.getLogger(__name__)


@contextmanager
def held_interrupts(what: str) -> Iterator[Callable[[], bool]]:
    """Ctrl-C takes effect at the block's end; a second one ends the process at once.

    Where Ctrl-C was given and the block then ends with an error, that error was of being stopped, and
    KeyboardInterrupt goes up in its place.

    Args:
        what: What is being done, for the line that says so.

    Yields:
        Whether Ctrl-C was given; may be asked from any thread, also while the main one is inside the library.
    """
    ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if threading.current_thread() is not threading.main_thread() or ignored:
        yield lambda: False  # only the main thread is interrupted
        return
    held = False
    reader, writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def asked() -> bool:
        """Python runs its handler only in the main thread; the signal itself is written into the pipe at once."""
        nonlocal held
        if not held:
            with contextlib.suppress(BlockingIOError):
                held = signal.SIGINT in os.read(reader, 64)
        return held

    def hold(*_: Any) -> None:
        nonlocal held
        held = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        log.warning("stopping %s; Ctrl-C once more ends this process at once", what)

    before = signal.signal(signal.SIGINT, hold)
    before_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    failed = True
    try:
        yield asked
        failed = False
    finally:
        signal.set_wakeup_fd(before_writer)
        asked()
        signal.signal(signal.SIGINT, before)
        os.close(writer)
        os.close(reader)
        if held:
            signal.raise_signal(signal.SIGINT)
            if failed:
                raise KeyboardInterrupt
