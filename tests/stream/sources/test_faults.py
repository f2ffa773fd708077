"""`--fault`: what it takes, what it refuses, and what comes out of a source that it wraps."""

import math

import numpy as np
import pytest

from stream.errors import SourceError, SourceGone
from stream.frame import FrameFormat, Photometric
from stream.sources.faults import Fault, parse_faults
from stream.sources.faulty import FaultySource
from stream.sources.source import FormatChanged, Source, SourceFrame


class Counting(Source):
    """Frame n is n % 250 + 1 in every pixel; a recording of `frames`, or without end."""

    kind = "counting"

    def __init__(self, frames: int | None = None, photometric: Photometric = Photometric.MONOCHROME2) -> None:
        self.format = FrameFormat(70, 90, 8, photometric)
        self.rate_hz = 10.0
        self.frame_count = frames
        self.number = 0
        self.closed = False

    def read(self, out: np.ndarray) -> SourceFrame | None:
        if self.number == self.frame_count:
            return None
        out[:] = self.number % 250 + 1
        self.number += 1
        return SourceFrame()

    def close(self) -> None:
        self.closed = True


def faulty(spec: str, *, seed: int = 1, rate_hz: float | None = 10.0, **more: object) -> FaultySource:
    return FaultySource(Counting(), spec, seed, rate_hz=rate_hz, **more)


def read(source: Source, count: int) -> tuple[list[int], list[SourceFrame]]:
    """The grey levels of so many frames, and what was said of them."""
    levels, said = [], []
    for _ in range(count):
        out = np.zeros((source.format.rows, source.format.columns), np.uint8)
        got = source.read(out)
        if got is None:
            break
        assert (out == out[0, 0]).all()
        levels.append(int(out[0, 0]))
        said.append(got)
    return levels, said


def test_a_spec_is_read() -> None:
    text = "drop=0.1,jitter=20ms,freeze@100:3s,black@200,size@300:320x256,hold@50:2s,unplug@400:0.5s,end@500,hang@200"
    kinds = ["drop", "jitter", "freeze", "black", "size", "hold", "unplug", "end", "hang"]
    faults = parse_faults(text)
    assert [fault.kind for fault in faults] == kinds
    assert faults[1] == Fault("jitter", "jitter=20ms", duration_s=0.02)
    assert faults[4] == Fault("size", "size@300:320x256", 300, columns=320, rows=256)
    assert faults[6].duration_s == 0.5
    assert faults[8].duration_s == math.inf


@pytest.mark.parametrize(
    ("item", "needed"),
    [
        ("", "one of drop=, jitter="),
        ("freeze", "one of drop="),
        ("frieze@3:1s", "one of drop="),
        ("drop@3", "one of drop="),
        ("drop=1", "a probability above 0 and below 1"),
        ("drop=nan", "a probability above 0 and below 1"),
        ("drop=", "a probability above 0 and below 1"),
        ("freeze=3s", "drop or jitter before the ="),
        ("jitter=20", "a time such as 20ms after jitter="),
        ("jitter=-1ms", "a time such as 20ms after jitter="),
        ("freeze@0:1s", "a frame number from 1 after freeze@"),
        ("freeze@-1:1s", "a frame number from 1 after freeze@"),
        ("freeze@²:1s", "a frame number from 1 after freeze@"),
        ("freeze@5", "a time such as 3s after freeze@5:"),
        ("freeze@5:", "a time such as 3s after freeze@5:"),
        ("freeze@5:0s", "above 0, at most an hour"),
        ("hold@5:2h", "a time such as 2s after hold@5:"),
        ("hang@5:99999s", "at most an hour"),
        ("size@5:320", "columns x rows from 64x64 to 2048x2048"),
        ("size@5:8x8", "columns x rows from 64x64 to 2048x2048"),
        ("size@5:99999x256", "columns x rows from 64x64 to 2048x2048"),
        ("end@5:1s", "nothing after end@5"),
        ("crash@5:", "nothing after crash@5"),
    ],
)
def test_an_item_that_is_none_is_named_with_what_was_needed(item: str, needed: str) -> None:
    with pytest.raises(ValueError, match="--fault needed") as caught:
        parse_faults(f"black@7,{item}")
    assert needed in str(caught.value)
    assert f"got {item!r}" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_share_is_given_once() -> None:
    with pytest.raises(ValueError, match="takes drop once"):
        parse_faults("drop=0.1,drop=0.2")


