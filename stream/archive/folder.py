"""The folder of an archive: each loop whole or not there, found again by its content, and the manifest of all.

    manifest.json                what made it, every loop with its hashes, what failed, every run with its speed
    loops/0123456789abcdef/      one loop as stream/synthesis.py lays it out, named by the first digits of its SHA-256
    .partial/                    loops that are being made; empty when nothing runs

A loop's own synthesis.json is what counts: it names the loop's hash, the key of what made it, and every file's size and
hash. The manifest is made from these, so that a run that was killed is taken up where it was.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calib.whole_files import json_bytes, write_whole
from stream.archive.find import MANIFEST
from stream.errors import ArchiveError, OutputError
from stream.synthesis import REPORT

SCHEMA = "contrastream.archive/1"
LOOPS = "loops"
MAKING = ".partial"
LOCK = ".lock"
NOTICE = "Vessels in it are synthetic. Research use only. Not a medical device."
NAME_DIGITS = 16


@dataclass(frozen=True)
class Identity:
    """What makes an archive's pictures: the same loop made by the same is the same."""

    model_name: str
    model_sha256: str
    settings: dict[str, Any]
    """Those that change a picture."""
    site_sha256: str | None = None
    """Of the site's record."""

    def key(self, sha256: str) -> str:
        """What stands for a loop made so; hexadecimal."""
        said = [sha256, self.model_sha256, self.site_sha256, self.settings]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


