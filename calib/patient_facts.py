"""What an adaptation's file says of itself, without torch: the guard and the viewers' words need no more."""

import hashlib
import json
import math
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32

from calib.errors import CalibrationError

FORMAT = "contrastream.patient/2"
KEY_DIGITS = 32


@dataclass(frozen=True)
class PatientFacts:
    """What a file says of itself."""

    model_sha256: str
    """The model that it belongs to, and no other."""
    key: str
    """32 random hexadecimal digits."""
    levels_sha256: str
    """Of the grey levels it was taught with (`levels_name`): with others the same frame is another picture."""
    taught_at: str
    """hh:mm of this host's clock, for a person who has several; no date."""
    steps: int
    beats: float
    """Filled heartbeats that it was taught on."""
    held_dice: float
    """Dice on the held-out heartbeat."""
    general_dice: float
    """The same of the general model."""
    primary_deg: float | None = None
    """Positioner Primary Angle of the run, where its header said it: LAO positive."""
    secondary_deg: float | None = None
    """Positioner Secondary Angle: cranial positive."""

    def describe(self) -> str:
        """As a viewer may say it."""
        return f"patient-adapted, run of {self.taught_at}, {projection(self.primary_deg, self.secondary_deg)}"


def projection(primary_deg: float | None, secondary_deg: float | None) -> str:
    """The C-arm's angles as a room says them."""
    if primary_deg is None or secondary_deg is None:
        return "projection not known"
    side = "LAO" if primary_deg >= 0 else "RAO"
    tilt = "CRAN" if secondary_deg >= 0 else "CAUD"
    return f"{side} {abs(primary_deg):.0f} {tilt} {abs(secondary_deg):.0f}"


def new_key() -> str:
    """A key that follows from nothing."""
    return secrets.token_hex(KEY_DIGITS // 2)


def checked_facts(values: Any) -> PatientFacts:
    """Facts out of plain values of somebody else's.

    Raises:
        ValueError: They are none.
    """
    try:
        facts = PatientFacts(**values)
    except TypeError:
        raise ValueError("not the fields of an adaptation's facts") from None
    numbers = [facts.steps, facts.beats, facts.held_dice, facts.general_dice]
    angles = [angle for angle in (facts.primary_deg, facts.secondary_deg) if angle is not None]
    texts = [facts.model_sha256, facts.levels_sha256, facts.key, facts.taught_at]
    if (
        not all(type(number) in (int, float) and math.isfinite(number) for number in numbers + angles)
        or any(abs(angle) > 360.0 for angle in angles)
        or not all(type(text) is str for text in texts)
        or not all(len(text) == long for text, long in zip(texts, (64, 64, KEY_DIGITS, 5), strict=True))
        or any(character not in "0123456789abcdef" for character in "".join(texts[:3]))
        or not _is_time(facts.taught_at)
    ):
        raise ValueError("a value that an adaptation's facts do not have")
    return facts


def _is_time(text: str) -> bool:
    hours, colon, minutes = text.partition(":")
    return (
        colon == ":"
        and hours.isascii()
        and hours.isdigit()
        and minutes.isascii()
        and minutes.isdigit()
        and len(hours) == len(minutes) == 2
        and int(hours) < 24
        and int(minutes) < 60
    )


def levels_name(table: Float32[np.ndarray, "256"]) -> str:
    """The name of a grey-level table: the SHA-256 of its levels in 16 bits, whatever the bits stored.

    A falling table is named as its mirror image: MONOCHROME1 as it comes and turned to MONOCHROME2, as a recorder writes it, are
    the same picture.
    """
    if table[0] > table[-1]:
        table = table[::-1]
    levels = np.rint(np.clip(table, 0.0, 1.0) * 65535.0).astype("<u2")
    return hashlib.sha256(levels.tobytes()).hexdigest()


def facts_text(facts: PatientFacts) -> str:
    """As the file's metadata hold them."""
    return json.dumps(facts.__dict__)


def open_patient(path: Path) -> int:
    """A descriptor of an adaptation's file, for reading; the caller closes it.

    Raises:
        CalibrationError: There is no such file, or it cannot be read.
    """
    try:
        # Not to wait for a writer where a pipe lies there.
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise CalibrationError(
            f"needed an adaptation, {path.name} cannot be read: {error.strerror}; make one: contrastream calib patient RUN"
        ) from None
