"""When the frames of a cine are due."""

import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from stream.sources.cine_timing import read_timing


def header(**elements: object) -> Dataset:
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def stamped(*stamps: str, keyword: str = "FrameAcquisitionDateTime") -> Dataset:
    """An Enhanced object's header with one stamp per frame."""
    groups = []
    for stamp in stamps:
        content = Dataset()
        setattr(content, keyword, stamp)
        group = Dataset()
        group.FrameContentSequence = Sequence([content])
        groups.append(group)
    return header(PerFrameFunctionalGroupsSequence=Sequence(groups))


@pytest.mark.parametrize(
    ("elements", "rate_hz"),
    [
        ({"FrameTime": "40"}, 25.0),
        ({"FrameTime": "66.6667"}, 14.9999925),
        ({"CineRate": "30"}, 30.0),
        ({"RecommendedDisplayFrameRate": "10"}, 10.0),
        ({"FrameTime": "40", "CineRate": "30", "RecommendedDisplayFrameRate": "10"}, 25.0),
        ({"CineRate": "30", "RecommendedDisplayFrameRate": "10"}, 30.0),
        ({}, None),
    ],
    ids=[
        "frame time",
        "66.7 ms",
        "cine rate",
        "display rate",
        "frame time first",
        "cine rate second",
        "nothing",
    ],
)
def test_the_most_exact_statement_is_taken(elements, rate_hz):
    timing = read_timing(header(**elements), frames=4)
    assert timing.rate_hz == (None if rate_hz is None else pytest.approx(rate_hz))
    assert timing.interval_ms(2) == (None if rate_hz is None else pytest.approx(1000 / rate_hz))


def test_a_display_rate_is_called_what_it_is():
    timing = read_timing(header(RecommendedDisplayFrameRate="10"), frames=4)
    assert any("recommended display rate" in note for note in timing.notes)


def test_a_frame_time_vector_gives_each_step():
    timing = read_timing(header(FrameTimeVector=["0", "40", "60", "40", "200"]), frames=5)
    assert [timing.interval_ms(index) for index in range(1, 5)] == [40.0, 60.0, 40.0, 200.0]
    assert timing.rate_hz == pytest.approx(20)
    assert timing.interval_ms(0) == pytest.approx(50)  # back to the first frame: the median step


def test_a_frame_time_vector_may_leave_out_its_leading_zero():
    timing = read_timing(header(FrameTimeVector=["40", "60"]), frames=3)
    assert [timing.interval_ms(index) for index in (1, 2)] == [40.0, 60.0]


def test_the_frame_increment_pointer_chooses_between_vector_and_frame_time():
    both = {"FrameTimeVector": ["0", "40", "60"], "FrameTime": "100"}
    to_time = read_timing(header(**both, FrameIncrementPointer=0x00181063), frames=3)
    to_vector = read_timing(header(**both, FrameIncrementPointer=0x00181065), frames=3)
    assert (to_time.rate_hz, to_time.intervals_ms) == (10.0, None)
    assert to_vector.intervals_ms == (40.0, 60.0)


@pytest.mark.parametrize(
    "vector",
    [["0", "40"], ["0", "40", "-1", "40"], ["0", "0", "40", "40"], ["0", "40", "40", "40", "40", "40"]],
    ids=["short", "negative", "zero step", "long"],
)
def test_a_vector_that_cannot_be_followed_is_passed_over_with_a_note(vector):
    timing = read_timing(header(FrameTimeVector=vector, FrameTime="50"), frames=4)
    assert (timing.rate_hz, timing.intervals_ms) == (20.0, None)
    assert any("frame time vector cannot be followed" in note for note in timing.notes)


@pytest.mark.parametrize("value", ["0", "-40", "nan"])
def test_a_frame_time_that_is_no_duration_is_passed_over_with_a_note(value):
    dataset = Dataset()
    with pydicom.config.disable_value_validation():
        dataset.add_new(0x00181063, "DS", value)
    dataset.CineRate = "30"
    timing = read_timing(dataset, frames=4)
    assert timing.rate_hz == 30.0
    assert any("frame time is not above 0" in note for note in timing.notes)


@pytest.mark.parametrize("keyword", ["FrameAcquisitionDateTime", "FrameReferenceDateTime"])
def test_frame_stamps_of_an_enhanced_object_give_each_step(keyword):
    dataset = stamped("20200101235959.900", "20200102000000.000", "20200102000000.250", keyword=keyword)
    timing = read_timing(dataset, frames=3)
    assert timing.intervals_ms == (100.0, 250.0)
    assert timing.rate_hz == pytest.approx(1000 / 175)


def test_frame_stamps_that_do_not_ascend_are_passed_over_with_a_note():
    timing = read_timing(stamped("20200101000001", "20200101000000"), frames=2)
    assert timing.rate_hz is None
    assert any("do not ascend" in note for note in timing.notes)


def test_frame_stamps_of_some_frames_only_are_no_timing():
    assert read_timing(stamped("20200101000000.0", "20200101000000.5"), frames=3).rate_hz is None
