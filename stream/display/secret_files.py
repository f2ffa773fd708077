"""Secrets of the viewer's server that the user keeps in files, over its restarts."""

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from stream.errors import EndpointError

_SECRET = re.compile(rb"[!-~]{32,256}")
MAKE_SECRET = "(umask 077; openssl rand -hex 32 > {})"


@dataclass(frozen=True)
class Secrets:
    """What the user keeps for a server in files."""

    session_key: bytes | None = None
    """Signs cookies; None keeps sessions in memory, so that they end with the server."""
    metrics_token: bytes | None = None
    """What a scraper sends as `Authorization: Bearer`; None lets only browsers read the metrics."""


NO_SECRETS = Secrets()


def read_secrets(session_key: Path | None, metrics_token: Path | None) -> Secrets:
    """The secrets in the two files that options name; None for neither.

    Raises:
        EndpointError: A file is not there, is not this user's alone, or holds no secret.
    """
    return Secrets(
        _read_secret(session_key, "--session-key"),
        _read_secret(metrics_token, "--metrics-token"),
    )


def _read_secret(path: Path | None, option: str) -> bytes | None:
    if path is None:
        return None
    make = MAKE_SECRET.format(path)
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            found = os.fstat(file.fileno())
            data = file.read(1024) if stat.S_ISREG(found.st_mode) else b""
    except OSError as error:
        said = (error.strerror or str(error)).lower()
        raise EndpointError(
            f"{option} needs a file with a secret, got {path}: {said}; make one: {make}"
        ) from None
    mode = stat.S_IMODE(found.st_mode)
    if found.st_uid != os.getuid() or mode & 0o077:
        raise EndpointError(
            f"{option} needs a file that is yours alone (mode 0600), got {path} of user {found.st_uid} with mode {mode:04o}; "
            f"others may have read it, so make another: {make}"
        )
    secret = data.strip()
    if not _SECRET.fullmatch(secret):
        raise EndpointError(
            f"{option} needs one line of 32 to 256 printable characters without spaces, got another content in {path}; "
            f"make one: {make}"
        )
    return secret
