"""The target as a source: what its code says is when it was due, alone and through the whole live path."""

import threading
import time
from pathlib import Path

import numpy as np
import pytest

from calib.target import read_target
from stream.errors import SourceError
from stream.pipeline import Pipeline
from stream.pipeline_config import PipelineConfig
from stream.sources.open import open_source
from stream.sources.options import SourceOptions
from stream.sources.target import TargetSource
from stream.subscribe import Subscriber
from stream.timing import NS_PER_MS, NS_PER_S, FakeClock, Stage


class SleepingClock(FakeClock):
    """Lets its time pass while somebody sleeps; each look at it takes a microsecond."""

    def now_ns(self) -> int:
        self.advance_ms(0.001)
        return super().now_ns()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SleepingClock:
    made = SleepingClock()
    monkeypatch.setattr(time, "sleep", lambda seconds: made.advance_ms(1000.0 * seconds))
    return made


def test_the_code_tells_number_and_due_time_of_each_frame(clock: SleepingClock) -> None:
    source = TargetSource(SourceOptions(rate_hz=20.0, size=360), clock)
    out = np.empty((source.format.rows, source.format.columns), np.uint8)
    assert out.shape == (200, 360)
    stamps = []
    for index in range(4):
        stamp_ns = source.read(out).stamp_ns
        assert stamp_ns is not None
        code = read_target(out)
        assert (code.frame, code.time_us) == (index, stamp_ns // 1000)
        assert code.age_ms(stamp_ns + 30 * NS_PER_MS) == 30.0
        assert 0 <= clock.now_ns() - stamp_ns < NS_PER_MS
        stamps.append(stamp_ns)
    assert np.diff(stamps).tolist() == [50 * NS_PER_MS] * 3


def test_a_period_that_has_passed_by_is_left_out(clock: SleepingClock) -> None:
    source = TargetSource(SourceOptions(rate_hz=20.0, size=216), clock)
    out = np.empty((120, 216), np.uint8)
    source.read(out)
    clock.advance_ms(170.0)
    stamp_ns = source.read(out).stamp_ns
    assert stamp_ns is not None
    code = read_target(out)
    assert code.frame == 4
    assert code.time_us == stamp_ns // 1000
    assert clock.now_ns() - stamp_ns < NS_PER_MS


def test_it_is_opened_by_its_name_and_a_size_it_cannot_have_is_refused() -> None:
    source = open_source("python:stream.sources.target:TargetSource", SourceOptions(size=400))
    assert (source.format.rows, source.format.columns) == (220, 396)
    with pytest.raises(SourceError, match="216 to 2048 pixels wide, got 100"):
        open_source("python:stream.sources.target:TargetSource", SourceOptions(size=100))


def test_a_client_reads_from_the_picture_when_its_frame_was_due(tmp_path: Path) -> None:
    endpoint = f"ipc://{tmp_path}/stream"
    pipeline = Pipeline(
        PipelineConfig(
            source="python:stream.sources.target:TargetSource",
            options=SourceOptions(rate_hz=10.0, size=288),
            endpoint=endpoint,
            engine="off",
        )
    )
    thread = threading.Thread(target=pipeline.run)
    thread.start()
    subscriber = Subscriber(endpoint)
    seen: list[int] = []
    try:
        over = time.monotonic() + 40
        while len(seen) < 3 and time.monotonic() < over:
            message = subscriber.poll(200)
            if message is None:
                continue
            code = read_target(np.asarray(message.live))
            # The picture says of itself what the message's header says of it.
            assert code.time_us == message.header.stamp_ns(Stage.DUE) // 1000
            assert 0 <= code.age_ms(subscriber.received_ns) < 40 * NS_PER_S / NS_PER_MS
            seen.append(code.frame)
    finally:
        subscriber.close()
        pipeline.stop()
        thread.join()
    assert len(seen) == 3
    assert seen == sorted(set(seen))
