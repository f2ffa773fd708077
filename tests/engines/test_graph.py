"""The exported graph: operations every runtime takes, and the shipped model's own."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper

from casgan.networks import Generator
from engines.model import INPUTS, MODELS, OUTPUTS, load_model

PLAIN = {
    *(
        "Abs",
        "Add",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "ConstantOfShape",
        "Conv",
        "DepthToSpace",
        "Div",
        "Equal",
        "Floor",
        "Gather",
        "Greater",
    ),
    *(
        "Less",
        "Max",
        "Min",
        "Mul",
        "Pad",
        "Range",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceSum",
        "Relu",
    ),
    *("Reshape", "Shape", "Sigmoid", "Slice", "Sqrt", "Sub", "Tanh", "Transpose", "Where"),
}
"""What TensorRT's, OpenVINO's and onnxruntime's parsers all take; no NonZero, Loop, ScatterND or Resize."""


@pytest.fixture(scope="module", params=["tiny", "compact"])
def graph(request: pytest.FixtureRequest, tiny_model: Path) -> onnx.GraphProto:
    path = tiny_model if request.param == "tiny" else MODELS / "compact.onnx"
    return onnx.load(str(path)).graph


def test_only_plain_operations_are_used(graph: onnx.GraphProto) -> None:
    assert {node.op_type for node in graph.node} - PLAIN == set()


def test_inputs_and_outputs_are_those_of_the_contract(graph: onnx.GraphProto) -> None:
    kinds = {TensorProto.UINT8: "uint8", TensorProto.FLOAT: "float32"}
    for found, needed in ((graph.input, INPUTS), (graph.output, OUTPUTS)):
        facts = {
            value.name: (
                kinds[value.type.tensor_type.elem_type],
                tuple(side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim),
            )
            for value in found
        }
        assert facts == needed


def test_weights_are_finite_fp32_and_no_norm_is_left(graph: onnx.GraphProto) -> None:
    assert not [node.op_type for node in graph.node if "Normalization" in node.op_type]
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype.kind == "f":
            assert values.dtype == np.float32
            assert np.isfinite(values).all(), tensor.name


def test_a_network_with_a_nan_is_not_exported(
    tiny_network: Generator, export_tiny: Callable[..., Path]
) -> None:
    with torch.no_grad():
        tiny_network.predictor.layers[0].first.conv.weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match=r"must be finite .* but predictor\.layers\.0\.first\.conv\.weight"):
        export_tiny(tiny_network)


def test_no_trace_of_the_machine_that_exported_it_is_left(graph: onnx.GraphProto) -> None:
    assert not [node.name for node in graph.node if node.doc_string]


def test_the_shipped_model_was_taught_on_the_phantom_alone() -> None:
    card = load_model("compact").card
    assert card.taught
    assert card.training_run["step"] > 0
    assert len(card.data_sha256) == 64
    assert "phantom" in card.licence
    assert (MODELS / "compact.md").is_file()