class ArchiveFolder:
    """The folder, for the run that writes it and for each of its workers.

    Args:
        path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @staticmethod
    def is_archive(path: Path) -> bool:
        """Whether there is an archive's manifest.

        Raises:
            ArchiveError: It is damaged.
        """
        return ArchiveFolder(path)._read_manifest() is not None

    def begin(self, identity: Identity, *, overwrite: bool) -> dict[str, Any]:
        """Make the folder this run's own, and remove what a killed run left unfinished.

        Args:
            identity: What makes the pictures.
            overwrite: Let loops that another model or other settings made be done anew.

        Returns:
            The manifest so far; empty for a new folder.

        Raises:
            ArchiveError: It is another model's or holds something else, or another run writes to it.
            OutputError: It cannot be written.
        """
        if self.path.exists() and not self.path.is_dir():
            raise ArchiveError(f"--out needs a folder, got the file {self.path}; name another")
        manifest = self._read_manifest()
        if manifest is None and self.path.is_dir() and set(os.listdir(self.path)) - {LOCK, MAKING, LOOPS}:
            raise ArchiveError(
                f"--out needs an empty folder or an archive, got other files in {self.path} and no {MANIFEST}; name another"
            )
        if manifest is not None and not overwrite:
            self._check_same(manifest, identity)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._take_lock()
            (self.path / LOOPS).mkdir(exist_ok=True)
            self.clear_unfinished()
            (self.path / MAKING).mkdir(exist_ok=True)
        except OSError as error:
            raise self.unwritable(error) from error
        return manifest or {}

    def _check_same(self, manifest: dict[str, Any], identity: Identity) -> None:
        model, settings = manifest["model"], manifest["settings"]
        if model["sha256"] != identity.model_sha256:
            raise ArchiveError(
                f"{self.path} is an archive of the model {model['name']} {model['sha256'][:8]}, got {identity.model_name} "
                f"{identity.model_sha256[:8]}; name another --out, or do it all anew with --overwrite"
            )
        other = sorted(name for name, value in identity.settings.items() if settings.get(name) != value)
        if other:
            said = ", ".join(f"{name} {settings.get(name)}, got {identity.settings[name]}" for name in other)
            raise ArchiveError(
                f"{self.path} was made with {said}; give the same, name another --out, or do it all anew with --overwrite"
            )

    def _take_lock(self) -> None:
        self._lock = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self.close()
            raise ArchiveError(
                f"{self.path} is being written by another run; wait for it, or name another --out"
            ) from None

    def _read_manifest(self) -> dict[str, Any] | None:
        try:
            said = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(said, dict) or said.get("schema") != SCHEMA:
            return None
        try:
            known = [
                said["model"]["sha256"],
                said["model"]["name"],
                *(e[n] for e in said["loops"] for n in ("sha256", "key")),
            ]
            whole = all(isinstance(each, str) for each in known) and isinstance(said["settings"], dict)
        except (KeyError, TypeError):
            whole = False
        if not whole:
            raise ArchiveError(
                f"{self.path / MANIFEST} is damaged; restore it, or remove it and give the same command to another --out"
            )
        return said

    # One loop ---------------------------------------------------------------------------------------------------

    def loop(self, sha256: str) -> Path:
        """Where a loop lies, or will."""
        return self.path / LOOPS / sha256[:NAME_DIGITS]

    def done(self, sha256: str, key: str) -> dict[str, Any] | None:
        """What the manifest says of a loop that is there, whole and made by the same; else None."""
        folder = self.loop(sha256)
        try:
            text = (folder / REPORT).read_bytes()
            said = json.loads(text)
            kept = said["archive"]
            if kept["sha256"] != sha256 or kept["key"] != key or said["complete"] is not True:
                return None
            for name, file in kept["files"].items():
                if (folder / name).stat().st_size != file["bytes"]:
                    return None
            return _entry(said, text)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def start_loop(self, sha256: str) -> Path:
        """An empty folder in which a loop is made.

        Raises:
            OutputError: It cannot be made.
        """
        try:
            return Path(
                tempfile.mkdtemp(prefix=f"{sha256[:NAME_DIGITS]}-{os.getpid()}-", dir=self.path / MAKING)
            )
        except OSError as error:
            raise self.unwritable(error) from error

    def finish_loop(self, made: Path, sha256: str, key: str) -> dict[str, Any]:
        """Say in a loop's report which files it has, and give it its place in one step.

        Args:
            made: Of `start_loop`, with a whole synthesis in it.
            sha256: The loop's hash.
            key: Of what made it.

        Returns:
            What the manifest says of it. Where another worker was first, its loop stays and `made` goes.

        Raises:
            OutputError: The disk is full.
        """
        try:
            said = json.loads((made / REPORT).read_text(encoding="utf-8"))
            files = {
                str(file.relative_to(made)): {"bytes": file.stat().st_size, "sha256": _sha256(file)}
                for file in sorted(made.rglob("*"))
                if file.is_file() and file.name != REPORT
            }
            said["archive"] = {"sha256": sha256, "key": key, "files": files}
            write_json(made / REPORT, said)
            made.chmod(0o777 & ~_umask())
            place = self.loop(sha256)
            if place.exists() and self.done(sha256, key) is None:
                self._put_aside(place)
            try:
                os.rename(made, place)
            except OSError:
                if (first := self.done(sha256, key)) is None:
                    raise
                self.drop_loop(made)
                return first
        except OSError as error:
            raise self.unwritable(error) from error
        entry = self.done(sha256, key)
        assert entry is not None  # it was just put there
        return entry

    def _put_aside(self, place: Path) -> None:
        aside = tempfile.mkdtemp(prefix="old-", dir=self.path / MAKING)
        os.rename(place, aside)
        shutil.rmtree(aside)

    def drop_loop(self, made: Path) -> None:
        """Remove a loop that did not come to its end."""
        shutil.rmtree(made, ignore_errors=True)

    # All of them ------------------------------------------------------------------------------------------------

    def clear_unfinished(self) -> int:
        """Remove what workers that are gone left unfinished.

        Returns:
            How many loops that were.
        """
        left = 0
        with contextlib.suppress(FileNotFoundError):
            for each in os.scandir(self.path / MAKING):
                shutil.rmtree(each.path, ignore_errors=True)
                left += 1
        return left

    def write_manifest(self, identity: Identity, said: dict[str, Any]) -> None:
        """Write manifest.json, whole or not at all.

        Args:
            identity: What makes the pictures.
            said: The rest.

        Raises:
            OutputError: The disk is full; the manifest before stays.
        """
        whole = {
            "schema": SCHEMA,
            "notice": NOTICE,
            "model": {"name": identity.model_name, "sha256": identity.model_sha256},
            "site_sha256": identity.site_sha256,
            "settings": identity.settings,
            **said,
        }
        try:
            write_json(self.path / MANIFEST, whole)
        except OSError as error:
            raise self.unwritable(error) from error

    def remove_empty(self) -> None:
        """Remove the folder where nothing was made in it."""
        with contextlib.suppress(OSError):
            for name in (MAKING, LOOPS):
                (self.path / name).rmdir()
            (self.path / LOCK).unlink()
            self.path.rmdir()

    def unwritable(self, error: OSError) -> OutputError:
        """The sentence for a disk that is full or gone."""
        return OutputError(
            f"needed to write below {self.path}, got: {error.strerror}; what is done is kept, so make room and give the same "
            "command again, or choose another --out"
        )

    def close(self) -> None:
        """Let other runs write here; the workers' folder goes if it is empty."""
        with contextlib.suppress(OSError):
            (self.path / MAKING).rmdir()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def write_json(path: Path, said: dict[str, Any]) -> None:
    """Write a JSON file, whole or not at all; raises OSError."""
    write_whole({path: json_bytes(said)})


def _entry(said: dict[str, Any], text: bytes) -> dict[str, Any]:
    """What the manifest says of a whole loop."""
    source, engine = said["source"], said["engine"]
    return {
        "sha256": said["archive"]["sha256"],
        "folder": f"{LOOPS}/{said['archive']['sha256'][:NAME_DIGITS]}",
        "key": said["archive"]["key"],
        "report_sha256": hashlib.sha256(text).hexdigest(),
        **{name: source[name] for name in ("kind", "rows", "columns", "bits_stored")},
        "frames": said["counts"]["frames"],
        "synthetic": said["counts"]["synthetic"],
        "engine": f"{engine['backend']} {engine['precision']}",
        "seconds": said["seconds"],
    }


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
