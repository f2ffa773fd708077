"""How large a pixel is, from a header's figures. On a grid or step wedge it is measured by `calib/grid.py`.

An X-ray picture has no single pixel size: what lies nearer to the focal spot is larger. A size is therefore said with the
place where it holds. What a header leaves out stays unknown.
"""

import math
from dataclasses import dataclass

from calib.results import PixelSpacing

DISTANCES_MM = (300.0, 3000.0)
"""A C-arm's distances from the focal spot lie between these."""
SPACINGS_MM = (0.01, 5.0)
"""A detector's pixel lies between these."""


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
