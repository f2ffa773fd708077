"""The source ONNX for one frame size and one precision, with the types in the graph.

    bytes in -> fp32: unpack, table, letterbox
             -> fp16: the network's convolutions and all between them (fp32 where a norm stands)
             -> fp32: sigmoid, tanh, resize, clamp, blend, select, pack, statistics -> bytes out

A runtime that takes the types at their word (TensorRT, strongly typed) then has nothing to decide, and every
backend computes alike. Derived from the source by its hash, never stored as a model.
"""

from collections.abc import Iterable

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import TensorProto, helper, numpy_helper

from engines.audit import NETWORK, NORMS, audit, check_audit
from engines.engine import EngineSpec, Precision
from engines.errors import ModelError
from engines.fold import as_facts, fold_sizes
from engines.model import INPUTS, OUTPUTS, ModelFile, check_f16

FLOATS: dict[Precision, int] = {"f32": TensorProto.FLOAT, "f16": TensorProto.FLOAT16}
LARGEST_HALF = float(np.finfo(np.float16).max)


def typed_model(model: ModelFile, spec: EngineSpec, precision: Precision) -> onnx.ModelProto:
    """Derive the graph of one frame format.

    Args:
        model: The fp32 source and its card.
        spec: Frame size and bytes per sample.
        precision: Of the network's convolutions: f16, or f32 for parity.

    Returns:
        A graph of fixed shapes with the source's inputs and outputs. Its metadata is the source's, and
        source_sha256, precision, rows, columns, sample_bytes.

    Raises:
        ModelError: The file is not our graph, a weight or the network's margin does not fit the precision, or the
            audit of the result found a broken promise.
        ValueError: A precision that is not one of these two.
    """
    if precision not in FLOATS:
        raise ValueError(f"typed graphs are {' or '.join(FLOATS)}, got {precision}")
    if precision == "f16":
        check_f16(model.card, model.path.name)
    source = read_source(model)
    try:
        return _derive(source, model.card.sha256, spec, precision)
    except (onnx.checker.ValidationError, ArithmeticError, LookupError, TypeError, ValueError) as error:
        # The file is a stranger's, and onnx trips over a broken one wherever it is broken.
        reason = " ".join(str(error).split())[:200]
        raise ModelError(
            f"{model.path.name} must be a graph that holds together, but {type(error).__name__}: {reason}; "
            "copy it again, or export it again"
        ) from error


def _derive(source: onnx.ModelProto, sha256: str, spec: EngineSpec, precision: Precision) -> onnx.ModelProto:
    typed = fold_sizes(source, {"rows": spec.rows, "columns": spec.columns, "bytes": spec.sample_bytes})
    if precision == "f16":
        _Typing(typed).run()
    typed.producer_name = "contrastream"
    facts = {entry.key: entry.value for entry in source.metadata_props}
    facts |= {
        "source_sha256": sha256,
        "precision": precision,
        "rows": str(spec.rows),
        "columns": str(spec.columns),
        "sample_bytes": str(spec.sample_bytes),
    }
    del typed.metadata_props[:]
    helper.set_model_props(typed, facts)
    onnx.checker.check_model(typed)
    check_audit(audit(typed), precision)
    return typed


def read_source(model: ModelFile) -> onnx.ModelProto:
    """The source's graph, read and nothing else: no other file is opened for it.

    Raises:
        ModelError: Not an ONNX file, not our graph, or weights in another file.
    """
    try:
        source = onnx.load(str(model.path), load_external_data=False)
    except (DecodeError, OSError) as error:
        raise ModelError(
            f"{model.path.name} must be an ONNX file, but cannot be read: {error}; export it again"
        ) from error
    if any(tensor.data_location == TensorProto.EXTERNAL for tensor in source.graph.initializer):
        raise ModelError(f"{model.path.name} must hold its own weights, got some elsewhere; export it again")
    names = {TensorProto.UINT8: "uint8", TensorProto.FLOAT: "float32"}
    for kind, found, needed in (
        ("inputs", source.graph.input, INPUTS),
        ("outputs", source.graph.output, OUTPUTS),
    ):
        facts = {}
        for value in found:
            dtype, shape = as_facts(value)
            facts[value.name] = (names.get(dtype, str(dtype)), shape)
        if facts != needed:
            raise ModelError(
                f"{model.path.name} must have the {kind} {_listing(needed)}, got {_listing(facts)}; "
                "export it with engines.graph"
            )
    return source


class _Typing:
    """Gives the network's nodes fp16, with a Cast wherever a value crosses."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        values = (*self.graph.input, *self.graph.value_info, *self.graph.output)
        self.floats = {value.name for value in values if as_facts(value)[0] == TensorProto.FLOAT}
        self.weights = {tensor.name: tensor for tensor in self.graph.initializer}
        self.floats |= {
            name for name, tensor in self.weights.items() if tensor.data_type == TensorProto.FLOAT
        }
        self.half: set[str] = set()
        """Values that are made in fp16."""
        self.made: dict[tuple[str, bool], str] = {}
        """(value, wanted in fp16) to the name of its other version."""
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def run(self) -> None:
        for node in self.graph.node:
            half = node.name.startswith(NETWORK) and node.op_type not in NORMS
            if half and node.op_type == "Cast":
                raise ModelError(
                    f"the network must hold no types of its own, got {node.name}; export it again"
                )
            for index, name in enumerate(node.input):
                # Resize's region and scales are fp32 by ONNX's rules, whatever the picture is.
                as_is = node.op_type == "Resize" and index in (1, 2)
                if name:
                    node.input[index] = self._version(name, half and not as_is)
            self.nodes.append(node)
            if half:
                self.half |= {name for name in node.output if name in self.floats}
        del self.graph.node[:], self.graph.initializer[:], self.graph.value_info[:]
        self.graph.node.extend(self.nodes)
        self.graph.initializer.extend(self.constants.values())

    def _version(self, name: str, half: bool) -> str:
        """The value's name in the wanted type; its cast or rounded weight is made at the first use."""
        if name in self.weights:
            return self._weight(name, half)
        if name not in self.floats or (name in self.half) == half:
            return name
        if (name, half) not in self.made:
            cast = f"{name}/{'f16' if half else 'f32'}"
            to = TensorProto.FLOAT16 if half else TensorProto.FLOAT
            self.nodes.append(helper.make_node("Cast", [name], [cast], name=cast, to=to))
            self.made[name, half] = cast
        return self.made[name, half]

    def _weight(self, name: str, half: bool) -> str:
        tensor = self.weights[name]
        if not half or name not in self.floats:
            self.constants[name] = tensor
            return name
        rounded = f"{name}/f16"
        if rounded not in self.constants:
            values = numpy_helper.to_array(tensor)
            largest = float(np.abs(values).max(initial=0.0))
            if not largest <= LARGEST_HALF:
                raise ModelError(
                    f"every weight must fit fp16, below {LARGEST_HALF:g}, but {name} reaches {largest:g}; "
                    "run it in f32 or bf16, or train again"
                )
            self.constants[rounded] = numpy_helper.from_array(values.astype(np.float16), rounded)
        return rounded


def _listing(facts: dict[str, tuple[str, tuple[str | int, ...]]]) -> str:
    parts: Iterable[str] = (f"{name} {dtype}{list(shape)}" for name, (dtype, shape) in facts.items())
    return ", ".join(parts) or "none"
