"""Plans built for real by TensorRT-RTX, which needs no GPU for it. None of them was executed here."""

import logging
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import onnx
import pytest
from onnx import TensorProto, helper

from casgan.presets import PRESETS, PresetConfig
from engines.audit import audit
from engines.engine import EngineSpec
from engines.errors import CudaOutOfMemory, EngineError
from engines.model import ModelFile, load_model
from engines.plan import build_plan
from engines.typed import typed_model

trt: Any = pytest.importorskip("tensorrt_rtx")

ACTIVATION_MB = {
    "compact": {256: 12, 512: 16, 1024: 35},
    "compact-s": {256: 12, 512: 16, 1024: 35},
    "full": {256: 81, 512: 83, 1024: 95},
    "paper": {256: 44, 512: 47, 1024: 65},
}
"""Ceilings of one context's memory by frame size: what TensorRT-RTX 1.7.1 reserves, and a seventh more."""
PLAN_OVERHEAD = 5_500_000
"""Bytes of a plan beside its weights."""
KINDS = {
    *("ACTIVATION", "CAST", "CONCATENATION", "CONSTANT", "CONVOLUTION", "ELEMENTWISE", "GATHER", "REDUCE"),
    *("RESIZE", "SELECT", "SHUFFLE", "SLICE", "UNARY"),
}
"""What the parser makes of our operations; no loop, no plugin, no data-dependent shape."""


@pytest.mark.parametrize("side", [256, 512, 1024])
@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_every_preset_is_built_at_every_size(
    preset: PresetConfig, side: int, source_of: Callable[..., ModelFile]
) -> None:
    bits = 12 if side == 1024 else 8
    typed = typed_model(source_of(preset), EngineSpec(side, side, bits), "f16")
    found = audit(typed)

    built = build_plan(trt, typed)

    assert built.warnings == ()
    assert {layer.kind for layer in built.layers} <= KINDS
    assert built.count("CONVOLUTION") == built.count("CONVOLUTION", "HALF") == found.convolutions["float16"]
    # Outside the network: sigmoid and tanh, and the resampling and look-ups.
    assert built.count("ACTIVATION", "FLOAT") == 2
    assert built.count("GATHER") == built.count("GATHER", "FLOAT") == found.operations["Gather"]
    assert built.weights_bytes is not None
    assert built.weights_bytes < 2 * found.weights + 1_000_000
    assert len(built.plan) < built.weights_bytes + PLAN_OVERHEAD
    assert built.activation_bytes is not None
    assert built.activation_bytes < ACTIVATION_MB[preset.name][side] * 1_000_000


@pytest.fixture
def small_typed(tiny_model: Path) -> Callable[..., onnx.ModelProto]:
    def make(precision: str = "f16", spec: EngineSpec | None = None) -> onnx.ModelProto:
        return typed_model(load_model(tiny_model), spec or EngineSpec(64, 96, 10), precision)

    return make


def test_a_plan_says_what_it_was_built_of_and_by(small_typed: Callable[..., onnx.ModelProto]) -> None:
    built = build_plan(trt, small_typed())
    assert (built.library, built.version) == ("tensorrt_rtx", trt.__version__)
    assert built.properties["precision"] == "f16"
    assert built.properties["rows"] == "64"
    assert built.compute_capabilities == ()
    assert built.timing_cache is None
    assert built.seconds > 0.0


def test_in_f32_no_layer_is_half(small_typed: Callable[..., onnx.ModelProto]) -> None:
    built = build_plan(trt, small_typed("f32"))
    assert built.count("CONVOLUTION") == built.count("CONVOLUTION", "FLOAT") > 0
    assert not [layer for layer in built.layers if layer.dtype == "HALF"]


