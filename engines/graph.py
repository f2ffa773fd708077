"""Network -> ONNX: one graph, bytes in and bytes out, everything per pixel inside.

The order, which the torch reference (`reference.py`) repeats operation by operation:

    live, bytes       -> stored pixel value, fp32: low + 256 high
    grey-level table  -> grey level, 0 black to 1 white
    letterbox         -> the network's own size, centred, black around
    network           -> attention A and context C (`network_graph.py`: the generator; `adopt.py`: a network of your own)
    back              -> A and C at the frame's size
    attention         -> A <- max(0, (A - t) / (1 - t)), 0 outside the field; A8 = round(255 A)
    blend             -> live + A8 / 255 (C through the inverse table - live), rounded, clipped
    select, pack      -> where A8 = 0 the input's own bytes
    statistics        -> finite flag and A in numbers; sums of latent and picture over the field, by which
                         `calib/domain.py` knows whether the frame is like the taught ones

Sizes are dynamic: rows, columns and bytes per sample (1 for 8 bits stored, 2 above) come from the input, so
one file serves every frame. Only operations that every runtime executes alike are used: Resize without
antialias, no NonZero, Loop or ScatterND.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import TensorProto, helper

from calib.domain import CLIPPED, LATENT, mixtures
from casgan.presets import PresetConfig
from engines.graph_writer import GraphWriter
from engines.model import FORMAT, INPUTS, LEVELS, OUTPUTS

OPSET = 17
MAX_SIDE = 2048


@dataclass(frozen=True)
class Heads:
    """What a network says of the picture: the names of tensors in the graph, each (1, 1, size, size)."""

    attention: str
    """A, 0 to 1."""
    context: str
    """C, -1 black to 1 white."""
    raw: tuple[str, ...]
    """Where a NaN shows first: a runtime's sigmoid or clip may turn it into a number."""
    latent: tuple[str, PresetConfig] | None = None
    """The latent, by which frames are judged like the taught ones or not, and its shape; None where there is none."""


def build_graph(
    network: Callable[[GraphWriter, str], Heads], size: int, threshold: float, properties: dict[str, str]
) -> onnx.ModelProto:
    """The whole graph as an ONNX model.

    Args:
        network: Appends the network's own nodes; is given the picture, (1, 1, size, size), -1 black to 1 white.
        size: The network's rows and columns.
        threshold: t of the attention's clamp, 0 to below 1.
        properties: Metadata written into the file.
    """
    writer = GraphWriter()
    shape = writer.add("Shape", "live")
    rows = writer.part(shape, writer.integers(0), writer.integers(1), 0)
    columns = writer.part(shape, writer.integers(1), writer.integers(2), 0)
    samples = writer.part(shape, writer.integers(2), writer.integers(3), 0)

    live_planes, live = _unpack(writer, rows, columns, samples)
    scale = writer.add("Div", writer.floats(LEVELS - 1.0), "max_value")
    grey = writer.look_up("table", writer.add("Mul", live, scale))
    network_grey = writer.add(
        "Add", writer.add("Mul", grey, writer.floats(2.0)), writer.floats(-1.0), name="grey"
    )

    boxed, inside = _letterbox(writer, network_grey, rows, columns, size)
    heads = network(writer, boxed)
    planes = []
    for plane in (heads.attention, heads.context):
        for axis, (start, end) in zip((2, 3), inside, strict=True):
            plane = writer.part(plane, start, end, axis)
        for axis, (start, end), side in zip((3, 2), inside[::-1], (columns, rows), strict=True):
            plane = writer.resize(plane, axis, writer.add("Sub", end, start), side)
        planes.append(plane)
    field = writer.add("Min", writer.cast("field", TensorProto.FLOAT), writer.floats(1.0))
    attention, level = _attention(writer, planes[0], field, rows, columns, threshold)

    context_level = writer.add(
        "Mul", writer.add("Add", planes[1], writer.floats(1.0)), writer.floats((LEVELS - 1) / 2)
    )
    context = writer.clip(writer.look_up("inverse", context_level), writer.floats(0.0), "max_value")
    opacity = writer.add("Mul", level, writer.floats(1.0 / 255.0))
    blended = writer.add("Add", live, writer.add("Mul", opacity, writer.add("Sub", context, live)))
    stored = writer.clip(writer.round(blended), writer.floats(0.0), "max_value")
    _select_and_pack(writer, stored, level, live_planes, rows, columns, samples)
    boxed_field = _boxed_field(writer, field, rows, columns, inside, size)
    features = [
        _latent_features(writer, *heads.latent, boxed_field)
        if heads.latent
        else writer.floats(*[0.0] * (LATENT)),
        *_picture_features(writer, boxed, boxed_field),
    ]
    _statistics(writer, attention, level, features, *heads.raw)
    return _model(writer, properties)


