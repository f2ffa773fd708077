"""The settings of `bench methods`. Standard library only."""

import difflib
import hashlib
import itertools
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, get_args

from tyro.conf import arg

from casgan.config import EVALUATION_SEEDS, LossWeights, Part, TrainConfig
from casgan.methods.names import METHODS, title_of

ANCHORED = "casgan-pairs"
"""CAS-GAN with known pairs beside the unpaired frames, as this project teaches it: more than the others are told."""


@dataclass(frozen=True)
class Contestant:
    """What is taught and measured under the protocol."""

    key: str
    """Its name on the command line and of its files."""
    method: str
    without: tuple[Part, ...] = ()
    anchored: bool = False
    """With phantom pairs beside the unpaired frames."""

    @property
    def title(self) -> str:
        """Its name in a table."""
        return title_of(self.method, self.without) + (" and known pairs" if self.anchored else "")


def _sizes_hash(folder: Path) -> str:
    """Tells a folder from another without its name: the hash of how many bytes each file in it has."""
    sizes = sorted(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    return _hash(repr(sizes).encode())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]


def _contestants() -> dict[str, Contestant]:
    every = [Contestant(name, name) for name in METHODS]
    for count in (1, 2, 3):
        for parts in itertools.combinations(get_args(Part), count):
            every.append(Contestant("-".join(("casgan-without", *parts)), "casgan", parts))
    every.append(Contestant(ANCHORED, "casgan", anchored=True))
    return {each.key: each for each in every}


CONTESTANTS = _contestants()
"""By key: Table I's six methods, Table II's seven ablations, and CAS-GAN with known pairs."""


