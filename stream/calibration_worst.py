"""The frame on which each engine differs most from the reference, as a picture: reference, engine, and their difference.

This is the one file beside a record that may show a frame of the site itself, so it is a file of its own, no part of the page,
and can be left out. What lies outside the field and over burned-in text is black, since nothing is drawn there; where no
geometry has passed, nobody has said where text is, and the frame is reduced until none can be read.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, UInt8
from matplotlib.figure import Figure

from calib.precision import WorstFrame
from stream.calibration_plots import DPI, INK, REDUCED_PX, png

MOST_PX = 1024
"""Longer side of a panel; larger frames are reduced to it."""
LEAST_PX = 432
"""A smaller panel is enlarged, whole pixels to whole pixels, so that its words have room."""
GAP_PX = 8
WORDS_PX = 42
HEAD_PX = 34


@dataclass(frozen=True)
class WorstPanels:
    """One engine's worst frame, ready to be shown."""

    expected: UInt8[np.ndarray, "h w"]
    drawn: UInt8[np.ndarray, "h w"]
    apart: Float32[np.ndarray, "h w"]
    """Differences in grey levels of 255."""
    words: str
    """Which frame, and its numbers."""


def worst_panels(
    worst: WorstFrame,
    field: UInt8[np.ndarray, "h w"],
    max_value: int,
    *,
    inverted: bool = False,
    readable: bool = True,
) -> WorstPanels:
    """What is shown of an engine's worst frame.

    Args:
        worst: The frame.
        field: 0 where nothing may be shown: outside the field and over burned-in text.
        max_value: The largest stored value.
        inverted: The lowest stored value is white.
        readable: Show the frame itself; else a reduction in which no text can be read.
    """
    to_grey = 255.0 / max_value
    apart = np.abs(worst.expected.astype(np.float32) - worst.drawn) * np.float32(to_grey)
    words = (
        f"frame {worst.index + 1} of those judged: largest difference {apart.max():.1f} grey levels of 255, mean "
        f"{apart.mean():.3f}, {100 * np.mean(apart > 0):.2f} % of the pixels differ"
    )
    inside = field > 0
    planes = [plane.astype(np.float32) for plane in (worst.expected, worst.drawn)]
    low, high = np.percentile(planes[0][inside], (0.5, 99.5)) if inside.any() else (0.0, float(max_value))
    shown = []
    for plane in planes:
        level = np.clip((plane - low) / max(float(high - low), 1e-9), 0.0, 1.0)
        shown.append(np.where(inside, 1.0 - level if inverted else level, np.float32(0.0)))
    step = max(1, -(-max(apart.shape) // (MOST_PX if readable else REDUCED_PX)))
    pictures = [np.floor(255.0 * _blocks(plane, step).mean(axis=(1, 3)) + 0.5) for plane in shown]
    apart = _blocks(np.where(inside, apart, np.float32(0.0)), step).max(axis=(1, 3))
    times = max(1, LEAST_PX // max(apart.shape))
    enlarged = [np.kron(each, np.ones((times, times), np.float32)) for each in (*pictures, apart)]
    return WorstPanels(enlarged[0].astype(np.uint8), enlarged[1].astype(np.uint8), enlarged[2], words)


def plot_worst(reference: str, rows: dict[str, WorstPanels], *, readable: bool) -> bytes:
    """A PNG: a row for each engine; reference, engine and difference side by side, pixel for pixel.

    Args:
        reference: What the engines were compared with.
        rows: Panels by the engine's name, all of one size.
        readable: Whether they show the frame itself; said above the panels.

    Raises:
        ValueError: No engine.
    """
    if not rows:
        raise ValueError("needed the worst frame of one engine at least, got none")
    height, width = next(iter(rows.values())).apart.shape
    size = (3 * width + 4 * GAP_PX, HEAD_PX + len(rows) * (height + WORDS_PX + GAP_PX))
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), facecolor="white")
    shows = "a frame of this site; keep it as you keep the frames" if readable else "reduced"
    _write(figure, size, GAP_PX, HEAD_PX - 12, f"Where each engine differs most from {reference} ({shows})")
    for place, (name, panels) in enumerate(rows.items()):
        top = HEAD_PX + place * (height + WORDS_PX + GAP_PX)
        largest = float(panels.apart.max())
        scaled = panels.apart * (255.0 / max(largest, 1e-9))
        for column, (picture, words) in enumerate(
            (
                (panels.expected, reference),
                (panels.drawn, name),
                (scaled, f"difference, white is {largest:.1f} grey levels"),
            )
        ):
            left = GAP_PX + column * (width + GAP_PX)
            figure.figimage(
                picture,
                left,
                size[1] - top - WORDS_PX - height,
                cmap="gray",
                vmin=0,
                vmax=255,
                origin="upper",
            )
            _write(figure, size, left, top + WORDS_PX - 6, words)
        _write(figure, size, GAP_PX, top + 16, f"{name}: {panels.words}")
    return png(figure)


def _blocks(plane: np.ndarray, step: int) -> np.ndarray:
    """(rows, step, columns, step); what does not fill a block at the lower right is left out."""
    rows, columns = (side // step * step for side in plane.shape)
    return plane[:rows, :columns].reshape(rows // step, step, columns // step, step)


def _write(figure: Figure, size: tuple[int, int], left: int, base: int, words: str) -> None:
    figure.text(left / size[0], 1.0 - base / size[1], words, fontsize=7.5, color=INK, va="baseline")
