"""What a viewer is asked to keep of the live frames, and where a key press writes it; found to be possible before anything starts."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

from stream.errors import RecordError

LONGEST_S = 600.0
DEFAULT_GB = 2.0


@dataclass(frozen=True)
class KeepSettings:
    """What is kept, and where it is written."""

    seconds: float
    folder: Path
    most_bytes: int


def keep_settings(seconds: float | None, folder: Path | None, most_gb: float | None) -> KeepSettings | None:
    """What --keep-last, --keep-in and --keep-memory ask for, found to be possible; None where nothing is to be kept.

    Raises:
        RecordError: One without the other, a number that is none, or a folder that cannot be written.
    """
    if seconds is None and folder is None and most_gb is None:
        return None
    if seconds is None or folder is None:
        missing = "--keep-last SECONDS" if seconds is None else "--keep-in DIR"
        raise RecordError(
            f"keeping needs --keep-last SECONDS and --keep-in DIR, got no {missing.split()[0]}; give {missing} too"
        )
    if not 1.0 <= seconds <= LONGEST_S:
        raise RecordError(
            f"--keep-last must be 1 to {LONGEST_S:.0f} seconds, got {seconds:g}; 60 is enough for one injection"
        )
    most_gb = DEFAULT_GB if most_gb is None else most_gb
    if not 0.01 <= most_gb <= 1024.0:
        raise RecordError(
            f"--keep-memory must be 0.01 to 1024 GB, got {most_gb:g}; leave it out for {DEFAULT_GB:g}"
        )
    folder = folder.absolute()
    try:
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise RecordError(
            f"--keep-in needs a folder that can be written, got {folder}: {error.strerror}; make it first, or choose another"
        ) from None
    return KeepSettings(seconds, folder, round(most_gb * 1e9))
