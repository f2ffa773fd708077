"""Default grey levels: linear, windowed, inverted, and always to be mapped back."""

import numpy as np
import pytest

from calib.intensity import default_tables


def to_grey(table: np.ndarray, stored: np.ndarray, bits_stored: int) -> np.ndarray:
    return np.interp(stored, np.linspace(0, (1 << bits_stored) - 1, 256), table)


def to_stored(inverse: np.ndarray, grey: np.ndarray) -> np.ndarray:
    return np.interp(grey, np.linspace(0, 1, 256), inverse)


@pytest.mark.parametrize("bits_stored", [8, 10, 12, 16])
def test_without_a_window_the_whole_range_is_linear(bits_stored: int) -> None:
    table, inverse = default_tables(bits_stored)
    largest = (1 << bits_stored) - 1
    assert table.dtype == inverse.dtype == np.float32
    np.testing.assert_allclose(table, np.linspace(0, 1, 256), atol=1e-6)
    np.testing.assert_allclose(inverse, np.linspace(0, largest, 256), rtol=1e-6)


def test_monochrome1_is_inverted() -> None:
    table, inverse = default_tables(8, inverted=True)
    assert (table[0], table[-1]) == (1.0, 0.0)
    assert (inverse[0], inverse[-1]) == (255.0, 0.0)


@pytest.mark.parametrize("inverted", [False, True], ids=["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("bits_stored", "window"),
    [
        pytest.param(8, (128.0, 256.0), id="whole range"),
        pytest.param(10, (250.0, 500.0), id="lower half"),
        pytest.param(12, (2048.0, 1000.0), id="middle"),
        pytest.param(12, (5000.0, 100.0), id="outside"),
        pytest.param(16, (300.0, 40.0), id="narrower than a knot"),
    ],
)
def test_every_table_is_strictly_monotone_and_maps_back(
    bits_stored: int, window: tuple[float, float], inverted: bool
) -> None:
    table, inverse = default_tables(bits_stored, inverted, window)
    largest = (1 << bits_stored) - 1
    steps = np.diff(table) * (-1 if inverted else 1)
    assert (steps > 0).all()
    assert inverse.min() >= 0
    assert inverse.max() <= largest
    # The inverse has 256 levels too: exact but for the bends, where it cuts the corner.
    grey = np.linspace(0, 1, 1000)
    back = to_grey(table, to_stored(inverse, grey), bits_stored)
    assert np.abs(back - grey).max() <= 1 / 255


def test_a_window_takes_nine_tenths_of_the_grey_levels() -> None:
    table, _ = default_tables(12, window=(2048.0, 1025.0))
    grey = to_grey(table, np.array([0.0, 1535.5, 2559.5, 4095.0]), 12)
    np.testing.assert_allclose(grey, [0.0, 0.05, 0.95, 1.0], atol=0.01)


@pytest.mark.parametrize(
    ("bits_stored", "window", "message"),
    [
        pytest.param(7, None, "bits_stored must be 8 to 16, got 7", id="bits"),
        pytest.param(8, (128.0, 0.5), "width of 1 or more, got 128.0 and 0.5", id="width"),
        pytest.param(8, (float("nan"), 10.0), "finite centre", id="centre"),
    ],
)
def test_bad_settings_are_refused(bits_stored: int, window: tuple[float, float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        default_tables(bits_stored, window=window)
