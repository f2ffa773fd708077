"""An adaptation's file as numpy arrays, for the processes of the live path, which import no torch.

The file is somebody else's until it is read: a length, a JSON table and bytes (https://huggingface.co/docs/safetensors). Every
number of the table is checked before it is used, nothing of the file is run, and what is no adaptation of ours is refused.
"""

import json
import os
import stat
from dataclasses import dataclass
from typing import Any

import numpy as np

from calib.patient_facts import FORMAT, PatientFacts, checked_facts
from calib.patient_gate import PatientGate
from casgan.errors import CheckpointError

MAX_BYTES = 128 << 20
"""Of a file; that of `compact` has 5 MB."""
MAX_TABLE_BYTES = 1 << 20
MAX_METADATA_CHARS = 4096
DELTA = "delta."
KINDS: dict[str, np.dtype[Any]] = {"F16": np.dtype("<f2"), "F32": np.dtype("<f4")}


@dataclass(frozen=True)
class PatientWeights:
    """A file that was read and found whole."""

    facts: PatientFacts
    deltas: dict[str, np.ndarray]
    """By the name of the model's weight: what is added to it, fp16, finite."""
    gate: PatientGate


def refuse_other_model(facts: PatientFacts, model_sha256: str, name: str) -> None:
    """An adaptation is of one model.

    Raises:
        CheckpointError: It is of another than this one.
    """
    if facts.model_sha256 != model_sha256:
        raise CheckpointError(
            f"{name} must be for the model in use, {model_sha256[:12]}, got one for {facts.model_sha256[:12]}; teach it "
            "again with this model, or run with the other"
        )


def read_patient(descriptor: int, name: str) -> PatientWeights:
    """Read an adaptation from its beginning, whatever was read of it before.

    Args:
        descriptor: Of the open file; stays open.
        name: What it is called in an error's sentence.

    Raises:
        CheckpointError: It is no adaptation, or damaged.
    """
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode):
        raise CheckpointError(
            f"{name} must be a file, got something else; give what contrastream calib patient wrote"
        )
    if found.st_size > MAX_BYTES:
        raise CheckpointError(
            f"{name} must have at most {MAX_BYTES >> 20} MiB, got {found.st_size >> 20} MiB; it is no adaptation"
        )
    content = _read(descriptor, found.st_size)
    try:
        tensors, said = _unpacked(content)
    except (ValueError, KeyError, TypeError, RecursionError):
        raise CheckpointError(
            f"{name} must be an adaptation's safetensors file, got something else or a damaged one; make it anew"
        ) from None
    try:
        if said.get("format") != FORMAT:
            raise ValueError
        facts = checked_facts(json.loads(said["facts"]))
        limit = float(said["gate_limit"])
    except (KeyError, TypeError, ValueError, RecursionError):
        raise CheckpointError(
            f"{name} must say what {FORMAT} says of itself, got something else; make it anew"
        ) from None
    deltas = {key.removeprefix(DELTA): value for key, value in tensors.items() if key.startswith(DELTA)}
    rest = {key: value for key, value in tensors.items() if not key.startswith(DELTA)}
    try:
        gate = PatientGate.of_tensors(rest, limit)
    except ValueError as error:
        raise CheckpointError(f"{name} must hold {error}; it was changed: make it anew") from None
    for key, value in deltas.items():
        if value.dtype != np.float16 or not np.isfinite(value).all():
            raise CheckpointError(
                f"{name} must hold finite changes of weights, got others at {key[:60]!r}; make it anew"
            )
    return PatientWeights(facts, deltas, gate)


def _read(descriptor: int, size: int) -> bytes:
    parts, at = [], 0
    while at < size and (part := os.pread(descriptor, size - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _unpacked(content: bytes) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors, as views of the content, and the metadata.

    Raises:
        ValueError, KeyError, TypeError: It is no safetensors file, or a number of its table does not fit.
    """
    length = int.from_bytes(content[:8], "little")
    if len(content) < 8 or not 2 <= length <= min(MAX_TABLE_BYTES, len(content) - 8):
        raise ValueError("the table's length")
    table: Any = json.loads(content[8 : 8 + length])
    if not isinstance(table, dict):
        raise ValueError("no table")
    said = table.pop("__metadata__", {})
    if not isinstance(said, dict) or not all(type(text) is str for pair in said.items() for text in pair):
        raise ValueError("metadata that are no texts")
    if sum(map(len, said.values())) > MAX_METADATA_CHARS:
        raise ValueError("metadata that are too long")
    body = memoryview(content)[8 + length :]
    tensors = {name: _tensor(entry, body) for name, entry in table.items()}
    # As the format wants it: no byte that is nobody's, and none that is of two.
    spans = sorted(tuple(entry["data_offsets"]) for entry in table.values())
    at = 0
    for begin, end in spans:
        if begin != at:
            raise ValueError("bytes between the tensors")
        at = end
    if at != len(body):
        raise ValueError("bytes after the tensors")
    return tensors, said


def _tensor(entry: Any, body: memoryview) -> np.ndarray:
    kind, shape, (begin, end) = KINDS[entry["dtype"]], entry["shape"], entry["data_offsets"]
    numbers = [begin, end, *shape]
    if len(shape) > 8 or not all(type(number) is int and 0 <= number <= len(body) for number in numbers):
        raise ValueError("a shape or an offset")
    count = 1
    for side in shape:
        count *= side
    if begin > end or end > len(body) or end - begin != count * kind.itemsize:
        raise ValueError("a tensor's size")
    tensor: np.ndarray = np.frombuffer(body[begin:end], kind).reshape(shape)
    return tensor
