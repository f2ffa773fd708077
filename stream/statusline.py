"""The one line that says how a stream is doing, and the summary at its end."""

import contextlib
import logging
import sys
import threading
from collections.abc import Callable, Sequence
from typing import Any, TextIO

from stream.accounts import publisher_text
from stream.gpu import GPU_BACKENDS

TERMINAL_INTERVAL_S = 0.5
LOG_INTERVAL_S = 5.0
CLEAR_LINE = "\r\x1b[K"


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _counts(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items())) or "none"


def state_text(status: dict[str, Any]) -> str:
    """The state in words, with its reason or age."""
    state, reason = status["state"], status["reason"]
    if state == "PASSTHROUGH":
        return f"PASSTHROUGH({reason})"
    if state in ("STALE", "UNCHANGED"):
        return f"{state} {status['age_ms'] / 1000:.1f} s"
    return str(state)


def engine_text(engine: dict[str, Any]) -> str:
    """Which engine runs which model."""
    if not engine:
        return "no engine yet"
    return f"{engine['backend']} {engine['precision']} {engine['model_sha256'][:8]}"


def gpu_text(status: dict[str, Any]) -> str:
    """What the engine's GPU does, or why that is not known; empty where the engine runs on the CPU."""
    gpu = status.get("gpu")
    if gpu is None:
        on_gpu = (status["engine"] or {}).get("backend") in GPU_BACKENDS
        return f"GPU ? ({str(status.get('gpu_why')).partition('; ')[0]})" if on_gpu else ""

    def figure(name: str, unit: str) -> str:
        return "" if gpu.get(name) is None else f" {gpu[name]:.0f}{unit}"

    memory = ""
    if gpu.get("memory_used_mib") is not None:
        memory = f" {gpu['memory_used_mib'] / 1024:.1f}/{gpu['memory_total_mib'] / 1024:.0f} GiB"
    slowed = [word for word in gpu.get("throttle") or () if word != "idle"]
    return (
        f"GPU{figure('temperature_c', ' °C')}{figure('power_w', ' W')}{figure('sm_mhz', ' MHz')}"
        f"{figure('busy_percent', ' % busy')}{memory}"
        + (f", slowed by {', '.join(slowed)}" if slowed else "")
    )


def grouped(skipped: list[list[str]]) -> dict[str, list[str]]:
    """The engines that `auto` did not take, by the reason, since several have the same."""
    names: dict[str, list[str]] = {}
    for name, why in skipped:
        names.setdefault(why, []).append(name)
    return names


def passed_over(skipped: list[list[str]]) -> str:
    """Which engines `auto` did not take, and why."""
    return "; ".join(f"{', '.join(names)} ({why})" for why, names in grouped(skipped).items()) or "none"


def format_status(status: dict[str, Any]) -> str:
    """The status line of a heartbeat."""
    latency = status["latency_ms"]
    counters = status["counters"]
    gpu = gpu_text(status)
    return (
        f"{test_text(status)}{state_text(status)} | {status['fps_in']:.1f} in {status['fps_out']:.1f} out fps | due to published "
        f"p50 {_ms(latency['p50'])} p99 {_ms(latency['p99'])} max {_ms(latency['max'])} ms | "
        f"drops {_counts(counters.get('dropped', {}))} | {engine_text(status['engine'])}"
        + (f", now none: {why.partition('; ')[0]}" if (why := status.get("engine_why")) else "")
        + (f" | {why}" if (why := status.get("source_why")) else "")
        + domain_text(status)
        + adaptation_text(status)
        + (f" | {gpu}" if gpu else "")
    )


def test_text(status: dict[str, Any]) -> str:
    """Says that faults are injected, where they are, before anything else."""
    return "TEST, FAULTS INJECTED | " if status.get("faults") else ""


def faults_text(faults: dict[str, Any] | None) -> list[str]:
    """The summary's line on injected faults."""
    if not faults:
        return []
    return [
        f"TEST     faults were injected: {faults['spec']} (seed {faults['seed']}); {len(faults['begun'])} begun at their frame"
    ]


def domain_text(status: dict[str, Any]) -> str:
    """How unlike the taught frames the newest one is, beside the limit; empty where frames are not judged."""
    domain = status.get("domain") or {}
    if domain.get("score") is None or domain.get("threshold") is None:
        return ""
    return f" | domain {domain['score']:.2f} of {domain['threshold']:.2f}"


def adaptation_text(status: dict[str, Any]) -> str:
    """Which patient's adaptation draws, or why the general model does; empty where none is asked for."""
    said = status.get("adaptation")
    if not said:
        return ""
    words = said["words"] or "patient adaptation"
    if said["draws"]:
        return f" | {words}"
    why = said["why_general"] or said["failure"]
    return f" | general model: {words}: {why.partition('; ')[0]}"


