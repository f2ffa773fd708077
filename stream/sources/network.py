"""Video over the network, through OpenCV's FFmpeg: `rtsp://host/path`, and MPEG-TS over `tcp://host:port`.

Always over TCP: FFmpeg fills the gaps that a lost UDP packet leaves with what it makes up, and OpenCV does not say of which
frames. Nothing is kept back on purpose: FFmpeg's own queues for jitter and for reordering are off, and of frames that lie
waiting only the newest is given out.
"""

import contextlib
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import SplitResult, urlsplit

from stream.errors import SourceError, SourceGone
from stream.sources.live_video import LiveVideoSource
from stream.sources.options import SourceOptions
from stream.sources.picture import quiet_opencv
from stream.sources.within import within

OPEN_WITHIN_S = 5.0
SILENT_MS = 4000
"""A stream that says nothing for so long is gone; below `Source.read_within_s`, so that it ends with a sentence."""
DEFAULT_PORTS = {"rtsp": 554}
NEEDED = "rtsp://host/path or tcp://host:port (MPEG-TS)"
_LOW_DELAY = "fflags;nobuffer|flags;low_delay|max_delay;0|probesize;100000|analyzeduration;200000"
_OPTIONS = {
    "rtsp": f"rtsp_transport;tcp|protocol_whitelist;rtsp,tcp|{_LOW_DELAY}",
    "tcp": f"input_format;mpegts|protocol_whitelist;tcp|{_LOW_DELAY}",
}
"""What FFmpeg is told. Nobody's stream makes it open a file or another protocol; no container but MPEG-TS is guessed."""
_LATE = {
    "rtsp": "H.264 and H.265 come one frame late: FFmpeg waits for the next to see where one ends; Motion JPEG does not.",
    "tcp": "H.264 in MPEG-TS comes two frames late: FFmpeg waits for the next packet, and for the frame after to see where one ends.",
}
"""What FFmpeg itself costs; `python -m bench.video_delay` measures it."""
_OPTIONS_NAME = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_STATUS_BYTES = 4096


