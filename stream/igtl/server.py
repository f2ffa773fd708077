"""Serves a running stream over OpenIGTLink: a client of the stream in a process of its own, as a viewer is.

Sends IMAGE messages named Live and SyntheticResearch, and STATUS messages named Status. Each peer has the newest frame and
nothing older: one that is slow misses frames and delays nobody, and one that reads nothing for 5 s is let go. Where a
frame has no synthetic plane a black one is sent once, so that no old vessels stay on a screen.

OpenIGTLink knows no keys, so it listens on this host only; a Slicer elsewhere comes through an SSH tunnel.
"""

import argparse
import contextlib
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Sequence

import numpy as np

from stream.control import die_with_parent
from stream.endpoint import parse_endpoint
from stream.errors import EndpointError, StreamError
from stream.frame import Spacing, State
from stream.igtl.message import NOT_READY, OK, image_body, pack, status_body
from stream.subscribe import Shown, Subscriber
from stream.timing import NS_PER_S, MonotonicClock, Stage
from stream.wire import Message

DEFAULT_PORT = 18944
"""Slicer's and PLUS' own."""
HOST = "127.0.0.1"
LIVE, SYNTHETIC, STATUS = "Live", "SyntheticResearch", "Status"
MAX_PEERS = 8
POLL_MS = 100
STUCK_S = 5.0
STATUS_EVERY_S = 0.5


class Peer(threading.Thread):
    """One connection: sends what is newest, reads and forgets what the other side says.

    Args:
        connection: Its socket.
    """

    def __init__(self, connection: socket.socket) -> None:
        super().__init__(name="igtl-peer", daemon=True)
        self._connection = connection
        self._connection.settimeout(STUCK_S)
        self._news = threading.Condition()
        self._waiting: dict[str, bytes] = {}
        """The newest unsent message of each device."""
        self.over = False
        self.skipped = 0
        """Messages that a newer one replaced before they were sent."""

    def offer(self, device: str, message: bytes) -> None:
        """Let it send this in place of what it has not sent of the same device."""
        with self._news:
            self.skipped += device in self._waiting
            self._waiting[device] = message
            self._news.notify()

    def end(self) -> None:
        """Close the connection; the thread ends."""
        with self._news:
            self.over = True
            self._news.notify()
        with contextlib.suppress(OSError):
            self._connection.shutdown(socket.SHUT_RDWR)

    def run(self) -> None:
        try:
            while True:
                with self._news:
                    self._news.wait_for(lambda: self._waiting or self.over, timeout=1.0)
                    if self.over:
                        return
                    messages, self._waiting = self._waiting, {}
                for message in messages.values():
                    self._connection.sendall(message)
                self._forget_what_came()
        except OSError:
            return  # gone, or it has read nothing for 5 s
        finally:
            self.over = True
            self._connection.close()

    def _forget_what_came(self) -> None:
        """Peers ask for things (GET_IMAGE, STT_IMAGE); everything is sent anyway."""
        for _ in range(16):  # a peer that floods holds up itself alone
            if not select.select([self._connection], [], [], 0)[0]:
                return
            if not self._connection.recv(65536):
                raise ConnectionResetError


