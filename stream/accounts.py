"""No frame is lost without being counted: the sums that must come out at the end of every run.

At the publisher: due = synthetic + passthrough + unchanged + repeated + dropped. At a client: received + gaps = published, each
message once and in order, and no more of a state than were sent. A sum that does not come out is a fault of ours.
"""

from typing import Any

import numpy as np

from stream.errors import PipelineError
from stream.frame import State
from stream.measure import Measured


def parts(counters: dict[str, Any]) -> dict[str, int]:
    """What became of the frames that were due, by name.

    Args:
        counters: Of a status; see `stream.outgoing.Counters`.
    """
    waiting = int(counters.get("waiting", 0))  # of a status in mid-run; none are left at its end
    return {
        **({"waiting": waiting} if waiting else {}),
        "synthetic": int(counters["synthetic"]),
        "passthrough": sum(counters["passthrough"].values()),
        "unchanged": int(counters["unchanged"]),
        "repeated": int(counters["repeated"]),
        "dropped": sum(counters["dropped"].values()),
    }


def publisher_text(counters: dict[str, Any]) -> str:
    """The publisher's sum as a line."""
    sums = parts(counters)
    right = " + ".join(f"{count} {name}" for name, count in sums.items())
    sign = "=" if sum(sums.values()) == counters["due"] else "IS NOT"
    return f"{counters['due']} due {sign} {right}"


def publisher_mismatch(counters: dict[str, Any]) -> str | None:
    """What is wrong with the publisher's sum; None where it comes out, or no frame came."""
    if not counters:
        return None
    total = sum(parts(counters).values())
    if total == counters["due"]:
        return None
    return f"{publisher_text(counters)}, off by {counters['due'] - total}"


def client_gaps(measured: Measured, published: int) -> int:
    """Messages that a client which was there from the first one did not get: before, between and after those it got."""
    return published - int(np.unique(measured.publication).size)


def client_mismatch(measured: Measured, counters: dict[str, Any]) -> str | None:
    """What is wrong with a client's sum; None where it comes out.

    Args:
        measured: What a client saw that was there before the first frame.
        counters: The publisher's.
    """
    if not counters:
        return None if measured.sequence.size == 0 else f"{measured.sequence.size} frames came, none was sent"
    published, received = int(counters["published"]), int(measured.sequence.size)
    for name in ("publication", "sequence"):
        steps = np.diff(getattr(measured, name).astype(np.int64))
        if (steps <= 0).any():
            at = int(np.argmax(steps <= 0)) + 1
            return f"{name} number {getattr(measured, name)[at]} came after {getattr(measured, name)[at - 1]}"
    if received and int(measured.publication[-1]) >= published:
        return f"message {measured.publication[-1]} came of {published} sent"
    gaps = client_gaps(measured, published)
    if received + gaps != published:
        return f"{received} received + {gaps} gaps are not {published} published"
    sent = parts(counters)
    for state in (State.SYNTHETIC, State.PASSTHROUGH, State.UNCHANGED):
        got, of = int((measured.state == state).sum()), sent[state.name.lower()]
        if got > of or (gaps == 0 and got != of):
            return f"{got} {state.name} frames received, {of} sent"
    return None


def problem(counters: dict[str, Any], measured: Measured | None = None) -> str | None:
    """What is wrong with either sum at the end of a run; None where both come out.

    Args:
        counters: The publisher's; empty where no frame came.
        measured: Of a client that was there from the first frame to the last; None where there was none.
    """
    if (wrong := publisher_mismatch(counters)) is not None:
        return f"at the publisher: {wrong}"
    if measured is not None and (wrong := client_mismatch(measured, counters)) is not None:
        return f"at the measuring client: {wrong}"
    return None


def refuse(wrong: str | None) -> None:
    """End a run whose sums do not come out.

    Args:
        wrong: As of `problem`.

    Raises:
        PipelineError: `wrong` is not None.
    """
    if wrong is not None:
        raise PipelineError(
            f"needed every frame to be accounted for, got {wrong}; this is a fault of ours, please report it"
        )


def check(counters: dict[str, Any], measured: Measured | None = None) -> None:
    """`problem` and `refuse` in one."""
    refuse(problem(counters, measured))
