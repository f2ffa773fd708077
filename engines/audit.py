"""What a typed graph promises, read back from the graph itself: types, weights, operations.

Numbers on a CPU cannot prove it: its runtimes compute in fp32 and only store fp16.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.engine import Precision
from engines.errors import ModelError
from engines.fold import as_facts
from engines.model import INPUTS, OUTPUTS

NETWORK = "network/"
"""What the names of the network's own nodes start with (`graph.py`); all others are outside it."""
CONVOLUTIONS = ("Conv", "ConvTranspose")
NORMS = ("InstanceNormalization", "GroupNormalization", "LayerNormalization", "BatchNormalization")
"""Operations that take squares of differences: these overflow fp16 beyond 255, so they stay fp32."""
DTYPES: dict[Precision, str] = {"f32": "float32", "f16": "float16"}
ALLOWED = frozenset(
    (
        *("Abs", "Add", "Cast", "Clip", "Concat", "Conv", "DepthToSpace", "Div", "Equal", "Floor", "Gather"),
        *("Greater", "Less", "Max", "Min", "Mul", "Pad", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum"),
        *("Relu", "Reshape", "Resize", "Sigmoid", "Slice", "Sqrt", "Sub", "Tanh", "Transpose", "Where"),
        *NORMS,
    )
)
"""Operations that every backend executes alike. Nothing about shapes: at a fixed size those are constants."""
SMALLEST_NORMAL = float(np.finfo(np.float16).tiny)


@dataclass(frozen=True)
class Audit:
    """What was found in a typed graph. Counts are of nodes, by the dtype of their output."""

    convolutions: Mapping[str, int]
    norms: Mapping[str, int]
    outside: Mapping[str, int]
    """Floating-point nodes outside the network; casts into it are the network's."""
    operations: Mapping[str, int]
    """Nodes by kind, of every dtype."""
    inputs: Mapping[str, tuple[str, tuple[int | str, ...]]]
    """Name to dtype and shape; a size that is not fixed is a name."""
    outputs: Mapping[str, tuple[str, tuple[int | str, ...]]]
    not_finite: tuple[str, ...]
    """Weights with a NaN or an infinity."""
    subnormal_share: float
    """Share of the non-zero fp16 weights below 6.1e-5, which lose digits or count as 0."""
    largest_weight: float
    """Largest magnitude of all finite weights."""
    weights: int
    """Numbers in floating-point weights of the network."""


def audit(model: onnx.ModelProto) -> Audit:
    """Read a typed graph.

    Raises:
        ModelError: It contradicts itself, for example adds fp16 to fp32.
    """
    try:
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except onnx.shape_inference.InferenceError as error:
        raise ModelError(f"needed a graph whose types agree: {' '.join(str(error).split())}") from error
    graph = inferred.graph
    dtypes = {
        value.name: _dtype_name(as_facts(value)[0])
        for value in (*graph.input, *graph.value_info, *graph.output)
    }
    kinds: dict[str, Counter[str]] = {"convolutions": Counter(), "norms": Counter(), "outside": Counter()}
    for node in graph.node:
        dtype = dtypes.get(node.output[0], "unknown")
        if node.op_type in CONVOLUTIONS:
            kinds["convolutions"][dtype] += 1
        if node.op_type in NORMS:
            kinds["norms"][dtype] += 1
        if not node.name.startswith(NETWORK) and dtype.startswith("float") and node.op_type != "Cast":
            kinds["outside"][dtype] += 1
    not_finite, halves, subnormal, largest, count = [], 0, 0, 0.0, 0
    for tensor in graph.initializer:
        if _dtype_name(tensor.data_type) not in DTYPES.values():
            continue
        values = np.abs(numpy_helper.to_array(tensor))
        finite = values[np.isfinite(values)]
        if finite.size < values.size:
            not_finite.append(tensor.name)
        if tensor.name.startswith(NETWORK):
            count += values.size
            largest = max(largest, float(finite.max(initial=0.0)))
            if values.dtype == np.float16:
                nonzero = finite[finite > 0]
                halves += nonzero.size
                subnormal += int((nonzero < SMALLEST_NORMAL).sum())
    return Audit(
        convolutions=dict(kinds["convolutions"]),
        norms=dict(kinds["norms"]),
        outside=dict(kinds["outside"]),
        operations=dict(Counter(node.op_type for node in graph.node)),
        inputs=_ports(model.graph.input),
        outputs=_ports(model.graph.output),
        not_finite=tuple(not_finite),
        subnormal_share=subnormal / halves if halves else 0.0,
        largest_weight=largest,
        weights=count,
    )


def check_audit(found: Audit, precision: Precision) -> None:
    """Refuse a graph that breaks a promise.

    Raises:
        ModelError: Says of each broken promise what was needed and what came.
        ValueError: A precision that no typed graph has.
    """
    if precision not in DTYPES:
        raise ValueError(f"typed graphs are {' or '.join(DTYPES)}, got {precision}")
    if broken := list(_broken(found, DTYPES[precision])):
        raise ModelError(
            f"a typed graph of {precision} needed {'; and '.join(broken)}; export the model again"
        )


def _broken(found: Audit, needed: str) -> list[str]:
    broken = []
    if not found.convolutions:
        broken.append(f"convolutions in {needed}, got none at all")
    for title, dtypes, wanted in (
        ("every convolution", found.convolutions, needed),
        ("every norm", found.norms, "float32"),
        ("every operation outside the network", found.outside, "float32"),
    ):
        others = {dtype: count for dtype, count in dtypes.items() if dtype != wanted}
        broken += [f"{title} in {wanted}, got {count} in {dtype}" for dtype, count in others.items()]
    if found.not_finite:
        more = f" and {len(found.not_finite) - 1} more" if len(found.not_finite) > 1 else ""
        broken.append(f"finite weights, got others in {found.not_finite[0]}{more}")
    for kind, ports, contract in (("input", found.inputs, INPUTS), ("output", found.outputs, OUTPUTS)):
        if list(ports) != list(contract):
            broken.append(f"the {kind}s {', '.join(contract)}, got {', '.join(ports) or 'none'}")
            continue
        for name, (dtype, shape) in ports.items():
            if dtype != contract[name][0]:
                broken.append(f"the {kind} {name} as {contract[name][0]}, got {dtype}")
            if len(shape) != len(contract[name][1]) or any(isinstance(side, str) for side in shape):
                broken.append(f"the {kind} {name} of a fixed shape, got {list(shape)}")
    if strange := sorted(set(found.operations) - ALLOWED):
        broken.append(f"only operations that every backend executes alike, got {', '.join(strange)}")
    return broken


def _ports(values: Iterable[onnx.ValueInfoProto]) -> dict[str, tuple[str, tuple[int | str, ...]]]:
    ports = {}
    for value in values:
        dtype, shape = as_facts(value)
        ports[value.name] = (_dtype_name(dtype), shape)
    return ports


def _dtype_name(dtype: int) -> str:
    """numpy's name, or ONNX's own where numpy has none."""
    if dtype == TensorProto.BFLOAT16:
        return "bfloat16"
    try:
        return str(helper.tensor_dtype_to_np_dtype(dtype).name)
    except KeyError:
        return "unknown"