def _unpack(writer: GraphWriter, rows: str, columns: str, samples: str) -> tuple[str, str]:
    """The input's bytes as fp32 planes (bytes, rows, columns), and the stored values (1, 1, rows, columns)."""
    # To fp32 before anything else: TensorRT has uint8 only at its edges. Planes, because a slice or a
    # broadcast over a last axis of 2 runs as a reference kernel in OpenVINO.
    planes = writer.add("Transpose", writer.cast("live", TensorProto.FLOAT), perm=[2, 0, 1])
    before_last = writer.add("Sub", samples, writer.integers(1))
    low = writer.part(planes, writer.integers(0), writer.integers(1), 0)
    high = writer.part(planes, before_last, samples, 0)
    # 0 for one byte per sample, where the "high" byte is the low one again; 256 for two.
    weight = writer.cast(writer.add("Mul", before_last, writer.integers(256)), TensorProto.FLOAT)
    value = writer.add("Add", low, writer.add("Mul", high, weight))
    picture = writer.add("Concat", writer.integers(1, 1), rows, columns, axis=0)
    return planes, writer.add("Reshape", value, picture, name="stored_live")


def _letterbox(
    writer: GraphWriter, picture: str, rows: str, columns: str, size: int
) -> tuple[str, tuple[tuple[str, str], tuple[str, str]]]:
    """Fit the longer side into the network's size; the rest is black. Also where the picture lies in it.

    Shrinking goes to the target times a power of two by one linear resize of less than two to one, then by
    halves, each the mean of 2x2: a low pass at every octave, without Resize's antialias attribute.
    """
    longer = writer.add("Max", rows, columns)
    twice = writer.add("Mul", longer, writer.integers(2))
    targets = []
    for side in (rows, columns):
        # round(side * size / longer) in integers, so that every runtime gets the same size
        scaled = writer.add("Mul", side, writer.integers(2 * size))
        targets.append(writer.add("Div", writer.add("Add", scaled, longer), twice))
    octaves = [size * 2**octave for octave in range(1, 12) if size * 2**octave <= MAX_SIDE]
    sides = [rows, columns]
    for _ in octaves:
        for axis in (0, 1):
            half = writer.add("Max", writer.add("Div", sides[axis], writer.integers(2)), targets[axis])
            picture = writer.resize(picture, axis + 2, sides[axis], half)
            sides[axis] = half
    starts, ends, rests = [], [], []
    for target in targets:
        start = writer.add("Div", writer.add("Sub", writer.integers(size), target), writer.integers(2))
        end = writer.add("Add", start, target)
        starts.append(start)
        ends.append(end)
        rests.append(writer.add("Sub", writer.integers(size), end))
    pads = writer.add("Concat", writer.integers(0, 0), *starts, writer.integers(0, 0), *rests, axis=0)
    black = writer.floats(-1.0)
    boxed = writer.add(
        "Pad", picture, pads, writer.add("Reshape", black, writer._constant(np.zeros(0, np.int64)))
    )
    return boxed, ((starts[0], ends[0]), (starts[1], ends[1]))


def inline_graph(writer: GraphWriter, part: onnx.GraphProto, picture: str) -> list[str]:
    """Append another graph's nodes, its one input being the picture; their names get the prefix `network/`.

    Returns:
        The names of its outputs.
    """
    renamed = {part.input[0].name: picture, "": ""}

    def rename(name: str) -> str:
        return renamed.setdefault(name, f"network/{name.lstrip('/')}")

    for tensor in part.initializer:
        tensor.name = rename(tensor.name)
        writer.initializers.append(tensor)
    for node in part.node:
        node.name = f"network/{node.name.lstrip('/')}"
        node.input[:] = [rename(name) for name in node.input]
        node.output[:] = [rename(name) for name in node.output]
        writer.nodes.append(node)
    return [rename(output.name) for output in part.output]


