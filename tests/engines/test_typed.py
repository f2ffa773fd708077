"""The typed graph: its types, its metadata, and that it draws what the source draws."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from casgan.presets import PRESETS, PresetConfig
from engines.audit import NETWORK, audit, check_audit
from engines.engine import BackendName, EngineSpec, FrameStatistics
from engines.errors import ModelError
from engines.model import MODELS, STATISTICS, ModelFile, load_model, save_card
from engines.open import open_engine
from engines.typed import typed_model

SMALL = (
    PresetConfig("small-compact", 64, 4, (8, 16), 1, 2, 1, deep_widths=(16, 16)),
    PresetConfig("small-full", 64, 2, (8, 16), 1, 2, 1, shuffle_up=False, deep_widths=(16,)),
    PresetConfig("small-paper", 64, 1, (4, 8), 1, 2, 1, decoders=2, shuffle_up=False, deep_widths=(8,)),
)
"""One of every structure that the shipped presets have."""
FORMATS = {
    "own-size": EngineSpec(64, 64, 8),
    "larger": EngineSpec(256, 256, 10),
    "odd": EngineSpec(201, 130, 16),
}

Planes = tuple[np.ndarray, np.ndarray, FrameStatistics]


@pytest.fixture(params=SMALL, ids=lambda preset: preset.name)
def small_source(request: pytest.FixtureRequest, source_of: Callable[..., ModelFile]) -> ModelFile:
    return source_of(request.param)


@pytest.fixture(params=FORMATS.values(), ids=list(FORMATS))
def spec(request: pytest.FixtureRequest) -> EngineSpec:
    return request.param


def run_all(path: Path, spec: EngineSpec, backend: BackendName, frames: Sequence[np.ndarray]) -> list[Planes]:
    """Frames, one after the other, through a graph on a CPU engine."""
    engine = open_engine(path, spec, backend, untaught=True, threads=1, precision="f32").engine
    drawn = []
    try:
        (slot,) = engine.slots(1)
        for live in frames:
            synthetic, attention = np.empty_like(live), np.empty(live.shape, np.uint8)
            slot.bind(live, synthetic, attention)
            slot.submit()
            drawn.append((synthetic, attention, slot.wait()))
        return drawn
    finally:
        engine.close()


def run(path: Path, spec: EngineSpec, backend: BackendName, live: np.ndarray) -> Planes:
    """One frame through a graph on a CPU engine."""
    return run_all(path, spec, backend, [live])[0]


@pytest.fixture(scope="module")
def source_draws() -> Callable[[Path, EngineSpec, BackendName, np.ndarray], Planes]:
    """What a source draws of a frame; the same for every graph that is derived of it, so computed once."""
    drawn: dict[tuple[Path, EngineSpec, BackendName, bytes], Planes] = {}

    def draw(path: Path, spec: EngineSpec, backend: BackendName, live: np.ndarray) -> Planes:
        key = path, spec, backend, live.tobytes()
        if key not in drawn:
            drawn[key] = run(path, spec, backend, live)
        return drawn[key]

    return draw


@pytest.fixture
def saved(tmp_path: Path) -> Callable[[onnx.ModelProto, ModelFile], Path]:
    """A typed graph as a model file, for the CPU engines to read."""

    def save(typed: onnx.ModelProto, source: ModelFile) -> Path:
        path = tmp_path / "typed.onnx"
        path.write_bytes(typed.SerializeToString())
        save_card(source.card, path)
        return path

    return save


@pytest.mark.parametrize("backend", ["openvino", "onnxruntime"])
def test_in_f32_every_byte_and_statistic_is_the_sources(
    backend: BackendName,
    small_source: ModelFile,
    spec: EngineSpec,
    saved: Callable[..., Path],
    random_frame: Callable[..., np.ndarray],
    source_draws: Callable[..., Planes],
) -> None:
    live = random_frame(spec.rows, spec.columns, spec.bits_stored)
    expected = source_draws(small_source.path, spec, backend, live)
    found = run(saved(typed_model(small_source, spec, "f32"), small_source), spec, backend, live)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])
    assert found[2] == expected[2]


def largest_difference(found: np.ndarray, expected: np.ndarray, bits: int) -> float:
    """In grey levels of 255."""
    return float(np.abs(found.astype(np.int64) - expected.astype(np.int64)).max()) * 255 / ((1 << bits) - 1)


def test_in_f16_no_pixel_is_more_than_one_grey_level_off(
    small_source: ModelFile,
    spec: EngineSpec,
    saved: Callable[..., Path],
    random_frame: Callable[..., np.ndarray],
    source_draws: Callable[..., Planes],
) -> None:
    live = random_frame(spec.rows, spec.columns, spec.bits_stored)
    expected = source_draws(small_source.path, spec, "onnxruntime", live)
    found = run(saved(typed_model(small_source, spec, "f16"), small_source), spec, "onnxruntime", live)
    assert largest_difference(found[0], expected[0], spec.bits_stored) <= 1.0
    assert largest_difference(found[1], expected[1], 8) <= 1.0


def test_the_taught_network_draws_the_same_in_f16(
    saved: Callable[..., Path], random_frame: Callable[..., np.ndarray]
) -> None:
    spec, source = EngineSpec(512, 512, 12), load_model("compact-s")
    structure = random_frame(spec.rows, spec.columns, spec.bits_stored)
    white = np.full_like(structure, (1 << spec.bits_stored) - 1)
    stripes = structure.copy()
    stripes[:, ::2] = 0
    frames = {"structure": structure, "black": np.zeros_like(white), "white": white, "stripes": stripes}
    typed = saved(typed_model(source, spec, "f16"), source)
    expected, found = (
        run_all(path, spec, "openvino", list(frames.values())) for path in (source.path, typed)
    )
    for name, live, before, after in zip(frames, frames.values(), expected, found, strict=True):
        assert largest_difference(after[0], before[0], spec.bits_stored) <= 1.0, name
        assert largest_difference(after[1], before[1], 8) <= 1.0, name
        untouched = after[1] == 0
        np.testing.assert_array_equal(after[0][untouched], live[untouched], err_msg=name)


@pytest.mark.parametrize("preset", PRESETS.values(), ids=list(PRESETS))
def test_every_preset_has_fp16_convolutions_and_fp32_around_them(
    preset: PresetConfig, source_of: Callable[..., ModelFile]
) -> None:
    source = source_of(preset)
    spec = EngineSpec(512, 512, 12)
    convolutions = sum(
        node.op_type == "Conv" for node in onnx.load(str(source.path), load_external_data=False).graph.node
    )

    found = audit(typed_model(source, spec, "f16"))

    assert found.convolutions == {"float16": convolutions}
    assert set(found.outside) == {"float32"}
    assert found.inputs["live"] == ("uint8", (512, 512, 2))
    assert found.outputs["synthetic"] == ("uint8", (512, 512, 2))
    assert found.outputs["attention"] == ("uint8", (512, 512))
    assert found.outputs["statistics"] == ("float32", (STATISTICS,))
    assert found.largest_weight < 100.0


def test_values_are_cast_once_into_the_network_and_once_out_of_it(small_source: ModelFile) -> None:
    spec = EngineSpec(512, 512, 12)
    half, full = (audit(typed_model(small_source, spec, precision)) for precision in ("f16", "f32"))
    assert set(full.convolutions) == {"float32"}
    # In: the picture. Out: the logits of both planes, and the latent for the domain's features.
    assert half.operations["Cast"] == full.operations["Cast"] + 4


def test_a_norm_is_computed_in_fp32_and_stays_one_operation(
    small_source: ModelFile, tmp_path: Path, saved: Callable[..., Path]
) -> None:
    source = with_norm(small_source, tmp_path)
    typed = typed_model(source, EngineSpec(64, 64), "f16")

    found = audit(typed)
    assert found.norms == {"float32": 1}
    assert set(found.convolutions) == {"float16"}
    producers = {name: node for node in typed.graph.node for name in node.output}
    (norm,) = (node for node in typed.graph.node if node.op_type == "InstanceNormalization")
    assert producers[norm.input[0]].op_type == "Cast"
    (reader,) = (node for node in typed.graph.node if norm.output[0] in node.input)
    assert reader.op_type == "Cast"
    assert next(entry.i for entry in reader.attribute if entry.name == "to") == TensorProto.FLOAT16


def with_norm(source: ModelFile, folder: Path) -> ModelFile:
    """The source with an InstanceNormalization after its first convolution."""
    model = onnx.load(str(source.path))
    graph = model.graph
    index, conv = next((i, node) for i, node in enumerate(graph.node) if node.op_type == "Conv")
    weight = next(tensor for tensor in graph.initializer if tensor.name == conv.input[1])
    name = f"{NETWORK}norm"
    ones = np.ones(weight.dims[0], np.float32)
    graph.initializer.extend(
        [numpy_helper.from_array(ones, f"{name}.scale"), numpy_helper.from_array(0 * ones, f"{name}.bias")]
    )
    norm = helper.make_node(
        "InstanceNormalization", ["raw", f"{name}.scale", f"{name}.bias"], list(conv.output), name=name
    )
    conv.output[:] = ["raw"]
    graph.node.insert(index + 1, norm)
    path = folder / "norm.onnx"
    path.write_bytes(model.SerializeToString())
    return ModelFile(path, save_card(source.card, path))


def test_the_metadata_says_what_it_was_derived_from_and_for() -> None:
    source = load_model("compact-s")
    typed = typed_model(source, EngineSpec(256, 320, 10), "f16")
    facts = {entry.key: entry.value for entry in typed.metadata_props}
    assert facts["source_sha256"] == source.card.sha256
    assert facts["preset"] == "compact-s"
    assert {name: facts[name] for name in ("precision", "rows", "columns", "sample_bytes")} == {
        "precision": "f16",
        "rows": "256",
        "columns": "320",
        "sample_bytes": "2",
    }


def test_the_same_source_gives_the_same_graph(small_source: ModelFile) -> None:
    make = functools.partial(typed_model, small_source, EngineSpec(128, 96, 12), "f16")
    assert make().SerializeToString() == make().SerializeToString()


@pytest.mark.parametrize("precision", ["bf16", "int8"])
def test_a_precision_without_a_typed_graph_is_refused(precision: str) -> None:
    with pytest.raises(ValueError, match=f"typed graphs are f32 or f16, got {precision}"):
        typed_model(load_model("compact-s"), EngineSpec(64, 64), precision)


def test_a_weight_beyond_fp16_is_refused(small_source: ModelFile, tmp_path: Path) -> None:
    model = onnx.load(str(small_source.path))
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("conv.weight"))
    values = numpy_helper.to_array(weight).copy()
    values.flat[0] = 70000.0
    weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    path = tmp_path / "large.onnx"
    path.write_bytes(model.SerializeToString())
    large = dataclasses.replace(small_source, path=path)
    with pytest.raises(ModelError, match=r"must fit fp16, below 65504, but .*conv\.weight reaches 70000"):
        typed_model(large, EngineSpec(64, 64), "f16")
    assert audit(typed_model(large, EngineSpec(64, 64), "f32")).largest_weight == 70000.0


def broken_files() -> dict[str, tuple[Callable[[bytes], bytes], str]]:
    """What may be wrong with a file: how to make it so, and what is said of it."""

    def elsewhere(content: bytes) -> bytes:
        model = onnx.load_from_string(content)
        tensor = max(model.graph.initializer, key=lambda each: each.ByteSize())
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value="/etc/passwd")
        return model.SerializeToString()

    def other_inputs(content: bytes) -> bytes:
        model = onnx.load_from_string(content)
        model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16
        return model.SerializeToString()

    return {
        "cut-off": (lambda content: content[: len(content) // 2], "must be an ONNX file, but cannot be read"),
        "text": (lambda content: b"not a graph", "must be an ONNX file, but cannot be read"),
        "empty": (lambda content: b"", r"must have the inputs live uint8.*, got none"),
        "weights-elsewhere": (elsewhere, "must hold its own weights, got some elsewhere"),
        "other-inputs": (other_inputs, r"must have the inputs live uint8.*, got live 10\["),
    }


@pytest.mark.parametrize(("spoil", "reason"), broken_files().values(), ids=list(broken_files()))
def test_a_broken_file_is_refused(spoil: Callable[[bytes], bytes], reason: str, tmp_path: Path) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(spoil((MODELS / "compact-s.onnx").read_bytes()))
    broken = ModelFile(path, load_model("compact-s").card)
    with pytest.raises(ModelError, match=f"^broken.onnx {reason}"):
        typed_model(broken, EngineSpec(64, 64), "f16")


def test_a_file_with_changed_bytes_is_refused_or_keeps_every_promise(
    source_of: Callable[..., ModelFile], tmp_path: Path
) -> None:
    source = source_of(PresetConfig("least", 64, 4, (4, 4), 1, 1, 1))
    whole = source.path.read_bytes()
    changed = ModelFile(tmp_path / "changed.onnx", source.card)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        content = np.frombuffer(whole, np.uint8).copy()
        content[rng.integers(0, content.size, 4)] = rng.integers(0, 256, 4)
        changed.path.write_bytes(content.tobytes())
        try:
            typed = typed_model(changed, EngineSpec(96, 64), "f16")
        except ModelError:
            refused += 1
        else:
            check_audit(audit(typed), "f16")
    assert refused > 30
