"""What codes in captured pictures come to, on captures whose truth is known."""

import numpy as np
import pytest

from bench.errors import BenchError
from bench.glass_codes import (
    code_period_ms,
    copy_column,
    difference_ms,
    only_frames,
    seen_frames,
    shows_two,
)
from bench.glass_watch import ABSENT, REFUSED, Captures
from calib.target import FRAME_BITS, TIME_BITS

MS = 1_000_000
PERIOD_MS = 40.0
START_NS = 5_000_000_000


def filmed(
    latency_ms: float,
    *,
    interval_ms: float = 7.0,
    frames: int = 40,
    first: int = 0,
    start_ns: int = START_NS,
    original: bool = False,
    takes_ms: float = 0.5,
) -> Captures:
    """A screen that shows each frame so long after it was due, filmed at an even pace; beside it the original, if asked for."""
    end_ns = start_ns + round((frames * PERIOD_MS + latency_ms) * MS)
    began = np.arange(start_ns + round((latency_ms + 1.0) * MS), end_ns, round(interval_ms * MS))
    stamp = began + round(takes_ms * MS)

    def shown(late_ms: float) -> tuple[np.ndarray, np.ndarray]:
        number = ((stamp - start_ns) / MS - late_ms) // PERIOD_MS
        due_us = start_ns // 1000 + (number * PERIOD_MS * 1e3).astype(np.int64)
        return (first + number.astype(np.int64)) % (1 << FRAME_BITS), due_us % (1 << TIME_BITS)

    frame, time_us = np.full((stamp.size, 2), ABSENT), np.zeros((stamp.size, 2), np.int64)
    frame[:, 0], time_us[:, 0] = shown(latency_ms)
    if original:
        frame[:, 1], time_us[:, 1] = shown(0.0)
    return Captures(began, stamp, frame, time_us)


@pytest.mark.parametrize("latency_ms", [3.0, 55.5, 250.0], ids=lambda value: f"{value:g} ms")
@pytest.mark.parametrize("interval_ms", [1.0, 7.0, 16.7], ids=lambda value: f"every {value:g} ms")
def test_the_truth_lies_between_the_bounds_of_every_frame(latency_ms: float, interval_ms: float) -> None:
    seen = seen_frames(filmed(latency_ms, interval_ms=interval_ms))
    assert seen.number.tolist() == list(range(1, 40))
    assert (seen.not_before_ms() <= latency_ms).all()
    assert (seen.seen_ms() >= latency_ms).all()
    assert (seen.seen_ms() - seen.not_before_ms() <= interval_ms + 0.5 + 1e-6).all()


def test_a_refused_capture_widens_the_bounds_and_is_counted() -> None:
    captures = filmed(55.5)
    seen = seen_frames(captures)
    row = int(np.flatnonzero(captures.stamp_ns == seen.seen_ns[5])[0])
    captures.frame[row, 0] = REFUSED  # torn: the frame may have been partly there
    again = seen_frames(captures)
    assert again.refused == 1
    assert again.seen_ms()[5] == seen.seen_ms()[5] + 7.0
    assert again.not_before_ms()[5] == seen.not_before_ms()[5]


def test_a_frame_that_comes_back_is_not_seen_anew() -> None:
    captures = filmed(55.5)
    row = int(np.flatnonzero(captures.frame[:, 0] == 9)[2])
    captures.frame[row, 0], captures.time_us[row, 0] = 8, captures.time_us[row, 0] - 40_000
    assert seen_frames(captures).number.tolist() == list(range(1, 40))


def test_frames_that_were_never_seen_are_missing() -> None:
    captures = filmed(55.5)
    keep = captures.frame[:, 0] != 20
    fewer = Captures(*(getattr(captures, name)[keep] for name in Captures.__dataclass_fields__))
    seen = seen_frames(fewer)
    assert 20 not in seen.number
    assert seen.seen_ms().max() < 70.0


def test_numbers_and_times_go_on_where_the_code_begins_again() -> None:
    # Frame numbers turn over at 2^24, times at 2^40 us.
    start_ns = ((1 << TIME_BITS) - 600_000) * 1000
    seen = seen_frames(filmed(55.5, first=(1 << FRAME_BITS) - 10, start_ns=start_ns))
    assert np.diff(seen.number).tolist() == [1] * 38
    assert (seen.seen_ms() >= 55.5).all()
    assert (seen.seen_ms() <= 63.0).all()


def test_only_the_frames_that_count_are_counted() -> None:
    captures = filmed(55.5)
    inside = int(np.flatnonzero(captures.frame[:, 0] == 15)[2])
    captures.frame[3, 0] = captures.frame[inside, 0] = REFUSED
    chosen = only_frames(seen_frames(captures), captures, 10, 20)
    assert chosen.number.tolist() == list(range(10, 20))
    assert chosen.refused == 1
    assert chosen.captures < captures.stamp_ns.size / 3


def test_codes_of_another_host_are_refused() -> None:
    captures = filmed(55.5)
    captures.time_us[:, 0] -= 3_600_000_000
    with pytest.raises(
        BenchError, match="3600 s away from this host's clock, so another host draws the target"
    ):
        seen_frames(captures)


@pytest.mark.parametrize("latency_ms", [25.0, 55.5, 130.0], ids=lambda value: f"{value:g} ms")
@pytest.mark.parametrize("copy_first", [True, False], ids=["copy on the left", "copy on the right"])
def test_the_mean_difference_of_two_codes_is_the_latency(latency_ms: float, copy_first: bool) -> None:
    captures = filmed(latency_ms, original=True, frames=1500)
    if not copy_first:
        captures = Captures(
            captures.began_ns, captures.stamp_ns, captures.frame[:, ::-1], captures.time_us[:, ::-1]
        )
    assert shows_two(captures)
    assert copy_column(captures) == (0 if copy_first else 1)
    found = difference_ms(captures)
    # One of each frame, all of them whole periods; 1,500 draws of 0 or 40 ms leave a standard error of half a millisecond.
    assert 1490 < found.size <= 1500
    assert set(np.round(found / PERIOD_MS, 6)) <= {latency_ms // PERIOD_MS, latency_ms // PERIOD_MS + 1}
    assert found.mean() == pytest.approx(latency_ms, abs=2.0)


def test_the_period_is_read_off_the_codes() -> None:
    assert code_period_ms(filmed(55.5)) == PERIOD_MS
    assert not shows_two(filmed(55.5))
