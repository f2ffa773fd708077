"""The plots beside a site's record. Of a patient's picture they show at most a reduction in which no text can be read."""

import io
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Polygon, Rectangle

from calib.precision import limits_of
from calib.results import DomainResult, GeometryResult, IntensityResult, PrecisionResult

REDUCED_PX = 72
"""Longer side of a patient's picture as a plot shows it: letters of 16 pixels in 512 are then 2 pixels high."""
INK, ACCENT, WARN, FAINT = "#24292f", "#0969da", "#cf222e", "#8c959f"
DPI = 110


def png(figure: Figure) -> bytes:
    """The figure as a PNG, which names no software and no date."""
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=DPI, metadata={"Software": None})
    return out.getvalue()


def _figure(columns: int, *, height: float = 3.6) -> tuple[Figure, Any]:
    figure = Figure(figsize=(4.6 * columns, height), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(colors=INK)
    return figure, axes


def reduced(picture: np.ndarray) -> np.ndarray:
    """A picture reduced by averaging until its longer side has `REDUCED_PX` pixels, 0 to 1.

    Args:
        picture: (rows, columns) of any real type.
    """
    step = max(1, -(-max(picture.shape) // REDUCED_PX))
    rows, columns = (side // step * step for side in picture.shape)
    blocks = picture[:rows, :columns].reshape(rows // step, step, columns // step, step)
    small = blocks.mean(axis=(1, 3), dtype=np.float64)
    low, high = np.percentile(small, (1, 99))
    return np.asarray(np.clip((small - low) / max(high - low, 1e-9), 0.0, 1.0))


def plot_geometry(result: GeometryResult, mean: np.ndarray, *, inverted: bool) -> bytes:
    """The field's edges, the letterbox and the burned-in regions over a reduction of the mean frame.

    Args:
        result: What was found.
        mean: (rows, columns) mean of the frames.
        inverted: The lowest stored value is white.
    """
    figure, (axis,) = _figure(1, height=4.4)
    blanked = mean.astype(np.float64)
    for box in result.burned_in:
        blanked[box.top : box.bottom, box.left : box.right] = blanked.mean()
    axis.imshow(
        reduced(blanked),
        cmap="gray_r" if inverted else "gray",
        extent=(0, result.columns, result.rows, 0),
        interpolation="bilinear",
    )
    axis.add_patch(Polygon(result.corners, fill=False, edgecolor=ACCENT, linewidth=1.8, label="field"))
    if result.circle is not None:
        centre = (result.circle.column, result.circle.row)
        axis.add_patch(Circle(centre, result.circle.radius, fill=False, edgecolor=ACCENT, linewidth=1.8))
    for index, box in enumerate(result.burned_in):
        size = (box.right - box.left, box.bottom - box.top)
        label = None if index else "burned in, blanked"
        axis.add_patch(Rectangle((box.left, box.top), *size, color=WARN, alpha=0.45, label=label))
    axis.set_xlim(0, result.columns)
    axis.set_ylim(result.rows, 0)
    axis.set_xlabel("column")
    axis.set_ylabel("row")
    axis.set_title(f"{result.shape}, {100 * result.field_share:.0f} % of the picture", fontsize=10)
    axis.legend(fontsize=8, loc="lower left")
    return png(figure)


def plot_intensity(result: IntensityResult, values: np.ndarray) -> bytes:
    """What the field's pixels hold, and the table that brings them to the taught grey levels.

    Args:
        result: What was found.
        values: (n,) stored values inside the field.
    """
    figure, (left, right) = _figure(2)
    largest = float((1 << result.bits_stored) - 1)
    counts, edges = np.histogram(values, bins=min(256, int(largest) + 1), range=(0.0, largest + 1.0))
    left.fill_between(edges[:-1], counts / max(1, counts.sum()), step="post", color=FAINT, alpha=0.6)
    for landmark in result.landmarks:
        left.axvline(landmark, color=ACCENT, linewidth=0.8)
    left.set_xlabel("stored value")
    left.set_ylabel("share of the field's pixels")
    left.set_title("landmarks of the field", fontsize=10)
    stored = np.linspace(0.0, largest, len(result.table))
    right.plot(stored, result.table, color=INK, linewidth=1.4, label="table")
    right.plot(
        result.landmarks,
        result.reference,
        "o",
        color=ACCENT,
        markersize=5,
        label="landmark to taught grey level",
    )
    right.set_xlabel("stored value")
    right.set_ylabel("grey level, 0 black to 1 white")
    right.set_ylim(-0.02, 1.02)
    right.legend(fontsize=8, loc="lower right" if not result.inverted else "upper right")
    right.set_title("table" + (", inverted" if result.inverted else ""), fontsize=10)
    return png(figure)


def plot_domain(result: DomainResult) -> bytes:
    """Which share of the site's own frames has a score up to what, and the threshold above which nothing is drawn.

    Args:
        result: What was found.
    """
    figure, (axis,) = _figure(1)
    shares = np.linspace(0.0, 100.0, len(result.score_percentiles))
    axis.plot(result.score_percentiles, shares, color=INK, linewidth=1.4)
    axis.axvline(result.threshold, color=WARN, linewidth=1.4, label=f"threshold {result.threshold:.3g}")
    axis.set_xlabel("score, each loop by the others' centre and spread")
    axis.set_ylabel("frames up to it, %")
    axis.set_title(f"{result.frames} frames of {result.loops} loops", fontsize=10)
    axis.legend(fontsize=8)
    return png(figure)


def plot_precision(result: PrecisionResult, worst: np.ndarray | None) -> bytes:
    """Each engine's differences from the reference, and where the worst frame differs.

    Args:
        result: What was found.
        worst: (rows, columns) differences in grey levels of the chosen engine's worst frame; None where there is none.
    """
    figure, axes = _figure(1 if worst is None else 2)
    names = [f"{engine.backend}\n{engine.precision}" for engine in result.engines]
    at = np.arange(len(names))
    axes[0].bar(at - 0.2, [engine.grey_p99 for engine in result.engines], 0.4, color=ACCENT, label="p99")
    axes[0].bar(at + 0.2, [engine.grey_max for engine in result.engines], 0.4, color=FAINT, label="max")
    for place, engine in enumerate(result.engines):
        limits = limits_of(engine.precision)
        for middle, limit in ((place - 0.2, limits.grey_p99), (place + 0.2, limits.grey_max)):
            label = None if middle > 0 else "limit of this precision"
            axes[0].plot([middle - 0.2, middle + 0.2], [limit] * 2, color=WARN, linewidth=1.6, label=label)
    axes[0].set_xticks(at, names, fontsize=8)
    axes[0].set_ylabel("grey levels of 255")
    axes[0].set_title("difference from the fp32 reference", fontsize=10)
    axes[0].legend(fontsize=8)
    if worst is not None:
        shown = axes[1].imshow(worst, cmap="magma", vmin=0.0, vmax=max(1.0, float(worst.max())))
        axes[1].set_title("where the worst frame differs", fontsize=10)
        axes[1].set_axis_off()
        figure.colorbar(shown, ax=axes[1], label="grey levels", shrink=0.8)
    return png(figure)
