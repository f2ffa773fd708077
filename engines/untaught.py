"""A preset that no model is shipped of, with random weights: to build and to measure it, never to show it."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from casgan.presets import PRESETS
from engines.errors import ModelError
from engines.model import MODELS, ModelCard, ModelFile, load_model

THRESHOLD = 0.1
"""t of the attention's clamp, as the shipped models have it."""


@contextmanager
def model_or_untaught(model: str, *, untaught: bool) -> Iterator[ModelFile]:
    """A model on disk; for a preset without one, where that was asked for, its network with random weights.

    The weights follow from the preset alone, so the model has the same name, its SHA-256, each time.

    Args:
        model: A shipped model's name, a preset's name, or the path of an ONNX file.
        untaught: Take random weights too.

    Raises:
        ModelError: There is no such model, or it is untaught and that was not asked for.
    """
    if model not in PRESETS or (MODELS / f"{model}.onnx").is_file():
        file = load_model(model)
        if not file.card.taught and not untaught:
            raise ModelError(
                f"needed a taught model, got {file.path.name}, whose weights are random; "
                "train it, or pass --untaught to measure it"
            )
        yield file
        return
    if not untaught:
        raise ModelError(
            f"needed a taught model, but none of the preset {model} is shipped: train one, export it and give its "
            "file, or pass --untaught to measure the preset with random weights"
        )
    import torch

    from casgan.networks import Generator
    from engines.graph import export_model

    with TemporaryDirectory(prefix="contrastream-") as folder:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            network = Generator(PRESETS[model]).eval()
        path = Path(folder) / f"{model}.onnx"
        card = ModelCard(model, PRESETS[model].network_size, THRESHOLD, taught=False)
        yield ModelFile(path, export_model(network, card, path))
