"""The server before a peer of another implementation, and before peers that misbehave."""

import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("pyigtl")

from stream.endpoint import parse_endpoint
from stream.errors import EndpointError
from stream.frame import FrameFormat, Plane, State
from stream.igtl.message import HEADER, IMAGE, unpack_head
from stream.igtl.server import MAX_PEERS, Server
from stream.outgoing import Grabbed, Inferred, Outgoing
from stream.publish import Publisher
from stream.ring import Ring
from stream.subscribe import Subscriber
from stream.timing import MonotonicClock
from stream.wire import ALL_PLANES

PEER = Path(__file__).parent / "pyigtl_peer.py"
PATIENCE_S = 30.0


def until(condition: Callable[[], object], what: str) -> None:
    over = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < over, f"waited {PATIENCE_S} s for {what}"
        time.sleep(0.005)


class Served:
    """A stream whose frames this test sends, and a server of it in a thread."""

    def __init__(self, endpoint: str) -> None:
        self.clock = MonotonicClock()
        self.publisher = Publisher(parse_endpoint(endpoint), self.clock, rate_hz=30.0)
        self.ring = Ring(FrameFormat(64, 96), 16)
        self.server = Server(Subscriber(endpoint), 0)
        self._thread = threading.Thread(target=self.server.run)
        self._thread.start()
        self.sequence = 0

        def there() -> bool:
            self.publisher.see_clients()
            return self.publisher.subscribers == 1

        until(there, "the server to subscribe")

    def send(self, *, drawn: bool) -> None:
        slot = self.ring.grant()
        assert slot is not None
        view = self.ring.slots[slot]
        view.live[:], view.synthetic[:], view.attention[:] = 100, 50, 255
        view.live[0, 0] = self.sequence % 256
        self.ring.fill(slot)
        now_ns = self.clock.now_ns()
        out = Outgoing(Grabbed(slot, self.sequence, now_ns, now_ns), None)
        if drawn:
            out.state, out.planes = State.SYNTHETIC, ALL_PLANES
            out.result = Inferred(slot, 1, now_ns, now_ns, True)
        else:
            out.planes = Plane.LIVE
        self.publisher.publish(self.ring, out)
        self.ring.release(slot)
        self.sequence += 1

    def close(self) -> None:
        self.server.end()
        self._thread.join(PATIENCE_S)
        self.publisher.close()
        self.ring.close()


@pytest.fixture
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    made = Served(f"ipc://{tmp_path_factory.mktemp('i')}/i")
    yield made
    made.close()


class Bare:
    """A peer of bare sockets: what came by device, the newest last."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 5.0)
        self.socket.settimeout(5.0)

    def _take(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            came = self.socket.recv(count - len(data))
            assert came, "the server has closed the connection"
            data += came
        return data

    def next(self, device: str) -> bytes:
        """The body of the next message of a device."""
        while True:
            head = unpack_head(self._take(HEADER.size))
            body = self._take(head.length)
            if head.device == device:
                return body


def test_a_stream_reaches_the_peer_pixel_for_pixel(
    start: Any, loop: Path, loop_frames: np.ndarray, endpoint: str, tmp_path: Path
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start("run", str(loop), "--loop", "--engine", "off", "--endpoint", endpoint, "--igtl", str(port))
    out = tmp_path / "peer.npz"
    subprocess.run([sys.executable, str(PEER), "receive", str(port), "30", str(out)], timeout=90, check=True)
    with np.load(out, allow_pickle=False) as seen:
        live, stamps, matrix = seen["live"], seen["stamps"], seen["matrix"]
    assert live.shape == (30, 256, 256)
    numbers = [int(np.flatnonzero((loop_frames == picture).all(axis=(1, 2)))[0]) for picture in live]
    assert len(set(numbers)) > 20
    # Due times, in the wall clock of this host.
    assert abs(stamps[-1] - time.time()) < 30.0
    assert (np.diff(stamps) > 0).all()
    np.testing.assert_allclose(np.abs(matrix[:3, :3]).max(axis=0), [0.4, 0.4, 1.0], rtol=1e-6)


def test_no_vessels_stay_when_none_are_drawn_any_more(served: Served) -> None:
    peer = Bare(served.server.port)
    until(lambda: served.server._peers, "the peer")
    served.send(drawn=True)
    assert peer.next("SyntheticResearch")[IMAGE.size :] == bytes([50]) * (64 * 96)
    served.send(drawn=False)
    assert peer.next("SyntheticResearch")[IMAGE.size :] == bytes(64 * 96)
    served.send(drawn=True)
    assert peer.next("SyntheticResearch")[IMAGE.size] == 50
    # And none when nobody sends: the server says so by itself.
    assert peer.next("SyntheticResearch")[IMAGE.size :] == bytes(64 * 96)
    (code,) = struct.unpack_from(">H", peer.next("Status"))
    assert code == 13
    peer.socket.close()


def test_a_slow_peer_misses_frames_and_delays_nobody(served: Served) -> None:
    slow, quick = Bare(served.server.port), Bare(served.server.port)
    until(lambda: len(served.server._peers) == 2, "both peers")
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    for number in range(300):
        served.send(drawn=True)
        assert quick.next("Live")[IMAGE.size] == number % 256
    assert max(peer.skipped for peer in served.server._peers) > 100
    for each in (slow, quick):
        each.socket.close()


@pytest.mark.parametrize(
    "said", [b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 70_000, b""], ids=["http", "much", "hung up"]
)
def test_what_a_peer_says_changes_nothing_for_the_others(served: Served, said: bytes) -> None:
    odd, other = Bare(served.server.port), Bare(served.server.port)
    until(lambda: len(served.server._peers) == 2, "both peers")
    odd.socket.sendall(said)
    if not said:
        odd.socket.close()
    for number in range(20):
        served.send(drawn=False)
        assert other.next("Live")[IMAGE.size] == number
    if not said:
        until(lambda: len(served.server._peers) == 1, "the one that hung up to be forgotten")
    odd.socket.close()
    other.socket.close()


def test_one_peer_too_many_is_sent_away(served: Served) -> None:
    peers = [Bare(served.server.port) for _ in range(MAX_PEERS)]
    until(lambda: len(served.server._peers) == MAX_PEERS, "all peers")
    one_more = socket.create_connection(("127.0.0.1", served.server.port), 5.0)
    one_more.settimeout(5.0)
    assert one_more.recv(1) == b""
    for each in (*(peer.socket for peer in peers), one_more):
        each.close()


def test_a_port_in_use_is_a_sentence(served: Served) -> None:
    other = Subscriber("nobody-here")
    with pytest.raises(EndpointError, match=f"needed port {served.server.port} for OpenIGTLink"):
        Server(other, served.server.port)
    other.close()
