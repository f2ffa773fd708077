"""The audit of a typed graph: each broken promise is found and named."""

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from engines.audit import Audit, audit, check_audit
from engines.engine import EngineSpec
from engines.errors import ModelError
from engines.model import load_model
from engines.typed import typed_model


@pytest.fixture
def typed(tiny_model: Path) -> onnx.ModelProto:
    return typed_model(load_model(tiny_model), EngineSpec(64, 96, 12), "f16")


def refused(model: onnx.ModelProto) -> str:
    with pytest.raises(ModelError, match=r"^a typed graph of f16 needed ") as error:
        check_audit(audit(model), "f16")
    return str(error.value)


def first(model: onnx.ModelProto, kind: str) -> tuple[int, onnx.NodeProto]:
    return next((index, node) for index, node in enumerate(model.graph.node) if node.op_type == kind)


def test_a_typed_graph_keeps_every_promise(typed: onnx.ModelProto) -> None:
    found = audit(typed)
    check_audit(found, "f16")
    assert found.norms == {}
    assert found.not_finite == ()
    assert found.inputs["field"] == ("uint8", (64, 96))
    assert 0.0 < found.largest_weight < 100.0
    assert found.weights > 1000


def test_convolutions_of_another_type_are_named(tiny_model: Path) -> None:
    model = typed_model(load_model(tiny_model), EngineSpec(64, 96, 12), "f32")
    count = audit(model).convolutions["float32"]
    assert f"every convolution in float16, got {count} in float32" in refused(model)


def test_a_graph_without_convolutions_is_named(typed: onnx.ModelProto) -> None:
    found = dataclasses.replace(audit(typed), convolutions={})
    with pytest.raises(ModelError, match="needed convolutions in float16, got none at all"):
        check_audit(found, "f16")


def test_a_norm_in_fp16_is_named(typed: onnx.ModelProto) -> None:
    index, conv = first(typed, "Conv")
    weight = next(each for each in typed.graph.initializer if each.name == conv.input[1])
    ones = np.ones(weight.dims[0], np.float16)
    typed.graph.initializer.append(numpy_helper.from_array(ones, "ones"))
    norm = helper.make_node("InstanceNormalization", ["raw", "ones", "ones"], list(conv.output), name="norm")
    conv.output[:] = ["raw"]
    typed.graph.node.insert(index + 1, norm)
    assert "every norm in float32, got 1 in float16" in refused(typed)


def test_an_operation_outside_the_network_in_fp16_is_named(typed: onnx.ModelProto) -> None:
    index, sigmoid = first(typed, "Sigmoid")
    half = helper.make_node("Cast", [sigmoid.input[0]], ["half"], name="half", to=TensorProto.FLOAT16)
    back = helper.make_node("Cast", ["drawn"], list(sigmoid.output), name="back", to=TensorProto.FLOAT)
    sigmoid.input[:], sigmoid.output[:] = ["half"], ["drawn"]
    typed.graph.node.insert(index, half)
    typed.graph.node.insert(index + 2, back)
    assert "every operation outside the network in float32, got 1 in float16" in refused(typed)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_weight_that_is_not_finite_is_named(typed: onnx.ModelProto, value: float) -> None:
    weight = next(each for each in typed.graph.initializer if each.name.endswith("conv.weight/f16"))
    values = numpy_helper.to_array(weight).copy()
    values.flat[1] = value
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    assert f"finite weights, got others in {weight.name}" in refused(typed)


def test_an_output_of_another_type_is_named(typed: onnx.ModelProto) -> None:
    pack = next(node for node in typed.graph.node if node.output[0] == "attention")
    pack.attribute[0].i = TensorProto.FLOAT
    typed.graph.output[1].type.tensor_type.elem_type = TensorProto.FLOAT
    assert "the output attention as uint8, got float32" in refused(typed)


def test_a_missing_output_is_named(typed: onnx.ModelProto) -> None:
    del typed.graph.output[2]
    assert "the outputs synthetic, attention, statistics, got synthetic, attention" in refused(typed)


def test_an_operation_that_not_every_backend_has_is_named(typed: onnx.ModelProto) -> None:
    first(typed, "Relu")[1].op_type = "Elu"
    assert "only operations that every backend executes alike, got Elu" in refused(typed)


def test_sizes_that_are_not_fixed_are_named(tiny_model: Path) -> None:
    found = refused(onnx.load(str(tiny_model)))
    assert "the input live of a fixed shape, got ['rows', 'columns', 'bytes']" in found
    assert "only operations that every backend executes alike, got" in found
    assert "Range" in found


def test_a_graph_whose_types_contradict_each_other_is_refused(typed: onnx.ModelProto) -> None:
    cast = next(node for node in typed.graph.node if node.op_type == "Cast" and node.name.endswith("/f16"))
    cast.attribute[0].i = TensorProto.FLOAT
    with pytest.raises(ModelError, match=r"needed a graph whose types agree: .*Conv"):
        audit(typed)


def test_small_weights_are_counted(typed: onnx.ModelProto) -> None:
    before = audit(typed)
    weight = max(
        (each for each in typed.graph.initializer if each.name.endswith("/f16")),
        key=lambda each: each.ByteSize(),
    )
    values = np.full(list(weight.dims), 1e-6, np.float16)
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    after = audit(typed)
    assert before.subnormal_share < 0.05
    assert after.subnormal_share > values.size / before.weights * 0.9


def test_an_audit_cannot_be_changed(typed: onnx.ModelProto) -> None:
    found: Audit = audit(typed)
    with pytest.raises(dataclasses.FrozenInstanceError, match="weights"):
        found.weights = 0  # type: ignore[misc]


def test_an_audit_for_a_precision_without_typed_graphs_is_refused(typed: onnx.ModelProto) -> None:
    with pytest.raises(ValueError, match="typed graphs are f32 or f16, got bf16"):
        check_audit(audit(typed), "bf16")
