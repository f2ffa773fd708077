"""Capture cards and cameras through OpenCV's V4L2 backend."""

from typing import Any

import numpy as np
from jaxtyping import UInt8

from stream.errors import SourceError
from stream.frame import FrameFormat
from stream.sources.negotiation import Mode, check_rows, describe, luma_range, negotiate
from stream.sources.options import SourceOptions
from stream.sources.picture import check_out, decode_image, frame_format, quiet_opencv, region
from stream.sources.source import FormatChanged, Source, SourceFrame
from stream.sources.v4l2 import DeviceFormat, check_device, current_format, device_path
from stream.sources.within import within
from stream.timing import NS_PER_S, Clock, MonotonicClock

OPEN_TIMEOUT_S = 15.0
"""A driver that has not opened by then is given up. Our choice; OpenCV itself waits up to 10 s at one place."""
MEASURE_NS = 2 * NS_PER_S
"""The rate is measured over the first two seconds of frames."""
SLOW = 0.9
"""Share of the wanted rate below which the measured one is a warning."""
MAX_BAD_FRAMES = 30
"""Damaged frames in a row (USB loses bytes) after which the device counts as gone."""
MAX_STAMP_AGE_NS = 5 * NS_PER_S
"""An older buffer stamp, or one from the future, is of another clock and is not used."""


def open_device(address: str, options: SourceOptions) -> "DeviceSource":
    """Open `0` or `/dev/video0`, negotiate a mode, and tell what came of it.

    Raises:
        SourceError: Missing, in use, not a capture device, no mode that fits, or the driver does not answer.
    """
    path = device_path(address)
    card = check_device(path)
    before = current_format(path)

    def work() -> DeviceSource:
        capture = _open_capture(path)
        try:
            mode = negotiate(capture, options, before)
            settled = current_format(path)
            check_rows(mode, settled)
            return DeviceSource(capture, mode, options, path=path, card=card, settled=settled)
        except SourceError as error:
            capture.release()
            raise SourceError(f"{path}: {error}") from None
        except BaseException:
            capture.release()
            raise

    given_up = SourceError(
        f"{path}: the driver did not answer within {OPEN_TIMEOUT_S:g} s; unplug the device and try again"
    )
    return within(OPEN_TIMEOUT_S, work, given_up)


