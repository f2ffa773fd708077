"""The desktop window on a virtual screen: its pixels are read off the screen, its keys are pressed."""

import signal
import time
from typing import Any

import numpy as np
import pytest

from stream.display import marks
from stream.display.compose import HEAD_ROWS
from stream.display.window import check_display
from stream.errors import DisplayError

pytestmark = pytest.mark.display


def colour_pixels(screen: Any, colour: marks.Colour) -> int:
    """How many pixels of the pictures have a colour; the head line, which has it too, is left out."""
    pictures = screen.pixels()[HEAD_ROWS:].astype(int)
    return int((np.abs(pictures - colour).max(axis=2) < 12).sum())


@pytest.fixture
def window(screen, publisher, make_process):
    """A window that shows the stream.

    Bare HighGUI of opencv-python 5.0 (its own Qt 5.15) never paints its window in one start of eight on an Xvfb
    without window manager: Qt misses the window's MapNotify. So a window that stays black is started again.
    """
    publisher.change(rows=256, columns=300, rate_hz=15.0)
    for _ in range(6):
        made = make_process(
            "-m",
            "stream.display.window",
            publisher.endpoint,
            environment={"DISPLAY": screen.display},
            first_line=False,
        )
        end = time.monotonic() + 6
        while time.monotonic() < end and made.child.poll() is None:
            if colour_pixels(screen, marks.SYNTHETIC_COLOUR) > 200:
                return made
            time.sleep(0.05)
        assert made.child.poll() is None, made.end()
        made.end()
    pytest.fail("no window was painted in six starts")


def test_the_window_shows_marks_and_states_and_comes_back(screen, publisher, window, wait):
    def sees(colour: marks.Colour, at_least: int) -> Any:
        return lambda: colour_pixels(screen, colour) > at_least

    assert colour_pixels(screen, marks.LOST_COLOUR) == 0
    bright = screen.pixels().mean()

    publisher.kill()
    wait(sees(marks.LOST_COLOUR, 10_000), "the border of NO SIGNAL")
    assert screen.pixels().mean() < 0.7 * bright

    publisher.start()
    wait(lambda: colour_pixels(screen, marks.LOST_COLOUR) == 0, "the picture to come back")
    wait(sees(marks.SYNTHETIC_COLOUR, 200), "SYNTHETIC burned in again")

    publisher.change(rows=256, columns=300, state="UNCHANGED", age_ms=3000)
    wait(sees(marks.UNCHANGED_COLOUR, 10_000), "the border of UNCHANGED")


def test_keys_change_the_view_and_q_ends_it(screen, publisher, window, wait):
    def yellow() -> int:
        return colour_pixels(screen, marks.SYNTHETIC_COLOUR)

    screen.press("1")
    wait(lambda: yellow() == 0, "live alone")
    screen.press("2")
    wait(lambda: yellow() > 200, "synthetic alone")
    screen.press("space")
    wait(lambda: colour_pixels(screen, marks.FROZEN_COLOUR) > 10_000, "the border of FROZEN")
    screen.press("space")
    wait(lambda: colour_pixels(screen, marks.FROZEN_COLOUR) == 0, "the picture to go on")
    screen.press("q")
    wait(lambda: window.child.poll() is not None, "the window to close")
    assert window.end() == (0, "")


def test_a_signal_ends_the_window(window):
    assert window.end(signal.SIGTERM) == (0, "")


@pytest.mark.parametrize(
    ("display", "sentence"),
    [
        (
            "",
            "the desktop window needs an X display, got no DISPLAY in the environment; start it in a desktop",
        ),
        (
            ":4711",
            "needs a display that answers, got DISPLAY=:4711 (qt.qpa.xcb: could not connect to display",
        ),
    ],
    ids=["none", "no answer"],
)
def test_without_a_display_it_is_one_line_and_exit_2(make_process, display, sentence):
    ended = make_process("-m", "stream.display.window", environment={"DISPLAY": display}, first_line=False)
    ended.child.wait(20)
    status, stderr = ended.end()
    assert status == 2
    assert sentence in stderr
    assert stderr.count("\n") == 1


def test_the_check_leaves_this_process_alive(monkeypatch):
    monkeypatch.setenv("DISPLAY", ":4711")
    with pytest.raises(DisplayError, match=r"contrastream view --web$"):
        check_display()
