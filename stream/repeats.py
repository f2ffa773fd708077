"""Repeats: a grabber runs at 60 Hz while the room pulses slower, and repeats the held image when the pedal is up."""

import ctypes

import cv2
import numpy as np

from stream.frame import FrameFormat

BLOCK = 16
NOISE_GREY_LEVELS = 1.0
"""Our choice: a card's converter moves a pixel by about a grey level of 255, X-ray quanta by several. The mean
over a 16 x 16 block hides neither a moved wire nor quantum noise."""

_memcmp = ctypes.CDLL(None).memcmp
_memcmp.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
_memcmp.restype = ctypes.c_int


class RepeatDetector:
    """Tells whether a frame is the one before again. Allocates its buffers once.

    Args:
        frame_format: The format of the frames.
        noise: Also take a frame for a repeat that differs only by a card's converter noise. For live devices;
            a recording's repeats are bit-identical.
    """

    def __init__(self, frame_format: FrameFormat, *, noise: bool) -> None:
        self._bytes = frame_format.pixels * frame_format.sample_bytes
        self._limit = NOISE_GREY_LEVELS * frame_format.max_value / 255.0
        shape = (frame_format.rows, frame_format.columns)
        self._difference = np.empty(shape, frame_format.dtype) if noise else None
        blocks = (-(-frame_format.rows // BLOCK), -(-frame_format.columns // BLOCK))
        self._blocks = np.empty(blocks, frame_format.dtype)
        self._previous: np.ndarray | None = None

    def is_repeat(self, frame: np.ndarray) -> bool:
        """Compare a frame with the one given before, which must still hold its pixels.

        Args:
            frame: (rows, columns), contiguous. Kept by reference until the next call; never written.
        """
        previous, self._previous = self._previous, frame
        if previous is None or previous is frame:
            return False
        if _memcmp(previous.ctypes.data, frame.ctypes.data, self._bytes) == 0:
            return True
        if self._difference is None:
            return False
        cv2.absdiff(previous, frame, dst=self._difference)
        height, width = self._blocks.shape
        cv2.resize(self._difference, (width, height), dst=self._blocks, interpolation=cv2.INTER_AREA)
        return float(self._blocks.max()) <= self._limit
