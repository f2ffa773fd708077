"""The settings of the measuring commands, one frozen dataclass each; the string below a field is its help."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tyro.conf import Positional  # the one mark a dataclass cannot express: an argument without a flag


@dataclass(frozen=True)
class BenchConfig:
    """Measure this machine: the whole path, paced, beside a floor of the same hops in the same run."""

    workload: Positional[Literal["live"]] = "live"
    """live: source, ring, guard, engine, publisher and a client in a process of its own."""
    source: Positional[str] = "phantom"
    """phantom, or a recorded cine loop (looped)."""
    rate: float = 30.0
    """Frames per second."""
    size: int = 512
    """Rows and columns of the phantom."""
    frames: int = 2000
    """Frames measured, after the warm-up."""
    model: str = "compact"
    """A shipped model's name, or an ONNX file."""
    engine: Literal["auto", "openvino", "onnxruntime"] = "auto"
    """The runtime."""
    threads: int | None = None
    """Threads of a CPU engine."""
    out: Path | None = None
    """Write the report as JSON."""


@dataclass(frozen=True)
class DoctorConfig:
    """Tell what works on this machine and how to mend the rest."""

    out: Path | None = None
    """Write it as JSON too."""
