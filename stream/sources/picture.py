"""Between what a decoder delivers and the caller's buffer: region, gray conversion, checks."""

import os

import numpy as np
from jaxtyping import UInt8

from stream.errors import SourceError
from stream.frame import FrameFormat, Photometric
from stream.sources.options import Crop

MAX_DECODED_SIDE = 8192
"""No picture larger than this is decoded, not even to crop it: a header of a few bytes may claim gigabytes."""
NEUTRAL_TOLERANCE = 8
"""Grey levels by which the channels of a gray picture may differ: lossy video codecs of neutral pictures were
seen to differ by up to 3; real colour differs by far more. Our choice."""
SAMPLE_STEP = 8
"""Every eighth row and column is looked at for colour once the first frame has been looked at wholly."""


def frame_format(
    name: str,
    rows: int,
    columns: int,
    crop: Crop | None,
    *,
    bits_stored: int = 8,
    photometric: Photometric = Photometric.MONOCHROME2,
    window: tuple[float, float] | None = None,
) -> FrameFormat:
    """The format of a source after its crop.

    Args:
        name: What is being opened, for the error sentence.
        rows: Rows before the crop.
        columns: Columns before the crop.
        crop: The region, or None for all of it.
        bits_stored: Bits stored per sample.
        photometric: What the stored values mean.
        window: VOI window centre and width in stored pixel values.

    Raises:
        SourceError: The crop does not fit, or no stream can have this format.
    """
    if crop is not None:
        if max(rows, columns) > MAX_DECODED_SIDE:
            raise SourceError(
                f"{name}: a picture must be at most {MAX_DECODED_SIDE} pixels a side to be cropped, got {rows} rows x "
                f"{columns} columns; resample the source"
            )
        x, y, width, height = crop
        if x + width > columns or y + height > rows:
            raise SourceError(
                f"{name}: --crop must lie inside {columns}x{rows} pixels, got x {x} to {x + width}, y {y} to "
                f"{y + height}; make it smaller"
            )
        rows, columns = height, width
    center, window_width = window or (None, None)
    try:
        return FrameFormat(rows, columns, bits_stored, photometric, center, window_width)
    except ValueError as error:
        raise SourceError(f"{name}: {error}") from None


def region(picture: np.ndarray, crop: Crop | None) -> np.ndarray:
    """The cropped region of (rows, columns[, channels]) as a view."""
    if crop is None:
        return picture
    x, y, width, height = crop
    return picture[y : y + height, x : x + width]


def check_out(out: np.ndarray, wanted: FrameFormat) -> None:
    """Refuse a buffer that `read` could not write in place.

    Raises:
        ValueError: Another shape or dtype, read-only, or not contiguous.
    """
    shape = (wanted.rows, wanted.columns)
    if out.shape != shape or out.dtype != wanted.dtype or not out.flags.carray:
        raise ValueError(
            f"out must be writable, contiguous {shape} {wanted.dtype}, got {out.shape} {out.dtype}; "
            "make it from source.format"
        )


def quiet_opencv() -> None:
    """Keep OpenCV's and its FFmpeg's log lines from stderr; what matters of them is said by our sentences."""
    # FFmpeg's own log goes to stderr past every logger; this is read when the first film is opened.
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    import cv2

    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)


def decode_image(coded: UInt8[np.ndarray, " n"], flags: int) -> np.ndarray | None:
    """Decode one coded image with OpenCV; None where it cannot.

    Args:
        coded: The whole image as it lies in its file.
        flags: OpenCV's IMREAD flags.
    """
    import cv2

    try:
        picture: np.ndarray | None = cv2.imdecode(coded, flags)
    except cv2.error:  # its text names OpenCV's source lines, which help nobody
        return None
    return picture


def is_neutral(picture: UInt8[np.ndarray, "h w 3"], *, step: int = 1) -> bool:
    """Whether the three channels agree within `NEUTRAL_TOLERANCE` in every `step`-th row and column."""
    sample = picture[::step, ::step]
    blue, green, red = sample[..., 0], sample[..., 1], sample[..., 2]
    high = np.maximum(np.maximum(blue, green), red)
    low = np.minimum(np.minimum(blue, green), red)
    return int((high - low).max()) <= NEUTRAL_TOLERANCE


class GrayFromColour:
    """Turns the three-channel pictures of a file into gray, refusing those that are in colour.

    Gray pictures come as three equal channels from video decoders and many exports; their luma is then the
    channel itself, exactly, since the weights sum to one.

    Args:
        name: The file, for the error sentence.
        convert: Take the luma of colour pictures too instead of refusing them.
    """

    def __init__(self, name: str, convert: bool) -> None:
        self._name = name
        self._convert = convert
        self._looked = False

    def write(
        self, picture: UInt8[np.ndarray, "h w 3"], out: UInt8[np.ndarray, "h w"], frame: str = ""
    ) -> None:
        """Write the luma of a BGR picture into `out`.

        Luma is ITU-R BT.601's: Y = 0.299 R + 0.587 G + 0.114 B.

        Raises:
            SourceError: The picture is in colour and nobody asked for the conversion.
        """
        import cv2

        if not self._convert:
            if not is_neutral(picture, step=SAMPLE_STEP if self._looked else 1):
                raise SourceError(
                    f"{self._name}: frames must be gray, got colour{frame}; colour sources need --gray, which "
                    "takes their luma"
                )
            self._looked = True
        cv2.cvtColor(picture, cv2.COLOR_BGR2GRAY, dst=out)
