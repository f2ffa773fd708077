"""The source graph for one frame size: every shape a number, everything that follows from shapes a constant.

The source serves every frame size, so more than half of its nodes computes sizes and positions. Here the sizes are
given, and one pass in the graph's order evaluates those nodes with onnx's own reference and infers the other
shapes with onnx's own rules. What then does nothing, for example a resize from 256 to 256, is left out.
No pixel changes.

What still resamples stays two gathers by constant positions and a blend, as in the source. Written as matrix
products the plan of `compact` at 1024x1024 grows from 8.4 to 16 MB and no byte of activations is saved (built by
TensorRT-RTX 1.7.1; neither was run).
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import checker, defs, helper, numpy_helper, shape_inference
from onnx.reference import ReferenceEvaluator

from engines.errors import ModelError

SMALL = 4096
"""Values of a constant that shapes may be computed from; weights are never read."""
REFUSALS = (checker.ValidationError, defs.SchemaError, shape_inference.InferenceError)
LARGE = 65536
"""Values of a constant that is computed here: those of one row are at most 2048."""


def fold_sizes(source: onnx.ModelProto, sizes: Mapping[str, int]) -> onnx.ModelProto:
    """The same graph with sizes given.

    Args:
        source: With named sizes; not changed.
        sizes: Name to size, for example rows, columns and bytes.

    Raises:
        ModelError: A shape cannot be computed, or follows from a frame's content.
    """
    return _Folding(source, sizes).run()


class _Folding:
    """One pass over the nodes: what is known, every value's type, and the nodes that stay."""

    def __init__(self, source: onnx.ModelProto, sizes: Mapping[str, int]) -> None:
        self.model = onnx.ModelProto()
        self.model.CopyFrom(source)
        graph = self.model.graph
        for value in (*graph.input, *graph.output):
            for side in value.type.tensor_type.shape.dim:
                if side.dim_param in sizes:
                    side.dim_value = sizes[side.dim_param]
        self.opset = next(
            entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx")
        )
        self.types: dict[str, onnx.TypeProto] = {value.name: value.type for value in graph.input}
        self.known: dict[str, np.ndarray] = {}
        self.stored = {tensor.name: tensor for tensor in graph.initializer}
        for name, tensor in self.stored.items():
            self.types[name] = helper.make_tensor_type_proto(tensor.data_type, list(tensor.dims))
            if int(np.prod(tensor.dims)) <= SMALL:
                self.known[name] = numpy_helper.to_array(tensor)
        self.outputs = {value.name for value in graph.output}
        self.same_as: dict[str, str] = {}
        self.nodes: list[onnx.NodeProto] = []

    def run(self) -> onnx.ModelProto:
        graph = self.model.graph
        for node in graph.node:
            node.input[:] = [self.same_as.get(name, name) for name in node.input]
            if node.op_type == "Shape":
                self._know(node.output[0], np.array(self.shape(node.input[0]), np.int64))
                continue
            self._infer(node)
            if not self._evaluate(node):
                self._keep(node)
        self._drop_unused()
        used = {name for node in self.nodes for name in node.input}
        constants = [
            self.stored[name] if name in self.stored else numpy_helper.from_array(self.known[name], name)
            for name in sorted(used)
            if name in self.stored or name in self.known
        ]
        made = [name for node in self.nodes for name in node.output if name and name not in self.outputs]
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        graph.initializer.extend(constants)
        graph.value_info.extend(helper.make_value_info(name, self.types[name]) for name in made)
        return self.model

    def shape(self, name: str) -> list[int]:
        return [side.dim_value for side in self.types[name].tensor_type.shape.dim]

    def _evaluate(self, node: onnx.NodeProto) -> bool:
        """Whether the node's outputs follow from constants alone, and are known now."""
        inputs = [name for name in node.input if name]
        if (
            self.outputs & set(node.output)
            or any(name not in self.known for name in inputs)
            or any(int(np.prod(self.shape(name))) > LARGE for name in node.output)
        ):
            return False
        try:
            values = ReferenceEvaluator(node).run(None, {name: self.known[name] for name in inputs})
        except (ArithmeticError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise self._refused(node, error) from error
        for name, value in zip(node.output, values, strict=True):
            self._know(name, np.asarray(value))
        return True

    def _know(self, name: str, value: np.ndarray) -> None:
        self.known[name] = value
        dtype = helper.np_dtype_to_tensor_dtype(value.dtype)
        self.types[name] = helper.make_tensor_type_proto(dtype, list(value.shape))

    def _infer(self, node: onnx.NodeProto) -> None:
        """Types of the node's outputs from those of its inputs."""
        inputs = [name for name in node.input if name]
        data = {
            name: numpy_helper.from_array(self.known[name])
            for name in inputs
            if name in self.known and self.known[name].dtype.kind == "i"
        }
        try:
            found = shape_inference.infer_node_outputs(
                defs.get_schema(node.op_type, self.opset, node.domain),
                node,
                {name: self.types[name] for name in inputs},
                data,
                opset_imports=list(self.model.opset_import),
                ir_version=self.model.ir_version,
            )
        except (*REFUSALS, KeyError, RuntimeError) as error:
            raise self._refused(node, error) from error
        self.types.update(found)
        for name in node.output:
            sides = self.types[name].tensor_type.shape.dim if name in self.types else None
            if sides is None or not all(side.HasField("dim_value") for side in sides):
                raise ModelError(
                    f"every shape must follow from the frame's size, but that of {node.op_type} {node.name} "
                    "does not; export the model again"
                )

    def _refused(self, node: onnx.NodeProto, error: Exception) -> ModelError:
        reason = " ".join(str(error).split())[:200]
        return ModelError(
            f"needed a graph of standard operations, but {node.op_type} {node.name} is refused: {reason}; "
            "export the model again"
        )

    def _keep(self, node: onnx.NodeProto) -> None:
        """Append the node, or what it amounts to."""
        output = node.output[0]
        if output not in self.outputs:
            if self._is_zero_product(node):
                # A broadcast view: it costs nothing unless something other than an addition reads it.
                dtype = helper.tensor_dtype_to_np_dtype(self.types[output].tensor_type.elem_type)
                self.known[output] = np.broadcast_to(np.zeros((), dtype), self.shape(output))
                return
            if (kept := self._unchanged(node)) is not None and self.shape(kept) == self.shape(output):
                self.same_as[output] = kept
                return
        self.nodes.append(node)

    def _is_zero_product(self, node: onnx.NodeProto) -> bool:
        """0 times bytes, or times a difference of two finite planes."""
        return node.op_type == "Mul" and any(
            name in self.known and not self.known[name].any() for name in node.input
        )

    def _unchanged(self, node: onnx.NodeProto) -> str | None:
        """The input that the node passes on as it is."""
        known = [self.known.get(name) for name in node.input]
        first: str = node.input[0]
        if node.op_type == "Gather":
            indices = known[1]
            side = self.shape(first)[_axis(node)]
            return first if indices is not None and np.array_equal(indices, np.arange(side)) else None
        if node.op_type == "Pad":
            return first if known[1] is not None and not known[1].any() else None
        if node.op_type == "Reshape":
            return first
        if node.op_type == "Slice":
            steps = known[4] if len(known) > 4 else None
            return first if steps is None or bool((steps == 1).all()) else None
        neutral = {"Add": 0.0, "Mul": 1.0}.get(node.op_type)
        if neutral is not None:
            if known[0] is not None and bool((known[0] == neutral).all()):
                return str(node.input[1])
            if known[1] is not None and bool((known[1] == neutral).all()):
                return first
        return None

    def _drop_unused(self) -> None:
        needed = set(self.outputs)
        kept = []
        for node in reversed(self.nodes):
            if needed & set(node.output):
                needed |= set(node.input)
                kept.append(node)
        self.nodes = kept[::-1]


def _axis(node: onnx.NodeProto) -> int:
    return next((int(entry.i) for entry in node.attribute if entry.name == "axis"), 0)


def as_facts(value: onnx.ValueInfoProto) -> tuple[int, tuple[Any, ...]]:
    """A value's element type and its sides, each a number or a name."""
    tensor = value.type.tensor_type
    return tensor.elem_type, tuple(side.dim_param or side.dim_value for side in tensor.shape.dim)
