"""What the kernel says of a capture device (V4L2, linux/videodev2.h): the few facts that OpenCV does not tell.

OpenCV neither tells whether a picture is interlaced, nor its luma range, nor that rows are padded (which it
reads wrongly), and asks for 640x480 when nobody asks for a size. Two ioctls answer all four.
"""

import errno
import fcntl
import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stream.errors import SourceError

VIDIOC_QUERYCAP = 0x80685600
VIDIOC_G_FMT = 0xC0D05604
_MAJOR = 81
_CAPABILITY = struct.Struct("<16s32s32s6I")
_FORMAT_BYTES = 208
_PIX_OFFSET = 8  # the union is aligned to 8 bytes
_PIX_WORDS = struct.Struct("<12I")
_CAPTURE, _CAPTURE_MULTIPLANAR, _HAS_DEVICE_CAPS = 0x1, 0x1000, 0x80000000
_PRIV_MAGIC = 0xFEEDCAFE
_FIELDS = {
    2: "top fields only",
    3: "bottom fields only",
    4: "interlaced",
    5: "fields one after the other",
    6: "fields one after the other",
    7: "alternating fields",
    8: "interlaced, top field first",
    9: "interlaced, bottom field first",
}


@dataclass(frozen=True)
class DeviceFormat:
    """A device's current picture format (struct v4l2_pix_format)."""

    columns: int
    rows: int
    fourcc: str
    fields: str | None
    """How the picture is interlaced; None where it is progressive or the driver does not say."""
    row_bytes: int
    """Bytes from one row to the next; 0 where it has no meaning (compressed)."""
    luma: Literal["limited", "full"] | None
    """Quantization as the driver states it; None where it leaves it to the pixel format's default."""


def parse_format(reply: bytes) -> DeviceFormat:
    """Read VIDIOC_G_FMT's reply, a struct v4l2_format of a capture queue."""
    (
        columns,
        rows,
        fourcc,
        field,
        row_bytes,
        _size,
        _space,
        priv,
        _flags,
        _encoding,
        quantization,
        _transfer,
    ) = _PIX_WORDS.unpack_from(reply, _PIX_OFFSET)
    stated = quantization if priv == _PRIV_MAGIC else 0  # older drivers leave the fields after priv undefined
    return DeviceFormat(
        columns=columns,
        rows=rows,
        fourcc=fourcc.to_bytes(4, "little").decode("latin-1"),
        fields=_FIELDS.get(field),
        row_bytes=row_bytes,
        luma={1: "full", 2: "limited"}.get(stated),  # type: ignore[arg-type]  # the literals are these two
    )


def parse_capability(reply: bytes) -> tuple[str, int]:
    """Read VIDIOC_QUERYCAP's reply: the card's name, and what this node can do."""
    _driver, card, _bus, _version, capabilities, device_caps, *_reserved = _CAPABILITY.unpack(reply)
    name = card.split(b"\0")[0].decode("latin-1")
    return name, device_caps if capabilities & _HAS_DEVICE_CAPS else capabilities


def device_path(address: str) -> str:
    """`0` or `/dev/video0` as a path.

    Raises:
        SourceError: Neither.
    """
    if address.isdecimal():
        return f"/dev/video{int(address)}"
    if address.startswith("/dev/"):
        return address
    raise SourceError(f"v4l2:{address}: a capture device is named v4l2:0 or v4l2:/dev/video0")


def check_device(path: str) -> str:
    """Make sure that `path` is a capture device that may be opened; never waits for its driver to deliver.

    Returns:
        The card's name.

    Raises:
        SourceError: Missing, not allowed, in use, or no capture device.
    """
    try:
        status = os.stat(path)
    except OSError:
        present = sorted(str(each) for each in Path("/dev").glob("video[0-9]*"))
        found = ", ".join(present) if present else "none"
        raise SourceError(
            f"{path}: needed a capture device, but there is none of this name (present: {found}); plug it in, or "
            "check that its driver is loaded"
        ) from None
    if not stat.S_ISCHR(status.st_mode) or os.major(status.st_rdev) != _MAJOR:
        raise SourceError(
            f"{path}: needed a capture device, got something else; name one such as /dev/video0"
        )
    descriptor = _open(path)
    try:
        reply = bytearray(_CAPABILITY.size)
        fcntl.ioctl(descriptor, VIDIOC_QUERYCAP, reply)
    except OSError as error:
        raise SourceError(f"{path}: the driver does not answer as a V4L2 device: {error.strerror}") from None
    finally:
        os.close(descriptor)
    name, capabilities = parse_capability(bytes(reply))
    if not capabilities & _CAPTURE:
        kind = "one of several planes" if capabilities & _CAPTURE_MULTIPLANAR else "another kind"
        raise SourceError(
            f"{path}: needed a single-plane capture device, got {kind}; its neighbours may be the one that delivers "
            "pictures"
        )
    return name


def current_format(path: str) -> DeviceFormat | None:
    """The format a device is set to now; None where the driver does not say."""
    try:
        descriptor = _open(path)
    except SourceError:
        return None
    reply = bytearray(_FORMAT_BYTES)
    struct.pack_into("<I", reply, 0, 1)  # V4L2_BUF_TYPE_VIDEO_CAPTURE
    try:
        fcntl.ioctl(descriptor, VIDIOC_G_FMT, reply)
    except OSError:
        return None
    finally:
        os.close(descriptor)
    return parse_format(bytes(reply))


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        advice = {
            errno.EACCES: "add your user to the group that owns it (often `video`) and log in again",
            errno.EBUSY: "close the program that uses it",
            errno.ENODEV: "plug it in again",
        }.get(error.errno or 0, "check the device and its driver")
        raise SourceError(f"{path}: the device cannot be opened: {error.strerror}; {advice}") from None
