"""Who may look at the web viewer: a one-time token in the printed address, exchanged for a cookie; TLS beyond this host.

Where a key press may write a recording, there are two printed addresses: one whose browser may press it, one to watch only.

Two secrets that the user keeps in files change that. With a session key, cookies are signed, so that a browser that was let
in stays in over restarts of the server. A metrics token lets a scraper read `/metrics`, and nothing else.
"""

import hmac
import secrets
import ssl
import stat
import time
from collections import deque
from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie
from pathlib import Path
from urllib.parse import parse_qs

from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import Scope

from stream.display.secret_files import NO_SECRETS, Secrets
from stream.errors import EndpointError

Tls = tuple[Path, Path]
"""The files of a certificate chain and of its private key."""
MAX_SESSIONS = 64
"""Browsers that are let in; one more and the first must use a new address."""
STRANGER = (
    "this viewer opens by the address that contrastream printed last, each of which works once: open that one"
)
METRICS_PATH = "/metrics"
MAY_KEEP = "keep"
"""Stands in the cookie of a browser that may have a recording written."""
KEPT_S = 30 * 24 * 3600
"""A signed cookie is worth nothing after so long, by the wall clock, since no other goes on over restarts."""


class Entrance:
    """The tokens and cookies of one server.

    Args:
        port: The server's; cookies of one host's ports lie in one jar, so it is part of their name.
        secure: Whether the server speaks TLS.
        kept: What the user keeps in files.
        keeping: Whether a browser may have a recording written; `token` then opens the page of one that may.
    """

    def __init__(self, port: int, *, secure: bool, kept: Secrets = NO_SECRETS, keeping: bool = False) -> None:
        self._cookie = f"contrastream_{port}"
        self._secure = secure
        self._kept = kept
        self._sessions: deque[str] = deque(maxlen=MAX_SESSIONS)
        self.token = secrets.token_urlsafe(24)
        """What opens the page once; a new one as soon as it was used."""
        self.watching = secrets.token_urlsafe(24) if keeping else None
        """The same for a browser that may only watch; None where nobody may do more."""
        self.on_use: Callable[[], None] = lambda: None
        """Called when the token was used and there is a new one."""

    def knows(self, scope: Scope) -> bool:
        """Whether a request carries the cookie of a session."""
        return self._session(scope) is not None

    def may_keep(self, scope: Scope) -> bool:
        """Whether a request carries the cookie of a browser that may have a recording written."""
        session = self._session(scope)
        return self.watching is not None and session is not None and MAY_KEEP in session.split(".")

    def _session(self, scope: Scope) -> str | None:
        """The session whose cookie a request carries: dots stand between its parts; None where it carries none of ours."""
        found = [value for key, value in scope["headers"] if key == b"cookie"]
        if len(found) != 1:
            return None
        try:
            cookie = SimpleCookie(found[0].decode("latin-1")).get(self._cookie)
        except CookieError:
            return None
        if cookie is None:
            return None
        if self._kept.session_key is not None:
            return cookie.value if self._is_signed(cookie.value) else None
        # Each is compared in constant time, and all of them, so that time tells nothing of any.
        same = [hmac.compare_digest(said.encode(), cookie.value.encode()) for said in self._sessions]
        return cookie.value if any(same) else None

    def lets_scrape(self, scope: Scope) -> bool:
        """Whether a request is for the metrics and carries their token."""
        token = self._kept.metrics_token
        said = [value for key, value in scope["headers"] if key == b"authorization"]
        if token is None or scope["path"] != METRICS_PATH or scope["method"] != "GET" or len(said) != 1:
            return False
        kind, _, value = said[0].partition(b" ")
        return kind.lower() == b"bearer" and hmac.compare_digest(value.strip(), token)

    def _new_session(self, *, may_keep: bool) -> str:
        right = f".{MAY_KEEP}" if may_keep else ""
        if self._kept.session_key is None:
            session = secrets.token_urlsafe(32) + right
            self._sessions.append(session)
            return session
        said = f"{int(time.time())}.{secrets.token_urlsafe(16)}{right}"
        return f"{said}.{self._signature(said)}"

    def _is_signed(self, session: str) -> bool:
        said, _, signature = session.rpartition(".")
        if not hmac.compare_digest(signature.encode(), self._signature(said).encode()):
            return False
        # Of a clock that was set back meanwhile too: what we have signed is ours.
        return abs(time.time() - int(said.partition(".")[0])) <= KEPT_S

    def _signature(self, said: str) -> str:
        # The cookie's name holds the port: a cookie of one server is none of another's that has the same key.
        return hmac.digest(self._kept.session_key or b"", f"{self._cookie}={said}".encode(), "sha256").hex()

    def admit(self, scope: Scope) -> Response | None:
        """The answer to a page's address with a token: the cookie for a right one; None where there is no token."""
        if scope["method"] != "GET" or scope["path"] != "/":
            return None
        said = parse_qs(scope["query_string"].decode("latin-1")).get("token")
        if said is None:
            return None
        first = hmac.compare_digest(said[0].encode(), self.token.encode())
        watching = hmac.compare_digest(said[0].encode(), (self.watching or self.token).encode())
        if not (first or watching):
            # One that was used before, by a browser that is in: its page is reloaded or taken from the history.
            return RedirectResponse("/", 303) if self.knows(scope) else self.stranger()
        session = self._new_session(may_keep=first and self.watching is not None)
        if first:
            self.token = secrets.token_urlsafe(24)
        else:
            self.watching = secrets.token_urlsafe(24)
        self.on_use()
        answer = RedirectResponse(
            "/", 303
        )  # which keeps the address' fragment, and leaves no token in the history
        answer.set_cookie(
            self._cookie, session, httponly=True, samesite="strict", secure=self._secure, path="/"
        )
        return answer

    @staticmethod
    def stranger() -> Response:
        """The answer to whoever has no cookie."""
        return PlainTextResponse(STRANGER, 401)


def choose_tls(certificate: Path | None, key: Path | None) -> Tls | None:
    """The two files that options name; None for neither.

    Raises:
        EndpointError: One without the other.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise EndpointError(
            f"TLS needs both --tls-cert and --tls-key, got only {certificate or key}; name the other file too"
        )
    return certificate, key


def check_certificate(certificate: Path, key: Path) -> None:
    """Find out before anything starts that a server can speak TLS with these files.

    Raises:
        EndpointError: One cannot be read or holds nothing of the kind, they do not belong together, or others may read the key.
    """
    try:
        mode = stat.S_IMODE(key.stat().st_mode)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        said = getattr(error, "strerror", None) or str(error)
        raise EndpointError(
            f"TLS needs a certificate and its private key without a password, both PEM, got {certificate} and {key}: {said}; "
            "see SECURITY.md for how to make them"
        ) from error
    if mode & 0o077:
        raise EndpointError(
            f"the viewer's private key must be yours alone (mode 0600), got {key} with mode {mode:04o}; run: chmod 600 {key}"
        )
