"""Frames of an OpenIGTLink server, such as PLUS: `igtl://host:18944/Device`.

The server's clock is not ours, so a frame is due when its last byte arrived; how long it took to come is not known, and a
note says so.
"""

import re
import socket

import numpy as np

from stream.errors import SourceError, SourceGone, WireError
from stream.frame import FrameFormat
from stream.igtl.message import HEADER, Head, check_body, read_image, unpack_head
from stream.sources.options import SourceOptions
from stream.sources.picture import check_out, frame_format, region
from stream.sources.source import FormatChanged, Source, SourceFrame
from stream.timing import Clock, MonotonicClock

DEFAULT_PORT = 18944
CONNECT_S = 5.0
FIRST_IMAGE_S = 10.0
KEEPALIVE = {socket.TCP_KEEPIDLE: 3, socket.TCP_KEEPINTVL: 1, socket.TCP_KEEPCNT: 3}
"""The kernel asks a silent server's host after 3 s, each second, and gives it up after three questions without an answer."""
SPEC = re.compile(r"igtl://(\[[0-9a-fA-F:]+\]|[^:/\[\]]+)(?::(\d{1,5}))?(?:/([ -~]{1,20}))?")


class IgtlSource(Source):
    """The images of one device of a server; other devices and other kinds of messages are passed over.

    Args:
        spec: `igtl://host:port/Device`; without a device the first that sends images is taken.
        options: `crop` is applied; `rate_hz` says what nominal rate clients are told; `bits` how many bits of 16 count.
        clock: The clock of the frame path.

    Raises:
        SourceError: Not such an address, nobody answers within 5 s, or no image comes within 10 s.
    """

    kind = "igtl"
    live = True
    read_within_s = None
    """A server may rightly send nothing while the pedal is up; one that is gone is found by the kernel (`KEEPALIVE`)."""

    def __init__(self, spec: str, options: SourceOptions, clock: Clock | None = None) -> None:
        match = SPEC.fullmatch(spec)
        if match is None or not 1 <= int(match[2] or DEFAULT_PORT) <= 65535:
            raise SourceError(f"needed igtl://host:port/Device, got {spec}")
        self._host, port = match[1].strip("[]"), int(match[2] or DEFAULT_PORT)
        self._wanted = match[3]
        self._crop = options.crop
        self._bits = options.bits
        self._clock = clock or MonotonicClock()
        self.rate_hz = options.rate_hz
        try:
            self._socket = socket.create_connection((self._host, port), CONNECT_S)
        except OSError as error:
            raise SourceGone(
                f"needed an OpenIGTLink server at {self._host}:{port}, got: {error.strerror or error}; start it, or check "
                "address and port"
            ) from error
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for option, value in KEEPALIVE.items():
            self._socket.setsockopt(socket.IPPROTO_TCP, option, value)
        try:
            self._socket.settimeout(FIRST_IMAGE_S)
            self._next: tuple[np.ndarray, int] | None = self._receive()
        except BaseException:
            self._socket.close()
            raise
        self._socket.settimeout(None)
        self.format = self._format_of(self._next[0])
        self.device = f"igtl {self._wanted}"
        self.notes = (
            "Frames are due when they arrive over OpenIGTLink; how long they took from their device to here is not known.",
        )

    def _format_of(self, plane: np.ndarray) -> FrameFormat:
        rows, columns = plane.shape
        bits = 8 if plane.itemsize == 1 else (self._bits or 16)
        return frame_format("OpenIGTLink", rows, columns, self._crop, bits_stored=bits)

    def read(self, out: np.ndarray) -> SourceFrame | None:
        check_out(out, self.format)
        plane, stamp_ns = self._next or self._receive()
        if (now := self._format_of(plane)) != self.format:
            self._next = plane, stamp_ns
            self.format = now
            raise FormatChanged("the server's images have another size now")
        self._next = None
        np.copyto(out, region(plane, self._crop))
        if self.format.bits_stored < 16 and plane.itemsize == 2 and int(out.max()) > self.format.max_value:
            raise SourceError(
                f"needed pixel values of {self.format.bits_stored} bits, got {int(out.max())}; give --bits as the device has them"
            )
        return SourceFrame(stamp_ns=stamp_ns)

    def _receive(self) -> tuple[np.ndarray, int]:
        """The next image of the wanted device and when its last byte was here."""
        while True:
            try:
                head = unpack_head(self._take(HEADER.size))
                body = self._take(head.length)
                stamp_ns = self._clock.now_ns()
                if not self._is_wanted(head):
                    continue
                check_body(head, body)
                plane, _spacing = read_image(head, body)
            except WireError as error:
                raise SourceGone(f"OpenIGTLink from {self._host}: {error}") from error
            self._wanted = self._wanted or head.device
            return plane, stamp_ns

    def _is_wanted(self, head: Head) -> bool:
        return head.kind == "IMAGE" and self._wanted in (None, "", head.device)

    def _take(self, count: int) -> bytes:
        taken = bytearray(count)
        view = memoryview(taken)
        while view:
            try:
                came = self._socket.recv_into(view)
            except TimeoutError as error:
                raise SourceGone(
                    f"needed an image{f' of {self._wanted}' if self._wanted else ''} from {self._host}, got none for "
                    f"{FIRST_IMAGE_S:.0f} s; does the server send IMAGE messages of that name?"
                ) from error
            except OSError as error:
                raise SourceGone(
                    f"the OpenIGTLink server at {self._host} is gone: {error.strerror}"
                ) from error
            if came == 0:
                raise SourceGone(f"the OpenIGTLink server at {self._host} has closed the connection")
            view = view[came:]
        return bytes(taken)

    def close(self) -> None:
        self._socket.close()
