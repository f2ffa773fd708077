"""Contestant: raw pyzmq with the engine in the same process, PUB/SUB over ipc, sent without a copy.

`python -m bench.peer_pyzmq sender|client CONFIG`. The client also listens to the Holoscan contestant.
"""

import sys
from typing import Any

import zmq

from bench.errors import BenchError
from bench.peer import (
    BUFFERS,
    CONNECT_MS,
    HEAD,
    Received,
    loop_handlers,
    planes_of,
    role_and_config,
    run_client,
    versions,
)
from bench.worker import serve
from engines.errors import EngineError
from stream.control import become_child, format_from_json
from stream.errors import StreamError
from stream.timing import MonotonicClock

SETTINGS = (
    "PUB/SUB over ipc, one part per message, copy=False, buffers reused when their MessageTracker is done"
)


class PyzmqSender:
    """Publishes without a copy.

    Args:
        address: Where the client will be.

    Raises:
        BenchError: The client did not subscribe.
    """

    def __init__(self, address: str) -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.XPUB)  # a PUB that says when its client is there
        self._socket.linger = 0
        self._socket.bind(address)
        self._trackers: list[zmq.MessageTracker | None] = [None] * BUFFERS
        if not self._socket.poll(CONNECT_MS):
            self._context.destroy(linger=0)
            raise BenchError(f"the client did not subscribe within {CONNECT_MS // 1000} s")
        self._socket.recv()

    def send(self, buffer: int, message: memoryview, head: tuple[int, ...]) -> None:
        self._trackers[buffer] = self._socket.send(message, copy=False, track=True)

    def wait(self, buffer: int) -> None:
        if (tracker := self._trackers[buffer]) is not None and not tracker.done:
            tracker.wait()


def client(config: dict[str, Any]) -> None:
    """Receive and stamp."""
    clock = MonotonicClock()
    frame_format = format_from_json(config["format"])
    received = Received()
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    socket = context.socket(zmq.SUB)
    socket.linger = 0
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    socket.connect(config["address"])
    last: list[zmq.Frame] = []

    def receive() -> None:
        message = socket.recv(zmq.NOBLOCK, copy=False)
        received_ns = clock.now_ns()
        received.add((*HEAD.unpack_from(message.buffer), received_ns, 0))
        last[:] = [message]

    def take() -> dict[str, Any]:
        return received.take(planes_of(last[0].buffer, frame_format) if last else None)

    run_client(socket, receive, take)
    context.destroy(linger=0)


def main() -> int:
    """Entry point of its two processes."""
    become_child()
    role, config = role_and_config()
    if role == "client":
        client(config)
        return 0
    serve(
        loop_handlers(
            config,
            lambda: PyzmqSender(config["address"]),
            lambda: {"versions": versions("pyzmq"), "settings": SETTINGS},
        ),
        expected=(StreamError, EngineError, BenchError, ValueError),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
