"""Typed ONNX -> the same with explicit Q/DQ, for TensorRT 10.16 and later, 11 and TensorRT-RTX, which have no calibrators of their own.

    typed f32 graph -> NNCF on the site's frames -> every pair signed and symmetric -> build_plan

What becomes int8 and what never does is as in `quantize.py`. TensorRT knows int8 with zero point 0 alone; NNCF makes
uint8 of what a ReLU left, and TensorRT-RTX 1.7.1 reads that as int8 with a warning and other numbers. So such pairs are
rewritten here: one bit of resolution is the price.

No engine opens such a plan yet: a plan was built by TensorRT-RTX without a GPU, and none has been executed.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Sequence

import numpy as np
import onnx
from onnx import numpy_helper

from engines.engine import EngineSpec
from engines.errors import EngineError, ModelError
from engines.model import ModelFile
from engines.planes import Settings
from engines.quantize import HEADS, MIN_FRAMES, NETWORK, probe_nncf
from engines.typed import typed_model

PAIR = ("QuantizeLinear", "DequantizeLinear")
UNSIGNED, SIGNED = 255.0, 127.0
"""The largest levels of uint8 and of int8."""
MOVES = ("Reshape", "Transpose", "DepthToSpace", "Slice", "Pad")
"""Operations that move values and change none: a dequantised value is still one behind them."""


def qdq_model(
    model: ModelFile, spec: EngineSpec, frames: Sequence[np.ndarray], settings: Settings
) -> onnx.ModelProto:
    """Derive the Q/DQ graph of one frame format.

    Args:
        model: The fp32 source and its card.
        spec: The frames' format.
        frames: (rows, columns) stored pixel values, 8 or more.
        settings: The site's grey levels, in that format.

    Returns:
        A graph of fixed shapes with the source's inputs and outputs; fp32 around int8 convolutions.

    Raises:
        EngineError: NNCF is missing or fails, or there are too few frames.
        ModelError: Something was quantised that must not be, or nothing was.
    """
    usable, why = probe_nncf()
    if not usable:
        raise EngineError(f"int8 needs NNCF: {why}")
    if len(frames) < MIN_FRAMES:
        raise EngineError(
            f"int8 needs at least {MIN_FRAMES} frames to be calibrated on, got {len(frames)}; record a longer run"
        )
    typed = typed_model(model, spec, "f32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what NNCF imports; none is ours
        import nncf
    logger = logging.getLogger("nncf")
    before = logger.level
    logger.setLevel(logging.ERROR)

    def inputs(live: np.ndarray) -> dict[str, np.ndarray]:
        return {
            "live": live.view(np.uint8).reshape(*live.shape, live.dtype.itemsize),
            **settings.tensors,
        }

    alone = [node.name for node in typed.graph.node if _stays(node.name)]
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its progress bars
            quantised: onnx.ModelProto = nncf.quantize(
                typed,
                nncf.Dataset(list(frames), inputs),
                preset=nncf.QuantizationPreset.PERFORMANCE,  # symmetric, as TensorRT needs it
                target_device=nncf.TargetDevice.ANY,
                subset_size=len(frames),
                ignored_scope=nncf.IgnoredScope(names=alone, validate=False),
            )
    except Exception as error:  # NNCF raises whatever it trips over
        reason = " ".join(str(error).split())[:200]
        raise EngineError(
            f"NNCF {nncf.__version__} cannot quantise {model.path.name}: {type(error).__name__}: {reason}; "
            "build it in f16"
        ) from error
    finally:
        logger.setLevel(before)
    make_signed(quantised)
    check_qdq(quantised, model.path.name)
    onnx.checker.check_model(quantised)
    return quantised


def make_signed(model: onnx.ModelProto) -> None:
    """Rewrite pairs of uint8 with zero point 0 as int8 over the same range, in place.

    Raises:
        ModelError: A zero point other than 0, which int8 without one cannot stand for.
    """
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    rewritten: dict[str, str] = {}
    for node in model.graph.node:
        if node.op_type not in PAIR:
            continue
        scale, zero = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        if zero.any():
            raise ModelError(
                f"TensorRT quantises around 0 alone, but {node.name} has the zero point {zero.ravel()[0]}"
            )
        if zero.dtype == np.int8:
            continue
        for place, value in ((1, scale * np.float32(UNSIGNED / SIGNED)), (2, zero.astype(np.int8))):
            name = node.input[place]
            if name not in rewritten:
                rewritten[name] = f"{name}/signed"
                model.graph.initializer.append(numpy_helper.from_array(value, rewritten[name]))
            node.input[place] = rewritten[name]
    used = {name for node in model.graph.node for name in node.input}
    kept = [tensor for tensor in model.graph.initializer if tensor.name in used]
    del model.graph.initializer[:]
    model.graph.initializer.extend(kept)
    # Types that were inferred for uint8 values are wrong now, and needed by nobody.
    del model.graph.value_info[:]


def check_qdq(model: onnx.ModelProto, name: str) -> int:
    """Look at what was quantised; returns how many convolutions are in int8.

    Raises:
        ModelError: A head or something outside the network reads a dequantised value directly, a convolution has only one of
            its two inputs in int8, or none has both.
    """
    dequantised = {
        output for node in model.graph.node if node.op_type == "DequantizeLinear" for output in node.output
    }
    direct = frozenset(dequantised)
    in_int8 = 0
    for node in model.graph.node:
        if node.op_type in PAIR:
            continue
        if _stays(node.name) and not direct.isdisjoint(node.input):
            raise ModelError(f"only the inner layers of {name} may be quantised, but {node.name} was")
        inputs = [each in dequantised for each in node.input]
        if node.op_type in MOVES and inputs[0]:
            dequantised.update(node.output)
        if node.op_type == "Conv" and any(inputs[:2]):
            if not all(inputs[:2]):
                raise ModelError(f"{node.name} of {name} has only one of input and weights in int8")
            in_int8 += 1
    if not in_int8:
        raise ModelError(f"{name} has no convolution that NNCF could quantise; build it in f16")
    return in_int8


def _stays(node: str) -> bool:
    return not node.startswith(NETWORK) or node.startswith(HEADS)
