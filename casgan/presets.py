"""The presets of the network: one architecture, several widths and scales. Standard library only."""

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
    deep_widths: tuple[int, ...] = ()
    """Channels of M's deeper stages, each at half the size of the one above: what lets it see the whole picture."""
    deep_blocks: int = 2
    """Residual blocks of M's deepest stage; the stages above have one."""
    decoders: int = 1
    """1: attention and context share the decoder; 2: each has a whole one."""
    shuffle_up: bool = True
    """Go up by a 1x1 convolution and pixel shuffle; else by linear resize and a 3x3 convolution."""

    def __post_init__(self) -> None:
        counts = (
            self.unshuffle,
            self.background_blocks,
            self.predictor_blocks,
            self.deep_blocks,
            *self.widths,
            *self.deep_widths,
        )
        if min(counts) < 1 or self.decoders not in (1, 2) or len(self.widths) < 2:
            raise ValueError(
                f"a preset needs positive counts, two widths or more and 1 or 2 decoders: {self}"
            )
        if self.network_size < self.stride or self.network_size % self.stride:
            raise ValueError(
                f"the network's size must be a multiple of its stride {self.stride}, got {self.network_size}"
            )

    @property
    def latent_stride(self) -> int:
        """Network pixels per latent pixel."""
        return int(self.unshuffle * 2 ** (len(self.widths) - 1))

    @property
    def stride(self) -> int:
        """Network pixels per pixel of the deepest stage: what the network's size must be a multiple of."""
        return int(self.latent_stride * 2 ** len(self.deep_widths))


PRESETS: dict[str, PresetConfig] = {
    preset.name: preset
    for preset in (
        PresetConfig("compact", 256, 4, (48, 96), 1, 2, 1, deep_widths=(128, 192)),
        PresetConfig("compact-s", 256, 4, (32, 64), 1, 2, 1, deep_widths=(96, 128)),
        PresetConfig("full", 512, 2, (128, 256), 3, 4, 2, shuffle_up=False, deep_widths=(256, 256, 256)),
        PresetConfig(
            "paper", 256, 1, (64, 128, 256), 4, 4, 2, decoders=2, shuffle_up=False, deep_widths=(256, 256)
        ),
    )
}
