"""The connections of a bound socket, as the operating system sees them: counted, known by their user, let go of.

ZeroMQ has no call that ends one client's connection. What it has is a monitor that names each connection's descriptor:
shutting that down makes ZeroMQ's I/O thread drop the client, and nobody else.
"""

import contextlib
import fcntl
import os
import socket as sockets
import struct
import termios
import threading
from collections.abc import Callable
from dataclasses import dataclass

import zmq
from zmq.utils.monitor import parse_monitor_message

HANDSHAKE_MS = 3000
"""A connection whose handshake is not over by then is ended."""
MAX_CLIENT_BYTES = 1024
"""Of a message that a client sends: subscriptions, requests, credit and the handshake are all shorter."""
MAX_CONNECTIONS = 64
"""At a socket that hosts other than this one reach: no more are held, whoever they are."""


@dataclass
class Connection:
    """A client's connection."""

    descriptor: int
    inode: int
    """Tells this socket from a later one with the same descriptor."""
    user: bytes | None = None
    """The public key that it has authenticated with; None where there is none, or nothing was heard of it yet."""
    unread: int = 0
    since_ns: int = 0
    """How long `unread` has stayed the same."""


def bound_strangers(socket: "zmq.Socket[bytes]") -> None:
    """What one connection may cost a socket that is bound to an address: call it before `bind`."""
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_CLIENT_BYTES)


class Connections:
    """Follows the connections of one socket. Two threads may use it, but only one `take_in`.

    Args:
        socket: Before it is bound, or nobody has connected.
        limit: The most connections held; one more ends the oldest that nobody has authenticated, or itself. None: no limit.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", limit: int | None = None) -> None:
        self._socket = socket
        self._limit = limit
        self.monitor = socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
        )
        self._lock = threading.Lock()
        self._held: dict[int, Connection] = {}
        self.refused = 0
        """Connections that were one too many."""

    def take_in(self) -> None:
        """Take in who came and went; never waits."""
        with contextlib.suppress(zmq.Again):
            while True:
                event = parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))
                with self._lock:
                    if event["event"] == zmq.EVENT_ACCEPTED:
                        self._came(int(event["value"]))
                    else:
                        self._held.pop(int(event["value"]), None)

    def _came(self, descriptor: int) -> None:
        try:
            came = Connection(descriptor, os.fstat(descriptor).st_ino)
        except OSError:
            return  # it is gone again already
        self._held.pop(descriptor, None)
        self._held[descriptor] = came
        if self._limit is not None and len(self._held) > self._limit:
            nobody = (held for held in self._held.values() if held.user is None)
            out = next(nobody, came)
            self._held.pop(out.descriptor, None)
            end_connection(out)
            self.refused += 1

    def belongs(self, descriptor: int, user: bytes) -> None:
        """A message came in over this connection, and ZeroMQ says who has authenticated there."""
        with self._lock:
            if (held := self._held.get(descriptor)) is not None:
                held.user = user

    def end_unless(self, admitted: Callable[[bytes], bool], *, strangers: bool) -> int:
        """End the connections of those who are not admitted; returns how many.

        Args:
            admitted: Whether a public key is.
            strangers: End those too of which nothing was heard yet; if they belong they come again by themselves.
        """
        with self._lock:
            out = [
                held
                for held in self._held.values()
                if (strangers if held.user is None else not admitted(held.user))
            ]
            for held in out:
                del self._held[held.descriptor]
        return sum(end_connection(held) for held in out)

    @property
    def held(self) -> list[Connection]:
        """The connections now."""
        with self._lock:
            return list(self._held.values())


def end_connection(connection: Connection) -> bool:
    """Make ZeroMQ drop a client; whether it was still there."""
    with contextlib.suppress(OSError):
        if os.fstat(connection.descriptor).st_ino != connection.inode:
            return False
        # A second descriptor of the same socket: shutting it down makes ZeroMQ's I/O thread drop the client.
        with sockets.socket(fileno=os.dup(connection.descriptor)) as client:
            client.shutdown(sockets.SHUT_RDWR)
        return True
    return False


def unread_bytes(connection: Connection) -> int:
    """Bytes the kernel holds for a client that has not read them; 0 where the socket is gone."""
    try:
        answer = fcntl.ioctl(connection.descriptor, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])