def test_frames_are_lost_by_the_seed_and_counted() -> None:
    levels, said = read(faulty("drop=0.3"), 60)
    again, _ = read(faulty("drop=0.3"), 60)
    other, _ = read(faulty("drop=0.3", seed=2), 60)
    assert levels == again != other
    lost = sum(frame.lost for frame in said)
    assert levels[-1] == 60 + lost
    assert 10 <= lost <= 45


def test_the_draws_do_not_depend_on_where_a_source_process_began() -> None:
    whole = faulty("drop=0.3,jitter=20ms")
    numbers, late = [], []
    number = -1
    for frame in read(whole, 40)[1]:
        number += 1 + frame.lost
        numbers.append(number)
        late.append(frame.late_ns)
    begin = numbers[10]
    _, said = read(faulty("drop=0.3,jitter=20ms", first=begin), 20)
    assert [frame.late_ns for frame in said] == late[10:30]
    assert all(0 <= each < 20e6 for each in late)
    assert len(set(late)) > 30


def test_a_frozen_source_gives_nothing_for_a_while_and_says_what_was_lost() -> None:
    levels, said = read(faulty("freeze@3:0.5s"), 6)
    assert levels == [1, 2, 3, 9, 10, 11]
    assert [frame.lost for frame in said] == [0, 0, 0, 5, 0, 0]


def test_a_held_image_is_given_again_and_the_time_goes_on() -> None:
    assert read(faulty("hold@3:0.5s"), 10)[0] == [1, 2, 3, 3, 3, 3, 3, 3, 9, 10]


@pytest.mark.parametrize(("item", "dark"), [("black@2", 1), ("black@2:0.3s", 3)])
def test_black_frames_are_black_in_either_polarity(item: str, dark: int) -> None:
    assert read(faulty(item), 6)[0].count(0) == dark
    inverted = FaultySource(Counting(photometric=Photometric.MONOCHROME1), item, 0, rate_hz=10.0)
    assert read(inverted, 6)[0].count(255) == dark


def test_another_size_is_told_before_its_first_frame() -> None:
    source = faulty("size@2:80x65")
    read(source, 2)
    with pytest.raises(FormatChanged):
        read(source, 1)
    assert (source.format.rows, source.format.columns) == (65, 80)
    assert read(source, 3)[0] == [3, 4, 5]


def test_a_source_that_was_unplugged_stays_away_until_its_time_is_over() -> None:
    begun: list[tuple[int, int]] = []
    source = faulty("black@1,unplug@2:60s", tell=lambda place, ends_ns: begun.append((place, ends_ns)))
    read(source, 2)
    with pytest.raises(SourceGone, match=r"unplugged \(--fault unplug@2:60s\)"):
        read(source, 1)
    assert [place for place, _ in begun] == [0, 1]
    inner = Counting()
    with pytest.raises(SourceGone, match=r"unplugged for (59|60)\.\d s more"):
        FaultySource(inner, "black@1,unplug@2:60s", 1, rate_hz=10.0, first=2, begun=begun)
    assert inner.closed
    back = faulty("black@1,unplug@2:60s", first=2, begun=[(0, 0), (1, 1)])
    assert read(back, 3)[0] == [1, 2, 3]


def test_an_ended_source_stays_ended_even_when_looped() -> None:
    source = faulty("end@3")
    assert read(source, 9)[0] == [1, 2, 3]
    source._inner.rewind = lambda: None  # type: ignore[method-assign]
    source.rewind()
    assert read(source, 9)[0] == []
    assert not source.skip()


def test_a_fault_that_lasts_needs_a_rate() -> None:
    with pytest.raises(
        SourceError, match=r"--fault freeze@3:1s needed the source's frames per second.*--rate"
    ):
        faulty("freeze@3:1s", rate_hz=None)
    assert read(faulty("drop=0.5,end@9", rate_hz=None), 1)


def test_it_says_that_it_is_a_test() -> None:
    assert any(
        "faults are injected: end@3 (seed 1); this is a test" in note for note in faulty("end@3").notes
    )
