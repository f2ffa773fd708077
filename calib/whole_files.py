"""Files that are there whole or not at all, whatever ends the program or fills the disk meanwhile."""

import contextlib
import json
import os
from pathlib import Path
from typing import Any


def write_whole(files: dict[Path, bytes], *, private: bool = False) -> None:
    """Write files, each replaced in one go, and none before all of them are on the disk.

    A device or a pipe is written to, and never replaced.

    Args:
        files: What goes into each.
        private: For this user alone.

    Raises:
        OSError: One cannot be written, its `filename`; nothing is left behind. Where it is the disk that is full, none was replaced.
    """
    partials: dict[Path, Path] = {}
    at = next(iter(files), None)
    try:
        for path, data in files.items():
            at = path
            if path.exists() and not (path.is_file() or path.is_dir()):
                path.write_bytes(data)
                continue
            partials[path] = path.with_name(path.name + ".partial")
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
            with open(os.open(partials[path], flags, 0o600 if private else 0o666), "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        for path, partial in partials.items():
            at = path
            partial.replace(path)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(at)) from error
    finally:
        for partial in partials.values():
            with contextlib.suppress(OSError):
                partial.unlink()


def json_bytes(said: dict[str, Any], **options: Any) -> bytes:
    """A JSON file as this program writes them: indented, with a line's end.

    Args:
        said: The object.
        options: As `json.dumps` takes them.
    """
    return (json.dumps(said, indent=2, **options) + "\n").encode()
