"""When a page drew each frame: its clock from exchanges whose truth is known, and what is refused."""

import secrets
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stream.display.relay import Viewer
from stream.display.shown import ShownFrames, ShownLog, read_shown, without_doubtful
from stream.errors import DisplayError
from stream.frame import FrameFormat, Plane, Reason, State
from stream.latency import summarize_ms
from stream.wire import Header

MS = 1_000_000
PAGE_BEGAN_NS = 77_000_000_000_000
"""When the page's clock began, on the server's."""
RECEIVED_MS, DRAWN_MS = 3.0, 9.0
"""After a frame was due."""


def header(number: int, due_ns: int, stream: bytes) -> Header:
    """Of a frame."""
    return Header(
        stream,
        number,
        number + 500,
        FrameFormat(64, 64),
        State.PASSTHROUGH,
        Reason.OFF,
        Plane.LIVE,
        stamps_ns=(due_ns, due_ns, 0, 0, due_ns),
    )


def page_ms(server_ns: float, resolution_ms: float, drift_ppm: float) -> float:
    """What a page's clock reads, as coarse as it is."""
    elapsed_ms = (server_ns - PAGE_BEGAN_NS) / MS * (1.0 + 1e-6 * drift_ppm)
    return round(elapsed_ms / resolution_ms) * resolution_ms


def filled(
    *,
    frames: int = 60,
    exchanges: int = 80,
    resolution_ms: float = 0.005,
    drift_ppm: float = 0.0,
    page: int = 1,
    log: ShownLog | None = None,
    stream: bytes | None = None,
) -> ShownLog:
    """A log of a page that draws each frame 9 ms after it was due, over a network that takes 0.1 to 2 ms either way."""
    log = log or ShownLog()
    stream = stream or secrets.token_bytes(16)
    rng = np.random.default_rng(5)
    for index in range(exchanges):
        left_ns = PAGE_BEGAN_NS + 100 * MS + index * 50 * MS
        there_ns = left_ns + round(rng.uniform(0.1, 2.0) * MS)
        gone_ns = there_ns + 30_000
        back_ns = gone_ns + round(rng.uniform(0.1, 2.0) * MS)
        sent_ms = page_ms(left_ns, resolution_ms, drift_ppm)
        log.ponged(page, sent_ms, there_ns, gone_ns)
        log.take(
            page,
            {"type": "ping", "back": [sent_ms, page_ms(back_ns, resolution_ms, drift_ppm), resolution_ms]},
        )
    for number in range(frames):
        due_ns = PAGE_BEGAN_NS + 200 * MS + number * 33 * MS
        log.received(header(number, due_ns, stream), due_ns + round(RECEIVED_MS * MS))
        if number % 10 != 7:  # some it passes over
            shown_ms = page_ms(due_ns + DRAWN_MS * MS, resolution_ms, drift_ppm)
            log.take(page, {"type": "next", "publication": number + 500, "shown_ms": shown_ms})
    return log


def read(log: ShownLog, folder: Path) -> ShownFrames:
    """Through the file."""
    log.save(folder / "shown.npz")
    return read_shown(folder / "shown.npz")


@pytest.mark.parametrize("drift_ppm", [0.0, 40.0, -200.0], ids=lambda value: f"{value:g} ppm")
@pytest.mark.parametrize("resolution_ms", [0.005, 0.1], ids=lambda value: f"{value:g} ms")
def test_the_truth_is_within_the_uncertainty(tmp_path: Path, drift_ppm: float, resolution_ms: float) -> None:
    shown = read(filled(drift_ppm=drift_ppm, resolution_ms=resolution_ms), tmp_path)
    assert shown.sequence.tolist() == [number for number in range(60) if number % 10 != 7]
    assert (shown.received, shown.exchanges) == (60, 80)
    uncertainty_ms = shown.uncertainty_ns / MS
    assert (np.abs(shown.stage_ms() - (DRAWN_MS - RECEIVED_MS)) <= uncertainty_ms).all()
    assert (np.abs(shown.latency_ms() - DRAWN_MS) <= uncertainty_ms).all()
    # The quickest exchange either way took 0.1 ms or a little more; a clock's own coarseness comes on top.
    assert shown.uncertainty_ms is not None
    assert 0.05 < shown.uncertainty_ms < 0.6 + 3 * resolution_ms


