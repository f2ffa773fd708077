"""A network of your own as a model file: any ONNX generator with an image in, and attention and context, or an image, out.

    import onnx
    card = adopt_network("mine.onnx", "model.onnx", taught=True, licence="...")
    contrastream run SOURCE --model model.onnx

The network sees the picture as ours do: grey levels by the site's table, letterboxed to its own size. Its answer is brought
back to the frame's size, blended and packed by the same graph, so where attention is 0 the synthetic frame is the live one.

A network whose one output is an image y says nowhere how much of a pixel x it has drawn. Attention is then derived as
`casgan/methods/derived.py` does it: with d = y - x, A = min(1, |d| / D) and C = x + sign(d) max(|d|, D), so that the blend draws y. It says what
was changed, not where a vessel is. `threshold` leaves small changes out.
"""

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from jaxtyping import Float32
from onnx import TensorProto

from calib.config import PhantomConfig
from calib.phantom import Phantom
from engines.engine import EngineSpec
from engines.errors import ModelError
from engines.graph import OPSET, Heads, build_graph, inline_graph
from engines.graph_writer import GraphWriter
from engines.model import MAX_MODEL_BYTES, OWN, ModelCard, save_card
from engines.onnx_parts import check_one_file
from engines.open import open_engine

SIDES = (64, 1024)
"""The least and the most rows and columns of a network."""
CHANGE = 0.1
"""D as a share of black to white: a change of 25 grey levels of 255 is A = 1, as in `casgan/methods/derived.py`."""
LEVEL = 2.0 / 255.0
"""One grey level of 255, of -1 to 1; below it C goes over from one sign to the other in a straight line, or resampling would
spread a jump."""


def adopt_network(
    network: str | Path,
    out: str | Path,
    *,
    taught: bool,
    licence: str,
    black_white: tuple[float, float] = (-1.0, 1.0),
    change: float = CHANGE,
    threshold: float = 0.0,
) -> ModelCard:
    """Write a model file around a network, once it is known to draw what the network alone draws.

    Args:
        network: An ONNX file, trusted by being named here: float32 (1, 1, size, size) in, size 64 to 1024; out the same shape,
            either attention (0 to 1) and context, or one image. Of two outputs attention is the one so named, else the first.
        out: The model to write, ending in .onnx; its card lies beside it. Neither may be there yet.
        taught: Whether the weights were taught; others never stream as SYNTHETIC.
        licence: What may be done with the weights.
        black_white: The network's values of black and white, of its input, its context and its image.
        change: For an image: the share of black to white, above 0 to 1, from which attention is 1.
        threshold: t of the attention's clamp, 0 to below 1; attention below it is 0.

    Returns:
        The card as written. It has no statistics of the taught frames, so `run` cannot tell strange frames and says so.

    Raises:
        ModelError: The network is not of this kind, or does not answer with numbers.
        ValueError: A setting or the place for the model cannot be used.
    """
    out = Path(out)
    _check_settings(out, black_white, change)
    model, size = _read(Path(network))
    card = ModelCard(
        preset=OWN,
        network_size=size,
        threshold=threshold,
        taught=taught,
        method=OWN,
        attention="own" if len(model.graph.output) == 2 else "derived",
        licence=licence,
    )

    def heads(writer: GraphWriter, picture: str) -> Heads:
        outputs = inline_graph(writer, part.graph, _rescaled(writer, picture, (-1.0, 1.0), black_white))
        return _heads(writer, picture, outputs, black_white, change)

    part = onnx.ModelProto()
    part.CopyFrom(model)
    graph = build_graph(heads, size, threshold, card.properties())
    with tempfile.TemporaryDirectory(prefix=".adopt-", dir=out.parent) as unchecked:
        fresh = Path(unchecked) / out.name
        fresh.write_bytes(graph.SerializeToString())
        card = save_card(card, fresh)
        _check_drawing(fresh, model, size, black_white, change, threshold)
        for suffix in (".json", ".onnx"):
            os.replace(fresh.with_suffix(suffix), out.with_suffix(suffix))
    return card


