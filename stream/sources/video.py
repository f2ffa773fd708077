"""Video files through OpenCV's FFmpeg: MP4, AVI, Matroska, MPEG, ASF, as 8-bit gray."""

from pathlib import Path
from typing import Any

import numpy as np

from stream.errors import SourceError
from stream.sources.options import SourceOptions
from stream.sources.picture import (
    MAX_DECODED_SIDE,
    GrayFromColour,
    check_out,
    frame_format,
    quiet_opencv,
    region,
)
from stream.sources.source import FormatChanged, Source, SourceFrame

_GRAY_PIXELS = ("Y800", "GREY", "Y8  ")
"""FFmpeg's names of an 8-bit gray picture: its one plane is delivered without a turn through colour."""
_MAX_RATE_HZ = 1000.0


def is_video(head: bytes) -> bool:
    """Whether a file's first bytes are those of a container that holds its own frames.

    Told by content since FFmpeg also follows playlists and scripts, which may name other files and addresses.
    """
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")  # MP4, QuickTime
        or (head[:4] == b"RIFF" and head[8:12] == b"AVI ")
        or head[:4] == b"\x1a\x45\xdf\xa3"  # Matroska, WebM
        or head[:4] in (b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3")  # MPEG programme and video stream
        or (len(head) > 376 and head[0] == head[188] == head[376] == 0x47)  # MPEG transport stream
        or head[:4] == b"\x30\x26\xb2\x75"  # ASF, WMV
    )


class VideoSource(Source):
    """The frames of one video file, decoded one by one.

    Codecs carry gray as neutral colour; frames are accepted when their channels agree (`GrayFromColour`) and
    `out` gets their luma. Limited-range luma is expanded to 0 to 255 by FFmpeg.

    Args:
        path: The file.
        options: `rate_hz` overrides the container's; `gray` converts colour; `crop` is applied.

    Raises:
        SourceError: Unreadable, no frames, in colour, or without a rate.
    """

    kind = "video"

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self._path = path
        self._name = path.name
        self._options = options
        self._gray = GrayFromColour(path.name, options.gray)
        self._picture: np.ndarray | None = None
        self._pending = False
        self._read_frames = 0
        self._cut_short: str | None = None
        self._capture: Any = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        import cv2

        self._capture = _open_capture(self._path)
        claimed = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        container_rate_hz = self._capture.get(cv2.CAP_PROP_FPS)
        tag = int(self._capture.get(cv2.CAP_PROP_CODEC_PIXEL_FORMAT)) & 0xFFFFFFFF
        self._is_gray = tag.to_bytes(4, "little").decode("latin-1") in _GRAY_PIXELS
        self._prepare()
        width, height = (
            self._capture.get(each) for each in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
        )
        if (
            max(width, height) > MAX_DECODED_SIDE
        ):  # before a decoder allocates what a header of a few bytes claims
            raise SourceError(
                f"{self._name}: frames must be at most {MAX_DECODED_SIDE} pixels a side, got {width:g}x{height:g}; "
                "resample the video"
            )
        if not self._grab():
            raise SourceError(
                f"{self._name}: needed a video with at least one frame, got none that can be decoded"
            )
        self._pending = True
        assert self._picture is not None  # _grab has just filled it
        self.format = self._format_of(self._picture)
        probe = np.empty((self.format.rows, self.format.columns), np.uint8)
        self._write(probe)  # refuses colour now, not after the stream has started
        self.frame_count = int(claimed) if 0 < claimed < 1 << 31 else None
        self.rate_hz = self._options.rate_hz
        if self.rate_hz is None and 0 < container_rate_hz <= _MAX_RATE_HZ:
            self.rate_hz = container_rate_hz
        if self.rate_hz is None and not self._options.untimed:
            raise SourceError(
                f"{self._name}: the video says nothing of its rate; give --rate, for example --rate 15"
            )
        if not self._is_gray:
            verb = (
                "the luma of its colour is taken"
                if self._options.gray
                else "its channels are checked to be equal"
            )
            self.notes = (f"The video is coded in colour; {verb}.",)

    def read(self, out: np.ndarray) -> SourceFrame | None:
        check_out(out, self.format)
        if not self._pending and not self._grab():
            self._at_end()
            return None
        assert self._picture is not None  # _grab has filled it
        found = self._format_of(self._picture)
        if found != self.format:
            self._pending = True
            self.format = found
            raise FormatChanged(
                f"{self._name}: frame {self._read_frames} has another size, {found.columns}x{found.rows}"
            )
        self._pending = False
        self._read_frames += 1
        self._write(out)
        return SourceFrame()

    def skip(self) -> bool:
        if self._pending:
            self._pending = False
        elif not self._capture.grab():
            self._at_end()
            return False
        self._read_frames += 1
        return True

    def rewind(self) -> None:
        # opened again rather than sought: seeking is exact for some containers only
        self._capture.release()
        self._capture = _open_capture(self._path)
        self._prepare()
        self._pending = False
        self._read_frames = 0
        self._cut_short = None

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()

    def _prepare(self) -> None:
        import cv2

        if self._is_gray:
            self._capture.set(cv2.CAP_PROP_CONVERT_RGB, 0)

    def _grab(self) -> bool:
        """Decode the next frame into the source's own picture; False at the end."""
        got, self._picture = self._capture.read(self._picture)
        return bool(got)

    def _format_of(self, picture: np.ndarray) -> Any:
        if (
            picture.dtype != np.uint8
            or picture.ndim not in (2, 3)
            or (picture.ndim == 3 and picture.shape[2] != 3)
        ):
            raise SourceError(
                f"{self._name}: needed 8-bit frames, got {picture.dtype} with shape {picture.shape}; convert the video "
                "to 8-bit gray, or to DICOM or 16-bit PNG for more"
            )
        return frame_format(self._name, picture.shape[0], picture.shape[1], self._options.crop)

    def _write(self, out: np.ndarray) -> None:
        assert self._picture is not None  # callers have grabbed
        part = region(self._picture, self._options.crop)
        if part.ndim == 3:
            self._gray.write(part, out, f" in frame {self._read_frames}")
        else:
            np.copyto(out, part)

    def _at_end(self) -> None:
        promised, self.frame_count = self.frame_count, self._read_frames
        if promised is not None and promised > self._read_frames:
            self._cut_short = (
                f"{self._name}: promises {promised} frames, but {self._read_frames} could be decoded"
            )

    def warnings(self) -> tuple[str, ...]:
        """That it was cut short, once its end is reached."""
        return () if self._cut_short is None else (self._cut_short,)


def _open_capture(path: Path) -> Any:
    import cv2

    quiet_opencv()
    # one decoding thread: frame threads would take the engine's cores and hold frames back
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1])
    if not capture.isOpened():
        capture.release()
        raise SourceError(
            f"{path.name}: the video cannot be opened; it is damaged, cut off, or coded in a way that this OpenCV does "
            "not read"
        )
    return capture