@dataclass(frozen=True)
class MethodsConfig:
    """Teach CAS-GAN, its five rivals and its ablations under one protocol, and measure them alike; resumable.

    The same unpaired frames, batches, augmentations, steps and schedule for each, from chance, then the same frames of patients
    that none has seen. Each run leaves a small JSON; `contrastream evaluate --table` makes Tables I and II of them. Stopped by
    Ctrl-C, the same command goes on where it was.
    """

    methods: Annotated[tuple[str, ...], arg(metavar="NAME")] = tuple(CONTESTANTS)
    """Which: casgan, cyclegan, unit, munit, cut, attentiongan, casgan-without-drl and so on, casgan-pairs; by default all 14."""
    seeds: Annotated[tuple[int, ...], arg(metavar="N")] = (0,)
    """Of weights and order; a method is taught once for each."""
    data: str = "phantom"
    """Unpaired frames: phantom, or a folder as `train` takes it."""
    preset: str = "compact-s"
    """Widths and scales of every network."""
    size: Annotated[int, arg(metavar="PIXELS")] = 64
    """Rows and columns of a training picture and of the networks."""
    steps: Annotated[int, arg(metavar="N")] = 300
    """Optimizer steps of each run; with --minutes, at most."""
    minutes: Annotated[float | None, arg(metavar="MIN")] = None
    """Wall-clock budget of each run's teaching; one that it ends is measured as it then is, and its steps are told."""
    batch: Annotated[int, arg(metavar="N")] = 4
    """Pictures of each domain per step."""
    patients: Annotated[int, arg(metavar="N")] = 120
    """Phantom patients of each domain, two pictures each."""
    segmenter: Annotated[Path | None, arg(metavar="FILE")] = None
    """The vessel U-Net of CAS-GAN's semantic loss; none named: one is taught on phantom angiograms, once for all runs."""
    segmenter_steps: Annotated[int, arg(metavar="N")] = 600
    """Steps of that teaching."""
    test_patients: tuple[str, ...] = ()
    """Patients of the folder to test on; by default the last fifth."""
    overrides: Path | None = None
    """A table of decisions on the folder's frames, changed by a person."""
    first_test_seed: int = 960
    """The first phantom patient that is tested on; below 1000."""
    test_seeds: Annotated[int, arg(metavar="N")] = 24
    """Phantom patients that are tested on, two frames each."""
    frame_size: Annotated[int, arg(metavar="PIXELS")] = 256
    """Rows and columns of a test frame."""
    live_frames: Annotated[int, arg(metavar="N")] = 0
    """Frames of 512 x 512 at 30 per second through the live path for each method, one after the other once all are there, for its p99, which wants 1,000; 0: not measured."""
    threads: Annotated[int, arg(metavar="N")] = 1
    """CPU threads."""
    out: Annotated[Path, arg(metavar="FOLDER")] = Path("out/methods")
    """Checkpoints, models and pictures."""
    results: Annotated[Path | None, arg(metavar="FOLDER")] = None
    """The small JSON files; by default `results` in --out."""

    def __post_init__(self) -> None:
        for name in self.methods:
            if name not in CONTESTANTS:
                near = difflib.get_close_matches(name, CONTESTANTS, 1, 0.5)
                hint = f"; did you mean {near[0]}?" if near else ""
                raise ValueError(f"--methods takes {', '.join(CONTESTANTS)}, got {name!r}{hint}")
        if not self.methods or not self.seeds or min(self.seeds) < 0:
            raise ValueError(
                f"--methods and --seeds need one or more, seeds 0 or above, got {self.methods} {self.seeds}"
            )
        if self.minutes is not None and not (math.isfinite(self.minutes) and self.minutes > 0.0):
            raise ValueError(f"--minutes must be above 0, got {self.minutes}")
        last = self.first_test_seed + self.test_seeds
        if self.first_test_seed < 0 or last > EVALUATION_SEEDS.stop:
            raise ValueError(
                f"the test's phantom patients must lie below {EVALUATION_SEEDS.stop}, where nothing is taught, got "
                f"{self.first_test_seed} to {last - 1}; lower --test-seeds"
            )
        if self.data == "phantom" and self.test_seeds < 4:
            raise ValueError(
                f"--test-seeds must be 4 or more, got {self.test_seeds}: intervals are taken over patients"
            )
        if not 64 <= self.frame_size <= 1024 or self.frame_size % 16:
            raise ValueError(
                f"--frame-size must be a multiple of 16 from 64 to 1024 pixels, got {self.frame_size}"
            )
        if self.overrides is not None and not self.overrides.is_file():
            raise ValueError(
                f"--overrides needs a table of decisions, found no file {self.overrides}; a run of train writes one as decisions.csv"
            )
        if self.live_frames < 0:
            raise ValueError(f"--live-frames must be 0 or more, got {self.live_frames}")
        for name in self.methods:
            # Refused now, not after the runs before it.
            self.training(CONTESTANTS[name], self.seeds[0])

    @property
    def results_folder(self) -> Path:
        """Where the small files go."""
        return self.results or self.out / "results"

    def training(self, contestant: Contestant, seed: int) -> TrainConfig:
        """The settings of one run of `contrastream train`."""
        return TrainConfig(
            data=self.data,
            method=contestant.method,
            without=contestant.without,
            preset=self.preset,
            size=self.size,
            steps=self.steps,
            warm_steps=0,
            companion_steps=0,
            batch=self.batch,
            patients=self.patients,
            segmenter=str(self.segmenter or ""),
            segmenter_steps=self.segmenter_steps,
            test_patients=self.test_patients,
            overrides=str(self.overrides or ""),
            weights=LossWeights() if contestant.anchored else LossWeights(anchor=0.0),
            seed=seed,
            threads=self.threads,
            sample_minutes=0.0,
            save_every=max(50, self.steps // 10),
            out=str(self.out / f"{contestant.key}-{seed}"),
        )

    def protocol(self) -> dict[str, object]:
        """What two results must share to stand in one table; a folder by the sizes of its files, since its name may be a person's."""
        names = ("preset", "size", "steps", "minutes", "batch", "patients", "segmenter_steps", "frame_size")
        facts: dict[str, object] = {name: getattr(self, name) for name in names}
        folder = None if self.data == "phantom" else _sizes_hash(Path(self.data))
        facts["data"] = "phantom" if folder is None else f"folder {folder}"
        if self.data == "phantom":
            facts["test_seeds"] = [self.first_test_seed, self.first_test_seed + self.test_seeds - 1]
        else:
            # As a hash with the folder's own, since a name may be a person's.
            facts["test_patients"] = _hash(repr((folder, sorted(self.test_patients))).encode())
            facts["overrides"] = None if self.overrides is None else _hash(self.overrides.read_bytes())
        return facts
