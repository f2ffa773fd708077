"""The fault matrix: what is broken, what every client must show then, and within which time."""

import dataclasses
import os
import signal
import time
from collections.abc import Callable
from dataclasses import dataclass

from drill.running import Running

RATE_HZ = 15.0
AT = 150
"""The frame at which a source's fault begins: ten seconds in, when the engine has long been ready."""
ENGINE_AT = 60
"""The same in the engine's inferences."""
LASTS_S = 3.0
SHOWN_WITHIN_S = 1.0
"""The promise: what is stale looks so within a second."""
NEXT_FRAME_S = 0.2
"""Two periods and what the clients take to look."""
HANG_S = 0.5 + NEXT_FRAME_S
RECOVERED_S = 30.0

Act = Callable[[Running], None]


def passthrough(*reasons: str) -> tuple[str, ...]:
    """As `Case.expected` has it."""
    return tuple(f"PASSTHROUGH({reason})" for reason in reasons)


@dataclass(frozen=True)
class Case:
    """One fault. Its source fault, its engine fault or its act is what breaks the stream."""

    name: str
    what: str
    expected: tuple[str, ...]
    """States of which one must be shown; of the window, which tells no reason, the state alone counts."""
    fault: str = ""
    engine: str = ""
    act: Act | None = None
    undo: Act | None = None
    """After `lasts_s`."""
    lasts_s: float = LASTS_S
    within_s: float = SHOWN_WITHIN_S
    ends: bool = False
    """The publisher ends; another one is started after `lasts_s`."""
    from_start: bool = False
    """The fault is there from the start, so there is nothing to see before it."""
    judges_late: bool = True
    """Whether frames must leave by their deadline: not where the publisher itself is stopped."""


def to_child(module: str, number: signal.Signals) -> Act:
    """Send a signal to a child of the pipeline."""
    return lambda running: os.kill(running.child(module), number)


def to_publisher(number: signal.Signals) -> Act:
    """Send a signal to the guard's process."""
    return lambda running: os.kill(running.process.pid, number)


def stop_and_wake(running: Running) -> None:
    """Stop the engine for less than it takes to be killed, eight times: it wakes and writes after its frame has gone."""
    engine = running.child("stream.infer")
    for _ in range(8):
        os.kill(engine, signal.SIGSTOP)
        time.sleep(0.3)
        os.kill(engine, signal.SIGCONT)
        time.sleep(0.2)


SOURCE_CASES = (
    Case("source frozen", "the source gives no frame for 3 s", ("STALE",), fault=f"freeze@{AT}:3s"),
    Case("pedal up", "the source repeats the held image for 3 s", ("UNCHANGED",), fault=f"hold@{AT}:3s"),
    Case("black frames", "the source gives black frames for 3 s", ("UNCHANGED",), fault=f"black@{AT}:3s"),
    Case("device unplugged", "the device is gone for 3 s", ("STALE",), fault=f"unplug@{AT}:3s"),
    Case("driver hangs", "a call of the driver takes 3 s", ("STALE",), fault=f"hang@{AT}:3s"),
    Case("driver hangs for ever", "a call of the driver never returns", ("STALE",), fault=f"hang@{AT}", lasts_s=5.0),
    Case("source crashes", "segmentation fault in the source", ("STALE",), fault=f"crash@{AT}", lasts_s=0.0),
    Case(
        "source stopped",
        "SIGSTOP of the source process for 3 s",
        ("STALE",),
        act=to_child("stream.grab", signal.SIGSTOP),
        undo=to_child("stream.grab", signal.SIGCONT),
    ),
    Case(
        "frames lost and late",
        "one in five lost, each up to 30 ms late",
        ("SYNTHETIC", *passthrough("deadline")),
        fault="drop=0.2,jitter=30ms",
        from_start=True,
    ),
    Case("another size", "frames of 320 x 256 from here on", passthrough("starting"), fault=f"size@{AT}:320x256", lasts_s=0.0),
    Case("recording ends", "the last frame has come", ("NO_SIGNAL",), fault=f"end@{AT}", ends=True),
)  # fmt: skip
PUBLISHER_CASES = (
    Case(
        "publisher killed",
        "SIGKILL of the guard; another is started after 3 s",
        ("NO_SIGNAL",),
        act=to_publisher(signal.SIGKILL),
        ends=True,
    ),
    Case(
        "publisher stopped",
        "SIGSTOP of the guard for 3 s",
        ("NO_SIGNAL",),
        act=to_publisher(signal.SIGSTOP),
        undo=to_publisher(signal.SIGCONT),
        judges_late=False,
    ),
)


def engine_case(
    name: str, what: str, *reasons: str, within_s: float = HANG_S, lasts_s: float = 0.0, at: int = ENGINE_AT
) -> Case:
    """A fault of the engine process, which is there for three seconds or for one life of it."""
    return Case(
        f"engine: {name.replace('_', ' ')}",
        what,
        passthrough(*reasons),
        engine=f"{name}@{at}",
        within_s=within_s,
        lasts_s=lasts_s,
        from_start="start" in name,
    )


ENGINE_CASES = (
    Case(
        "engine killed",
        "SIGKILL of the engine process",
        passthrough("engine_lost"),
        act=to_child("stream.infer", signal.SIGKILL),
        lasts_s=0.0,
        within_s=NEXT_FRAME_S,
    ),
    Case(
        "engine stopped",
        "SIGSTOP of the engine process, for ever",
        passthrough("engine_lost"),
        act=to_child("stream.infer", signal.SIGSTOP),
        lasts_s=0.0,
        within_s=HANG_S,
    ),
    Case(
        "engine stops and wakes",
        "0.3 s of SIGSTOP, eight times: late results of frames that have gone",
        passthrough("deadline"),
        act=stop_and_wake,
        lasts_s=0.0,
        within_s=HANG_S,
    ),
    engine_case("segfault", "segmentation fault", "engine_lost", within_s=NEXT_FRAME_S),
    engine_case("loop", "an inference never ends", "engine_lost"),
    engine_case("out_of_memory", "64 MiB are left (RLIMIT_AS)", "engine_lost"),
    engine_case("raise", "each inference fails for 3 s", "output_invalid", within_s=NEXT_FRAME_S, lasts_s=3.0),
    engine_case("bug", "an exception that nobody expects", "engine_lost", within_s=NEXT_FRAME_S),
    engine_case("nan", "the output is NaN for 3 s", "output_invalid", within_s=NEXT_FRAME_S, lasts_s=3.0),
    engine_case("constant", "the output is one value for 3 s", "output_invalid", within_s=NEXT_FRAME_S, lasts_s=3.0),
    engine_case("wrong_size", "an answer of another size", "engine_lost", within_s=NEXT_FRAME_S),
    engine_case("slow_start", "8 s until it is ready", "starting", at=8, lasts_s=8.0),
    engine_case("crash_at_start", "it aborts at its start, four times", "starting", at=4, lasts_s=3.75),
)  # fmt: skip
LONG_CASES = (
    dataclasses.replace(
        engine_case("crash_at_start", "it aborts at its start, ten times", "starting", at=10, lasts_s=47.75),
        name="engine: crash at start, 10 times",
    ),
)
"""Only with --long."""
CASES = (*SOURCE_CASES, *PUBLISHER_CASES, *ENGINE_CASES)
