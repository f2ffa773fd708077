"""The capture: whole frames come back, and what a killed recorder or a full disk left is said."""

import contextlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from stream.errors import RecordError
from stream.frame import FrameFormat, State
from stream.record.capture import Capture, CaptureWriter
from stream.record.segment import segments
from stream.timing import NS_PER_MS

from .conftest import BEGIN_NS, ENGINE, FORMAT, message_of

Captured = Callable[..., Path]


def test_what_was_captured_comes_back_bit_for_bit(captured: Captured) -> None:
    capture = Capture(captured())
    assert len(capture) == 8
    assert capture.cut_off is None
    for number, frame in enumerate(capture):
        was = message_of(number, BEGIN_NS)
        np.testing.assert_array_equal(frame.message.live, was.live)
        assert frame.message.header.sequence == number
        assert frame.received_ns == frame.message.header.stamps_ns[0] + 3 * NS_PER_MS
        assert (frame.message.synthetic is None) == (number == 2)


def test_a_recording_that_was_cut_off_anywhere_keeps_its_whole_frames_and_says_so(captured: Captured) -> None:
    path = captured()
    done = path.read_bytes()
    whole = done[: done.rindex(b"DONE")]
    last = len(whole) - whole.rindex(b"FRME")
    for cut in (1, 20, 5000, last - 20, last - 1):
        path.write_bytes(whole[:-cut])
        capture = Capture(path)
        assert len(capture) == 7
        assert capture.cut_off is not None
        assert "after its frame 7 are no whole frame" in capture.cut_off
        assert [frame.message.header.sequence for frame in capture] == list(range(7))


def test_a_recorder_that_was_killed_between_two_frames_left_no_end_which_is_said(captured: Captured) -> None:
    path = captured()
    data = path.read_bytes()
    for end in (data.rindex(b"DONE"), len(data) - 1):
        path.write_bytes(data[:end])
        capture = Capture(path)
        assert len(capture) == 8
        assert capture.cut_off is not None
        assert "the recording was cut off" in capture.cut_off


def test_each_publisher_s_frames_are_told_with_the_engines_that_drew_them(tmp_path: Path) -> None:
    """A run that was started again with another model ends no recording."""
    first, second = bytes(16), b"x" * 16
    writer = CaptureWriter(tmp_path / "e.capture")

    def add(number: int, stream: bytes) -> None:
        writer.add(message_of(number, BEGIN_NS + number * 50 * NS_PER_MS, stream=stream), BEGIN_NS)

    def draws(model: str, stream: bytes, restarts: int) -> None:
        said = {**ENGINE, "model_sha256": model, "restarts": restarts, "gpu": None}
        writer.add_engine(said, BEGIN_NS, stream=stream.hex())

    add(0, first)
    draws("aa", first, 0)
    add(1, first)
    draws("aa", first, 0)  # a minute later
    add(2, first)
    draws("bb", first, 1)
    add(3, first)
    add(0, second)
    draws("cc", second, 0)
    writer.finish(BEGIN_NS)
    one, two = segments(Capture(writer.path))
    assert [(said["from_frame"], said["model_sha256"]) for said in one.engines] == [(0, "aa"), (3, "bb")]
    assert [(said["from_frame"], said["model_sha256"]) for said in two.engines] == [(0, "cc")]
    assert [(said["after_frame"], said["restarts"]) for said in one.engine_by_minute] == [
        (0, 0),
        (1, 0),
        (2, 1),
    ]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10_000), value=st.integers(0, 255), cut=st.integers(0, 10_000))
