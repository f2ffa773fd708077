"""What is derived from a model and kept for the next start: one private folder a kind, whole files, one writer.

A file here may always be lost: whoever reads it checks it, and makes it anew where it does not hold.
"""

import contextlib
import fcntl
import functools
import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

log = logging.getLogger(__name__)

FRESH = ".new"
"""The ending of a file that is being written; only under its lock, so a name left by a killed writer is used again."""
LOCK = ".lock"


@functools.cache
def warn_once(sentence: str) -> None:
    """Say what is wrong with the cache, but not again at every file."""
    log.warning("%s", sentence)


def cache_folder(kind: str, lost: str) -> Path | None:
    """A folder under ~/.cache/contrastream, or $XDG_CACHE_HOME, that this user alone may enter.

    Args:
        kind: Its name.
        lost: What does not work without it; begins the warning.

    Returns:
        The folder; None where there can be none, or where another user could have laid something into it.
    """
    try:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        folder = base / "contrastream" / kind
        for place in (folder.parent, folder):
            place.mkdir(mode=0o700, parents=True, exist_ok=True)
            if place.stat().st_uid != os.geteuid():
                raise PermissionError(f"{place} belongs to another user")
            if stat.S_IMODE(place.stat().st_mode) != 0o700:
                place.chmod(0o700)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home
        warn_once(f"{lost}: {error}")
        return None
    return folder


@contextlib.contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Be the only process, and thread, that makes `path`. A killed holder leaves no lock behind.

    The lock is the kernel's, on a file beside `path` that is removed again while it is still held; whoever waited
    for it then finds that its file is not the one on disk, and takes that one.

    Args:
        path: What is to be written.
        wait: Wait for the holder, and say who that is.

    Raises:
        BlockingIOError: Another one holds it, and `wait` is False.
        OSError: There can be no lock here: no room, no right, or a file system without locks.
    """
    place = path.with_name(path.name + LOCK)
    while True:
        descriptor = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if not wait:
                    raise
                holder = os.pread(descriptor, 20, 0).decode("ascii", "replace") or "unknown"
                log.warning("waiting for process %s, which is making %s", holder, path.name)
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            if _is(descriptor, place):
                break
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    try:
        with contextlib.suppress(OSError):  # only to be read by a person; a full disk has no room for it
            os.pwrite(descriptor, str(os.getpid()).encode(), 0)
        yield
    finally:
        with contextlib.suppress(OSError):
            place.unlink()
        os.close(descriptor)


def _is(descriptor: int, place: Path) -> bool:
    try:
        there = os.stat(place, follow_symlinks=False)
    except FileNotFoundError:
        return False
    mine = os.fstat(descriptor)
    return (there.st_dev, there.st_ino) == (mine.st_dev, mine.st_ino)


def write_whole(path: Path, content: bytes) -> None:
    """All of the new file or all of the old one, even if the power fails. The caller holds the lock.

    Raises:
        OSError: It could not be written; nothing of it is left.
    """
    fresh = path.with_name(path.name + FRESH)
    try:
        descriptor = os.open(
            fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600
        )
        with open(descriptor, "wb", buffering=0) as stream:
            rest = memoryview(content)
            while rest:
                rest = rest[stream.write(rest) :]
            os.fsync(descriptor)
        os.replace(fresh, path)
    except BaseException:  # an interrupt leaves nothing either
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
