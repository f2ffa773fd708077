"""The settings of teaching. Standard library only."""

import dataclasses
import math
from dataclasses import dataclass, field
from typing import Any, Literal

from casgan.methods.names import METHODS, check_method
from casgan.presets import PRESETS, PresetConfig

EVALUATION_SEEDS = range(1000)
"""Phantom patients that nothing is taught on."""
SEGMENTER_SEEDS = range(3000, 5000)
"""Phantom patients of the vessel segmenters: the semantic loss's, and the judge's from 4000 on."""

Precision = Literal["auto", "32", "bf16", "16"]
Part = Literal["drl", "vsgg", "vsgl"]


@dataclass(frozen=True)
class LossWeights:
    """How much each term of CAS-GAN's stage weighs. The paper's are not known: these are ours."""

    adversarial: float = 1.0
    """D_X and D_Y on pictures."""
    semantic: float = 1.0
    """D_Sem on vessel masks."""
    prediction: float = 1.0
    """M against E_Vess."""
    cycle_x: float = 5.0
    """x -> y_g -> x."""
    cycle_y: float = 2.0
    """y -> x_g -> y through M; keep it at or below 2."""
    reconstruct_x: float = 5.0
    """x through E_BG and G_BG."""
    reconstruct_y: float = 10.0
    """y from x_g and E_Vess(y)."""
    latent: float = 0.5
    """The anatomy's latent does not change with contrast."""
    anchor: float = 1.0
    """The paired stages' error on phantom pairs, so that what was placed stays in place; 0: nothing holds it."""
    sparsity: float = 0.1
    """Mean attention."""
    darkening: float = 5.0
    """Contrast never makes a pixel brighter."""
    shift: float = 1.0
    """Vessels move with the picture; ramped in over the first third."""

    def __post_init__(self) -> None:
        for name, value in dataclasses.asdict(self).items():
            if not 0.0 <= value < math.inf:
                raise ValueError(f"the weight {name} must be 0 or above, got {value}")
        if self.cycle_y > 2.0:
            raise ValueError(
                f"the weight cycle_y must be at most 2, got {self.cycle_y}; see casgan/losses.py"
            )


