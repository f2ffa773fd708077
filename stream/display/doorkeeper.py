"""The door of the viewer's server: requests for another name, of another site's page or of a stranger go no further."""

from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stream.display.entrance import STRANGER, Entrance


class Doorkeeper:
    """Lets in only requests that were meant for this server, and says what the page may do.

    A page of another site that a browser has open can send requests here, and by DNS rebinding even under a
    name of its own: so the Host header must be one of ours, and so must the Origin of a WebSocket.

    Args:
        app: What stands behind the door.
        hosts: Values of the Host header that are ours, with the port.
        entrance: Who has been let in.
    """

    def __init__(self, app: ASGIApp, hosts: frozenset[str], entrance: Entrance) -> None:
        self._app = app
        self._entrance = entrance
        self._hosts = hosts
        self._origins = {f"{scheme}://{host}" for scheme in ("http", "https") for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        hosts = _values(scope, b"host")
        origins = _values(scope, b"origin")
        # A browser sends no Origin with the page itself, and always one with a WebSocket.
        known_origin = origins[0] in self._origins if len(origins) == 1 else not origins
        if len(hosts) != 1 or hosts[0] not in self._hosts or not known_origin:
            await self._refuse(scope, receive, send, "this server answers only under its own address")
        elif scope["type"] == "websocket" and not origins:
            await self._refuse(scope, receive, send, "a WebSocket needs the Origin of the viewer's page")
        elif scope["type"] == "websocket":
            if self._entrance.knows(scope):
                await self._app(scope, receive, send)
            else:
                await self._refuse(scope, receive, send, STRANGER)
        else:
            answer: ASGIApp | None = self._entrance.admit(scope)
            if answer is None:
                known = self._entrance.knows(scope) or self._entrance.lets_scrape(scope)
                answer = self._app if known else self._entrance.stranger()
            await answer(scope, receive, _with_headers(send, hosts[0]))

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, why: str) -> None:
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": why})
        else:
            await PlainTextResponse(why, status_code=403)(scope, receive, send)


def _values(scope: Scope, name: bytes) -> list[str]:
    return [value.decode("latin-1").lower() for key, value in scope["headers"] if key == name]


def _with_headers(send: Send, host: str) -> Send:
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; "
        # Some browsers do not count a WebSocket of the page's own address as 'self'.
        f"connect-src 'self' ws://{host} wss://{host}; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    fixed = {
        "content-security-policy": policy,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
        "cache-control": "no-store",
        # With these two a browser gives the page its fine clock (5 us instead of 100).
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
        "cross-origin-resource-policy": "same-origin",
    }
    extra = [(name.encode(), value.encode()) for name, value in fixed.items()]

    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *extra]
        await send(message)

    return sending
