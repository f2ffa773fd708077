"""What sees the viewer's screen: a capture device, a recorded video, or the X display's own pixels.

Each gives pictures with two stamps of CLOCK_MONOTONIC: a picture shows nothing from before `began_ns`, and nothing from after
`stamp_ns`, as far as the camera knows. How far that is, each says in its `facts`.
"""

import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

from bench.errors import BenchError
from stream.errors import DisplayError
from stream.sources.options import SourceOptions
from stream.timing import NS_PER_S, Clock, MonotonicClock, sleep_until_ns

if TYPE_CHECKING:
    from stream.sources.source import Source

SCREEN_HZ = 250.0
"""How often the X display's pixels are read. Our choice: a reading takes 0.1 to 1 ms of the X server's time."""
Box = tuple[int, int, int, int]
"""Left, top, width and height in pixels."""


@dataclass(frozen=True)
class CameraFacts:
    """What a report says of a camera."""

    kind: str
    """device, video or screen."""
    name: str
    columns: int
    rows: int
    stamps: str
    """What its stamps are."""
    not_in_it: str
    """What lies between the light and the stamp, and is not measured."""
    this_clock: bool
    """Whether the stamps are of this host's clock, so that one target is enough."""
    exposes: bool
    """Whether a picture gathers light for up to an interval around its stamp, nobody knows from when to when."""
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the report."""
        return asdict(self)


@dataclass(frozen=True)
class Capture:
    """One picture."""

    began_ns: int
    stamp_ns: int
    picture: np.ndarray
    """(rows, columns) uint8 grey levels; owned by the camera until the next one."""


@runtime_checkable
class Camera(Protocol):
    """Gives one picture after the other."""

    facts: CameraFacts

    def capture(self) -> Capture | None:
        """Wait for the next picture; None at the end of a recording."""

    def look_at(self, box: Box | None) -> tuple[int, int]:
        """Look at a part of the picture only, where that is quicker; None for all of it. Returns the part's left and top."""

    def close(self) -> None:
        """Give it back."""


def open_camera(
    spec: str, *, rate_hz: float | None = None, size: tuple[int, int] | None = None
) -> "ScreenCamera | SourceCamera":
    """Open what sees the screen.

    Args:
        spec: `screen`, `v4l2:N`, or a video file.
        rate_hz: Pictures per second asked of a device.
        size: Columns and rows asked of a device.

    Raises:
        BenchError: None of these, or a package is missing.
        DisplayError: `screen` without a display.
        SourceError: The device or the file cannot be opened.
    """
    if spec == "screen":
        return ScreenCamera()
    kind, _, address = spec.partition(":")
    columns, rows = size or (None, None)
    if kind == "v4l2" and address:
        from stream.sources.device import open_device

        options = SourceOptions(rate_hz=rate_hz, width=columns, height=rows)
        return SourceCamera(open_device(address, options), _device_facts)
    path = Path(spec)
    if not path.is_file():
        raise BenchError(
            f"a camera is screen, v4l2:0 or a recorded video, got {spec}, which is no file; plug in a camera and name it v4l2:N"
        )
    from stream.sources.video import VideoSource, is_video

    with path.open("rb") as file:
        if not is_video(file.read(1 << 12)):
            raise BenchError(
                f"a recorded video is MP4, AVI, Matroska, MPEG or ASF, got {path.name} of another kind; convert it"
            )
    return SourceCamera(VideoSource(path, SourceOptions(gray=True, untimed=True)), _video_facts)


