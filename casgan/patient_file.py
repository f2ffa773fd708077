"""An adaptation on disk: what M and the decoders differ by, for one model, and no picture, name or date of the patient.

    metadata   format, the model's SHA-256, a random key, how it was taught, the projection's angles where they were known
    tensors    delta.NAME    fp16, what is added to the model's weight of that name
               gate.mean, gate.spread    fp32, of the latents that the taught frames had (casgan/patient_gate.py)

The key is drawn anew for each file and follows from nothing of the patient; it tells two adaptations apart, no more.
"""

import contextlib
import copy
import json
import math
import os
import secrets
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from casgan.errors import CheckpointError
from casgan.networks import Generator
from casgan.patient_gate import Gate

FORMAT = "contrastream.patient/1"
MAX_BYTES = 128 << 20
"""Of a file; that of `compact` has 5 MB."""
MAX_METADATA_CHARS = 4096


@dataclass(frozen=True)
class PatientFacts:
    """What a file says of itself."""

    model_sha256: str
    """The model that it belongs to, and no other."""
    key: str
    """32 random hexadecimal digits."""
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
    return secrets.token_hex(16)


def adapted_names(generator: Generator) -> list[str]:
    """The weights that an adaptation changes."""
    return [name for name in generator.state_dict() if name.startswith(("predictor.", "decoders."))]


def save_patient(path: Path, general: Generator, adapted: Generator, gate: Gate, facts: PatientFacts) -> int:
    """Write an adaptation, readable by its owner alone; all of it or nothing.

    Returns:
        Its bytes.

    Raises:
        CheckpointError: It cannot be written.
    """
    old, new = general.state_dict(), adapted.state_dict()
    tensors = {f"delta.{name}": (new[name] - old[name]).to(torch.float16) for name in adapted_names(general)}
    tensors |= {"gate.mean": torch.from_numpy(gate.mean), "gate.spread": torch.from_numpy(gate.spread)}
    said = {"format": FORMAT, "facts": json.dumps(asdict(facts)), "gate_limit": repr(gate.limit)}
    content = save({name: one.contiguous() for name, one in tensors.items()}, metadata=said)
    fresh = path.with_name(path.name + ".new")
    try:
        descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise CheckpointError(
            f"{path.name} needed {len(content) / 1e6:.1f} MB, could not be written: {error.strerror}; make room or choose "
            "another --out"
        ) from error
    return len(content)


def load_patient(path: Path, general: Generator, model_sha256: str) -> tuple[Generator, Gate, PatientFacts]:
    """The adapted network; nothing of the file is run, and every tensor is one that the model has.

    Args:
        path: As `save_patient` wrote it.
        general: The model's network, folded; not changed.
        model_sha256: The model's own hash.

    Raises:
        CheckpointError: No such file, not an adaptation, damaged, or of another model.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise CheckpointError(
            f"needed an adaptation, {path.name} cannot be read: {error.strerror}; make one: contrastream calib patient RUN"
        ) from None
    if size > MAX_BYTES:
        raise CheckpointError(
            f"{path.name} must have at most {MAX_BYTES >> 20} MiB, got {size >> 20} MiB; it is no adaptation"
        )
    try:
        with safe_open(path, "pt") as file:
            said = dict(file.metadata() or {})
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # safe_open is no mapping
    except (SafetensorError, OSError, RuntimeError, ValueError):
        raise CheckpointError(
            f"{path.name} must be an adaptation's safetensors file, got something else or a damaged one; make it anew"
        ) from None
    facts, limit = _facts(said, path.name)
    if facts.model_sha256 != model_sha256:
        raise CheckpointError(
            f"{path.name} must be for the model in use, {model_sha256[:12]}, got one for {facts.model_sha256[:12]}; teach it "
            "again with this model, or run with the other"
        )
    adapted = copy.deepcopy(general)
    weights = adapted.state_dict()
    features = len(_checked(tensors, "gate.mean", None, path.name))
    expected = {f"delta.{name}": tuple(weights[name].shape) for name in adapted_names(general)}
    expected |= {"gate.mean": (features,), "gate.spread": (features,)}
    if set(tensors) != set(expected):
        raise CheckpointError(
            f"{path.name} must hold {len(expected)} tensors of this model, got {len(tensors)}; make it anew"
        )
    checked = {name: _checked(tensors, name, shape, path.name) for name, shape in expected.items()}
    for name in adapted_names(general):
        weights[name] = weights[name] + checked[f"delta.{name}"].to(weights[name].dtype)
    adapted.load_state_dict(weights)
    if not bool((checked["gate.spread"] > 0).all()):
        raise CheckpointError(
            f"{path.name} must hold spreads above 0, got others; it was changed: make it anew"
        )
    gate = Gate(checked["gate.mean"].numpy(), checked["gate.spread"].numpy(), limit)
    return adapted.eval(), gate, facts


def _checked(tensors: dict[str, Tensor], name: str, shape: tuple[int, ...] | None, file: str) -> Tensor:
    """A tensor of the kind and shape it must have, finite."""
    kind = torch.float16 if name.startswith("delta.") else torch.float32
    found = tensors.get(name)
    fits = (
        found is not None
        and found.dtype == kind
        and (found.ndim == 1 if shape is None else tuple(found.shape) == shape)
    )
    if found is None or not fits or not bool(found.isfinite().all()):
        raise CheckpointError(
            f"{file} must hold finite {name} of this model's shape, got none such; it was changed: make it anew"
        )
    return found


def _facts(said: dict[str, str], file: str) -> tuple[PatientFacts, float]:
    """The metadata, checked."""
    wrong = CheckpointError(f"{file} must say what {FORMAT} says of itself, got something else; make it anew")
    if said.get("format") != FORMAT or sum(map(len, said.values())) > MAX_METADATA_CHARS:
        raise wrong
    try:
        values: dict[str, Any] = json.loads(said["facts"])
        facts = PatientFacts(**values)
        limit = float(said["gate_limit"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise wrong from None
    numbers = [facts.steps, facts.beats, facts.held_dice, facts.general_dice, limit]
    numbers += [angle for angle in (facts.primary_deg, facts.secondary_deg) if angle is not None]
    texts = [facts.model_sha256, facts.key, facts.taught_at]
    if (
        not all(type(number) in (int, float) and math.isfinite(number) for number in numbers)
        or not all(type(text) is str for text in texts)
        or not all(len(text) == long for text, long in zip(texts, (64, 32, 5), strict=True))
        or any(character not in "0123456789abcdef" for character in facts.model_sha256 + facts.key)
        or any(character not in "0123456789:" for character in facts.taught_at)
    ):
        raise wrong
    return facts, limit
