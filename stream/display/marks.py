"""What the desktop window writes into its pixels: marks, large words, borders. All in place, nothing allocated."""

from collections.abc import Sequence

import cv2
import numpy as np
from jaxtyping import UInt8

from stream.frame import Photometric, Reason, State
from stream.subscribe import Shown
from stream.wire import Header, Message

Image = UInt8[np.ndarray, "h w 3"]
Colour = tuple[int, int, int]
"""Blue, green, red, as OpenCV has it."""

SYNTHETIC_COLOUR: Colour = (63, 210, 255)
PLAIN_COLOUR: Colour = (238, 228, 219)
QUIET_COLOUR: Colour = (177, 161, 147)
UNCHANGED_COLOUR: Colour = (255, 177, 111)
STALE_COLOUR: Colour = (67, 159, 255)
LOST_COLOUR: Colour = (92, 92, 255)
FROZEN_COLOUR: Colour = (255, 212, 86)
NOT_LIVE: dict[State, tuple[Colour, float]] = {
    State.UNCHANGED: (UNCHANGED_COLOUR, 0.6),
    State.STALE: (STALE_COLOUR, 0.38),
    State.NO_SIGNAL: (LOST_COLOUR, 0.2),
}
"""Colour of the border and how bright the picture stays, for each state that changes the whole picture."""
BORDER = 14
FONT = cv2.FONT_HERSHEY_SIMPLEX
TEST_COLOUR: Colour = (255, 120, 255)
TEST_WORDS = "TEST, FAULTS INJECTED"
NOT_A_DEVICE = "Research use only. Not a medical device."


def reason_text(reason: Reason) -> str:
    """A reason as people read it."""
    return reason.name.lower().replace("_", " ")


def state_words(shown: Shown) -> str:
    """The state as people read it."""
    if shown.state is State.PASSTHROUGH:
        return f"AI OFF: {reason_text(shown.reason)}"
    return shown.state.name.replace("_", " ")


def large_words(shown: Shown) -> tuple[str, str] | None:
    """The large words over a picture that is not live, and what they mean; None over a live one."""
    title = f"{state_words(shown)} {shown.age_ms / 1000:.1f} s"
    match shown.state:
        case State.UNCHANGED:
            return title, "The source repeats one image: pedal up, or held?"
        case State.STALE:
            return title, "The source has stopped"
        case State.NO_SIGNAL:
            return title, shown.why or "Nothing is heard from the pipeline. Waiting for it"
        case _:
            return None


def has_synthetic(message: Message) -> bool:
    """Whether the frame has synthetic pixels that may be shown."""
    return message.synthetic is not None and message.header.state is not State.PASSTHROUGH


def synthetic_mark(message: Message, percent: int | None) -> tuple[str, Colour]:
    """The mark burned into a picture that shows synthetic pixels, or would if there were any.

    Args:
        message: The frame.
        percent: The overlay's opacity; None for the synthetic plane alone.
    """
    if has_synthetic(message):
        who = ", patient-adapted" if message.header.adaptation is not None else ""
        return ("SYNTHETIC" if percent is None else f"SYNTHETIC {percent} %") + who, SYNTHETIC_COLOUR
    header = message.header
    why = f": {reason_text(header.reason)}" if header.state is State.PASSTHROUGH else ""
    return f"LIVE, AI off{why}", PLAIN_COLOUR


def adaptation_words(message: Message | None, said: object) -> str:
    """What the picture was drawn with, and why the general model drew where an adaptation is asked for; empty where none is.

    Args:
        message: The frame that is shown.
        said: `adaptation` of the heartbeat.
    """
    if message is not None and has_synthetic(message) and message.header.adaptation is not None:
        return message.header.adaptation.describe()
    if not isinstance(said, dict) or not (why := said.get("why_general") or said.get("failure")):
        return ""
    return f"General model, not patient-adapted: {str(why).partition('; ')[0]}"


def text_size(text: str, scale: float, thickness: int = 1) -> tuple[int, int]:
    """Width and height of a line of text in pixels."""
    (width, height), _ = cv2.getTextSize(text, FONT, scale, thickness)
    return width, height


def write(
    image: Image, text: str, at: tuple[int, int], colour: Colour, *, scale: float = 0.5, thickness: int = 1
) -> None:
    """Write a line; `at` is the left end of its base line, (x, y)."""
    cv2.putText(image, text, at, FONT, scale, colour, thickness, cv2.LINE_AA)


