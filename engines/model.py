"""A model on disk: the ONNX file, and the sidecar that says what it is without a library to read ONNX.

The file's SHA-256 is the model's name; the sidecar carries it, so a file that was cut off or changed is
found before a runtime reads it.
"""

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calib.domain import FEATURES
from calib.intensity import check_reference
from engines.errors import ModelError

FORMAT = "contrastream.model/2"
LEVELS = 256
"""Knots of a grey-level table."""
STATISTICS = 5 + FEATURES
MODELS = Path(__file__).parent / "models"

INPUTS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "live": ("uint8", ("rows", "columns", "bytes")),
    "field": ("uint8", ("rows", "columns")),
    "table": ("float32", (LEVELS,)),
    "inverse": ("float32", (LEVELS,)),
    "max_value": ("float32", (1,)),
}
"""The graph's inputs, in order: dtype and shape. `bytes` is 1 or 2 per sample, low byte first."""
OUTPUTS: dict[str, tuple[str, tuple[str | int, ...]]] = {
    "synthetic": ("uint8", ("rows", "columns", "bytes")),
    "attention": ("uint8", ("rows", "columns")),
    "statistics": ("float32", (STATISTICS,)),
}
"""The graph's outputs, in order. Statistics: finite flag, then min, max, mean and area of A, then the features by which
`calib/domain.py` knows whether the frame is like the taught ones."""


@dataclass(frozen=True)
class ModelCard:
    """What a model file says of itself.

    Raises:
        ValueError: The threshold is outside 0 to below 1.
    """

    preset: str
    network_size: int
    threshold: float
    """t of the attention's clamp."""
    taught: bool
    """Whether the weights were taught; random ones never stream as SYNTHETIC."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """The network's black and white."""
    training_run: dict[str, Any] = field(default_factory=dict)
    """How the weights were taught: steps, seeds, settings; empty for random weights."""
    data_sha256: str = ""
    """Hash of the training data, empty where there is none."""
    licence: str = "Apache-2.0"
    sha256: str = ""
    """The ONNX file's own hash: the model's name."""
    reference_greys: tuple[tuple[float, float], ...] = ()
    """(percentile, grey level 0 to 1) inside the field of the contrast-free frames that the network was taught on; empty
    where nobody measured them. `calib.intensity_site` brings a site's frames to these."""
    domain: dict[str, Any] | None = None
    """Statistics of the taught frames, as `calib.domain.TaughtDomain.card` gives them; None where nobody measured them.
    Only in the sidecar: they are measured with the finished file."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold < 1.0:
            raise ValueError(f"the attention's threshold must be 0 to below 1, got {self.threshold}")
        if self.reference_greys:
            check_reference(self.reference_greys)

    def properties(self) -> dict[str, str]:
        """The same facts as strings, for the ONNX file's own metadata; a file cannot hold its own hash."""
        facts = dataclasses.asdict(self)
        del facts["sha256"], facts["domain"]
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


@dataclass(frozen=True)
class ModelFile:
    """A model whose file and sidecar belong together."""

    path: Path
    card: ModelCard


def file_sha256(path: Path) -> str:
    """A file's SHA-256, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save_card(card: ModelCard, path: Path) -> ModelCard:
    """Write the sidecar of the ONNX file at `path`; returns the card with the file's hash."""
    card = dataclasses.replace(card, sha256=file_sha256(path))
    text = json.dumps({"format": FORMAT, **dataclasses.asdict(card)}, indent=2)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    return card


def load_model(model: str | Path) -> ModelFile:
    """Find a model and check that it is whole.

    Args:
        model: A shipped preset's name, or the path of an ONNX file with its sidecar beside it.

    Raises:
        ModelError: No such file, no sidecar, or they do not belong together.
    """
    path = (
        MODELS / f"{model}.onnx" if Path(model).name == str(model) and not Path(model).suffix else Path(model)
    )
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in MODELS.glob("*.onnx"))) or "none"
        raise ModelError(f"needed a model file, found none at {path}; shipped models: {shipped}")
    card = _read_card(path.with_suffix(".json"))
    if (found := file_sha256(path)) != card.sha256:
        raise ModelError(
            f"{path.name} must have the SHA-256 {card.sha256[:16]}... of its sidecar, got {found[:16]}...; "
            f"it was cut off or changed: copy both files again"
        )
    return ModelFile(path, card)


def _read_card(path: Path) -> ModelCard:
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(
            f"needed the sidecar {path.name} beside the model, found none; copy it along, or export again"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(f"the sidecar {path.name} must be JSON, got: {error}; copy it again") from error
    if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
        raise ModelError(f"the sidecar {path.name} must have the format {FORMAT}; export the model again")
    needed = {"preset": str, "network_size": int, "threshold": float, "taught": bool, "sha256": str}
    for name, kind in needed.items():
        if not isinstance(facts.get(name), kind):
            raise ModelError(
                f"the sidecar {path.name} needs {name} as {kind.__name__}, got {facts.get(name)!r}; "
                f"export the model again"
            )
    known = {entry.name for entry in dataclasses.fields(ModelCard)}
    facts["value_range"] = tuple(facts.get("value_range", (-1.0, 1.0)))
    try:
        facts["reference_greys"] = tuple(
            (float(p), float(grey)) for p, grey in facts.get("reference_greys", ())
        )
    except (TypeError, ValueError):
        raise ModelError(
            f"the sidecar {path.name} needs reference_greys as pairs of numbers, got {facts['reference_greys']!r}; "
            "copy it again"
        ) from None
    try:
        return ModelCard(**{name: value for name, value in facts.items() if name in known})
    except ValueError as error:
        raise ModelError(f"the sidecar {path.name}: {error}") from error
