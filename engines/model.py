"""A model on disk: the ONNX file, and the sidecar that says what it is without a library to read ONNX.

The file's SHA-256 is the model's name; the sidecar carries it, so a file that was cut off or changed is
found before a runtime reads it. Files from elsewhere are opened only where the user trusts them (`engines/trust.py`).
"""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from calib.domain import FEATURES
from calib.intensity import check_reference
from casgan.methods.names import check_method
from casgan.presets import PRESETS
from engines.errors import ModelError
from engines.onnx_parts import check_one_file
from engines.trust import SHIPPED, is_trusted, remember_made_here

FORMAT = "contrastream.model/2"
OWN = "own"
"""The preset of a model that was made of another network than ours (`engines/adopt.py`)."""
LEVELS = 256
"""Knots of a grey-level table."""
STATISTICS = 5 + FEATURES
MODELS = Path(__file__).parent / "models"
MAX_MODEL_BYTES = 1 << 30
"""Of a model file; the largest preset has 60 MB."""
MAX_CARD_BYTES = 4 << 20
"""Of a sidecar; ours have 30 kB."""

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
        ValueError: The threshold is outside 0 to below 1, or the method is none of ours.
    """

    preset: str
    network_size: int
    threshold: float
    """t of the attention's clamp."""
    taught: bool
    """Whether the weights were taught; random ones never stream as SYNTHETIC."""
    value_range: tuple[float, float] = (-1.0, 1.0)
    """The network's black and white."""
    method: str = "casgan"
    """What was taught; one of `casgan.methods.names.METHODS`, or `own`."""
    without: tuple[str, ...] = ()
    """What CAS-GAN was taught without: drl, vsgg, vsgl."""
    attention: str = "own"
    """`own`: the network says where it draws. `derived`: it makes a picture alone, and the attention is told from what
    that changed (`casgan/methods/derived.py`)."""
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
    f16_margin: float | None = None
    """How many times the largest value inside the network fits below fp16's largest, over the frames that
    `engines.overflow.probing_frames` gives; None where nobody looked."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.threshold < 1.0:
            raise ValueError(f"the attention's threshold must be 0 to below 1, got {self.threshold}")
        if self.preset != OWN:
            check_method(self.method, self.without)
        if self.attention not in ("own", "derived"):
            raise ValueError(
                f"attention must be own or derived, got {self.attention!r}; export the model again"
            )
        if self.reference_greys:
            check_reference(self.reference_greys)

    def properties(self) -> dict[str, str]:
        """The same facts as strings, for the ONNX file's own metadata; a file cannot hold its own hash."""
        facts = dataclasses.asdict(self)
        del facts["sha256"], facts["domain"]
        if self.f16_margin is None:
            del facts["f16_margin"]
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in facts.items()}


CARD_TYPES: dict[str, tuple[type, ...]] = {
    "preset": (str,),
    "network_size": (int,),
    "threshold": (float,),
    "taught": (bool,),
    "method": (str,),
    "without": (list,),
    "attention": (str,),
    "sha256": (str,),
    "value_range": (list,),
    "training_run": (dict,),
    "data_sha256": (str,),
    "licence": (str,),
    "reference_greys": (list,),
    "domain": (dict,),
    "f16_margin": (float,),
}
"""What a sidecar's values must be; what it holds beside these is skipped."""
CARD_NEEDS = ("preset", "network_size", "threshold", "taught", "sha256")

F16_MARGIN = 8.0
"""The least `f16_margin` for half precision: three more bits than the frames that were looked at needed."""


def check_f16(card: ModelCard, name: str) -> None:
    """Refuse half precision for a network whose values come too near to fp16's largest.

    Args:
        card: The model's.
        name: The file, for the message.

    Raises:
        ModelError: Another frame could overflow it.
    """
    if card.f16_margin is not None and not card.f16_margin >= F16_MARGIN:
        raise ModelError(
            f"values inside {name} must stay {F16_MARGIN:g} times below fp16's largest to run in f16, got "
            f"{card.f16_margin:.3g} times when it was exported; use an engine of f32 or bf16 (openvino), or train again"
        )


@dataclass(frozen=True)
class ModelFile:
    """A model whose file and sidecar belong together."""

    path: Path
    card: ModelCard
    kept: bool = True
    """Whether what is derived from it may lie in the user's cache; not of a model that was taught on a patient."""
    cache: Path | None = None
    """A private folder for what is derived from it meanwhile, where it is not kept."""

    @property
    def said_name(self) -> str:
        """What reports and records call it: a preset's name, or `file`, since another file's name may be a person's; the
        hash beside it says which one it is."""
        return self.path.stem if self.path.stem in PRESETS else "file"


