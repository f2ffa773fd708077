"""From codes in captured pictures to latencies, each with what is not known of it.

    capture     k-1          k           k+1
    shows       frame 6      frame 6     frame 7
                             |<--------->|
                             frame 7 came in here: seen at the end of capture k+1, not yet at the beginning of capture k

So a frame's latency lies between two bounds, one capture interval apart, and both are reported: `seen_ms` is the upper one.
"""

from dataclasses import dataclass

import numpy as np

from bench.errors import BenchError
from bench.glass_watch import ABSENT, REFUSED, Captures
from calib.target import FRAME_BITS, TIME_BITS
from stream.measure import Measured
from stream.timing import NS_PER_MS, NS_PER_S, Stage

OTHER_CLOCK_S = 60.0
"""No display is so late: the codes are of another host's clock."""


@dataclass(frozen=True)
class SeenFrames:
    """Frames as a camera saw them, one row each, in the order of their numbers.

    Args:
        number: (n,) int64 frame numbers, without the modulo of the code.
        due_ns: (n,) int64 when each was due.
        seen_ns: (n,) int64 the end of the first capture that shows it.
        before_ns: (n,) int64 the beginning of the last capture that shows an earlier frame, before it.
        refused: Captures whose target's code could not be believed, over the time of these frames.
        captures: All captures of that time.
    """

    number: np.ndarray
    due_ns: np.ndarray
    seen_ns: np.ndarray
    before_ns: np.ndarray
    refused: int
    captures: int

    def seen_ms(self) -> np.ndarray:
        """(n,) due to the first capture that shows the frame: the upper bound."""
        return np.asarray((self.seen_ns - self.due_ns) / NS_PER_MS)

    def not_before_ms(self) -> np.ndarray:
        """(n,) due to the last capture that does not show it yet: the lower bound, which may be below 0."""
        return np.asarray((self.before_ns - self.due_ns) / NS_PER_MS)


def shows_two(captures: Captures) -> bool:
    """Whether most pictures that show a target show two of them."""
    there = (captures.frame != ABSENT).sum(axis=1)
    return int((there == 2).sum()) > int((there == 1).sum())


def copy_column(captures: Captures) -> int:
    """Which target is the viewer's copy: of two the one that is behind, as most pictures have it."""
    if not shows_two(captures):
        return 0
    behind = _ahead_us(captures)
    # The first column's lead over the second; where it leads, the second is the copy.
    return 1 if behind.size and np.median(behind) > 0 else 0


def _ahead_us(captures: Captures) -> np.ndarray:
    """By how many us the first target's code is newer than the second's, where both were read."""
    both = (captures.frame >= 0).all(axis=1)
    half = 1 << (TIME_BITS - 1)
    lead: np.ndarray = (captures.time_us[both, 0] - captures.time_us[both, 1] + half) % (2 * half) - half
    return lead


def difference_ms(captures: Captures, *, seed: int = 0) -> np.ndarray:
    """How much older the copy is than the original in the same picture; needs no clock.

    Args:
        captures: Of which most show two targets.
        seed: Of the choice below, so that a report can be made again.

    Returns:
        (n,) ms, one for each frame of the copy, of a picture drawn at random from those that show it: every picture would count
        a frame several times, and its first picture would always find the original at the beginning of its period. Each is a
        whole number of the source's periods; their mean is the latency.
    """
    column = copy_column(captures)
    both = (captures.frame >= 0).all(axis=1)
    older = _ahead_us(captures) * (1 if column == 1 else -1) / 1e3
    if not older.size:
        return older
    copies = captures.frame[both, column]
    begins = np.flatnonzero(np.diff(copies, prepend=copies[0] - 1) != 0)
    lengths = np.diff(begins, append=copies.size)
    drawn = begins + np.random.default_rng(seed).integers(0, lengths)
    chosen: np.ndarray = older[drawn]
    return chosen


