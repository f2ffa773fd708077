"""What a model file from elsewhere may not have, seen in its bytes before any runtime reads it, without the package onnx.

A model is one file, since its hash is its name. ONNX lets a tensor's data lie in another file instead, under any path, which
runtimes then read: such data are refused wherever in the graph they hang. Only the parts that lead to tensors are looked at;
whether the rest is a graph of ours is the runtime's and `engines.graph`'s business.
"""

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float32

from engines.errors import ModelError

MAX_PARTS = 1_000_000
MAX_DEPTH = 32
# By message of onnx.proto: field number of a message inside it -> what that is.
_INSIDE: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {},
}
_EXTERNAL_DATA = 13
_DATA_LOCATION = 14
_GRAPH, _INITIALIZER = 7, 5
_DIMS, _DATA_TYPE, _NAME, _RAW_DATA = 1, 2, 8, 9
_FLOAT = 1


def check_one_file(data: memoryview, name: str) -> None:
    """Refuse an ONNX model whose tensors lie in other files.

    Args:
        data: The file's bytes.
        name: The file, for the message.

    Raises:
        ModelError: They do, or these are no bytes of an ONNX model.
    """
    waiting = [("model", data, 0)]
    parts = 0
    while waiting:
        kind, part, depth = waiting.pop()
        parts += 1
        if depth > MAX_DEPTH or parts > MAX_PARTS:
            raise ModelError(
                f"{name} must have at most {MAX_PARTS} parts, {MAX_DEPTH} deep, got more; it is no model of ours"
            )
        try:
            for field, value in _fields(part):
                if kind == "tensor" and (field == _EXTERNAL_DATA or (field == _DATA_LOCATION and value == 1)):
                    raise ModelError(
                        f"{name} must hold all its weights, got a tensor whose data lie in another file; save it as one "
                        "file (onnx.save_model with save_as_external_data=False)"
                    )
                inner = _INSIDE[kind].get(field)
                if inner is not None and isinstance(value, memoryview):
                    waiting.append((inner, value, depth + 1))
        except (IndexError, ValueError):
            raise ModelError(f"{name} must be an ONNX file, got bytes that are none; copy it again") from None


def float_tensors(data: memoryview) -> dict[str, Float32[np.ndarray, "..."]]:
    """The weights of a model's own graph by name, as arrays that look into its bytes and, where these can be written, change them.

    Args:
        data: An ONNX file of ours, whole (`engines.model.load_model` has compared its hash).
    """
    found = {}
    for field, graph in _fields(data):
        if field != _GRAPH or not isinstance(graph, memoryview):
            continue
        for inner, tensor in _fields(graph):
            if inner == _INITIALIZER and isinstance(tensor, memoryview):
                name, array = _float_tensor(tensor)
                if array is not None:
                    found[name] = array
    return found


def _float_tensor(tensor: memoryview) -> "tuple[str, Float32[np.ndarray, '...'] | None]":
    """A tensor's name, and its values where they are fp32 and lie together."""
    name, kind, sides, raw = "", 0, [], None
    for field, value in _fields(tensor):
        if field == _DIMS and isinstance(value, memoryview):  # packed
            place = 0
            while place < len(value):
                side, place = _varint(value, place)
                sides.append(side)
        elif field == _DIMS and isinstance(value, int):
            sides.append(value)
        elif field == _DATA_TYPE and isinstance(value, int):
            kind = value
        elif field == _NAME and isinstance(value, memoryview):
            name = bytes(value).decode()
        elif field == _RAW_DATA and isinstance(value, memoryview):
            raw = value
    if kind != _FLOAT or raw is None or 4 * math.prod(sides) != len(raw):
        return name, None
    return name, np.frombuffer(raw, "<f4").reshape(sides)


def _fields(part: memoryview) -> Iterator[tuple[int, "int | memoryview"]]:
    """The fields of a protocol buffer's message: number, and value or bytes.

    Raises:
        IndexError, ValueError: It is none.
    """
    place, end = 0, len(part)
    while place < end:
        # Nearly every number is of one byte, and is read here without a call.
        if (key := part[place]) < 0x80:
            place += 1
        else:
            key, place = _varint(part, place)
        field, wire = key >> 3, key & 7
        if wire == 0:
            if (value := part[place]) < 0x80:
                place += 1
            else:
                value, place = _varint(part, place)
            yield field, value
            continue
        if wire not in (1, 2, 5):
            raise ValueError(f"wire type {wire}")
        length = 8 if wire == 1 else 4
        if wire == 2:
            if (length := part[place]) < 0x80:
                place += 1
            else:
                length, place = _varint(part, place)
        if length > end - place:
            raise ValueError("cut off")
        yield field, part[place : place + length]
        place += length


def _varint(part: memoryview, place: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = part[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
