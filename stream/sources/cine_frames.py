"""Where each frame of a DICOM file's pixel data lies, found without reading the frames."""

import itertools
import os
import struct
from array import array
from dataclasses import dataclass

from stream.errors import SourceError

MAX_FRAMES = 200_000
"""Most frames of one cine: more than an hour at 30 per second. Our choice, so that a hostile file costs little."""
MAX_FRAGMENTS = 4 * MAX_FRAMES
_ITEM = 0xFFFEE000
_SEQUENCE_END = 0xFFFEE0DD
_UNDEFINED = 0xFFFFFFFF
_END_OF_IMAGE = b"\xff\xd9"


@dataclass(frozen=True)
class FrameIndex:
    """The frames' places in a file; `starts[i]` to `ends[i]` are the bytes of frame i.

    For encapsulated pixel data these bytes are whole items: tag, length and value of each fragment.
    """

    starts: "array[int]"
    ends: "array[int]"
    fragments: "array[int]"
    """Number of fragments of each frame; 0 for native pixel data."""

    def __len__(self) -> int:
        return len(self.starts)


def native_index(name: str, offset: int, frame_bytes: int, frames: int, file_bytes: int) -> FrameIndex:
    """Frames of uncompressed pixel data: one after the other.

    Args:
        name: The file, for the error sentence.
        offset: Where the pixel data's value starts in the file.
        frame_bytes: Bytes of one frame.
        frames: Number of frames.
        file_bytes: Bytes of the file.

    Raises:
        SourceError: The file is shorter than its frames need.
    """
    needed = offset + frames * frame_bytes
    if needed > file_bytes:
        raise SourceError(
            f"{name}: {frames} frames need {frames * frame_bytes} bytes of pixel data, got "
            f"{max(0, file_bytes - offset)}; the file is cut off, copy it again"
        )
    starts = array("Q", range(offset, needed, frame_bytes))
    ends = array("Q", range(offset + frame_bytes, needed + 1, frame_bytes))
    return FrameIndex(starts, ends, array("I", bytes(4 * frames)))


def encapsulated_index(
    name: str,
    descriptor: int,
    offset: int,
    frames: int,
    file_bytes: int,
    extended_offsets: bytes | None = None,
) -> FrameIndex:
    """Frames of compressed pixel data, PS3.5 A.4: fragments as items, after a basic offset table.

    Fragments are given to frames one to one where the counts agree, else by the extended or basic offset
    table, else by the codestreams' end markers.

    Args:
        name: The file, for the error sentence.
        descriptor: The open file.
        offset: Where the pixel data's value starts in the file.
        frames: Number of frames that the header promises.
        file_bytes: Bytes of the file.
        extended_offsets: Extended Offset Table (7FE0,0001), if any.

    Raises:
        SourceError: Cut off, not items, or the fragments cannot be given to the frames.
    """
    starts, ends, table = _fragments(name, descriptor, offset, file_bytes)
    count = len(starts)
    if count < frames:
        raise SourceError(
            f"{name}: the header promises {frames} frames, got {count} fragments of pixel data; the file is cut "
            "off or damaged, copy it again"
        )
    if frames == 1:
        return FrameIndex(starts[:1], ends[-1:], array("I", [count]))
    if count == frames:
        return FrameIndex(starts, ends, array("I", [1]) * frames)
    if extended_offsets:
        table = list(
            struct.unpack(
                f"<{len(extended_offsets) // 8}Q", extended_offsets[: len(extended_offsets) // 8 * 8]
            )
        )
    firsts = _firsts_by_table(starts, table, frames) or _firsts_by_marker(descriptor, ends, frames)
    if firsts is None:
        raise SourceError(
            f"{name}: {count} fragments cannot be given to {frames} frames, since the offset table is missing or "
            "wrong; rewrite the file with a tool that writes a basic offset table"
        )
    lasts = [*firsts[1:], count]
    return FrameIndex(
        array("Q", [starts[first] for first in firsts]),
        array("Q", [ends[last - 1] for last in lasts]),
        array("I", [last - first for first, last in zip(firsts, lasts, strict=True)]),
    )


def _fragments(
    name: str, descriptor: int, offset: int, file_bytes: int
) -> tuple["array[int]", "array[int]", list[int]]:
    starts: array[int] = array("Q")
    ends: array[int] = array("Q")
    table: list[int] = []
    at = offset
    first = True
    while True:
        head = os.pread(descriptor, 8, at)
        if len(head) < 8:
            if first or not head:  # the closing delimiter alone is missing: nothing of a frame is lost
                break
            raise _cut_off(name, len(starts) + 1)
        group, element, length = struct.unpack("<HHI", head)
        tag = group << 16 | element
        if tag == _SEQUENCE_END:
            break
        if tag != _ITEM or length == _UNDEFINED:
            raise SourceError(
                f"{name}: compressed pixel data must be a row of items, got something else after fragment "
                f"{len(starts)}; the file is damaged, copy it again"
            )
        end = at + 8 + length
        if end > file_bytes:
            raise _cut_off(name, len(starts) + (0 if first else 1))
        if first:
            data = os.pread(descriptor, min(length, 4 * MAX_FRAMES), at + 8)
            table = list(struct.unpack(f"<{len(data) // 4}I", data[: len(data) // 4 * 4]))
            first = False
        else:
            starts.append(at)
            ends.append(end)
            if len(starts) > MAX_FRAGMENTS:
                raise SourceError(
                    f"{name}: at most {MAX_FRAGMENTS} fragments are read, got more; split the file"
                )
        at = end
    return starts, ends, table


def _cut_off(name: str, fragment: int) -> SourceError:
    return SourceError(
        f"{name}: needed whole fragments of pixel data, but the file ends inside fragment {fragment}; it is cut "
        "off, copy it again"
    )


def _firsts_by_table(starts: "array[int]", table: list[int], frames: int) -> list[int] | None:
    """Index of each frame's first fragment; None where the table does not fit."""
    if len(table) != frames:
        return None
    places = {start - starts[0]: index for index, start in enumerate(starts)}
    firsts = [places.get(offset) for offset in table]
    if firsts[0] != 0 or None in firsts:
        return None
    known = [first for first in firsts if first is not None]
    return known if all(a < b for a, b in itertools.pairwise(known)) else None


def _firsts_by_marker(descriptor: int, ends: "array[int]", frames: int) -> list[int] | None:
    firsts = [0]
    for index, end in enumerate(ends):
        # a fragment is padded to even length with one byte, so the marker is among its last three
        if _END_OF_IMAGE in os.pread(descriptor, 3, end - 3) and index + 1 < len(ends):
            firsts.append(index + 1)
    return firsts if len(firsts) == frames else None
