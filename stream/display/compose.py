"""The desktop window's picture: panels, head line and foot line in one image whose buffers are made once."""

import textwrap
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from stream.display import marks
from stream.frame import State
from stream.subscribe import Shown
from stream.wire import Message

Mode = Literal["live", "synthetic", "overlay", "side"]
Panel = Literal["live", "synthetic", "overlay"]
PANELS: dict[Mode, tuple[Panel, ...]] = {
    "live": ("live",),
    "synthetic": ("synthetic",),
    "overlay": ("overlay",),
    "side": ("live", "synthetic", "overlay"),
}
HEAD_ROWS = 40
FOOT_ROWS = 30
MAX_ROWS, MAX_COLUMNS = 900, 1680
"""Panels larger than this together are shrunk before they are drawn on; a window is seldom larger."""
MIN_ROWS, MIN_COLUMNS = 256, 640
PAGE: marks.Colour = (16, 12, 9)
HELP_TOP = HEAD_ROWS + 2 * marks.BORDER
HELP = (
    "1 live   2 synthetic   3 overlay   4 side by side",
    "left, right: overlay opacity    drag: window (right wider, up brighter)",
    "space: freeze    c: compare with live    w: reset window (or double click)",
    "s: snapshot    f: full screen    ?: this help    q: quit",
)
WORDS_SCALE = 0.48
LINE_ROWS = 26
_LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789/-. "
"""Of a usual width, together."""


@dataclass
class View:
    """What the user has chosen to see."""

    mode: Mode = "side"
    opacity: int = 60
    """Of the overlay, per cent: 0 is live, 100 is synthetic, both exactly."""
    comparing: bool = False
    """Show live in place of the mode."""
    window: tuple[float, float] | None = None
    """Centre and width that the user dragged to; None for the stream's own."""
    help: bool = False
    more_help: str = ""
    """A line of the help on a key that is there only when it was asked for."""
    notice: tuple[str, ...] = ()
    """Sentences to read, over the lower end of the pictures until the next key."""

    @property
    def panels(self) -> tuple[Panel, ...]:
        """The panels shown."""
        return PANELS["live"] if self.comparing else PANELS[self.mode]


@dataclass(frozen=True)
class Frozen:
    """A picture that the user holds."""

    message: Message
    since_ns: int
    label: str
    """Time of day."""


