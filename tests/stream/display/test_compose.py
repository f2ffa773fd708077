"""The desktop window's picture, drawn into memory: no display is needed for these."""

import numpy as np
import pytest

from stream.display import marks
from stream.display.compose import FOOT_ROWS, HEAD_ROWS, Composer, View
from stream.frame import FrameFormat, Photometric, Plane, Reason, State
from stream.subscribe import Shown
from stream.wire import Header, Message

LIVE_NOW = Shown(State.SYNTHETIC)


def message(frame_format: FrameFormat, state: State = State.SYNTHETIC, **more: object) -> Message:
    """A frame whose synthetic plane is the live one upside down in value."""
    row, column = np.ogrid[: frame_format.rows, : frame_format.columns]
    live = ((row * 3 + column * 5) % (frame_format.max_value + 1)).astype(frame_format.dtype)
    header = Header(bytes(16), 1, 0, frame_format, state, planes=Plane.LIVE | Plane.SYNTHETIC, **more)
    return Message(header, live, (frame_format.max_value - live).astype(frame_format.dtype))


def panels(image: np.ndarray, count: int, rows: int, columns: int) -> list[np.ndarray]:
    """The pictures in an image that was drawn at their own size."""
    area = image[HEAD_ROWS:-FOOT_ROWS]
    top, left = (area.shape[0] - rows) // 2, (area.shape[1] - columns * count) // 2
    area = area[top : top + rows, left : left + columns * count]
    return [area[:, index * columns : (index + 1) * columns] for index in range(count)]


def grey(picture: np.ndarray, from_row: int = 0) -> np.ndarray:
    assert (picture[from_row:] == picture[from_row:, :, :1]).all()
    return picture[from_row:, :, 0].astype(int)


@pytest.mark.parametrize("opacity", [0, 25, 60, 100])
def test_panels_are_live_synthetic_and_their_blend(opacity):
    frame = message(FrameFormat(256, 300))
    image = Composer().draw(frame, View("side", opacity), LIVE_NOW, "", None)
    live, synthetic, overlay = panels(image, 3, 256, 300)
    np.testing.assert_array_equal(grey(live), frame.live)
    np.testing.assert_array_equal(grey(synthetic, 60), frame.synthetic[60:])
    ideal = frame.live + opacity / 100 * (frame.synthetic.astype(float) - frame.live)
    assert np.abs(grey(overlay, 60) - ideal[60:]).max() <= (0 if opacity in (0, 100) else 0.51)


@pytest.mark.parametrize(
    ("frame_format", "window", "expected"),
    [
        (FrameFormat(256, 300, 12), None, lambda x: x / 4095 * 255),
        (FrameFormat(256, 300, 16), None, lambda x: x / 65535 * 255),
        (FrameFormat(256, 300, 8, Photometric.MONOCHROME1), None, lambda x: 255.0 - x),
        (
            FrameFormat(256, 300, 10, window_center=300.0, window_width=201.0),
            None,
            lambda x: (x - 199.5) * 1.275,
        ),
        (FrameFormat(256, 300, 10), (300.0, 201.0), lambda x: (x - 199.5) * 1.275),
    ],
    ids=["12 bits", "16 bits", "MONOCHROME1", "window of the stream", "window of the user"],
)
def test_stored_values_go_through_the_window(frame_format, window, expected):
    frame = message(frame_format)
    image = Composer().draw(frame, View("live", window=window), LIVE_NOW, "", None)
    (live,) = panels(image, 1, 256, 300)
    ideal = np.clip(expected(frame.live.astype(float)), 0, 255)
    assert np.abs(grey(live) - ideal).max() <= 0.5001


@pytest.mark.parametrize("shown", [LIVE_NOW, Shown(State.STALE, age_ms=900.0)], ids=["synthetic", "stale"])
def test_injected_faults_are_written_into_every_picture(shown):
    def band(injected):
        frame = message(FrameFormat(256, 300), faults_injected=injected)
        image = Composer().draw(frame, View("side"), shown, "", None).copy()
        return [picture[-20:].astype(int) for picture in panels(image, 3, 256, 300)]

    for plain, marked in zip(band(False), band(True), strict=True):
        assert (plain == plain[:, :, :1]).all()
        assert (marked[:, :, 0] - marked[:, :, 1] > 40).sum() > 50  # magenta


def test_buffers_are_made_once_for_a_size():
    composer, view = Composer(), View("side")
    first = composer.draw(message(FrameFormat(256, 300, 12)), view, LIVE_NOW, "", None)
    again = composer.draw(message(FrameFormat(256, 300, 12)), view, LIVE_NOW, "", None)
    assert first is again
    other = composer.draw(message(FrameFormat(300, 256)), view, LIVE_NOW, "", None)
    assert other is not first
    assert other.shape[0] == HEAD_ROWS + 300 + 2 * marks.BORDER + FOOT_ROWS


