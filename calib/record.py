"""A site's record: what the calibration of one source and one model found, kept in one TOML file."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from calib.errors import CalibrationError
from calib.record_text import read_toml, write_toml
from calib.results import (
    ClockResult,
    DomainResult,
    GeometryResult,
    IntensityResult,
    PhantomResult,
    PrecisionResult,
    StepResult,
)
from calib.whole_files import write_whole

SCHEMA = "contrastream.site/1"
MAX_BYTES = 1 << 18
"""No record is larger; something else is not read into memory."""
HEADING = """A site's calibration by `contrastream calib`. Use: contrastream run SOURCE --site THIS_FILE
`contrastream calib show THIS_FILE` prints it; `contrastream calib run` makes it anew. No patient data is in here.
Research tool, not a medical device."""


@dataclass(frozen=True)
class SourceIdentity:
    """Which frames the record is for: a source that differs in any of this is another site."""

    kind: str
    """cine, video, folder, image, device or phantom."""
    rows: int
    columns: int
    bits_stored: int
    photometric: str
    """MONOCHROME1 or MONOCHROME2."""
    device: str = ""
    """What tells the device from others, as words or a hash; empty where the source says nothing."""

    def __post_init__(self) -> None:
        for name, value, low, high in (
            ("rows", self.rows, 64, 2048),
            ("columns", self.columns, 64, 2048),
            ("bits_stored", self.bits_stored, 8, 16),
        ):
            if not low <= value <= high:
                raise ValueError(f"{name} must be {low} to {high}, got {value}")
        if self.photometric not in ("MONOCHROME1", "MONOCHROME2"):
            raise ValueError(f"photometric must be MONOCHROME1 or MONOCHROME2, got {self.photometric!r}")


@dataclass(frozen=True)
class ModelIdentity:
    """Which model's grey levels, statistics and engine the record was measured with."""

    name: str
    """What it was called then."""
    sha256: str
    """Of its ONNX file, hexadecimal: this is what counts."""

    def __post_init__(self) -> None:
        if len(self.sha256) != 64 or not set(self.sha256) <= set("0123456789abcdef"):
            raise ValueError(f"sha256 must be 64 hexadecimal digits, got {self.sha256!r}")


@dataclass(frozen=True)
class SiteRecord:
    """What the steps found; those that were not run are None."""

    schema: str
    created: str
    """When it was last written, UTC, ISO 8601."""
    version: str
    """Contrastream's."""
    source: SourceIdentity
    model: ModelIdentity
    geometry: GeometryResult | None = None
    intensity: IntensityResult | None = None
    domain: DomainResult | None = None
    precision: PrecisionResult | None = None
    clock: ClockResult | None = None
    phantom: PhantomResult | None = None

    def __post_init__(self) -> None:
        if self.schema != SCHEMA:
            raise ValueError(
                f"needed a record of the schema {SCHEMA}, got {self.schema!r}; calibrate again with this version"
            )

    @property
    def steps(self) -> dict[str, StepResult]:
        """The steps that were run, by name, in the order in which they are run."""
        found = {name: getattr(self, name) for name in STEPS}
        return {name: result for name, result in found.items() if result is not None}

    def check_fits(self, source: SourceIdentity | None = None, model_sha256: str | None = None) -> None:
        """Refuse another source or model than the record is for.

        Args:
            source: What is about to run; None where it is not known yet.
            model_sha256: Of the model about to run; None where there is none or it is not known yet.

        Raises:
            CalibrationError: They differ; the sentence names in what.
        """
        said = [] if source is None else differences(self.source, source)
        if model_sha256 is not None and model_sha256 != self.model.sha256:
            said.append(f"model {self.model.name} {self.model.sha256[:12]}, got {model_sha256[:12]}")
        if said:
            raise CalibrationError(
                f"the site's record is for another {'source' if source else 'model'}: needed {'; '.join(said)}; "
                "calibrate this one: contrastream calib run SOURCE --out another.toml"
            )


STEPS = ("geometry", "intensity", "domain", "precision", "clock", "phantom")
"""In the order in which they are run: each needs those before it."""


def differences(needed: SourceIdentity, got: SourceIdentity) -> list[str]:
    """In what a source differs from the one that a record is for, `name needed, got other` each."""
    said = []
    if (needed.rows, needed.columns) != (got.rows, got.columns):
        said.append(f"frames of {needed.rows} x {needed.columns}, got {got.rows} x {got.columns}")
    if needed.bits_stored != got.bits_stored:
        said.append(f"{needed.bits_stored} bits stored, got {got.bits_stored}")
    for name in ("photometric", "kind", "device"):
        one, other = getattr(needed, name), getattr(got, name)
        if one != other:
            said.append(f"{name} {one or 'unknown'}, got {other or 'unknown'}")
    return said


def read_record(path: Path) -> SiteRecord:
    """Read a site's record.

    Raises:
        CalibrationError: It is not there, no record, of another schema, or was changed into something that is none;
            key and line are named.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise CalibrationError(
            f"needed a site's record, got {path}: {error.strerror}; make one: contrastream calib run SOURCE --out "
            "site.toml"
        ) from None
    if len(data) > MAX_BYTES:
        raise CalibrationError(
            f"{path.name} must be a site's record of at most {MAX_BYTES} bytes, got a larger file"
        )
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CalibrationError(
            f"{path.name} must be TOML in UTF-8, got other bytes at {error.start}"
        ) from None
    return read_toml(SiteRecord, text, path.name)


def write_record(record: SiteRecord, path: Path) -> None:
    """Write a site's record, whole or not at all.

    Raises:
        CalibrationError: It cannot be written.
        ValueError: A figure in it is not finite, which is a fault of the step.
    """
    write_files({path: write_toml(record, HEADING).encode()})


def write_files(files: dict[Path, bytes], *, private: bool = False) -> None:
    """Write files, each replaced in one go, and none before all of them are on the disk.

    Args:
        files: What goes into each.
        private: For this user alone.

    Raises:
        CalibrationError: One cannot be written; none was replaced, and nothing is left behind.
    """
    try:
        write_whole(files, private=private)
    except OSError as error:
        raise CalibrationError(
            f"needed to write {error.filename}, got: {error.strerror}; make room or choose another --out"
        ) from None


def with_step(record: SiteRecord, name: str, result: StepResult, *, created: str, version: str) -> SiteRecord:
    """The record with one step's result in the place of a former one."""
    if name not in STEPS:
        raise ValueError(f"a step is one of {', '.join(STEPS)}, got {name!r}")
    return dataclasses.replace(record, created=created, version=version, **{name: result})  # type: ignore[arg-type]  # checked by the record's reader