def burn_mark(image: Image, text: str, colour: Colour) -> int:
    """Write a mark on a black label in the top left corner; returns the rows that the label covers."""
    rows, columns = image.shape[:2]
    scale = min(max(rows / 600, 0.4), 2.0)
    width, height = text_size(text, scale, 2)
    if width > 0.92 * columns:
        scale *= 0.92 * columns / width
        width, height = text_size(text, scale, 2)
    pad = max(height // 2, 3)
    label = height + 2 * pad
    image[:label, : width + 2 * pad] = 0
    write(image, text, (pad, pad + height), colour, scale=scale, thickness=2)
    return label


def burn_test(image: Image) -> None:
    """Write along the bottom of a picture that faults are injected: it is of a test, not of a room."""
    rows, columns = image.shape[:2]
    scale = 0.94 * columns / text_size(TEST_WORDS, 1.0, 2)[0]
    scale = min(scale, max(rows / 700, 0.4))
    width, height = text_size(TEST_WORDS, scale, 2)
    image[rows - height - 16 :] = 0
    write(image, TEST_WORDS, ((columns - width) // 2, rows - 8), TEST_COLOUR, scale=scale, thickness=2)


def change_picture(image: Image, shown: Shown) -> None:
    """Make a picture that is not live look so: dimmed, a thick border, large words with the age."""
    if shown.state not in NOT_LIVE:
        return
    colour, brightness = NOT_LIVE[shown.state]
    cv2.convertScaleAbs(image, dst=image, alpha=brightness)
    _border(image, colour)
    words = large_words(shown)
    assert words is not None
    _centred(image, words, PLAIN_COLOUR)


def mark_frozen(image: Image, held_s: float, label: str, shown: Shown) -> None:
    """Mark a picture that the user holds: a border, and since when, and what the stream does meanwhile."""
    _border(image, FROZEN_COLOUR)
    text = f"FROZEN {held_s:.1f} s since {label}. Stream: {state_words(shown)}"
    scale = min(0.7, 0.7 * image.shape[1] * 0.9 / text_size(text, 0.7, 2)[0])
    width, height = text_size(text, scale, 2)
    bottom = image.shape[0] - BORDER
    image[bottom - height - 16 : bottom] = FROZEN_COLOUR
    write(image, text, ((image.shape[1] - width) // 2, bottom - 8), (27, 19, 0), scale=scale, thickness=2)


def _border(image: Image, colour: Colour) -> None:
    image[:BORDER] = image[-BORDER:] = colour
    image[:, :BORDER] = image[:, -BORDER:] = colour


def _centred(image: Image, lines: Sequence[str], colour: Colour) -> None:
    rows, columns = image.shape[:2]
    y = rows // 2
    for line, size, thickness in zip(lines, (1.8, 0.7), (4, 2), strict=True):
        scale = min(size, size * 0.88 * columns / text_size(line, size, thickness)[0])
        width, height = text_size(line, scale, thickness)
        at = ((columns - width) // 2, y)
        write(image, line, at, (0, 0, 0), scale=scale, thickness=thickness + 6)
        write(image, line, at, colour, scale=scale, thickness=thickness)
        y += height + 18


def window_table(header: Header, window: tuple[float, float] | None) -> UInt8[np.ndarray, " n"]:
    """Grey levels by stored value, for a window.

    Args:
        header: Of the frame; its bits stored, photometric interpretation and window are used.
        window: Centre and width in stored pixel values; None for the stream's own, or else the whole range.

    Returns:
        256 or 65536 grey levels. 16-bit words above the bits stored have the last one's.

    DICOM PS3.3 C.11.2.1.2.1, LINEAR: y = clip((x - (c - 0.5)) / (w - 1) + 0.5, 0, 1) * 255.
    """
    frame_format = header.frame_format
    center, width = window or initial_window(header)
    words = 256 if frame_format.sample_bytes == 1 else 65536
    values = np.minimum(np.arange(words), frame_format.max_value)
    levels = np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1)
    if frame_format.photometric is Photometric.MONOCHROME1:
        levels = 1 - levels
    return np.floor(levels * 255 + 0.5).astype(np.uint8)


def initial_window(header: Header) -> tuple[float, float]:
    """The window the stream asks for: its own, or else the whole range of the bits stored."""
    frame_format = header.frame_format
    center, width = frame_format.window_center, frame_format.window_width
    if center is not None and width is not None and width > 1:
        return center, width
    size = float(1 << frame_format.bits_stored)
    return size / 2, size
