import io
import logging
import os
import threading
from pathlib import Path
from typing import Any, TextIO

import pytest

from stream import statusline
from stream.statusline import (
    CLEAR_LINE,
    LineAwareHandler,
    StatusLine,
    format_status,
    format_summary,
    log_to_stderr,
    state_text,
)


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def status(**changes: Any) -> dict[str, Any]:
    """A heartbeat as the pipeline makes it."""
    figures = {"n": 1200, "p50": 6.04, "p95": 9.0, "p99": 12.34, "max": 20.0}
    counters = {
        "due": 1304, "grabbed": 1300, "published": 1210, "synthetic": 1180, "passthrough": {"deadline": 8, "starting": 2},
        "unchanged": 20, "repeated": 90, "dropped": {"ring_full": 1, "source_late": 3},
    }  # fmt: skip
    engine = {
        "backend": "openvino", "precision": "bf16", "model_sha256": "0123456789abcdef", "inference_ms": 5.25,
        "skipped": [["tensorrt", "no NVIDIA driver"]],
    }  # fmt: skip
    plain = {
        "state": "SYNTHETIC", "reason": "none", "age_ms": 3.0, "fps_in": 29.97, "fps_out": 29.5, "latency_ms": figures,
        "counters": counters, "engine": engine, "engine_restarts": 1,
        "clients": {"subscribers": 2, "disconnected": 1, "copied": 4},
    }  # fmt: skip
    return plain | changes


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({}, "SYNTHETIC"),
        ({"state": "PASSTHROUGH", "reason": "engine_lost"}, "PASSTHROUGH(engine_lost)"),
        ({"state": "STALE", "age_ms": 12_340.0}, "STALE 12.3 s"),
        ({"state": "UNCHANGED", "age_ms": 1_500.0}, "UNCHANGED 1.5 s"),
    ],
    ids=["synthetic", "passthrough", "stale", "unchanged"],
)
def test_a_state_has_its_reason_or_its_age(said: dict[str, Any], text: str) -> None:
    assert state_text(status(**said)) == text
    assert format_status(status(**said)).startswith(text + " | ")


def test_the_status_line_is_one_line_with_rates_latency_drops_and_engine() -> None:
    assert format_status(status()) == (
        "SYNTHETIC | 30.0 in 29.5 out fps | due to published p50 6.0 p99 12.3 max 20.0 ms | "
        "drops ring_full 1, source_late 3 | openvino bf16 01234567"
    )


GPU = {
    "name": "GPU of a test", "driver": "580.95.05", "sm_mhz": 1755, "temperature_c": 63, "power_w": 412.5,
    "busy_percent": 45, "memory_used_mib": 3174, "memory_total_mib": 144384, "throttle": ["power cap", "idle"],
}  # fmt: skip
ON_GPU = {"backend": "torch", "precision": "f16", "model_sha256": "0123456789abcdef", "inference_ms": 1.5}


@pytest.mark.parametrize(
    ("said", "text"),
    [
        pytest.param(
            {"gpu": GPU, "gpu_why": None, "engine": ON_GPU},
            " | torch f16 01234567 | GPU 63 °C 412 W 1755 MHz 45 % busy 3.1/141 GiB, slowed by power cap",
            id="all",
        ),
        pytest.param(
            {"gpu": {**GPU, "power_w": None, "memory_used_mib": None, "throttle": None}, "engine": ON_GPU},
            " | torch f16 01234567 | GPU 63 °C 1755 MHz 45 % busy",
            id="some",
        ),
        pytest.param(
            {"gpu": None, "gpu_why": "the GPU is lost: it is off; look at dmesg", "engine": ON_GPU},
            " | torch f16 01234567 | GPU ? (the GPU is lost: it is off)",
            id="lost",
        ),
        pytest.param(
            {"gpu": None, "gpu_why": "the engine runs on the CPU (openvino)"},
            " | openvino bf16 01234567",
            id="cpu",
        ),
    ],
)
def test_the_status_line_of_a_gpu_engine_says_what_the_gpu_does(said: dict[str, Any], text: str) -> None:
    assert format_status(status(**said)).endswith(text)


