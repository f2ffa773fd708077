"""Default grey levels: linear, windowed, inverted, and always to be mapped back."""

import numpy as np
import pytest

from calib.intensity import LANDMARK_GREYS, default_tables, field_landmarks, landmark_table


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


@pytest.mark.parametrize("inverted", [False, True], ids=["MONOCHROME2", "MONOCHROME1"])
@pytest.mark.parametrize(
    ("bits_stored", "low", "high"),
    [(8, 60.0, 190.0), (8, 0.0, 255.0), (10, 40.0, 504.0), (12, 900.0, 2000.0), (16, 5000.0, 30000.0)],
)
def test_landmarks_get_their_grey_levels_and_the_table_can_be_inverted(
    bits_stored: int, low: float, high: float, inverted: bool
) -> None:
    table, inverse = landmark_table(low, high, bits_stored, inverted)
    assert table.dtype == inverse.dtype == np.float32
    assert table.shape == inverse.shape == (256,)
    steps = np.diff(table.astype(np.float64)) * (-1.0 if inverted else 1.0)
    assert (steps > 0.0).all()
    greys = to_grey(table, np.array([low, high]), bits_stored)
    np.testing.assert_allclose(greys, LANDMARK_GREYS[::-1] if inverted else LANDMARK_GREYS, atol=0.005)
    inside = np.linspace(low, high, 50)
    back = to_stored(inverse, to_grey(table, inside, bits_stored))
    np.testing.assert_allclose(back, inside, atol=(high - low) / 150)


def test_what_is_darker_than_the_landmark_keeps_its_contrast() -> None:
    table, _ = landmark_table(60.0, 160.0, 8)
    grey = to_grey(table, np.array([52.0, 60.0, 68.0]), 8)
    assert grey[1] - grey[0] == pytest.approx(grey[2] - grey[1], rel=0.02)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        pytest.param(9.0, 9.0, "apart and within 0 to 255, got 9.0 and 9.0", id="same"),
        pytest.param(0.0, 300.0, "within 0 to 255, got 0.0 and 300.0", id="beyond"),
        pytest.param(float("nan"), 300.0, "got nan", id="nan"),
    ],
)
def test_landmarks_that_cannot_be_meant_are_refused(low: float, high: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        landmark_table(low, high, 8)


def test_landmarks_are_taken_inside_the_field_alone() -> None:
    frame = np.zeros((20, 20), np.uint16)
    frame[5:15, 5:15] = np.arange(100).reshape(10, 10) + 1000
    field = np.zeros((20, 20), bool)
    field[5:15, 5:15] = True
    low, high = field_landmarks(frame, field)
    assert (low, high) == (pytest.approx(1001.0, abs=0.5), pytest.approx(1098.0, abs=0.5))
    with pytest.raises(ValueError, match="0 inside"):
        field_landmarks(frame, np.zeros((20, 20), bool))
