"""The web viewer's server: the page, and the newest frame over a WebSocket to each viewer that asks.

An ordinary client process of the stream: `python -m stream.display.web [ENDPOINT] [--port 8765]`.
"""

import argparse
import asyncio
import contextlib
import functools
import ipaddress
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket, WebSocketDisconnect

from stream.control import die_with_parent
from stream.display.callers import FIRST_REQUEST_S, Caller
from stream.display.doorkeeper import Doorkeeper
from stream.display.entrance import METRICS_PATH, Entrance, Tls, check_certificate, choose_tls
from stream.display.metrics import Metrics
from stream.display.relay import Relay
from stream.display.secret_files import NO_SECRETS, Secrets, read_secrets
from stream.display.shown import ShownLog
from stream.endpoint import parse_endpoint
from stream.errors import EndpointError, StreamError
from stream.record.keep_settings import KeepSettings, keep_settings
from stream.record.keeper import Keeper
from stream.subscribe import Subscriber
from stream.timing import MonotonicClock

DEFAULT_PORT = 8765
STATIC = Path(__file__).with_name("static")
UNREAD_LIMIT_S = 5.0
"""A viewer that takes nothing in for so long is disconnected."""
PING_S = 1.0
END_WITHIN_S = 0.7
MAX_REQUEST_BYTES = 1024


def build_app(relay: Relay, hosts: frozenset[str], entrance: Entrance) -> ASGIApp:
    """The application: the page, `/frames` (the WebSocket), `/healthz` and `/metrics`.

    Args:
        relay: The stream.
        hosts: Values of the Host header that are ours, with the port.
        entrance: Who has been let in; all of it is for them only.
    """

    async def health(_request: Request) -> JSONResponse:
        heard = relay.reader.heard
        return JSONResponse(
            {"status": "ok", "state": heard.shown.state.name, "viewers": relay.viewers},
        )

    metrics = Metrics(relay)

    async def scrape(request: Request) -> Response:
        text, media_type = metrics.answer(request.headers.get("accept", ""))
        return Response(text, headers={"content-type": media_type})

    async def frames(websocket: WebSocket) -> None:
        await websocket.accept()
        try:
            viewer = relay.enter(may_keep=entrance.may_keep(websocket.scope))
        except StreamError as error:
            await websocket.close(1013, str(error))
            return
        try:
            await _serve_viewer(websocket, viewer, relay)
        finally:
            relay.leave(viewer)

    app = Starlette(
        routes=[
            Route("/healthz", health),
            Route(METRICS_PATH, scrape),
            WebSocketRoute("/frames", frames),
            Mount("/", StaticFiles(directory=STATIC, html=True)),
        ]
    )
    return Doorkeeper(app, hosts, entrance)


async def _serve_viewer(websocket: WebSocket, viewer: Any, relay: Relay) -> None:
    async def listen() -> None:
        while True:
            viewer.asked(await websocket.receive_text(), relay.clock.now_ns())

    async def send_text(text: str) -> None:
        async with asyncio.timeout(UNREAD_LIMIT_S):
            await websocket.send_text(text)

    async def send_bytes(data: Any) -> None:
        async with asyncio.timeout(UNREAD_LIMIT_S):
            await websocket.send_bytes(data)

    tasks = [
        asyncio.ensure_future(listen()),
        asyncio.ensure_future(viewer.serve(relay, send_text, send_bytes)),
    ]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    except (WebSocketDisconnect, TimeoutError):
        return
    except (ValueError, KeyError, RuntimeError) as error:
        # Not a page of ours (or one that has just gone); it is told so, and the others go on. A reason has at most 123
        # bytes, whatever was sent to us.
        with contextlib.suppress(RuntimeError):
            await websocket.close(1008, str(error)[:100].encode("ascii", "replace").decode())
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def listen_on(host: str, port: int) -> socket.socket:
    """A listening socket, bound before anything else starts.

    Raises:
        EndpointError: The port is in use or not allowed, or the host is no address of this machine.
    """
    if not 0 <= port <= 65535:
        raise EndpointError(f"--port must be 0 (any free one) to 65535, got {port}")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except (socket.gaierror, UnicodeError) as error:
        raise EndpointError(
            f"--host must be an address of this machine, got {host!r} ({error}); leave it out for 127.0.0.1"
        ) from error
    listener = socket.socket(family, kind, protocol)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # The kernel drops a viewer that leaves data unread for so long, even while it holds its socket open.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_LIMIT_S * 1000))
        listener.bind(address)
        listener.listen(64)
    except OSError as error:
        listener.close()
        raise EndpointError(
            f"the viewer needs port {port} on {host}, got {error.strerror.lower() if error.strerror else error}; "
            "stop what holds it or choose another with --port"
        ) from error
    return listener


