"""The viewer's server without a browser: who is let in, what a viewer is sent, how it starts and ends."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from stream.display.callers import MAX_CALLERS
from stream.display.web import listen_on, main
from stream.errors import EndpointError
from stream.frame import State
from stream.wire import unpack

ROOT = Path(__file__).resolve().parents[3]


def viewer(server: Any, **more: Any) -> contextlib.AbstractContextManager[ClientConnection]:
    """A viewer that is no browser but sends the Origin of one."""
    return connect(
        f"ws://127.0.0.1:{server.port}/frames",
        **{
            "origin": server.url,
            "additional_headers": {"Cookie": server.cookie},
            "max_size": None,
            "compression": None,
            "proxy": None,
            **more,
        },
    )


def hear(socket: ClientConnection, kind: str, limit_s: float = 5.0) -> Any:
    """The next message of a kind: frame, state or pong."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        message = socket.recv(timeout=limit_s)
        if isinstance(message, bytes):
            if kind == "frame":
                return message
        elif (said := json.loads(message))["type"] == kind:
            return said
    pytest.fail(f"no {kind} within {limit_s} s")


def hear_state(socket: ClientConnection, state: str, limit_s: float = 5.0) -> Any:
    """The next state message with this state."""
    end = time.monotonic() + limit_s
    while (said := hear(socket, "state"))["state"] != state:
        assert time.monotonic() < end, f"waited for {state}, heard {said}"
    return said


