"""How large a pixel is, measured on a grid or a step wedge of known pitch that lies in the picture.

mean of still frames -> edges summed along the lines -> period of the best comb -> the same in four strips, or it is no grid
"""

from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from calib.errors import CalibrationError
from calib.results import Box, GeometryResult, PixelSpacing

LEAST_PERIODS = 4
"""Lines or steps that must be in the picture before a spacing is believed. Our choice."""
SCATTER = 0.05
"""Of the pitch: a grid's lines scatter by less about their comb; 0.03 at two degrees' turn, 0.01 without one."""
STRIPS = 4
STRIP_APART = 0.02
"""Lines run through the whole picture, so that each of the strips shows the same pitch. Of 35 real coronary runs five had edges on a comb
along one direction of the whole picture; in none did the strips agree."""
LEAST_SIDE = 64
"""Pixels of the part that shows the grid."""
MOST_SHIFT_PX = 2.0
"""By which the frames may shift."""
UNEQUAL = 0.02
"""Row and column spacing that differ by more are told."""


def spacing_on_phantom(
    picture: Float32[np.ndarray, "h w"], *, grid_mm: float | None, wedge_mm: float | None, at: str
) -> tuple[PixelSpacing, tuple[str, ...]]:
    """A pixel's size on a grid or on a step wedge, with sentences for a person.

    Args:
        picture: The part of a mean of frames that shows it.
        grid_mm: From one line of a grid to the next, both ways; None for a wedge.
        wedge_mm: From one step of a wedge to the next; the steps may follow each other along rows or columns.
        at: Where it lay, as `calib.results.PixelSpacing.at` says.

    Raises:
        CalibrationError: There is no such thing in it, or a wedge repeats both ways.
        ValueError: Not one of the two pitches.
    """
    if (grid_mm is None) == (wedge_mm is None):
        raise ValueError("needed the pitch of a grid or that of a wedge, got both or neither")
    if grid_mm is not None:
        found = measured_spacing(picture, (grid_mm, grid_mm), at)
        source = f"a grid of {grid_mm:g} mm"
    else:
        assert wedge_mm is not None
        found = _wedge(picture, wedge_mm, at)
        source = f"a step wedge of {wedge_mm:g} mm"
    says = [
        f"A pixel is {found.row_mm:.4f} x {found.column_mm:.4f} mm at the {at}, measured on {source} (relative standard "
        f"uncertainty {100 * found.uncertainty:.2g} %)."
    ]
    unequal = abs(found.row_mm / found.column_mm - 1.0)
    if unequal > UNEQUAL:
        says.append(
            f"Row and column spacing differ by {100 * unequal:.1f} %: pixels that are not square, or a grid that is tilted."
        )
    return replace(found, source=source), tuple(says)


def compared(measured: PixelSpacing, header: PixelSpacing) -> str:
    """How a header's pixel size differs from the measured one."""
    ratio = (header.row_mm * header.column_mm / (measured.row_mm * measured.column_mm)) ** 0.5
    return (
        f"The header says {header.row_mm:.4f} x {header.column_mm:.4f} mm at the {header.at}, "
        f"{100 * abs(ratio - 1.0):.1f} % {'more' if ratio > 1.0 else 'less'}; the measured size is taken."
    )


def with_spacing(geometry: GeometryResult, spacing: PixelSpacing, says: tuple[str, ...]) -> GeometryResult:
    """A geometry with another pixel size and what was said of it; everything else stays."""
    kept = tuple(said for said in geometry.says if said not in geometry.spacing_says)
    return replace(geometry, spacing=spacing, spacing_says=says, says=(*kept, *says))


