"""`/metrics` of the viewer's server: the stream's last heartbeat in Prometheus' text format.

Everything is told from one heartbeat, so sums come out within one scrape: due = published + repeated + dropped + waiting.
Nothing of a stream that is not heard is told but `contrastream_up 0`: old figures would look like present ones.
"""

import contextlib
import math
import re
from collections.abc import Iterator
from typing import Any

from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector, CollectorRegistry

from stream.display.relay import Heard, Relay
from stream.frame import Reason, State
from stream.histograms import WHOLE
from stream.subscribe import NO_SIGNAL_AFTER_NS

PREFIX = "contrastream"
MAX_LABELS = 32
"""A heartbeat comes from outside: no more values of one label are told."""
_LABEL = re.compile(r"[a-z0-9_]{1,32}")
MIB = 2**20
MHZ = 1e6
GPU_FIGURES = (
    ("temperature_c", "temperature_celsius", "Temperature of the engine's GPU.", 1.0),
    ("power_w", "power_watts", "Power that it draws.", 1.0),
    ("power_limit_w", "power_limit_watts", "Power that it may draw.", 1.0),
    ("sm_mhz", "sm_clock_hertz", "Clock of its multiprocessors.", MHZ),
    ("memory_mhz", "memory_clock_hertz", "Clock of its memory.", MHZ),
    ("busy_percent", "busy_ratio", "Share of time in which a kernel ran, 0 to 1.", 0.01),
    ("memory_used_mib", "memory_used_bytes", "Memory in use, by all processes.", MIB),
    ("memory_total_mib", "memory_total_bytes", "Memory there is.", MIB),
)
"""In the heartbeat, as a metric, its help, and what it is multiplied by."""


class _StreamCollector(Collector):
    def __init__(self, relay: Relay) -> None:
        self._relay = relay

    def collect(self) -> Iterator[Metric]:
        relay = self._relay
        return families(relay.reader.heard, relay.viewers, relay.clock.now_ns())


class Metrics:
    """What a scraper is answered.

    Args:
        relay: The stream.
    """

    def __init__(self, relay: Relay) -> None:
        # A registry of its own: the library's default one also tells of this Python process, which is not the stream.
        self._registry = CollectorRegistry()
        self._registry.register(_StreamCollector(relay))

    def answer(self, accept: str) -> tuple[bytes, str]:
        """The text and its media type, Prometheus' own or OpenMetrics, as the scraper's Accept header asks."""
        encode, media_type = choose_encoder(accept)
        return encode(self._registry), media_type


def families(heard: Heard, viewers: int, now_ns: int) -> Iterator[Metric]:
    """The metrics of what a server last heard.

    Args:
        heard: The last heartbeat, and the state that viewers are shown.
        viewers: Browsers connected to this server.
        now_ns: The time on `heard`'s clock; what was heard too long ago is not told.
    """
    up = heard.shown.state is not State.NO_SIGNAL and now_ns - heard.stamp_ns <= NO_SIGNAL_AFTER_NS
    state = heard.shown.state if up else State.NO_SIGNAL
    yield _gauge("up", "1 while the stream is heard, else 0 and nothing else is told of it.", float(up))
    yield _one_of(
        "state", "state", "1 at the state that viewers are shown.", state.name, [s.name for s in State]
    )
    yield _gauge("viewers", "Browsers that this server shows the stream to.", float(viewers))
    if not up:
        return
    status = heard.status
    reason = heard.shown.reason.name.lower() if state is State.PASSTHROUGH else ""
    yield _one_of(
        "passthrough_reason", "reason", "1 at why frames are live only now; all 0 where they are not.", reason,
        [each.name.lower() for each in Reason if each is not Reason.NONE],
    )  # fmt: skip
    yield _gauge(
        "picture_age_seconds",
        "Age of the picture that is shown, since it was due.",
        heard.shown.age_ms / 1000,
    )
    yield from _rates(status, heard.received_hz)
    yield from _frames(_table(status, "counters"))
    yield from _latencies(_table(status, "histograms"))
    yield from _engine(status)
    yield from _clients(_table(status, "clients"))
    yield from _domain(_table(status, "domain"))
    yield from _gpu(_table(status, "gpu"))
    yield _gauge(
        "faults_injected", "1 while a test injects faults into the source.", float(bool(status.get("faults")))
    )


def _rates(status: dict[str, Any], received_hz: float | None) -> Iterator[Metric]:
    rates = GaugeMetricFamily(
        f"{PREFIX}_frames_per_second",
        "Over the last 30 frames at the source and the publisher, over 2 s at this server, which takes the newest only.",
        labels=["at"],
    )
    values = {"source": status.get("fps_in"), "publisher": status.get("fps_out"), "viewer": received_hz}
    for at, value in values.items():
        if (number := _number(value)) is not None:
            rates.add_metric([at], number)
    yield rates


