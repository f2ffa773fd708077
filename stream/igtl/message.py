"""OpenIGTLink's messages, version 1: the header, IMAGE and STATUS, packed and read.

http://openigtlink.org/protocols/v2_header.html, v2_image.html, v2_status.html. All numbers are big-endian but for the
pixels, which say of themselves how they lie. The header carries a CRC-64 of the body (ECMA-182).

    header, 58 bytes: u16 version, 12 bytes type, 20 bytes device name, u32 seconds and u32 fraction (of 2^32) of the time,
                      u64 body length, u64 CRC
    IMAGE body: u16 1, u8 components, u8 scalar type, u8 endian (2 little), u8 coordinates (2 LPS), 3 x u16 size,
                12 x f32 (axes times spacing, then the centre), 3 x u16 offset and 3 x u16 size of the part, pixels
    STATUS body: u16 code (1 is OK), i64 subcode, 20 bytes name, text with a final 0
"""

import math
import struct
from dataclasses import dataclass

import numpy as np
from fastcrc import crc64

from stream.errors import WireError
from stream.frame import MAX_SIDE

HEADER = struct.Struct(">H12s20sIIQQ")
IMAGE = struct.Struct(">HBBBBHHH12f6H")
STATUS = struct.Struct(">Hq20s")
UINT8, UINT16 = 3, 5
BIG, LITTLE = 1, 2
LPS = 2
OK, NOT_READY = 1, 13
MAX_BODY = IMAGE.size + 2 * MAX_SIDE * MAX_SIDE + 65536
"""The largest image that is taken, and room for the metadata of version 3."""


@dataclass(frozen=True)
class Head:
    """What a header says.

    Args:
        kind: IMAGE, STATUS and so on.
        device: Name of the device.
        seconds: When, since 1970.
        length: Bytes of the body.
        crc: Of the body.
        version: Of the header; from 2 on the body begins and ends with more.
    """

    kind: str
    device: str
    seconds: float
    length: int
    crc: int
    version: int = 1


def pack(kind: str, device: str, seconds: float, body: bytes) -> bytes:
    """A message: its header.

    Args:
        kind: The type, at most 12 ASCII characters.
        device: At most 20 ASCII characters.
        seconds: When, since 1970.
        body: What follows.
    """
    whole = math.floor(seconds)
    fraction = min(round((seconds - whole) * 2**32), 2**32 - 1)
    names = kind.encode("ascii"), device.encode("ascii")
    return HEADER.pack(1, *names, whole, fraction, len(body), crc64.ecma_182(body)) + body


def unpack_head(data: bytes) -> Head:
    """Read a header of 58 bytes.

    Raises:
        WireError: It is none, or claims more than any frame has.
    """
    version, kind, device, seconds, fraction, length, crc = HEADER.unpack(data)
    try:
        names = [name.rstrip(b"\0 ").decode("ascii") for name in (kind, device)]
    except UnicodeDecodeError as error:
        raise WireError("needed an OpenIGTLink header, got one whose names are no ASCII") from error
    if not 1 <= version <= 3 or not names[0].isidentifier():
        raise WireError(
            f"needed an OpenIGTLink header of version 1 to 3, got version {version}; is that port a server's?"
        )
    if length > MAX_BODY:
        raise WireError(
            f"needed a message of at most {MAX_BODY} bytes, got {length} claimed; images have {MAX_SIDE} pixels a side"
        )
    return Head(names[0], names[1], seconds + fraction / 2**32, length, crc, version)


def image_body(plane: np.ndarray, spacing_mm: tuple[float, float] | None) -> bytes:
    """An IMAGE body of one slice.

    Args:
        plane: (rows, columns) uint8 or little-endian uint16.
        spacing_mm: From row to row and from column to column; None where it is unknown, and then it says 1.
    """
    rows, columns = plane.shape
    row_mm, column_mm = spacing_mm or (1.0, 1.0)
    # Columns run to the patient's left and rows to the feet, since nothing is known of how the C-arm stood.
    axes = (column_mm, 0.0, 0.0, 0.0, row_mm, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)
    kind = UINT8 if plane.itemsize == 1 else UINT16
    head = IMAGE.pack(1, 1, kind, LITTLE, LPS, columns, rows, 1, *axes, 0, 0, 0, columns, rows, 1)
    return b"".join((head, np.ascontiguousarray(plane).data))


def status_body(code: int, name: str, text: str) -> bytes:
    """A STATUS body.

    Args:
        code: `OK` or `NOT_READY`.
        name: At most 20 ASCII characters.
        text: In words.
    """
    return STATUS.pack(code, 0, name.encode("ascii")) + text.encode("ascii", "replace") + b"\0"


def check_body(head: Head, body: bytes) -> None:
    """Compare a body with its header's CRC.

    Raises:
        WireError: They differ.
    """
    if (got := crc64.ecma_182(body)) != head.crc:
        raise WireError(f"needed a body with CRC {head.crc:016x}, got {got:016x}; it was damaged on its way")


def read_image(head: Head, body: bytes) -> tuple[np.ndarray, tuple[float, float]]:
    """Read an IMAGE body.

    Args:
        head: Its header.
        body: Its bytes, checked.

    Returns:
        (rows, columns) uint8 or uint16 in the machine's order, looking into `body` where that is little-endian; and the
        spacing from row to row and column to column in mm.

    Raises:
        WireError: Not one slice of one unsigned component of 8 or 16 bits, or it does not fit its length.
    """
    content = body
    if head.version > 1:
        if len(body) < 12:
            raise WireError("needed an extended header of 12 bytes, got a shorter body")
        extended, metadata, text = struct.unpack_from(">HHI", body)
        if not 12 <= extended <= len(body) - metadata - text:
            raise WireError("needed an extended header within its body, got lengths that do not fit")
        content = body[extended : len(body) - metadata - text]
    if len(content) < IMAGE.size:
        raise WireError(f"needed an image of at least {IMAGE.size} bytes, got {len(content)}")
    said = IMAGE.unpack_from(content)
    _, components, kind, endian, _, columns, rows, slices = said[:8]
    if components != 1 or kind not in (UINT8, UINT16) or slices != 1:
        raise WireError(
            f"needed an image of one slice with one unsigned component of 8 or 16 bits, got {slices} slices, {components} "
            f"components, scalar type {kind}; send a grey image"
        )
    if said[20:] != (0, 0, 0, columns, rows, 1):
        raise WireError("needed a whole image, got a part of one; send whole images")
    dtype = np.dtype(np.uint8) if kind == UINT8 else np.dtype(">u2" if endian == BIG else "<u2")
    if len(content) - IMAGE.size != rows * columns * dtype.itemsize:
        raise WireError(
            f"needed {rows * columns * dtype.itemsize} bytes for {rows} x {columns} pixels, got {len(content) - IMAGE.size}"
        )
    plane = np.frombuffer(content, dtype, rows * columns, IMAGE.size).reshape(rows, columns)
    lengths = [math.hypot(*said[8 + 3 * axis : 11 + 3 * axis]) for axis in range(2)]
    return plane, (lengths[1], lengths[0])