@dataclass(frozen=True)
class Address:
    """Where a stream is."""

    scheme: str
    host: str
    port: int
    path: str
    query: str
    """Asked for, and not said to people: some cameras take a password in it."""
    user: bool
    """Whether it holds a user's name, which no sentence may say, nor the password beside it."""

    @property
    def plain(self) -> str:
        """For people: without user, password and query."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}{self.path}"


def parse_address(spec: str) -> Address:
    """Read an address.

    Raises:
        SourceError: Not one, or one over UDP.
    """
    try:
        parts: SplitResult | None = urlsplit(spec)
        port = parts.port if parts is not None else None
    except ValueError:
        parts, port = None, None
    scheme = spec.partition(":")[0]
    if scheme in ("udp", "rtp", "srt", "rtsps"):
        raise SourceError(
            f"needed {NEEDED}, got {scheme}://, which is not read: over UDP lost packets leave made-up pixels in frames that look "
            "whole, and this OpenCV speaks no SRT and no TLS; let the sender offer one of those"
        )
    port = port or DEFAULT_PORTS.get(scheme)
    if parts is None or not parts.hostname or port is None or any(ord(each) < 33 for each in spec):
        raise SourceError(
            f"needed {NEEDED}, got an address without host or port, for example {scheme}://192.0.2.7:8554/live"
        )
    if scheme == "tcp" and (parts.path.strip("/") or parts.query):
        raise SourceError("needed tcp://host:port, got more after the port; a stream over tcp:// has no name")
    return Address(
        scheme,
        parts.hostname,
        port,
        parts.path if scheme == "rtsp" else "",
        parts.query,
        parts.username is not None,
    )


def open_network(spec: str, options: SourceOptions) -> LiveVideoSource:
    """Open a stream; gives up after 5 s.

    Args:
        spec: `rtsp://[user:password@]host[:port]/path`, or `tcp://host:port` where a sender of MPEG-TS listens.
        options: `crop`, `gray`, and `rate_hz`, which says what nominal rate clients are told.

    Raises:
        SourceError: Not such an address, or what is there is no stream that can be read.
        SourceGone: Nobody answers within 5 s, or the stream does not begin.
    """
    address = parse_address(spec)

    def work() -> LiveVideoSource:
        return LiveVideoSource(
            _open_capture(spec, address),
            address.plain,
            options,
            kind="network",
            note="Frames are due as early as the quickest of the last seconds came; what lies before that (exposure, the sender's "
            f"encoder, the network) is not known. {_LATE[address.scheme]}",
        )

    given_up = SourceGone(
        f"needed a stream at {address.plain}, got no answer within {OPEN_WITHIN_S:g} s; is the sender on, and the address right?"
    )
    return within(OPEN_WITHIN_S, work, given_up)


def _ask_why(address: Address) -> None:
    """Ask an RTSP server for a stream that did not open, since FFmpeg's own failure says nothing of why.

    Not before: some servers are not ready for a second client just after a first one has asked and gone.

    Raises:
        SourceError: It answers that there is none, or for nobody without a password, or it speaks something else.
        SourceGone: Nobody is there.
    """
    query = f"?{address.query}" if address.query else ""
    asked = f"DESCRIBE {address.plain}{query} RTSP/1.0\r\nCSeq: 1\r\nAccept: application/sdp\r\n\r\n"
    try:
        with socket.create_connection((address.host, address.port), OPEN_WITHIN_S) as server:
            server.sendall(asked.encode())
            said = server.recv(_STATUS_BYTES)
    except OSError as error:
        why = "no answer" if isinstance(error, TimeoutError) else (error.strerror or str(error))
        raise SourceGone(
            f"needed an RTSP server at {address.host}:{address.port}, got: {why}; start it, or check address and port"
        ) from None
    words = said.split(b"\r\n")[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"RTSP/") or not words[1].isdigit():
        raise SourceError(
            f"needed an RTSP server at {address.host}:{address.port}, got an answer that is none of RTSP; check the port"
        )
    code = int(words[1])
    if code == 401 and not address.user:
        raise SourceError(
            f"{address.plain} wants a user and a password, got none; name them: rtsp://USER:PASSWORD@{address.host}..."
        )
    if code == 404:
        raise SourceError(
            f"needed a stream at {address.plain}, the server says it has none of that name (404); check the path"
        )
    if code >= 400 and code != 401:
        raise SourceGone(f"needed a stream at {address.plain}, the server says {code}; see its own log")


def _open_capture(spec: str, address: Address) -> Any:
    import cv2

    quiet_opencv()
    limits = [
        cv2.CAP_PROP_OPEN_TIMEOUT_MSEC,
        round(OPEN_WITHIN_S * 1000),
        cv2.CAP_PROP_READ_TIMEOUT_MSEC,
        SILENT_MS,
    ]
    with _told(_OPTIONS[address.scheme]):
        # One decoding thread: frame threads hold frames back, each of them one.
        capture = cv2.VideoCapture(spec, cv2.CAP_FFMPEG, [cv2.CAP_PROP_N_THREADS, 1, *limits])
    if capture.isOpened():
        return capture
    capture.release()
    if address.scheme == "tcp":
        raise SourceGone(
            f"needed a sender of MPEG-TS that listens at {address.plain}, got none, or another kind of stream; start it, or check "
            "address and port"
        )
    _ask_why(address)
    more = "user and password are refused, or " if address.user else ""
    raise SourceError(
        f"{address.plain} does not open: {more}it is not offered over TCP, or is coded in a way that this OpenCV does not read"
    )


@contextlib.contextmanager
def _told(options: str) -> Iterator[None]:
    """OpenCV takes FFmpeg's options from the environment, while it opens; its log goes past every logger."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
    before = os.environ.get(_OPTIONS_NAME)
    os.environ[_OPTIONS_NAME] = options
    try:
        yield
    finally:
        if before is None:
            del os.environ[_OPTIONS_NAME]
        else:
            os.environ[_OPTIONS_NAME] = before
