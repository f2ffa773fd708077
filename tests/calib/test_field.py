"""The mask that follows from corners, a circle and burned-in boxes."""

import numpy as np
import pytest

from calib.field import field_mask, inside_field, whole_box, whole_picture
from calib.results import Box, FieldCircle, GeometryResult


def result(
    corners: tuple[tuple[float, float], ...] | None = None,
    circle: FieldCircle | None = None,
    burned_in: tuple[Box, ...] = (),
) -> GeometryResult:
    return GeometryResult(
        passed=True,
        frames=9,
        residual=0.5,
        limit=4.0,
        unit="px",
        says=(),
        rows=64,
        columns=96,
        shape="rectangle",
        corners=corners or whole_picture(64, 96),
        circle=circle,
        field_share=1.0,
        letterbox=whole_box(64, 96),
        burned_in=burned_in,
        table_shift_px=0.0,
        spacing=None,
    )


def test_without_an_edge_all_of_the_picture_is_field() -> None:
    mask = field_mask(result(), 64, 96)
    assert mask.dtype == np.uint8
    assert mask.shape == (64, 96)
    assert (mask == 255).all()


def test_a_pixel_is_inside_when_its_middle_is() -> None:
    mask = field_mask(result(((10.4, 5.6), (80.6, 5.6), (80.6, 50.4), (10.4, 50.4))), 64, 96)
    rows, columns = np.nonzero(mask)
    assert (columns.min(), columns.max() + 1) == (10, 81)
    assert (rows.min(), rows.max() + 1) == (6, 50)


def test_circle_and_corners_hold_together() -> None:
    circle = FieldCircle(48.0, 32.0, 30.0)
    inside = inside_field(((0.0, 0.0), (60.0, 0.0), (60.0, 64.0), (0.0, 64.0)), circle, 64, 96)
    assert not inside[:, 60:].any()
    assert inside[32, 18]
    assert not inside[32, 17]
    assert abs(inside_field(whole_picture(64, 96), circle, 64, 96).sum() - np.pi * 900) < 20


def test_burned_in_boxes_are_cut_out() -> None:
    mask = field_mask(result(burned_in=(Box(3, 2, 20, 9), Box(90, 60, 96, 64))), 64, 96)
    assert (mask == 0).sum() == 17 * 7 + 6 * 4
    assert not mask[2:9, 3:20].any()


def test_frames_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needed frames of 64 x 96 .* got 96 x 64; calibrate again"):
        field_mask(result(), 96, 64)
