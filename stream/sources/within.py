"""A call that may never return, given up after a while: drivers and name servers hang."""

import threading
from collections.abc import Callable
from typing import TypeVar

from stream.errors import SourceError

Result = TypeVar("Result")


def within(limit_s: float, work: Callable[[], Result], given_up: SourceError) -> Result:
    """Run `work` in a thread of its own and give it up after `limit_s`; the thread ends with the process.

    Raises:
        SourceError: `given_up`, when it took longer.
    """
    results: list[Result] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name="open-source", daemon=True)
    thread.start()
    thread.join(limit_s)
    if errors:
        raise errors[0]
    if not results:
        raise given_up
    return results[0]