class Server:
    """Serves one stream.

    Args:
        subscriber: The stream; closed with this.
        port: On this host; 0 takes a free one.

    Raises:
        EndpointError: The port is in use.
    """

    def __init__(self, subscriber: Subscriber, port: int = DEFAULT_PORT) -> None:
        self._subscriber = subscriber
        self._clock = MonotonicClock()
        self._over = threading.Event()
        self._peers: list[Peer] = []
        self._drawn = False
        self._status_at = 0.0
        self._said: tuple[State, object] | None = None
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.setblocking(False)
        try:
            self._listener.bind((HOST, port))
            self._listener.listen(MAX_PEERS)
        except OSError as error:
            self._listener.close()
            raise EndpointError(
                f"needed port {port} for OpenIGTLink, got: {error.strerror}; choose another with --igtl PORT"
            ) from error
        self.port = int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Serve until `end`."""
        try:
            while not self._over.is_set():
                message = self._subscriber.poll(POLL_MS)
                self._accept()
                self._peers = [peer for peer in self._peers if not peer.over]
                shown = self._subscriber.shown_state()
                if message is not None and self._peers:
                    self._offer_frame(message)
                self._offer_status(shown)
        finally:
            for peer in self._peers:
                peer.end()
            self._listener.close()
            self._subscriber.close()

    def end(self) -> None:
        """End soon; safe from a signal handler."""
        self._over.set()

    def _accept(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                connection, _address = self._listener.accept()
                if len(self._peers) >= MAX_PEERS:
                    connection.close()
                    continue
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._peers.append(Peer(connection))
                self._peers[-1].start()
                self._said = None  # a new one wants to know

    def _offer_frame(self, message: Message) -> None:
        header = message.header
        seconds = self._unix_s(header.stamp_ns(Stage.DUE))
        spacing = _spacing_mm(header.spacing)
        self._offer(LIVE, pack("IMAGE", LIVE, seconds, image_body(message.live, spacing)))
        if message.synthetic is not None:
            self._offer(SYNTHETIC, pack("IMAGE", SYNTHETIC, seconds, image_body(message.synthetic, spacing)))
        elif self._drawn:
            nothing = np.zeros_like(message.live)
            self._offer(SYNTHETIC, pack("IMAGE", SYNTHETIC, seconds, image_body(nothing, spacing)))
        self._drawn = message.synthetic is not None

    def _offer_status(self, shown: Shown) -> None:
        now = time.monotonic()
        said = (shown.state, shown.reason)
        if said == self._said and now - self._status_at < STATUS_EVERY_S:
            return
        if self._drawn and shown.state in (State.STALE, State.NO_SIGNAL):
            self._blank()
        self._said, self._status_at = said, now
        ready = shown.state in (State.SYNTHETIC, State.PASSTHROUGH, State.UNCHANGED)
        reason = f" ({shown.reason.name.lower()})" if shown.reason else ""
        text = f"{shown.state.name}{reason}, age {shown.age_ms / 1000:.1f} s. Research tool, not a medical device."
        body = status_body(OK if ready else NOT_READY, shown.state.name, text)
        self._offer(STATUS, pack("STATUS", STATUS, time.time(), body))

    def _blank(self) -> None:
        """Nobody sends frames any more, so no vessels may stay."""
        if (latest := self._subscriber.latest) is None:
            return
        body = image_body(np.zeros_like(latest.live), _spacing_mm(latest.header.spacing))
        self._offer(SYNTHETIC, pack("IMAGE", SYNTHETIC, time.time(), body))
        self._drawn = False

    def _offer(self, device: str, message: bytes) -> None:
        for peer in self._peers:
            peer.offer(device, message)

    def _unix_s(self, stamp_ns: int) -> float:
        """A stamp of CLOCK_MONOTONIC as seconds since 1970, as this protocol has it."""
        return time.time() - (self._clock.now_ns() - stamp_ns) / NS_PER_S


def _spacing_mm(spacing: Spacing | None) -> tuple[float, float] | None:
    return None if spacing is None else (spacing.row_mm, spacing.column_mm)


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m stream.igtl.server`: exit status 0 when told to end, 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m stream.igtl.server", description=__doc__)
    parser.add_argument("endpoint", nargs="?", help="the stream (default: this host's)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument("--memory", action="store_true", help="read the frames in shared memory")
    parser.add_argument(
        "--die-with-parent", action="store_true", help="end when the process that started it ends"
    )
    options = parser.parse_args(arguments)
    if options.die_with_parent:
        die_with_parent()
    try:
        subscriber = Subscriber(parse_endpoint(options.endpoint), memory=options.memory)
        server = Server(subscriber, options.port)
    except StreamError as error:
        print(error, file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: server.end())
    print(f"OpenIGTLink at {HOST}:{server.port}", flush=True)
    server.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
