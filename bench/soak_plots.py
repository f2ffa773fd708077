"""The plots of a soak: latency and memory through the run, a point a window."""

from typing import Any

from bench.plots import FAINT, SERIES, WARN, inline_svg, legend, new_figure

BELOW = {"loc": "upper center", "bbox_to_anchor": (0.5, -0.2)}


def latency_through(report: dict[str, Any]) -> str | None:
    """Latency of each window; what is judged begins at the line.

    Args:
        report: Of `bench soak`.
    """
    windows = (report.get("client") or {}).get("windows") or []
    if len(windows) < 2:
        return None
    at = [window["frames"] for window in windows]
    figure, axis = new_figure("Latency through the run, by window")
    for colour, name in zip((*SERIES[:2], WARN), ("p50", "p95", "max"), strict=True):
        axis.plot(
            at, [window["latency_ms"][name] for window in windows], color=colour, label=name, linewidth=1.2
        )
    _settled(axis, report)
    axis.set(xlabel="frames received", ylabel="ms", ylim=(0, None))
    legend(axis, ncols=4, **BELOW)
    return inline_svg(figure, "soak-latency")


def memory_through(report: dict[str, Any]) -> str | None:
    """Anonymous memory of each process, by how much it is above its first point.

    Args:
        report: Of `bench soak`.
    """
    points = report.get("usage") or []
    names = sorted({name for point in points for name in point["processes"]})
    if len(points) < 2 or not names:
        return None
    figure, axis = new_figure("Memory of each process, above its first point")
    for colour, name in zip(SERIES, names, strict=False):
        own = [(point["frames"], point["processes"][name]) for point in points if name in point["processes"]]
        first = own[0][1]["anonymous_kib"]
        axis.plot(
            [frames for frames, _ in own],
            [used["anonymous_kib"] - first for _, used in own],
            color=colour,
            label=f"{name}, {first / 1024:.1f} MiB at first",
            linewidth=1.4,
        )
    _settled(axis, report)
    axis.set(xlabel="frames published", ylabel="KiB")
    legend(axis, ncols=2, **BELOW)
    return inline_svg(figure, "soak-memory")


def _settled(axis: Any, report: dict[str, Any]) -> None:
    work = report["workload"]
    axis.axvline(
        work["settle_share"] * work["frames"],
        color=FAINT,
        linewidth=1.0,
        linestyle=(0, (4, 3)),
        label="judged from here",
    )
