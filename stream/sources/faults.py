"""`--fault`: what is to go wrong with a source, read from one line.

A test tool. A stream with injected faults says so in every message, in the status and in the viewers' pictures, so that it is
never mistaken for a room's.
"""

import math
import re
from dataclasses import dataclass

from stream.frame import MAX_SIDE, MIN_SIDE

MAX_DURATION_S = 3600.0
FOR_EVER = math.inf

EXAMPLE = "drop=0.1,freeze@100:3s"
_UNITS = {"ms": 1e-3, "s": 1.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s)")
_SIZE = re.compile(r"(\d+)x(\d+)")

ALL_THE_TIME = {"drop": "a probability above 0 and below 1", "jitter": "a time such as 20ms"}
AT_A_FRAME = {
    "freeze": "a time such as 3s",
    "hold": "a time such as 2s",
    "black": "nothing, or a time such as 2s",
    "size": "columns x rows from 64x64 to 2048x2048, such as 320x256",
    "unplug": "a time such as 5s",
    "hang": "nothing (it never returns), or a time such as 5s",
    "crash": "nothing",
    "end": "nothing",
}
ENDING = ("unplug", "crash")
"""Faults that end the source process, which then must be able to go on."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong."""

    kind: str
    text: str
    """As it was asked for."""
    at: int = 0
    """The number of the frame at which it begins; 0 for what goes on all the time."""
    duration_s: float = 0.0
    """How long it lasts; infinite for a call that never returns."""
    probability: float = 0.0
    columns: int = 0
    rows: int = 0


def parse_faults(text: str) -> tuple[Fault, ...]:
    """Read `drop=0.1,jitter=20ms,freeze@100:3s,...`.

    Raises:
        ValueError: An item that is none, with the item and what was needed.
    """
    faults = tuple(_parse_item(item.strip()) for item in text.split(","))
    for kind in ALL_THE_TIME:
        if sum(fault.kind == kind for fault in faults) > 1:
            raise ValueError(f"--fault takes {kind} once, got it twice in {text!r}; give one value")
    return faults


def _refusal(item: str, needed: str) -> ValueError:
    return ValueError(f"--fault needed {needed}, got {item!r}; for example {EXAMPLE}")


def _parse_item(item: str) -> Fault:
    if "=" in item:
        kind, _, value = item.partition("=")
        if kind not in ALL_THE_TIME:
            raise _refusal(item, f"{' or '.join(ALL_THE_TIME)} before the =")
        return _all_the_time(item, kind, value)
    kind, mark, rest = item.partition("@")
    if kind not in AT_A_FRAME or not mark:
        known = ", ".join([*(f"{name}=" for name in ALL_THE_TIME), *(f"{name}@N" for name in AT_A_FRAME)])
        raise _refusal(item, f"one of {known}")
    number, colon, value = rest.partition(":")
    if not (number.isascii() and number.isdigit() and int(number) > 0):
        raise _refusal(item, f"a frame number from 1 after {kind}@")
    return _at_a_frame(item, kind, int(number), value if colon else None)


def _all_the_time(item: str, kind: str, value: str) -> Fault:
    needed = f"{ALL_THE_TIME[kind]} after {kind}="
    if kind == "jitter":
        return Fault(kind, item, duration_s=_duration(item, value, needed))
    try:
        probability = float(value)
    except ValueError:
        probability = math.nan
    if not 0.0 < probability < 1.0:
        raise _refusal(item, needed)
    return Fault(kind, item, probability=probability)


def _at_a_frame(item: str, kind: str, at: int, value: str | None) -> Fault:
    needed = f"{AT_A_FRAME[kind]} after {kind}@{at}" + ("" if kind in ("crash", "end") else ":")
    if kind in ("crash", "end"):
        if value is not None:
            raise _refusal(item, needed)
        return Fault(kind, item, at)
    if kind == "size":
        found = _SIZE.fullmatch(value or "")
        columns, rows = (int(side) for side in found.groups()) if found else (0, 0)
        if not (MIN_SIDE <= columns <= MAX_SIDE and MIN_SIDE <= rows <= MAX_SIDE):
            raise _refusal(item, needed)
        return Fault(kind, item, at, columns=columns, rows=rows)
    if value is None and kind in ("black", "hang"):
        return Fault(kind, item, at, duration_s=FOR_EVER if kind == "hang" else 0.0)
    return Fault(kind, item, at, duration_s=_duration(item, value or "", needed))


def _duration(item: str, text: str, needed: str) -> float:
    found = _DURATION.fullmatch(text)
    seconds = float(found[1]) * _UNITS[found[2]] if found else 0.0
    if not 0.0 < seconds <= MAX_DURATION_S:
        raise _refusal(item, f"{needed} (above 0, at most an hour)")
    return seconds
