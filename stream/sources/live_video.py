"""Live video that OpenCV decodes, frame by frame as it comes: a network stream, or a GStreamer pipeline."""

from typing import Any

import numpy as np

from stream.errors import SourceError, SourceGone
from stream.frame import FrameFormat
from stream.sources.options import SourceOptions
from stream.sources.picture import MAX_DECODED_SIDE, GrayFromColour, check_out, frame_format, region
from stream.sources.source import FormatChanged, Source, SourceFrame
from stream.sources.transit import Transit
from stream.timing import NS_PER_MS, NS_PER_S, Clock, MonotonicClock

_GRAY_PIXELS = ("Y800", "GREY", "Y8  ")
MAX_DRAIN_NS = NS_PER_S
"""Frames that were queued while the stream was opened are thrown away, for so long at most."""
MAX_RATE_HZ = 240.0


class LiveVideoSource(Source):
    """The frames of an open capture. Owns it.

    The newest frame wins: one that lay waiting, and that comes later than its successor was due, is passed over and counted
    as lost, wherever it was held up.

    Args:
        capture: `cv2.VideoCapture`, opened.
        name: For sentences; holds no password.
        options: `crop`, `gray`, `rate_hz`.
        kind: What people are told it is.
        note: What they should know of its times.
        clock: The clock of the frame path.

    Raises:
        SourceError: No frame comes, or frames in colour, or of a size that no stream can have.
    """

    live = True

    def __init__(
        self,
        capture: Any,
        name: str,
        options: SourceOptions,
        *,
        kind: str,
        note: str,
        clock: Clock | None = None,
    ) -> None:
        self._capture = capture
        self.kind = kind
        self._name = name
        self._options = options
        self._clock = clock or MonotonicClock()
        self._transit = Transit()
        self._gray = GrayFromColour(name, options.gray)
        self._picture: np.ndarray | None = None
        self._pending: SourceFrame | None = None
        self.device = "".join(letter for letter in name if letter.isprintable())[:64]
        try:
            self._begin(note)
        except BaseException:
            capture.release()
            raise

    def _begin(self, note: str) -> None:
        import cv2

        sides = [self._capture.get(each) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)]
        if max(sides) > MAX_DECODED_SIDE:
            raise SourceError(
                f"{self._name}: frames must be at most {MAX_DECODED_SIDE} pixels a side, got {sides[0]:g}x{sides[1]:g}; "
                "let the sender scale them"
            )
        tag = int(self._capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) & 0xFFFFFFFF
        if tag.to_bytes(4, "little").decode("latin-1") in _GRAY_PIXELS:
            self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
        rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        self.rate_hz = self._options.rate_hz or (rate_hz if 0 < rate_hz <= MAX_RATE_HZ else None)
        self._drain()
        self._pending = self._next()
        assert self._picture is not None  # _next has kept it
        self.format = self._format_of(self._picture)
        self._write(np.empty((self.format.rows, self.format.columns), np.uint8))  # refuses colour now
        coded = (
            "The luma of its colour is taken."
            if self._options.gray
            else "Its channels are checked to be equal."
        )
        self.notes = (note, *((coded,) if self._picture.ndim == 3 else ()))

    def _drain(self) -> None:
        """Take what was queued while the stream was opened, until a frame has to be waited for."""
        began_ns = now_ns = self._clock.now_ns()
        while now_ns - began_ns < MAX_DRAIN_NS:
            _, waited_ns = self._grab()
            now_ns = self._clock.now_ns()
            if waited_ns > self._transit.step_ns // 2:
                return

    def read(self, out: np.ndarray) -> SourceFrame | None:
        check_out(out, self.format)
        frame = self._pending or self._next()
        assert self._picture is not None  # _next has kept it
        if (found := self._format_of(self._picture)) != self.format:
            self._pending, self.format = frame, found
            raise FormatChanged(f"{self._name}: frames are now {found.columns}x{found.rows} pixels")
        self._pending = None
        self._write(out)
        return frame

    def close(self) -> None:
        self._capture.release()

    def _next(self) -> SourceFrame:
        """Wait for the newest frame and keep its picture."""
        lost = 0
        while True:
            late_ns, waited_ns = self._grab()
            now_ns = self._clock.now_ns()
            step_ns = self._transit.step_ns
            if late_ns > step_ns and 4 * waited_ns < 3 * step_ns:
                lost += 1  # its successor is due already, and so waits too or is about to come
                continue
            got, self._picture = self._capture.retrieve(self._picture)
            if got and self._picture is not None:
                return SourceFrame(stamp_ns=now_ns - late_ns, lost=lost)
            lost += 1

    def _grab(self) -> tuple[int, int]:
        """Decode the next frame: how late it is, and how long it had to be waited for, in ns."""
        import cv2

        began_ns = self._clock.now_ns()
        if not self._capture.grab():
            raise SourceGone(
                f"{self._name}: the stream has ended, or nothing comes any more; is its sender still there?"
            )
        now_ns = self._clock.now_ns()
        stamp_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * NS_PER_MS)
        return self._transit.late_ns(stamp_ns, now_ns), now_ns - began_ns

    def _format_of(self, picture: np.ndarray) -> FrameFormat:
        if (
            picture.dtype != np.uint8
            or picture.ndim not in (2, 3)
            or (picture.ndim == 3 and picture.shape[2] != 3)
        ):
            raise SourceError(
                f"{self._name}: needed 8-bit frames, got {picture.dtype} with shape {picture.shape}; let the sender convert them"
            )
        return frame_format(self._name, picture.shape[0], picture.shape[1], self._options.crop)

    def _write(self, out: np.ndarray) -> None:
        assert self._picture is not None  # callers have waited for it
        part = region(self._picture, self._options.crop)
        if part.ndim == 3:
            self._gray.write(part, out)
        else:
            np.copyto(out, part)