def test_a_norm_is_one_layer_in_fp32(small_typed: Callable[..., onnx.ModelProto]) -> None:
    typed = small_typed()
    index, conv = next((i, node) for i, node in enumerate(typed.graph.node) if node.op_type == "Conv")
    weight = next(each for each in typed.graph.initializer if each.name == conv.input[1])
    output = conv.output[0]
    conv.output[:] = ["raw"]
    typed.graph.initializer.append(
        helper.make_tensor("ones", TensorProto.FLOAT, [weight.dims[0]], [1.0] * weight.dims[0])
    )
    for offset, node in enumerate(
        (
            helper.make_node("Cast", ["raw"], ["raw/f32"], name="up", to=TensorProto.FLOAT),
            helper.make_node("InstanceNormalization", ["raw/f32", "ones", "ones"], ["normed"], name="norm"),
            helper.make_node("Cast", ["normed"], [output], name="down", to=TensorProto.FLOAT16),
        )
    ):
        typed.graph.node.insert(index + 1 + offset, node)
    built = build_plan(trt, typed)
    assert built.count("NORMALIZATION") == built.count("NORMALIZATION", "FLOAT") == 1


@pytest.mark.parametrize(
    ("targets", "mask"), [((86,), 4), ((75, 89, 120), 1 | 8 | 16), ((), None)], ids=["one", "three", "all"]
)
def test_a_plan_is_for_the_compute_capabilities_asked_for(
    small_typed: Callable[..., onnx.ModelProto], targets: tuple[int, ...], mask: int | None
) -> None:
    built = build_plan(trt, small_typed(), compute_capabilities=targets)
    assert built.compute_capabilities == targets
    if mask is not None and trt.__version__.startswith("1.7.1"):
        # The header is not documented; seen so in this version.
        assert int.from_bytes(built.plan[0x20:0x24], "little") == mask


def test_a_compute_capability_that_is_not_listed_is_refused(
    small_typed: Callable[..., onnx.ModelProto],
) -> None:
    with pytest.raises(
        EngineError, match=r"builds for the compute capabilities 75, .*120.*, got 90; use the backend"
    ):
        build_plan(trt, small_typed(), compute_capabilities=(89, 90))


def graph(
    node: onnx.NodeProto, inputs: dict[str, int], *, shape: tuple[int | str, ...] = (8, 8), domain: str = ""
) -> onnx.ModelProto:
    """One operation as a graph of f32, not checked: what no exporter of ours makes."""
    dtype = next(iter(inputs.values()))
    made = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info(name, kind, list(shape)) for name, kind in inputs.items()],
        [helper.make_tensor_value_info("y", dtype, list(shape))],
    )
    domains = {"", domain}
    model = helper.make_model(
        made, opset_imports=[helper.make_opsetid(each, 17 if each == "" else 1) for each in domains]
    )
    model.ir_version = 8
    facts = {"preset": "demo", "precision": "f32", "rows": "8", "columns": "8"}
    helper.set_model_props(model, facts)
    return model


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (
            graph(helper.make_node("Det", ["x"], ["y"], name="det"), {"x": TensorProto.FLOAT}),
            "cannot parse demo for 8x8 frames in f32: it has no operation Det; export the model again",
        ),
        (
            graph(
                helper.make_node("Magic", ["x"], ["y"], name="m", domain="org.example"),
                {"x": TensorProto.FLOAT},
                domain="org.example",
            ),
            "it has no operation Magic",
        ),
        (
            graph(
                helper.make_node("Add", ["x", "z"], ["y"], name="sum"),
                {"x": TensorProto.FLOAT, "z": TensorProto.FLOAT16},
            ),
            r"cannot parse .* must have same input types. But they are of types Float and Half\) \(at Add sum\);",
        ),
        (
            graph(helper.make_node("Add", ["x", "x"], ["y"], name="sum"), {"x": TensorProto.UINT8}),
            r"cannot parse .* But type is UInt8",
        ),
        (
            graph(
                helper.make_node("Relu", ["x"], ["y"], name="relu"), {"x": TensorProto.FLOAT}, shape=("n", 8)
            ),
            "cannot build a plan of demo for 8x8 frames in f32: .*no optimization profile.*; use another backend",
        ),
    ],
    ids=["unsupported", "foreign", "mixed", "bytes", "dynamic"],
)
def test_a_graph_that_cannot_be_built_is_refused_in_one_sentence(
    model: onnx.ModelProto, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO), pytest.raises(EngineError, match=reason) as error:
        build_plan(trt, model)
    assert "\n" not in str(error.value)
    assert ".cpp" not in str(error.value)
    assert str(error.value).startswith(f"tensorrt_rtx {trt.__version__} cannot ")
    # Told once, by the error.
    assert not [record for record in caplog.records if record.levelno > logging.DEBUG]


