"""TensorRT's log as part of ours."""

import importlib
import logging
import mmap
import threading
from pathlib import Path
from typing import Any

import pytest

from engines.errors import CudaOutOfMemory, EngineError
from engines.tensorrt_log import (
    OUT_OF_MEMORY,
    LogLine,
    failure_of,
    gather_lines,
    reason_of,
    sentence_of,
    tensorrt_logger,
)

trt: Any = pytest.importorskip("tensorrt_rtx")
Severity = trt.ILogger.Severity


def test_there_is_one_logger_for_the_process() -> None:
    assert tensorrt_logger(trt) is tensorrt_logger(trt)


@pytest.mark.parametrize(
    ("severity", "level"),
    [
        ("INTERNAL_ERROR", logging.ERROR),
        ("ERROR", logging.ERROR),
        ("WARNING", logging.WARNING),
        ("INFO", logging.DEBUG),
        ("VERBOSE", logging.DEBUG),
    ],
)
def test_a_line_that_nobody_gathers_reaches_our_log(
    severity: str, level: int, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        tensorrt_logger(trt).log(Severity.__members__[severity], "it said")
    assert [(record.levelno, record.message) for record in caplog.records] == [(level, "TensorRT: it said")]


def test_a_gathered_line_is_left_to_the_gatherer(caplog: pytest.LogCaptureFixture) -> None:
    logger = tensorrt_logger(trt)
    with caplog.at_level(logging.DEBUG):
        with gather_lines() as lines:
            logger.log(Severity.ERROR, "inside")
        logger.log(Severity.ERROR, "outside")
    assert lines == [LogLine("ERROR", "inside")]
    assert [record.levelno for record in caplog.records] == [logging.DEBUG, logging.ERROR]


def test_a_threads_lines_are_its_own_and_the_librarys_threads_are_everybodys() -> None:
    logger = tensorrt_logger(trt)
    other: list[LogLine] = []
    gathering, said = threading.Event(), threading.Event()

    def gather() -> None:
        with gather_lines() as lines:
            gathering.set()
            said.wait(10.0)
            logger.log(Severity.ERROR, "the other's")
        other.extend(lines)

    thread = threading.Thread(target=gather)
    with gather_lines() as lines:
        thread.start()
        assert gathering.wait(10.0)
        logger.log(Severity.ERROR, "mine")
        library = threading.Thread(target=logger.log, args=(Severity.ERROR, "a kernel's"))
        library.start()
        library.join()
        said.set()
        thread.join()
    assert [line.text for line in lines] == ["mine", "a kernel's"]
    assert [line.text for line in other] == ["a kernel's", "the other's"]


def test_why_a_plan_was_not_read_is_in_the_log() -> None:
    """With a driver or without: a plan that is cut off is refused before a GPU is asked for."""
    with gather_lines() as lines:
        runtime = trt.Runtime(tensorrt_logger(trt))
        engine = runtime.deserialize_cuda_engine(b"ptrt" + bytes(60))
    assert engine is None
    assert reason_of(lines) != reason_of([])
    assert ".cpp" not in reason_of(lines)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (
            "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion size == blobSize "
            "failed. In parsePlan at /_src/runtime/dispatch/runtime.cpp:780)",
            "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (Serialization assertion size == blobSize "
            "failed)",
        ),
        (
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime (In catchCudaError at "
            "/_src/common/dispatch/checkMacros.cpp:250 (cudaError 35: CUDA driver version is insufficient))",
            "Error Code 1: Cuda Runtime ((cudaError 35: CUDA driver version is insufficient))",
        ),
        (
            "Invalid Node - sum\nError Code 4: (types differ. In validate at /a/b.cpp:40)\n"
            "[checkMacros.cpp::catchCudaError::250] Error Code 1: Cuda Runtime",
            "Invalid Node - sum Error Code 4: (types differ)",
        ),
        ("out of memory.", "out of memory"),
        ("x" * 400, "x" * 297 + "..."),
    ],
    ids=["position", "prefix", "trailing", "plain", "long"],
)
def test_a_message_becomes_a_sentence(text: str, sentence: str) -> None:
    assert sentence_of(text) == sentence


def test_the_reason_is_the_first_error_and_how_many_follow() -> None:
    lines = [LogLine("WARNING", "slow"), LogLine("ERROR", "no memory."), LogLine("INTERNAL_ERROR", "no plan")]
    assert reason_of(lines) == "no memory; and 1 more in the log"
    assert reason_of(lines[:1]) == "its log holds no error"


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (LogLine("ERROR", "Error Code 2: OutOfMemory (Requested size was 20 bytes.)"), CudaOutOfMemory),
        (LogLine("ERROR", "Error Code 1: Cuda Runtime (out of memory)"), CudaOutOfMemory),
        (
            LogLine("INTERNAL_ERROR", "Requested amount of GPU memory (9 bytes) could not be ..."),
            CudaOutOfMemory,
        ),
        (LogLine("WARNING", "Out of memory, so out of memory: this kernel is passed over"), EngineError),
        (LogLine("ERROR", "Error Code 4: API Usage Error"), EngineError),
    ],
    ids=["allocator", "runtime", "workspace", "a warning", "another fault"],
)
def test_a_full_gpu_is_told_from_other_failures(line: LogLine, kind: type[EngineError]) -> None:
    error = failure_of([line], "it cannot build", call="build", advice="use another")
    assert type(error) is kind
    assert str(error).startswith("it cannot build: ")
    assert ("close what else runs on the GPU" in str(error)) == (kind is CudaOutOfMemory)


def test_the_words_for_a_full_gpu_are_the_librarys() -> None:
    (folder,) = importlib.import_module("tensorrt_rtx_libs").__path__
    (library,) = Path(folder).glob("libtensorrt_rtx.so.*")
    with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as text:
        assert [word for word in OUT_OF_MEMORY if text.find(word.encode()) < 0] == []
