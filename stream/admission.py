"""Who may come in: CURVE on the publisher's sockets, and clients authenticated by their public key (ZeroMQ's ZAP, RFC 27).

One thread per ZeroMQ context answers ZAP, reads the folder of allowed clients anew four times a second, holds down what
they may cost (`stream/turnstile.py`), and ends the sessions of clients that were revoked.

pyzmq's own authenticator is not used: it answers 400 to a stranger, after which libzmq's client never tries again, not even
when its key is allowed a minute later. 300 ends the connection without a word, and the client tries again.
"""

import contextlib
import logging
import time

import zmq
from zmq.utils import z85

from stream.connections import Connections
from stream.endpoint import Curve
from stream.errors import EndpointError, KeyFileError
from stream.keys import KeyPair, allowed_clients, load_pair, read_public
from stream.timing import NS_PER_MS
from stream.turnstile import Turnstile

log = logging.getLogger(__name__)

DOMAIN = b"contrastream"
REFRESH_NS = 250 * NS_PER_MS


class Admission(Turnstile):
    """Decides who connects to the CURVE sockets of one ZeroMQ context.

    Args:
        context: The context; ending it ends this too.
        curve: Whose key pair the publisher has.

    Raises:
        KeyFileError: The key pair is not there, or the keys' folder or a file in it is not as it must be.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]", curve: Curve) -> None:
        self._pair = load_pair(curve.key)
        # The pair's own user has its secret key and could say to be anyone: `run --web` on this host is a client so.
        clients = allowed_clients()
        self._allowed = frozenset((self._pair.public, *clients.values()))
        self._labels = {key: label for label, key in clients.items()}
        self.admitted: dict[str, int] = {}
        """Handshakes of allowed keys so far, by label; `own` is the publisher's own pair. A client makes some, one a socket."""
        self.denied = 0
        """Handshakes of keys that are not allowed."""
        self.ended = 0
        """Sessions ended because their key was revoked."""
        self._trouble = ""
        self._refresh_ns = time.monotonic_ns()
        super().__init__(context)

    def protect(self, socket: "zmq.Socket[bytes]", *, sends_only: bool = False) -> Connections:
        """Make a socket, not bound yet, a CURVE server; returns its connections, which this follows from here on."""
        socket.curve_server = True
        socket.curve_secretkey = self._pair.secret
        socket.curve_publickey = self._pair.public
        socket.zap_domain = DOMAIN
        # Without this libzmq lets everybody in while nobody answers ZAP.
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
        return super().protect(socket, sends_only=sends_only)

    def admits(self, user: bytes) -> bool:
        """Whether a public key (Z85) may come in now."""
        return user in self._allowed

    def statistics(self) -> dict[str, int]:
        """Handshakes denied, sessions ended by revoking, and what a turnstile says."""
        return {"denied": self.denied, "revoked": self.ended, **super().statistics()}

    def _open_ear(self, context: "zmq.Context[zmq.Socket[bytes]]") -> "zmq.Socket[bytes]":
        zap = context.socket(zmq.ROUTER)
        zap.linger = 0
        zap.bind("inproc://zeromq.zap.01")
        return zap

    def _hear(self, ear: "zmq.Socket[bytes]") -> None:
        with contextlib.suppress(zmq.Again):
            while True:
                parts = ear.recv_multipart(zmq.NOBLOCK)
                route, (version, request, domain, _address, _identity, mechanism, *credentials) = (
                    parts[:2],
                    parts[2:],
                )
                user = b""
                if (domain, mechanism) == (DOMAIN, b"CURVE") and len(credentials) == 1:
                    user = z85.encode(credentials[0])
                if self.admits(user):
                    label = "own" if user == self._pair.public else self._labels.get(user, "?")
                    self.admitted[label] = self.admitted.get(label, 0) + 1
                    answer = (b"200", b"OK", user)
                else:
                    self.denied += 1
                    answer = (b"300", b"", b"")
                ear.send_multipart([*route, version, request, *answer, b""], zmq.NOBLOCK)

    def _look(self, following: list[Connections]) -> None:
        super()._look(following)
        now_ns = time.monotonic_ns()
        if now_ns - self._refresh_ns >= REFRESH_NS:
            self._refresh_ns = now_ns
            self._refresh(following)

    def _refresh(self, following: list[Connections]) -> None:
        """Read who is allowed, and end the sessions of those who no longer are. What cannot be read allows nobody new or old."""
        before = self._allowed
        try:
            clients, trouble = allowed_clients(), ""
        except KeyFileError as error:
            clients, trouble = {}, str(error)
        if trouble != self._trouble:
            log.error("no client is let in: %s", trouble) if trouble else log.info("clients are let in again")
            self._trouble = trouble
        self._allowed = frozenset((self._pair.public, *clients.values()))
        self._labels = {key: label for label, key in clients.items()}
        gone = bool(before - self._allowed)
        for connections in following:
            self.ended += connections.end_unless(self.admits, strangers=gone)


def open_turnstile(
    context: "zmq.Context[zmq.Socket[bytes]]", address: str, curve: Curve | None
) -> Turnstile | None:
    """Who holds the clients of an address down, for a context with nothing in it yet, which is ended where that cannot be.

    Args:
        context: The context of the sockets.
        address: Where they are bound.
        curve: The publisher's keys; None for an address without CURVE.

    Returns:
        None for an address that this user alone reaches.

    Raises:
        KeyFileError: As `Admission`.
    """
    if curve is None:
        return Turnstile(context) if address.startswith("tcp://") else None
    try:
        return Admission(context, curve)
    except KeyFileError:
        context.term()
        raise


def user_of(message: zmq.Frame) -> tuple[int, bytes] | None:
    """The descriptor a message came over and the public key that has authenticated there, empty without CURVE; None where
    ZeroMQ does not say."""
    try:
        descriptor = int(message.get("__fd"))
    except zmq.ZMQError:
        return None
    try:
        return descriptor, str(message.get("User-Id")).encode()
    except zmq.ZMQError:
        return descriptor, b""


def client_keys(curve: Curve | None) -> tuple[KeyPair, bytes] | None:
    """What a client connects with: its own pair and the publisher's public key; None without CURVE.

    Raises:
        EndpointError: The publisher's key is not given.
        KeyFileError: A key is not there or not as it must be.
    """
    if curve is None:
        return None
    if curve.server is None:
        raise EndpointError(
            "a client of an address with CURVE needs the publisher's public key, got none; give its LABEL.key file or "
            "its 40 characters with --server-key"
        )
    return load_pair(curve.key), read_public(curve.server)


def authenticate(socket: "zmq.Socket[bytes]", keys: tuple[KeyPair, bytes] | None) -> None:
    """Make a socket, not connected yet, a CURVE client; without keys it stays as it is."""
    if keys is not None:
        pair, server = keys
        socket.curve_secretkey, socket.curve_publickey, socket.curve_serverkey = (
            pair.secret,
            pair.public,
            server,
        )
