"""Which model files may be opened: the shipped ones, those made on this machine, and those the user said to trust.

A model file is code for a runtime, not only weights: it names operators, sizes and shapes, and runtimes have had faults that
such files reach. So a file from elsewhere is opened only after `--trust-model`, which remembers its SHA-256, for all commands
from then on. What `contrastream export` writes is remembered as it is written. A hash names the bytes: a file that changes is
another model.

    ~/.local/state/contrastream/trusted-models    (or $XDG_STATE_HOME) a line each: SHA-256, date, how it came here

To trust a model no more, remove its line.
"""

import logging
import os
import re
import stat
import time
from pathlib import Path

from engines.errors import ModelError

log = logging.getLogger(__name__)

SHIPPED = {
    "e882970877e9a981628ce494162f11983760f9f1f025ad8ffd1bff406eca1cc0": "compact",
    "3cb3c13746b60b815bb398a3031b3d12ea7e7332ff6da7b41d00f88b9d8a1e1e": "compact-s",
}
"""The models of `engines/models`, by hash."""
MAX_LIST_BYTES = 1 << 20


def trust_list() -> Path:
    """Where this user's trusted models are listed."""
    base = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state")
    return base / "contrastream" / "trusted-models"


def is_trusted(sha256: str) -> bool:
    """Whether a model may be opened.

    Raises:
        ModelError: The list could have been written by others.
    """
    return sha256 in SHIPPED or sha256 in _listed()


def _listed() -> set[str]:
    path = trust_list()
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return set()
    except OSError as error:
        raise ModelError(
            f"needed the list of trusted models, got {path}: {error.strerror}; remove it"
        ) from error
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
            raise ModelError(
                f"the list of trusted models must be written by you alone, got {path} with owner {found.st_uid} and mode "
                f"{stat.S_IMODE(found.st_mode):04o}; look through it, then run: chmod 600 {path}"
            )
        text = file.read(MAX_LIST_BYTES).decode("ascii", "replace")
    return set(re.findall(r"^([0-9a-f]{64}) ", text, re.MULTILINE))


def remember(sha256: str, how: str) -> None:
    """Trust a model from here on.

    Args:
        sha256: Its hash.
        how: How it came here, for a person who reads the list.

    Raises:
        OSError: The list cannot be written.
        ModelError: As `is_trusted`.
    """
    if is_trusted(sha256):
        return
    path = trust_list()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o600)
    try:
        os.write(descriptor, f"{sha256} {time.strftime('%Y-%m-%d')} {how}\n".encode())
    finally:
        os.close(descriptor)


def remember_made_here(sha256: str) -> None:
    """Trust a model that this program has just made; where that cannot be written down, say so and go on."""
    try:
        remember(sha256, "made here")
    except (OSError, ModelError) as error:
        log.warning(
            "model %s... cannot be remembered as made here (%s); run it with --trust-model",
            sha256[:16],
            error,
        )


def trust_model(model: str | Path) -> str:
    """`--trust-model`: remember a model that the user answers for.

    Returns:
        What was trusted, as a sentence.

    Raises:
        ModelError: There is no such model, it is not whole, or the list cannot be written.
    """
    from engines.model import load_model

    card = load_model(model, trusted=True).card
    if card.sha256 in SHIPPED:
        return f"model {card.sha256} is the shipped {SHIPPED[card.sha256]}; it needs no --trust-model"
    try:
        remember(card.sha256, "--trust-model")
    except OSError as error:
        raise ModelError(
            f"needed to remember the trusted model in {trust_list()}, got: {error.strerror}; set XDG_STATE_HOME to a "
            "folder that can be written"
        ) from error
    return f"model {card.sha256} ({card.preset}) is trusted from here on, by {trust_list()}"