def _own_hosts(host: str, port: int, allow_hosts: Sequence[str], tls: Tls | None) -> frozenset[str]:
    try:
        loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not loopback and tls is None:
        raise EndpointError(
            f"beyond this host the viewer needs TLS, got --host {host} without a certificate; name its files with "
            "--tls-cert FILE --tls-key FILE, or use 127.0.0.1 and an ssh tunnel"
        )
    if not loopback and not allow_hosts:
        raise EndpointError(
            f"beyond this host the viewer needs the name or address that its viewers will type, got --host {host} alone; "
            "give it with --allow-host NAME"
        )
    names = {"127.0.0.1", "localhost", "[::1]", *allow_hosts} if loopback else set(allow_hosts)
    return frozenset(f"{name.lower()}:{port}" for name in names) | (
        frozenset(name.lower() for name in names) if port == (443 if tls else 80) else frozenset()
    )


class _Server(uvicorn.Server):  # type: ignore[misc]
    """uvicorn without its signal handlers: ours end the server with no traceback."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        if self.config.ssl is not None:
            # uvicorn leaves a TLS handshake the 60 s of asyncio, and nothing else bounds how many there are.
            loop = asyncio.get_running_loop()
            hurried = functools.partial(loop.create_server, ssl_handshake_timeout=FIRST_REQUEST_S)
            setattr(loop, "create_server", hurried)  # noqa: B010 - mypy knows no assignment to a method
        await super().startup(sockets)


def serve(
    endpoint: str | None = None,
    *,
    memory: bool = False,
    host: str = "127.0.0.1",
    port: int = DEFAULT_PORT,
    allow_hosts: Sequence[str] = (),
    tls: Tls | None = None,
    kept: Secrets = NO_SECRETS,
    ready: Callable[[str, bool], None] | None = None,
    shown: Path | None = None,
    keep: KeepSettings | None = None,
    on_note: Callable[[str], object] = print,
) -> None:
    """Serve the viewer until SIGTERM or SIGINT. Runs in the main thread of its process.

    Args:
        endpoint: The stream, as `parse_endpoint` takes it; None for this host's default one.
        memory: Read its frames in shared memory instead of on the wire.
        host: Address to listen on; beyond loopback only with `tls` and `allow_hosts`.
        port: TCP port; 0 takes a free one.
        allow_hosts: More names that the Host header may carry.
        tls: Files of the certificate and its private key.
        kept: What the user keeps so that browsers stay in over restarts, and so that a scraper comes in.
        ready: Called with an address that opens the page once, and with the next one as soon as that was used; the flag says
            whether its browser may only watch while others may have a recording written.
        shown: Ask every page when it drew each frame, and write that here at the end (`stream/display/shown.py`); None asks
            nothing.
        keep: What browsers that are let in by an address without that flag may have written; None keeps nothing.
        on_note: Takes what becomes of that, a sentence at a time, in another thread.

    Raises:
        EndpointError: The port is in use, the endpoint or the host is none, or TLS is missing or cannot be spoken.
        DisplayError: `shown` cannot be written.
    """
    parsed = parse_endpoint(endpoint)
    log = None if shown is None else ShownLog()
    if log is not None and shown is not None:
        log.save(shown)  # found out now, not at the end
    if tls is not None:
        check_certificate(*tls)
    listener = listen_on(host, port)
    with contextlib.closing(listener):
        bound = listener.getsockname()[1]
        hosts = _own_hosts(host, bound, allow_hosts, tls)
        entrance = Entrance(bound, secure=tls is not None, kept=kept, keeping=keep is not None)
        address = _page_address(listener, allow_hosts, tls)
        told: set[str] = set()

        def tell() -> None:
            for token, watching in ((entrance.token, False), (entrance.watching, True)):
                if ready is not None and token is not None and token not in told:
                    told.add(token)
                    ready(f"{address}/?token={token}", watching)

        entrance.on_use = tell
        subscriber = Subscriber(parsed, newest_only=True, memory=memory)
        keeper = None if keep is None else Keeper(parsed, keep, memory=memory, on_note=on_note)
        try:
            asyncio.run(_serve(subscriber, listener, hosts, entrance, tls, log, keeper))
        finally:
            if keeper is not None:
                keeper.end()
    if log is not None and shown is not None:
        log.save(shown)


async def _serve(
    subscriber: Subscriber,
    listener: socket.socket,
    hosts: frozenset[str],
    entrance: Entrance,
    tls: Tls | None,
    log: ShownLog | None,
    keeper: Keeper | None,
) -> None:
    relay = Relay(subscriber, asyncio.get_running_loop(), MonotonicClock(), log, keeper)
    server = _Server(
        uvicorn.Config(
            build_app(relay, hosts, entrance),
            loop="asyncio",
            http=Caller,
            ws="websockets-sansio",
            ws_max_size=MAX_REQUEST_BYTES,
            ws_ping_interval=PING_S,
            ws_ping_timeout=UNREAD_LIMIT_S,
            ws_per_message_deflate=False,
            lifespan="off",
            log_config=None,
            log_level="error",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            ssl_certfile=None if tls is None else tls[0],
            ssl_keyfile=None if tls is None else tls[1],
        )
    )
    async with _until_told() as told:
        relay.reader.start()
        serving = asyncio.ensure_future(server.serve([listener]))
        ticking = asyncio.ensure_future(relay.tick())
        while not server.started and not serving.done():
            await asyncio.sleep(0.01)
        if server.started:
            entrance.on_use()  # the first address
        if keeper is not None:
            keeper.start()
        try:
            done, _ = await asyncio.wait([serving, ticking, told], return_when=asyncio.FIRST_COMPLETED)
            for task in done - {told}:
                task.result()
        finally:
            ticking.cancel()
            server.should_exit = True
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(serving, END_WITHIN_S)
            relay.reader.end()


@contextlib.asynccontextmanager
async def _until_told() -> AsyncIterator["asyncio.Future[None]"]:
    loop = asyncio.get_running_loop()
    told: asyncio.Future[None] = loop.create_future()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, lambda: None if told.done() else told.set_result(None))
    try:
        yield told
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def _page_address(listener: socket.socket, allow_hosts: Sequence[str], tls: Tls | None) -> str:
    address, port = listener.getsockname()[:2]
    if ipaddress.ip_address(address).is_unspecified:
        address = allow_hosts[0]
    scheme = "http" if tls is None else "https"
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def main(arguments: Sequence[str] | None = None) -> int:
    """`python -m stream.display.web`: exit status 0 when told to end, 2 for what the user can mend."""
    parser = argparse.ArgumentParser(prog="python -m stream.display.web", description=__doc__)
    parser.add_argument("endpoint", nargs="?", help="the stream (default: this host's)")
    parser.add_argument("--memory", action="store_true", help="read the frames in shared memory")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=int, default=DEFAULT_PORT, help="0 takes a free one (default: %(default)s)"
    )
    parser.add_argument(
        "--allow-host", action="append", default=[], metavar="NAME", help="a name viewers come under"
    )
    parser.add_argument(
        "--tls-cert", type=Path, metavar="FILE", help="certificate chain, PEM; beyond this host TLS is needed"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="its private key, PEM, mode 0600")
    parser.add_argument(
        "--session-key", type=Path, metavar="FILE", help="keeps browsers in over restarts; mode 0600"
    )
    parser.add_argument(
        "--metrics-token", type=Path, metavar="FILE", help="lets Prometheus read /metrics by it; mode 0600"
    )
    parser.add_argument(
        "--die-with-parent", action="store_true", help="end when the process that started it ends"
    )
    parser.add_argument(
        "--keep-last", type=float, metavar="SECONDS", help="keep so much of the live frames, for the key k"
    )
    parser.add_argument("--keep-in", type=Path, metavar="DIR", help="where the key k writes them")
    parser.add_argument("--keep-memory", type=float, metavar="GB", help="memory they may take (default: 2)")
    parser.add_argument(
        "--shown",
        type=Path,
        metavar="FILE",
        help="ask every page when it drew each frame, and write that (npz) at the end",
    )
    options = parser.parse_args(arguments)
    if options.die_with_parent:
        die_with_parent()
    try:
        serve(
            options.endpoint,
            memory=options.memory,
            host=options.host,
            port=options.port,
            allow_hosts=options.allow_host,
            tls=choose_tls(options.tls_cert, options.tls_key),
            kept=read_secrets(options.session_key, options.metrics_token),
            ready=lambda address, watching: print(
                f"to watch only: {address}" if watching else f"viewer at {address}", flush=True
            ),
            shown=options.shown,
            keep=keep_settings(options.keep_last, options.keep_in, options.keep_memory),
            on_note=lambda words: print(words, flush=True),
        )
    except StreamError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
