"""The settings of the measuring commands, one frozen dataclass each; the string below a field is its help."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import (
    Positional,
    arg,
)  # what a dataclass cannot express: an argument without a flag, and its name


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
    """A shipped model's name, an ONNX file, or a preset's name: one that no model is shipped of gets random weights."""
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


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure what a model draws: vessels, background, steadiness, distances, beside baselines; with a page of pictures.

    On the digital phantom the truth is known. On a folder of real frames an independent vessel segmenter judges,
    and nothing there says whether a vessel is where the patient's is.
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")]
    """A shipped model's name, an .onnx file, or the folder of a training run."""
    data: str = "phantom"
    """`phantom`, or a folder of real frames as `train` takes it; of those only the test patients are used."""
    out: Path = Path("eval.json")
    """The report; the page of pictures (.html) and a sheet of them (.png) are written beside it."""
    seed: int = 960
    """The first phantom patient; 900 to 999 are kept for evaluation. Also the seed of every random choice."""
    patients: int = 24
    """Phantom patients, two frames each."""
    variation: float = 0.2
    """How far the phantom's tree departs from what its heart's outline tells, 0 to 1."""
    size: int = 512
    """Rows and columns of a frame."""
    judge: Path | None = None
    """The segmenter that judges (.safetensors with its card); by default the shipped one, taught on the phantom."""
    second_judge: Path | None = None
    """Another segmenter, taught on other patients; how far the two agree is then reported."""
    test_patients: tuple[str, ...] = ()
    """Patients of the folder to test on; by default the last fifth."""
    overrides: Path | None = None
    """A table of decisions on the folder's frames, changed by a person, as `train` takes it."""
    inception: Path | None = None
    """torch-fidelity's Inception weights, for FID and KID too; needs contrastream[fid], and was not tested here."""
    threads: int | None = None
    """CPU threads."""

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise ValueError(f"--seed must be 0 or above, got {self.seed}")
        if self.patients < 2:
            raise ValueError(f"--patients must be 2 or more, got {self.patients}; intervals want 4")
        if not (math.isfinite(self.variation) and 0.0 <= self.variation <= 1.0):
            raise ValueError(f"--variation must be 0 to 1, got {self.variation}")
        if not 128 <= self.size <= 1024 or self.size % 16:
            raise ValueError(f"--size must be a multiple of 16 from 128 to 1024 pixels, got {self.size}")
        if self.threads is not None and self.threads < 1:
            raise ValueError(f"--threads must be 1 or more, got {self.threads}")
        if self.out.suffix != ".json":
            raise ValueError(f"--out must end in .json, got {self.out.name}")
        if not self.out.parent.is_dir():
            raise ValueError(f"--out needs an existing folder, got {self.out.parent}; make it first")
