"""What the archive's tests share: a small model, and loops in files named after patients."""

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from casgan.networks import Generator
from casgan.presets import PresetConfig
from engines.model import ModelCard
from engines.network_graph import export_model

TINY = PresetConfig("tiny", 64, 4, (8, 16), 1, 1, 1)


@pytest.fixture(scope="module", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Compiled models of tests never land in the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.getbasetemp() / "cache"))
        yield


def _export(path: Path, seed: int) -> str:
    torch.manual_seed(seed)
    network = Generator(TINY).eval()
    with torch.no_grad():
        assert network.attention.conv.bias is not None
        network.attention.conv.bias.fill_(2.0)
    export_model(network, ModelCard("tiny", 64, 0.1, taught=True), path)
    return str(path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small network with random weights that draws everywhere."""
    return _export(tmp_path_factory.mktemp("model") / "tiny.onnx", 0)


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """As `model`, with other weights."""
    return _export(tmp_path_factory.mktemp("model") / "other.onnx", 1)


def write_loop(folder: Path, frames: np.ndarray) -> Path:
    """A loop as a folder of PNGs."""
    folder.mkdir(parents=True)
    for number, frame in enumerate(frames):
        assert cv2.imwrite(str(folder / f"{number}.png"), frame)
    return folder


@pytest.fixture
def lab(tmp_path: Path, loop: Path, loop_frames: np.ndarray) -> Path:
    """Two whole loops, one of them twice, one damaged and a text, in folders and files that are named after patients."""
    lab = tmp_path / "DOE^JANE"
    write_loop(lab / "MILLER^ANN", loop_frames[:3])
    for name in ("SMITH^BOB.dcm", "COPY^BOB.dcm"):
        (lab / name).write_bytes(loop.read_bytes())
    damaged = write_loop(lab / "ROE^RICK", loop_frames[3:6]) / "1.png"
    damaged.write_bytes(damaged.read_bytes()[:-5000])
    (lab / "letter.txt").write_text("Dear colleague")
    return lab


PATIENTS = (b"DOE^JANE", b"MILLER", b"SMITH", b"BOB", b"ROE^", b"LEAKED")