def _check_settings(out: Path, black_white: tuple[float, float], change: float) -> None:
    if out.suffix != ".onnx":
        raise ValueError(f"the model's file must end in .onnx, got {out.name}; for example model.onnx")
    if not out.parent.is_dir():
        raise ValueError(f"the model needs an existing folder, got {out.parent}; make it first")
    for taken in (out, out.with_suffix(".json")):
        if taken.exists():
            raise ValueError(f"{taken} exists; choose another name, or remove it")
    if not (np.isfinite(black_white).all() and black_white[0] < black_white[1]):
        raise ValueError(
            f"black_white must be two rising numbers, got {black_white}; for example (-1.0, 1.0)"
        )
    if not 0.0 < change <= 1.0:
        raise ValueError(f"change must be a share above 0 and at most 1, got {change}; for example {CHANGE}")


def _read(path: Path) -> tuple[onnx.ModelProto, int]:
    """The network at our opset, its outputs in order (attention first), and its rows and columns."""
    if not path.is_file():
        raise ModelError(f"needed an ONNX file, found none at {path}")
    if path.stat().st_size > MAX_MODEL_BYTES:
        raise ModelError(
            f"a network has at most {MAX_MODEL_BYTES >> 20} MiB, got {path.name}, which is larger"
        )
    data = path.read_bytes()
    check_one_file(memoryview(data), path.name)
    try:
        model = onnx.load_from_string(data)
        onnx.checker.check_model(model, full_check=True)
        opset = next((each.version for each in model.opset_import if each.domain in ("", "ai.onnx")), 0)
        if opset != OPSET:
            model = onnx.version_converter.convert_version(model, OPSET)
        model = onnx.shape_inference.infer_shapes(model)
    except Exception as error:  # onnx's errors share no base, and its converter raises RuntimeError
        raise ModelError(
            f"{path.name} must be an ONNX network that can be brought to opset {OPSET}, got: {str(error).splitlines()[0]}; "
            f"export it with opset {OPSET}"
        ) from error
    _check_operators(model.graph, path.name)
    return model, _check_edges(model.graph, path.name)


def _check_operators(graph: onnx.GraphProto, name: str) -> None:
    for number, node in enumerate(graph.node):
        if node.domain not in ("", "ai.onnx"):
            raise ModelError(
                f"{name} must have ONNX's own operators, got {node.domain}.{node.op_type}; export it without"
            )
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            raise ModelError(
                f"{name} must be one graph, got {node.op_type} with another inside; export it without loops"
            )
        node.name = node.name or f"{node.op_type.lower()}_{number}"
    if graph.sparse_initializer:
        raise ModelError(f"{name} must have dense weights, got sparse ones; export it with dense ones")


def _shape(value: onnx.ValueInfoProto) -> tuple[int | str, ...]:
    kind = value.type.tensor_type
    return tuple(each.dim_value or each.dim_param or "?" for each in kind.shape.dim)


def _text(shape: tuple[int | str, ...]) -> str:
    return f"({', '.join(map(str, shape))})"


def _check_edges(graph: onnx.GraphProto, name: str) -> int:
    weights = {each.name for each in graph.initializer}
    inputs = [each for each in graph.input if each.name not in weights]
    shapes = [_shape(each) for each in inputs]
    least, most = SIDES
    needed = f"one float32 input (1, 1, size, size) with a size of {least} to {most}"
    if len(inputs) != 1 or len(shapes[0]) != 4 or inputs[0].type.tensor_type.elem_type != TensorProto.FLOAT:
        raise ModelError(
            f"{name} needs {needed}, got {len(inputs)} with shapes {', '.join(map(_text, shapes)) or 'none'}; export it so"
        )
    batch, channels, rows, columns = shapes[0]
    if (
        (batch in (0, 1) or isinstance(batch, str))
        and channels == 1
        and rows == columns
        and isinstance(rows, int)
    ):
        if not least <= rows <= most:
            raise ModelError(f"{name} needs {needed}, got {rows}; resize inside the network")
    else:
        raise ModelError(f"{name} needs {needed}, got {_text(shapes[0])}; export it with these numbers fixed")
    if len(graph.output) not in (1, 2):
        raise ModelError(
            f"{name} needs one output, an image, or two, attention and context, got {len(graph.output)}; export only these"
        )
    outputs = sorted(graph.output, key=lambda each: "attention" not in each.name.lower())
    del graph.output[:]
    graph.output.extend(outputs)
    kept = [each for each in graph.input if each.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)
    return int(rows)


