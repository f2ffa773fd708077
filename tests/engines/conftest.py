"""Small networks with random weights, exported once; every graph test runs on them."""

import copy
import fcntl
import functools
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from casgan.networks import Generator
from casgan.presets import PresetConfig
from engines.model import ModelCard, ModelFile, load_model
from engines.network_graph import export_model
from engines.trust import remember_made_here

TINY = PresetConfig("tiny", 64, 4, (8, 16), 1, 1, 1)
THRESHOLD = 0.1


class Echo(Generator):
    """Attention follows the picture's brightness, so a test sees where the graph puts things."""

    def logits_and_latent(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return 6.0 * x, torch.full_like(x, -0.4), self.encode(x)


@functools.cache
def _tiny_network() -> Generator:
    """Random weights whose attention is 0 in some places and near 1 in others."""
    torch.manual_seed(0)
    network = Generator(TINY).eval()
    # Make both planes vary over their whole range on a picture like those of the tests.
    with torch.no_grad():
        row, column = torch.meshgrid(torch.linspace(0, 6, 64), torch.linspace(0, 9, 64), indexing="ij")
        picture = 0.8 * torch.sin(row) * torch.cos(column) + 0.4 * torch.randn(64, 64)
        for head, centre in ((network.attention, -1.5), (network.context, 0.0)):
            plane = network.logits(picture[None, None])[0 if head is network.attention else 1]
            gain = 3.0 / plane.std()
            head.conv.weight.mul_(gain)
            head.conv.bias.sub_(plane.mean()).mul_(gain).add_(centre)
    return network


CARD = ModelCard(TINY.name, TINY.network_size, THRESHOLD, taught=True)


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled models of tests never land in the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "tiny.onnx"
    export_model(_tiny_network(), CARD, path)
    return path


@pytest.fixture(scope="session")
def tiny_preset() -> PresetConfig:
    return TINY


@pytest.fixture
def tiny_network() -> Generator:
    """One of the test's own, to change."""
    return copy.deepcopy(_tiny_network())


@pytest.fixture
def export_tiny(tmp_path: Path) -> Callable[..., Path]:
    """Exports a changed tiny network, or one with another card."""

    def export(network: Generator, card: ModelCard = CARD) -> Path:
        path = tmp_path / "changed.onnx"
        export_model(network, card, path)
        return path

    return export


@pytest.fixture(scope="session")
def echo_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "echo.onnx"
    export_model(Echo(TINY).eval(), CARD, path)
    return path


@pytest.fixture(scope="session")
def random_frame() -> Callable[..., np.ndarray]:
    """Noise over the whole stored range, over a slow wave so that the tiny network sees structure."""

    def make(rows: int, columns: int, bits_stored: int = 8, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        row, column = np.mgrid[:rows, :columns]
        wave = np.sin(row * (6.0 / rows)) * np.cos(column * (9.0 / columns)) + rng.normal(
            0, 0.2, (rows, columns)
        )
        largest = (1 << bits_stored) - 1
        stored = np.clip((0.5 + 0.4 * wave) * largest, 0, largest)
        return stored.astype(np.uint8 if bits_stored == 8 else "<u2")

    return make


@pytest.fixture(scope="session")
def source_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[PresetConfig], ModelFile]:
    """The source of a preset with random weights; each is exported once, and read by the other workers."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent  # all workers'

    @functools.cache
    def export(preset: PresetConfig) -> ModelFile:
        path = folder / f"{preset.name}.onnx"
        with (folder / f"{preset.name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                torch.manual_seed(0)
                card = ModelCard(preset.name, preset.network_size, THRESHOLD, taught=False)
                export_model(Generator(preset).eval(), card, path)
        model = load_model(path, trusted=True)
        remember_made_here(model.card.sha256)  # by this worker too, whose state folder is its own
        return model

    return export
