# mypy: allow-subclassing-any
"""TensorRT's log as part of ours, for `tensorrt` and `tensorrt_rtx` alike.

TensorRT keeps the first logger that a process gives it and ignores every later one, so there is one per
library. It says why something failed only here: its calls return None or False. So whoever calls it gathers
the lines of that call, and tells them.
"""

import logging
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import ModuleType
from typing import Any

from engines.errors import CudaOutOfMemory, EngineError

log = logging.getLogger(__name__)

LEVELS = {
    "INTERNAL_ERROR": logging.ERROR,
    "ERROR": logging.ERROR,
    "WARNING": logging.WARNING,
    "INFO": logging.DEBUG,
    "VERBOSE": logging.DEBUG,
}
ERRORS = ("INTERNAL_ERROR", "ERROR")
OUT_OF_MEMORY = ("OutOfMemory", "out of memory", "Requested amount of GPU memory (")
"""How the library's errors say that an allocation failed, as the text stands in its file. It has no code for that."""
MAKE_ROOM = "close what else runs on the GPU, or use a smaller model"
SENTENCE = 300
"""Characters of a reason; TensorRT's can run over many lines."""


@dataclass(frozen=True)
class LogLine:
    """One line of TensorRT's."""

    severity: str
    """INTERNAL_ERROR, ERROR, WARNING, INFO or VERBOSE."""
    text: str


@dataclass
class _Gathering:
    """Lines of the call that a thread is in."""

    lines: list[LogLine] = field(default_factory=list)
    thread: int = field(default_factory=threading.get_ident)


_lock = threading.Lock()
_loggers: dict[str, Any] = {}
_gatherings: list[_Gathering] = []


def tensorrt_logger(trt: ModuleType) -> Any:
    """The process's one `ILogger` of this library, made at the first call.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
    """
    with _lock:
        if trt.__name__ not in _loggers:
            _loggers[trt.__name__] = _make_logger(trt)
        return _loggers[trt.__name__]


@contextmanager
def gather_lines() -> Iterator[list[LogLine]]:
    """Collect what TensorRT logs inside the block; the caller tells what matters of it.

    Meanwhile these lines reach our log only at level DEBUG, so that a failure is told once, by the error that is
    raised. Lines from TensorRT's own threads go to every block that is open.
    """
    gathering = _Gathering()
    with _lock:
        _gatherings.append(gathering)
    try:
        yield gathering.lines
    finally:
        with _lock:
            # By identity: two blocks may hold equal lines.
            _gatherings[:] = [each for each in _gatherings if each is not gathering]


def reason_of(lines: Sequence[LogLine]) -> str:
    """Why a call failed, in one sentence: the first error's text, and how many more there are.

    The first is the cause; those after it say which call noticed.
    """
    errors = [line.text for line in lines if line.severity in ERRORS]
    if not errors:
        return "its log holds no error"
    rest = f"; and {len(errors) - 1} more in the log" if len(errors) > 1 else ""
    return sentence_of(errors[0]) + rest


def is_out_of_memory(lines: Sequence[LogLine]) -> bool:
    """Whether a call failed because memory was short. A warning does not count: a kernel was only passed over."""
    return any(word in line.text for line in lines if line.severity in ERRORS for word in OUT_OF_MEMORY)


def failure_of(lines: Sequence[LogLine], said: str, *, call: str, advice: str) -> EngineError:
    """The error of a call that failed: a `CudaOutOfMemory` where its lines say that memory was short.

    Args:
        lines: What the library logged during the call.
        said: What could not be done.
        call: The library's name of the call.
        advice: What to do, where memory was not short.
    """
    if is_out_of_memory(lines):
        return CudaOutOfMemory(f"{said}: {reason_of(lines)}; {MAKE_ROOM}", call=call, code="OutOfMemory")
    return EngineError(f"{said}: {reason_of(lines)}; {advice}")


def sentence_of(text: str) -> str:
    """One of TensorRT's messages without its own source positions, on one line.

    For example "f: Error Code 4: API Usage Error (reason. In g at a/b.cpp:40)" loses "In g at a/b.cpp:40", and a
    second message that trails behind it, or "[b.cpp::g::40]" before it.
    """
    text = re.sub(r"^\[[^\]]*\.cpp[^\]]*\]\s*", "", " ".join(text.split()))
    text = re.sub(r"\s*\[[^\]]*\.cpp[^\]]*\].*$", "", text)
    text = re.sub(r"\bIn [\w:~<>]+ at \S+?:\d+\s*", "", text)
    text = re.sub(r"[\s.]+(?=\)|$)", "", text)
    return text if len(text) <= SENTENCE else text[: SENTENCE - 3] + "..."


def _note(severity: str, text: str) -> None:
    line = LogLine(severity, text)
    thread = threading.get_ident()
    with _lock:
        takers = [each for each in _gatherings if each.thread == thread] or list(_gatherings)
        for each in takers:
            each.lines.append(line)
    log.log(logging.DEBUG if takers else LEVELS.get(severity, logging.WARNING), "TensorRT: %s", text)


def _make_logger(trt: ModuleType) -> Any:
    class Logger(trt.ILogger):  # type: ignore[name-defined]
        def __init__(self) -> None:
            # The base class must be initialised by its name, or the library holds a null logger.
            trt.ILogger.__init__(self)

        def log(self, severity: Any, text: str) -> None:
            _note(severity.name, text)

    return Logger()
