"""CAS-GAN's rivals in the live graph: exported as it is, drawn by the same engines as torch draws it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from calib.config import PhantomConfig
from calib.phantom import Phantom
from casgan.config import TrainConfig
from casgan.methods.names import METHODS, attention_of
from casgan.methods.registry import live_path
from casgan.networks import LivePath
from casgan.presets import PRESETS, PresetConfig
from engines.engine import EngineSpec
from engines.errors import ModelError
from engines.export import card_of, left_to_teach
from engines.model import ModelFile, load_model
from engines.network_graph import export_model
from engines.open import open_engine
from engines.parity import measure_parity
from engines.reference import Reference, load_reference

FACTS: dict[str, Any] = {
    "stage": "unpaired", "step": 9, "seconds": 1.0, "data_sha256": "d" * 64, "former": [],
    "reference_greys": [(1.0, 0.1), (25.0, 0.4), (50.0, 0.5), (75.0, 0.6), (99.0, 0.9)],
}  # fmt: skip
SPEC = EngineSpec(96, 80, slots=1)
CASES = [*((name, ()) for name in METHODS), ("casgan", ("vsgg",))]
IDS = [*METHODS, "without-vsgg"]


@pytest.fixture
def tiny(tiny_preset: PresetConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest network, by the name `tiny`."""
    monkeypatch.setitem(PRESETS, "tiny", tiny_preset)


@pytest.fixture(params=CASES, ids=IDS)
def network(request: pytest.FixtureRequest, tiny: None) -> tuple[LivePath, TrainConfig]:
    """Weights of chance, at 64 px."""
    method, without = request.param
    config = TrainConfig(method=method, preset="tiny", without=without, steps=9)
    torch.manual_seed(0)
    return live_path(config.network, method, without).eval(), config


@pytest.fixture
def exported(network: tuple[LivePath, TrainConfig], tmp_path: Path) -> ModelFile:
    path, config = network
    export_model(path, card_of(config, FACTS), tmp_path / "mine.onnx")
    return load_model(tmp_path / "mine.onnx")


def test_an_engine_draws_what_torch_draws_and_the_card_says_whose_attention_it_is(
    network: tuple[LivePath, TrainConfig], exported: ModelFile
) -> None:
    path, config = network
    card = exported.card
    assert (card.method, card.without) == (config.method, config.without)
    assert card.attention == attention_of(config.method, config.without)
    assert card.threshold == config.drawn_above
    live = Phantom(PhantomConfig(seed=0, rows=SPEC.rows, columns=SPEC.columns)).frame(0).plain
    # The weights as they are read back from the file are those that were taught, its styles and norms folded.
    reference = load_reference(exported)
    found, kept = reference.network.state_dict(), path.folded().state_dict()
    assert [name for name in kept if not torch.equal(found[name], kept[name])] == []
    for drawer, backend in ((reference, "onnxruntime"), (Reference(path, card.threshold), "openvino")):
        engine = open_engine(exported.path, SPEC, backend, precision="f32").engine
        try:
            parity = measure_parity(engine, drawer, [live])
        finally:
            engine.close()
        assert max(parity.synthetic_max, parity.attention_max) <= 1.0
        assert parity.background_exact
        assert parity.synthetic_mean < 0.05


def test_a_card_of_another_method_is_refused_naming_both(tiny: None, tmp_path: Path) -> None:
    config = TrainConfig(method="cut", preset="tiny")
    file = tmp_path / "mine.onnx"
    export_model(live_path(config.network, "cut").eval(), card_of(config, FACTS), file)
    text = file.with_suffix(".json").read_text()
    file.with_suffix(".json").write_text(text.replace('"method": "cut"', '"method": "unit"'))
    with pytest.raises(
        ModelError,
        match=r"holds a network of cut at preset tiny, its card says unit at preset tiny; copy both",
    ):
        load_reference(load_model(file))
    file.with_suffix(".json").write_text(text.replace('"method": "cut"', '"method": "cat"'))
    with pytest.raises(ModelError, match=r"method must be one of casgan, .* got 'cat'; did you mean"):
        load_model(file)


def test_a_rivals_run_is_done_after_its_one_stage() -> None:
    run = {"method": "cut", "stage": "unpaired", "step": 9, "steps": 9, "warm_steps": 1500}
    assert left_to_teach(run) == ""
    assert "step 8 of its stage unpaired" in left_to_teach(run | {"step": 8})