def format_summary(status: dict[str, Any]) -> str:
    """What happened, from the last status of a stream."""
    counters, latency, engine = status["counters"], status["latency_ms"], status["engine"]
    if not counters:
        return "no frame came"
    skipped = passed_over(engine.get("skipped", []))
    gpu = gpu_text(status)
    lines = [
        *faults_text(status.get("faults")),
        f"frames   {counters['grabbed']} grabbed, {counters['published']} published: {counters['synthetic']} "
        f"SYNTHETIC, {sum(counters['passthrough'].values())} PASSTHROUGH ({_counts(counters['passthrough'])}), "
        f"{counters['unchanged']} UNCHANGED",
        f"         {counters['repeated']} repeats not sent, dropped: {_counts(counters['dropped'])}",
        f"accounts {publisher_text(counters)}",
        f"latency  due to published, last {latency['n']}: p50 {_ms(latency['p50'])}, p95 {_ms(latency['p95'])}, "
        f"p99 {_ms(latency['p99'])}, max {_ms(latency['max'])} ms"
        + (" (p99 wants 1,000 frames)" if latency["p99"] is None else ""),
        f"engine   {engine_text(engine)}"
        + (f", one inference {engine['inference_ms']:.1f} ms" if engine else "")
        + f", {status['engine_restarts']} restarts",
        f"         passed over: {skipped}",
        *([f"patient {said}"] if (said := adaptation_text(status)[2:]) else []),
        *(
            [f"gpu      {(status.get('gpu') or {}).get('name') or 'not known'}: at the end {gpu}"]
            if gpu
            else []
        ),
        f"clients  {status['clients']['subscribers']} at the end, {status['clients']['disconnected']} let go, "
        f"{status['clients']['copied']} messages copied",
        "Research tool, not a medical device.",
    ]
    return "\n".join(lines)


def format_rooms(statuses: Sequence[dict[str, Any] | None]) -> str:
    """The status line of several rooms."""
    rooms = []
    for number, status in enumerate(statuses, 1):
        if status is None:
            rooms.append(f"{number} starting")
            continue
        latency = status["latency_ms"]
        rooms.append(
            f"{number} {test_text(status)}{state_text(status)} {status['fps_out']:.1f} fps p50 {_ms(latency['p50'])} "
            f"max {_ms(latency['max'])} ms"
        )
    return " | ".join(rooms)


def format_rooms_summary(statuses: Sequence[dict[str, Any] | None], host_restarts: int) -> str:
    """What happened in several rooms, from the last status of each."""
    lines = [
        f"{'room':4}{'grabbed':>9}{'SYNTHETIC':>11}{'PASSTHROUGH':>13}{'lost turns':>12}{'dropped':>9}{'fps':>7}"
        f"{'p50 ms':>8}{'p99 ms':>8}{'max ms':>8}"
    ]
    for number, status in enumerate(statuses, 1):
        counters = status["counters"] if status else {}
        if not status or not counters:
            lines.append(f"{number:<4} no frame came")
            continue
        latency = status["latency_ms"]
        lines.append(
            f"{number:<4}{counters['grabbed']:>9}{counters['synthetic']:>11}"
            f"{sum(counters['passthrough'].values()):>13}{counters['passed_over']:>12}"
            f"{sum(counters['dropped'].values()):>9}{status['fps_out']:>7.1f}"
            + "".join(f"{_ms(latency[name]):>8}" for name in ("p50", "p99", "max"))
        )
        lines.append(f"     accounts: {publisher_text(counters)}")
        lines.append(
            f"     PASSTHROUGH: {_counts(counters['passthrough'])}; dropped: {_counts(counters['dropped'])}"
        )
    engine: dict[str, Any] = next((s["engine"] for s in statuses if s and s["engine"]), {})
    lines += [
        f"engine   {engine_text(engine)} for all rooms, {host_restarts} restarts",
        f"         passed over: {passed_over(engine.get('skipped', []))}",
        "latency  due to published, the last frames of each room (p99 wants 1,000); fps at the end",
        "Research tool, not a medical device.",
    ]
    return "\n".join(lines)


class StatusLine:
    """Prints the status line from a thread of its own, so that a stopped terminal never stops a frame.

    Args:
        status: Gives the last heartbeat; None before the first.
        out: Where to print; None for stderr. A terminal gets one line that is written over; a file gets a line every 5 s.
        form: Makes the line of what `status` gave.
    """

    def __init__(
        self,
        status: Callable[[], Any],
        out: TextIO | None = None,
        *,
        form: Callable[[Any], str] = format_status,
    ) -> None:
        self._status = status
        self._form = form
        self._out = sys.stderr if out is None else out
        self._terminal = self._out.isatty()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._print, name="status-line", daemon=True)
        self._thread.start()

    def _print(self) -> None:
        while not self._over.wait(TERMINAL_INTERVAL_S if self._terminal else LOG_INTERVAL_S):
            if (status := self._status()) is not None:
                line = self._form(status)
                self._out.write(CLEAR_LINE + line if self._terminal else line + "\n")
                self._out.flush()

    def close(self) -> None:
        """Stop printing and leave the line."""
        self._over.set()
        self._thread.join(timeout=1.0)
        if self._terminal:
            self._out.write(CLEAR_LINE)
            self._out.flush()


class LineAwareHandler(logging.Handler):
    """Logs above the status line instead of into it; to whatever stderr is then, as logging's own last resort does."""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record) + "\n"
        with contextlib.suppress(OSError, ValueError):  # a terminal that is gone ends no stream
            sys.stderr.write(CLEAR_LINE + line if sys.stderr.isatty() else line)
            sys.stderr.flush()


def log_to_stderr(who: str = "") -> None:
    """Log our own messages to stderr with the time of day.

    Args:
        who: Stands before each message, where several processes share a terminal.
    """
    handler = LineAwareHandler()
    handler.setFormatter(logging.Formatter(f"%(asctime)s {who}%(message)s", "%H:%M:%S"))
    logger = logging.getLogger("contrastream")
    logger.handlers = [each for each in logger.handlers if not isinstance(each, LineAwareHandler)]
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