def code_period_ms(captures: Captures, column: int = 0) -> float | None:
    """From one frame's time to the next one's, by the codes themselves; None for fewer than two frames."""
    read = captures.frame[:, column] >= 0
    frame, time_us = captures.frame[read, column], captures.time_us[read, column]
    step, passed = np.diff(frame), np.diff(time_us)
    forward = (step > 0) & (passed > 0)
    return float(np.median(passed[forward] / step[forward])) / 1e3 if forward.any() else None


def seen_frames(captures: Captures, column: int = 0) -> SeenFrames:
    """When each frame was first seen.

    Args:
        captures: In the order of time.
        column: Of the viewer's copy.

    Returns:
        The frames; without the first one, which may have been there before the camera looked.

    Raises:
        BenchError: The codes' times are not of this host's clock.
    """
    read = np.flatnonzero(captures.frame[:, column] >= 0)
    empty = np.zeros(0, np.int64)
    if read.size < 2:
        return SeenFrames(empty, empty, empty, empty, 0, 0)
    turn, half_time = 1 << FRAME_BITS, 1 << (TIME_BITS - 1)
    frame = captures.frame[read, column]
    number = frame[0] + np.cumsum(np.concatenate([[0], (np.diff(frame) + turn // 2) % turn - turn // 2]))
    age_us = captures.stamp_ns[read] // 1000 - captures.time_us[read, column]
    age_us = (age_us + half_time) % (2 * half_time) - half_time
    if abs(float(np.median(age_us))) > OTHER_CLOCK_S * 1e6:
        raise BenchError(
            f"the codes are {np.median(age_us) / 1e6:.0f} s away from this host's clock, so another host draws the target; "
            "measure on that host, or film the original beside the viewer's copy"
        )
    # A frame that comes back after a newer one was seen (a screen that is torn, or behind) is not seen anew.
    newest = np.maximum.accumulate(number)
    first = np.flatnonzero(np.diff(newest) > 0) + 1
    rows, before = read[first], read[first - 1]
    due_ns = captures.stamp_ns[rows] - age_us[first] * 1000 - captures.stamp_ns[rows] % 1000
    span = slice(int(read[0]), int(read[-1]) + 1)
    return SeenFrames(
        number=number[first],
        due_ns=due_ns,
        seen_ns=captures.stamp_ns[rows],
        before_ns=captures.began_ns[before],
        refused=int((captures.frame[span, column] == REFUSED).sum()),
        captures=int(read[-1] - read[0]) + 1,
    )


def only_frames(seen: SeenFrames, captures: Captures, first: int, end: int, column: int = 0) -> SeenFrames:
    """Those with numbers from `first` to below `end`, and the captures of their time."""
    rows = (seen.number >= first) & (seen.number < end)
    if not rows.any():
        empty = np.zeros(0, np.int64)
        return SeenFrames(empty, empty, empty, empty, 0, 0)
    begin_ns, end_ns = seen.before_ns[rows][0], seen.seen_ns[rows][-1]
    inside = (captures.stamp_ns >= begin_ns) & (captures.stamp_ns <= end_ns)
    return SeenFrames(
        seen.number[rows],
        seen.due_ns[rows],
        seen.seen_ns[rows],
        seen.before_ns[rows],
        refused=int((captures.frame[inside, column] == REFUSED).sum()),
        captures=int(inside.sum()),
    )


def capture_interval_ms(captures: Captures) -> np.ndarray:
    """From capture to capture, (n - 1,) ms."""
    return np.diff(captures.stamp_ns) / NS_PER_MS


def client_rows(seen: SeenFrames, measured: Measured) -> tuple[np.ndarray, np.ndarray]:
    """Which of a client's frames are which of the seen ones, by when they were due.

    Returns:
        Places in `seen`, and places in `measured`, of the frames that are in both.
    """
    due_us = (measured.stamps_ns[:, Stage.DUE].astype(np.int64)) // 1000
    _, in_seen, in_measured = np.intersect1d(seen.due_ns // 1000, due_us, return_indices=True)
    return in_seen, in_measured


def seconds(captures: Captures) -> float:
    """How long was captured, in s."""
    return float(captures.stamp_ns[-1] - captures.stamp_ns[0]) / NS_PER_S if captures.stamp_ns.size else 0.0
