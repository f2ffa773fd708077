"""The stage `shown`: when a page drew each frame, in the clock of the viewer's server, with its uncertainty.

    page                                            server
    ping: t1, back_ms of the exchange before  ----> t2; it now holds all four stamps of the exchange before
    back_ms = t4  <-------------------------------- t3, pong
    next: publication, shown_ms  -----------------> kept beside when the relay received that publication

A page is asked to say so only by a server that was started with --shown; then its stamp rides on the message with which it
asks for the next frame anyway. The server's clock is the publisher's, since both are on one host (CLOCK_MONOTONIC).
"""

import math
import os
import zipfile
from collections import deque
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calib.clock import ClockEstimate, estimate_clock
from calib.errors import CalibrationError
from stream.errors import DisplayError
from stream.timing import NS_PER_MS, Stage
from stream.wire import Header

KEPT = 1_000_000
"""Most frames, stamps and exchanges that are kept, newest wins: nine hours at 30 per second."""
COARSEST_MS = 100.0
"""A page's clock is never coarser; a browser that hides time more is no clock."""
DOUBTED = ("min", "mean", "p50", "p90", "p95", "p99", "p99.9", "max")


class ShownLog:
    """What pages say of when they drew, and the exchanges that tell their clocks; filled by the server."""

    def __init__(self) -> None:
        self._stream = b""
        self._frames: deque[tuple[int, int, int, int]] = deque(maxlen=KEPT)
        self._shown: deque[tuple[int, int, int]] = deque(maxlen=KEPT)
        self._exchanges: deque[tuple[int, int, int, int, int, int]] = deque(maxlen=KEPT)
        self._open: dict[tuple[int, float], tuple[int, int]] = {}
        self._pages = 0

    def new_page(self) -> int:
        """A number for one more page."""
        self._pages += 1
        return self._pages

    def received(self, header: Header, received_ns: int) -> None:
        """The relay has received a frame; called in the reader's thread."""
        if header.stream != self._stream:
            # Another publisher numbers anew.
            self._stream = header.stream
            self._frames.clear()
            self._shown.clear()
        self._frames.append((header.publication, header.sequence, header.stamp_ns(Stage.DUE), received_ns))

    def ponged(self, page: int, sent_ms: float, received_ns: int, replied_ns: int) -> None:
        """A page's ping was answered."""
        if len(self._open) > 64:
            self._open.clear()  # a page that never says when the pongs came
        self._open[page, sent_ms] = received_ns, replied_ns

    def take(self, page: int, said: dict[str, Any]) -> None:
        """What a page's message says of an exchange, or of a frame that it has drawn.

        Raises:
            ValueError: Not what a page of ours sends.
        """
        if (back := said.get("back")) is not None:
            if not isinstance(back, list) or len(back) != 3:
                raise ValueError(f"an exchange is 3 numbers, got {back!r:.40}")
            sent_ms, back_ms, resolution_ms = (_milliseconds(value) for value in back)
            if not 0.0 < resolution_ms <= COARSEST_MS:
                raise ValueError(f"a page's clock is fine to 0 to {COARSEST_MS:g} ms, got {resolution_ms}")
            if (there := self._open.pop((page, sent_ms), None)) is not None:
                fine_ns = math.ceil(resolution_ms * NS_PER_MS)
                self._exchanges.append((page, _ns(sent_ms), *there, _ns(back_ms), fine_ns))
        if (publication := said.get("publication")) is not None:
            if not isinstance(publication, int) or not 0 <= publication < 1 << 53:
                raise ValueError(f"a publication is a whole number from 0, got {publication!r:.40}")
            self._shown.append((page, publication, _ns(_milliseconds(said.get("shown_ms")))))

    def save(self, path: Path) -> None:
        """Write it all, whole or not at all.

        Raises:
            DisplayError: It cannot be written.
        """
        partial = path.with_name(path.name + ".partial")
        try:
            with partial.open("wb") as file:
                np.savez(
                    file,
                    frames=np.array(self._frames, np.int64).reshape(-1, 4),
                    shown=np.array(self._shown, np.int64).reshape(-1, 3),
                    exchanges=np.array(self._exchanges, np.int64).reshape(-1, 6),
                )
            os.replace(partial, path)
        except OSError as error:
            raise DisplayError(
                f"--shown needs a file that can be written, got {path}: {error.strerror}; choose another"
            ) from error


def _milliseconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e13:
        raise ValueError(f"a page's time is a number of ms from 0, got {value!r:.40}")
    return float(value)


def _ns(milliseconds: float) -> int:
    return round(milliseconds * NS_PER_MS)


