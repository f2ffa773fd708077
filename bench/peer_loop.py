"""Contestant: the plain Python loop. A frame from an array, the engine, imagezmq to a client.

`python -m bench.peer_loop sender|client CONFIG`
"""

import sys
from typing import Any

import numpy as np

from bench.errors import BenchError
from bench.peer import Received, loop_handlers, planes_of, role_and_config, run_client, versions
from bench.worker import serve
from engines.errors import EngineError
from stream.control import become_child, format_from_json
from stream.errors import StreamError
from stream.timing import MonotonicClock

SETTINGS = "imagezmq's default REQ/REP, over ipc instead of its TCP (one hop less); it sends without a copy by itself"


class ImagezmqSender:
    """Sends and waits for the hub's reply, as imagezmq does by default.

    Args:
        address: The hub's.
    """

    def __init__(self, address: str) -> None:
        import imagezmq

        self._sender = imagezmq.ImageSender(connect_to=address)
        self._sender.zmq_socket.linger = 0

    def send(self, buffer: int, message: memoryview, head: tuple[int, ...]) -> None:
        # The image name is imagezmq's place for what belongs to a frame.
        self._sender.send_image(" ".join(map(str, head)), np.frombuffer(message, np.uint8))

    def wait(self, buffer: int) -> None:
        """The reply has come, so the message has arrived."""


def client(config: dict[str, Any]) -> None:
    """The hub: receive, stamp, reply."""
    import imagezmq

    clock = MonotonicClock()
    frame_format = format_from_json(config["format"])
    received = Received()
    hub = imagezmq.ImageHub(open_port=config["address"])
    hub.zmq_socket.linger = 0
    last: list[np.ndarray] = []

    def receive() -> None:
        name, image = hub.recv_image()
        received_ns = clock.now_ns()
        hub.send_reply()
        received.add((*map(int, name.split()), received_ns, 0))
        last[:] = [image]

    def take() -> dict[str, Any]:
        return received.take(planes_of(last[0].data, frame_format) if last else None)

    run_client(hub.zmq_socket, receive, take)
    hub.zmq_context.destroy(linger=0)


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
            lambda: ImagezmqSender(config["address"]),
            lambda: {"versions": versions("imagezmq", "pyzmq"), "settings": SETTINGS},
        ),
        expected=(StreamError, EngineError, BenchError, ValueError),
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
