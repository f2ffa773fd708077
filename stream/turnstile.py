"""Holds the clients of a socket that is bound to an address down, in a thread of its own, so that a flood does not wait for a frame.

Everybody on this host may connect to a loopback TCP port, and everybody who is allowed to one with CURVE
(`stream/admission.py`). What that may cost is bounded here: connections, and what their clients say. libzmq files each
subscription before anybody sees it, in the thread that publishes: 5 MB of them were seen to hold frames up for 2.2 s and to
take 230 MiB for good.
"""

import threading
import time

import zmq

from stream.connections import MAX_CONNECTIONS, Connections, bound_strangers

LOOK_MS = 20
"""How often it is looked what clients have said."""


class Turnstile:
    """Follows the connections of the sockets of one ZeroMQ context.

    Args:
        context: The context; ending it ends this too.
    """

    def __init__(self, context: "zmq.Context[zmq.Socket[bytes]]") -> None:
        self._followed: list[Connections] = []
        self._lock = threading.Lock()
        ear = self._open_ear(context)
        self._thread = threading.Thread(target=self._work, args=(ear,), name="turnstile", daemon=True)
        self._thread.start()

    def protect(self, socket: "zmq.Socket[bytes]", *, sends_only: bool = False) -> Connections:
        """Follow a socket that is not bound yet.

        Args:
            socket: The socket.
            sends_only: Its clients have nothing to say but what they subscribe to.
        """
        bound_strangers(socket, sends_only=sends_only)
        connections = Connections(socket, MAX_CONNECTIONS, sends_only=sends_only)
        with self._lock:
            self._followed.append(connections)
        return connections

    def admits(self, _user: bytes) -> bool:
        """Whether a client may come in now; here everybody may."""
        return True

    def statistics(self) -> dict[str, int]:
        """Connections that were one too many, and those ended because their client said too much."""
        with self._lock:
            followed = list(self._followed)
        return {
            "refused": sum(connections.refused for connections in followed),
            "talkers": sum(connections.talkers for connections in followed),
        }

    def join(self) -> None:
        """Wait for the thread; the context has been ended."""
        self._thread.join()

    def _open_ear(self, context: "zmq.Context[zmq.Socket[bytes]]") -> "zmq.Socket[bytes]":
        """The socket that the thread waits on beside the connections' events; here nobody ever speaks to it."""
        return context.socket(zmq.PAIR)

    def _hear(self, ear: "zmq.Socket[bytes]") -> None:
        """Something has come to the ear."""

    def _look(self, following: list[Connections]) -> None:
        """Some time has passed."""
        for connections in following:
            connections.end_talkers(time.monotonic_ns())

    def _work(self, ear: "zmq.Socket[bytes]") -> None:
        poller = zmq.Poller()
        poller.register(ear, zmq.POLLIN)
        following: list[Connections] = []
        next_ms = _now_ms() + LOOK_MS
        try:
            while True:
                with self._lock:
                    new = self._followed[len(following) :]
                for connections in new:
                    poller.register(connections.monitor, zmq.POLLIN)
                    following.append(connections)
                ready = dict(poller.poll(max(1, next_ms - _now_ms())))
                for connections in following:
                    connections.take_in()
                if ear in ready:
                    self._hear(ear)
                if _now_ms() >= next_ms:
                    next_ms = _now_ms() + LOOK_MS
                    self._look(following)
        except zmq.ContextTerminated:
            pass
        finally:
            with self._lock:
                for connections in self._followed:
                    connections.monitor.close(linger=0)
            ear.close(linger=0)


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000
