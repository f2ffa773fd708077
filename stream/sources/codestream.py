"""What a compressed image says of its own size, read from its first bytes before any decoder sees it.

A header of a few bytes may claim gigabytes, and a folder must be checked without decoding all of it.
"""

import struct
from dataclasses import dataclass

# ITU-T T.81 table B.1 and T.87: start-of-frame markers; C4, C8 and CC are tables, not frames.
_JPEG_SOF = frozenset({*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC})
_JPEG_BARE = frozenset({0x01, *range(0xD0, 0xD9)})
_TIFF_TYPES = {1: "B", 3: "H", 4: "I"}
_PNG_CHANNELS = {0: 1, 2: 3, 3: 3, 4: 2, 6: 4}


@dataclass(frozen=True)
class Picture:
    """The size of one coded picture."""

    rows: int
    columns: int
    channels: int
    bits: int
    """Per sample."""

    def __str__(self) -> str:
        colour = {1: "gray", 2: "gray with alpha", 3: "colour", 4: "colour with alpha"}.get(
            self.channels, f"{self.channels} channels"
        )
        return f"{self.columns}x{self.rows} pixels, {self.bits} bits, {colour}"


def picture_of(data: bytes | bytearray | memoryview) -> Picture | None:
    """Read the size from the head of a JPEG, JPEG-LS, JPEG 2000, PNG, BMP or TIFF image.

    Args:
        data: The image's bytes, from its first on; all of them for a TIFF, whose directory may come last.

    Returns:
        None where it is none of these or too damaged to say.
    """
    view = memoryview(data)
    head = bytes(view[:12])
    try:
        if head.startswith(b"\xff\xd8\xff"):
            return _jpeg(view)
        if head.startswith(b"\xff\x4f\xff\x51"):
            return _jpeg2000(view)
        if head.startswith(b"\x89PNG\r\n\x1a\n"):
            return _png(view)
        if head.startswith(b"BM"):
            return _bmp(view)
        if head[:4] in (b"II*\0", b"MM\0*"):
            return _tiff(view)
    except (struct.error, IndexError):
        return None
    return None


def _jpeg(view: memoryview) -> Picture | None:
    at = 2
    while at + 4 <= len(view):
        if view[at] != 0xFF:
            return None
        marker = view[at + 1]
        if marker == 0xFF:  # fill byte, T.81 B.1.1.2
            at += 1
        elif marker in _JPEG_BARE:
            at += 2
        elif marker in _JPEG_SOF:
            bits, rows, columns, channels = struct.unpack_from(">BHHB", view, at + 4)
            return Picture(rows, columns, channels, bits)
        elif marker in (0xD9, 0xDA):
            return None
        else:
            (length,) = struct.unpack_from(">H", view, at + 2)
            at += 2 + length
    return None


def _jpeg2000(view: memoryview) -> Picture:
    # ISO/IEC 15444-1 A.5.1: SIZ directly follows SOC.
    width, height, left, top = struct.unpack_from(">4I", view, 8)
    channels, precision = struct.unpack_from(">HB", view, 40)
    return Picture(height - top, width - left, channels, (precision & 0x7F) + 1)


def _png(view: memoryview) -> Picture | None:
    if bytes(view[12:16]) != b"IHDR":
        return None
    columns, rows, bits, colour = struct.unpack_from(">IIBB", view, 16)
    channels = _PNG_CHANNELS.get(colour)
    if channels is None:
        return None
    return Picture(rows, columns, channels, 8 if colour == 3 else bits)


def _bmp(view: memoryview) -> Picture | None:
    (header_bytes,) = struct.unpack_from("<I", view, 14)
    if header_bytes < 40:
        return None
    columns, rows = struct.unpack_from("<ii", view, 18)
    (pixel_bits,) = struct.unpack_from("<H", view, 28)
    if pixel_bits <= 8:
        return Picture(abs(rows), columns, _palette_channels(view, header_bytes, pixel_bits), 8)
    return Picture(abs(rows), columns, 4 if pixel_bits == 32 else 3, 8)


def _palette_channels(view: memoryview, header_bytes: int, pixel_bits: int) -> int:
    (used,) = struct.unpack_from("<I", view, 46)
    entries = bytes(view[14 + header_bytes : 14 + header_bytes + 4 * min(used or 1 << pixel_bits, 256)])
    return 1 if entries[0::4] == entries[1::4] == entries[2::4] else 3


def _tiff(view: memoryview) -> Picture | None:
    order = "<" if view[0] == ord("I") else ">"
    (directory,) = struct.unpack_from(order + "I", view, 4)
    (count,) = struct.unpack_from(order + "H", view, directory)
    values: dict[int, int] = {}
    for index in range(count):
        entry = directory + 2 + 12 * index
        tag, kind, length = struct.unpack_from(order + "HHI", view, entry)
        letter = _TIFF_TYPES.get(kind)
        if letter is None or length < 1:
            continue
        place = entry + 8
        if length * struct.calcsize(letter) > 4:
            (place,) = struct.unpack_from(order + "I", view, place)
        (values[tag],) = struct.unpack_from(order + letter, view, place)
    if 256 not in values or 257 not in values:
        return None
    channels = 3 if values.get(262) == 3 else values.get(277, 1)  # 262: palette colour
    return Picture(values[257], values[256], channels, values.get(258, 1))
