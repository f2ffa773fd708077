"""The client of a soak, in a process of its own: constant memory, and a snapshot on disk at the end of each window.

`python -m bench.soak_client ENDPOINT SNAPSHOT WINDOW_FRAMES [--credit]` receives until its standard input ends.
"""

import argparse
import json
import select
import sys
from pathlib import Path
from typing import Any

import numpy as np

from bench.histogram import Histogram
from stream.control import die_with_parent
from stream.frame import Reason, State
from stream.measure import STAGES, credit_socket
from stream.subscribe import Subscriber
from stream.timing import NS_PER_MS, Stage

DRAIN_MS = 300
BATCH = 256
"""Frames whose stamps are kept before they go into the histograms."""


class SoakTally:
    """What a soak's client has seen.

    Args:
        window: Frames of a window.
        since: The stamp from which latency runs: due where frames are paced, grabbed where they go as fast as they can.
    """

    def __init__(self, window: int, since: Stage) -> None:
        self._window = window
        self._since = since
        self._stamps = np.zeros((min(BATCH, window), len(Stage) - 1), np.int64)  # all but SHOWN
        self._kept = 0
        self._of_window = 0
        self.frames = 0
        self.lost = 0
        self.states = {state.name: 0 for state in State}
        self.reasons: dict[str, int] = {}
        self._publication = -1
        self.latency, self._window_latency = Histogram(), Histogram()
        self.stages = {name: Histogram() for name in STAGES}
        self.windows: list[dict[str, Any]] = []

    def add(self, state: int, reason: int, publication: int, stamps_ns: tuple[int, ...]) -> bool:
        """Take in a frame; True at the end of a window."""
        if self._publication >= 0:
            self.lost += max(0, publication - self._publication - 1)
        self._publication = publication
        self.states[State(state).name] += 1
        if state == State.PASSTHROUGH:
            name = Reason(reason).name.lower()
            self.reasons[name] = self.reasons.get(name, 0) + 1
        self._stamps[self._kept] = stamps_ns
        self._kept += 1
        self._of_window += 1
        self.frames += 1
        over = self._of_window == self._window
        if over or self._kept == len(self._stamps):
            self._count()
        if over:
            self.windows.append(
                {
                    "frames": self.frames,
                    "at_ns": int(stamps_ns[-1]),
                    "latency_ms": self._window_latency.summary(),
                }
            )
            self._window_latency, self._of_window = Histogram(), 0
        return over

    def _count(self) -> None:
        stamps = self._stamps[: self._kept]
        latency = (stamps[:, Stage.RECEIVED] - stamps[:, self._since]) / NS_PER_MS
        self.latency.add(latency)
        self._window_latency.add(latency)
        for name, (first, last) in STAGES.items():
            passed = (stamps[:, first] > 0) & (stamps[:, last] > 0)
            self.stages[name].add((stamps[passed, last] - stamps[passed, first]) / NS_PER_MS)
        self._kept = 0

    def as_dict(self) -> dict[str, Any]:
        """For the snapshot and the report."""
        self._count()
        return {
            "frames": self.frames,
            "lost": self.lost,
            "states": self.states,
            "passthrough": self.reasons,
            "latency_ms": self.latency.summary(),
            "stages_ms": {name: histogram.summary() for name, histogram in self.stages.items()},
            "windows": self.windows,
        }


def receive(endpoint: str, snapshot: Path, window: int, *, credit: bool) -> None:
    """Receive until standard input ends; the last snapshot is the whole."""
    subscriber = Subscriber(endpoint, newest_only=False, queue=1000, measuring=True)
    credits = credit_socket(endpoint) if credit else None
    tally = SoakTally(window, Stage.GRABBED if credit else Stage.DUE)
    ended = False
    while True:
        message = subscriber.poll(DRAIN_MS if ended else 100)
        if message is not None:
            header = message.header
            stamps = (*header.stamps_ns, subscriber.received_ns)
            if tally.add(header.state, header.reason, header.publication, stamps):
                write_snapshot(snapshot, tally)
            if credits is not None:
                credits.send((1).to_bytes(4, "little"))
        elif ended and not subscriber.has_more():
            break
        ended = ended or bool(select.select([sys.stdin], [], [], 0)[0])
    write_snapshot(snapshot, tally)
    if credits is not None:
        credits.close(linger=0)
    subscriber.close()


def write_snapshot(path: Path, tally: SoakTally) -> None:
    """Whole or not at all, so that a soak that was killed has its last one."""
    partial = path.with_name(path.name + ".partial")
    partial.write_text(json.dumps(tally.as_dict()))
    partial.replace(path)


def main() -> int:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("snapshot", type=Path)
    parser.add_argument("window", type=int)
    parser.add_argument("--credit", action="store_true")
    arguments = parser.parse_args()
    die_with_parent()
    receive(arguments.endpoint, arguments.snapshot, arguments.window, credit=arguments.credit)
    return 0


if __name__ == "__main__":
    sys.exit(main())
