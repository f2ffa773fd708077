"""The audit log: what a stream did, in files whose entries are chained (`stream/audit_chain.py`).

Whoever has something to say puts it into a queue and goes on; a thread of its own chains, writes and syncs. A disk that is
full, read-only or slow so never holds a frame up: entries wait, beyond `WAITING` of them they are counted as lost, and
the next entry that can be written says how many.

A folder holds numbered chains, one for each stream that runs at the same time, each in files of 4 MiB of which the newest
32 are kept:

    audit.key             beside the folder: the key (0600)
    audit/1/lock          held while a stream writes this chain; the next stream takes 2
    audit/1/000001.jsonl  the chain goes on from file to file, and from run to run
"""

import contextlib
import fcntl
import logging
import os
import queue
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from stream.audit_chain import FIRST_PREVIOUS, MAX_LINE, open_key, pack_entry, state_folder, unpack_entry
from stream.errors import AuditError

log = logging.getLogger("contrastream.audit_log")

FILE_BYTES = 4 << 20
FILES_KEPT = 32
WAITING = 1000
"""Entries that may wait for the disk."""
AGAIN_S = 1.0
"""How long after a failed write the next is tried."""
CLOSE_S = 0.5
"""How long the end of a stream waits for the disk."""
MAX_CHAINS = 64


def default_folder() -> Path:
    """Where a stream's audit log is written unless the user says otherwise."""
    return state_folder() / "audit"


def key_path() -> Path:
    """Where the key of this user's audit logs is, whichever folder they are in."""
    return state_folder() / "audit.key"


def chain_files(chain: Path) -> list[Path]:
    """The files of a chain, oldest first."""
    return sorted(path for path in chain.glob("*.jsonl") if path.stem.isdigit())


def check_folder(folder: Path) -> None:
    """Find out before anything starts that an audit log can be written.

    Raises:
        AuditError: The folder or the key cannot be made or used.
    """
    open_key(key_path())
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not os.access(folder, os.W_OK | os.X_OK):
            raise PermissionError(0, "it cannot be written")
    except OSError as error:
        raise AuditError(
            f"needed a folder for the audit log, got {folder}: {error.strerror}; choose another with --audit-folder, or "
            "run with --no-audit"
        ) from error


