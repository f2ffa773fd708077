"""Model files: found by name or path, whole or refused with one sentence."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from casgan.data import phantom_reference
from engines.engine import BackendName, EngineSpec
from engines.errors import ModelError
from engines.model import FORMAT, MODELS, ModelCard, file_sha256, load_model, save_card
from engines.open import open_engine

BACKENDS: list[BackendName] = ["openvino", "onnxruntime"]


@pytest.fixture
def copy(tiny_model: Path, tmp_path: Path) -> Path:
    """A model that a test may spoil."""
    path = tmp_path / "copy.onnx"
    path.write_bytes(tiny_model.read_bytes())
    path.with_suffix(".json").write_bytes(tiny_model.with_suffix(".json").read_bytes())
    return path


def test_a_preset_name_finds_the_shipped_model() -> None:
    model = load_model("compact")
    assert model.path == MODELS / "compact.onnx"
    assert (model.card.preset, model.card.network_size) == ("compact", 256)
    assert model.card.value_range == (-1.0, 1.0)


def test_the_onnx_file_itself_says_what_its_sidecar_says(tiny_model: Path) -> None:
    card = load_model(tiny_model).card
    properties = {entry.key: entry.value for entry in onnx.load(str(tiny_model)).metadata_props}
    assert properties == {"format": FORMAT, **card.properties()}


def test_a_missing_model_names_the_shipped_ones(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"found none at .*no\.onnx; shipped models: .*compact"):
        load_model(tmp_path / "no.onnx")
    with pytest.raises(ModelError, match=r"found none at .*huge\.onnx"):
        load_model("huge")


def test_a_model_without_its_sidecar_is_refused(copy: Path) -> None:
    copy.with_suffix(".json").unlink()
    with pytest.raises(ModelError, match=r"needed the sidecar copy\.json beside the model"):
        load_model(copy)


def test_a_truncated_model_is_refused(copy: Path) -> None:
    copy.write_bytes(copy.read_bytes()[:-100])
    with pytest.raises(ModelError, match=r"copy\.onnx must have the SHA-256 .* it was cut off or changed"):
        load_model(copy)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param(lambda facts: "no json", "must be JSON", id="text"),
        pytest.param(lambda facts: json.dumps([1]), "must have the format", id="list"),
        pytest.param(
            lambda facts: json.dumps({**facts, "format": "x/9"}), "must have the format", id="format"
        ),
        pytest.param(
            lambda facts: json.dumps({**facts, "taught": "yes"}), "needs taught as bool, got 'yes'", id="kind"
        ),
        pytest.param(
            lambda facts: json.dumps({**facts, "threshold": 1.5}), "threshold must be 0", id="range"
        ),
    ],
)
def test_a_spoilt_sidecar_is_refused(
    copy: Path, change: Callable[[dict[str, Any]], str], message: str
) -> None:
    sidecar = copy.with_suffix(".json")
    sidecar.write_text(change(json.loads(sidecar.read_text())))
    with pytest.raises(ModelError, match=message):
        load_model(copy)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("content", [b"GIF89a, not a network", b""], ids=["another format", "empty"])
def test_a_file_that_is_no_onnx_is_refused(backend: BackendName, copy: Path, content: bytes) -> None:
    copy.write_bytes(content)
    save_card(ModelCard("tiny", 64, 0.1, True), copy)
    with pytest.raises(ModelError, match=r"copy\.onnx must (be an ONNX file|have the inputs)"):
        open_engine(copy, EngineSpec(64, 64), backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_an_onnx_file_with_other_inputs_is_refused(backend: BackendName, tmp_path: Path) -> None:
    path = tmp_path / "other.onnx"
    picture = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 8, 8])
    result = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 8, 8])
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "other", [picture], [result])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    path.write_bytes(model.SerializeToString())
    save_card(ModelCard("tiny", 64, 0.1, True), path)
    with pytest.raises(
        ModelError, match=r"other\.onnx must have the inputs live uint8\[3\].* got x float32\[4\]"
    ):
        open_engine(path, EngineSpec(64, 64), backend)


def test_the_card_carries_the_files_hash(tiny_model: Path) -> None:
    assert load_model(tiny_model).card.sha256 == file_sha256(tiny_model)


@pytest.mark.parametrize("name", ["compact", "compact-s"])
def test_a_shipped_model_says_on_which_grey_levels_it_was_taught(name: str) -> None:
    card = load_model(name).card
    run = card.training_run
    seeds = range(run["first_seed"], run["first_seed"] + run["patients"])
    np.testing.assert_allclose(
        card.reference_greys, phantom_reference(card.network_size, seeds), rtol=0.0, atol=1e-4
    )


def test_a_sidecar_of_former_days_has_no_reference_and_loads(copy: Path) -> None:
    facts = json.loads(copy.with_suffix(".json").read_text())
    del facts["reference_greys"]
    copy.with_suffix(".json").write_text(json.dumps(facts))
    assert load_model(copy).card.reference_greys == ()


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        pytest.param([[1, 0.3], 5], r"needs reference_greys as pairs of numbers", id="no pair"),
        pytest.param([[1, "x"]], r"needs reference_greys as pairs of numbers", id="text"),
        pytest.param([[1, 0.3], [99, 0.2]], r"needs two or more rising percentiles", id="falling"),
        pytest.param([[1, 0.3]], r"needs two or more rising percentiles", id="one"),
    ],
)
def test_a_reference_that_no_table_can_be_made_from_is_refused(
    copy: Path, reference: object, message: str
) -> None:
    facts = json.loads(copy.with_suffix(".json").read_text())
    copy.with_suffix(".json").write_text(json.dumps({**facts, "reference_greys": reference}))
    with pytest.raises(ModelError, match=message):
        load_model(copy)
