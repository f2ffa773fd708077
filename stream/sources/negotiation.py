"""Which of a capture device's modes is taken, and what a person is told of it. No device is touched here.

`negotiate` speaks to anything with `get` and `set` like `cv2.VideoCapture`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

from stream.errors import SourceError
from stream.sources.options import LumaRange, SourceOptions
from stream.sources.v4l2 import DeviceFormat

Layout = Literal["plane", "packed", "jpeg", "bgr", "rgb", "gray16"]
DEFAULT_RATE_HZ = 30.0
"""Asked for when nobody asks; OpenCV's own default, and the fastest pulse rate of most rooms."""
ENOUGH = 0.95
"""Share of the wanted rate at which the search for a mode ends: 29.97 is enough for 30."""
BUFFERS = 2
"""Two buffers: one fills while the other is read. More would only hold older frames."""


@dataclass(frozen=True)
class PixelFormat:
    """How the luma lies in what OpenCV delivers for one FOURCC with CAP_PROP_CONVERT_RGB off."""

    fourcc: str
    layout: Layout
    colour: bool
    luma: Literal["limited", "full"]
    """Range by the format's own default: BT.601/709 video is limited, gray, JPEG and RGB are full."""
    channel: int = 0
    """Which byte of a packed pair is luma."""
    bits_stored: int = 8


# In the order of preference: gray before colour, then uncompressed before JPEG, then few bytes before many.
FORMATS = (
    PixelFormat("Y16 ", "gray16", False, "full", bits_stored=16),
    PixelFormat("Y12 ", "gray16", False, "full", bits_stored=12),
    PixelFormat("Y10 ", "gray16", False, "full", bits_stored=10),
    PixelFormat("GREY", "plane", False, "full"),
    PixelFormat("NV12", "plane", True, "limited"),
    PixelFormat("NV21", "plane", True, "limited"),
    PixelFormat("YU12", "plane", True, "limited"),
    PixelFormat("YV12", "plane", True, "limited"),
    PixelFormat("YUYV", "packed", True, "limited", channel=0),
    PixelFormat("UYVY", "packed", True, "limited", channel=1),
    PixelFormat("MJPG", "jpeg", True, "full"),
    PixelFormat("BGR3", "bgr", True, "full"),
    PixelFormat("RGB3", "rgb", True, "full"),
)


@runtime_checkable
class Capture(Protocol):
    """The part of `cv2.VideoCapture` that a negotiation needs."""

    def get(self, property_id: int, /) -> float: ...

    def set(self, property_id: int, value: float, /) -> bool: ...


@dataclass(frozen=True)
class Mode:
    """What a device was asked for and answered."""

    columns: int
    rows: int
    pixels: PixelFormat
    rate_hz: float
    """As the driver states it; the measured rate may be lower."""
    wanted_rate_hz: float


def negotiate(capture: Capture, options: SourceOptions, current: DeviceFormat | None) -> Mode:
    """Find the mode that fits what was asked, the driver having the last word.

    Formats are tried in the order of `FORMATS`; the first that keeps the size and reaches the wanted rate is
    taken, else the fastest. So a USB 2 grabber that manages 1920x1080 at 5 per second in YUYV is asked for
    its MJPG mode at 30.

    Args:
        capture: The opened device.
        options: Size and rate asked for.
        current: The format the device was found in; its size is asked for where the options name none.

    Raises:
        SourceError: The device offers no format that is known here, or not the size that was asked for.
    """
    import cv2

    columns, rows = options.width, options.height
    if (columns is None or rows is None) and current is not None:
        columns, rows = current.columns, current.rows
    wanted_hz = options.rate_hz or DEFAULT_RATE_HZ
    capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)
    best: Mode | None = None
    for pixels in FORMATS:
        mode = _try(capture, pixels, columns, rows, wanted_hz)
        if mode is None or (options.width is not None and (mode.columns, mode.rows) != (columns, rows)):
            continue
        if best is None or mode.rate_hz > best.rate_hz:
            best = mode
        if mode.rate_hz >= ENOUGH * wanted_hz:
            break
    if best is None:
        asked = f"{columns}x{rows} pixels" if columns else "its own size"
        known = ", ".join(each.fourcc.strip() for each in FORMATS)
        raise SourceError(
            f"the device offers no picture format that is read here at {asked} (known: {known}); ask for another "
            "--width and --height; `v4l2-ctl --list-formats-ext` lists what it has"
        )
    settled = _try(capture, best.pixels, columns, rows, wanted_hz)
    if settled is None or settled != best:
        raise SourceError(f"the device offered {_named(best)} and then refused it; unplug it and try again")
    capture.set(cv2.CAP_PROP_BUFFERSIZE, BUFFERS)
    return settled


