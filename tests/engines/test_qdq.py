"""Explicit Q/DQ: what it quantises, that its numbers are right on onnxruntime, and that TensorRT-RTX builds it as int8."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from calib.config import PhantomConfig
from calib.phantom import Phantom
from engines.engine import EngineSpec
from engines.errors import EngineError, ModelError
from engines.model import load_model
from engines.planes import Settings
from engines.qdq import PAIR, check_qdq, make_signed, qdq_model
from engines.quantize import probe_nncf
from engines.typed import typed_model

needs_nncf = pytest.mark.skipif(not probe_nncf()[0], reason="needs nncf")
SPEC = EngineSpec(64, 64)


@needs_nncf
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_quantised_graph_draws_nearly_the_same_and_is_built_as_int8() -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    phantom = Phantom(PhantomConfig(seed=9, rows=64, columns=64))
    frames = [phantom.frame(index).plain for index in range(9)]
    settings = Settings.default(SPEC)
    model = load_model("compact")
    made = qdq_model(model, SPEC, frames[:8], settings)
    # Of 31 convolutions the heads' 4 stay.
    assert 20 <= check_qdq(made, "compact") <= 27
    weights = {tensor.name: tensor for tensor in made.graph.initializer}
    zeros = [weights[node.input[2]] for node in made.graph.node if node.op_type in PAIR]
    assert {tensor.data_type for tensor in zeros} == {TensorProto.INT8}
    assert not any(numpy_helper.to_array(tensor).any() for tensor in zeros)

    live = frames[8]
    drawn = [
        dict(zip(names, session.run(None, {"live": live[:, :, None], **settings.tensors}), strict=True))
        for session in (
            onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
            for graph in (typed_model(model, SPEC, "f32"), made)
        )
        for names in [[value.name for value in made.graph.output]]
    ]
    levels = [each["attention"].astype(int) for each in drawn]
    apart = np.abs(levels[0] - levels[1])
    assert levels[0].max() > 100
    assert 0 < apart.mean() < 3.0
    untouched = levels[1] == 0
    np.testing.assert_array_equal(drawn[1]["synthetic"][:, :, 0][untouched], live[untouched])

    trt = pytest.importorskip("tensorrt_rtx")
    from engines.plan import build_plan

    built = build_plan(trt, made, compute_capabilities=(89,))
    assert built.count("QUANTIZE", "INT8") >= 20
    assert built.count("CONVOLUTION") == 31
    assert not any("UINT8 zero_point" in warning for warning in built.warnings)


def pair(zero: int, kind: int = TensorProto.UINT8) -> onnx.ModelProto:
    """x, quantised and back."""
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["q"], name="quantise"),
        helper.make_node("DequantizeLinear", ["q", "scale", "zero"], ["y"], name="back"),
    ]
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [256]) for name in "xy"]
    constants = [
        helper.make_tensor("scale", TensorProto.FLOAT, [], [0.1]),
        helper.make_tensor("zero", kind, [], [zero]),
    ]
    graph = helper.make_graph(nodes, "pair", values[:1], values[1:], constants)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)


def test_unsigned_pairs_become_signed_over_the_same_range() -> None:
    from onnx.reference import ReferenceEvaluator

    x = np.linspace(0.0, 25.4, 256, dtype=np.float32)
    signed = pair(0)
    make_signed(signed)
    onnx.checker.check_model(signed, full_check=True)
    (before,) = ReferenceEvaluator(pair(0)).run(None, {"x": x})
    (after,) = ReferenceEvaluator(signed).run(None, {"x": x})
    assert np.abs(before - x).max() <= 0.051
    assert np.abs(after - x).max() <= 0.102  # half the resolution
    assert {tensor.name for tensor in signed.graph.initializer} == {"scale/signed", "zero/signed"}


def test_a_zero_point_is_refused_and_signed_pairs_stay() -> None:
    with pytest.raises(ModelError, match="around 0 alone, but quantise has the zero point 7"):
        make_signed(pair(7))
    already = pair(0, TensorProto.INT8)
    make_signed(already)
    assert {tensor.name for tensor in already.graph.initializer} == {"scale", "zero"}


@pytest.mark.parametrize(
    ("reader", "inputs", "sentence"),
    [
        pytest.param("network/attention/conv/Conv", ["y", "y"], "only the inner layers", id="head"),
        pytest.param("blend", ["y", "y"], "only the inner layers", id="outside"),
        pytest.param("network/inner/Conv", ["y", "x"], "only one of input and weights", id="half"),
        pytest.param(
            "network/inner/Conv", ["x", "x"], "no convolution that NNCF could quantise", id="nothing"
        ),
    ],
)
def test_what_was_quantised_wrongly_is_found(reader: str, inputs: list[str], sentence: str) -> None:
    graph = pair(0)
    graph.graph.node.append(helper.make_node("Conv", inputs, ["z"], name=reader))
    with pytest.raises(ModelError, match=sentence):
        check_qdq(graph, "tiny")


@needs_nncf
def test_too_few_frames_are_refused(tiny_model: Path, random_frame: Callable[..., np.ndarray]) -> None:
    with pytest.raises(EngineError, match="frames to be calibrated on, got 2"):
        qdq_model(load_model(tiny_model), SPEC, [random_frame(64, 64)] * 2, Settings.default(SPEC))
