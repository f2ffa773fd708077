"""The plots of a report's page, as SVG in the page itself: no file beside it, and its colours follow light and dark."""

import io
import re
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter, NullLocator

from bench.samples import Samples, back_filled_ms, worst_frames
from stream.frame import Reason, State
from stream.latency import P99_SAMPLES, summarize_ms
from stream.measure import STAGES
from stream.timing import NS_PER_S, Stage

INK, FAINT, GRID = "#010101", "#020202", "#030303"
SERIES = ("#0a0001", "#0a0002", "#0a0003", "#0a0004", "#0a0005")
WARN = "#0b0001"
VARIABLES = {INK: "--ink", FAINT: "--faint", GRID: "--grid", WARN: "--warn"} | {
    colour: f"--series-{index}" for index, colour in enumerate(SERIES, 1)
}
"""Colours that stand for the page's own; see `inline_svg`."""
WIDTH_IN, HEIGHT_IN = 8.6, 3.1
CURVE_POINTS, TAIL_POINTS = 300, 150
TIME_BINS = 300
MARKS = 600
"""Most single marks in a plot: a mark costs 80 bytes, and a picture stays under 200 KB."""
NAMED = 5
LABEL_SHARE = 0.04
"""Of the axis: two labels nearer than this would lie on each other."""


def inline_svg(figure: Figure, name: str) -> str:
    """The figure as an `<svg>` for the page: colours by the page's variables, ids of its own, no date.

    Args:
        figure: Drawn in the colours above.
        name: Prefix of every id, since one page holds several pictures.
    """
    out = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": name}):
        figure.savefig(
            out, format="svg", transparent=True, metadata={"Date": None, "Creator": None, "Format": None}
        )
    text = out.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r'\bid="', f'id="{name}-', text)
    text = re.sub(r'(href="|url\()#', rf"\1#{name}-", text)
    for colour, variable in VARIABLES.items():
        text = text.replace(colour, f"var({variable})")
    return text


def new_figure(title: str, *, height: float = HEIGHT_IN) -> tuple[Figure, Any]:
    """A figure of the page's width with one axis, in the colours above."""
    figure = Figure(figsize=(WIDTH_IN, height), layout="constrained")
    axis = figure.subplots()
    axis.set_title(title, fontsize=10, color=INK, loc="left")
    axis.spines[["top", "right"]].set_visible(False)
    axis.spines[["left", "bottom"]].set_color(FAINT)
    axis.tick_params(which="both", colors=FAINT, labelcolor=INK, labelsize=8)
    axis.xaxis.label.set_color(INK)
    axis.yaxis.label.set_color(INK)
    axis.grid(color=GRID, linewidth=0.6)
    axis.set_axisbelow(True)
    return figure, axis


def legend(axis: Any, **place: Any) -> None:
    """The axis's legend, where something has a label."""
    if axis.get_legend_handles_labels()[0]:
        axis.legend(fontsize=8, frameon=False, labelcolor=INK, **place)


def _note(axis: Any, x: float, y: float, text: str, **more: Any) -> None:
    """Words to the right of a point, by an offset, since an SVG swallows leading spaces."""
    axis.annotate(
        text,
        (x, y),
        xytext=(5, 0),
        textcoords="offset points",
        va="center",
        **{"fontsize": 8, "color": INK} | more,
    )


