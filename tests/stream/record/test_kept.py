"""The last seconds of a stream in memory: what is held, how much of it, and what a recording of it says."""

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

import contrastream
from calib.patient_facts import levels_name
from stream.frame import FrameFormat, Photometric, State
from stream.record.dicom import write_live
from stream.record.kept import SPARE, KeptFrames
from stream.recording import GRANTS, Recording
from stream.site_engine import grey_tables
from stream.sources.options import SourceOptions
from stream.timing import NS_PER_MS, NS_PER_S

from .conftest import BEGIN_NS, FORMAT, message_of

STEP_NS = 50 * NS_PER_MS
FRAME_BYTES = 2 * FORMAT.pixels


def keep(kept: KeptFrames, numbers: range, **more: Any) -> int:
    """Give it frames, 50 ms apart; returns when the last one came."""
    for number in numbers:
        due_ns = BEGIN_NS + number * STEP_NS
        kept.add(message_of(number, due_ns, **more), due_ns, 0)
    return BEGIN_NS + numbers[-1] * STEP_NS


def numbers(held: Any) -> list[int]:
    return [place.header.sequence for place in held.places]


def test_the_last_seconds_are_held_and_no_more() -> None:
    kept = KeptFrames(1.0, 10**9)
    now_ns = keep(kept, range(50))
    assert numbers(kept.take(now_ns)) == list(range(29, 50))
    assert kept.held_s(now_ns) == 1.0
    assert numbers(kept.take(now_ns + NS_PER_S // 2)) == list(range(39, 50))
    assert kept.take(now_ns + 2 * NS_PER_S) is None, (
        "what is older than asked for is no part of any recording"
    )
    assert kept.held_s(now_ns + 2 * NS_PER_S) == 0.0


def test_memory_is_bounded_whatever_is_asked_for_and_while_it_is_written() -> None:
    kept = KeptFrames(600.0, 10 * FRAME_BYTES + 5)
    assert kept.capacity(FORMAT, 20.0) == 10
    assert KeptFrames(2.0, 10**9).capacity(FORMAT, 20.0) == 40 + SPARE
    now_ns = keep(kept, range(30))
    held = kept.take(now_ns)
    assert held is not None
    assert (numbers(held), held.full, held.bytes) == (list(range(20, 30)), True, 10 * FRAME_BYTES)
    held.frame(3)  # three were read, and may be written over
    now_ns = keep(kept, range(30, 36))
    for place in range(3, 10):
        expected = message_of(20 + place, 0).live
        np.testing.assert_array_equal(held.frame(place).message.live, expected)
    later = kept.take(now_ns)
    assert later is not None
    assert numbers(later) == list(range(23, 33)), "what found no room is left out"
    held.close()
    later.close()
    keep(kept, range(36, 50))
    after = kept.take(BEGIN_NS + 50 * STEP_NS)
    assert after is not None
    assert numbers(after) == list(range(40, 50))
    assert after.segment.lost == 0


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"frame_format": FrameFormat(64, 128, 12)}, "the frames changed from 96 x 128 to 64 x 128 0 s ago"),
        ({"stream": bytes(range(16))}, "the run was started again 0 s ago"),
    ],
    ids=["size", "run"],
)
def test_a_recording_holds_frames_of_one_kind_and_no_repeats(more: dict[str, Any], said: str) -> None:
    kept = KeptFrames(10.0, 10**9)
    keep(kept, range(10))
    keep(kept, range(10, 14), **more)
    keep(kept, range(14, 18), state=State.UNCHANGED, **more)
    held = kept.take(keep(kept, range(18, 20), **more))
    assert held is not None
    assert (numbers(held), held.cut) == ([10, 11, 12, 13, 18, 19], said)
    assert held.segment.lost == 0
    assert held.longest_gap_s == pytest.approx(0.25)


def test_what_is_written_is_what_came_and_is_named_alike_by_its_grey_levels(tmp_path: Path) -> None:
    inverted = FrameFormat(96, 128, 12, Photometric.MONOCHROME1, 1300.0, 900.0)
    kept = KeptFrames(60.0, 10**9)
    for number in range(12):
        due_ns = BEGIN_NS + number * STEP_NS
        kept.add(
            message_of(number, due_ns, frame_format=inverted, rate_hz=0.0), due_ns, 3 * number, (30.0, -20.0)
        )
    held = kept.take(BEGIN_NS + 12 * STEP_NS)
    assert held is not None
    write_live(tmp_path / "k.dcm", held.segment, lambda: None, held.angles_deg)
    made = pydicom.dcmread(tmp_path / "k.dcm")
    live = [message_of(number, 0, frame_format=inverted).live for number in range(12)]
    np.testing.assert_array_equal(made.pixel_array, 4095 - np.stack(live))
    assert made.ImageComments.endswith("33 frames did not reach the recorder.")
    with Recording(
        str(tmp_path / "k.dcm"), SourceOptions(), frames=None, slots=GRANTS + 2, stopped=lambda: False
    ) as read:
        assert (read.rate_hz, read.angles_deg) == (20.0, (30.0, -20.0))
        assert levels_name(grey_tables(read.format, None)[0]) == levels_name(grey_tables(inverted, None)[0])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--keep-last", "60"], "keeping needs --keep-last SECONDS and --keep-in DIR, got no --keep-in"),
        (["--keep-in", "{}"], "got no --keep-last; give --keep-last SECONDS too"),
        (["--keep-last", "0.5", "--keep-in", "{}"], "--keep-last must be 1 to 600 seconds, got 0.5"),
        (["--keep-last", "nan", "--keep-in", "{}"], "--keep-last must be 1 to 600 seconds, got nan"),
        (["--keep-last", "60", "--keep-in", "{}/none"], "none: No such file or directory; make it first"),
        (
            ["--keep-last", "60", "--keep-in", "/proc"],
            "--keep-in needs a folder that can be written, got /proc",
        ),
        (["--keep-last", "60", "--keep-in", "{}", "--keep-memory", "0"], "must be 0.01 to 1024 GB, got 0"),
    ],
    ids=["no folder", "no seconds", "short", "nan", "no such folder", "not writable", "no memory"],
)
def test_what_cannot_be_kept_is_refused_at_the_start(
    options: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [option.format(tmp_path) for option in options]
    for command in (["view"], ["run", "phantom", "--web", "--no-audit", "--engine", "off"]):
        assert contrastream.main([*command, *given]) == 2
        assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_without_a_viewer_nothing_is_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["--keep-last", "60", "--keep-in", str(tmp_path)]
    assert contrastream.main(["run", "phantom", "--no-audit", "--engine", "off", *asked]) == 2
    assert "--keep-last is of the web viewer; give --web too" in capsys.readouterr().err
