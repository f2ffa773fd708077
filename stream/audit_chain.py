"""The audit log's entries: one JSON line each, chained by HMAC, so that nobody without the key changes one unseen.

Not to be confused with `engines/audit.py`, which looks at the numerics of graphs.

A line is a JSON object that ends in two members:

    {"n":7,"time":"2026-01-31T12:00:00.000Z","monotonic_ns":1,"event":"state", ... ,"previous":"<64 hex>","mac":"<64 hex>"}

`mac` is HMAC-SHA256, under the key, of the line's bytes up to the comma before "mac". `previous` is the `mac` of the entry
before, 64 zeros in the first. The newest entry's `mac` is the log's head: it stands for all entries before it.

What this finds: a line that was changed, added, removed or cut off, and a file that was written anew without the key. Lines
missing at the end are found where a later entry follows, or where a head that was seen elsewhere (every heartbeat carries
it) is not in the log. It does not protect from somebody who can read the key: who runs commands as this user.
"""

import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from pathlib import Path
from typing import Any

from stream.errors import AuditError

KEY_BYTES = 32
FIRST_PREVIOUS = "0" * 64
MAX_LINE = 1 << 16
"""Bytes of a line at most; ours have some hundred."""
TAIL = len(',"mac":"') + 64 + len('"}')


def state_folder() -> Path:
    """Where this user's audit log and its key live: $XDG_STATE_HOME/contrastream, or ~/.local/state/contrastream."""
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "contrastream"


def mac_of(key: bytes, body: bytes) -> str:
    """HMAC-SHA256, hexadecimal."""
    return hmac.digest(key, body, hashlib.sha256).hex()


def pack_entry(key: bytes, previous: str, facts: dict[str, Any]) -> tuple[bytes, str]:
    """An entry's line, with its newline, and its MAC.

    Args:
        key: The log's key.
        previous: The MAC of the entry before.
        facts: What the entry says; plain JSON values.
    """
    body = json.dumps({**facts, "previous": previous}, separators=(",", ":"), ensure_ascii=True).encode()[:-1]
    mac = mac_of(key, body)
    return body + f',"mac":"{mac}"}}\n'.encode(), mac


def unpack_entry(key: bytes, line: bytes) -> dict[str, Any]:
    """Read an entry and check its MAC.

    Args:
        key: The log's key.
        line: With its newline.

    Returns:
        The entry with `n`, `previous` and `mac`.

    Raises:
        ValueError: Cut off, no entry, changed, or written under another key.
    """
    if not line.endswith(b'"}\n'):
        raise ValueError("it is cut off")
    line = line[:-1]
    body, tail = line[:-TAIL], line[-TAIL:]
    mac = mac_of(key, body)
    if not hmac.compare_digest(tail, f',"mac":"{mac}"}}'.encode()):
        raise ValueError("it was changed, or written under another key")
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("it is no JSON") from None
    if not isinstance(entry, dict) or not isinstance(entry.get("n"), int) or "previous" not in entry:
        raise ValueError("it is no entry of an audit log")
    return entry


def open_key(path: Path) -> bytes:
    """The key of this user's audit logs; made at first use, for this user alone (0600).

    Raises:
        AuditError: It cannot be made or read, is open to others, or is no key.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            _make_key(path)
    except OSError as error:
        raise AuditError(
            f"the audit log needs a key in {path.parent}, got: {error.strerror}; set XDG_STATE_HOME to a folder that can "
            "be written, or run with --no-audit"
        ) from error
    return read_key(path)


def _make_key(path: Path) -> None:
    """Write a new key, whole or not at all, unless there is one.

    Raises:
        FileExistsError: There is one.
    """
    fresh = path.with_name(f"{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(descriptor, secrets.token_bytes(KEY_BYTES).hex().encode() + b"\n")
        os.fsync(descriptor)
        os.link(
            fresh, path
        )  # unlike a rename, this leaves a key alone that another process has made meanwhile
    finally:
        os.close(descriptor)
        os.unlink(fresh)


def read_key(path: Path) -> bytes:
    """Read a key.

    Raises:
        AuditError: There is none, it is open to others, or is no key.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        raise AuditError(
            f"needed the audit log's key, got {path}: {error.strerror}; name it with --key"
        ) from error
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_mode & 0o077 or found.st_uid != os.geteuid():
            raise AuditError(
                f"the audit log's key must be a file of yours alone (mode 0600), got {path} with owner {found.st_uid} and "
                f"mode {stat.S_IMODE(found.st_mode):04o}; run: chmod 600 {path} (who could read it could forge the log)"
            )
        text = file.read(4 * KEY_BYTES)
    try:
        key = bytes.fromhex(text.decode("ascii"))
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise AuditError(
            f"the audit log's key must be {2 * KEY_BYTES} hexadecimal digits, got another file at {path}; move it away, "
            "and a new key is made"
        )
    return key
