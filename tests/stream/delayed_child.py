"""A child of the guard that is DELAY_MS late in one stage, for the tests: `python -m delayed_child DESCRIPTOR`.

DELAYED_STAGE says in which: `grab` (a frame is let go late), `submit` (a lease lies before it is submitted) or `engine` (an
inference takes longer). DELAYED_MODULE is the child it stands in for.
"""

import importlib
import os
import sys
import time
from typing import Any

import stream.grab
import stream.infer

DELAY_MS = 20.0


def later(call: Any, *, before: bool) -> Any:
    """A call that waits before or after what it does."""

    def delayed(*arguments: Any, **named: Any) -> Any:
        if before:
            time.sleep(DELAY_MS / 1e3)
        result = call(*arguments, **named)
        if not before:
            time.sleep(DELAY_MS / 1e3)
        return result

    return delayed


class LateSlot:
    """A slot whose inferences take longer."""

    def __init__(self, slot: Any) -> None:
        self._slot = slot
        self.bind, self.submit = slot.bind, slot.submit
        self.wait = later(slot.wait, before=False)


def main() -> None:
    """Put the delay in, then be the child."""
    stage = os.environ["DELAYED_STAGE"]
    if stage == "grab":
        stream.grab.sleep_until_ns = later(stream.grab.sleep_until_ns, before=False)
    elif stage == "submit":
        stream.infer.Inferrer._infer = later(stream.infer.Inferrer._infer, before=True)
    elif stage == "engine":
        open_warm = stream.infer.open_warm

        def open_late(*arguments: Any) -> Any:
            opened, slots, ready = open_warm(*arguments)
            return opened, [LateSlot(slot) for slot in slots], ready

        stream.infer.open_warm = open_late
    sys.exit(importlib.import_module(os.environ["DELAYED_MODULE"]).main())


if __name__ == "__main__":
    main()