def test_the_summary_names_the_gpu() -> None:
    text = format_summary(status(gpu=GPU, engine=ON_GPU))
    assert "\ngpu      GPU of a test: at the end GPU 63 °C" in text
    assert "gpu" not in format_summary(status())


def test_figures_that_are_not_there_yet_are_dashes() -> None:
    none = dict.fromkeys(("p50", "p95", "p99", "max"), None)
    line = format_status(status(latency_ms={"n": 0, **none}, counters={}, engine={}))
    assert "p50 - p99 - max - ms | drops none | no engine yet" in line


def test_the_summary_counts_every_frame_and_names_what_was_passed_over() -> None:
    text = format_summary(status())
    for part in (
        "1300 grabbed, 1210 published: 1180 SYNTHETIC, 10 PASSTHROUGH (deadline 8, starting 2), 20 UNCHANGED",
        "90 repeats not sent, dropped: ring_full 1, source_late 3",
        "p50 6.0, p95 9.0, p99 12.3, max 20.0 ms\n",
        "one inference 5.2 ms, 1 restarts",
        "tensorrt (no NVIDIA driver)",
        "2 at the end, 1 let go, 4 messages copied",
        "not a medical device",
    ):
        assert part in text


def test_a_summary_of_few_frames_says_why_there_is_no_p99() -> None:
    figures = {"n": 10, "p50": 6.0, "p95": 9.0, "p99": None, "max": 20.0}
    assert "p99 -, max 20.0 ms (p99 wants 1,000 frames)" in format_summary(status(latency_ms=figures))


def test_a_summary_of_nothing_says_so() -> None:
    assert format_summary(status(counters={})) == "no frame came"


def printed_on(out: TextIO) -> str:
    """Run a status line on `out` through two empty heartbeats and a full one; returns that one's text."""
    heartbeats = iter([None, None, status()])
    over = threading.Event()

    def last() -> dict[str, Any] | None:
        heartbeat = next(heartbeats, None)
        if over.is_set():
            return None
        if heartbeat is not None:
            over.set()
        return heartbeat

    line = StatusLine(last, out)
    assert over.wait(30.0)
    line.close()
    return format_status(status())


def test_a_terminal_has_one_line_that_is_written_over_and_then_cleared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(statusline, "TERMINAL_INTERVAL_S", 0.001)
    ours, theirs = os.openpty()
    with os.fdopen(theirs, "w") as terminal:
        text = printed_on(terminal)
        expected = (CLEAR_LINE + text + CLEAR_LINE).encode()
        shown = b""
        while len(shown) < len(expected):
            shown += os.read(ours, 65536)
        assert shown == expected
    os.close(ours)


def test_a_file_has_a_line_for_each_time_it_was_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(statusline, "LOG_INTERVAL_S", 0.001)
    path = tmp_path / "log"
    with path.open("w") as file:
        text = printed_on(file)
    assert path.read_text() == text + "\n"


def test_a_log_message_clears_the_line_of_a_terminal_first(monkeypatch: pytest.MonkeyPatch) -> None:
    record = logging.LogRecord("contrastream", logging.INFO, "", 0, "engine ready", None, None)
    handler = LineAwareHandler()
    terminal, file, gone = Terminal(), io.StringIO(), io.StringIO()
    for out in (terminal, file):
        monkeypatch.setattr("sys.stderr", out)
        handler.emit(record)
    assert terminal.getvalue() == CLEAR_LINE + "engine ready\n"
    assert file.getvalue() == "engine ready\n"
    gone.close()
    monkeypatch.setattr("sys.stderr", gone)
    handler.emit(record)  # and a stderr that is gone ends nothing


def test_logging_twice_says_everything_once(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("contrastream")
    monkeypatch.setattr("sys.stderr", out := io.StringIO())
    log_to_stderr()
    log_to_stderr()
    logger.info("once")
    assert out.getvalue().count("once") == 1
