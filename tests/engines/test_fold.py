"""The source graph for one frame size: shapes are numbers, and what does nothing is gone."""

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from engines.errors import ModelError
from engines.fold import fold_sizes


def graph(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: tuple[str | int, ...] = ("rows", "columns"),
) -> onnx.ModelProto:
    """A graph from fp32 `x` to fp32 `y`."""
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "test",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape))],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * len(shape))],
            [numpy_helper.from_array(value, name) for name, value in (constants or {}).items()],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
    )
    model.ir_version = 8
    return model


def node(kind: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(kind, inputs.split(), [output], name=output, **attributes)


def test_arithmetic_of_shapes_becomes_a_constant() -> None:
    source = graph(
        [
            node("Shape", "x", "shape"),
            node("Div", "shape two", "half"),
            node("Slice", "x zeros half", "part"),
            node("Neg", "part", "y"),
        ],
        {"two": np.array([2], np.int64), "zeros": np.array([0, 0], np.int64)},
    )

    folded = fold_sizes(source, {"rows": 6, "columns": 8})

    assert [each.op_type for each in folded.graph.node] == ["Slice", "Neg"]
    x = np.arange(48, dtype=np.float32).reshape(6, 8)
    (y,) = ReferenceEvaluator(folded).run(None, {"x": x})
    np.testing.assert_array_equal(y, -x[:3, :4])


def test_the_source_is_not_changed() -> None:
    source = graph(
        [node("Shape", "x", "shape"), node("Reshape", "x shape", "same"), node("Neg", "same", "y")]
    )
    before = source.SerializeToString()
    fold_sizes(source, {"rows": 6, "columns": 8})
    assert source.SerializeToString() == before


@pytest.mark.parametrize(
    ("nothing", "constants"),
    [
        (node("Gather", "x order", "same", axis=1), {"order": np.arange(8)}),
        (node("Pad", "x none", "same"), {"none": np.zeros(4, np.int64)}),
        (node("Reshape", "x shape", "same"), {"shape": np.array([6, 8])}),
        (
            node("Slice", "x start end", "same"),
            {"start": np.array([0, 0]), "end": np.array([6, 9])},
        ),
        (node("Mul", "x one", "same"), {"one": np.ones(1, np.float32)}),
        (node("Add", "zero x", "same"), {"zero": np.zeros((1, 1), np.float32)}),
    ],
    ids=["gather", "pad", "reshape", "slice", "mul", "add"],
)
def test_what_does_nothing_is_left_out(nothing: onnx.NodeProto, constants: dict[str, np.ndarray]) -> None:
    source = graph([nothing, node("Neg", "same", "y")], constants)
    folded = fold_sizes(source, {"rows": 6, "columns": 8})
    assert [(each.op_type, list(each.input)) for each in folded.graph.node] == [("Neg", ["x"])]


@pytest.mark.parametrize(
    ("something", "constants"),
    [
        (node("Gather", "x order", "other", axis=1), {"order": np.arange(8)[::-1].copy()}),
        (node("Gather", "x order", "other", axis=1), {"order": np.arange(6)}),
        (node("Pad", "x some", "other"), {"some": np.array([0, 1, 0, 0])}),
        (node("Slice", "x start end", "other"), {"start": np.array([0, 1]), "end": np.array([6, 8])}),
        (
            node("Slice", "x start end axes back", "other"),
            {
                "start": np.array([-1]),
                "end": np.array([-9]),
                "axes": np.array([1]),
                "back": np.array([-1]),
            },
        ),
        (node("Mul", "x two", "other"), {"two": np.array([1.0, 2.0] * 4, np.float32)}),
    ],
    ids=["gather-backwards", "gather-fewer", "pad", "slice", "slice-backwards", "mul"],
)
def test_what_changes_the_picture_stays(something: onnx.NodeProto, constants: dict[str, np.ndarray]) -> None:
    source = graph([something, node("Neg", "other", "y")], constants)
    x = np.arange(48, dtype=np.float32).reshape(6, 8)
    (expected,) = ReferenceEvaluator(source).run(None, {"x": x})
    (found,) = ReferenceEvaluator(fold_sizes(source, {"rows": 6, "columns": 8})).run(None, {"x": x})
    np.testing.assert_array_equal(found, expected)


def test_a_product_with_zero_is_left_out_of_a_sum() -> None:
    source = graph(
        [
            node("Neg", "x", "n"),
            node("Mul", "zero n", "nothing"),
            node("Add", "x nothing", "same"),
            node("Abs", "same", "y"),
        ],
        {"zero": np.zeros(1, np.float32)},
    )
    folded = fold_sizes(source, {"rows": 6, "columns": 8})
    assert [each.op_type for each in folded.graph.node] == ["Abs"]


def test_the_graph_keeps_no_arithmetic_of_shapes_at_any_size(tiny_model: Path) -> None:
    source = onnx.load(str(tiny_model))
    kinds = {}
    for side in (64, 128, 200):
        folded = fold_sizes(source, {"rows": side, "columns": side, "bytes": 1})
        onnx.checker.check_model(folded, full_check=True)
        kinds[side] = Counter(each.op_type for each in folded.graph.node)
        assert not {"Shape", "Range", "ConstantOfShape", "Constant"} & set(kinds[side])
    # At the network's own size nothing is resampled: what is left looks up the two tables.
    assert kinds[64]["Gather"] == 4
    assert kinds[128]["Gather"] > 4


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (graph([node("NonZero", "x", "at"), node("Cast", "at", "y", to=1)]), "that of NonZero at does not"),
        (graph([node("Magic", "x", "y")]), "Magic y is refused"),
        (graph([node("Neg", "z", "y")]), "Neg y is refused: 'z'"),
        (graph([node("MatMul", "x w", "y")], {"w": np.zeros((5, 5), np.float32)}), "MatMul y is refused"),
    ],
    ids=["content", "unknown", "missing", "contradiction"],
)
def test_a_graph_whose_shapes_cannot_be_had_is_refused(source: onnx.ModelProto, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        fold_sizes(source, {"rows": 6, "columns": 8})


def test_a_constant_of_a_hostile_size_is_never_made() -> None:
    source = graph(
        [
            node("ConstantOfShape", "huge", "zeros"),
            node("ReduceMax", "zeros", "most", keepdims=0),
            node("Add", "x most", "y"),
        ],
        {"huge": np.array([1 << 20, 1 << 20], np.int64)},
    )
    folded = fold_sizes(source, {"rows": 6, "columns": 8})
    assert "ConstantOfShape" in {each.op_type for each in folded.graph.node}