@pytest.mark.parametrize(
    ("rows", "columns"),
    [(64, 64), (2048, 2048), (77, 131), (64, 2048), (2048, 64)],
    ids=lambda side: f"{side}",
)
@pytest.mark.parametrize("mode", ["live", "side"])
def test_every_size_of_frame_makes_a_picture_of_a_window_s_size(rows, columns, mode):
    frame = message(FrameFormat(rows, columns))
    image = Composer().draw(frame, View(mode), LIVE_NOW, "age 5 ms", None)
    assert 40 <= image.shape[0] - HEAD_ROWS - FOOT_ROWS <= 930
    assert 640 <= image.shape[1] <= 1710


def colour_pixels(picture: np.ndarray, colour: marks.Colour) -> int:
    return int((np.abs(picture.astype(int) - colour).max(axis=2) < 12).sum())


def test_synthetic_is_burned_into_synthetic_and_overlay_and_not_into_live():
    image = Composer().draw(message(FrameFormat(256, 300)), View("side"), LIVE_NOW, "", None)
    counts = [colour_pixels(picture, marks.SYNTHETIC_COLOUR) for picture in panels(image, 3, 256, 300)]
    assert counts[0] == 0
    assert min(counts[1:]) > 100


def test_a_passthrough_shows_live_even_where_a_synthetic_plane_came():
    frame = message(FrameFormat(256, 300), State.PASSTHROUGH, reason=Reason.UNTAUGHT)
    shown = Shown(State.PASSTHROUGH, Reason.UNTAUGHT)
    image = Composer().draw(frame, View("side"), shown, "", None)
    for picture in panels(image, 3, 256, 300):
        np.testing.assert_array_equal(grey(picture, 60), frame.live[60:])
        assert colour_pixels(picture, marks.SYNTHETIC_COLOUR) == 0
    assert marks.synthetic_mark(frame, None)[0] == "LIVE, AI off: untaught"


@pytest.mark.parametrize(
    ("state", "words"),
    [
        (State.UNCHANGED, "UNCHANGED 2.5 s"),
        (State.STALE, "STALE 2.5 s"),
        (State.NO_SIGNAL, "NO SIGNAL 2.5 s"),
    ],
    ids=lambda value: value.name if isinstance(value, State) else "",
)
def test_a_picture_that_is_not_live_is_dimmed_framed_and_labelled(state, words):
    frame, view = message(FrameFormat(256, 300)), View("live")
    bright = panels(Composer().draw(frame, view, LIVE_NOW, "", None), 1, 256, 300)[0].mean()
    shown = Shown(state, age_ms=2500.0)
    image = Composer().draw(frame, view, shown, "", None)
    colour, brightness = marks.NOT_LIVE[state]
    area = image[HEAD_ROWS:-FOOT_ROWS]
    assert colour_pixels(area[: marks.BORDER], colour) == marks.BORDER * area.shape[1]
    assert colour_pixels(area[:, -marks.BORDER :], colour) == marks.BORDER * area.shape[0]
    (picture,) = panels(image, 1, 256, 300)
    assert picture[:60].mean() == pytest.approx(brightness * bright, rel=0.15)
    assert colour_pixels(picture, marks.PLAIN_COLOUR) > 200
    assert marks.large_words(shown)[0] == words


def test_without_a_frame_the_picture_says_so_and_is_not_black():
    image = Composer().draw(None, View(), Shown(State.NO_SIGNAL), "waiting", None)
    assert colour_pixels(image, marks.LOST_COLOUR) > 10_000
    assert colour_pixels(image, marks.PLAIN_COLOUR) > 200


def test_a_frozen_picture_is_framed_and_stays_bright():
    frame, view = message(FrameFormat(256, 300)), View("live")
    live = Composer().draw(frame, view, LIVE_NOW, "", None).copy()
    frozen = Composer().draw(frame, view, Shown(State.NO_SIGNAL, age_ms=900.0), "", (1.5, "12:00:00"))
    assert colour_pixels(frozen[HEAD_ROWS : HEAD_ROWS + marks.BORDER], marks.FROZEN_COLOUR) > 5000
    np.testing.assert_array_equal(panels(frozen, 1, 256, 300)[0][:200], panels(live, 1, 256, 300)[0][:200])


def test_why_a_publisher_is_not_heard_stands_below_no_signal():
    assert marks.large_words(Shown(State.NO_SIGNAL, why="not let in")) == ("NO SIGNAL 0.0 s", "not let in")
    assert marks.large_words(Shown(State.NO_SIGNAL))[1].startswith("Nothing is heard")