@dataclass(frozen=True)
class TrainConfig:
    """Teach a network on the digital phantom, then on unpaired frames.

    Three stages: `warm` teaches the live path on paired phantom pictures, `companions` adds the networks that
    only training needs, `cas-gan` goes on with unpaired frames. A stage of 0 steps is left out. The other methods learn
    from unpaired frames alone: `--steps` of one stage, `unpaired`.

    Raises:
        ValueError: A setting is outside its range.
    """

    data: str = "phantom"
    """Unpaired frames: phantom, or a folder (XCAD's layout, folders of cine runs, DICOM)."""
    method: str = "casgan"
    """What is taught: casgan, or one of those it is compared with: cyclegan, unit, munit, cut, attentiongan."""
    preset: str = "compact"
    """Which network: compact, compact-s, full or paper."""
    out: str = "out/train"
    """Folder for checkpoints, logs and pictures."""
    start_from: str = ""
    """Folder of an earlier run of the same preset, whose averaged network the first stage begins with."""
    warm_steps: int = 1500
    """Steps on paired phantom pictures, the live path alone."""
    companion_steps: int = 300
    """Steps on paired phantom pictures with all networks; left out where there is no CAS-GAN stage."""
    steps: int = 6000
    """Steps of CAS-GAN on unpaired frames; 0 ends after the paired ones, which is what the shipped models did."""
    warm_batch: int = 6
    """Pictures per step and process in the paired stages."""
    batch: int = 4
    """Pictures of each domain per step and process in CAS-GAN's stage."""
    size: int = 0
    """Rows and columns of a training picture; 0 is the network's own size."""
    patients: int = 480
    """Phantom patients of the paired stages; the phantom's unpaired frames are of as many others."""
    frames_per_patient: int = 2
    """Pictures of each phantom patient, at random phases of heartbeat and breath."""
    inlay: float = 0.0
    """Share of the paired pictures whose background is a contrast-free training frame of the folder, 0 to 1; the vessels
    laid into it are the phantom's, and their place means nothing."""
    first_seed: int = 1000
    """The first phantom patient's seed, 1000 or above."""
    overrides: str = ""
    """A table in which a person has changed which frames are contrast-free or filled."""
    test_patients: tuple[str, ...] = ()
    """Patients of the folder kept for the test; none named: the last fifth."""
    segmenter: str = ""
    """The vessel U-Net of the semantic loss; none named: one is taught on phantom angiograms first."""
    segmenter_steps: int = 600
    """Steps of that teaching."""
    without: tuple[Part, ...] = ()
    """Leave out drl (latents), vsgg (blend) or vsgl (semantic loss): the poster's Table II."""
    predict_from: Literal["emptied", "angiogram"] = "emptied"
    """What M reads in the prediction loss: y emptied of its vessels, or y itself as in the paper."""
    learning_rate: float = 2e-3
    """Peak of the paired stages: a short rise, then half a cosine to zero."""
    gan_learning_rate: float = 2e-4
    """CAS-GAN's; falls to zero over the last 40 %."""
    discriminator_rate: float = 1.0
    """The discriminators' learning rate over the generator's."""
    discriminator_width: int = 32
    """Channels of the first layer of each discriminator."""
    weights: LossWeights = field(default_factory=LossWeights)
    """What each term of CAS-GAN's stage weighs."""
    frozen_norms: bool = False
    """Keep the norms' statistics of the paired stages through CAS-GAN's."""
    ema: float = 0.99
    """Decay of the running average of the weights in the paired stages; the average is what is kept."""
    gan_ema: float = 0.998
    """The same in CAS-GAN's stage."""
    threshold: float = 0.1
    """t of the attention's clamp, in training and in the exported graph."""
    seed: int = 0
    """Of weights, order and augmentation."""
    precision: Precision = "auto"
    """Of the networks; losses are in 32 bits. auto: bf16 where the device computes in it, else 32."""
    devices: int = 1
    """Processes on this machine, one GPU each where there are GPUs; torchrun's own number counts more."""
    threads: int = 2
    """CPU threads of each process."""
    resume: Literal["auto", "never"] = "auto"
    """auto: go on with the run in `out`, if there is one; never: refuse a folder that holds one."""
    save_every: int = 100
    """Steps between checkpoints."""
    sample_minutes: float = 3.0
    """Minutes between pictures of how far it is; 0: only at the end of each stage."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        check_method(self.method, self.without)
        for name in ("warm_batch", "batch", "patients", "frames_per_patient", "segmenter_steps"):
            self._at_least(name, 1)
        for name in ("devices", "threads", "save_every", "discriminator_width"):
            self._at_least(name, 1)
        for name in ("warm_steps", "companion_steps", "steps", "sample_minutes", "first_seed"):
            self._at_least(name, 0)
        if self.steps + (self.warm_steps if self.paired else 0) < 1:
            both = "warm_steps and steps must not both be 0"
            raise ValueError(both if self.paired else f"steps must be 1 or above for {self.method}, got 0")
        if self.inlay and not self.paired:
            raise ValueError(
                f"inlay is of the paired stages, which {self.method} does not have; leave --inlay away"
            )
        for name in ("threshold", "ema", "gan_ema"):
            if not 0.0 <= getattr(self, name) < 1.0:
                raise ValueError(f"{name} must be 0 to below 1, got {getattr(self, name)}")
        for name in ("learning_rate", "gan_learning_rate", "discriminator_rate"):
            if not 0.0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} must be above 0, got {getattr(self, name)}")
        if not 0.0 <= self.inlay <= 1.0:
            raise ValueError(f"inlay must be 0 to 1, got {self.inlay}")
        if self.inlay and self.data == "phantom":
            raise ValueError(
                "inlay needs a folder of frames, got --data phantom; the phantom's pairs are whole already"
            )
        side, stride = self.picture_size, PRESETS[self.preset].stride
        if side < 64 or side % stride:
            raise ValueError(f"size must be a multiple of {stride}, 64 or above, got {side}")

        self._check_seeds()

    def _check_seeds(self) -> None:
        """Phantom patients never serve two ends."""
        if self.first_seed < EVALUATION_SEEDS.stop:
            raise ValueError(
                f"first_seed must be {EVALUATION_SEEDS.stop} or above, got {self.first_seed}: seeds below "
                f"{EVALUATION_SEEDS.stop} are for evaluation"
            )
        uses = 3 if self.steps and self.data == "phantom" else 1
        last = self.first_seed + uses * self.patients - 1
        if self.first_seed < SEGMENTER_SEEDS.stop and last >= SEGMENTER_SEEDS.start:
            raise ValueError(
                f"phantom seeds {self.first_seed} to {last} must not meet those of the segmenters, "
                f"{SEGMENTER_SEEDS.start} to {SEGMENTER_SEEDS.stop - 1}; lower patients, or start at "
                f"{SEGMENTER_SEEDS.stop}"
            )

    def _at_least(self, name: str, least: int) -> None:
        if not getattr(self, name) >= least:
            raise ValueError(f"{name} must be {least} or above, got {getattr(self, name)}")

    @property
    def paired(self) -> bool:
        """Whether the method has stages on phantom pairs."""
        return self.method == "casgan"

    @property
    def drawn_above(self) -> float:
        """t of the attention's clamp in what is exported: 0 where a method's own picture is to be drawn unchanged."""
        clamped = METHODS[self.method].clamped and "vsgg" not in self.without
        return self.threshold if clamped else 0.0

    @property
    def picture_size(self) -> int:
        """Rows and columns of a training picture."""
        return self.size or PRESETS[self.preset].network_size

    @property
    def network(self) -> PresetConfig:
        """The preset at the size it is taught at, which is the size at which it runs."""
        return dataclasses.replace(PRESETS[self.preset], network_size=self.picture_size)

    @classmethod
    def from_dict(cls, settings: dict[str, Any]) -> "TrainConfig":
        """Settings as `dataclasses.asdict` and JSON leave them.

        Raises:
            TypeError, ValueError: They are of another version, or outside their range.
        """
        tuples = {name: tuple(settings[name]) for name in ("test_patients", "without")}
        return cls(**{**settings, **tuples, "weights": LossWeights(**settings["weights"])})


FREE_TO_CHANGE = ("out", "threads", "devices", "resume", "save_every", "sample_minutes")
"""What a resumed run may say otherwise; all else changes what is learnt."""


def differences(saved: TrainConfig, asked: TrainConfig) -> list[str]:
    """What two runs say otherwise, as `name is 4 there, 8 here`."""
    there, here = dataclasses.asdict(saved), dataclasses.asdict(asked)
    return [
        f"{name} is {there[name]!r} there, {here[name]!r} here"
        for name in here
        if name not in FREE_TO_CHANGE and there[name] != here[name]
    ]
