"""The adapted model's file: the general one's with other weights, for as long as a runtime reads it."""

import copy
import dataclasses
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from calib.patient_facts import PatientFacts, new_key, open_patient
from calib.patient_gate import PatientGate
from casgan.errors import CheckpointError
from casgan.patient_file import adapted_names, load_patient, save_patient
from casgan.patient_weights import PatientWeights, read_patient
from engines.adapted import adapted_bytes, adapted_model
from engines.engine import EngineSpec
from engines.model import ModelFile, load_model
from engines.open import open_engine
from engines.reference import load_reference


@pytest.fixture(scope="module")
def model() -> ModelFile:
    return load_model("compact-s")


@pytest.fixture(scope="module")
def file(model: ModelFile, tmp_path_factory: pytest.TempPathFactory) -> Path:
    general = load_reference(model).network
    adapted = copy.deepcopy(general)
    random = torch.Generator().manual_seed(0)
    weights = adapted.state_dict()
    for name in adapted_names(general):
        weights[name] = weights[name] + 0.02 * torch.randn(weights[name].shape, generator=random)
    adapted.load_state_dict(weights)
    gate = PatientGate(np.zeros(71, np.float32), np.eye(71, dtype=np.float32), 3.0)
    facts = PatientFacts(model.card.sha256, new_key(), "0" * 64, "10:15", 90, 4.0, 0.8, 0.6)
    path = tmp_path_factory.mktemp("patient") / "patient.safetensors"
    save_patient(path, general, adapted, gate, facts)
    return path


@pytest.fixture(scope="module")
def patient(file: Path) -> PatientWeights:
    descriptor = open_patient(file)
    try:
        return read_patient(descriptor, file.name)
    finally:
        os.close(descriptor)


def test_the_graph_holds_the_adapted_network_and_draws_otherwise(
    model: ModelFile, file: Path, patient: PatientWeights
) -> None:
    expected, _, _ = load_patient(file, load_reference(model).network, model.card.sha256)
    with adapted_model(model, patient, "p") as adapted:
        assert adapted.path.stat().st_mode & 0o177 == 0
        assert adapted.path.parent.stat().st_mode & 0o077 == 0
        assert adapted.path.name == f"{model.card.sha256[:16]}-{patient.facts.key}.onnx"
        found = load_reference(adapted).network.state_dict()
        engines = [
            open_engine(each, EngineSpec(64, 64, slots=1), "openvino", precision="f32", threads=1).engine
            for each in (model, adapted)
        ]
    assert not adapted.path.parent.exists()
    assert all(torch.equal(found[name], value) for name, value in expected.state_dict().items())
    live = np.random.default_rng(0).integers(0, 255, (64, 64)).astype(np.uint8)
    drawn, features = [], []
    for engine in engines:
        (slot,) = engine.slots(1)
        attention = np.empty_like(live)
        slot.bind(live, np.empty_like(live), attention)
        slot.submit()
        features.append(slot.wait().features)
        drawn.append(attention)
        engine.close()
    assert (drawn[0] != drawn[1]).any()
    np.testing.assert_allclose(features[0], features[1], atol=1e-5)  # E_BG is the same, and the gate with it


def test_nothing_derived_from_it_is_kept(
    model: ModelFile, patient: PatientWeights, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with adapted_model(model, patient, "p") as adapted:
        open_engine(adapted, EngineSpec(64, 64, slots=1), "openvino", threads=1).engine.close()
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_weights_of_another_model_or_other_names_are_refused(
    model: ModelFile, patient: PatientWeights
) -> None:
    other = load_model("compact")
    with pytest.raises(
        CheckpointError, match=r"in use, e882970877e9, got one for 3cb3c13746b6; teach it again"
    ):
        adapted_bytes(other, patient, "p")
    fewer = dataclasses.replace(patient, deltas=dict(list(patient.deltas.items())[1:]))
    with pytest.raises(
        CheckpointError, match=r"must hold the \d+ weights of M and the decoders .* make it anew"
    ):
        adapted_bytes(model, fewer, "p")
