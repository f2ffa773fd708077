"""What whoever connects to the web viewer's server may cost it: so many connections, and so long for a first request.

uvicorn holds a connection that says nothing for ever, and any number of them.
"""

import asyncio
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MAX_CALLERS = 128
"""Connections that speak HTTP: a page takes 6, and 16 viewers are the most. WebSockets, whose viewers were let in, do not count."""
FIRST_REQUEST_S = 5.0
"""Within so long a request must be whole; as long as uvicorn waits for the next one."""


class Caller(H11Protocol):  # type: ignore[misc]
    """A connection that is ended when no request comes; one too many ends the one that has been there longest."""

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._hang_up = self.loop.call_later(FIRST_REQUEST_S, self._end_if_silent)
        callers = [each for each in self.connections if isinstance(each, Caller)]
        if len(callers) > MAX_CALLERS:
            min(callers, key=lambda each: each._hang_up.when()).transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._hang_up.cancel()
        super().connection_lost(exc)

    def handle_websocket_upgrade(self, event: Any) -> None:
        self._hang_up.cancel()
        super().handle_websocket_upgrade(event)

    def _end_if_silent(self) -> None:
        if self.cycle is None:
            self.transport.abort()
