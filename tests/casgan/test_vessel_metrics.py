"""Vessel metrics on drawings whose answer is known."""

import math

import cv2
import numpy as np
import pytest

from casgan.vessel_metrics import (
    border_share,
    centreline_dice,
    centreline_distance_px,
    component_areas,
    connectivity,
    dice,
)

EMPTY = np.zeros((64, 96), bool)


def bar(row: int, first: int = 10, last: int = 80, half: int = 2) -> np.ndarray:
    """A horizontal vessel, 2 half + 1 pixels wide."""
    mask = EMPTY.copy()
    mask[row - half : row + half + 1, first:last] = True
    return mask


@pytest.mark.parametrize(
    ("drawn", "truth", "expected"),
    [
        pytest.param(bar(20), bar(20), 1.0, id="equal"),
        pytest.param(bar(20), bar(40), 0.0, id="elsewhere"),
        pytest.param(bar(20, 10, 45), bar(20), 2 * 35 / (35 + 70), id="half as long"),
        pytest.param(bar(22), bar(20), 3 / 5, id="two pixels beside"),
        pytest.param(EMPTY, bar(20), 0.0, id="nothing drawn"),
        pytest.param(EMPTY, EMPTY, math.nan, id="nothing to draw"),
    ],
)
def test_dice(drawn: np.ndarray, truth: np.ndarray, expected: float) -> None:
    assert dice(drawn, truth) == pytest.approx(expected, nan_ok=True)


def test_centreline_dice_of_a_thinner_vessel_in_its_place_is_one_where_dice_is_not() -> None:
    assert centreline_dice(bar(20), bar(20)) == 1.0
    assert centreline_dice(bar(20, half=1), bar(20, half=3)) > 0.95
    assert dice(bar(20, half=1), bar(20, half=3)) == pytest.approx(2 * 3 / (3 + 7))


def test_centreline_dice_is_the_harmonic_mean_of_precision_and_sensitivity() -> None:
    # Half the length: everything drawn is right, half of the truth is found.
    assert centreline_dice(bar(20, 10, 45), bar(20, 10, 80)) == pytest.approx(2 * 0.5 / 1.5, abs=0.03)
    assert centreline_dice(bar(40), bar(20)) == 0.0
    assert centreline_dice(EMPTY, bar(20)) == 0.0
    assert math.isnan(centreline_dice(bar(20), EMPTY))


def test_centreline_distance_is_how_far_parallel_vessels_are_apart() -> None:
    assert centreline_distance_px(bar(20), bar(27)) == pytest.approx(7.0, abs=0.3)
    assert centreline_distance_px(bar(20), bar(20)) == 0.0
    assert math.isnan(centreline_distance_px(EMPTY, bar(20)))
    # It is symmetric: a missing branch counts as a superfluous one does.
    both = bar(20) | bar(40)
    assert centreline_distance_px(both, bar(20)) == pytest.approx(centreline_distance_px(bar(20), both))
    assert centreline_distance_px(both, bar(20)) == pytest.approx(0.5 * 0.5 * 20.0, abs=0.5)


def test_connectivity_is_the_largest_part_and_specks_do_not_count() -> None:
    pieces = bar(20, 10, 40) | bar(20, 50, 60)
    pieces[50, 50:53] = True
    assert sorted(component_areas(pieces).tolist()) == [50, 150]
    assert connectivity(pieces) == pytest.approx(0.75)
    assert connectivity(bar(20)) == 1.0
    diagonal = np.eye(20, dtype=bool)
    assert connectivity(diagonal) == 1.0, "corners touch"
    assert math.isnan(connectivity(EMPTY))
    assert connectivity(pieces, least_px=1) == pytest.approx(150 / 203)


def test_border_share_counts_what_runs_along_the_field() -> None:
    field = EMPTY.copy()
    field[5:60, 5:90] = True
    assert border_share(bar(30, 20, 80), field, 4) == 0.0
    frame = np.zeros_like(field, np.uint8)
    cv2.rectangle(frame, (6, 6), (88, 58), 1, 1)
    assert border_share(frame > 0, field, 4) == 1.0
    along_and_inside = bar(30, 20, 80, half=0) | bar(7, 20, 80, half=0)
    assert border_share(along_and_inside, field, 4) == pytest.approx(0.5)
    # The frame's own edge is a border too, where the whole frame is field.
    whole = np.ones_like(field)
    assert border_share(bar(1, 20, 80, half=0), whole, 2) == 1.0
    assert border_share(bar(2, 20, 80, half=0), whole, 2) == 0.0
    assert math.isnan(border_share(EMPTY, field, 4))
