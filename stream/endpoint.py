"""Addresses: where a stream's frames and its heartbeat are found on this host."""

import fcntl
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlencode, urlsplit

from stream.errors import EndpointError

DEFAULT_NAME = "main"
# sockaddr_un.sun_path is 108 bytes with its final zero; the longest suffix below takes 8.
MAX_IPC_PATH = 107 - 8
LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean all of this host's interfaces, and where a client on this host reaches them."""
DEFAULT_KEY = "main"


@dataclass(frozen=True)
class Curve:
    """The keys of an address with CURVE.

    Args:
        key: Label of one's own key pair (`stream/keys.py`).
        server: A client's: the publisher's public key, or a file that holds it; None for the publisher itself.
    """

    key: str = DEFAULT_KEY
    server: str | None = None


@dataclass(frozen=True)
class Endpoint:
    """The sockets of one stream: frames on one, status (the heartbeat) on another.

    Args:
        frames: ZeroMQ address of the PUB socket that carries frames only.
        status: ZeroMQ address of the PUB socket that carries the heartbeat.
        credit: ZeroMQ address on which the one measuring client of a lossless replay says what it has read.
        clock: ZeroMQ address where the publisher's clock answers (`stream/clock_exchange.py`).
        memory: UNIX socket where clients on this host get the ring's memory (`stream/memory_door.py`); None for TCP.
        lock: File whose lock says that a publisher lives here; None for TCP, where binding says so.
    """

    frames: str
    status: str
    credit: str
    clock: str
    memory: Path | None = None
    lock: Path | None = None
    curve: Curve | None = None

    @property
    def control(self) -> Path:
        """UNIX socket where this host's user commands the publisher (`stream/command_door.py`).

        Raises:
            EndpointError: A TCP endpoint's lies in the runtime folder, and that cannot be used.
        """
        if self.memory is not None:
            return self.memory.with_suffix(".control")
        return runtime_folder() / f"port-{urlsplit(self.frames).port}.control"

    @property
    def text(self) -> str:
        """The address a user types to reach this stream."""
        return with_curve(self.frames.removesuffix(".frames"), self.curve)

    @property
    def plain(self) -> str:
        """The address alone, without the names of keys."""
        return self.frames.removesuffix(".frames")


def runtime_folder() -> Path:
    """This user's folder for sockets, made if need be, readable by nobody else (0700).

    Raises:
        EndpointError: It exists and belongs to another user or is open to others.
    """
    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "contrastream" if base else Path("/tmp") / f"contrastream-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise EndpointError(
            f"needed a folder for sockets, got {error}; name one with --endpoint ipc:///path"
        ) from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise EndpointError(
            f"the socket folder must be yours alone (mode 0700), got {folder} with owner {found.st_uid} and "
            f"mode {stat.S_IMODE(found.st_mode):04o}; run: chmod 700 {folder} (or remove it)"
        )
    return folder


def parse_endpoint(text: str | None = None) -> Endpoint:
    """Understand what a user typed as an endpoint.

    Args:
        text: None for this host's default stream; a plain name for another stream of this host;
            `ipc:///path`; or `tcp://ADDRESS:PORT`, which takes the three ports after it too. What this host's users
            alone reach needs no CURVE; any other address has it, with the key pair `main`. `?key=LABEL` names another
            pair, and wants CURVE on loopback too; `&server=KEY` is a client's: the publisher's public key.

    Raises:
        EndpointError: None of these.
    """
    text = text or DEFAULT_NAME
    if re.fullmatch(r"[A-Za-z0-9_.-]{1,40}", text) and text not in (".", ".."):
        return _ipc(runtime_folder() / text)
    if text.startswith("ipc://"):
        path = Path(text.removeprefix("ipc://"))
        if not path.is_absolute():
            raise EndpointError(f"an ipc endpoint is ipc:///absolute/path, got {text}")
        return _ipc(path)
    if text.startswith("tcp://"):
        return _tcp(text)
    raise EndpointError(f"an endpoint is a name, ipc:///path or tcp://ADDRESS:PORT, got {text!r}")


def with_curve(text: str, curve: Curve | None) -> str:
    """An endpoint's text that also says which keys it takes, as `parse_endpoint` reads it."""
    if curve is None:
        return text
    named = {"key": curve.key, **({} if curve.server is None else {"server": curve.server})}
    return f"{text.partition('?')[0]}?{urlencode(named)}"


