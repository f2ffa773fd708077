"""What a pipeline runs, and what its engine process is told of it."""

import dataclasses
from typing import Any

from stream.pacing import Pacing
from stream.site import Site
from stream.sources.options import SourceOptions

ENGINE_SLOTS = 2


@dataclasses.dataclass(frozen=True)
class PipelineConfig:
    """What a pipeline runs."""

    source: str
    options: SourceOptions
    pacing: Pacing = dataclasses.field(default_factory=Pacing)
    endpoint: str | None = None
    model: str = "compact"
    engine: str = "auto"
    """A backend's name, `auto` for the first usable one, `off` for live pictures only."""
    untaught: bool = False
    threads: int | None = None
    """Threads of a CPU engine; None leaves it to the runtime."""
    domain: bool = True
    """Leave frames live that are unlike the taught ones."""
    slots: int = 16
    crc: bool = False
    wait_for_engine: bool = False
    """Begin only when the engine is warm (a replay), not at once (a room)."""
    wait_for_client: bool = False
    """Begin only when the measuring client is there, and end when it goes."""
    fault: str | None = None
    """Faults to inject into the source, as `stream.sources.faults.parse_faults` takes them. A test, and it says so."""
    fault_seed: int = 0
    """Of what is drawn at random in them."""
    site: Site | None = None
    """What this site's calibration found; None for the default grey levels on the whole frame."""
    audit_folder: str | None = None
    """Where the audit log is kept; None for none."""
    patient: str | None = None
    """The file of a patient's adaptation to begin with; None for the general model."""


def engine_config(config: PipelineConfig) -> dict[str, Any]:
    """What the engine process needs to begin: its first packet."""
    return {
        "model": config.model,
        "backend": config.engine,
        "untaught": config.untaught,
        "threads": config.threads,
        "slots": ENGINE_SLOTS,
        "site": None if config.site is None else config.site.engine_settings(),
    }
