"""Steadiness on drawings whose movement is known."""

import math

import cv2
import numpy as np
import pytest

from casgan.steadiness import flicker, relative_change, shift_test, strong

SIZE = 96


def blob_layer(picture: np.ndarray) -> np.ndarray:
    """A drawing that follows the picture exactly: 30 grey levels darker where it is dark."""
    return np.where(picture < 100, -30.0, 0.0)


def scene(side: int = SIZE + 7) -> np.ndarray:
    picture = np.full((side, side), 180, np.uint8)
    cv2.line(picture, (20, 15), (70, 80), 60, 6)
    cv2.line(picture, (70, 20), (25, 70), 60, 4)
    return picture


def test_a_drawing_that_moves_with_the_picture_does_not_change() -> None:
    found = shift_test(blob_layer, scene())
    assert found.change == dict.fromkeys(range(1, 8), 0.0)
    assert found.worst == 0.0
    assert found.strength == 30.0
    assert 0.03 < found.drawn < 0.2


def test_a_drawing_that_stays_where_it_is_changes_more_with_every_pixel() -> None:
    still = blob_layer(scene()[:SIZE, :SIZE])
    found = shift_test(lambda _picture: still, scene())
    changes = [found.change[shift] for shift in range(1, 8)]
    assert changes == sorted(changes)
    assert changes[0] > 0.1
    assert found.worst == changes[-1] > 1.0


def test_a_drawing_that_fades_in_and_out_changes_by_its_share() -> None:
    # 30 grey levels once, 20 after: |10| of a mean of 25.
    found = shift_test(lambda p: blob_layer(p) * (1.0 if p[0, 0] == 180 else 2 / 3), marked_at_origin())
    assert found.change[3] == pytest.approx(10 / 25)


def marked_at_origin() -> np.ndarray:
    picture = scene()
    picture[1:8, 0] = picture[0, 1:8] = 181
    return picture


def test_an_empty_drawing_has_no_figure_and_no_strength() -> None:
    found = shift_test(lambda picture: np.zeros(picture.shape), scene())
    assert math.isnan(found.change[1])
    assert (found.strength, found.drawn) == (0.0, 0.0)


def test_what_is_faint_beside_the_rest_does_not_count_as_drawn() -> None:
    layer = np.zeros((20, 20))
    layer[5, 5:15] = -40.0
    layer[8, 5:15] = -10.0
    layer[12] = 0.4
    assert strong(layer).sum() == 10
    assert not strong(np.full((8, 8), 0.5)).any()
    assert math.isnan(relative_change(np.zeros((8, 8)), np.zeros((8, 8))))


def moved(layer: np.ndarray, right: int) -> np.ndarray:
    return np.roll(layer, right, axis=1)


def test_flicker_of_vessels_that_move_as_the_truth_does_equals_the_truths() -> None:
    truth = [moved(blob_layer(scene()), 2 * step) for step in range(4)]
    live = [np.full(layer.shape, 150.0) for layer in truth]
    angiograms = [x + layer for x, layer in zip(live, truth, strict=True)]
    found = flicker(live, angiograms, angiograms)
    assert found.ratio == pytest.approx(found.truth_ratio)
    assert found.ratio > 0.3
    assert found.strength == pytest.approx(30.0)
    # The run itself did not change, so all of the output's change is excess.
    assert found.excess == pytest.approx(found.ratio * 30.0 * 0.7, rel=0.5)


def test_flicker_without_truth_and_without_drawing() -> None:
    live = [np.full((32, 32), 150.0)] * 3
    found = flicker(live, live)
    assert math.isnan(found.ratio)
    assert math.isnan(found.truth_ratio)
    assert (found.strength, found.drawn) == (0.0, 0.0)
    with pytest.raises(ValueError, match="needs 2 consecutive frames or more, got 1"):
        flicker(live[:1], live[:1])


def test_the_runs_own_change_is_not_called_excess() -> None:
    layer = blob_layer(scene())
    live = [np.full(layer.shape, 150.0), np.full(layer.shape, 155.0)]
    found = flicker(live, [x + layer for x in live])
    assert found.ratio == 0.0
    assert found.excess == pytest.approx(0.0)
