"""Background, darkness and the lattice on pictures whose answer is known."""

import math

import cv2
import numpy as np
import pytest

from casgan.picture_metrics import darkening, exact_fraction, lattice, psnr, squared_error


def vessels(seed: int, size: int = 128) -> np.ndarray:
    """Soft dark lines as a network without a lattice draws them."""
    rng = np.random.default_rng(seed)
    plane = np.zeros((size, size), np.float32)
    for _ in range(8):
        ends = rng.integers(0, size, (2, 2))
        cv2.line(plane, tuple(map(int, ends[0])), tuple(map(int, ends[1])), 1.0, int(rng.integers(2, 6)))
    plane = cv2.GaussianBlur(plane, (0, 0), 1.2)
    return (plane + 0.01 * np.abs(rng.standard_normal(plane.shape))).astype(np.float32)


@pytest.mark.parametrize("period", [8, 4])
@pytest.mark.parametrize("depth", [0.3, 0.8])
def test_a_lattice_stands_out_at_its_own_frequency(period: int, depth: float) -> None:
    clean = [vessels(seed) for seed in range(8)]
    before = lattice(clean)
    assert max(before["ratio"].values()) < 2.0
    assert max(before["amplitude"].values()) < 0.05
    row = np.arange(128)
    grid = 1.0 + depth * np.cos(2 * np.pi * row / period)[:, None] * np.ones(128)
    found = lattice([plane * grid for plane in clean])
    assert found["ratio"][f"1/{period}"] > 5.0
    assert found["ratio"][f"1/{period}"] > 3.0 * before["ratio"][f"1/{period}"]
    assert found["amplitude"][f"1/{period}"] > 0.3 * depth


def test_an_empty_drawing_has_no_lattice_figure() -> None:
    found = lattice([np.zeros((64, 64), np.float32)])
    assert math.isnan(found["ratio"]["1/8"])
    assert math.isnan(found["amplitude"]["1/8"])


def test_a_grid_that_stands_out_of_a_soft_drawing_may_still_be_too_weak_to_matter() -> None:
    soft = [cv2.GaussianBlur(vessels(seed), (0, 0), 6.0) for seed in range(8)]
    grid = 1.0 + 0.004 * np.cos(2 * np.pi * np.arange(128) / 4)[:, None] * np.ones(128)
    found = lattice([plane * grid for plane in soft])
    assert found["ratio"]["1/4"] > 5.0
    assert found["amplitude"]["1/4"] < 0.01


def test_exact_fraction_counts_untouched_pixels_where_asked() -> None:
    attention = np.zeros((4, 4), np.uint8)
    attention[0] = 1
    everywhere = np.ones((4, 4), bool)
    assert exact_fraction(attention, everywhere) == 0.75
    below = everywhere.copy()
    below[0] = False
    assert exact_fraction(attention, below) == 1.0
    assert math.isnan(exact_fraction(attention, ~everywhere))


def test_psnr_of_one_grey_level_is_48_db_and_of_equal_pictures_infinite() -> None:
    picture = np.full((4, 4), 100.0)
    everywhere = np.ones((4, 4), bool)
    error = squared_error(picture, picture + 1.0, everywhere)
    assert psnr(error, 255.0) == pytest.approx(48.13, abs=0.01)
    assert psnr(squared_error(picture, picture, everywhere), 255.0) == math.inf


def test_darkening_is_the_mean_drop_inside_the_vessel() -> None:
    live = np.full((4, 4), 100.0)
    drawn = live.copy()
    drawn[1] -= 20.0
    vessel = np.zeros((4, 4), bool)
    vessel[1:3] = True
    assert darkening(live, drawn, vessel) == pytest.approx(10.0)
