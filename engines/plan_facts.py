"""What a plan was built for and what it holds: its key, and the sidecar that is read before the plan is believed."""

import dataclasses
import hashlib
import json
import math
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Literal, get_args

FORMAT = "contrastream.plan/1"
PlanBackend = Literal["tensorrt", "tensorrt_rtx"]
PlanPrecision = Literal["f16", "f32"]
MAX_SIDECAR_BYTES = 1024**2
DERIVING = ("fold.py", "typed.py", "audit.py", "plan.py")
"""The files whose code makes the plan of a source model; another text of theirs may make another plan."""


@dataclass(frozen=True)
class PlanKey:
    """Everything that a plan was built for. Another value of any of them needs another plan.

    Raises:
        ValueError: A hash that is none, an unknown backend or precision, or nothing where something is needed.
    """

    model_sha256: str
    """The source model's name."""
    backend: PlanBackend
    version: str
    """Of the library, in full: a plan runs on no other."""
    device: str
    """The GPU's name and compute capability; for TensorRT-RTX the compute capabilities that were asked for."""
    rows: int
    columns: int
    sample_bytes: int
    """1 or 2 per sample at the graph's edges."""
    precision: PlanPrecision
    recipe: str
    """Hash of our own code that makes a plan of a source model."""
    preset: str = field(default="", compare=False)
    """Of the model; only to be read by a person."""

    def __post_init__(self) -> None:
        if len(self.model_sha256) != 64 or set(self.model_sha256) - set("0123456789abcdef"):
            raise ValueError(
                f"a model's name is a SHA-256 of 64 hexadecimal digits, got {self.model_sha256!r}"
            )
        if self.backend not in get_args(PlanBackend):
            raise ValueError(f"plans are of {' or '.join(get_args(PlanBackend))}, got {self.backend!r}")
        if self.precision not in get_args(PlanPrecision):
            raise ValueError(f"plans are f16 or f32, got {self.precision!r}")
        if not (self.version and self.device and self.recipe):
            raise ValueError(f"a plan is of a version, a device and a recipe, got {self}")
        if min(self.rows, self.columns) < 1 or self.sample_bytes not in (1, 2):
            raise ValueError(
                f"a plan is for frames of 1 or 2 bytes a sample, got "
                f"{self.rows}x{self.columns} of {self.sample_bytes}"
            )

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits that stand for all of it."""
        facts = dataclasses.asdict(self)
        del facts["preset"]
        return short_hash(json.dumps(facts, sort_keys=True))

    @property
    def purpose(self) -> str:
        """What it is for, whatever builds and runs it; begins the name of its files."""
        return f"{self.model_sha256[:12]}-{self.backend}-{self.rows}x{self.columns}x{self.sample_bytes}-{self.precision}"

    @property
    def name(self) -> str:
        """Its files' name without the ending."""
        return f"{self.purpose}-{self.identity}"


@dataclass(frozen=True)
class PlanFacts:
    """What the sidecar says of a plan."""

    key: PlanKey
    plan_sha256: str
    plan_bytes: int
    activation_bytes: int | None
    """Memory on the GPU for each frame in flight; None where the library does not say."""
    weights_bytes: int | None
    """Memory on the GPU for the weights, once."""
    seconds: float
    """How long deriving the graph and building took."""
    census: dict[str, int]
    """Layers by kind and number type, as the library names them: `CONVOLUTION HALF`."""
    warnings: tuple[str, ...]
    """The library's."""
    built: str
    """Date and time in UTC, ISO 8601: a label, never compared."""


class Unfit(Exception):
    """Why a kept plan cannot be used."""


def recipe() -> str:
    """The hash of our own code between a source model and its plan, so that no plan of an older version lives on."""
    digest = hashlib.sha256()
    for name in DERIVING:
        digest.update(Path(__file__).with_name(name).read_bytes())
    return digest.hexdigest()[:12]


def difference(found: PlanKey, needed: PlanKey) -> str:
    """What a plan was built for that is not what is needed; empty where there is nothing."""
    for entry in dataclasses.fields(PlanKey):
        had, wanted = getattr(found, entry.name), getattr(needed, entry.name)
        if entry.compare and had != wanted:
            if entry.name == "recipe":
                return "the one in the cache was built by another version of contrastream"
            word = {"version": needed.backend, "model_sha256": "model"}.get(entry.name, entry.name)
            return f"the one in the cache was built for {word} {had}, here it is {wanted}"
    return ""


def read_facts(path: Path) -> PlanFacts:
    """A sidecar.

    Raises:
        Unfit: It is missing, or not a sidecar of this version.
    """
    try:
        if path.stat().st_size > MAX_SIDECAR_BYTES:
            raise Unfit("the sidecar of the one in the cache is no sidecar: it is too large")
        said = json.loads(path.read_text(encoding="utf-8"))
        if said.pop("format") != FORMAT:
            raise ValueError("another format")
        whole = {each: int if each in ("rows", "columns", "sample_bytes") else str for each in said["key"]}
        if any(type(value) is not whole[each] for each, value in said["key"].items()):
            raise ValueError("a key that is none")
        said["key"] = PlanKey(**said["key"])
        said["warnings"] = tuple(map(str, said["warnings"]))
        said["census"] = {str(layer): int(count) for layer, count in said["census"].items()}
        facts = PlanFacts(**said)
        if not (isinstance(facts.plan_sha256, str) and isinstance(facts.built, str)):
            raise ValueError("a hash or a date that is none")
        datetime.fromisoformat(facts.built).timestamp()
        numbers = (facts.plan_bytes, facts.seconds, facts.activation_bytes or 0, facts.weights_bytes or 0)
        if not all(isinstance(number, int | float) and 0 <= number < math.inf for number in numbers):
            raise ValueError("a size or a time that is none")
    except FileNotFoundError:
        raise Unfit("the one in the cache has no sidecar: writing it was cut off") from None
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        AttributeError,
        OverflowError,
        RecursionError,
    ) as error:
        raise Unfit(f"the sidecar of the one in the cache cannot be read: {error}") from error
    return facts


def read_checked(path: Path, facts: PlanFacts) -> bytes:
    """A plan's bytes.

    Raises:
        Unfit: They are not those that were written.
    """
    try:
        if (size := path.stat().st_size) != facts.plan_bytes:
            raise Unfit(
                f"the one in the cache was cut off or changed: {facts.plan_bytes} bytes were written, found {size}"
            )
        plan = path.read_bytes()
    except OSError as error:
        raise Unfit(f"the one in the cache cannot be read: {error.strerror or error}") from error
    if hashlib.sha256(plan).hexdigest() != facts.plan_sha256:
        raise Unfit(
            "the one in the cache was changed: its bytes do not have the hash of those that were written"
        )
    return plan


def short_hash(text: str) -> str:
    """Twelve hexadecimal digits of a text's SHA-256."""
    return hashlib.sha256(text.encode()).hexdigest()[:12]
