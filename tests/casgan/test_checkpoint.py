"""A run on disk: whole or refused, whatever happened to the disk."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from casgan import checkpoint
from casgan.config import FREE_TO_CHANGE, TrainConfig, differences
from casgan.errors import CheckpointError
from casgan.networks import Generator
from casgan.presets import PRESETS

CONFIG = TrainConfig(preset="compact-s", size=64)

FULL_DISK = """
import resource, sys
import torch
from casgan import checkpoint
from casgan.config import TrainConfig
from casgan.errors import CheckpointError
from pathlib import Path

folder, config = Path(sys.argv[1]), TrainConfig()
for step, limit in ((1, None), (2, 40_000)):
    if limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
    try:
        checkpoint.save(folder, config, {"step": step, "weights": torch.full((40_000,), float(step))})
    except CheckpointError as error:
        print(error)
"""


def test_what_is_saved_is_read_back(tmp_path: Path) -> None:
    state = {"step": 3, "weights": torch.arange(5.0), "names": ["a", "b"]}
    checkpoint.save(tmp_path, CONFIG, state)
    config, found = checkpoint.load(tmp_path)
    assert config == CONFIG
    assert torch.equal(found["weights"], state["weights"])
    assert found["names"] == ["a", "b"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "config.json"]


def test_settings_survive_json(tmp_path: Path) -> None:
    config = replace(
        CONFIG, without=("vsgl",), test_patients=("a", "b"), weights=replace(CONFIG.weights, shift=2.0)
    )
    checkpoint.save(tmp_path, config, {})
    assert checkpoint.load(tmp_path)[0] == config
    assert TrainConfig.from_dict(json.loads((tmp_path / "config.json").read_text())) == config


def test_a_full_disk_leaves_the_former_checkpoint_whole(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).resolve().parents[2],
    )
    assert (
        "needed 0.2 MB, could not be written: File too large; the one before it is whole; make room"
        in run.stdout
    )
    _, state = checkpoint.load(tmp_path)
    assert state["step"] == 1
    assert torch.equal(state["weights"], torch.ones(40_000))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.pt", "config.json"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "found none at", id="missing"),
        pytest.param(b"not a checkpoint", "must be a checkpoint of this version", id="text"),
    ],
)
def test_a_folder_without_a_usable_checkpoint_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / checkpoint.NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path)


def test_a_truncated_checkpoint_is_refused(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, CONFIG, {"weights": torch.ones(1000)})
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(CheckpointError, match=r"must be a checkpoint of this version, got: .*; train anew"):
        checkpoint.load(tmp_path)


def test_weights_of_another_preset_are_refused(tmp_path: Path) -> None:
    weights = Generator(PRESETS["compact"]).state_dict()
    checkpoint.save(tmp_path, CONFIG, {"average": weights})
    with pytest.raises(
        CheckpointError, match="must hold the weights of CAS-GAN at preset compact-s as this version builds"
    ):
        checkpoint.taught_network(tmp_path)


def test_differences_name_what_changes_the_result_alone() -> None:
    assert differences(CONFIG, CONFIG) == []
    assert differences(CONFIG, replace(CONFIG, threads=1, out="elsewhere", save_every=7)) == []
    assert {"threads", "out", "save_every"} < set(FREE_TO_CHANGE)
    assert differences(CONFIG, replace(CONFIG, batch=8, seed=2)) == [
        "batch is 4 there, 8 here",
        "seed is 0 there, 2 here",
    ]