@dataclass(frozen=True)
class ShownFrames:
    """Frames that a page drew, one row each, in the clock of the viewer's server.

    Args:
        sequence: (n,) int64 the source's frame numbers, rising.
        due_ns: (n,) int64 when each was due.
        received_ns: (n,) int64 when the viewer's relay received it.
        shown_ns: (n,) int64 when the page had drawn it, at the end of its requestAnimationFrame.
        uncertainty_ns: (n,) float64 the true `shown_ns` is within this.
        received: Frames that the relay received, drawn or not.
        exchanges: From how many exchanges the page's clock is known.
    """

    sequence: np.ndarray
    due_ns: np.ndarray
    received_ns: np.ndarray
    shown_ns: np.ndarray
    uncertainty_ns: np.ndarray
    received: int
    exchanges: int

    def only(self, first: int, end: int) -> "ShownFrames":
        """Those with sequence numbers from `first` to below `end`; what was received is not counted anew."""
        rows = (self.sequence >= first) & (self.sequence < end)
        return ShownFrames(
            self.sequence[rows],
            self.due_ns[rows],
            self.received_ns[rows],
            self.shown_ns[rows],
            self.uncertainty_ns[rows],
            self.received,
            self.exchanges,
        )

    def stage_ms(self) -> np.ndarray:
        """(n,) from the relay's receipt until it was drawn."""
        return np.asarray((self.shown_ns - self.received_ns) / NS_PER_MS)

    def latency_ms(self) -> np.ndarray:
        """(n,) from when a frame was due until it was drawn."""
        return np.asarray((self.shown_ns - self.due_ns) / NS_PER_MS)

    @property
    def uncertainty_ms(self) -> float | None:
        """The largest; None without a frame."""
        return float(self.uncertainty_ns.max()) / NS_PER_MS if self.uncertainty_ns.size else None


def read_shown(path: Path) -> ShownFrames:
    """Read what a server wrote, and bring every page's stamps into the server's clock.

    Raises:
        DisplayError: Not written, no page drew a frame, or no page's clock is known.
    """
    try:
        with np.load(path, allow_pickle=False) as stored:
            frames, shown, exchanges = stored["frames"], stored["shown"], stored["exchanges"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise DisplayError(
            f"needed what the viewer's server wrote of its pages, got {path}: {type(error).__name__}; measure again"
        ) from error
    if not shown.size:
        raise DisplayError(
            "needed a page that draws frames, got none; is the browser open, and its page in front?"
        )
    parts = []
    used, why = 0, ""
    for page in np.unique(shown[:, 0]).tolist():
        own = exchanges[exchanges[:, 0] == page]
        try:
            estimate, fine_ns = _page_clock(own)
        except CalibrationError as error:
            why = str(error)
            continue
        used += len(own)
        parts.append(_in_server_clock(shown[shown[:, 0] == page], frames, estimate, fine_ns))
    if not parts:
        raise DisplayError(f"needed the clock of a page, got {why}; measure for longer")
    table = np.concatenate([part[0] for part in parts])
    doubt = np.concatenate([part[1] for part in parts])
    order = np.argsort(table[:, 0], kind="stable")
    # A frame is drawn once; of several pages the first one counts.
    order = order[np.unique(table[order, 0], return_index=True)[1]]
    sequence, due, received, drawn = table[order].T
    return ShownFrames(sequence, due, received, drawn, doubt[order], received=len(frames), exchanges=used)


def _page_clock(exchanges: np.ndarray) -> tuple[ClockEstimate, int]:
    """The server's clock against the page's, and how coarse the page's is.

    Args:
        exchanges: (n, 6) page, t1, t2, t3, t4 in ns, and the resolution of t1 and t4.
    """
    fine_ns = int(exchanges[:, 5].max()) if len(exchanges) else 0
    stamps = exchanges[:, 1:5].copy()
    # A browser rounds its clock, and shifts it at random within its resolution: the true times lie somewhere around.
    stamps[:, 0] -= fine_ns
    stamps[:, 3] += fine_ns
    return estimate_clock(stamps), fine_ns


def _in_server_clock(
    shown: np.ndarray, frames: np.ndarray, estimate: ClockEstimate, fine_ns: int
) -> tuple[np.ndarray, np.ndarray]:
    """(n, 4) sequence, due, received and shown in ns, and (n,) their uncertainty, of the frames that the relay knows."""
    _, at_frame, at_shown = np.intersect1d(frames[:, 0], shown[:, 1], return_indices=True)
    drawn_ns = shown[at_shown, 2]
    away_s = (drawn_ns - estimate.reference_ns) / 1e9
    rest_ns = estimate.rest_ns + 1e3 * estimate.drift_ppm * away_s
    there_ns = drawn_ns + estimate.base_ns + np.round(rest_ns).astype(np.int64)
    doubt_ns = np.array([estimate.offset_at(int(stamp))[1] for stamp in drawn_ns]) + fine_ns
    return np.column_stack([frames[at_frame, 1:4], there_ns]), doubt_ns


def without_doubtful(summary: dict[str, float | int | None], uncertainty_ms: float | None) -> dict[str, Any]:
    """A summary in which no number stands that is smaller than its uncertainty.

    Args:
        summary: As `summarize_ms` makes it.
        uncertainty_ms: Of each of its samples, at most.
    """
    if uncertainty_ms is None:
        return dict(summary)

    def told(name: str, value: float | int | None) -> float | int | None:
        return None if name in DOUBTED and value is not None and value < uncertainty_ms else value

    return {name: told(name, value) for name, value in summary.items()}