def _rescaled(writer: GraphWriter, value: str, have: tuple[float, float], want: tuple[float, float]) -> str:
    """Values from one black and white to another's."""
    if have == want:
        return writer.add("Identity", value)
    scale = (want[1] - want[0]) / (have[1] - have[0])
    return writer.add(
        "Add", writer.add("Mul", value, writer.floats(scale)), writer.floats(want[0] - scale * have[0])
    )


def _heads(
    writer: GraphWriter,
    picture: str,
    outputs: list[str],
    black_white: tuple[float, float],
    change: float,
) -> Heads:
    drawn = _rescaled(writer, outputs[-1], black_white, (-1.0, 1.0))
    context = drawn
    if len(outputs) == 2:
        attention = outputs[0]
    else:
        moved = writer.add("Sub", drawn, picture)
        size = writer.add("Abs", moved)
        attention = writer.add("Mul", size, writer.floats(0.5 / change))
        towards = writer.clip(
            writer.add("Mul", moved, writer.floats(1.0 / LEVEL)), writer.floats(-1.0), writer.floats(1.0)
        )
        step = writer.add("Mul", towards, writer.add("Max", size, writer.floats(2.0 * change)))
        context = writer.add("Add", picture, step)
    return Heads(
        attention=writer.clip(attention, writer.floats(0.0), writer.floats(1.0)),
        context=writer.clip(context, writer.floats(-1.0), writer.floats(1.0)),
        raw=tuple(outputs),
    )


def _alone(model: onnx.ModelProto, picture: Float32[np.ndarray, "size size"]) -> list[np.ndarray]:
    """What the network answers by itself, in fp32."""
    import openvino

    core: Any = openvino.Core()
    compiled = core.compile_model(
        core.read_model(model.SerializeToString()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    answer = compiled(picture[None, None])
    return [np.asarray(answer[index]) for index in range(len(model.graph.output))]


def _check_drawing(
    path: Path,
    model: onnx.ModelProto,
    size: int,
    black_white: tuple[float, float],
    change: float,
    threshold: float,
) -> None:
    """At the network's own size nothing is resampled, so the attention must be the network's to one level of 255."""
    live = Phantom(PhantomConfig(rows=size, columns=size)).frame(0).live
    black, white = black_white
    picture = (live.astype(np.float32) / 255.0 * (white - black) + black).astype(np.float32)
    answers = _alone(model, picture)
    for answer in answers:
        if answer.shape != (1, 1, size, size):
            raise ModelError(
                f"the network's outputs must be (1, 1, {size}, {size}), got {answer.shape}; export it so"
            )
        if not np.isfinite(answer).all():
            raise ModelError(
                "the network must answer with numbers, got NaN or infinity on a frame of the phantom; train it again"
            )
    if len(answers) == 2:
        wanted = np.clip(answers[0][0, 0], 0.0, 1.0)
    else:
        wanted = np.minimum(np.abs(answers[0][0, 0] - picture) / (white - black) / change, 1.0)
    wanted = np.maximum(0.0, (wanted - threshold) / (1.0 - threshold))
    spec = EngineSpec(size, size, slots=1)
    engine = open_engine(path, spec, "openvino", untaught=True, precision="f32").engine
    try:
        synthetic, attention = np.empty_like(live), np.empty_like(live)
        (slot,) = engine.slots(1)
        slot.bind(live, synthetic, attention)
        slot.submit()
        slot.wait()
    finally:
        engine.close()
    differs = float(np.abs(attention - 255.0 * wanted).max())
    if differs > 1.5 or not np.array_equal(synthetic[attention == 0], live[attention == 0]):
        raise ModelError(
            f"the graph must draw what the network draws within one level of 255, got {differs:.1f} in the attention; nothing "
            "was written. This is a fault of ours: please report it"
        )