def _log_ms(axis: Any, low: float, high: float) -> None:
    """A log axis with 1, 2 and 5 named, since most latencies span less than a decade."""
    ticks = [
        step * 10.0**decade
        for decade in range(-4, 6)
        for step in (1, 2, 5)
        if low <= step * 10.0**decade <= high
    ]
    axis.set_major_locator(matplotlib.ticker.FixedLocator(ticks))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def tail(samples: Samples, deadline_ms: float | None) -> str | None:
    """Share of frames that took longer than so many ms, both on log axes, where the tail can be seen.

    Args:
        samples: With frames.
        deadline_ms: How long a picture waits for its synthesis; a line where frames come near it.
    """
    measured = samples.measured()
    if measured is None or not measured.sequence.size:
        return None
    plain = samples.values_ms("latency_ms")
    filled, _ = back_filled_ms(measured, samples.end)
    curves = {"end to end, due to received": plain}
    if filled.size != plain.size:
        curves["with the frames that never came filled in"] = filled
    if (drawn := samples.values_ms("latency_shown_ms")).size:
        curves["due to shown by the web viewer"] = drawn
    serial = [samples.series[path] for path in samples.series if path.startswith("engine/serial_ms")]
    if serial:
        curves["engine alone, serial"] = np.concatenate(serial)
    if (beside := samples.values_ms("floor/pipeline_ms")).size:
        curves["everything but the engine"] = beside
    if (floor := samples.values_ms("floor/floor_ms")).size:
        curves["floor of the same hops"] = floor
    figure, axis = new_figure("Share of frames later than")
    for index, (label, values) in enumerate(curves.items()):
        x, y = _survival(values)
        style = "-" if index < len(SERIES) else "--"
        axis.step(x, y, style, where="post", color=SERIES[index % len(SERIES)], label=label, linewidth=1.6)
    axis.set(
        xscale="log",
        yscale="log",
        xlabel="ms",
        ylim=(0.4 / max(values.size for values in curves.values() if values.size), 1.3),
    )
    if deadline_ms is not None and deadline_ms < 2 * plain.max():
        axis.axvline(deadline_ms, color=WARN, linewidth=1.0, linestyle=(0, (4, 3)))
        _note(axis, deadline_ms, 0.93, "deadline", color=WARN, xycoords=axis.get_xaxis_transform())
    _log_ms(axis.xaxis, *axis.get_xlim())
    names = {0.5: "50 % (p50)", 0.1: "10 %", 0.01: "1 % (p99)", 0.001: "0.1 % (p99.9)", 0.0001: "0.01 %"}
    shown = [share for share in names if share * plain.size >= 1]
    axis.set_yticks(shown, [names[share] for share in shown])
    axis.yaxis.set_minor_locator(NullLocator())
    legend(axis, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return inline_svg(figure, "tail")


def _survival(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(ms, share of samples above it), thinned in the middle and whole in the tail."""
    ordered = np.sort(np.maximum(values, 1e-4))
    rows = np.arange(ordered.size)
    if ordered.size > CURVE_POINTS + TAIL_POINTS:
        middle = np.linspace(0, ordered.size - TAIL_POINTS, CURVE_POINTS).astype(int)
        rows = np.unique(np.concatenate([middle, rows[-TAIL_POINTS:]]))
    return ordered[rows], np.maximum(1.0 - (rows + 1) / ordered.size, 0.5 / ordered.size)


def over_time(samples: Samples, deadline_ms: float | None) -> str | None:
    """Latency through the run: median and range of each stretch, the worst frames by number, misses as ticks.

    Args:
        samples: With frames.
        deadline_ms: As `tail`.
    """
    measured = samples.measured()
    if measured is None or measured.sequence.size < 2:
        return None
    due = measured.stamps_ns[:, Stage.DUE].astype(np.int64)
    at_s = (due - due[0]) / NS_PER_S
    latency = samples.values_ms("latency_ms")
    stretches = np.array_split(np.arange(at_s.size), min(TIME_BINS, at_s.size))
    figure, axis = new_figure("Latency through the run")
    middle = [float(at_s[rows].mean()) for rows in stretches]
    axis.fill_between(
        middle,
        [float(latency[rows].min()) for rows in stretches],
        [float(latency[rows].max()) for rows in stretches],
        color=SERIES[0],
        alpha=0.25,
        linewidth=0,
        label="fastest to slowest",
    )
    axis.plot(
        middle, [float(np.median(latency[rows])) for rows in stretches], color=SERIES[0], label="median"
    )
    worst = worst_frames(measured, NAMED)
    axis.scatter(
        [each["at_s"] for each in worst],
        [each["latency_ms"] for each in worst],
        s=16,
        color=WARN,
        zorder=3,
        label="worst, by frame number",
    )
    named: list[float] = []
    for each in worst:
        # One label for a cluster; the table under the plots has them all.
        if all(abs(each["at_s"] - at) > LABEL_SHARE * at_s[-1] for at in named):
            _note(axis, each["at_s"], each["latency_ms"], f"{each['sequence']}")
            named.append(each["at_s"])
    # What was meant to go without a synthesis missed nothing.
    meant = np.isin(measured.reason, (Reason.UNTAUGHT, Reason.OFF))
    live = np.flatnonzero((measured.state == State.PASSTHROUGH) & ~meant)
    if live.size:
        shown = live[:: -(-live.size // MARKS)]
        axis.plot(
            at_s[shown],
            np.zeros(shown.size),
            "|",
            color=WARN,
            markersize=9,
            transform=axis.get_xaxis_transform(),
            label="PASSTHROUGH",
            clip_on=False,
        )
    if deadline_ms is not None and deadline_ms < 2 * latency.max():
        axis.axhline(deadline_ms, color=WARN, linewidth=1.0, linestyle=(0, (4, 3)), label="deadline")
    if latency.max() > 5 * np.median(latency):
        axis.set_yscale("log")
        _log_ms(axis.yaxis, *axis.get_ylim())
    axis.set(
        xlabel="s since the first measured frame was due", ylabel="ms", xlim=(0, max(float(at_s[-1]), 1e-3))
    )
    legend(axis, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=5)
    return inline_svg(figure, "over-time")


def bounds(samples: Samples) -> str | None:
    """When each frame was seen through the run: between the last picture without it and the first one with it.

    Args:
        samples: With the series of `bench glass`.
    """
    low, seen = samples.values_ms("at_least_ms"), samples.values_ms("seen_ms")
    high = samples.values_ms("at_most_ms")
    high = high if high.size else seen
    if seen.size < 2:
        return None
    stretches = np.array_split(np.arange(seen.size), min(TIME_BINS, seen.size))
    middle = [float(rows.mean()) for rows in stretches]
    figure, axis = new_figure("Due to seen through the run")
    axis.fill_between(
        middle,
        [float(low[rows].min()) for rows in stretches],
        [float(high[rows].max()) for rows in stretches],
        color=SERIES[0],
        alpha=0.25,
        linewidth=0,
        label="at least to at most",
    )
    axis.plot(
        middle,
        [float(np.median(seen[rows])) for rows in stretches],
        color=SERIES[0],
        label="the capture's stamp, median",
    )
    axis.set(xlabel="frame seen, in their order", ylabel="ms", xlim=(0, seen.size - 1))
    legend(axis, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return inline_svg(figure, "bounds")


def waterfall(samples: Samples) -> str | None:
    """The stages one after the other: median, and how far their slow frames reach."""
    parts = {name: samples.values_ms(f"stages_ms/{name}") for name in (*STAGES, "shown")}
    parts = {name: values for name, values in parts.items() if values.size}
    if not parts:
        return None
    enough = min(values.size for values in parts.values()) >= P99_SAMPLES
    reach_name, quantile = ("p99", 99) if enough else ("p95", 95)
    figure, axis = new_figure("Where the time goes, stage after stage", height=2.4)
    start = 0.0
    for row, values in enumerate(parts.values()):
        median, reach = (float(value) for value in np.percentile(values, (50, quantile)))
        colour = SERIES[row % len(SERIES)]
        axis.barh(row, reach, left=start, height=0.28, color=colour, alpha=0.35)
        axis.barh(row, median, left=start, height=0.62, color=colour)
        _note(axis, start + max(reach, median), float(row), f"{median:.2f}, {reach_name} {reach:.2f}")
        start += median
    axis.set_yticks(range(len(parts)), list(parts))
    axis.set(ylim=(len(parts) - 0.5, -0.5), xlabel=f"ms; thick: median, thin: {reach_name}")
    axis.set_xlim(0, axis.get_xlim()[1] * 1.16)
    axis.grid(axis="y", visible=False)
    return inline_svg(figure, "waterfall")


def fates(frames: dict[str, Any]) -> str | None:
    """What became of the frames: counts by state and by reason, of the whole run.

    Args:
        frames: The report's `frames`.
    """
    rows = [("SYNTHETIC", frames.get("synthesized", 0), SERIES[0])]
    rows += [
        (f"PASSTHROUGH, {name}", count, SERIES[1] if name in ("untaught", "off") else WARN)
        for name, count in (frames.get("passthrough") or {}).items()
    ]
    rows.append(("repeats, not sent", frames.get("repeated", 0), SERIES[2]))
    rows += [(f"dropped, {name}", count, WARN) for name, count in (frames.get("dropped") or {}).items()]
    rows.append(("lost unexplained", max(0, frames.get("unexplained") or 0), WARN))
    if not frames.get("due"):
        return None
    figure, axis = new_figure(
        f"What became of {frames['due']} frames that were due", height=0.75 + 0.26 * len(rows)
    )
    for row, (_, count, colour) in enumerate(rows):
        axis.barh(row, count, height=0.62, color=colour)
        _note(axis, float(count), float(row), f"{count}")
    axis.set_yticks(range(len(rows)), [name for name, _, _ in rows])
    axis.set_xscale("symlog", linthresh=1)
    axis.set(ylim=(len(rows) - 0.5, -0.5), xlim=(0, 3.0 * frames["due"]), xlabel="frames, log axis above 1")
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.grid(axis="y", visible=False)
    return inline_svg(figure, "fates")


def pacing(samples: Samples, rate_hz: float | None) -> str | None:
    """How far the source missed its schedule, and how unevenly the client was served.

    Args:
        samples: With frames.
        rate_hz: Frames per second asked for; without one only the source's error is drawn.
    """
    measured = samples.measured()
    late = samples.values_ms("pacing_ms")
    if measured is None or late.size < 2:
        return None
    figure, axis = new_figure("Pacing error", height=2.6)
    curves = {"source: grabbed after it was due": late}
    if rate_hz:
        # Between neighbours only: a gap of two periods is a frame that is missing, not a late one.
        neighbours = np.diff(measured.sequence.astype(np.int64)) == 1
        step = np.diff(measured.stamps_ns[:, Stage.RECEIVED].astype(np.int64))[neighbours]
        curves["client: interval between frames, off its period"] = np.abs(step / 1e6 - 1000.0 / rate_hz)
    for colour, (label, values) in zip(SERIES, curves.items(), strict=False):
        x, y = _survival(np.maximum(values, 1e-3))
        axis.step(x, y, where="post", color=colour, label=label, linewidth=1.6)
    axis.set(xscale="log", yscale="log", xlabel="ms", ylabel="share above", ylim=(0.5 / late.size, 1.3))
    _log_ms(axis.xaxis, *axis.get_xlim())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axis.yaxis.set_minor_locator(NullLocator())
    legend(axis, loc="upper center", bbox_to_anchor=(0.5, -0.24), ncols=2)
    return inline_svg(figure, "pacing")


def streams(steps: list[dict[str, Any]]) -> str | None:
    """How many streams keep up: the share of frames that were in time, of the stream that fared worst.

    Args:
        steps: Of `bench scale`, one for each number of streams.
    """
    if not steps:
        return None
    figure, axis = new_figure(
        "Frames in time, of the stream that fared worst", height=0.85 + 0.3 * len(steps)
    )
    for row, step in enumerate(steps):
        share = 100.0 * (step["least_in_time_share"] or 0.0)
        axis.barh(row, share, height=0.62, color=SERIES[0] if step["keeps_up"] else WARN)
        # Where it does not keep up, live pictures went out, whose latency is none of the drawing.
        p50 = f", p50 {step['worst_p50_ms']:.1f} ms" if step["keeps_up"] and step["worst_p50_ms"] else ""
        _note(axis, share, float(row), f"{share:.1f} %{p50}")
    axis.set_yticks(range(len(steps)), [f"{step['streams']} streams" for step in steps])
    axis.set(ylim=(len(steps) - 0.5, -0.5), xlim=(0, 125), xticks=range(0, 101, 20), xlabel="% of the frames")
    axis.grid(axis="y", visible=False)
    return inline_svg(figure, "streams")


def series_tails(samples: Samples) -> str | None:
    """The tails of series that belong to no frame: an engine alone, a transport, a rival."""
    curves = {
        path: values
        for path, values in samples.series.items()
        if values.size >= 2
        and path not in ("at_least_ms", "at_most_ms", "uncertainty_ms")  # drawn by `bounds`
    }
    if not curves:
        return None
    figure, axis = new_figure("Share of samples slower than")
    for index, (path, values) in enumerate(curves.items()):
        p50 = summarize_ms(values)["p50"]
        x, y = _survival(values)
        style = ("-", "--", ":", "-.")[index // len(SERIES) % 4]
        axis.step(
            x,
            y,
            where="post",
            color=SERIES[index % len(SERIES)],
            linestyle=style,
            label=f"{path}, p50 {p50:.3g}",
        )
    axis.set(xscale="log", yscale="log", xlabel="ms")
    _log_ms(axis.xaxis, *axis.get_xlim())
    axis.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axis.yaxis.set_minor_locator(NullLocator())
    legend(axis, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    return inline_svg(figure, "series")