class Composer:
    """Draws into an image of its own, made anew only when the size of the frames or the panels change."""

    def __init__(self) -> None:
        self.image = np.zeros((HEAD_ROWS + 480 + FOOT_ROWS, MIN_COLUMNS, 3), np.uint8)
        self._made_for: tuple[object, ...] = ()
        self._table_for: tuple[object, ...] = ()
        self._table = np.zeros(256, np.uint8)
        self._blend = np.zeros(0, np.uint8)
        self._grey = np.zeros(0, np.uint8)
        self._scaled = np.zeros(0, np.uint8)
        self._area = self.image[HEAD_ROWS:-FOOT_ROWS]
        self._places: list[np.ndarray] = []

    def draw(
        self,
        message: Message | None,
        view: View,
        shown: Shown,
        head: str,
        frozen: tuple[float, str] | None,
        adaptation: str = "",
    ) -> marks.Image:
        """Draw the picture.

        Args:
            message: The frame; None where none has come yet.
            view: What to show of it.
            shown: The state, by the clock.
            head: The head line's figures, after the state.
            frozen: Seconds the picture has been held and since what time of day; None while it is live.
            adaptation: The words on the patient's adaptation, for the foot line; empty where none is asked for.

        Returns:
            (rows, columns, 3) blue, green, red. Owned by the composer and overwritten by the next call.
        """
        self.image[:HEAD_ROWS] = self.image[-FOOT_ROWS:] = PAGE
        if message is None:
            self._area[:] = 0
        else:
            self._fit(message, view)
            self._draw_panels(message, view)
            if message.header.faults_injected:
                for place in self._places:
                    marks.burn_test(place)
        if frozen is None:
            marks.change_picture(self._area, shown)
        else:
            marks.mark_frozen(self._area, *frozen, shown)
        self._draw_lines(message, shown, head, adaptation)
        if view.help:
            self._draw_words((*HELP, *((view.more_help,) if view.more_help else ())), HELP_TOP)
        if view.notice:
            self._draw_words(view.notice, None)
        return self.image

    def _fit(self, message: Message, view: View) -> None:
        rows, columns = message.live.shape
        panels = len(view.panels)
        made_for = (rows, columns, panels, message.live.dtype)
        if made_for == self._made_for:
            return
        self._made_for = made_for
        most = min(MAX_ROWS / rows, MAX_COLUMNS / (columns * panels))
        # Small frames are enlarged by a whole number, so that words fit on them.
        scale = min(most, 1.0) if rows >= MIN_ROWS or most < 2 else min(-(-MIN_ROWS // rows), int(most))
        tall, wide = round(rows * scale), round(columns * scale)
        # Around the pictures there is room for the border of a state that is not live: it hides no pixel.
        border = marks.BORDER
        total = max(wide * panels, MIN_COLUMNS) + 2 * border
        self.image = np.zeros((HEAD_ROWS + tall + 2 * border + FOOT_ROWS, total, 3), np.uint8)
        self._area = self.image[HEAD_ROWS:-FOOT_ROWS]
        left = (total - wide * panels) // 2
        self._places = [
            self._area[border : border + tall, left + index * wide : left + (index + 1) * wide]
            for index in range(panels)
        ]
        self._blend = np.empty((rows, columns), message.live.dtype)
        self._grey = np.empty((rows, columns), np.uint8)
        self._scaled = np.empty((tall, wide), np.uint8)

    def _draw_panels(self, message: Message, view: View) -> None:
        self._area[:] = 0
        table = self._window_table(message, view)
        for panel, place in zip(view.panels, self._places, strict=True):
            self._draw_plane(self._plane(message, panel, view.opacity), table, place)
            if panel != "live":
                percent = view.opacity if panel == "overlay" else None
                marks.burn_mark(place, *marks.synthetic_mark(message, percent))

    def _plane(self, message: Message, panel: Panel, opacity: int) -> np.ndarray:
        if panel == "live" or not marks.has_synthetic(message):
            return message.live
        assert message.synthetic is not None
        if panel == "synthetic":
            return message.synthetic
        # Both of one message, so of one frame.
        weight = opacity / 100
        cv2.addWeighted(message.synthetic, weight, message.live, 1 - weight, 0.0, dst=self._blend)
        return self._blend

    def _window_table(self, message: Message, view: View) -> np.ndarray:
        frame_format = message.header.frame_format
        table_for = (frame_format, view.window)
        if table_for != self._table_for:
            self._table_for = table_for
            self._table = marks.window_table(message.header, view.window)
        return self._table

    def _draw_plane(self, plane: np.ndarray, table: np.ndarray, place: np.ndarray) -> None:
        if plane.dtype == np.uint8:
            cv2.LUT(plane, table, dst=self._grey)
        else:
            # "clip" lets numpy write into `out` directly; no 16-bit value lies outside the table.
            np.take(table, plane, out=self._grey, mode="clip")
        grey = self._grey
        if grey.shape != place.shape[:2]:
            shrink = grey.shape[0] > place.shape[0]
            method = cv2.INTER_AREA if shrink else cv2.INTER_LINEAR
            cv2.resize(grey, place.shape[1::-1], dst=self._scaled, interpolation=method)
            grey = self._scaled
        cv2.cvtColor(grey, cv2.COLOR_GRAY2BGR, dst=place)

    def _draw_lines(self, message: Message | None, shown: Shown, head: str, adaptation: str) -> None:
        colour = (
            marks.SYNTHETIC_COLOUR
            if shown.state is State.SYNTHETIC
            else marks.NOT_LIVE.get(shown.state, (marks.PLAIN_COLOUR, 1.0))[0]
        )
        words = marks.state_words(shown)
        if message is not None and message.header.faults_injected:
            words = f"{marks.TEST_WORDS}: {words}"
        head_line, foot_line = self.image[:HEAD_ROWS], self.image[-FOOT_ROWS:]
        marks.write(head_line, words, (12, 26), colour, scale=0.6, thickness=2)
        left = 12 + marks.text_size(words, 0.6, 2)[0] + 24
        marks.write(head_line, head, (left, 26), marks.PLAIN_COLOUR, scale=0.48)
        foot = f"{adaptation}.  {marks.NOT_A_DEVICE}" if adaptation else marks.NOT_A_DEVICE
        if message is not None and message.header.unmasked_text:
            foot += "  Burned-in text is not masked: may show patient data."
        scale = min(0.45, 0.45 * (self.image.shape[1] - 24) / marks.text_size(foot, 0.45)[0])
        marks.write(foot_line, foot, (12, 20), marks.QUIET_COLOUR, scale=scale)

    def _draw_words(self, sentences: tuple[str, ...], top: int | None) -> None:
        """Write sentences on black, broken where they are too long; without a top they end at the foot line."""
        letter = marks.text_size(_LETTERS, WORDS_SCALE)[0] / len(_LETTERS)
        most = max(int((self.image.shape[1] - 40) / letter), 20)
        lines = [line for sentence in sentences for line in textwrap.wrap(sentence, most)]
        rows = LINE_ROWS * len(lines) + 16
        if top is None:
            top = max(self.image.shape[0] - FOOT_ROWS - rows, HEAD_ROWS)
        self.image[top : top + rows] = 0
        for index, line in enumerate(lines):
            at = (20, top + LINE_ROWS * (index + 1))
            marks.write(self.image, line, at, marks.PLAIN_COLOUR, scale=WORDS_SCALE)
