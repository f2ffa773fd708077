"""CURVE keys in files: this user's own pairs, and the public keys of the clients that may come in.

    <config>/contrastream/keys/            0700
        LABEL.key                          the public key, to be handed over
        LABEL.key_secret                   the pair, 0600; leaves this folder never
        allowed/LABEL.key                  a client that may come in; 0700 too

The files are ZeroMQ certificates, as `zmq.auth` and czmq write and read them.
"""

import contextlib
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

import zmq

from stream.errors import KeyFileError

DEFAULT_LABEL = "main"
LABEL = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,39}")
KEY_CHARACTERS = 40
"""Of a key in Z85 (ZeroMQ RFC 32): 32 bytes."""
MAX_FILE_BYTES = 4096
MAX_ALLOWED = 256
_Z85 = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")
_PUBLIC = re.compile(rb'^\s*public-key\s*=\s*"([^"\s]{40})"\s*$', re.MULTILINE)
_SECRET = re.compile(rb'^\s*secret-key\s*=\s*"([^"\s]{40})"\s*$', re.MULTILINE)


@dataclass(frozen=True)
class KeyPair:
    """A pair of one's own, in Z85.

    Args:
        public: What others know it by.
        secret: Is never printed, not even by `repr`.
    """

    public: bytes
    secret: bytes = field(repr=False)


def key_folder() -> Path:
    """Where the keys are: `contrastream/keys` in XDG_CONFIG_HOME, or in ~/.config where that is not set."""
    base = os.environ.get("XDG_CONFIG_HOME")
    return (Path(base) if base else Path.home() / ".config") / "contrastream" / "keys"


def check_folder(folder: Path) -> None:
    """Find out that a folder of keys is this user's alone.

    Raises:
        KeyFileError: It is not there, belongs to another user or is open to others.
    """
    try:
        found = folder.lstat()
    except OSError as error:
        raise KeyFileError(
            f"needed the folder of keys {folder}, got {error.strerror}; run: contrastream keys new"
        ) from error
    mode = stat.S_IMODE(found.st_mode)
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise KeyFileError(
            f"the folder of keys must be a folder of your own, got {folder} with owner {found.st_uid}; move it away "
            "and run: contrastream keys new"
        )
    if mode & 0o077:
        raise KeyFileError(
            f"the folder of keys must be yours alone (mode 0700), got {folder} with mode {mode:04o}; run: chmod 700 {folder}"
        )


def check_label(label: str) -> str:
    """A key's label: 1 to 40 letters, digits, dots, dashes and underscores; the first is no dot and no dash.

    Raises:
        KeyFileError: It is none.
    """
    if not LABEL.fullmatch(label):
        raise KeyFileError(
            f"a key's label is 1 to 40 letters, digits, '.', '-' and '_', the first no '.' and no '-', got {label[:60]!r}"
        )
    return label


def new_pair(label: str = DEFAULT_LABEL) -> Path:
    """Make a key pair; returns the file of its public key.

    Raises:
        KeyFileError: There is one of that label, or the folder is not this user's alone or cannot be written.
    """
    folder = _made_folder()
    public_path, secret_path = _pair_files(folder, label)
    public, secret = zmq.curve_keypair()
    while public.startswith(b"-"):  # which a command line would take for an option
        public, secret = zmq.curve_keypair()
    text = f'metadata\ncurve\n    public-key = "{public.decode()}"\n'
    if public_path.exists():
        raise KeyFileError(f"needed a new label, got {label}, whose key exists; choose another")
    try:
        _write_new(secret_path, f'{text}    secret-key = "{secret.decode()}"\n')
    except FileExistsError as error:
        raise KeyFileError(f"needed a new label, got {label}, whose key exists; choose another") from error
    try:
        _write_new(public_path, text)
    except BaseException:
        secret_path.unlink()
        raise
    return public_path


def load_pair(label: str) -> KeyPair:
    """One of this user's own pairs.

    Raises:
        KeyFileError: There is none of that label, or others may read it.
    """
    folder = key_folder()
    _, path = _pair_files(folder, label)
    if not path.exists() and not path.is_symlink():
        name = "" if label == DEFAULT_LABEL else f" {label}"
        raise KeyFileError(
            f"needed the CURVE key pair {label}, got none in {folder}; run: contrastream keys new{name}"
        )
    check_folder(folder)
    with _opened(path) as file:
        found = os.fstat(file.fileno())
        mode = stat.S_IMODE(found.st_mode)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise KeyFileError(
                f"a private key must be a file of your own, got {path} with owner {found.st_uid}"
            )
        if mode & 0o077:
            raise KeyFileError(
                f"a private key must be yours alone (mode 0600), got {path} with mode {mode:04o}; run: chmod 600 {path}"
                " (and make a new pair if others may have read it)"
            )
        data = file.read(MAX_FILE_BYTES)
    public, secret = _PUBLIC.search(data), _SECRET.search(data)
    if public is None or secret is None or zmq.curve_public(secret[1]) != public[1]:
        raise KeyFileError(
            f"needed a key pair as `contrastream keys new` makes it, got another content in {path}; make a new pair"
        )
    return KeyPair(public[1], secret[1])


