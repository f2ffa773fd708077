"""Frames from an OpenIGTLink server of another implementation, and from servers that misbehave."""

import contextlib
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pyigtl")

from stream.errors import SourceError, SourceGone
from stream.igtl.message import HEADER, image_body, pack
from stream.sources import igtl
from stream.sources.igtl import IgtlSource
from stream.sources.open import open_source
from stream.sources.options import SourceOptions
from stream.sources.source import FormatChanged
from stream.timing import MonotonicClock

PEER = Path(__file__).parent.parent / "igtl" / "pyigtl_peer.py"


@pytest.fixture(scope="module")
def plus() -> Iterator[int]:
    """The port of a server in a process of its own that sends Probe and Other."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, str(PEER), "send", str(port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == "ready\n"
        yield port
        server.kill()


@pytest.fixture
def says() -> Iterator[Callable[..., str]]:
    """A server that says these bytes to whoever comes, and then hangs up or waits; its address."""
    closing: list[socket.socket] = []

    def serve(data: bytes, *, wait: bool = False) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        closing.append(listener)

        def answer() -> None:
            connection, _ = listener.accept()
            closing.append(connection)
            with contextlib.suppress(OSError):  # who has read enough to refuse it may be gone already
                connection.sendall(data)
                if not wait:
                    connection.shutdown(socket.SHUT_WR)

        threading.Thread(target=answer, daemon=True).start()
        return f"igtl://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for each in closing:
        each.close()


def test_a_peer_s_images_come_bit_for_bit_with_the_time_they_arrived(plus: int) -> None:
    source = open_source(f"igtl://127.0.0.1:{plus}/Probe")
    assert (source.format.rows, source.format.columns, source.format.bits_stored) == (96, 128, 8)
    out = np.empty((96, 128), np.uint8)
    ramp = (np.arange(96 * 128) % 251).astype(np.uint8).reshape(96, 128)
    numbers, stamps = [], []
    for _ in range(5):
        frame = source.read(out)
        assert frame is not None
        assert frame.stamp_ns is not None
        stamps.append(frame.stamp_ns)
        numbers.append(int(out[0, 0]))
        np.testing.assert_array_equal(out.ravel()[1:], ramp.ravel()[1:])
    assert numbers == [(numbers[0] + step) % 256 for step in range(5)]
    assert stamps == sorted(stamps)
    assert abs(stamps[-1] - MonotonicClock().now_ns()) < 5e9
    assert source.live
    source.close()


IMAGE_8 = pack("IMAGE", "A", 1.0, image_body(np.full((64, 80), 7, np.uint8), None))
IMAGE_16 = pack("IMAGE", "A", 1.0, image_body(np.full((64, 80), 4095, np.uint16), None))


def test_the_first_device_that_sends_images_is_taken_and_another_size_is_another_format(
    says: Callable[..., str],
) -> None:
    other = pack("IMAGE", "A", 1.0, image_body(np.full((96, 64), 9, np.uint8), None))
    words = pack("STRING", "A", 1.0, b"\0\x03\0\x01x")
    stranger = pack("IMAGE", "B", 1.0, image_body(np.full((70, 70), 1, np.uint8), None))
    source = IgtlSource(says(words + IMAGE_8 + stranger + other), SourceOptions())
    out = np.empty((64, 80), np.uint8)
    source.read(out)
    assert (out == 7).all()
    with pytest.raises(FormatChanged):
        source.read(out)
    out = np.empty((96, 64), np.uint8)
    source.read(out)
    assert (out == 9).all()
    with pytest.raises(SourceGone, match="has closed the connection"):
        source.read(out)
    source.close()


def test_sixteen_bits_are_as_many_as_the_user_says(says: Callable[..., str]) -> None:
    source = IgtlSource(says(IMAGE_16), SourceOptions(bits=12))
    out = np.empty((64, 80), "<u2")
    source.read(out)
    assert (out == 4095).all()
    assert source.format.bits_stored == 12
    source.close()
    source = IgtlSource(says(IMAGE_16), SourceOptions(bits=10))
    with pytest.raises(SourceError, match=r"needed pixel values of 10 bits, got 4095; give --bits"):
        source.read(out)
    source.close()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(
            b"HTTP/1.1 400 Bad Request\r\n" * 4, "needed an OpenIGTLink header", id="another protocol"
        ),
        pytest.param(IMAGE_8[:-1], "has closed the connection", id="cut off"),
        pytest.param(IMAGE_8[:-1] + b"\x08", "damaged on its way", id="damaged"),
        pytest.param(HEADER.pack(1, b"IMAGE", b"A", 0, 0, 1 << 40, 0), "at most", id="a terabyte"),
        pytest.param(b"", "has closed the connection", id="hung up"),
    ],
)
def test_a_server_that_sends_no_images_is_a_sentence(
    says: Callable[..., str], data: bytes, said: str
) -> None:
    with pytest.raises(SourceError, match=said):
        IgtlSource(says(data), SourceOptions())


def test_a_server_that_is_silent_is_a_sentence(
    says: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(igtl, "FIRST_IMAGE_S", 0.2)
    with pytest.raises(SourceError, match=r"needed an image of B from 127.0.0.1, got none"):
        IgtlSource(says(IMAGE_8, wait=True) + "/B", SourceOptions())


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        pytest.param("igtl:127.0.0.1", "needed igtl://host:port/Device", id="no address"),
        pytest.param("igtl://a:99999/B", "needed igtl://host:port/Device", id="port"),
        pytest.param("igtl://127.0.0.1:9/B", "needed an OpenIGTLink server at 127.0.0.1:9", id="nobody"),
    ],
)
def test_what_is_no_server_is_one_sentence(spec: str, said: str) -> None:
    with pytest.raises(SourceError, match=said):
        open_source(spec)
