"""The preview of a synthesis: each frame as the desktop window draws it, side by side, as a film and one still."""

import os
from pathlib import Path

import cv2
import numpy as np

from stream.display.compose import Composer, View
from stream.errors import StreamError
from stream.frame import FrameFormat, Plane, Reason, State
from stream.ring import SlotView
from stream.sources.picture import quiet_opencv
from stream.subscribe import Shown
from stream.wire import Header, Message

FILM, FILM_PARTIAL = "preview.mp4", "preview.partial.mp4"
DEFAULT_RATE_HZ = 15.0
"""For recordings that say nothing of time."""
CODEC = "mp4v"
"""MPEG-4 Part 2: 10 ms a frame here, where VP8 took 280 and VP9 1,100; the wheel of OpenCV has no H.264 encoder."""


class Preview:
    """Draws the frames of a synthesis one after the other; use it from one thread.

    Args:
        folder: Where the film grows, under a partial name until `close`.
        frame_format: Of the frames.
        rate_hz: Frames per second of the film; None where the recording says nothing.
        unmasked_text: The frames may show burned-in text.
        head: What stands in the head line beside the frame's number.
        film: Write the film; without it there is the still alone.

    Raises:
        StreamError: No film can be written here.
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
        quiet_opencv()
        self._folder = folder
        self._format = frame_format
        self._rate_hz = rate_hz or DEFAULT_RATE_HZ
        self._unmasked_text = unmasked_text
        self._head = head
        self._composer = Composer()
        self._view = View(mode="side")
        self._wanted = film
        self._film: cv2.VideoWriter | None = None
        self._frames = 0
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
        """
        if not self._wanted and area <= self._largest:
            return
        state = State.SYNTHETIC if reason is Reason.NONE else State.PASSTHROUGH
        planes = Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION
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
            self._write(drawn)

    def _write(self, drawn: np.ndarray) -> None:
        rows, columns = drawn.shape[0] // 2 * 2, drawn.shape[1] // 2 * 2  # the codec halves its colours
        if self._film is None:
            path = str(self._folder / FILM_PARTIAL)
            code = cv2.VideoWriter.fourcc(*CODEC)
            self._film = cv2.VideoWriter(path, cv2.CAP_FFMPEG, code, self._rate_hz, (columns, rows))
            if not self._film.isOpened():
                raise StreamError(
                    f"{FILM} cannot be written: OpenCV has no {CODEC} encoder here; give --no-film"
                )
        self._film.write(drawn[:rows, :columns])
        self._frames += 1

    def close(self) -> None:
        """Finish the film and give it its name.

        Raises:
            StreamError: It is not whole, which a full disk does without a word.
        """
        if self._film is None:
            return
        self._film.release()
        self._film = None
        partial = self._folder / FILM_PARTIAL
        film = cv2.VideoCapture(str(partial), cv2.CAP_FFMPEG)
        frames = round(film.get(cv2.CAP_PROP_FRAME_COUNT)) if film.isOpened() else 0
        film.release()
        if frames != self._frames:
            partial.unlink(missing_ok=True)
            raise StreamError(
                f"{FILM} could not be written whole: {frames} of {self._frames} frames; is the disk full?"
            )
        os.replace(partial, self._folder / FILM)