def _boxed_field(
    writer: GraphWriter,
    field: str,
    rows: str,
    columns: str,
    inside: tuple[tuple[str, str], tuple[str, str]],
    size: int,
) -> str:
    """The field as the network's square sees it, 0 to 1 and 0 around the picture: (1, 1, size, size), nearest neighbour.

    Args:
        writer: The graph.
        field: fp32, 0 to 1, (rows, columns).
        rows: Of the frame.
        columns: Of the frame.
        inside: Where the frame lies in the square.
        size: The square's side.
    """
    none = writer._constant(np.zeros(0, np.int64))
    for axis, (side, (start, end)) in enumerate(zip((rows, columns), inside, strict=True)):
        count = writer.add("Sub", end, start)
        order = writer.add(
            "Range",
            writer._constant(np.int64(0)),
            writer.add("Reshape", count, none),
            writer._constant(np.int64(1)),
        )
        # floor((order + 1/2) side / count), in integers
        centre = writer.add("Add", writer.add("Mul", order, writer.integers(2)), writer.integers(1))
        twice = writer.add("Mul", count, writer.integers(2))
        index = writer.add("Div", writer.add("Mul", centre, side), twice)
        field = writer.add("Gather", field, writer.cast(index, TensorProto.INT32), axis=axis)
    starts = [start for start, _ in inside]
    rests = [writer.add("Sub", writer.integers(size), end) for _, end in inside]
    pads = writer.add("Concat", *starts, *rests, axis=0)
    boxed = writer.add("Pad", field, pads, writer.add("Reshape", writer.floats(0.0), none))
    return writer.add("Reshape", boxed, writer.integers(1, 1, size, size), name="boxed_field")