def test_a_graph_of_unknown_types_is_refused() -> None:
    model = graph(helper.make_node("Relu", ["x"], ["y"], name="relu"), {"x": TensorProto.FLOAT})
    del model.metadata_props[:]
    with pytest.raises(
        EngineError, match="needed a typed graph of f16 or f32, got none; make it by typed_model"
    ):
        build_plan(trt, model)


def test_convolutions_of_another_type_than_promised_are_refused(
    small_typed: Callable[..., onnx.ModelProto],
) -> None:
    typed = small_typed("f32")
    entry = next(each for each in typed.metadata_props if each.key == "precision")
    entry.value = "f16"
    with pytest.raises(EngineError, match=r"of f16 must be HALF, got .* of FLOAT; this is a fault of ours"):
        build_plan(trt, typed)


@pytest.fixture
def full_tensorrt() -> ModuleType:
    """TensorRT-RTX under full TensorRT's name, without what full TensorRT has not: its way through `build_plan`."""
    module = ModuleType("tensorrt")
    vars(module).update({name: value for name, value in vars(trt).items() if not name.startswith("__")})
    module.__version__ = "10.16.0"  # type: ignore[attr-defined]
    del module.ComputeCapability
    return module


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_full_tensorrt_is_given_its_timings_again(
    full_tensorrt: ModuleType, small_typed: Callable[..., onnx.ModelProto]
) -> None:
    first = build_plan(full_tensorrt, small_typed())
    assert (first.library, first.version) == ("tensorrt", "10.16.0")
    assert first.timing_cache
    again = build_plan(full_tensorrt, small_typed(), timing_cache=first.timing_cache)
    assert again.timing_cache


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_timings_of_nobody_are_set_aside(
    full_tensorrt: ModuleType, small_typed: Callable[..., onnx.ModelProto]
) -> None:
    built = build_plan(full_tensorrt, small_typed(), timing_cache=b"of another version" * 20)
    assert any("timing cache" in warning for warning in built.warnings)
    assert built.timing_cache


def test_full_tensorrt_is_not_given_compute_capabilities(
    full_tensorrt: ModuleType, small_typed: Callable[..., onnx.ModelProto]
) -> None:
    with pytest.raises(
        ValueError, match="are chosen for tensorrt_rtx, got them for tensorrt, which builds for"
    ):
        build_plan(full_tensorrt, small_typed(), compute_capabilities=(89,))


def test_a_library_that_makes_no_builder_is_an_error(
    full_tensorrt: ModuleType, small_typed: Callable[..., onnx.ModelProto]
) -> None:
    def builder(_log: object) -> None:
        raise TypeError("pybind11::init(): factory function returned nullptr")

    full_tensorrt.Builder = builder  # type: ignore[attr-defined]
    with pytest.raises(
        EngineError, match=r"tensorrt 10\.16\.0 cannot make a builder here: .*see contrastream doctor"
    ):
        build_plan(full_tensorrt, small_typed())


@pytest.mark.filterwarnings("ignore:.*Timing cache operations are no-ops:DeprecationWarning")
def test_a_gpu_that_is_full_while_a_plan_is_built_is_told_from_other_failures(
    full_tensorrt: ModuleType, small_typed: Callable[..., onnx.ModelProto]
) -> None:
    class Builder:
        def __init__(self, log: Any) -> None:
            self._log, self._real = log, trt.Builder(log)

        def __getattr__(self, name: str) -> Any:
            return getattr(self._real, name)

        def build_serialized_network(self, *_: Any) -> None:
            said = "[defaultAllocator.cpp::allocate::31] Error Code 1: Cuda Runtime (out of memory)"
            self._log.log(trt.ILogger.ERROR, said)

    full_tensorrt.Builder = Builder  # type: ignore[attr-defined]
    with pytest.raises(
        CudaOutOfMemory,
        match=r"tensorrt 10\.16\.0 cannot build a plan of tiny .*Cuda Runtime \(out of memory\); close what else runs",
    ):
        build_plan(full_tensorrt, small_typed())