class ScreenCamera:
    """The pixels of this host's X display, as the X server holds them.

    Raises:
        BenchError: The package that reads them is missing.
        DisplayError: There is no display, or it does not answer.
    """

    def __init__(self, clock: Clock | None = None) -> None:
        name = os.environ.get("DISPLAY", "")
        if not name:
            raise DisplayError(
                "the camera screen reads an X display, got no DISPLAY in the environment; start it in a desktop session, or "
                "under Xvfb"
            )
        try:
            import mss
        except ModuleNotFoundError as error:
            raise BenchError(
                "the camera screen needs the package mss, which is not installed; run: pip install -e '.[glass]'"
            ) from error
        try:
            self._screen = mss.MSS(display=name)
            self._whole: Box = tuple(
                self._screen.monitors[0][side] for side in ("left", "top", "width", "height")
            )
        except (mss.ScreenShotError, OSError) as error:
            raise DisplayError(
                f"the camera screen needs a display that answers, got DISPLAY={name} ({error}); start it in a desktop session, "
                "or under Xvfb"
            ) from error
        self._box = self._whole
        self._clock = clock or MonotonicClock()
        self._next_ns = 0
        notes: tuple[str, ...] = ()
        if os.environ.get("WAYLAND_DISPLAY"):
            notes = (
                "This is a Wayland session, which hides most windows from X clients; log in to an X session if nothing is seen.",
            )
        self.facts = CameraFacts(
            kind="screen",
            name=f"X display {name}",
            columns=self._whole[2],
            rows=self._whole[3],
            stamps="read before and after the X server gave the pixels",
            not_in_it="the light of the panel, its scan-out and a compositor's last step: these are pixels, not light",
            this_clock=True,
            exposes=False,
            notes=notes,
        )

    def capture(self) -> Capture | None:
        import cv2

        now_ns = self._clock.now_ns()
        self._next_ns = max(now_ns, self._next_ns + round(NS_PER_S / SCREEN_HZ))
        sleep_until_ns(self._next_ns, self._clock)
        began_ns = self._clock.now_ns()
        left, top, width, height = self._box
        shot = self._screen.grab((left, top, left + width, top + height))
        stamp_ns = self._clock.now_ns()
        pixels = np.frombuffer(shot.raw, np.uint8).reshape(shot.height, shot.width, 4)
        return Capture(began_ns, stamp_ns, cv2.cvtColor(pixels, cv2.COLOR_BGRA2GRAY))

    def look_at(self, box: Box | None) -> tuple[int, int]:
        if box is None:
            self._box = self._whole
            return 0, 0
        x, y, width, height = box
        left, top, wide, high = self._whole
        x, y = max(0, x), max(0, y)
        self._box = (left + x, top + y, min(width, wide - x), min(height, high - y))
        return x, y

    def close(self) -> None:
        self._screen.close()


class SourceCamera:
    """A capture device or a recorded video, opened as a source of the pipeline is.

    Args:
        source: 8 bits, or 16 of which the upper ones are taken; owned from now on.
        facts: What to say of it.
    """

    def __init__(self, source: "Source", facts: Any) -> None:
        self._source = source
        form = source.format
        self._frame = np.empty((form.rows, form.columns), form.dtype)
        self._shift = max(0, form.bits_stored - 8)
        self.facts: CameraFacts = facts(source)

    def capture(self) -> Capture | None:
        read = self._source.read(self._frame)
        if read is None:
            return None
        stamp_ns = read.stamp_ns if read.stamp_ns is not None else time.monotonic_ns()
        picture = self._frame if not self._shift else (self._frame >> self._shift).astype(np.uint8)
        return Capture(stamp_ns, stamp_ns, picture)

    def look_at(self, box: Box | None) -> tuple[int, int]:
        return 0, 0

    def close(self) -> None:
        self._source.close()


def _device_facts(source: "Source") -> CameraFacts:
    return CameraFacts(
        kind="device",
        name=source.device or "a capture device",
        columns=source.format.columns,
        rows=source.format.rows,
        stamps="the driver's buffer stamp, taken when the exposure began or when the picture had come, which OpenCV does not tell",
        not_in_it="nothing from the source's due time to the light; the exposure and the driver's stamp are in the bounds",
        this_clock=True,
        exposes=True,
        notes=source.notes,
    )


def _video_facts(source: "Source") -> CameraFacts:
    return CameraFacts(
        kind="video",
        name="a recorded video",
        columns=source.format.columns,
        rows=source.format.rows,
        stamps="none of this host's clock",
        not_in_it="nothing: both codes are of one picture, and no clock is needed",
        this_clock=False,
        exposes=True,
        notes=source.notes,
    )
