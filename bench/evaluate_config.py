"""The settings of `evaluate`. Standard library only."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from tyro.conf import FlagCreatePairsOff, Positional, arg

RESULTS = Path(__file__).parents[1] / "casgan" / "results"
"""Of the methods, as this repository has them."""


@dataclass(frozen=True)
class EvaluateConfig:
    """Measure what a model draws: vessels, background, steadiness, distances, beside baselines; with a page of pictures.

    On the digital phantom the truth is known. On a folder of real frames an independent vessel segmenter judges,
    and nothing there says whether a vessel is where the patient's is.
    """

    model: Annotated[Positional[str], arg(metavar="MODEL")] = ""
    """A shipped model's name, an .onnx file, or the folder of a training run."""
    table: FlagCreatePairsOff[bool] = False
    """Instead of a model: print Tables I and II of what `bench methods` has measured, and write them into RESULTS.md beside its folder."""
    results: Annotated[Path, arg(metavar="FOLDER")] = RESULTS
    """With --table: the folder of the small files; by default those of this repository."""
    trust_model: FlagCreatePairsOff[bool] = False
    """Trust MODEL, a file from elsewhere, from here on; what contrastream export made on this machine needs none."""
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
    """torch-fidelity's Inception weights, for FID and KID too; needs the extra `fid`, and was not tested here."""
    threads: int | None = None
    """CPU threads."""

    def __post_init__(self) -> None:
        if self.table == bool(self.model):
            given = "both" if self.table else "neither"
            raise ValueError(f"evaluate needs a MODEL, or --table, got {given}; give one of them")
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
