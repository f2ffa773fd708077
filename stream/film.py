"""An MPEG-4 film of drawn pictures, written under a partial name and checked when it is whole."""

import os
from pathlib import Path

import cv2
import numpy as np

from stream.errors import OutputError
from stream.sources.picture import quiet_opencv

CODEC = "mp4v"
"""MPEG-4 Part 2: 10 ms a frame here, where VP8 took 280 and VP9 1,100; the wheel of OpenCV has no H.264 encoder."""


class Film:
    """Writes pictures of one size, one after the other.

    Args:
        path: Where it will lie; it grows beside it as NAME.partial.mp4.
        rate_hz: Pictures per second.
        instead: What the user can do without a film, for the sentence.
    """

    def __init__(self, path: Path, rate_hz: float, *, instead: str) -> None:
        quiet_opencv()
        self._path = path
        self._partial = path.with_name(f"{path.stem}.partial{path.suffix}")
        self._rate_hz = rate_hz
        self._instead = instead
        self._writer: cv2.VideoWriter | None = None
        self.frames = 0

    def write(self, drawn: np.ndarray) -> None:
        """Append a picture.

        Args:
            drawn: (rows, columns, 3) uint8, blue, green, red.

        Raises:
            OutputError: No film can be written here.
        """
        rows, columns = drawn.shape[0] // 2 * 2, drawn.shape[1] // 2 * 2  # the codec halves its colours
        if self._writer is None:
            code = cv2.VideoWriter.fourcc(*CODEC)
            path = str(self._partial)
            self._writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, code, self._rate_hz, (columns, rows))
            if not self._writer.isOpened():
                raise OutputError(
                    f"{self._path.name} cannot be written: OpenCV has no {CODEC} encoder here, or the disk is full; "
                    f"{self._instead}"
                )
        self._writer.write(drawn[:rows, :columns])
        self.frames += 1

    def close(self) -> None:
        """Finish the film and give it its name.

        Raises:
            OutputError: It is not whole, which a full disk does without a word.
        """
        if self._writer is None:
            return
        self._writer.release()
        self._writer = None
        film = cv2.VideoCapture(str(self._partial), cv2.CAP_FFMPEG)
        frames = round(film.get(cv2.CAP_PROP_FRAME_COUNT)) if film.isOpened() else 0
        film.release()
        if frames != self.frames:
            self._partial.unlink(missing_ok=True)
            raise OutputError(
                f"{self._path.name} could not be written whole: {frames} of {self.frames} frames; is the disk full?"
            )
        os.replace(self._partial, self._path)