class DeviceSource(Source):
    """Frames of a capture device; `read` waits for the next one.

    Args:
        capture: An opened and negotiated `cv2.VideoCapture`; owned by the source from now on.
        mode: What was negotiated.
        options: Crop, luma range and bits.
        path: The device, for sentences.
        card: The device's name for itself.
        settled: What the kernel says of the negotiated format, if anything.
        clock: Whose CLOCK_MONOTONIC the buffer stamps are compared with.

    Raises:
        SourceError: The crop does not fit, or no stream has this size.
    """

    kind = "device"
    live = True

    def __init__(
        self,
        capture: Any,
        mode: Mode,
        options: SourceOptions,
        *,
        path: str = "v4l2",
        card: str = "",
        settled: DeviceFormat | None = None,
        clock: Clock | None = None,
    ) -> None:
        self._capture = capture
        self._mode = mode
        self._options = options
        self._path = path
        self._clock = clock or MonotonicClock()
        self._table = limited_range_table() if luma_range(options.luma, mode, settled) == "limited" else None
        self._bits = mode.pixels.bits_stored
        if mode.pixels.fourcc == "Y16 " and options.bits is not None:
            self._bits = options.bits
        self.format = self._format_of(mode.rows, mode.columns)
        self._shape = (mode.rows, mode.columns)
        self.rate_hz = mode.rate_hz or None
        named = (f"The device is {card} at {path}.",) if card else ()
        self.notes = named + describe(mode, options, settled)
        self.device = "".join(letter for letter in card if letter.isprintable())[:64]
        self._picture: np.ndarray | None = None
        self._pending: SourceFrame | None = None
        self._first_ns: int | None = None
        self._frames = 0
        self._bad = 0
        self._measured_hz: float | None = None
        self._stampless = False

    def read(self, out: np.ndarray) -> SourceFrame | None:
        check_out(out, self.format)
        if self._pending is None:
            frame = self._next()
            rows, columns = self._rows_columns()
            if (rows, columns) != self._shape:
                self._pending = frame
                self._shape = (rows, columns)
                self.format = self._format_of(rows, columns)
                raise FormatChanged(f"{self._path}: the device now delivers {columns}x{rows} pixels")
        else:
            frame, self._pending = self._pending, None
        self._write(out)
        return frame

    def warnings(self) -> tuple[str, ...]:
        """Damaged frames, a missing buffer stamp, and a measured rate below the wanted one."""
        found: list[str] = []
        wanted_hz = self._options.rate_hz or self._mode.rate_hz
        if self._measured_hz is not None and self._measured_hz < SLOW * wanted_hz:
            found.append(
                f"{self._path}: measured {self._measured_hz:.1f} frames per second over the first {MEASURE_NS // NS_PER_S} s, "
                f"needed {wanted_hz:g}; a smaller size, another USB port or a brighter picture (exposure) may help"
            )
        if self._bad:
            found.append(
                f"{self._path}: {self._bad} damaged frames were passed over; check the cable and the USB port"
            )
        if self._stampless:
            found.append(
                f"{self._path}: the driver's buffer stamps are not of this host's monotonic clock; frames count as due "
                "when they are read"
            )
        return tuple(found)

    def close(self) -> None:
        self._capture.release()

    def _next(self) -> SourceFrame:
        """Wait for a whole picture and keep it; the frame says when its buffer was stamped."""
        for _ in range(MAX_BAD_FRAMES):
            if not self._capture.grab():
                raise SourceError(
                    f"{self._path}: the device delivers no more frames; check that it is plugged in and has a signal"
                )
            now_ns = self._clock.now_ns()
            stamp_ns = self._stamp(now_ns)
            # a compressed frame has a length of its own each time, so its buffer cannot be used again
            again = None if self._mode.pixels.layout == "jpeg" else self._picture
            got, picture = self._capture.retrieve(again)
            if got and self._mode.pixels.layout == "jpeg":
                picture = _luma_of_jpeg(picture)
            if got and picture is not None:
                self._picture = picture
                self._measure(now_ns if stamp_ns is None else stamp_ns)
                return SourceFrame(stamp_ns=stamp_ns)
            self._bad += 1
        raise SourceError(
            f"{self._path}: needed whole frames, got {MAX_BAD_FRAMES} damaged ones in a row; check the cable and the signal"
        )

    def _stamp(self, now_ns: int) -> int | None:
        """The driver's buffer stamp where it is plausibly of CLOCK_MONOTONIC (V4L2's own clock)."""
        import cv2

        stamp_ns: int = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
        if 0 <= now_ns - stamp_ns <= MAX_STAMP_AGE_NS and stamp_ns > 0:
            return stamp_ns
        self._stampless = True
        return None

    def _measure(self, stamp_ns: int) -> None:
        if self._measured_hz is not None:
            return
        if self._first_ns is None:
            self._first_ns = stamp_ns
            return
        self._frames += 1
        elapsed_ns = stamp_ns - self._first_ns
        if elapsed_ns >= MEASURE_NS:
            self._measured_hz = self._frames * NS_PER_S / elapsed_ns

    def _format_of(self, rows: int, columns: int) -> FrameFormat:
        return frame_format(self._path, rows, columns, self._options.crop, bits_stored=self._bits)

    def _rows_columns(self) -> tuple[int, int]:
        assert self._picture is not None  # _next has kept it
        rows, columns = self._picture.shape[:2]
        if self._mode.pixels.layout == "plane" and self._mode.pixels.colour:
            rows = rows * 2 // 3  # the chroma planes lie below the luma
        return rows, columns

    def _write(self, out: np.ndarray) -> None:
        import cv2

        assert self._picture is not None  # _next has kept it
        part = region(self._picture[: self._shape[0]], self._options.crop)
        match self._mode.pixels.layout:
            case "gray16":
                np.minimum(part, self.format.max_value, out=out)
                return
            case "packed":
                cv2.extractChannel(part, self._mode.pixels.channel, dst=out)
            case "bgr" | "rgb" as order:
                cv2.cvtColor(part, cv2.COLOR_BGR2GRAY if order == "bgr" else cv2.COLOR_RGB2GRAY, dst=out)
            case _:
                if self._table is not None:
                    cv2.LUT(part, self._table, dst=out)
                    return
                np.copyto(out, part)
        if self._table is not None:
            cv2.LUT(out, self._table, dst=out)


def limited_range_table() -> UInt8[np.ndarray, "256"]:
    """Luma 16 to 235 as 0 to 255, ITU-R BT.601 section 2.5.3: y = (x - 16) 255 / 219, rounded and clipped."""
    levels = np.arange(256, dtype=np.float64)
    return np.clip(np.rint((levels - 16) * 255 / 219), 0, 255).astype(np.uint8)


def _luma_of_jpeg(coded: np.ndarray) -> np.ndarray | None:
    import cv2

    stream = coded.reshape(-1)
    if b"\xff\xd9" not in stream[-64:].tobytes():  # a decoder would fill the missing rows with gray
        return None
    return decode_image(stream, cv2.IMREAD_GRAYSCALE)


def _open_capture(path: str) -> Any:
    import cv2

    quiet_opencv()
    capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"{path}: OpenCV cannot open the device; it may be in use by another program, or deliver a format that "
            "OpenCV does not read"
        )
    return capture
