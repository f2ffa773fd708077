"""Credit: what makes a replay lossless. One measuring client says what it has read, and no more is handed out than
it can take."""

import contextlib

import zmq

from stream.admission import open_turnstile, user_of
from stream.connections import bound_strangers
from stream.endpoint import Curve
from stream.errors import EndpointError

WINDOW = 4
"""Frames a replay may be ahead of its client; below the publisher's send queue, so none is dropped there."""


class Credit:
    """The publisher's side of one measuring client's credit.

    Args:
        address: Where the client says what it has read.
        curve: The publisher's keys; None for an address without CURVE.

    Raises:
        EndpointError: The address is in use or cannot be bound.
        KeyFileError: As `Admission`.
    """

    def __init__(self, address: str, curve: Curve | None = None) -> None:
        self._given = 0
        self._used = 0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._turnstile = open_turnstile(self._context, address, curve)
        self.socket: zmq.Socket[bytes] = self._context.socket(zmq.PULL)
        bound_strangers(self.socket)
        self._connections = None if self._turnstile is None else self._turnstile.protect(self.socket)
        self.socket.setsockopt(zmq.LINGER, 0)
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.close()
            raise EndpointError(
                f"needed a free address, got {address}: {error.strerror}; choose another with --endpoint"
            ) from error

    def allows(self) -> bool:
        """Whether one more frame may be handed out."""
        return self._used - self._given < WINDOW

    def use(self) -> None:
        """A frame's slot was handed to the source."""
        self._used += 1

    def give_back(self, frames: int) -> None:
        """So many frames will never reach the client: repeats that are not sent, slots of a source that died."""
        self._given += frames

    def hear(self) -> None:
        """Take in what the client has read; never waits."""
        with contextlib.suppress(zmq.Again):
            while True:
                frame = self.socket.recv(zmq.NOBLOCK, copy=False)
                if self._admits(frame):
                    self._given += int.from_bytes(frame.bytes, "little")

    def _admits(self, frame: zmq.Frame) -> bool:
        """Whether credit comes from a client that may still give it; always without CURVE."""
        if self._turnstile is None or self._connections is None:
            return True
        known = user_of(frame)
        if known is None:
            return False
        self._connections.belongs(*known)
        return self._turnstile.admits(known[1])

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
        self._context.term()
