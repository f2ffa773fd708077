"""An adaptation on disk: what M and the decoders differ by, for one model, and no picture, name or date of the patient.

    metadata   format, facts (`calib/patient_facts.py`): the model's SHA-256, a random key, how it was taught, the
               projection's angles where they were known; the gate's limit
    tensors    delta.NAME    fp16, what is added to the model's weight of that name
               gate.centre, gate.axes    fp32, of what the graph says of the taught frames (`calib/patient_gate.py`)

The key is drawn anew for each file and follows from nothing of the patient; it tells two adaptations apart, no more.
`casgan/patient_weights.py` reads it without torch.
"""

import contextlib
import copy
import os
from pathlib import Path

import torch
from safetensors.torch import save

from calib.patient_facts import FORMAT, PatientFacts, facts_text, open_patient
from calib.patient_gate import PatientGate
from casgan.errors import CheckpointError
from casgan.networks import Generator
from casgan.patient_weights import read_patient, refuse_other_model


def adapted_names(generator: Generator) -> list[str]:
    """The weights that an adaptation changes."""
    return [name for name in generator.state_dict() if name.startswith(("predictor.", "decoders."))]


def save_patient(
    path: Path, general: Generator, adapted: Generator, gate: PatientGate, facts: PatientFacts
) -> int:
    """Write an adaptation, readable by its owner alone; all of it or nothing.

    Returns:
        Its bytes.

    Raises:
        CheckpointError: It cannot be written.
    """
    old, new = general.state_dict(), adapted.state_dict()
    tensors = {f"delta.{name}": (new[name] - old[name]).to(torch.float16) for name in adapted_names(general)}
    tensors |= {name: torch.from_numpy(array) for name, array in gate.tensors().items()}
    said = {"format": FORMAT, "facts": facts_text(facts), "gate_limit": repr(gate.limit)}
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


def load_patient(
    path: Path, general: Generator, model_sha256: str
) -> tuple[Generator, PatientGate, PatientFacts]:
    """The adapted network; nothing of the file is run, and every tensor is one that the model has.

    Args:
        path: As `save_patient` wrote it.
        general: The model's network, folded; not changed.
        model_sha256: The model's own hash.

    Raises:
        CalibrationError: There is no such file, or it cannot be read.
        CheckpointError: It is no adaptation, damaged, or of another model.
    """
    descriptor = open_patient(path)
    try:
        read = read_patient(descriptor, path.name)
    finally:
        os.close(descriptor)
    refuse_other_model(read.facts, model_sha256, path.name)
    adapted = copy.deepcopy(general)
    weights = adapted.state_dict()
    names = adapted_names(general)
    if {name: tuple(weights[name].shape) for name in names} != {
        name: delta.shape for name, delta in read.deltas.items()
    }:
        raise CheckpointError(
            f"{path.name} must hold the {len(names)} weights of M and the decoders of this model, got {len(read.deltas)} "
            "others; make it anew"
        )
    for name, delta in read.deltas.items():
        weights[name] = weights[name] + torch.from_numpy(delta.copy()).to(weights[name].dtype)
    adapted.load_state_dict(weights)
    return adapted.eval(), read.gate, read.facts
