# mypy: allow-subclassing-any
"""What the rivals' networks are built of: the presets' stem, halvings and ways up, with the norms of their papers.

The layer plan is each paper's (blocks, norms, order); widths, the space-to-depth stem and the blurs are the preset's, so
that at one preset every method works at about the same scale. At the preset `paper` the plan is the papers' in full.
"""

import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn

from casgan.layers import LinearUp, Norm, Residual, ShuffleUp
from casgan.methods.derived import DerivedPath
from casgan.networks import Head, descent
from casgan.presets import PresetConfig

Picture = Float[Tensor, "b 1 h w"]
Latent = Float[Tensor, "b c h2 w2"]


def instance_norm(width: int) -> nn.Module:
    """Instance normalisation without weights (arXiv:1607.08022): the norm of all five rivals."""
    return nn.InstanceNorm2d(width)


class LayerNorm(nn.Module):
    """Over channels and places at once, which keeps what a style has set: UNIT's and MUNIT's ways up.

    Written out, with weights of the shape that they are used in: exported otherwise they lose their names.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width, 1, 1))
        self.bias = nn.Parameter(torch.zeros(width, 1, 1))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        exact = x.float()
        centred = exact - exact.mean(dim=(1, 2, 3), keepdim=True)
        variance = (centred * centred).mean(dim=(1, 2, 3), keepdim=True)
        # In the precision that came, which a network held in 16 bits goes on in.
        return (centred / torch.sqrt(variance + 1e-5) * self.weight + self.bias).to(x.dtype)


class Descent(nn.Module):
    """From a picture down to the latent's resolution."""

    def __init__(self, preset: PresetConfig, norm: Norm = instance_norm) -> None:
        super().__init__()
        self.parts = nn.ModuleList(nn.Sequential(*part) for part in descent(preset, norm))

    def forward(self, x: Picture) -> Latent:
        return self.scales(x)[-1]

    def scales(self, x: Picture) -> list[Float[Tensor, "b _ _ _"]]:
        """The features after the stem and after each halving."""
        found = []
        for part in self.parts:
            x = part(x)
            found.append(x)
        return found


class Ascent(nn.Module):
    """From the latent's resolution up to the stem's."""

    def __init__(self, preset: PresetConfig, norm: Norm = instance_norm) -> None:
        super().__init__()
        up = ShuffleUp if preset.shuffle_up else LinearUp
        self.layers = nn.Sequential(
            *(up(wide, narrow, norm) for wide, narrow in itertools.pairwise(preset.widths[::-1]))
        )

    def forward(self, z: Latent) -> Float[Tensor, "b d h3 w3"]:
        return self.layers(z)


def residuals(preset: PresetConfig, count: int, norm: Norm = instance_norm) -> nn.Sequential:
    """So many residual blocks at the latent's resolution."""
    return nn.Sequential(*(Residual(preset.widths[-1], norm) for _ in range(count)))


class Drawing(nn.Module):
    """From the latent up to a picture, -1 to 1."""

    def __init__(self, preset: PresetConfig, norm: Norm = instance_norm) -> None:
        super().__init__()
        self.ascent = Ascent(preset, norm)
        self.head = Head(preset, bias=0.0)

    def forward(self, z: Latent) -> Picture:
        return torch.tanh(self.head(self.ascent(z)).float())


class ResNetGenerator(DerivedPath):
    """The generator of CycleGAN and CUT (after arXiv:1603.08155): down, nine residual blocks, up.

    Args:
        preset: Widths and scales.
        blocks: Residual blocks.
    """

    def __init__(self, preset: PresetConfig, blocks: int = 9) -> None:
        super().__init__(preset)
        self.descent = Descent(preset)
        self.blocks = residuals(preset, blocks)
        self.drawing = Drawing(preset)

    def picture_and_latent(self, x: Picture) -> tuple[Picture, Latent]:
        z = self.blocks(self.descent(x))
        return self.drawing(z), z
