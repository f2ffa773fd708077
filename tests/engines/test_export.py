"""From a training run to a model file: what it says, that it draws what torch draws, and what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from calib.config import PhantomConfig
from calib.intensity import REFERENCE_PERCENTS
from calib.phantom import Phantom
from casgan import checkpoint
from casgan.config import TrainConfig
from casgan.data import phantom_reference
from casgan.errors import CheckpointError
from casgan.networks import Generator
from casgan.presets import PRESETS
from engines.config import ExportConfig
from engines.engine import EngineSpec
from engines.errors import ModelError
from engines.export import (
    Checked,
    card_of,
    check_parity,
    export,
    export_run,
    left_to_teach,
    margin_text,
    run_folder,
)
from engines.model import ModelCard, load_model
from engines.open import open_engine
from engines.overflow import overflow_margin, probing_frames
from engines.reference import Reference, load_reference, run_reference

FACTS: dict[str, Any] = {
    "stage": "warm", "step": 3, "seconds": 1.2, "data_sha256": "d" * 64, "former": [], "reference_greys": []
}  # fmt: skip


def save_run(folder: Path, *, preset: str = "compact-s", bias: float = 0.0) -> Generator:
    """A run's checkpoint with random weights."""
    torch.manual_seed(0)
    network = Generator(PRESETS[preset]).eval()
    with torch.no_grad():
        network.attention.conv.bias.fill_(bias)
    state = {**FACTS, "average": network.state_dict()}
    checkpoint.save(folder, TrainConfig(preset=preset), state)
    return network


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run") / "teaching"
    save_run(folder)
    return folder


@pytest.fixture(scope="module")
def exported(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ModelCard, list[Checked]]:
    out = tmp_path_factory.mktemp("model") / "mine.onnx"
    return out, *export_run(ExportConfig(run, out))


Exported = tuple[Path, ModelCard, list[Checked]]


def test_a_model_appears_with_its_card_and_nothing_else(exported: Exported) -> None:
    out, card, checked = exported
    assert sorted(path.name for path in out.parent.iterdir()) == ["mine.json", "mine.onnx"]
    assert load_model(out).card == card
    assert (card.preset, card.taught, card.data_sha256) == ("compact-s", True, "d" * 64)
    assert card.training_run["step"] == 3
    assert card.licence == "Apache-2.0; taught on the digital phantom of this project alone"
    assert {(each.backend, each.spec.bits_stored) for each in checked} == {
        ("openvino", 8), ("onnxruntime", 8), ("openvino", 12), ("onnxruntime", 12)
    }  # fmt: skip
    assert all(each.parity.synthetic_max <= 1 and each.parity.background_exact for each in checked)
    network = load_reference(load_model(out)).network
    assert card.f16_margin == pytest.approx(overflow_margin(network, probing_frames(256)), rel=0.01)


def test_an_exported_model_draws_what_the_run_draws(exported: Exported, run: Path) -> None:
    out, card, _ = exported
    network, _, _ = checkpoint.taught_network(run)
    spec = EngineSpec(128, 96)
    live = Phantom(PhantomConfig(seed=5, rows=128, columns=96)).frame(1).plain
    engine = open_engine(out, spec, "openvino", precision="f32").engine
    (slot,) = engine.slots(1)
    synthetic, attention = np.empty_like(live), np.empty_like(live)
    slot.bind(live, synthetic, attention)
    slot.submit()
    slot.wait()
    engine.close()
    expected = run_reference(Reference(network, card.threshold), spec, live)
    assert attention.any()
    assert np.abs(synthetic.astype(int) - expected.synthetic).max() <= 1


def test_a_graph_that_draws_something_else_is_refused(exported: Exported) -> None:
    file = load_model(exported[0])
    other = load_reference(file)
    with torch.no_grad():
        other.network.attention.conv.bias.add_(1.0)
    with pytest.raises(
        ModelError, match=r"must draw what torch draws within 1 grey level of 255, got \d+\.\d+ in"
    ):
        check_parity(file, other)


