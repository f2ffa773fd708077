"""The preview of a synthesis: each frame as the desktop window draws it, side by side, as a film and one still."""

from pathlib import Path

import numpy as np

from stream.display.compose import Composer, View
from stream.film import Film
from stream.frame import ALL_PLANES, FrameFormat, Reason, State
from stream.ring import SlotView
from stream.subscribe import Shown
from stream.wire import Header, Message

FILM = "preview.mp4"
DEFAULT_RATE_HZ = 15.0
"""For recordings that say nothing of time."""


class Preview:
    """Draws the frames of a synthesis one after the other; use it from one thread.

    Args:
        folder: Where the film grows, under a partial name until `close`.
        frame_format: Of the frames.
        rate_hz: Frames per second of the film; None where the recording says nothing.
        unmasked_text: The frames may show burned-in text.
        head: What stands in the head line beside the frame's number.
        film: Write the film; without it there is the still alone.
    """

    def __init__(
        self,
        folder: Path,
        frame_format: FrameFormat,
        *,
        rate_hz: float | None,
        unmasked_text: bool,
        head: str,
        film: bool,
    ) -> None:
        self._format = frame_format
        self._unmasked_text = unmasked_text
        self._head = head
        self._composer = Composer()
        self._view = View(mode="side")
        self._wanted = film
        self._film = Film(folder / FILM, rate_hz or DEFAULT_RATE_HZ, instead="give --no-film")
        self._largest = -1.0
        self.still = np.zeros((0, 0, 3), np.uint8)
        """The frame with the largest drawn area so far, as drawn."""

    def add(self, index: int, view: SlotView, area: float, reason: Reason) -> None:
        """Draw a frame.

        Args:
            index: Its number.
            view: Its planes.
            area: Share of its pixels that are synthetic.
            reason: Why nothing synthetic of it may be shown; NONE where it may.

        Raises:
            StreamError: No film can be written here.
        """
        if not self._wanted and area <= self._largest:
            return
        state = State.SYNTHETIC if reason is Reason.NONE else State.PASSTHROUGH
        planes = ALL_PLANES
        header = Header(
            bytes(16),
            index,
            index,
            self._format,
            state,
            reason,
            planes,
            unmasked_text=self._unmasked_text,
        )
        message = Message(header, view.live, view.synthetic, view.attention)
        drawn = self._composer.draw(
            message, self._view, Shown(state, reason), f"frame {index}  {self._head}", None
        )
        if area > self._largest:
            self._largest = area
            self.still = drawn.copy()
        if self._wanted:
            self._film.write(drawn)

    def close(self) -> None:
        """Finish the film.

        Raises:
            StreamError: As `Film.close`.
        """
        self._film.close()
