"""A model adapted to one patient: the general model's own file with other numbers in M's and the decoders' weights.

Nothing is exported again: the graph is the same byte for byte, so an engine runs it as it runs the general one, and neither torch
nor the package onnx is needed. What comes of it holds weights that were taught on a patient. It lies in a folder of this user
alone, under a name made of the model's hash and the patient's random key, for as long as a runtime reads it, and nothing derived
from it is kept in a cache.
"""

import contextlib
import dataclasses
import hashlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from casgan.errors import CheckpointError
from casgan.patient_weights import PatientWeights, refuse_other_model
from engines.model import ModelFile
from engines.onnx_parts import float_tensors

PREFIX = "network/network."
ADAPTED = ("predictor.", "decoders.")
"""What a patient changes: M and the decoders."""


def adapted_bytes(model: ModelFile, patient: PatientWeights, name: str) -> bytearray:
    """The adapted model as an ONNX file.

    Args:
        model: The general one.
        patient: What its weights differ by.
        name: What the patient's file is called in an error's sentence.

    Raises:
        CheckpointError: It is of another model, or its weights are not those that a patient changes.
    """
    refuse_other_model(patient.facts, model.card.sha256, name)
    content = bytearray(model.path.read_bytes())
    weights = {
        key.removeprefix(PREFIX): tensor
        for key, tensor in float_tensors(memoryview(content)).items()
        if key.startswith(tuple(PREFIX + part for part in ADAPTED))
    }
    needed = {key: tensor.shape for key, tensor in weights.items()}
    got = {key: delta.shape for key, delta in patient.deltas.items()}
    if needed != got or not needed:
        raise CheckpointError(
            f"{name} must hold the {len(needed)} weights of M and the decoders of {model.path.name}, got {len(got)} others; "
            "make it anew"
        )
    for key, weight in weights.items():
        weight += patient.deltas[key].astype(np.float32)
    return content


@contextlib.contextmanager
def adapted_model(model: ModelFile, patient: PatientWeights, name: str) -> Iterator[ModelFile]:
    """The adapted model on disk, for as long as a runtime reads it.

    Args:
        model: As for `adapted_bytes`.
        patient: As for `adapted_bytes`.
        name: As for `adapted_bytes`.

    Raises:
        CheckpointError: As `adapted_bytes`; or there is no room for it.
    """
    content = adapted_bytes(model, patient, name)
    card = dataclasses.replace(model.card, sha256=hashlib.sha256(content).hexdigest())
    with contextlib.ExitStack() as held:
        try:
            # A folder of mode 0700, and nothing left of it.
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="contrastream-patient-"))
            path = Path(folder) / f"{model.card.sha256[:16]}-{patient.facts.key}.onnx"
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            with open(descriptor, "wb") as file:
                file.write(content)
        except OSError as error:
            raise CheckpointError(
                f"needed {len(content) / 1e6:.0f} MB in the temporary folder for the adapted model, got: {error.strerror}; "
                "make room, or set TMPDIR"
            ) from error
        yield ModelFile(path, card, kept=False, cache=Path(folder))
