# mypy: allow-subclassing-any
"""CUT (Park et al., ECCV 2020, arXiv:2007.15651): one direction; a patch of y_g must remain that patch of x.

    L = L_GAN(G, D, X, Y) + lambda_X L_PatchNCE(G, H, X) + lambda_Y L_PatchNCE(G, H, Y), both lambdas 1
    L_PatchNCE: at each of 256 places of five layers of G's encoder, cross-entropy of telling the patch's own feature
    in x from those of the other places of the same picture:
        -log exp(v v+ / tau) / (exp(v v+ / tau) + sum exp(v v- / tau)),  tau = 0.07, v = H(feature), of length 1
The second term is the identity: y through G against y. v+ and v- pass no gradient, as in MoCo and as its authors do.
"""

from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional

from casgan.discriminators import views
from casgan.methods.blocks import ResNetGenerator
from casgan.methods.method import Batch, Latent, Loss, Made, Method, Picture, within
from casgan.presets import PresetConfig
from casgan.training_networks import BLACK

PATCHES = 256
WIDTH = 256
TEMPERATURE = 0.07
TAPPED_BLOCKS = (0, 4)
"""Residual blocks whose output is compared, beside the picture itself and its way down: the first and the fifth."""


class TappedGenerator(ResNetGenerator):
    """CycleGAN's generator, whose encoder can be asked on its way."""

    def taps(self, x: Picture) -> list[Float[Tensor, "b _ _ _"]]:
        """The picture, the features after the last two parts of the way down, after the first and the fifth block."""
        scales = self.descent.scales(x)
        found = [functional.pixel_unshuffle(x, self.preset.unshuffle), *scales[-2:]]
        z = scales[-1]
        for index, block in enumerate(self.blocks[: TAPPED_BLOCKS[-1] + 1]):
            z = block(z)
            if index in TAPPED_BLOCKS:
                found.append(z)
        return found


class Projector(nn.Module):
    """H: features at some places, through two layers, to length 1."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(channels, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def forward(
        self, features: Float[Tensor, "b c h w"], places: Int[Tensor, " p"]
    ) -> Float[Tensor, "b p k"]:
        chosen = features.flatten(2)[..., places].transpose(1, 2)
        return functional.normalize(self.layers(chosen).float(), dim=2)


class Cut(Method):
    """G alone, with a projector for each tapped layer."""

    weights: ClassVar[dict[str, float]] = {"adversarial": 1.0, "nce_x": 1.0, "nce_y": 1.0}
    judges: ClassVar[tuple[str, ...]] = ("d_y",)

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__(preset)
        self.live: TappedGenerator = TappedGenerator(preset)
        down = preset.widths[-2:]
        channels = (preset.unshuffle**2, *down, *(preset.widths[-1] for _ in TAPPED_BLOCKS))
        self.projectors = nn.ModuleList(Projector(count) for count in channels)

    def forward(self, batch: Batch) -> Made:
        x, x_field, y, y_field, _ = batch
        y_g, y_same = self.live.picture(torch.cat([x, y])).chunk(2)
        shown = {"d_y": views(y, y_field, y_g, x_field, BLACK)}
        terms = {
            "nce_x": self.patch_nce(within(y_g, x_field), x, batch),
            "nce_y": self.patch_nce(within(y_same, y_field), y, batch),
        }
        return Made(shown, terms)

    def patch_nce(self, generated: Picture, source: Picture, batch: Batch) -> Loss:
        """The mean over layers of telling each patch from the others."""
        found = []
        pairs = zip(self.live.taps(generated), self.live.taps(source), self.projectors, strict=True)
        for ours, theirs, projector in pairs:
            places = self._places(ours, batch)
            found.append(contrast(projector(ours, places), projector(theirs, places).detach()))
        return torch.stack(found).mean()

    def _places(self, features: Latent, batch: Batch) -> Int[Tensor, " p"]:
        count = features.shape[-2] * features.shape[-1]
        chosen = torch.randperm(count, generator=batch.draw)[:PATCHES]
        return chosen.to(features.device)


def contrast(ours: Float[Tensor, "b p k"], theirs: Float[Tensor, "b p k"]) -> Loss:
    """Cross-entropy of naming each place's own feature among those of its picture."""
    likeness = ours @ theirs.transpose(1, 2) / TEMPERATURE
    own = torch.arange(ours.shape[1], device=ours.device).expand(len(ours), -1)
    return functional.cross_entropy(likeness.flatten(0, 1), own.flatten())