def _try(
    capture: Capture, pixels: PixelFormat, columns: int | None, rows: int | None, rate_hz: float
) -> Mode | None:
    import cv2

    code = int.from_bytes(pixels.fourcc.encode("latin-1"), "little")
    capture.set(cv2.CAP_PROP_FOURCC, code)
    if columns is not None and rows is not None:
        # OpenCV changes the size on the second of the two
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, columns)
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, rows)
    capture.set(cv2.CAP_PROP_FPS, rate_hz)
    if int(capture.get(cv2.CAP_PROP_FOURCC)) != code:
        return None
    stated_hz = capture.get(cv2.CAP_PROP_FPS)
    return Mode(
        columns=int(capture.get(cv2.CAP_PROP_FRAME_WIDTH)),
        rows=int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)),
        pixels=pixels,
        rate_hz=stated_hz if 0 < stated_hz < 1000 else 0.0,
        wanted_rate_hz=rate_hz,
    )


def luma_range(asked: LumaRange, mode: Mode, settled: DeviceFormat | None) -> Literal["limited", "full"]:
    """The range of the luma: as asked, else as the driver states it, else the pixel format's default."""
    if asked != "auto":
        return asked
    return (settled.luma if settled is not None else None) or mode.pixels.luma


def describe(mode: Mode, options: SourceOptions, settled: DeviceFormat | None) -> tuple[str, ...]:
    """What a person should know of the settled mode, a sentence each."""
    notes = [f"The device delivers {_named(mode)}."]
    if mode.rate_hz < ENOUGH * mode.wanted_rate_hz and mode.rate_hz > 0:
        notes.append(
            f"It offers at most {mode.rate_hz:g} frames per second at this size, {mode.wanted_rate_hz:g} were wanted; "
            "a smaller size may be faster."
        )
    if mode.pixels.colour:
        notes.append(f"Its colour ({mode.pixels.fourcc.strip()}) is converted: the luma is taken as gray.")
    found = luma_range(options.luma, mode, settled)
    if found == "limited" and mode.pixels.bits_stored == 8:
        reason = "as asked" if options.luma != "auto" else "as its format says; --luma full says otherwise"
        notes.append(f"Luma is expanded from 16-235 to 0-255 ({reason}).")
    if mode.pixels.bits_stored > 8:
        notes.append("Values above the bits stored are saturated.")
    if settled is not None and settled.fields is not None:
        notes.append(
            f"The picture is {settled.fields}: moving edges are combed, and the vertical resolution is halved. Ask the "
            "modality or the converter for a progressive output."
        )
    return tuple(notes)


def check_rows(mode: Mode, settled: DeviceFormat | None) -> None:
    """Refuse padded rows, which OpenCV reads as if they were not.

    Raises:
        SourceError: The driver's rows are longer than their pixels.
    """
    sample_bytes = {"plane": 1, "packed": 2, "bgr": 3, "rgb": 3, "gray16": 2}.get(mode.pixels.layout)
    if settled is None or sample_bytes is None or settled.row_bytes == 0:
        return
    needed = mode.columns * sample_bytes
    if settled.row_bytes != needed:
        raise SourceError(
            f"the device's rows must be {needed} bytes, got {settled.row_bytes} (padded), which OpenCV misreads; ask "
            "for a --width that is a multiple of 64"
        )


def _named(mode: Mode) -> str:
    rate = f"{mode.rate_hz:g} frames per second" if mode.rate_hz else "a rate it does not state"
    return f"{mode.columns}x{mode.rows} pixels of {mode.pixels.fourcc.strip()} at {rate}"
