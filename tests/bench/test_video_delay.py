"""The delay of a video path, told from the time that its pictures carry."""

import numpy as np
import pytest

from bench.errors import BenchError
from bench.video_delay import WARMUP, main, measure
from calib.target import TargetCode, draw_target
from stream.frame import FrameFormat
from stream.sources.source import Source, SourceFrame
from stream.timing import NS_PER_MS, FakeClock

HELD_MS = 40


class DelayedSource(Source):
    """Target frames that are 40 ms old when they come; every tenth is smeared, and before every fifth one was lost."""

    def __init__(self, clock: FakeClock) -> None:
        self.format = FrameFormat(120, 216)
        self._clock = clock
        self._number = 0

    def read(self, out: np.ndarray) -> SourceFrame:
        self._number += 1
        self._clock.advance_ms(33.0)
        due_ns = self._clock.now_ns() - HELD_MS * NS_PER_MS
        out[:] = draw_target(TargetCode.of(self._number, due_ns), 216)
        if self._number % 10 == 0:
            out[40:80] = 128
        return SourceFrame(stamp_ns=due_ns + 10 * NS_PER_MS, lost=int(self._number % 5 == 1))


def test_the_delay_is_the_age_of_the_code_and_smeared_frames_are_counted() -> None:
    clock = FakeClock(NS_PER_MS * 1000)
    found = measure(DelayedSource(clock), 50, clock)
    assert found["frames"] == {"read": 45, "lost": 10, "unreadable": (WARMUP + 50) // 10}
    assert found["delay_ms"]["p50"] == found["delay_ms"]["max"] == HELD_MS
    assert found["late_ms"]["max"] == HELD_MS - 10


def test_pictures_without_the_target_are_a_sentence(capsys: pytest.CaptureFixture[str]) -> None:
    class Grey(DelayedSource):
        def read(self, out: np.ndarray) -> SourceFrame:
            out[:] = 100
            return SourceFrame()

    with pytest.raises(BenchError, match="needed frames that show the target, got 31 without; send it with"):
        measure(Grey(FakeClock(0)), 1, FakeClock(0))
    assert main(["read", "rtsp://127.0.0.1:1/live"]) == 2
    assert capsys.readouterr().err.startswith("needed an RTSP server at 127.0.0.1:1, got: Connection refused")
