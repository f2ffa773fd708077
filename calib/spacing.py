"""How large a pixel is: carried from a header's figures, or measured on a grid or step wedge of a phantom.

An X-ray picture has no single pixel size: what lies nearer to the focal spot is larger. A size is therefore said with the
place where it holds. What a header leaves out stays unknown.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from calib.errors import CalibrationError
from calib.results import PixelSpacing

DISTANCES_MM = (300.0, 3000.0)
"""A C-arm's distances from the focal spot lie between these."""
SPACINGS_MM = (0.01, 5.0)
"""A detector's pixel lies between these."""
LEAST_PERIODS = 4
"""Lines or steps that must be in the picture before a spacing is believed. Our choice."""


@dataclass(frozen=True)
class HeaderGeometry:
    """What a DICOM header says of sizes and distances, as plain numbers; None where it says nothing."""

    imager_spacing_mm: tuple[float, float] | None = None
    """Imager Pixel Spacing (0018,1164): row and column spacing at the front of the detector."""
    source_to_detector_mm: float | None = None
    """Distance Source to Detector (0018,1110)."""
    source_to_patient_mm: float | None = None
    """Distance Source to Patient (0018,1111): to the isocentre in XA (PS3.3 C.8.7.5)."""
    magnification: float | None = None
    """Estimated Radiographic Magnification Factor (0018,1114)."""
    field_of_view_mm: tuple[float, float] | None = None
    """Field of View Dimensions (0018,1149) of a rectangular field: along rows, along columns."""
    pixel_spacing_mm: tuple[float, float] | None = None
    """Pixel Spacing (0028,0030): row and column spacing of an object of known size, where it was calibrated."""


def header_spacing(
    header: HeaderGeometry, rows: int, columns: int
) -> tuple[PixelSpacing | None, tuple[str, ...]]:
    """A pixel's size from a header.

    Args:
        header: What it says.
        rows: Of the frames.
        columns: The same.

    Returns:
        The spacing at the isocentre where the distances are known, else at the detector or at the object it was
        calibrated on; None where the header says nothing. And sentences for a person.

    PS3.3 C.8.7.5.1: magnification = source to detector / source to patient; a pixel at the isocentre is the detector's
    pixel divided by it.
    """
    says: list[str] = []
    on_detector, source = header.imager_spacing_mm, "Imager Pixel Spacing"
    if not _believable(on_detector, SPACINGS_MM):
        if on_detector is not None:
            says.append(
                f"The header's Imager Pixel Spacing {on_detector} mm is not believed; 0.01 to 5 mm are."
            )
        on_detector = None
    if on_detector is None and header.field_of_view_mm is not None:
        across, down = header.field_of_view_mm
        guessed = (down / rows, across / columns)
        if _believable(guessed, SPACINGS_MM):
            on_detector, source = guessed, "Field of View Dimensions over the frame's size"
            says.append(
                "The detector's pixel follows from the field of view, as if it filled the frame; the header has no Imager "
                "Pixel Spacing."
            )
    magnification = _magnification(header, says)
    if on_detector is not None:
        if magnification is None:
            found = PixelSpacing(on_detector[0], on_detector[1], "detector", source, None, 0.0)
            says.append(
                "The distances are unknown: the size holds at the detector, and what lies in the patient is smaller by an "
                "unknown factor."
            )
        else:
            row_mm, column_mm = (each / magnification for each in on_detector)
            found = PixelSpacing(
                row_mm, column_mm, "isocentre", f"{source} and distances", magnification, 0.0
            )
    elif header.pixel_spacing_mm is not None and _believable(header.pixel_spacing_mm, SPACINGS_MM):
        row_mm, column_mm = header.pixel_spacing_mm
        found = PixelSpacing(row_mm, column_mm, "calibrated object", "Pixel Spacing", magnification, 0.0)
    else:
        return None, (*says, "A pixel's size is unknown: the header does not say it.")
    said = f"A pixel is {found.row_mm:.4f} x {found.column_mm:.4f} mm at the {found.at}, from {found.source}."
    return found, (said, *says)


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


def _believable(values: tuple[float, ...] | None, between: tuple[float, float]) -> bool:
    return values is not None and all(
        math.isfinite(value) and between[0] <= value <= between[1] for value in values
    )


def _magnification(header: HeaderGeometry, says: list[str]) -> float | None:
    detector, patient = header.source_to_detector_mm, header.source_to_patient_mm
    computed = None
    if detector is not None and patient is not None:
        if _believable((detector, patient), DISTANCES_MM) and patient < detector:
            computed = detector / patient
        else:
            says.append(
                f"The header's distances are not believed: {patient:g} mm to the patient, {detector:g} mm to the detector."
            )
    stated = header.magnification
    if stated is not None and not 1.0 <= stated <= 5.0:
        says.append(f"The header's magnification {stated:g} is not believed; 1 to 5 are.")
        stated = None
    if computed is not None and stated is not None and abs(computed / stated - 1.0) > 0.02:
        says.append(
            f"The header's magnification {stated:.3f} and its distances, {computed:.3f}, differ; the distances are taken."
        )
    return computed if computed is not None else stated


def _period_px(picture: Float32[np.ndarray, "h w"], axis: int) -> tuple[float, float]:
    """The period of edges across an axis in pixels, and its relative standard uncertainty."""
    soft = cv2.GaussianBlur(picture, (0, 0), 0.8)
    edges = np.abs(np.diff(soft.mean(axis=1 - axis), axis=0)).astype(np.float64)
    edges = np.convolve(edges - edges.mean(), np.ones(3) / 3.0, mode="same")
    size = len(edges)
    kind = "rows" if axis == 0 else "columns"
    padded = np.fft.rfft(edges * np.hanning(size), 16 * size)
    power = np.abs(padded)
    first = 16 * LEAST_PERIODS
    if size < 8 * LEAST_PERIODS or not power[first:].any():
        raise CalibrationError(_no_lines(kind))
    # A wedge's or thick line's edges have harmonics: the lowest strong peak is the period.
    peaks = np.flatnonzero((power[1:-1] >= power[:-2]) & (power[1:-1] > power[2:])) + 1
    strong = [peak for peak in peaks if peak >= first and power[peak] > 0.4 * power[first:].max()]
    if not strong or power[strong[0]] < 6.0 * float(np.median(power[first:])):
        raise CalibrationError(_no_lines(kind))
    period = 16.0 * size / _vertex(power, int(strong[0]))
    places = _edge_places(edges, period)
    if len(places) < LEAST_PERIODS:
        raise CalibrationError(_no_lines(kind))
    number = np.round((places - places[0]) / period)
    design = np.stack([number, np.ones_like(number)], axis=1)
    (fitted, offset), *_ = np.linalg.lstsq(design, places, rcond=None)
    off = places - design @ np.array([fitted, offset])
    spread = float(np.sqrt((off**2).sum() / max(1, len(places) - 2)))
    if spread > 0.15 * fitted:
        raise CalibrationError(_no_lines(kind))
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


def _no_lines(kind: str) -> str:
    return (
        f"needed at least {LEAST_PERIODS} lines or steps at one pitch across the {kind}, got none that repeat; lay the grid "
        "along the picture's sides, hold the table still and give the part that shows it"
    )
