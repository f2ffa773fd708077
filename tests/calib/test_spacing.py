"""A pixel's size: carried from a header's figures, measured on a phantom's lines, and never guessed in silence."""

import cv2
import numpy as np
import pytest

from calib.errors import CalibrationError
from calib.spacing import HeaderGeometry, header_spacing, measured_spacing


def test_a_pixel_at_the_isocentre_is_the_detectors_over_the_magnification() -> None:
    # Figures of a real run of a phantom.
    spacing, says = header_spacing(HeaderGeometry((0.390625, 0.390625), 931.0, 720.0, 1.29306), 512, 512)
    assert spacing is not None
    assert spacing.at == "isocentre"
    assert spacing.row_mm == pytest.approx(0.390625 * 720 / 931)
    assert spacing.magnification == pytest.approx(931 / 720)
    assert "0.3021 x 0.3021 mm at the isocentre" in says[0]
    assert len(says) == 1


def test_without_distances_the_size_holds_at_the_detector() -> None:
    spacing, says = header_spacing(HeaderGeometry((0.2, 0.3)), 512, 512)
    assert spacing is not None
    assert (spacing.row_mm, spacing.column_mm, spacing.at, spacing.magnification) == (
        0.2,
        0.3,
        "detector",
        None,
    )
    assert any("distances are unknown" in said for said in says)


def test_a_field_of_view_gives_the_detectors_pixel() -> None:
    header = HeaderGeometry(
        source_to_detector_mm=860.0, source_to_patient_mm=720.0, field_of_view_mm=(200.0, 100.0)
    )
    spacing, says = header_spacing(header, 256, 512)
    assert spacing is not None
    assert spacing.row_mm == pytest.approx(100 / 256 * 720 / 860)
    assert spacing.column_mm == pytest.approx(200 / 512 * 720 / 860)
    assert any("as if it filled the frame" in said for said in says)


def test_a_calibrated_size_is_said_to_hold_at_its_object() -> None:
    spacing, _ = header_spacing(HeaderGeometry(pixel_spacing_mm=(0.25, 0.25)), 512, 512)
    assert spacing is not None
    assert spacing.at == "calibrated object"


def test_what_the_header_leaves_out_is_unknown() -> None:
    spacing, says = header_spacing(HeaderGeometry(source_to_detector_mm=900.0), 512, 512)
    assert spacing is None
    assert says[-1] == "A pixel's size is unknown: the header does not say it."


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (HeaderGeometry((0.4, 0.4), 700.0, 720.0), "distances are not believed: 720 mm to the patient"),
        (HeaderGeometry((0.4, 0.4), magnification=0.2), "magnification 0.2 is not believed"),
        (HeaderGeometry((0.4, 0.4), 900.0, 600.0, 1.2), "1.200 and its distances, 1.500, differ"),
        (HeaderGeometry((float("nan"), 0.4)), "is not believed; 0.01 to 5 mm are"),
    ],
)
def test_figures_that_cannot_be_are_named(header: HeaderGeometry, sentence: str) -> None:
    _, says = header_spacing(header, 512, 512)
    assert any(sentence in said for said in says)


def grid(
    row_px: float, column_px: float, size: int = 320, thick: float = 2.0, noise: float = 3.0
) -> np.ndarray:
    """Lead lines before a bright field."""
    picture = np.full((4 * size, 4 * size), 150.0, np.float32)
    for at in np.arange(10.3, size, row_px):
        picture[round(4 * at) : round(4 * (at + thick))] *= 0.5
    for at in np.arange(7.7, size, column_px):
        picture[:, round(4 * at) : round(4 * (at + thick))] *= 0.5
    small = cv2.resize(cv2.GaussianBlur(picture, (0, 0), 3), (size, size), interpolation=cv2.INTER_AREA)
    return (small + np.random.default_rng(0).normal(0, noise, small.shape)).astype(np.float32)


@pytest.mark.parametrize(("row_px", "column_px"), [(20.0, 20.0), (17.3, 24.6), (41.5, 33.2)])
def test_a_grid_gives_both_sizes(row_px: float, column_px: float) -> None:
    spacing = measured_spacing(grid(row_px, column_px), (10.0, 10.0))
    assert spacing.row_mm == pytest.approx(10.0 / row_px, rel=0.005)
    assert spacing.column_mm == pytest.approx(10.0 / column_px, rel=0.005)
    assert 0 < spacing.uncertainty < 0.01


def test_a_step_wedge_gives_its_direction_and_the_other_is_taken_as_square() -> None:
    steps = np.exp(-0.15 * np.floor(np.arange(300) / 27.4)).astype(np.float32)
    wedge = 200 * np.tile(steps, (80, 1)) + np.random.default_rng(0).normal(0, 1, (80, 300))
    spacing = measured_spacing(wedge.astype(np.float32), (0.0, 8.0))
    assert spacing.column_mm == pytest.approx(8.0 / 27.4, rel=0.01)
    assert spacing.row_mm == spacing.column_mm


def test_a_picture_without_lines_is_refused() -> None:
    noise = np.random.default_rng(0).normal(100, 5, (200, 200)).astype(np.float32)
    with pytest.raises(CalibrationError, match=r"needed at least 4 lines or steps .* hold the table still"):
        measured_spacing(noise, (10.0, 10.0))


def test_a_pitch_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"pitch_mm must be above 0"):
        measured_spacing(grid(20.0, 20.0), (0.0, 0.0))
