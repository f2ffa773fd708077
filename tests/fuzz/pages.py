"""Requests to the web viewer: bytes read by the parser that uvicorn uses, then answered by the viewer's own application."""

import asyncio
from typing import Any
from urllib.parse import unquote

import h11

from stream.display.entrance import Entrance
from stream.display.web import STATIC, Doorkeeper

PORT = 8765
HOST = f"127.0.0.1:{PORT}"
COOKIE = b"@COOKIE@"
"""Stands in a request where a session's cookie is; so does @TOKEN@ for the address's token."""
TOKEN = b"@TOKEN@"


def request(path: str, *headers: str, method: str = "GET", host: str = HOST) -> bytes:
    """A request as a browser sends it."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


class Pages:
    """The viewer's application, with one browser let in."""

    def __init__(self) -> None:
        from starlette.applications import Starlette
        from starlette.routing import Mount
        from starlette.staticfiles import StaticFiles

        self._entrance = Entrance(PORT, secure=False)
        pages = Starlette(routes=[Mount("/", StaticFiles(directory=STATIC, html=True))])
        self._app = Doorkeeper(pages, frozenset({HOST}), self._entrance)
        self._loop = asyncio.new_event_loop()
        self._cookie = self._let_in()
        self._files = {path.read_bytes() for path in STATIC.iterdir()}

    @staticmethod
    def seeds() -> list[bytes]:
        """A page with its token, files with a cookie, a WebSocket, strangers."""
        cookie = "Cookie: @COOKIE@"
        upgrade = ("Connection: Upgrade", "Upgrade: websocket", f"Origin: http://{HOST}")
        return [
            request("/?token=@TOKEN@"),
            request("/", cookie),
            request("/viewer.js", cookie, "Range: bytes=0-10", 'If-None-Match: "a"'),
            request("/../web.py", cookie),
            request("/%2e%2e/web.py", cookie, "Accept-Encoding: gzip"),
            request("/frames", cookie, *upgrade),
            request("/", host="evil.example"),
            request("/healthz", "Origin: null"),
            request("/", cookie, method="POST"),
        ]

    def _let_in(self) -> bytes:
        _status, headers, _body = self._ask(self._scope(request(f"/?token={self._entrance.token}")))
        return dict(headers)[b"set-cookie"].partition(b";")[0]

    @staticmethod
    def _scope(data: bytes) -> Any:
        """What uvicorn makes of a request; None where its parser refuses it."""
        connection = h11.Connection(h11.SERVER)
        try:
            connection.receive_data(data)
            event = connection.next_event()
        except h11.RemoteProtocolError:
            return None
        if not isinstance(event, h11.Request):
            return None
        raw_path, _, query = event.target.partition(b"?")
        upgrade = any(name == b"upgrade" and value.lower() == b"websocket" for name, value in event.headers)
        return {
            "type": "websocket" if upgrade else "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "scheme": "ws" if upgrade else "http",
            "method": event.method.decode("ascii"),
            "path": unquote(raw_path.decode("ascii")),
            "raw_path": raw_path,
            "query_string": query,
            "root_path": "",
            "headers": list(event.headers),
            "client": ("127.0.0.1", 9),
            "server": ("127.0.0.1", PORT),
            "subprotocols": [],
        }

    def _ask(self, scope: Any) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
        sent: list[dict[str, Any]] = []

        coming = [{"type": "websocket.connect"} if scope["type"] == "websocket" else {"type": "http.request"}]

        async def receive() -> dict[str, Any]:
            if not coming:
                await asyncio.Event().wait()  # the browser stays
            return coming.pop()

        async def send(message: Any) -> None:
            sent.append(message)

        self._loop.run_until_complete(self._app(scope, receive, send))
        first = sent[0]
        if first["type"] == "websocket.close":
            return 403, [], first.get("reason", "").encode()
        body = b"".join(each.get("body", b"") for each in sent[1:])
        return int(first["status"]), list(first["headers"]), body

    def take(self, data: bytes) -> None:
        """Answer a request; who is not let in learns nothing, and who is gets the page's own files alone."""
        known = COOKIE in data or TOKEN in data
        data = data.replace(COOKIE, self._cookie).replace(TOKEN, self._entrance.token.encode())
        if (scope := self._scope(data)) is None:
            return
        if scope["type"] == "websocket" and self._entrance.knows(scope):
            return  # what is said there has a target of its own
        status, _headers, body = self._ask(scope)
        if not known and status not in (401, 403):
            raise AssertionError(f"a stranger got {status}")
        if status == 200 and scope["method"] == "GET" and body not in self._files:
            raise AssertionError(f"{scope['path']!r} gave what is no file of the page")