def choose_keys(
    text: str | None, *, key: str | None, server: str | None = None, curve: bool = False
) -> str | None:
    """An endpoint's text with the keys that options name; as it was where they name none.

    Args:
        text: As `parse_endpoint` takes it.
        key: Label of one's own pair; None for what `text` says, or `main`.
        server: The publisher's public key or its file, from a client.
        curve: Take CURVE on loopback too.

    Raises:
        EndpointError: As `parse_endpoint`, or keys for an address that has no CURVE.
    """
    if key is None and server is None and not curve:
        return text
    found = parse_endpoint(text)
    if not found.frames.startswith("tcp://"):
        raise EndpointError(
            f"keys are for tcp://ADDRESS:PORT, got {found.plain}, which is for this user alone by its folder; leave them out"
        )
    named = found.curve or Curve()
    return with_curve(found.plain, Curve(key or named.key, server or named.server))


def client_here(endpoint: Endpoint) -> str:
    """The text by which a client of the publisher's own user, on its host, reaches an endpoint that is bound."""
    if endpoint.curve is None:
        return endpoint.text
    from stream.keys import load_pair  # needs zmq, which an address does not

    parts = urlsplit(endpoint.plain)
    host = EVERYWHERE.get(parts.hostname or "", parts.hostname or "")
    host = f"[{host}]" if ":" in host else host
    own = load_pair(endpoint.curve.key).public.decode()
    return with_curve(f"tcp://{host}:{parts.port}", Curve(endpoint.curve.key, own))


def numbered_endpoint(text: str | None, number: int) -> str:
    """The endpoint of one of several rooms: NAME-1, NAME-2 and so on; of TCP, every tenth port from the given one on.

    Args:
        text: As `parse_endpoint` takes it.
        number: The room's number, from 1.

    Raises:
        EndpointError: As `parse_endpoint`.
    """
    parse_endpoint(text)
    if text is not None and text.startswith("tcp://"):
        address, mark, keys = text.partition("?")
        host, _, port = address.rpartition(":")
        return f"{host}:{int(port) + 10 * (number - 1)}{mark}{keys}"
    return f"{text or DEFAULT_NAME}-{number}"


def _ipc(path: Path) -> Endpoint:
    if len(os.fsencode(path)) > MAX_IPC_PATH:
        raise EndpointError(
            f"an ipc path must be at most {MAX_IPC_PATH} bytes long, got {len(os.fsencode(path))}: {path}"
        )
    return Endpoint(
        f"ipc://{path}.frames",
        f"ipc://{path}.status",
        f"ipc://{path}.credit",
        f"ipc://{path}.clock",
        Path(f"{path}.memory"),
        Path(f"{path}.lock"),
    )


def _tcp(text: str) -> Endpoint:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
        named = dict(parse_qsl(parts.query, strict_parsing=True)) if parts.query else {}
    except ValueError:
        host, port, named = None, None, {}
    if not host or port is None or not 1024 <= port <= 65532 or not re.fullmatch(r"[A-Za-z0-9_.:%-]+", host):
        raise EndpointError(f"a TCP endpoint is tcp://ADDRESS:PORT with PORT 1024 to 65532, got {text}")
    if named.keys() - {"key", "server"} or parts.path or parts.fragment or parts.username is not None:
        raise EndpointError(f"after tcp://ADDRESS:PORT only ?key=LABEL&server=KEY may follow, got {text}")
    curve = None
    if named or host not in LOOPBACK:
        curve = Curve(named.get("key", DEFAULT_KEY), named.get("server"))
    host = f"[{host}]" if ":" in host else host
    frames, status, credit, clock = (f"tcp://{host}:{port + place}" for place in range(4))
    return Endpoint(frames, status, credit, clock, curve=curve)


class EndpointLock:
    """Holds an ipc endpoint for one publisher; the kernel lets go of it when the process ends, however it ends.

    Needed because binding an ipc address takes it away from whoever holds it, in silence.

    Raises:
        EndpointError: Another publisher holds it.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._file: int | None = None
        self._path = endpoint.lock
        if endpoint.lock is None:
            return
        try:
            endpoint.lock.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle = os.open(endpoint.lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        except OSError as error:
            raise EndpointError(f"needed a writable folder for sockets, got {error}") from error
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.read(handle, 20).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise EndpointError(
                f"needed a free endpoint, got {endpoint.text} in use by process {holder}; stop it or choose "
                "another with --endpoint NAME"
            ) from error
        if not _is_the_file(handle, endpoint.lock):
            # Its holder removed it between our opening and our locking it: somebody else may hold a new one.
            os.close(handle)
            raise EndpointError(f"needed a free endpoint, got {endpoint.text} just given up; try again")
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        self._file = handle

    def close(self) -> None:
        """Let go of the endpoint; may be called twice."""
        if self._file is not None:
            assert self._path is not None
            self._path.unlink(missing_ok=True)
            os.close(self._file)
            self._file = None


def _is_the_file(handle: int, path: Path) -> bool:
    """Whether an open file is still the one that its path names."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False
