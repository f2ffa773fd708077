"""Who may look at the web viewer: tokens that work once, cookies, and TLS beyond this host."""

import http.client
import socket
import ssl
import subprocess
import urllib.request
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from stream.display.entrance import MAX_SESSIONS, Entrance
from stream.display.web import main


def ask(server: Any, path: str, **headers: str) -> tuple[int, http.client.HTTPMessage, bytes]:
    """Status, headers and body of one plain request, with no cookie but what is given."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=5)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    found = (answer.status, answer.headers, answer.read())
    connection.close()
    return found


@pytest.mark.parametrize(
    "path",
    ["/", "/healthz", "/viewer.js", "/index.html", "/nowhere", "/?token=", "/?token=x", "/?token=x&token=y"],
)
def test_who_has_no_cookie_learns_nothing(server, path):
    for headers in (
        {},
        {"Cookie": f"contrastream_{server.port}=x"},
        {"Cookie": server.cookie[:-1]},
        {"Cookie": '\xff;=,"'},
    ):
        status, said, body = ask(server, path, **headers)
        assert (status, said["Set-Cookie"]) == (401, None)
        assert body.startswith(b"this viewer opens by the address that contrastream printed last")
        assert said["Content-Security-Policy"].startswith("default-src 'none'")


def test_a_websocket_without_the_cookie_is_refused(server):
    for more in ({}, {"additional_headers": {"Cookie": f"contrastream_{server.port}=x"}}):
        with (
            pytest.raises(InvalidStatus, match="403"),
            connect(f"ws://127.0.0.1:{server.port}/frames", origin=server.url, proxy=None, **more),
        ):
            pass


def test_a_token_works_once_and_gives_a_cookie_that_scripts_and_other_sites_cannot_use(server):
    path = server.entry().removeprefix(server.url)
    status, said, _ = ask(server, path)
    assert (status, said["Location"]) == (303, "/")
    cookie, *marks = said["Set-Cookie"].split("; ")
    assert {mark.lower() for mark in marks} == {"httponly", "path=/", "samesite=strict"}
    assert ask(server, "/", Cookie=cookie)[0] == 200
    assert ask(server, path)[0] == 401
    assert ask(server, path, Cookie=cookie)[0] == 303  # a reload by the browser that is in
    assert ask(server, path, Host="evil.example")[0] == 403


def test_a_token_of_another_server_opens_nothing(server, make_server, folder):
    other = make_server(f"ipc://{folder}/nobody")
    path = other.entry().removeprefix(other.url)
    assert ask(server, path)[0] == 401
    assert ask(server, "/", Cookie=other.cookie)[0] == 401


def test_the_oldest_of_too_many_sessions_must_come_anew():
    entrance = Entrance(1, secure=True)
    cookies = []
    for _ in range(MAX_SESSIONS + 1):
        scope = {
            "method": "GET",
            "path": "/",
            "query_string": f"token={entrance.token}".encode(),
            "headers": [],
        }
        answer = entrance.admit(scope)
        cookies.append(answer.headers["set-cookie"])
    assert "Secure" in cookies[0]
    known = [entrance.knows({"headers": [(b"cookie", text.partition(";")[0].encode())]}) for text in cookies]
    assert known == [False] + [True] * MAX_SESSIONS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    """A certificate of its own for 127.0.0.1, and its key."""
    files = (str(tmp_path / "cert.pem"), str(tmp_path / "key.pem"))
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=viewer -addext subjectAltName=IP:127.0.0.1,DNS:angio-lab -out {files[0]} -keyout {files[1]}"
    try:
        subprocess.run(command.split(), capture_output=True, check=True)
    except FileNotFoundError:
        pytest.skip("needs the command openssl")
    Path(files[1]).chmod(0o600)
    return files


def test_beyond_this_host_the_viewer_speaks_tls(make_server, folder, certificate):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("192.0.2.1", 9))
        address = probe.getsockname()[0]
    server = make_server(
        f"ipc://{folder}/nobody", "--host", "0.0.0.0", "--allow-host", "127.0.0.1", "--allow-host", address,
        "--tls-cert", certificate[0], "--tls-key", certificate[1],
    )  # fmt: skip
    assert server.url == f"https://127.0.0.1:{server.port}"
    context = ssl.create_default_context(cafile=certificate[0])
    jar = CookieJar()
    opener = urllib.request.build_opener(
        urllib.request.HTTPSHandler(context=context), urllib.request.HTTPCookieProcessor(jar)
    )
    with opener.open(server.first_entry, timeout=10) as page:
        assert b"<title>Contrastream</title>" in page.read()
    (cookie,) = jar
    assert cookie.secure
    with connect(
        f"wss://127.0.0.1:{server.port}/frames", origin=server.url, ssl=context, proxy=None,
        additional_headers={"Cookie": f"{cookie.name}={cookie.value}"},
    ) as viewer:  # fmt: skip
        assert '"state"' in viewer.recv(timeout=5)
    context.check_hostname = False
    with socket.create_connection((address, server.port), timeout=5) as plain:
        plain.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert not plain.recv(100).startswith(b"HTTP/1.1 2")


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((), "beyond this host the viewer needs TLS, got --host 0.0.0.0 without a certificate"),
        (("--tls-cert", "{0}"), "TLS needs both --tls-cert and --tls-key, got only"),
        (("--tls-cert", "{0}", "--tls-key", "{0}"), "TLS needs a certificate and its private key"),
        (("--tls-cert", "/nowhere", "--tls-key", "{1}"), "TLS needs a certificate and its private key"),
        (("--tls-cert", "{0}", "--tls-key", "{1}"), "needs the name or address that its viewers will type"),
    ],
    ids=["no TLS", "no key", "no key in it", "no file", "no name"],
)
def test_beyond_this_host_half_a_protection_is_refused(more, said, certificate, capsys, folder):
    filled = [text.format(*certificate) for text in more]
    assert main([f"ipc://{folder}/nobody", "--host", "0.0.0.0", "--port", "0", *filled]) == 2
    assert said in capsys.readouterr().err


def test_a_tls_key_that_others_can_read_is_refused(certificate, capsys, folder):
    Path(certificate[1]).chmod(0o644)
    more = ("--tls-cert", certificate[0], "--tls-key", certificate[1], "--allow-host", "x")
    assert main([f"ipc://{folder}/nobody", "--host", "0.0.0.0", "--port", "0", *more]) == 2
    assert "with mode 0644; run: chmod 600" in capsys.readouterr().err
