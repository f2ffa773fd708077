"""From a training run to a model file.

python -m engines.export --run out/train --out engines/models/compact.onnx
"""

import dataclasses
import sys
from dataclasses import dataclass
from pathlib import Path

from casgan import checkpoint
from casgan.errors import CheckpointError
from casgan.presets import PRESETS
from engines.graph import export_model
from engines.model import ModelCard


@dataclass(frozen=True)
class ExportConfig:
    """Which run becomes which file."""

    run: str
    """Folder of the training run."""
    out: str
    """The model file, ending in .onnx; its sidecar is written beside it."""
    data_licence: str = "taught on the digital phantom of this project alone"
    """What the training data allows."""


def export_run(config: ExportConfig) -> ModelCard:
    """Write the model of a training run.

    Raises:
        CheckpointError: The folder holds no usable run.
        ValueError: The file's name does not end in .onnx.
    """
    path = Path(config.out)
    if path.suffix != ".onnx":
        raise ValueError(f"out must end in .onnx, got {path.name}")
    network, run, facts = checkpoint.taught_network(Path(config.run))
    settings = {name: value for name, value in dataclasses.asdict(run).items() if name != "out"}
    card = ModelCard(
        preset=run.preset,
        network_size=PRESETS[run.preset].network_size,
        threshold=run.threshold,
        taught=True,
        training_run={**settings, "step": facts["step"], "seconds": round(facts["seconds"])},
        data_sha256=facts["data_sha256"],
        licence=f"Apache-2.0; {config.data_licence}",
    )
    return export_model(network, card, path)


def main() -> int:
    """The command."""
    import tyro

    try:
        card = export_run(tyro.cli(ExportConfig))
    except (CheckpointError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    print(f"model {card.sha256[:16]}: {card.preset}, {card.training_run['step']} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())