def _latent_features(writer: GraphWriter, latent: str, preset: PresetConfig, field: str) -> str:
    """`calib.domain.mixtures` of each channel's mean and root mean square over the field: (64,).

    No MatMul: it would count as the network's, and OpenVINO would compute all of this in bf16.
    """
    # The field where each latent pixel has its middle; means over its pixels cost more than all the rest.
    middle, step = (
        writer.integers(*[preset.latent_stride // 2] * 2),
        writer.integers(*[preset.latent_stride] * 2),
    )
    end = writer.integers(preset.network_size, preset.network_size)
    weight = writer.add("Slice", field, middle, end, writer.integers(2, 3), step)
    weight = writer.add("Div", weight, _at_least(writer, writer.add("ReduceSum", weight, keepdims=1)))
    weighted = writer.add("Mul", latent, weight)
    across = writer.integers(2, 3)
    mean = writer.add("ReduceSum", weighted, across, keepdims=0)
    square = writer.add("ReduceSum", writer.add("Mul", weighted, latent), across, keepdims=0)
    values = writer.add("Concat", mean, writer.add("Sqrt", square), axis=1)
    mixed = writer.add("Mul", writer._constant(mixtures(preset.widths[-1])), values)
    return writer.add("ReduceSum", mixed, writer.integers(1), keepdims=0, name="latent_features")


def _picture_features(writer: GraphWriter, picture: str, field: str) -> list[str]:
    """`calib.domain.PICTURE` numbers over the field, each (1,): of every fourth row and its next.

    Thousands of pixels say as much as all of them, at a quarter of the time; whole rows are contiguous.
    """

    def lines(value: str, first: int) -> str:
        end = writer.integers(MAX_SIDE)
        return writer.add("Slice", value, writer.integers(first), end, writer.integers(2), writer.integers(4))

    def run(value: str, axis: int, start: int, end: int) -> str:
        return writer.part(value, writer.integers(start), writer.integers(end), axis)

    def mean(value: str, weight: str, total: str) -> str:
        whole = writer.add("ReduceSum", writer.add("Mul", value, weight), keepdims=0)
        return writer.add("Reshape", writer.add("Div", whole, total), writer.integers(1))

    def total_of(weight: str) -> str:
        return _at_least(writer, writer.add("ReduceSum", weight, keepdims=0))

    rows, weight = lines(picture, 1), lines(field, 1)
    total = total_of(weight)
    found = [mean(rows, weight, total), mean(writer.add("Mul", rows, rows), weight, total)]
    before, inner, after = run(rows, 3, 0, -2), run(rows, 3, 1, -1), run(rows, 3, 2, MAX_SIDE)
    step = writer.add("Sub", after, inner)
    bend = writer.add("Sub", step, writer.add("Sub", inner, before))
    inside = writer.add("Min", run(weight, 3, 0, -2), run(weight, 3, 1, -1), run(weight, 3, 2, MAX_SIDE))
    inside_total = total_of(inside)
    down = writer.add("Sub", lines(picture, 2), rows)
    both = writer.add("Min", lines(field, 2), weight)
    found += [
        mean(writer.add("Abs", step), inside, inside_total),
        mean(writer.add("Abs", down), both, total_of(both)),
        mean(writer.add("Abs", bend), inside, inside_total),
    ]
    for near in (
        writer.add("Less", rows, writer.floats(CLIPPED - 1.0)),
        writer.add("Greater", rows, writer.floats(1.0 - CLIPPED)),
    ):
        found.append(mean(writer.cast(near, TensorProto.FLOAT), weight, total))
    return found


def _at_least(writer: GraphWriter, total: str) -> str:
    """A divisor: a field of nothing gives features of 0, which are like no taught frame's."""
    return writer.add("Max", total, writer.floats(1e-6))


def _attention(
    writer: GraphWriter, plane: str, field: str, rows: str, columns: str, threshold: float
) -> tuple[str, str]:
    """A after clamp and field, and its 8-bit level, still fp32 (1, 1, rows, columns)."""
    above = writer.add("Add", plane, writer.floats(-threshold))
    clamped = writer.add(
        "Max", writer.add("Mul", above, writer.floats(1.0 / (1.0 - threshold))), writer.floats(0.0)
    )
    attention = writer.add("Mul", clamped, field, name="attention_fp32")
    level = writer.round(writer.add("Mul", attention, writer.floats(255.0)))
    level = writer.clip(level, writer.floats(0.0), writer.floats(255.0))
    plane_shape = writer.add("Concat", rows, columns, axis=0)
    writer.cast(writer.add("Reshape", level, plane_shape), TensorProto.UINT8, name="attention")
    return attention, level


def _select_and_pack(
    writer: GraphWriter, stored: str, level: str, live_planes: str, rows: str, columns: str, samples: str
) -> None:
    plane = writer.add("Concat", writer.integers(1), rows, columns, axis=0)
    value = writer.add("Reshape", stored, plane)
    # byte b of v is floor(v / 256^b) - 256 floor(v / 256^(b + 1)); powers of two, so exact in fp32
    one_per_plane = writer.integers(-1, 1, 1)
    shift, shift_next = (
        writer.add("Reshape", writer.part(scales, writer.integers(0), samples, 0), one_per_plane)
        for scales in (writer.floats(1.0, 1 / 256), writer.floats(1 / 256, 1 / 65536))
    )
    above = writer.add("Floor", writer.add("Mul", value, shift_next))
    packed = writer.add(
        "Sub",
        writer.add("Floor", writer.add("Mul", value, shift)),
        writer.add("Mul", above, writer.floats(256.0)),
    )
    untouched = writer.add("Equal", writer.add("Reshape", level, plane), writer.floats(0.0))
    selected = writer.add("Where", untouched, live_planes, packed)
    interleaved = writer.add("Transpose", selected, perm=[1, 2, 0])
    writer.cast(interleaved, TensorProto.UINT8, name="synthetic")


def _statistics(writer: GraphWriter, attention: str, level: str, features: list[str], *logits: str) -> None:
    """Finite flag, min, max, mean and area of A, and the features of the domain, fp32: bytes cannot carry a NaN.

    The flag is taken from the logits: sigmoid and tanh of a runtime may turn a NaN into a number.
    """
    whole, *sums = [writer.add("ReduceSum", logit, keepdims=0) for logit in logits]
    for another in sums:
        whole = writer.add("Add", whole, another)
    size = writer.add("Abs", whole)
    finite = writer.cast(writer.add("Less", size, writer.floats(3e38)), TensorProto.FLOAT)
    drawn = writer.add("Min", level, writer.floats(1.0))
    flat = [
        finite,
        writer.add("ReduceMin", attention, keepdims=0),
        writer.add("ReduceMax", attention, keepdims=0),
        writer.add("ReduceMean", attention, keepdims=0),
        writer.add("ReduceMean", drawn, keepdims=0),
    ]
    one = writer.integers(1)
    flat = [writer.add("Reshape", value, one) for value in flat]
    writer.add("Concat", *flat, *features, axis=0, name="statistics")


def _model(writer: GraphWriter, properties: dict[str, str]) -> onnx.ModelProto:
    kinds = {"uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}

    def info(name: str, kind: str, shape: Sequence[str | int]) -> onnx.ValueInfoProto:
        return helper.make_tensor_value_info(name, kinds[kind], list(shape))

    graph = helper.make_graph(
        writer.nodes,
        "contrastream",
        [info(name, kind, shape) for name, (kind, shape) in INPUTS.items()],
        [info(name, kind, shape) for name, (kind, shape) in OUTPUTS.items()],
        writer.initializers,
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="contrastream"
    )
    model.ir_version = 8
    helper.set_model_props(model, {"format": FORMAT, **properties})
    onnx.checker.check_model(model, full_check=True)
    return model
