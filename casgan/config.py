"""The settings of teaching. Standard library only."""

from dataclasses import dataclass

from casgan.presets import PRESETS


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
