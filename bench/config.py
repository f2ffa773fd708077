"""The settings of the measuring commands, one frozen dataclass each; the string below a field is its help."""

import math
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
    """Frames measured, after the warm-up; 18000 at 30 per second is ten minutes."""
    warmup: int | None = None
    """Frames before the measured ones; by default 100, or one whole loop of the source where that is longer."""
    model: str = "compact"
    """A shipped model's name, or an ONNX file."""
    engine: Literal["auto", "off", "tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime"] = "auto"
    """The runtime; off measures the path without an engine, and then there is no floor to compare with."""
    threads: int | None = None
    """Threads of a CPU engine."""
    out: Path | None = None
    """Write the report as JSON."""

    def __post_init__(self) -> None:
        if not (math.isfinite(self.rate) and 0 < self.rate <= 240):
            raise ValueError(f"--rate must be above 0 and at most 240 frames per second, got {self.rate}")
        if self.frames < 1:
            raise ValueError(f"--frames must be 1 or more, got {self.frames}; p99 wants 1000")
        if self.warmup is not None and self.warmup < 10:
            raise ValueError(
                f"--warmup must be 10 or more, got {self.warmup}; a cold machine measures itself"
            )
        if not 64 <= self.size <= 2048:
            raise ValueError(f"--size must be 64 to 2048 pixels a side, got {self.size}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be 1 or more, got {self.threads}")
        if self.out is not None and not self.out.parent.is_dir():
            raise ValueError(f"--out needs an existing folder, got {self.out.parent}; make it first")


@dataclass(frozen=True)
class DoctorConfig:
    """Tell what works on this machine and how to mend the rest."""

    out: Path | None = None
    """Write it as JSON too."""

    def __post_init__(self) -> None:
        if self.out is not None and not self.out.parent.is_dir():
            raise ValueError(f"--out needs an existing folder, got {self.out.parent}; make it first")