def file_sha256(path: Path) -> str:
    """A file's SHA-256, hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def save_card(card: ModelCard, path: Path) -> ModelCard:
    """Write the sidecar of the ONNX file at `path`, which this program has made; returns the card with the file's hash.

    The file is trusted from here on.
    """
    card = dataclasses.replace(card, sha256=file_sha256(path))
    text = json.dumps({"format": FORMAT, **dataclasses.asdict(card)}, indent=2)
    path.with_suffix(".json").write_text(text + "\n", encoding="utf-8")
    remember_made_here(card.sha256)
    return card


def load_model(model: str | Path, *, trusted: bool = False) -> ModelFile:
    """Find a model and check that it is whole, and may be opened.

    Args:
        model: A shipped preset's name, or the path of an ONNX file with its sidecar beside it.
        trusted: The caller answers for it; else it must be shipped, made here, or trusted by the user.

    Raises:
        ModelError: No such file, no sidecar, they do not belong together, or the file came from elsewhere.
    """
    path = (
        MODELS / f"{model}.onnx" if Path(model).name == str(model) and not Path(model).suffix else Path(model)
    )
    if not path.is_file():
        shipped = ", ".join(sorted(file.stem for file in MODELS.glob("*.onnx"))) or "none"
        raise ModelError(f"needed a model file, found none at {path}; shipped models: {shipped}")
    if (size := path.stat().st_size) > MAX_MODEL_BYTES:
        raise ModelError(
            f"a model file has at most {MAX_MODEL_BYTES >> 20} MiB, got {path.name} of {size >> 20} MiB; it is no model "
            "of ours"
        )
    card = _read_card(path.with_suffix(".json"))
    if (found := file_sha256(path)) != card.sha256:
        raise ModelError(
            f"{path.name} must have the SHA-256 {card.sha256[:16]}... of its sidecar, got {found[:16]}...; "
            f"it was cut off or changed: copy both files again"
        )
    if card.sha256 not in SHIPPED:
        if not trusted and not is_trusted(card.sha256):
            raise ModelError(
                f"{path.name} must be shipped or made on this machine by contrastream export, got a file from elsewhere "
                f"(SHA-256 {card.sha256}), and a model file can carry more than weights; where you know who made it, run "
                "once with --trust-model"
            )
        check_one_file(memoryview(path.read_bytes()), path.name)
    return ModelFile(path, card)


def _value_range(said: list[Any], path: Path) -> tuple[float, float]:
    """Black and white of a sidecar; JSON writes whole numbers without a point."""
    try:
        black, white = (float(each) for each in said if type(each) in (int, float))
        if len(said) == 2 and math.isfinite(black) and math.isfinite(white):
            return black, white
    except (ValueError, OverflowError):
        pass
    raise ModelError(
        f"the sidecar {path.name} needs value_range as two numbers, got {shortened(said)}; export the model again"
    )


def shortened(value: object) -> str:
    """A value of somebody else's file, short enough for a sentence."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _read_card(path: Path) -> ModelCard:
    try:
        with path.open("rb") as file:
            text = file.read(MAX_CARD_BYTES + 1)
        if len(text) > MAX_CARD_BYTES:
            raise ValueError(f"more than {MAX_CARD_BYTES >> 20} MiB")
        facts = json.loads(text)
    except FileNotFoundError:
        raise ModelError(
            f"needed the sidecar {path.name} beside the model, found none; copy it along, or export again"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"the sidecar {path.name} must be JSON, got: {error}; copy it again") from error
    if not isinstance(facts, dict) or facts.pop("format", None) != FORMAT:
        raise ModelError(f"the sidecar {path.name} must have the format {FORMAT}; export the model again")
    for name, kinds in CARD_TYPES.items():
        value = facts.get(name)
        if (value is None and name not in CARD_NEEDS) or type(value) in kinds:
            continue
        raise ModelError(
            f"the sidecar {path.name} needs {name} as {' or '.join(kind.__name__ for kind in kinds)}, got "
            f"{shortened(value)}; export the model again"
        )
    facts = {name: value for name, value in facts.items() if value is not None and name in CARD_TYPES}
    facts["value_range"] = _value_range(facts.get("value_range", [-1.0, 1.0]), path)
    facts["without"] = tuple(str(part) for part in facts.get("without", ()))
    try:
        facts["reference_greys"] = tuple(
            (float(p), float(grey)) for p, grey in facts.get("reference_greys", ())
        )
    except (TypeError, ValueError, OverflowError):
        raise ModelError(
            f"the sidecar {path.name} needs reference_greys as pairs of numbers, got "
            f"{shortened(facts['reference_greys'])}; "
            "copy it again"
        ) from None
    try:
        return ModelCard(**facts)
    except ValueError as error:
        raise ModelError(f"the sidecar {path.name}: {error}") from error
