"""The source contract."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from stream.errors import SourceError
from stream.frame import FrameFormat


class FormatChanged(SourceError):
    """The next frame has another format; `source.format` is already the new one. Read again with a new buffer."""


@dataclass(frozen=True)
class SourceFrame:
    """What a source says of the frame it has just written into the caller's buffer."""

    stamp_ns: int | None = None
    """The driver's buffer stamp, CLOCK_MONOTONIC; of a recording that keeps a schedule of its own, the instant the frame
    is due, which the grabber then follows; None for every other recording."""
    contrast: bool | None = None
    """Whether the frame shows contrast medium, where the source knows (the phantom does)."""
    lost: int = 0
    """Frames before this one that the source knows it has lost; they are counted as dropped."""
    late_ns: int = 0
    """How much later than its stamp or its schedule the frame comes (`--fault jitter`)."""


class Source(ABC):
    """One stream of frames. Lives in the source process; may block, may crash there, and nothing else does.

    A recording says when each frame is due through `interval_ms`; a live device paces `read` itself.
    """

    kind: str
    """cine, video, folder, image, device, network, gstreamer, igtl or phantom. Shown to people; never holds anything from a header."""
    format: FrameFormat
    """Of the next frame."""
    live: bool = False
    """True for a device, which sets the pace; a recording is paced by the grabber."""
    rate_hz: float | None = None
    """Nominal frames per second; None where nothing says, and then a recording needs `--rate`."""
    frame_count: int | None = None
    """Frames in one pass of a recording; None for a live source."""
    read_within_s: float | None = 5.0
    """A read that takes longer hangs, and a source that can go on is opened again in a new process; None where a read may
    wait as long as it likes."""
    notes: tuple[str, ...] = ()
    """What a person should know: what was negotiated, converted or assumed, a sentence each."""
    sizes: Mapping[str, float | tuple[float, ...]] = MappingProxyType({})
    """What a recording's header says of sizes and distances, in mm, by the names of `calib.spacing.HeaderGeometry`."""
    angles_deg: tuple[float, float] | None = None
    """The C-arm's positioner primary (LAO positive) and secondary (cranial positive) angle, in degrees; None where nothing says."""
    device: str = ""
    """What tells the device from others, for a site's record: a card's name, or a hash of what a header says of it."""

    @abstractmethod
    def read(self, out: np.ndarray) -> SourceFrame | None:
        """Write the next frame's stored pixel values into `out`.

        Args:
            out: (rows, columns) of `format.dtype`, contiguous; wholly overwritten. Owned by the caller.

        Returns:
            What is known of the frame; None at the end, and then `out` is not touched.

        Raises:
            FormatChanged: The next frame has another size or depth; it is not lost, read again.
            SourceError: It cannot be decoded, or the device is gone.
        """

    def skip(self) -> bool:
        """Pass over the next frame without decoding it; False at the end."""
        raise SourceError(f"a {self.kind} source cannot skip frames")

    def interval_ms(self, index: int) -> float | None:
        """Time from frame `index - 1` to frame `index` of a recording in ms; None where nothing says.

        For `index` 0 it is the time from the last frame back to the first when the recording is looped.
        """
        return None if self.rate_hz is None else 1000.0 / self.rate_hz

    def warnings(self) -> tuple[str, ...]:
        """What has gone wrong since it was opened without stopping it, a sentence each; the grabber asks now and then."""
        return ()

    def rewind(self) -> None:
        """Start a recording again at its first frame."""
        raise SourceError(f"a {self.kind} source cannot be rewound")

    def close(self) -> None:  # noqa: B027 - most sources hold nothing to give back
        """Give back the file or the device; may be called twice."""
