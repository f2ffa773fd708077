"""A network, pictures and settings small enough to be taught in a second."""

from pathlib import Path

import pytest
import torch

from casgan.config import TrainConfig
from casgan.data import Pairs, phantom_pairs
from casgan.presets import PRESETS, PresetConfig
from casgan.segmenter import VesselSegmenter
from casgan.train import Lessons
from casgan.unpaired import Unpaired, unpaired_phantom

TINY = PresetConfig("tiny", 64, 4, (8, 16), 1, 1, 1, deep_widths=(16,))


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> PresetConfig:
    """The smallest network, by the name `tiny`."""
    monkeypatch.setitem(PRESETS, "tiny", TINY)
    torch.set_num_threads(1)
    return TINY


@pytest.fixture
def brief(tiny: PresetConfig, tmp_path: Path) -> TrainConfig:
    """A run of seven steps through all stages."""
    return TrainConfig(
        out=str(tmp_path / "run"),
        preset=tiny.name,
        warm_steps=2,
        companion_steps=2,
        steps=3,
        warm_batch=2,
        batch=2,
        discriminator_width=4,
        precision="32",
        threads=1,
    )


@pytest.fixture(scope="session")
def pairs() -> Pairs:
    return phantom_pairs(64, range(2), 1)


@pytest.fixture(scope="session")
def unpaired() -> Unpaired:
    return unpaired_phantom(64, range(10, 12), range(20, 22), 1)


@pytest.fixture
def lessons(pairs: Pairs, unpaired: Unpaired) -> Lessons:
    torch.manual_seed(3)
    return Lessons(pairs, unpaired, VesselSegmenter(4))