def read_public(text: str) -> bytes:
    """A public key: 40 characters of Z85, or a file that holds it.

    Raises:
        KeyFileError: Neither, or a file with a private key, which must not be handed about.
    """
    if _Z85.fullmatch(text) and not Path(text).exists():
        return _known(text.encode(), "the argument")
    path = Path(text).expanduser()
    if not path.exists():
        raise KeyFileError(
            f"a public key is a LABEL.key file or its {KEY_CHARACTERS} characters, got {text[:80]!r}; "
            "`contrastream keys list` prints them on the other host"
        )
    with _opened(path) as file:
        data = file.read(MAX_FILE_BYTES)
    if _SECRET.search(data):
        raise KeyFileError(
            f"needed a public key, got {path} with a private one, which must stay where it was made; "
            "hand over the LABEL.key file beside it"
        )
    found = _PUBLIC.search(data)
    if found is None:
        raise KeyFileError(
            f"needed a LABEL.key file that `contrastream keys new` has made, got another content in {path}"
        )
    return _known(found[1], str(path))


def allow(label: str, key: str) -> Path:
    """Let a client in; returns the file that says so.

    Raises:
        KeyFileError: It is no public key, the label or the key is there already, or there are too many.
    """
    check_label(label)
    public = read_public(key)
    folder = _made_folder() / "allowed"
    known = allowed_clients()
    if known.get(label) == public:
        return folder / f"{label}.key"
    if label in known:
        raise KeyFileError(
            f"needed a new label, got {label} of another client; run: contrastream keys revoke {label}"
        )
    if public in known.values():
        other = next(name for name, value in known.items() if value == public)
        raise KeyFileError(
            f"needed a client that is not allowed yet, got the key of {other}; revoke it to rename it"
        )
    if len(known) >= MAX_ALLOWED:
        raise KeyFileError(
            f"at most {MAX_ALLOWED} clients can be allowed, got one more; revoke those that are gone"
        )
    path = folder / f"{label}.key"
    _write_new(path, f'metadata\ncurve\n    public-key = "{public.decode()}"\n')
    return path


def revoke(label: str) -> Path:
    """Let a client in no longer; a running publisher drops its sessions within a second.

    Raises:
        KeyFileError: No client of that label is allowed.
    """
    path = key_folder() / "allowed" / f"{check_label(label)}.key"
    if not os.path.lexists(path):
        labels = ", ".join(sorted(allowed_clients())) or "none"
        raise KeyFileError(f"needed the label of an allowed client, got {label}; allowed now: {labels}")
    check_folder(key_folder())
    try:
        path.unlink()
    except OSError as error:
        raise KeyFileError(f"needed to remove {path}, got {error.strerror}") from error
    return path


def own_pairs() -> dict[str, bytes]:
    """This user's own pairs: label and public key. Private keys are not read."""
    return _certificates(key_folder())


def allowed_clients() -> dict[str, bytes]:
    """The clients that may come in: label and public key; none where nobody was ever allowed.

    Raises:
        KeyFileError: The folder belongs to another user or is open to others, or a file in it is no public key.
    """
    folder = key_folder() / "allowed"
    if not folder.exists():
        return {}
    for place in (folder.parent, folder):
        check_folder(place)
    return _certificates(folder)


def _certificates(folder: Path) -> dict[str, bytes]:
    try:
        paths = sorted(path for path in folder.iterdir() if path.suffix == ".key")
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise KeyFileError(f"needed a readable folder of keys, got {folder}: {error.strerror}") from error
    return {path.stem: read_public(str(path)) for path in paths[: MAX_ALLOWED + 1]}


def _known(public: bytes, where: str) -> bytes:
    if not _Z85.fullmatch(public.decode("ascii", "replace")):
        raise KeyFileError(f"a public key is {KEY_CHARACTERS} characters of Z85, got others in {where}")
    return public


def _pair_files(folder: Path, label: str) -> tuple[Path, Path]:
    check_label(label)
    return folder / f"{label}.key", folder / f"{label}.key_secret"


def _made_folder() -> Path:
    """The folder of keys and the one of allowed clients in it, made if need be."""
    folder = key_folder()
    try:
        (folder / "allowed").parent.parent.mkdir(parents=True, exist_ok=True)
        for made in (folder, folder / "allowed"):
            made.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise KeyFileError(f"needed a folder for keys at {folder}, got {error.strerror}") from error
    for made in (folder, folder / "allowed"):
        check_folder(made)
    return folder


def _write_new(path: Path, text: str) -> None:
    """Write a file of mode 0600, whole or not at all, that was not there before.

    Raises:
        FileExistsError: It was.
        KeyFileError: It cannot be written.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)  # unlike a rename it replaces nothing
    except FileExistsError:
        raise
    except OSError as error:
        raise KeyFileError(f"needed to write {path}, got {error.strerror}") from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    """A key's file, open; a link is followed nowhere, and a pipe keeps nobody waiting."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise KeyFileError(f"needed a readable key file, got {path}: {error.strerror}") from error
    try:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise KeyFileError(f"needed a key file, got {path}, which is no regular file")
        with os.fdopen(handle, "rb", closefd=False) as file:
            yield file
    finally:
        os.close(handle)