def status_of(server: Any, headers: dict[str, str], path: str = "/") -> int:
    """The status that a plain request with these headers gets."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.putrequest("GET", path, skip_host=True)
    for name, value in {"Cookie": server.cookie, **headers}.items():
        connection.putheader(name, value)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "127.0.0.1:{port}"}, 200),
        ({"Host": "localhost:{port}"}, 200),
        ({"Host": "127.0.0.1:{port}", "Origin": "http://127.0.0.1:{port}"}, 200),
        ({"Host": "evil.example:{port}"}, 403),
        ({"Host": "127.0.0.1"}, 403),
        ({"Host": "127.0.0.1.evil.example:{port}"}, 403),
        ({"Host": "127.0.0.1:{port}", "Origin": "http://evil.example"}, 403),
        ({"Host": "127.0.0.1:{port}", "Origin": "null"}, 403),
    ],
    ids=["own", "localhost", "own origin", "rebound name", "no port", "longer name", "other origin", "null"],
)
def test_pages_are_given_only_to_requests_meant_for_this_server(server, headers, status):
    filled = {name: value.format(port=server.port) for name, value in headers.items()}
    assert status_of(server, filled) == status
    assert status_of(server, filled, "/healthz") == status


@pytest.mark.parametrize(
    ("origin", "host"),
    [
        ("http://evil.example", "127.0.0.1"),
        ("null", "127.0.0.1"),
        (None, "127.0.0.1"),
        ("http://127.0.0.1:1", "127.0.0.1"),
        ("http://evil.example:{port}", "evil.example"),
    ],
    ids=["other site", "null", "none", "other port", "rebound name"],
)
def test_websockets_of_other_sites_are_refused(server, origin, host):
    with (
        socket.create_connection(("127.0.0.1", server.port)) as raw,
        pytest.raises(InvalidStatus, match="403"),
        connect(
            f"ws://{host}:{server.port}/frames",
            origin=origin and origin.format(port=server.port),
            sock=raw,
            additional_headers={"Cookie": server.cookie},
            proxy=None,
        ),
    ):
        pass


def test_a_viewer_is_sent_one_frame_for_each_it_asks_for_and_the_newest(server, publisher):
    publisher.change()
    with viewer(server) as socket:
        hear_state(socket, "SYNTHETIC")
        socket.send('{"type":"next"}')
        first = unpack(hear(socket, "frame"))
        for _ in range(8):  # nearly a second of states, with no frame among them
            assert not isinstance(socket.recv(timeout=2), bytes)
        newest = hear(socket, "state")["publication"]
        socket.send('{"type":"next"}')
        second = unpack(hear(socket, "frame"))
    assert second.header.publication >= newest > first.header.publication + 5
    row, column = 3, 4
    assert second.live[row, column] == (row * 3 + column * 5 + second.header.sequence * 7) % 256


def test_states_come_five_times_a_second_with_no_publisher_at_all(folder, make_server):
    server = make_server(f"ipc://{folder}/nobody")
    with viewer(server) as socket:
        hear(socket, "state")
        began = time.monotonic()
        for _ in range(10):
            said = hear(socket, "state")
        assert time.monotonic() - began < 2.0
    assert (said["state"], said["publisher"], said["publication"]) == ("NO_SIGNAL", False, -1)


def test_a_ping_is_answered_with_the_server_s_clock(server):
    with viewer(server) as socket:
        before_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        socket.send('{"type":"ping","sent_ms":12.5}')
        pong = hear(socket, "pong")
    after_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    assert pong["sent_ms"] == 12.5
    assert before_ns <= pong["received_ns"] <= pong["replied_ns"] <= after_ns


@pytest.mark.parametrize(
    "said",
    ["hello", "[]", '{"type":"boo"}', '{"type":"ping","sent_ms":"x"}', b"\x00"],
    ids=["no JSON", "no object", "unknown type", "no number", "bytes"],
)
def test_a_viewer_that_talks_nonsense_is_closed_and_the_others_go_on(server, publisher, said):
    publisher.change()
    with viewer(server) as good:
        with viewer(server) as bad:
            bad.send(said)
            with pytest.raises(ConnectionClosedError, match="1008"):
                hear(bad, "frame")
        hear_state(good, "SYNTHETIC")
        good.send('{"type":"next"}')
        hear(good, "frame")


def test_the_seventeenth_viewer_is_turned_away(server):
    with contextlib.ExitStack() as stack:
        for _ in range(16):
            hear(stack.enter_context(viewer(server)), "state")
        late = stack.enter_context(viewer(server))
        with pytest.raises(ConnectionClosedError, match="16 viewers, its most"):
            late.recv(timeout=3)


def test_connections_that_say_nothing_are_bounded_and_ended(server, wait):
    handles = Path(f"/proc/{server.process.child.pid}/fd")
    before = len(list(handles.iterdir()))
    with contextlib.ExitStack() as strangers:
        silent = []
        for number in range(3 * MAX_CALLERS):
            stranger = strangers.enter_context(
                socket.create_connection(("127.0.0.1", server.port), timeout=30)
            )
            if number % 2:
                stranger.sendall(b"GET / HTTP/1.1\r\nHost: ")
            silent.append(stranger)
        wait(
            lambda: len(list(handles.iterdir())) <= before + MAX_CALLERS + 2,
            "those beyond the limit to be ended",
        )
        assert server.health()["status"] == "ok"
        for stranger in silent:  # and the others, when no request has come
            with contextlib.suppress(ConnectionResetError):
                assert stranger.recv(4096) == b""
    wait(lambda: len(list(handles.iterdir())) <= before + 2, "the handles to be closed")


def test_a_viewer_that_reads_nothing_is_dropped_and_slows_nobody(publisher, make_server, wait):
    server = make_server(publisher.endpoint)
    publisher.change(rows=1024, columns=1024, rate_hz=30.0)
    with socket.create_connection(("127.0.0.1", server.port)) as stalled, viewer(server) as good:
        stalled.sendall(
            f"GET /frames HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nOrigin: {server.url}\r\n"
            f"Cookie: {server.cookie}\r\n"
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        wait(lambda: server.health()["viewers"] == 2, "two viewers")
        ask = b'{"type":"next"}'
        masked = bytes([0x81, 0x80 | len(ask)]) + bytes(4) + ask
        began, frames = time.monotonic(), 0
        while server.health()["viewers"] == 2:
            with contextlib.suppress(OSError):
                stalled.sendall(masked)
            good.send('{"type":"next"}')
            hear(good, "frame")
            frames += 1
            assert time.monotonic() - began < 12, "the stalled viewer is still there"
        took_s = time.monotonic() - began
    assert took_s > 4
    # Half the rate, since this machine may be busy with other tests; a queue would have made it 0.
    assert frames / took_s > 10


def test_a_port_in_use_is_one_line_and_exit_2(server):
    done = subprocess.run(
        [sys.executable, "-m", "stream.display.web", "--port", str(server.port)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 2
    assert done.stderr == (
        f"the viewer needs port {server.port} on 127.0.0.1, got address already in use; stop what holds it or "
        "choose another with --port\n"
    )
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--port", "70000"], "--port must be 0 (any free one) to 65535, got 70000"),
        (["--host", "0.0.0.0", "--port", "0"], "beyond this host the viewer needs TLS"),
        (["--host", "no.such.host.invalid", "--port", "0"], "--host must be an address of this machine"),
        (["tcp://192.0.2.1:5000", "--port", "0"], "CURVE"),
        (["not an endpoint", "--port", "0"], "an endpoint is a name"),
    ],
    ids=["no port", "beyond this host", "no host", "far endpoint", "no endpoint"],
)
def test_bad_usage_is_one_line_and_exit_2(capsys, arguments, sentence):
    assert main(arguments) == 2
    said = capsys.readouterr()
    assert sentence in said.err
    assert said.err.count("\n") == 1
    assert said.out == ""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_server_within_a_second_and_without_a_word(publisher, make_server, number):
    server = make_server(publisher.endpoint)
    with viewer(server) as socket:
        hear(socket, "state")
        began = time.monotonic()
        status, stderr = server.process.end(number)
        assert time.monotonic() - began < 1.5
    assert (status, stderr) == (0, "")


def test_a_port_is_taken_at_once_so_that_nobody_else_gets_it():
    with contextlib.closing(listen_on("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(EndpointError, match=f"needs port {port} .* choose another with --port"):
            listen_on("127.0.0.1", port)


def test_a_named_host_is_let_in(folder, make_server):
    server = make_server(f"ipc://{folder}/nobody", "--allow-host", "angio-lab")
    assert status_of(server, {"Host": f"angio-lab:{server.port}"}) == 200
    assert status_of(server, {"Host": f"other-lab:{server.port}"}) == 403


def test_a_stream_s_death_and_return_are_told(folder, make_server, make_publisher):
    publisher = make_publisher()
    server = make_server(publisher.endpoint)
    with viewer(server) as socket:
        hear_state(socket, "SYNTHETIC")
        publisher.kill()
        said = hear_state(socket, State.NO_SIGNAL.name)
        assert 700 <= said["age_ms"] < 1500
        assert said["publication"] == -1
        publisher.start()
        hear_state(socket, "SYNTHETIC")


def test_nothing_of_the_environment_reaches_a_viewer(server, publisher):
    publisher.change()
    with viewer(server) as socket:
        said = json.dumps(hear_state(socket, "SYNTHETIC"))
    assert os.path.expanduser("~") not in said
    assert socket_name(publisher.endpoint) not in said


def socket_name(endpoint: str) -> str:
    return endpoint.removeprefix("ipc://")
