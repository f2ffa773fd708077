"""Why a client hears nothing though somebody answers: told from the handshakes of its own connection.

A publisher gives a stranger no reason (`stream/admission.py`): it holds the connection and closes it after 3 s, while a
handshake that makes no sense to it, of another key or of none, is closed at once. That difference is all there is.
"""

import contextlib

import zmq
from zmq.utils.monitor import parse_monitor_message

from stream.connections import HANDSHAKE_MS
from stream.timing import NS_PER_MS, Clock

HELD_NS = HANDSHAKE_MS * NS_PER_MS // 3
"""A handshake takes milliseconds; one that has lasted so long does not end well."""
_FAILED = (
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
_ENDED = zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
NOT_ALLOWED = "Somebody answers, but does not let us in: the publisher does not know our key (contrastream keys allow, on its host), or hangs"
NOT_ITS_KEY = "Who answers ends the handshake: --server-key is not its key, or it takes no keys"
NO_KEY = "Who answers ends the handshake: it wants keys (--server-key), or is no publisher"


class Handshake:
    """Follows one socket of a client.

    Args:
        socket: Before it connects.
        clock: The clock of ages.
        keys: Whether it shakes hands with CURVE.
    """

    def __init__(self, socket: "zmq.Socket[bytes]", clock: Clock, *, keys: bool) -> None:
        self._socket = socket
        self._clock = clock
        self._keys = keys
        self._since_ns: int | None = None
        """When the handshake began that has not ended yet."""
        self._failed = ""
        self.monitor = socket.get_monitor_socket(
            zmq.EVENT_CONNECTED | zmq.EVENT_HANDSHAKE_SUCCEEDED | _FAILED | _ENDED
        )

    def take_in(self) -> None:
        """Take in what has happened; never waits. Call it soon, since only the time tells who was held."""
        with contextlib.suppress(zmq.Again):
            while True:
                self._take(int(parse_monitor_message(self.monitor.recv_multipart(zmq.NOBLOCK))["event"]))

    def _take(self, event: int) -> None:
        if event == zmq.EVENT_CONNECTED:
            self._since_ns = self._clock.now_ns()
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._since_ns, self._failed = None, ""
        elif event & _FAILED:
            # One that was held before explains a later one that is closed at once, when too many have come.
            if self._is_held() or self._failed != NOT_ALLOWED:
                self._failed = self._why()
            self._since_ns = None
        else:
            self._since_ns = None

    def _is_held(self) -> bool:
        return self._since_ns is not None and self._clock.now_ns() - self._since_ns > HELD_NS

    def _why(self) -> str:
        if self._keys:
            return NOT_ALLOWED if self._is_held() else NOT_ITS_KEY
        return NO_KEY

    def why(self) -> str:
        """Why nothing is heard, for people; empty where the handshake has succeeded, or nobody answers."""
        if self._is_held():
            return self._why()
        return self._failed

    def close(self) -> None:
        """Before the socket is closed."""
        self._socket.disable_monitor()
        self.monitor.close(linger=0)
