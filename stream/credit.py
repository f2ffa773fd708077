"""Credit: what makes a replay lossless. One measuring client says what it has read, and no more is handed out than
it can take."""

import contextlib

import zmq

from stream.errors import EndpointError

WINDOW = 4
"""Frames a replay may be ahead of its client; below the publisher's send queue, so none is dropped there."""


class Credit:
    """The publisher's side of one measuring client's credit.

    Args:
        address: Where the client says what it has read.

    Raises:
        EndpointError: The address is in use or cannot be bound.
    """

    def __init__(self, address: str) -> None:
        self._given = 0
        self._used = 0
        self.socket: zmq.Socket[bytes] = zmq.Context.instance().socket(zmq.PULL)
        self.socket.setsockopt(zmq.LINGER, 0)
        try:
            self.socket.bind(address)
        except zmq.ZMQError as error:
            self.socket.close()
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
                self._given += int.from_bytes(self.socket.recv(zmq.NOBLOCK), "little")

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