def _frames(counters: dict[str, Any]) -> Iterator[Metric]:
    published = CounterMetricFamily(
        f"{PREFIX}_frames_published",
        "Messages sent, by state and PASSTHROUGH's reason.",
        labels=["state", "reason"],
    )
    for state in ("synthetic", "unchanged"):
        if (number := _number(counters.get(state))) is not None:
            published.add_metric([state, ""], number)
    for reason, number in _counts(counters.get("passthrough")):
        published.add_metric(["passthrough", reason], number)
    dropped = CounterMetricFamily(
        f"{PREFIX}_frames_dropped", "Frames that were due and never went out, by reason.", labels=["reason"]
    )
    for reason, number in _counts(counters.get("dropped")):
        dropped.add_metric([reason], number)
    yield published
    yield dropped
    yield from _counters(
        counters,
        due=("frames_due", "Frames of the source: due = published + repeated + dropped + waiting."),
        repeated=("frames_repeated", "Repeats of the image before, not sent."),
        late_results=("late_results", "Inferences that ended after their frame had gone out without them."),
        passed_over=("turns_passed_over", "Frames whose turn at a shared engine a newer one took."),
    )
    if (number := _number(counters.get("waiting"))) is not None:
        yield _gauge("frames_waiting", "Frames that wait for their synthesis or their deadline.", number)


def _latencies(histograms: dict[str, Any]) -> Iterator[Metric]:
    whole = HistogramMetricFamily(
        f"{PREFIX}_published_latency_seconds",
        "From the instant a frame was due until its message was handed over.",
    )
    by_stage = HistogramMetricFamily(
        f"{PREFIX}_stage_latency_seconds",
        "A part of it: grab (due to grabbed), submit (to the engine), engine (until inferred), guard (until published).",
        labels=["stage"],
    )
    bounds = histograms.get("buckets_ms")
    for name, part in _table(histograms, "stages").items():
        buckets = _buckets(bounds, part)
        if buckets is not None and name == WHOLE:
            whole.add_metric([], *buckets)
        elif (
            buckets is not None and _LABEL.fullmatch(name) and len(by_stage.samples) < MAX_LABELS * MAX_LABELS
        ):
            by_stage.add_metric([name], *buckets)
    yield whole
    yield by_stage


def _buckets(bounds: Any, part: Any) -> tuple[list[tuple[str, float]], float] | None:
    """Cumulative buckets in seconds and the sum; None where a heartbeat has none that make sense."""
    if not isinstance(part, dict) or not isinstance(bounds, list) or not isinstance(part.get("counts"), list):
        return None
    limits, counts = [_number(bound) for bound in bounds], [_number(count) for count in part["counts"]]
    total_ms = _number(part.get("sum_ms"))
    if total_ms is None or None in limits or None in counts or len(counts) != len(limits) + 1:
        return None
    found, cumulative = [], 0.0
    for limit, count in zip([*limits, None], counts, strict=True):
        cumulative += count or 0.0
        found.append(("+Inf" if limit is None else f"{limit / 1000:g}", cumulative))
    return found, total_ms / 1000


def _engine(status: dict[str, Any]) -> Iterator[Metric]:
    engine = _table(status, "engine")
    if engine.get("backend"):
        said = {name: f"{engine.get(name) or ''}"[:64] for name in ("backend", "precision", "model_sha256")}
        yield InfoMetricFamily(f"{PREFIX}_engine", "The engine and its model.", value=said)
    if (number := _number(engine.get("inference_ms"))) is not None:
        yield _gauge(
            "engine_warm_inference_seconds", "One inference when the engine was ready.", number / 1000
        )
    yield from _counters(
        status,
        engine_restarts=("engine_restarts", "How often the engine was started again."),
        source_restarts=("source_restarts", "How often the source was opened again."),
    )


def _clients(clients: dict[str, Any]) -> Iterator[Metric]:
    if (number := _number(clients.get("subscribers"))) is not None:
        yield _gauge("clients", "Clients of the publisher now; this server is one.", number)
    yield from _counters(
        clients,
        disconnected=("clients_disconnected", "Clients that did not read for 5 s and were let go."),
        copied=("messages_copied", "Messages that were copied since few slots were free."),
    )


def _domain(domain: dict[str, Any]) -> Iterator[Metric]:
    for name, text in (
        ("score", "How unlike the taught frames the newest is."),
        ("threshold", "Where strange begins."),
    ):
        if (number := _number(domain.get(name))) is not None:
            yield _gauge(f"domain_{name}", text, number)


def _gpu(gpu: dict[str, Any]) -> Iterator[Metric]:
    for name, metric, text, factor in GPU_FIGURES:
        if (number := _number(gpu.get(name))) is not None:
            yield _gauge(f"gpu_{metric}", text, number * factor)
    if isinstance(words := gpu.get("throttle"), list):
        slowed = [word for word in words if word != "idle"]
        yield _gauge("gpu_throttled", "1 while its clocks are held down.", float(bool(slowed)))


def _counters(said: dict[str, Any], **names: tuple[str, str]) -> Iterator[Metric]:
    for name, (metric, text) in names.items():
        if (number := _number(said.get(name))) is not None:
            yield CounterMetricFamily(f"{PREFIX}_{metric}", text, value=number)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(f"{PREFIX}_{name}", text, value=value)


def _one_of(name: str, label: str, text: str, now: str, values: list[str]) -> Metric:
    family = GaugeMetricFamily(f"{PREFIX}_{name}", text, labels=[label])
    for value in values:
        family.add_metric([value], float(value == now))
    return family


def _counts(table: Any) -> Iterator[tuple[str, float]]:
    for name, value in list(table.items())[:MAX_LABELS] if isinstance(table, dict) else ():
        if _LABEL.fullmatch(name) and (number := _number(value)) is not None:
            yield name, number


def _number(value: Any) -> float | None:
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    with contextlib.suppress(OverflowError):  # JSON's integers have no end
        number = float(value)
        return number if math.isfinite(number) else None
    return None


def _table(said: dict[str, Any], name: str) -> dict[str, Any]:
    found = said.get(name)
    return found if isinstance(found, dict) else {}
