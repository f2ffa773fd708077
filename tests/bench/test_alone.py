"""The engine alone, and what a helper process says when it cannot."""

import os
import signal
from collections.abc import Iterator

import pytest

from bench.alone import Alone
from bench.errors import BenchError
from stream.sources.options import SourceOptions

ENGINE = {"model": "compact", "backend": "auto", "untaught": True, "threads": 1}


@pytest.fixture
def alone() -> Iterator[Alone]:
    process = Alone()
    yield process
    process.close()


def test_the_engine_alone_gives_a_time_for_every_inference(alone: Alone) -> None:
    frame_format = alone.open("phantom", SourceOptions(size=64, rate_hz=60.0), ENGINE)
    assert (frame_format.rows, frame_format.columns) == (64, 64)
    assert alone.engine["backend"] in ("openvino", "onnxruntime")
    assert len(alone.engine["model_sha256"]) == 64
    times_ms = alone.serial_ms(5)
    assert times_ms.shape == (5,)
    assert (times_ms > 0).all()


def test_neither_source_nor_engine_keeps_a_frame_for_each_frame(alone: Alone) -> None:
    alone.open("phantom", SourceOptions(size=512, rate_hz=5.0), ENGINE)
    assert alone.source_peak_bytes(10) < 512 * 512
    assert alone.engine_peak_bytes(10) < 512 * 512


def test_a_source_that_is_not_there_is_the_source_s_own_sentence(alone: Alone) -> None:
    with pytest.raises(BenchError, match=r"/nowhere/loop\.dcm: needed phantom.*No such file"):
        alone.open("/nowhere/loop.dcm", SourceOptions(), None)


def test_a_model_that_is_not_there_is_the_engine_s_own_sentence(alone: Alone) -> None:
    with pytest.raises(BenchError, match="needed a model file, found none at"):
        alone.open("phantom", SourceOptions(size=64), {**ENGINE, "model": "no-such-model"})


def test_a_helper_that_was_killed_is_an_error_that_names_it(alone: Alone) -> None:
    alone.open("phantom", SourceOptions(size=64), None)
    os.kill(alone.pid, signal.SIGKILL)
    with pytest.raises(BenchError, match=r"the bench\.alone process ended"):
        alone.source_peak_bytes(5)