def test_hostile_bytes_are_a_sentence_or_whole_frames(
    captured: Captured, tmp_path: Path, at: int, value: int, cut: int
) -> None:
    path = tmp_path / "h.capture"
    if not path.exists():
        captured(2, "h.capture", frame_format=FrameFormat(64, 64))
        path.with_suffix(".keep").write_bytes(path.read_bytes())
    data = bytearray(path.with_suffix(".keep").read_bytes())
    data[at % len(data)] = value
    path.write_bytes(data[: len(data) - cut % len(data)])
    # Anything but a RecordError is a fault.
    with contextlib.suppress(RecordError):
        for frame in Capture(path):
            assert frame.message.live.shape == (64, 64)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "does not begin like one", id="empty"),
        pytest.param(b"DICM" * 100, "does not begin like one", id="something else"),
        pytest.param(b"CSCAPTR1\x02\x00\x00\x00{}", "does not begin like one", id="no time"),
        pytest.param(b"CSCAPTR1\xff\xff\xff\xff{}", "does not begin like one", id="a long head"),
    ],
)
def test_what_is_no_capture_is_refused(tmp_path: Path, data: bytes, said: str) -> None:
    path = tmp_path / "x.capture"
    path.write_bytes(data)
    with pytest.raises(RecordError, match=said):
        Capture(path)


def test_a_capture_without_a_frame_and_a_missing_one_are_refused(tmp_path: Path) -> None:
    CaptureWriter(tmp_path / "none.capture").close()
    with pytest.raises(RecordError, match="needed at least one whole frame"):
        Capture(tmp_path / "none.capture")
    with pytest.raises(RecordError, match="No such file"):
        Capture(tmp_path / "missing.capture")


def test_what_an_earlier_recording_left_is_not_overwritten(captured: Captured) -> None:
    path = captured()
    before = path.read_bytes()
    with pytest.raises(RecordError, match="which an earlier recording left"):
        CaptureWriter(path)
    assert path.read_bytes() == before


def test_another_size_publisher_or_time_begins_another_segment(tmp_path: Path) -> None:
    writer = CaptureWriter(tmp_path / "s.capture")
    due_ns = BEGIN_NS
    for number, more in enumerate(
        [{}, {}, {"frame_format": FrameFormat(64, 64)}, {}, {"stream": b"x" * 16}, {"stream": b"x" * 16}]
    ):
        due_ns += 50 * NS_PER_MS
        writer.add(message_of(number, due_ns, **more), due_ns)
    writer.add(message_of(6, BEGIN_NS, stream=b"x" * 16), due_ns)
    writer.close()
    found = segments(Capture(writer.path))
    assert [(segment.first, len(segment)) for segment in found] == [(0, 2), (2, 1), (3, 1), (4, 2), (6, 1)]


def test_a_capture_says_when_the_picture_was_not_live(tmp_path: Path) -> None:
    writer = CaptureWriter(tmp_path / "n.capture")
    writer.add(message_of(0, BEGIN_NS), BEGIN_NS)
    writer.add_stop(State.STALE, 612.34, BEGIN_NS + 612 * NS_PER_MS)
    writer.add_stop(State.NO_SIGNAL, 1500.0, BEGIN_NS + 1500 * NS_PER_MS)
    writer.add(message_of(1, BEGIN_NS + 2000 * NS_PER_MS, stream=b"x" * 16), BEGIN_NS)
    writer.close()
    first, second = segments(Capture(writer.path))
    assert first.stops == [
        {"after_frame": 0, "state": "STALE", "age_ms": 612.3},
        {"after_frame": 0, "state": "NO_SIGNAL", "age_ms": 1500.0},
    ]
    assert second.stops == []


def test_a_segment_knows_its_times_and_what_was_lost(captured: Captured, tmp_path: Path) -> None:
    (segment,) = segments(Capture(captured()))
    assert segment.times_ms() == [0.0, 50.0, 100.0, 150.0, 200.0, 400.0, 450.0, 500.0]
    assert segment.synthetic == (0, 1, 3, 4, 5, 6, 7)
    assert segment.lost == 0
    assert segment.frame_format == FORMAT
    writer = CaptureWriter(tmp_path / "l.capture")
    for number in (0, 3, 4):
        writer.add(message_of(number, BEGIN_NS + number * 50 * NS_PER_MS, rate_hz=0.0), 0)
    writer.close()
    (lossy,) = segments(Capture(writer.path))
    assert lossy.lost == 2
    assert lossy.rate_hz == pytest.approx(1000 / 150)
    assert lossy.headers[0].state is State.SYNTHETIC