def test_what_exists_is_replaced_only_when_asked_and_the_command_says_what_to_do_next(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "mine.onnx"
    out.write_bytes(b"mine")
    with pytest.raises(
        ValueError, match=r"mine\.onnx exists; choose another --out, or replace it with --overwrite"
    ):
        export(ExportConfig(run, out))
    assert out.read_bytes() == b"mine"
    assert export(ExportConfig(run / checkpoint.NAME, out, overwrite=True)) == 0
    assert load_model(out).card.preset == "compact-s"
    printed = capsys.readouterr().out
    assert "parity   openvino against torch, phantom 512x512 of 8 bits: largest difference" in printed
    assert "margin   the largest value inside it fits " in printed
    assert "note     the run is at step 3 of its stage warm, and ends at step 6000 of cas-gan" in printed
    assert f"next     contrastream run phantom --model {out}" in printed


def test_too_small_a_margin_is_said_with_what_follows() -> None:
    said = margin_text(ModelCard("compact", 256, 0.1, taught=True, f16_margin=3.254))
    assert said == (
        "the largest value inside it fits 3.25 times below fp16's largest, needed 8: GPU engines refuse it in f16; "
        "train again, or run it on openvino"
    )


def test_a_run_that_cannot_be_exported_leaves_the_former_model(tmp_path: Path) -> None:
    out, broken = tmp_path / "mine.onnx", tmp_path / "broken"
    out.write_bytes(b"mine")
    save_run(broken, bias=float("nan"))
    with pytest.raises(
        ValueError, match=r"every weight must be finite to be exported, but .* is not; train again"
    ):
        export_run(ExportConfig(broken, out, overwrite=True))
    assert out.read_bytes() == b"mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["broken", "mine.onnx"]


@pytest.mark.parametrize(
    ("settings", "licence"),
    [
        pytest.param({}, "Apache-2.0; taught on the digital phantom of this project alone", id="phantom"),
        pytest.param(
            {"data": "/site/angio/JONES^TOM"},
            "taught on data dddddddddddd of a folder; its terms apply",
            id="a folder",
        ),
        pytest.param(
            {"segmenter": "/site/vessels-JONES^TOM.safetensors"},
            "Apache-2.0; taught on the digital phantom of this project alone; semantic loss by a vessel segmenter "
            "of a file, whose terms apply too",
            id="a segmenter",
        ),
    ],
)
def test_the_licence_says_what_the_weights_were_taught_on_and_the_card_names_no_folder_or_file(
    settings: dict[str, Any], licence: str
) -> None:
    run = TrainConfig(
        out="/site/JONES^TOM/run", test_patients=("JONES^TOM",), overrides="/site/JONES^TOM.toml", **settings
    )
    earlier = {"data": "JONES", "segmenter": "JONES.safetensors", "data_sha256": "e" * 64, "step": 1}
    for former in ([], [earlier]):  # checkpoints of earlier versions name the folder
        card = card_of(run, {**FACTS, "former": former})
        assert "JONES" not in json.dumps(card.properties())
    card = card_of(run, FACTS)
    assert card.licence == licence
    assert (card.training_run["stage"], card.training_run["step"], card.training_run["batch"]) == (
        "warm",
        3,
        run.batch,
    )


def test_the_licence_follows_from_what_a_run_started_from_too() -> None:
    site = checkpoint.former_run(
        TrainConfig(data="/site/angio/JONES^TOM", segmenter="/site/vessels-JONES^TOM.safetensors"), FACTS
    )
    card = card_of(TrainConfig(start_from="/site/JONES^TOM/run"), {**FACTS, "former": [site]})
    assert card.licence == (
        "taught on data dddddddddddd of a folder; its terms apply; semantic loss by a vessel segmenter of a file, whose "
        "terms apply too"
    )
    assert card.training_run["former"][0]["step"] == 3
    assert "JONES" not in json.dumps(card.properties())


@pytest.mark.parametrize(
    ("steps", "stage", "step", "said"),
    [
        pytest.param(0, "warm", 1500, "", id="paired to its end"),
        pytest.param(6000, "cas-gan", 6000, "", id="unpaired to its end"),
        pytest.param(
            6000, "warm", 1500, "the run is at step 1500 of its stage warm, and ends at", id="paired only"
        ),
    ],
)
def test_a_run_that_was_stopped_is_called_so(steps: int, stage: str, step: int, said: str) -> None:
    card = card_of(TrainConfig(steps=steps), {**FACTS, "stage": stage, "step": step})
    left = left_to_teach(card.training_run)
    assert left.startswith(said)
    assert bool(left) == bool(said)


@pytest.mark.parametrize(
    ("out", "said"),
    [
        pytest.param(
            "model.pt", r"--out must end in \.onnx, got model\.pt; for example model\.onnx", id="suffix"
        ),
        pytest.param(
            "nowhere/m.onnx", "--out needs an existing folder, got .*nowhere; make it first", id="folder"
        ),
    ],
)
def test_a_place_that_cannot_be_used_is_refused_first(tmp_path: Path, out: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        export_run(ExportConfig(tmp_path / "no run at all", tmp_path / out))


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "weights.pt").write_bytes(b"PK")
    with pytest.raises(
        CheckpointError, match=r"its checkpoint\.pt, got a file of another name: .*weights\.pt"
    ):
        run_folder(tmp_path / "weights.pt")
    with pytest.raises(CheckpointError, match=r"got nothing there: .*; it is --out of contrastream train"):
        run_folder(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"needed a checkpoint, found none at .*; train first"):
        export_run(ExportConfig(tmp_path, tmp_path / "m.onnx"))
    (tmp_path / "checkpoint.pt").write_bytes(b"not a checkpoint")
    with pytest.raises(CheckpointError, match="must be a checkpoint of this version, got: "):
        export_run(ExportConfig(tmp_path, tmp_path / "m.onnx"))


def test_a_run_of_another_preset_than_it_says_is_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    state = {**FACTS, "average": Generator(PRESETS["compact-s"]).state_dict()}
    checkpoint.save(tmp_path / "run", TrainConfig(preset="compact"), state)
    with pytest.raises(
        CheckpointError,
        match="must hold the weights of CAS-GAN at preset compact as this version builds them; train anew",
    ):
        export_run(ExportConfig(tmp_path / "run", tmp_path / "m.onnx"))


def test_the_card_says_the_grey_levels_of_the_frames_a_run_was_taught_on() -> None:
    facts = {**FACTS, "reference_greys": [[1.0, 0.3], [50.0, 0.5], [99.0, 0.7]]}
    assert card_of(TrainConfig(), facts).reference_greys == ((1.0, 0.3), (50.0, 0.5), (99.0, 0.7))
    small = TrainConfig(preset="compact-s")
    of_phantom = card_of(small, FACTS).reference_greys
    seeds = range(small.first_seed, small.first_seed + small.patients)
    assert of_phantom == phantom_reference(small.picture_size, seeds)
    assert [percent for percent, _ in of_phantom] == list(REFERENCE_PERCENTS)