def test_only_the_frames_that_count() -> None:
    five = np.arange(5)
    shown = ShownFrames(five, five, five, five + 8 * MS, np.full(5, 1000.0), 5, 40).only(1, 3)
    assert shown.sequence.tolist() == [1, 2]
    assert shown.latency_ms().tolist() == [8.0, 8.0]


def test_no_number_stands_that_is_smaller_than_its_uncertainty() -> None:
    summary = summarize_ms(np.array([0.2, 0.4, 0.6, 3.0]))
    told = without_doubtful(summary, 0.55)
    assert told["min"] is None
    assert told["p50"] is None
    assert told["mean"] == pytest.approx(1.05)
    assert (told["max"], told["n"], told["sd"]) == (3.0, 4, summary["sd"])
    assert without_doubtful(summary, None) == summary


def test_a_page_that_was_opened_again_has_a_clock_of_its_own(tmp_path: Path) -> None:
    stream = secrets.token_bytes(16)
    log = filled(stream=stream, frames=20)
    again = filled(log=log, page=2, stream=stream, frames=40, drift_ppm=100.0)
    shown = read(again, tmp_path)
    assert shown.sequence.max() == 39
    assert np.abs(shown.latency_ms() - DRAWN_MS).max() < 0.6
    assert shown.exchanges == 160


def test_another_publisher_begins_anew(tmp_path: Path) -> None:
    log = filled(frames=30)
    shown = read(filled(log=log, frames=12, exchanges=0), tmp_path)
    assert (shown.received, shown.sequence.max()) == (12, 11)


@pytest.mark.parametrize(
    ("made", "said"),
    [
        pytest.param({"frames": 0}, "needed a page that draws frames, got none", id="no frame"),
        pytest.param({"exchanges": 5}, "needed the clock of a page, got a clock needs at least 8", id="no clock"),
    ],
)  # fmt: skip
def test_what_tells_nothing_says_why(tmp_path: Path, made: dict[str, Any], said: str) -> None:
    with pytest.raises(DisplayError, match=said):
        read(filled(**made), tmp_path)


def test_a_file_that_is_none_of_ours_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DisplayError, match=r"got /.*nothing\.npz: FileNotFoundError; measure again"):
        read_shown(tmp_path / "nothing.npz")
    with pytest.raises(DisplayError, match="--shown needs a file that can be written, got /nowhere"):
        ShownLog().save(Path("/nowhere/shown.npz"))


@pytest.mark.parametrize(
    ("message", "said"),
    [
        ('{"type": "next", "publication": -1, "shown_ms": 3}', "whole number from 0, got -1"),
        ('{"type": "next", "publication": 2.5, "shown_ms": 3}', "whole number from 0, got 2.5"),
        ('{"type": "next", "publication": 2}', "a number of ms from 0, got None"),
        ('{"type": "next", "publication": 2, "shown_ms": NaN}', "a number of ms from 0, got nan"),
        ('{"type": "ping", "sent_ms": 1, "back": 7}', "an exchange is 3 numbers, got 7"),
        ('{"type": "ping", "sent_ms": 1, "back": [1, 2, 0]}', "fine to 0 to 100 ms, got 0.0"),
        ('{"type": "ping", "sent_ms": 1, "back": [1, true, 0.1]}', "a number of ms from 0, got True"),
    ],
    ids=["negative", "half", "no time", "not a number", "no exchange", "no resolution", "a flag"],
)
def test_a_page_that_says_nonsense_is_refused(message: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Viewer(ShownLog()).asked(message, 0)
