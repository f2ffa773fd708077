"""A model by name; a preset that none is shipped of with random weights, to build and to measure it, never to show it."""

import atexit
import contextlib
import hashlib
import importlib.util
import logging
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from casgan.presets import PRESETS
from engines.cache_folder import cache_folder, locked, warn_once, write_whole
from engines.errors import EngineError, ModelError
from engines.model import MODELS, ModelCard, ModelFile, load_model, save_card

log = logging.getLogger(__name__)

THRESHOLD = 0.1
"""t of the attention's clamp, as the shipped models have it."""
LOST = "models with random weights are not kept, so every start makes them anew"
PACKAGES = ("torch", "onnx")
"""What makes one; the extra `train` brings both."""
ROOT = Path(__file__).parents[1]
MAKING = (
    "casgan/networks.py",
    "casgan/presets.py",
    "engines/graph.py",
    "engines/graph_writer.py",
    "engines/network_graph.py",
    "engines/untaught.py",
)
"""The files whose code makes the model of a preset; another text of theirs may make another."""


def find_model(model: str | Path, *, untaught: bool) -> ModelFile:
    """A model on disk; for a preset without one, where that was asked for, its network with random weights.

    Such a model is made once and kept in ~/.cache/contrastream/untaught, so it has the same name, its SHA-256, at
    each start.

    Args:
        model: A shipped model's name, a preset's name, or the path of an ONNX file.
        untaught: Take random weights too.

    Raises:
        ModelError: There is no such model, or it is untaught and that was not asked for.
        EngineError: What makes a model is not installed.
    """
    if model not in PRESETS or (MODELS / f"{model}.onnx").is_file():
        file = load_model(model)
        if not file.card.taught and not untaught:
            raise ModelError(
                f"needed a taught model, got {file.path.name}, whose weights are random; "
                "train it, or pass --untaught to measure it without a synthetic picture"
            )
        return file
    if not untaught:
        raise ModelError(
            f"needed a taught model, but none of the preset {model} is shipped: train one, export it and give its "
            "file, or pass --untaught to measure the preset with random weights"
        )
    return _untaught(str(model))


def _untaught(preset: str) -> ModelFile:
    folder = cache_folder("untaught", LOST)
    if folder is not None:
        path = folder / f"{preset}.onnx"
        with contextlib.suppress(ModelError):
            return _kept(path)
        try:
            with locked(path):
                with contextlib.suppress(ModelError):  # whoever held the lock has made it
                    return _kept(path)
                return _make(preset, path)
        except OSError as error:
            warn_once(f"{LOST}: {folder}: {error.strerror or error}")
    path = _passing_folder() / f"{preset}.onnx"
    try:
        return _kept(path) if path.is_file() else _make(preset, path)
    except OSError as error:
        raise EngineError(
            f"needed room for the model {path.name} with random weights, got: {error.strerror or error}; make room in "
            f"{path.parent.parent}, or set TMPDIR"
        ) from error


@cache
def _passing_folder() -> Path:
    """For what the cache cannot keep; goes with this process."""
    folder = TemporaryDirectory(prefix="contrastream-")
    atexit.register(folder.cleanup)
    return Path(folder.name)


def _kept(path: Path) -> ModelFile:
    """A model that was made before.

    Raises:
        ModelError: There is none, it is not whole, or other code has made it.
    """
    file = load_model(path, trusted=True)  # its folder is this user's alone
    if file.card.training_run.get("recipe") != recipe():
        raise ModelError(f"{path.name} was made by another version of contrastream")
    return file


def _make(preset: str, path: Path) -> ModelFile:
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise EngineError(
                f"a model of the preset {preset} with random weights is made by torch and onnx, and {package} is not "
                'installed; run: pip install -e ".[train]"'
            )
    import torch

    from casgan.networks import Generator
    from engines.network_graph import build_model

    log.warning("making %s with random weights, once", preset)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Generator(PRESETS[preset]).eval()
    card = ModelCard(
        preset,
        PRESETS[preset].network_size,
        THRESHOLD,
        taught=False,
        training_run={"weights": "random", "recipe": recipe()},
    )
    try:
        write_whole(path, build_model(network, card.threshold, card.properties()).SerializeToString())
        return ModelFile(path, save_card(card, path))
    except BaseException:
        path.unlink(missing_ok=True)
        raise


@cache
def recipe() -> str:
    """The hash of our own code between a preset and its model, so that none of an older version lives on."""
    digest = hashlib.sha256()
    for name in MAKING:
        digest.update((ROOT / name).read_bytes())
    return digest.hexdigest()[:12]
