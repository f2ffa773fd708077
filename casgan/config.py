"""The presets of the network and the settings of its training. Standard library only."""

from dataclasses import dataclass

VALUE_RANGE = (-1.0, 1.0)
"""The network's grey levels: black and white."""


@dataclass(frozen=True)
class PresetConfig:
    """One network. Presets differ in width and scale, never in structure.

    The latent lies at 1 / (unshuffle * 2 ** (len(widths) - 1)) of the network's size.

    Raises:
        ValueError: The size is not a multiple of the latent's stride, or a count is not positive.
    """

    name: str
    network_size: int
    """Rows and columns at which the network runs; frames are letterboxed to it."""
    unshuffle: int
    """Space-to-depth factor before the first convolution; 1 is a 7x7 stem at full resolution."""
    widths: tuple[int, ...]
    """Channels after the stem and after each halving; the last is the latent's."""
    background_blocks: int
    """Residual blocks of E_BG."""
    predictor_blocks: int
    """Residual blocks of M."""
    decoder_blocks: int
    """Residual blocks of the decoder before it goes up."""
    decoders: int = 1
    """1: attention and context share the decoder; 2: each has a whole one."""
    shuffle_up: bool = True
    """Go up by a 1x1 convolution and pixel shuffle; else by linear resize and a 3x3 convolution."""

    def __post_init__(self) -> None:
        counts = (self.unshuffle, self.background_blocks, self.predictor_blocks, *self.widths)
        if min(counts) < 1 or self.decoders not in (1, 2) or len(self.widths) < 2:
            raise ValueError(
                f"a preset needs positive counts, two widths or more and 1 or 2 decoders: {self}"
            )
        if self.network_size < self.stride or self.network_size % self.stride:
            raise ValueError(
                f"the network's size must be a multiple of its stride {self.stride}, got {self.network_size}"
            )

    @property
    def stride(self) -> int:
        """Network pixels per latent pixel."""
        return int(self.unshuffle * 2 ** (len(self.widths) - 1))


PRESETS: dict[str, PresetConfig] = {
    preset.name: preset
    for preset in (
        PresetConfig("compact", 256, 4, (48, 96), 2, 2, 1),
        PresetConfig("compact-s", 256, 4, (32, 64), 2, 2, 1),
        PresetConfig("full", 512, 2, (128, 256), 4, 4, 2, shuffle_up=False),
        PresetConfig("paper", 256, 1, (64, 128, 256), 4, 4, 2, decoders=2, shuffle_up=False),
    )
}


@dataclass(frozen=True)
class TrainConfig:
    """How a network is taught from paired pictures of the digital phantom.

    Raises:
        ValueError: A setting is outside its range.
    """

    out: str = "out/train"
    """Folder for the checkpoint and its configuration; a checkpoint found there is continued."""
    preset: str = "compact"
    """Which network: compact, compact-s, full or paper."""
    steps: int = 1200
    """Optimizer steps, 1 or above."""
    batch: int = 6
    """Pictures per step."""
    size: int = 0
    """Rows and columns of a training picture; 0 is the network's own size."""
    patients: int = 480
    """Phantom patients to learn from."""
    frames_per_patient: int = 2
    """Pictures of each patient, at random phases of heartbeat and breath."""
    first_seed: int = 1000
    """The first patient's seed; those below are kept for evaluation and demonstration."""
    learning_rate: float = 2e-3
    """Adam's peak learning rate; cosine to zero after a short rise."""
    ema: float = 0.99
    """Decay of the running average of the weights, which is what is kept."""
    threshold: float = 0.1
    """t of the attention's clamp, in training and in the exported graph."""
    seed: int = 0
    """Of weights, order and augmentation."""
    threads: int = 2
    """CPU threads."""
    save_every: int = 100
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset must be one of {', '.join(PRESETS)}, got {self.preset!r}")
        for name in ("steps", "batch", "patients", "frames_per_patient", "threads", "save_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be 1 or above, got {getattr(self, name)}")
        if not 0.0 <= self.threshold < 1.0 or not 0.0 <= self.ema < 1.0:
            raise ValueError(f"threshold and ema must be 0 to below 1, got {self.threshold} and {self.ema}")
        if not self.learning_rate > 0.0:
            raise ValueError(f"learning_rate must be above 0, got {self.learning_rate}")
        side, stride = self.picture_size, PRESETS[self.preset].stride
        if side < 64 or side % stride:
            raise ValueError(f"size must be a multiple of {stride}, 64 or above, got {side}")

    @property
    def picture_size(self) -> int:
        """Rows and columns of a training picture."""
        return self.size or PRESETS[self.preset].network_size
