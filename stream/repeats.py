"""Repeats: a grabber runs at 60 Hz while the room pulses slower, and repeats the held image when the pedal is up."""

import ctypes

import cv2
import numpy as np

from stream.frame import FrameFormat

BLOCK = 8
NOISE_GREY_LEVELS = 1.0
"""Our choice: a card's converter moves a pixel by about a grey level of 255, X-ray quanta by several. The mean
over an 8 x 8 block hides neither a moved wire nor quantum noise."""

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
        self._held = np.empty(shape, frame_format.dtype) if noise else None
        self._previous: np.ndarray | None = None

    def is_repeat(self, frame: np.ndarray) -> bool:
        """Compare a frame with the image held so far.

        Args:
            frame: (rows, columns), contiguous; never written. Without `noise` it is kept by reference and must
                still hold its pixels at the next call.
        """
        if self._held is not None and self._difference is not None:
            return self._is_held(frame, self._held, self._difference)
        previous, self._previous = self._previous, frame
        if previous is None or previous is frame:
            return False
        return bool(_memcmp(previous.ctypes.data, frame.ctypes.data, self._bytes) == 0)

    def _is_held(self, frame: np.ndarray, held: np.ndarray, difference: np.ndarray) -> bool:
        """Whether `frame` is `held` but for the card's noise. Against the first of the repeats, not the last: a
        picture that fades slowly differs little from frame to frame."""
        if self._previous is not None:
            cv2.absdiff(held, frame, dst=difference)
            height, width = self._blocks.shape
            cv2.resize(difference, (width, height), dst=self._blocks, interpolation=cv2.INTER_AREA)
            if float(self._blocks.max()) <= self._limit:
                return True
        self._previous = held
        np.copyto(held, frame)
        return False