def shown_part(field: UInt8[np.ndarray, "h w"]) -> Box:
    """The largest part of a field without its edges, which are no lines: its bounding box, made smaller until it is inside.

    Raises:
        CalibrationError: It is smaller than a grid can be read in.
    """
    rows, columns = (np.flatnonzero((field > 0).any(axis=axis)) for axis in (1, 0))
    if len(rows) and len(columns):
        top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
        step = max(2, min(field.shape) // 48)
        while min(bottom - top, right - left) > LEAST_SIDE + 2 * step:
            top, bottom, left, right = top + step, bottom - step, left + step, right - step
            if (field[top:bottom, left:right] > 0).mean() > 0.995:
                return Box(int(left), int(top), int(right), int(bottom))
    raise CalibrationError(
        f"needed a field of {LEAST_SIDE} pixels a side or more to look for a grid in, got a smaller one; open the collimator, or give "
        "the part that shows it: --phantom-box X,Y,W,H"
    )


def _wedge(picture: Float32[np.ndarray, "h w"], pitch_mm: float, at: str) -> PixelSpacing:
    """Along whichever direction the steps follow each other."""
    found: list[PixelSpacing] = []
    for pitches in ((0.0, pitch_mm), (pitch_mm, 0.0)):
        try:
            found.append(measured_spacing(picture, pitches, at))
        except CalibrationError as error:
            why = error
    if len(found) == 2:
        raise CalibrationError(
            "needed a wedge, whose steps follow each other along one direction, got lines that repeat both ways; is it a grid? "
            "Give --grid-mm, or the part that shows the wedge alone: --phantom-box X,Y,W,H"
        )
    if not found:
        raise why
    return found[0]


def measured_spacing(
    picture: Float32[np.ndarray, "h w"], pitch_mm: tuple[float, float], at: str = "calibrated object"
) -> PixelSpacing:
    """A pixel's size from a grid, or from a step wedge, whose lines or steps lie at a known pitch.

    The edges across each direction, summed along the other, repeat at the pitch; the best period is that whose comb
    gathers most of them. The grid's lines run along rows and columns within a few degrees.

    Args:
        picture: The part of a mean of frames that shows the grid, any linear grey scale.
        pitch_mm: From one line to the next: (across rows, across columns); 0 for a direction without lines, as
            across a wedge's steps, which then takes the other direction's size (square pixels).
        at: Where the grid lay.

    Raises:
        CalibrationError: No regular lines are seen in it, or fewer than `LEAST_PERIODS`.
        ValueError: No pitch.
    """
    if max(pitch_mm) <= 0 or min(pitch_mm) < 0:
        raise ValueError(f"pitch_mm must be above 0 in one direction at least, got {pitch_mm}")
    sizes: list[float | None] = []
    worst = 0.0
    for axis, pitch in enumerate(pitch_mm):
        if pitch == 0:
            sizes.append(None)
            continue
        period, uncertainty = _period_px(picture, axis)
        sizes.append(pitch / period)
        worst = max(worst, uncertainty)
    row_mm = sizes[0] if sizes[0] is not None else sizes[1]
    column_mm = sizes[1] if sizes[1] is not None else sizes[0]
    assert row_mm is not None
    assert column_mm is not None
    return PixelSpacing(row_mm, column_mm, at, "a phantom's lines at a known pitch", None, worst)


def _period_px(picture: Float32[np.ndarray, "h w"], axis: int) -> tuple[float, float]:
    """The period of edges across an axis in pixels, and its relative standard uncertainty.

    Raises:
        CalibrationError: Nothing repeats, or not through the whole picture.
    """
    kind = "rows" if axis == 0 else "columns"
    soft = cv2.GaussianBlur(picture, (0, 0), 0.8)
    whole = _comb(soft.mean(axis=1 - axis))
    strips = [_comb(strip.mean(axis=1 - axis)) for strip in np.array_split(soft, STRIPS, axis=1 - axis)]
    if whole is None or any(
        strip is None or abs(strip[0] / whole[0] - 1.0) > STRIP_APART for strip in strips
    ):
        raise CalibrationError(
            f"needed at least {LEAST_PERIODS} lines or steps at one pitch across the {kind}, got none that repeat through the whole "
            "part; lay the phantom along the picture's sides, hold the table still and give the part that shows it"
        )
    return whole


def _comb(profile: Float32[np.ndarray, " n"]) -> tuple[float, float] | None:
    """The period of a profile's edges in pixels and its relative standard uncertainty; None where they lie on no comb."""
    edges = np.abs(np.diff(profile)).astype(np.float64)
    edges = np.convolve(edges - edges.mean(), np.ones(3) / 3.0, mode="same")
    size = len(edges)
    power = np.abs(np.fft.rfft(edges * np.hanning(size), 16 * size))
    first = 16 * LEAST_PERIODS
    if size < 8 * LEAST_PERIODS or not power[first:].any():
        return None
    # A wedge's or thick line's edges have harmonics: the lowest strong peak is the period.
    peaks = np.flatnonzero((power[1:-1] >= power[:-2]) & (power[1:-1] > power[2:])) + 1
    strong = [peak for peak in peaks if peak >= first and power[peak] > 0.4 * power[first:].max()]
    if not strong or power[strong[0]] < 6.0 * float(np.median(power[first:])):
        return None
    period = 16.0 * size / _vertex(power, int(strong[0]))
    places = _edge_places(edges, period)
    if len(places) < LEAST_PERIODS:
        return None
    number = np.round((places - places[0]) / period)
    design = np.stack([number, np.ones_like(number)], axis=1)
    (fitted, offset), *_ = np.linalg.lstsq(design, places, rcond=None)
    off = places - design @ np.array([fitted, offset])
    spread = float(np.sqrt((off**2).sum() / max(1, len(places) - 2)))
    if spread > SCATTER * fitted:
        return None
    error = spread / float(np.sqrt(((number - number.mean()) ** 2).sum()))
    return float(fitted), error / float(fitted)


def _vertex(values: Float64[np.ndarray, " n"], peak: int) -> float:
    """A peak's place between samples, by the parabola through it and its neighbours."""
    before, here, after = values[peak - 1 : peak + 2]
    return float(peak + 0.5 * (before - after) / (before - 2 * here + after))


def _edge_places(edges: Float64[np.ndarray, " n"], period: float) -> Float64[np.ndarray, " k"]:
    """One place per period: the middle of what stands out near the best comb's teeth."""
    phases = np.arange(0.0, period, 0.25)
    teeth = np.arange(0.0, len(edges) - 1, period)
    at = phases[:, None] + teeth
    sums = np.interp(at, np.arange(len(edges)), edges, right=0.0).sum(axis=1)
    start = float(phases[int(np.argmax(sums))])
    reach = max(1, int(0.35 * period))
    strongest = float(edges.max())
    places = []
    for tooth in np.arange(start, len(edges), period):
        low, high = max(0, round(tooth) - reach), min(len(edges), round(tooth) + reach + 1)
        weights = np.maximum(edges[low:high], 0.0)
        if high - low > 2 and weights.max() > 0.2 * strongest:
            places.append(float((weights * np.arange(low, high)).sum() / weights.sum()))
    return np.array(places)
