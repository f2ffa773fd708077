"""An engine process that is broken as CONTRASTREAM_ENGINE_FAULT says: NAME, or NAME@N for its N-th inference after it is warm.

Run by its Python before anything else, in the engine process alone; nothing of it is in what is shipped. A file named
in CONTRASTREAM_ENGINE_BROKEN is written when the fault begins, and as long as it is there the next process is whole, so that
each fault happens in one life of the engine. `crash_at_start@N` has N processes die before they are ready.
"""

import ctypes
import dataclasses
import math
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

NAME, _, NUMBER = os.environ.get("CONTRASTREAM_ENGINE_FAULT", "").partition("@")
AT = int(NUMBER or 1)
MARK = Path(os.environ.get("CONTRASTREAM_ENGINE_BROKEN", "/nonexistent"))
LASTS_S = 3.0
LIMIT_BYTES = 64 << 20


def begins() -> None:
    """Say when the fault began, once."""
    if not MARK.exists():
        MARK.write_text(str(time.clock_gettime_ns(time.CLOCK_MONOTONIC)))


def is_over() -> bool:
    """Whether a fault that does not kill the process has lasted long enough."""
    began = int(MARK.read_text()) if MARK.exists() else None
    return began is not None and time.clock_gettime_ns(time.CLOCK_MONOTONIC) - began > LASTS_S * 1e9


class BrokenSlot:
    """A slot whose inferences go wrong from the N-th on."""

    def __init__(self, slot: Any, count: list[int]) -> None:
        self._slot, self._count = slot, count
        self._planes: tuple[Any, Any] | None = None
        self.submit = slot.submit

    def bind(self, live: Any, synthetic: Any, attention: Any) -> None:
        self._planes = synthetic, attention
        self._slot.bind(live, synthetic, attention)

    def wait(self) -> Any:
        said = self._slot.wait()
        self._count[0] += 1
        if self._count[0] < AT or is_over():
            return said
        begins()
        return self._break(said)

    def _break(self, said: Any) -> Any:
        if NAME == "segfault":
            ctypes.string_at(0)
        elif NAME == "loop":
            while True:
                pass
        elif NAME == "out_of_memory":
            used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (used + LIMIT_BYTES, used + LIMIT_BYTES))
            kept = []
            while True:
                kept.append(bytearray(8 << 20))
        elif NAME == "raise":
            from engines.errors import EngineError

            raise EngineError("broken on purpose: this inference failed")
        elif NAME == "bug":
            raise RuntimeError("broken on purpose: a fault of the program itself")
        elif NAME == "nan":
            return dataclasses.replace(said, finite=False, minimum=math.nan, maximum=math.nan, mean=math.nan)
        elif NAME == "constant":
            assert self._planes is not None
            for plane in self._planes:
                plane[:] = 128
            return dataclasses.replace(said, minimum=0.5, maximum=0.5, mean=0.5, area=1.0)
        return said


def short_packet(finish: Any) -> Any:
    """A DONE packet of another size than agreed."""
    count = [0]

    def wrong(*arguments: Any) -> Any:
        done, failure = finish(*arguments)
        count[0] += 1
        if count[0] < AT or MARK.exists():
            return done, failure
        begins()
        return done[:-4], failure

    return wrong


def break_engine() -> None:
    """Put the fault in."""
    import stream.infer

    open_warm = stream.infer.open_warm
    if NAME == "wrong_size":
        stream.infer.finish = short_packet(stream.infer.finish)

    def open_broken(*arguments: Any) -> Any:
        if NAME == "crash_at_start":
            died = len(MARK.read_text()) if MARK.exists() else 0
            if died < AT:
                MARK.write_text("x" * (died + 1))
                os.abort()
        if NAME == "slow_start":
            time.sleep(AT)
        opened, slots, ready = open_warm(*arguments)
        count = [0]
        broken = NAME not in ("wrong_size", "crash_at_start", "slow_start") and not MARK.exists()
        return opened, [BrokenSlot(slot, count) if broken else slot for slot in slots], ready

    stream.infer.open_warm = open_broken


if NAME and "stream.infer" in sys.orig_argv:
    # No core file of a process that is meant to die.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    break_engine()
    # `python -m stream.infer` would load the module a second time, whole; so the broken one is run from here.
    sys.argv = ["stream.infer", sys.orig_argv[-1]]
    os._exit(sys.modules["stream.infer"].main())
