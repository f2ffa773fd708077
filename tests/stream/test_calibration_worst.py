"""The worst frame's picture: what it shows, and what it must not."""

import cv2
import numpy as np
import pytest

from calib.precision import WorstFrame
from stream.calibration_worst import GAP_PX, HEAD_PX, MOST_PX, WORDS_PX, WorstPanels, plot_worst, worst_panels


def worst(side: int = 512, max_value: int = 255) -> WorstFrame:
    """A gradient in which an engine draws a square darker by a tenth of the range."""
    dtype = np.uint8 if max_value == 255 else np.uint16
    expected = np.tile(np.linspace(0.2, 0.8, side) * max_value, (side, 1)).astype(dtype)
    drawn = expected.copy()
    drawn[side // 4 : side // 2, side // 4 : side // 2] -= dtype(max_value // 10)
    return WorstFrame(6, expected, expected, drawn, 25.5)


def all_field(side: int = 512) -> np.ndarray:
    return np.full((side, side), 255, np.uint8)


@pytest.mark.parametrize("max_value", [255, 4095])
def test_the_numbers_are_of_255_whatever_the_bits(max_value: int) -> None:
    panels = worst_panels(worst(max_value=max_value), all_field(), max_value)
    assert panels.apart.max() == pytest.approx(25.5, abs=0.6)
    assert "frame 7 of those judged: largest difference 25." in panels.words
    assert "6.25 % of the pixels differ" in panels.words
    assert panels.expected[0, 0] < 10
    assert panels.expected[0, -1] > 245


def test_nothing_is_shown_outside_the_field_or_over_burned_in_text() -> None:
    field = all_field()
    field[:40] = 0
    field[130:140, 130:140] = 0
    panels = worst_panels(worst(), field, 255)
    for picture in (panels.expected, panels.drawn, panels.apart):
        assert not picture[:40].any()
        assert not picture[130:140, 130:140].any()
    inverted = worst_panels(worst(), field, 255, inverted=True)
    assert not inverted.expected[:40].any()
    assert inverted.expected[100, 0] > 245


def test_without_a_geometry_no_letter_can_be_read() -> None:
    live = np.full((512, 512), 120, np.uint8)
    cv2.putText(live, "DOE JANE 1955", (60, 250), cv2.FONT_HERSHEY_SIMPLEX, 0.6, 240, 1)
    shown = WorstFrame(0, live, live, live, 0.0)
    readable = worst_panels(shown, all_field(), 255).expected
    reduced = worst_panels(shown, all_field(), 255, readable=False).expected
    assert readable.shape == (512, 512)
    # As many different pixels as a picture of 64 x 64 has; letters of 13 pixels are one or two of them high.
    step = 432 // 64
    blocks = reduced.reshape(64, step, 64, step)
    assert (blocks == blocks[:, :1, :, :1]).all()


def test_a_large_frame_is_reduced_and_a_small_one_enlarged_by_whole_pixels() -> None:
    large = worst_panels(worst(2048), all_field(2048), 255)
    assert large.apart.shape == (MOST_PX, MOST_PX)
    assert large.apart.max() == pytest.approx(25.0)  # a difference is not averaged away
    small = worst_panels(worst(128), all_field(128), 255)
    assert small.apart.shape == (384, 384)


def test_panels_stand_side_by_side_pixel_for_pixel() -> None:
    panels = worst_panels(worst(), all_field(), 255)
    data = plot_worst("torch f32", {"openvino bf16": panels, "openvino int8": panels}, readable=True)
    picture = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_GRAYSCALE)
    assert picture is not None
    assert picture.shape == (HEAD_PX + 2 * (512 + WORDS_PX + GAP_PX), 3 * 512 + 4 * GAP_PX)
    top = HEAD_PX + WORDS_PX
    for column, shown in enumerate((panels.expected, panels.drawn)):
        left = GAP_PX + column * (512 + GAP_PX)
        part = picture[top : top + 512, left : left + 512]
        assert np.abs(part.astype(int) - shown).max() <= 1
    left = GAP_PX + 2 * (512 + GAP_PX)
    difference = picture[top : top + 512, left : left + 512]
    np.testing.assert_array_equal(difference == 255, panels.apart > 0)
    assert b"Software" not in data


def test_no_engine_is_no_picture() -> None:
    none: dict[str, WorstPanels] = {}
    with pytest.raises(ValueError, match="worst frame of one engine at least"):
        plot_worst("torch f32", none, readable=True)