class AuditLog:
    """Writes one chain. `write` may be called from one thread; nothing in it waits for a disk.

    Args:
        folder: Where chains are; made if needed (0700).
        file_bytes: When the next file is begun.
        files_kept: How many files stay.

    Raises:
        AuditError: The folder or the key cannot be used.
    """

    def __init__(self, folder: Path, *, file_bytes: int = FILE_BYTES, files_kept: int = FILES_KEPT) -> None:
        check_folder(folder)
        self._key = open_key(key_path())
        self._file_bytes, self._files_kept = file_bytes, files_kept
        self.lost = 0
        """Entries that found no room in the queue, or no disk at the end."""
        self.why: str | None = None
        """Why nothing can be written at present; None while it can."""
        self.entries = 0
        """Number of the newest entry on the disk; they count from 1."""
        self.head = FIRST_PREVIOUS
        """Its MAC, which stands for the whole chain."""
        self._lost_told = 0
        self._descriptor = -1
        self._size = 0
        self._number = 0
        self._queue: queue.Queue[dict[str, Any] | None] = queue.Queue(WAITING)
        self._closing = threading.Event()
        self.chain, self._lock = self._take_chain(folder)
        try:
            self._begin()
        except OSError as error:
            os.close(self._lock)
            raise AuditError(
                f"needed to write the audit log in {self.chain}, got: {error.strerror}; choose another with "
                "--audit-folder, or run with --no-audit"
            ) from error
        self._thread = threading.Thread(target=self._write_all, name="audit-log", daemon=True)
        self._thread.start()

    def write(self, event: str, **facts: Any) -> None:
        """Add an entry.

        Args:
            event: What happened, one word.
            facts: Plain JSON values. Nothing of a patient, no name or path of a file.
        """
        entry = {"time_ns": time.time_ns(), "monotonic_ns": time.monotonic_ns(), "event": event, **facts}
        try:
            self._queue.put_nowait(entry)
        except queue.Full:
            self.lost += 1

    def status(self) -> dict[str, Any]:
        """For the heartbeat: `head`, `entries`, `lost`, `why`."""
        return {"head": self.head, "entries": self.entries, "lost": self.lost, "why": self.why}

    def close(self) -> None:
        """Write what waits, as far as the disk takes it within half a second."""
        self._closing.set()
        with contextlib.suppress(queue.Full):
            self._queue.put(None, timeout=CLOSE_S)
        self._thread.join(CLOSE_S)
        if self.lost or self._thread.is_alive():
            log.warning("the audit log lost %d entries: %s", self.lost, self.why or "the disk was too slow")
        if not self._thread.is_alive():
            # Else a write hangs in the kernel: its descriptors go with the process.
            os.close(self._descriptor)
            os.close(self._lock)

    # Chains and files ---------------------------------------------------------------------------------------------

    @staticmethod
    def _take_chain(folder: Path) -> tuple[Path, int]:
        """The first chain that no other stream writes, and its lock."""
        for number in range(1, MAX_CHAINS + 1):
            chain = folder / str(number)
            try:
                chain.mkdir(mode=0o700, exist_ok=True)
                lock = os.open(chain / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            except OSError as error:
                raise AuditError(
                    f"needed to write the audit log in {chain}, got: {error.strerror}; choose another with "
                    "--audit-folder, or run with --no-audit"
                ) from error
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                os.close(lock)
                continue
            return chain, lock
        raise AuditError(f"at most {MAX_CHAINS} streams write audit logs in {folder} at once; stop one")

    def _begin(self) -> None:
        """Go on where the chain ends; where its end does not verify, leave that as it is and begin anew beside it."""
        files = chain_files(self.chain)
        if not files:
            self._open_next()
            return
        self._number = int(files[-1].stem)
        # A file may have been begun and never written.
        written = [path for path in files if path.stat().st_size]
        try:
            entry = unpack_entry(self._key, last_line(written[-1])) if written else None
        except ValueError as error:
            self._open_next()
            log.warning(
                "the audit log's newest file does not verify (%s); run: contrastream audit verify", error
            )
            self._append({"event": "begun_anew", "why": f"the last line before this: {error}"})
            return
        if entry is not None:
            self.entries, self.head = int(entry["n"]), str(entry["mac"])
        self._open(files[-1])

    def _open(self, path: Path) -> None:
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
        descriptor = os.open(path, flags, 0o600)
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._size = descriptor, os.fstat(descriptor).st_size

    def _open_next(self) -> None:
        self._open(self.chain / f"{self._number + 1:06d}.jsonl")
        self._number += 1

    def _rotate(self) -> None:
        """Begin the next file; the oldest go, and the new file's first entry says which entry is the oldest now."""
        self._open_next()
        files = chain_files(self.chain)
        gone, kept = files[: -self._files_kept], files[-self._files_kept :]
        oldest = first_number(self._key, kept[0]) if gone else first_number(self._key, files[0])
        self._append({"event": "rotated", "file": self._number, "oldest_entry": oldest})
        for path in gone:
            path.unlink(missing_ok=True)

    # The writer ---------------------------------------------------------------------------------------------------

    def _write_all(self) -> None:
        waiting: dict[str, Any] | None = None
        while True:
            waiting = waiting or self._queue.get()
            if waiting is None:
                return
            try:
                if self._size >= self._file_bytes:
                    self._rotate()
                if self.lost > self._lost_told:
                    lost = self.lost
                    self._append({"event": "lost", "entries": lost - self._lost_told})
                    self._lost_told = lost
                self._append(waiting)
                waiting = None
                if self._queue.empty():
                    os.fsync(self._descriptor)
            except OSError as error:
                if self.why is None:
                    log.warning(
                        "the audit log cannot be written (%s); entries wait, the picture goes on",
                        error.strerror,
                    )
                self.why = str(error.strerror)
                if self._closing.wait(AGAIN_S):
                    self.lost += 1 + sum(entry is not None for entry in list(self._queue.queue))
                    return
                continue
            if self.why is not None:
                log.warning("the audit log can be written again")
                self.why = None

    def _append(self, facts: dict[str, Any]) -> None:
        facts = dict(facts)
        stamp_ns = facts.pop("time_ns", None) or time.time_ns()
        facts.setdefault("monotonic_ns", time.monotonic_ns())
        line, mac = pack_entry(
            self._key, self.head, {"n": self.entries + 1, "time": utc(int(stamp_ns)), **facts}
        )
        try:
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(0, "no space left for a whole line")
        except OSError:
            os.ftruncate(self._descriptor, self._size)  # half a line would look like one that was cut off
            raise
        self._size += len(line)
        self.entries, self.head = self.entries + 1, mac


def utc(stamp_ns: int) -> str:
    """A wall clock's time in UTC to the millisecond."""
    return (
        datetime.fromtimestamp(stamp_ns / 1e9, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    )


def last_line(path: Path) -> bytes:
    """The last line of a file, with its newline where it has one; empty for an empty file."""
    with path.open("rb") as file:
        file.seek(0, os.SEEK_END)
        file.seek(max(0, file.tell() - 2 * MAX_LINE))
        return (file.read().splitlines(keepends=True) or [b""])[-1]


def first_number(key: bytes, path: Path) -> int:
    """The number of a file's first entry; 0 where that cannot be told."""
    try:
        with path.open("rb") as file:
            return int(unpack_entry(key, file.readline(MAX_LINE))["n"])
    except (OSError, ValueError):
        return 0
