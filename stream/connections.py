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

from stream.timing import NS_PER_S

HANDSHAKE_MS = 3000
"""A connection whose handshake is not over by then is ended."""
MAX_CLIENT_BYTES = 1024
"""Of a message that a client sends: subscriptions, requests, credit and the handshake are all shorter."""
MAX_CONNECTIONS = 64
"""At a socket that others than this user reach: no more are held, whoever they are."""
MAX_TOPIC_BYTES = 64
"""The same as `MAX_CLIENT_BYTES` of a socket that only sends, without CURVE: libzmq keeps a subscription byte by byte, in some 40 bytes each."""
MAX_UNHEARD = 4
"""Messages of one such client that wait to be taken in."""
RECEIVE_BUFFER_BYTES = 2048
"""And what the kernel holds before that: what was sent up to the instant that its connection is ended."""
TALK_BYTES = 4096
"""So much a client of a socket that only sends may say at once: its handshake and its subscriptions are a tenth of it ..."""
TALK_BYTES_PER_S = 512
"""... and so much all the time: ZeroMQ's heartbeats are a fifth of it."""
MAX_SUBSCRIPTIONS = 16
"""Of one connection at a time."""
_RECEIVED = struct.Struct("<Q")
_RECEIVED_AT = 128
"""tcpi_bytes_received in struct tcp_info (linux/tcp.h)."""


@dataclass
class Connection:
    """A client's connection."""

    descriptor: int
    inode: int
    """Tells this socket from a later one with the same descriptor."""
    user: bytes | None = None
    """The public key that it has authenticated with, empty without CURVE; None where nothing was heard of it yet."""
    unread: int = 0
    since_ns: int = 0
    """How long `unread` has stayed the same."""
    said: int = 0
    """Bytes that came from the client by `looked_ns`."""
    looked_ns: int = 0
    may_say: float = TALK_BYTES
    """Bytes that it may say now."""
    subscriptions: int = 0


def bound_strangers(socket: "zmq.Socket[bytes]", *, sends_only: bool = False) -> None:
    """What one connection may cost a socket that is bound to an address: call it before `bind`.

    Args:
        socket: The socket; a CURVE server already if it is to be one.
        sends_only: Its clients have nothing to say but what they subscribe to.
    """
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_CLIENT_BYTES)
    if sends_only:
        socket.setsockopt(zmq.RCVHWM, MAX_UNHEARD)
        socket.setsockopt(zmq.RCVBUF, RECEIVE_BUFFER_BYTES)
        if not socket.getsockopt(zmq.CURVE_SERVER):  # whose handshake is longer
            socket.setsockopt(zmq.MAXMSGSIZE, MAX_TOPIC_BYTES)


class Connections:
    """Follows the connections of one socket. Two threads may use it, but only one `take_in`.

    Args:
        socket: Before it is bound, or nobody has connected.
        limit: The most connections held; one more ends the oldest of which nothing was heard yet, or itself. None: no limit.
        sends_only: As `bound_strangers`; `end_talkers` ends those who say more than such a client does.
    """

    def __init__(
        self, socket: "zmq.Socket[bytes]", limit: int | None = None, *, sends_only: bool = False
    ) -> None:
        self._socket = socket
        self._limit = limit
        self._sends_only = sends_only
        self.monitor = socket.get_monitor_socket(
            zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
        )
        self._lock = threading.Lock()
        self._held: dict[int, Connection] = {}
        self._early: dict[int, tuple[int, bytes]] = {}
        """Descriptors over which a message came before the event that they are there, each with its inode and its user."""
        self.refused = 0
        """Connections that were one too many."""
        self.talkers = 0
        """Connections that were ended because their client said too much."""

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
                        self._early.pop(int(event["value"]), None)

    def _came(self, descriptor: int) -> None:
        try:
            came = Connection(descriptor, os.fstat(descriptor).st_ino)
        except OSError:
            return  # it is gone again already
        inode, user = self._early.pop(descriptor, (0, b""))
        if inode == came.inode:
            came.user = user
        self._held.pop(descriptor, None)
        self._held[descriptor] = came
        if self._limit is not None and len(self._held) > self._limit:
            nobody = (held for held in self._held.values() if held.user is None)
            out = next(nobody, came)
            self._held.pop(out.descriptor, None)
            end_connection(out)
            self.refused += 1

    def belongs(self, descriptor: int, user: bytes) -> None:
        """A message came in over this connection, and ZeroMQ says who has authenticated there; nobody without CURVE."""
        with self._lock:
            if (held := self._held.get(descriptor)) is not None:
                held.user = user
            elif len(self._early) < MAX_CONNECTIONS:
                with contextlib.suppress(OSError):
                    self._early[descriptor] = os.fstat(descriptor).st_ino, user

    def subscribed(self, descriptor: int, change: int) -> None:
        """The client of this connection has subscribed (1) or taken that back (-1); one with too many is ended."""
        with self._lock:
            held = self._held.get(descriptor)
            if held is None:
                return
            held.subscriptions = max(0, held.subscriptions + change)
            if held.subscriptions > MAX_SUBSCRIPTIONS:
                self._end_talker(held)

    def end_talkers(self, now_ns: int) -> None:
        """End the connections whose clients have said more than one that only listens has to say."""
        if not self._sends_only:
            return
        with self._lock:
            for held in list(self._held.values()):
                said = received_bytes(held)
                since_s = (now_ns - held.looked_ns) / NS_PER_S if held.looked_ns else 0.0
                held.may_say = min(TALK_BYTES, held.may_say + TALK_BYTES_PER_S * since_s) - (said - held.said)
                held.said, held.looked_ns = said, now_ns
                if held.may_say < 0:
                    self._end_talker(held)

    def _end_talker(self, held: Connection) -> None:
        del self._held[held.descriptor]
        self.talkers += end_connection(held)

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
            # What has come already would still be taken in, and is thrown away.
            with contextlib.suppress(OSError):
                client.recv(1 << 20, sockets.MSG_DONTWAIT | sockets.MSG_TRUNC)
        return True
    return False


def unread_bytes(connection: Connection) -> int:
    """Bytes the kernel holds for a client that has not read them; 0 where the socket is gone."""
    try:
        answer = fcntl.ioctl(connection.descriptor, termios.TIOCOUTQ, b"\0\0\0\0")
    except OSError:
        return 0
    return int(struct.unpack("i", answer)[0])


def received_bytes(connection: Connection) -> int:
    """Bytes that have come from a client over TCP since it connected; as many as were known where the socket is gone."""
    try:
        client = sockets.socket(
            sockets.AF_INET, sockets.SOCK_STREAM, sockets.IPPROTO_TCP, fileno=os.dup(connection.descriptor)
        )
    except OSError:
        return connection.said
    with client:
        try:
            told = client.getsockopt(sockets.IPPROTO_TCP, sockets.TCP_INFO, _RECEIVED_AT + _RECEIVED.size)
        except OSError:
            return connection.said
    if len(told) < _RECEIVED_AT + _RECEIVED.size:  # Linux before 4.1
        return connection.said
    return max(connection.said, int(_RECEIVED.unpack_from(told, _RECEIVED_AT)[0]))
