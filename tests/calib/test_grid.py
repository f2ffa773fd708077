"""A pixel's size measured on lines of known pitch, and refused where there are none."""

import cv2
import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.errors import CalibrationError
from calib.grid import compared, measured_spacing, shown_part, spacing_on_phantom
from calib.phantom import Phantom
from calib.results import PixelSpacing


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


@pytest.mark.parametrize("degrees", [1.0, 2.0, 3.0])
def test_a_grid_may_be_turned_by_a_few_degrees(degrees: float) -> None:
    turn = cv2.getRotationMatrix2D((240.0, 240.0), degrees, 1.0)
    turned = cv2.warpAffine(grid(20.0, 20.0, size=480), turn, (480, 480), borderMode=cv2.BORDER_REFLECT)
    spacing = measured_spacing(turned[60:-60, 60:-60], (10.0, 10.0))
    assert spacing.row_mm == pytest.approx(0.5, rel=0.005)


@pytest.mark.parametrize("seed", range(6))
def test_anatomy_is_no_grid_and_no_wedge(seed: int) -> None:
    phantom = Phantom(PhantomConfig(seed=seed, rows=256, columns=256, contrast=True))
    mean = np.mean([phantom.frame(index).angiogram for index in range(4)], axis=0, dtype=np.float32)
    inside = mean[20:-20, 20:-20]
    for pitch in ({"grid_mm": 10.0, "wedge_mm": None}, {"grid_mm": None, "wedge_mm": 10.0}):
        with pytest.raises(CalibrationError, match="got none that repeat through the whole part"):
            spacing_on_phantom(inside, **pitch, at="isocentre")


def test_lines_over_half_of_the_picture_are_not_believed() -> None:
    picture = grid(20.0, 20.0)
    picture[:, 160:] = 120.0 + np.random.default_rng(1).normal(0, 3, (320, 160))
    with pytest.raises(CalibrationError, match="got none that repeat through the whole part"):
        measured_spacing(picture, (20.0, 0.0))
    half = measured_spacing(np.ascontiguousarray(picture[:, :150]), (10.0, 0.0))
    assert half.row_mm == pytest.approx(0.5, rel=0.005)


def test_a_wedge_is_found_along_either_direction_and_a_grid_is_no_wedge() -> None:
    steps = np.exp(-0.15 * np.floor(np.arange(300) / 27.4)).astype(np.float32)
    noise = np.random.default_rng(0).normal(0, 1, (120, 300)).astype(np.float32)
    across = 200 * np.tile(steps, (120, 1)) + noise
    for picture in (across, np.ascontiguousarray(across.T)):
        found, says = spacing_on_phantom(picture, grid_mm=None, wedge_mm=8.0, at="detector")
        assert found.column_mm == pytest.approx(8.0 / 27.4, rel=0.01)
        assert found.source == "a step wedge of 8 mm"
        assert (
            "at the detector, measured on a step wedge of 8 mm (relative standard uncertainty 0." in says[0]
        )
    with pytest.raises(CalibrationError, match="got lines that repeat both ways; is it a grid"):
        spacing_on_phantom(grid(20.0, 20.0), grid_mm=None, wedge_mm=8.0, at="detector")


def test_sizes_that_differ_are_told() -> None:
    _, says = spacing_on_phantom(grid(20.0, 24.0), grid_mm=10.0, wedge_mm=None, at="isocentre")
    assert "Row and column spacing differ by 20.0 %" in says[1]
    measured = PixelSpacing(0.3, 0.3, "calibrated object", "a grid of 10 mm", None, 0.001)
    header = PixelSpacing(0.33, 0.33, "isocentre", "Imager Pixel Spacing", 1.3, 0.0)
    assert "0.3300 x 0.3300 mm at the isocentre, 10.0 % more; the measured size" in compared(measured, header)


def test_the_part_that_is_looked_at_leaves_the_fields_edges_out() -> None:
    field = np.zeros((400, 500), np.uint8)
    field[40:380, 60:480] = 255
    box = shown_part(field)
    assert field[box.top : box.bottom, box.left : box.right].all()
    assert (box.top, box.left) >= (40, 60)
    assert box.bottom - box.top > 0.85 * 340
    round_field = np.zeros((400, 400), np.uint8)
    cv2.circle(round_field, (200, 200), 190, 255, -1)
    box = shown_part(round_field)
    assert (round_field[box.top : box.bottom, box.left : box.right] > 0).mean() > 0.995
    with pytest.raises(CalibrationError, match="needed a field of 64 pixels a side or more"):
        shown_part(np.zeros((400, 400), np.uint8))
