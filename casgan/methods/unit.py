# mypy: allow-subclassing-any
"""UNIT (Liu, Breuel, Kautz, NeurIPS 2017, arXiv:1703.00848): two variational autoencoders with one latent space.

    q(z | x) = N(E_X(x), I), z = E_X(x) + eta;  y_g = G_Y(z)
    L_VAE_X = lambda_1 KL(q(z | x) || N(0, I)) - lambda_2 log p(x | z), of a Laplacian: |G_X(z) - x|_1
    L_CC_X = lambda_3 (KL(q(z | x)) + KL(q(z | y_g))) - lambda_4 log p(x | G_X(E_Y(y_g) + eta))
    L_GAN in least squares against discriminators at three scales
KL of a normal of unit variance is |E(x)|^2 / 2 and a constant. The weights' ratios are the authors': 10 for pictures, 0.01
for KL. The last residual block of the encoders and the first of the decoders are shared, which is what makes one latent space.
"""

from typing import ClassVar

import torch
from torch import nn

from casgan.losses import image_cycle, reconstruction
from casgan.methods.blocks import Descent, Drawing, LayerNorm, residuals
from casgan.methods.derived import DerivedPath
from casgan.methods.method import Batch, Latent, Loss, Made, Method, Picture, both_ways, within
from casgan.methods.scales import HALVINGS, at_scales, names_at_scales
from casgan.presets import PresetConfig

BLOCKS = 4
"""Residual blocks of each encoder and of each decoder, the shared one among them."""


class Shared(nn.Module):
    """What both domains have in common: the block before the latent, and the block after it."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        self.before, self.after = residuals(preset, 1), residuals(preset, 1)


class DomainEncoder(nn.Module):
    """From a picture to what the shared block makes the latent of."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(Descent(preset), residuals(preset, BLOCKS - 1))

    def forward(self, x: Picture) -> Latent:
        return self.layers(x)


class DomainDecoder(nn.Module):
    """From what the shared block makes of the latent to a picture."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(residuals(preset, BLOCKS - 1), Drawing(preset, LayerNorm))

    def forward(self, z: Latent) -> Picture:
        return self.layers(z)


class UnitPath(DerivedPath):
    """E_X, the shared blocks, G_Y; live there is no noise on the latent."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__(preset)
        self.encoder = DomainEncoder(preset)
        self.shared = Shared(preset)
        self.decoder = DomainDecoder(preset)

    def picture_and_latent(self, x: Picture) -> tuple[Picture, Latent]:
        z = self.shared.before(self.encoder(x))
        return self.decoder(self.shared.after(z)), z


class Unit(Method):
    """Both autoencoders; the live path holds one half of each."""

    weights: ClassVar[dict[str, float]] = {
        "adversarial": 1.0,
        "reconstruct_x": 10.0,
        "reconstruct_y": 10.0,
        "kl": 0.01,
        "cycle_x": 10.0,
        "cycle_y": 10.0,
        "kl_cycle": 0.01,
    }
    judges: ClassVar[tuple[str, ...]] = names_at_scales("d_x", "d_y")
    halvings: ClassVar[int] = HALVINGS
    judge_norms: ClassVar[bool] = False
    weight_decay: ClassVar[float] = 1e-4

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__(preset)
        self.live: UnitPath = UnitPath(preset)
        self.y_encoder = DomainEncoder(preset)
        self.x_decoder = DomainDecoder(preset)

    def forward(self, batch: Batch) -> Made:
        x, x_field, y, y_field, _ = batch
        mean_x, mean_y = self._mean(x, self.live.encoder), self._mean(y, self.y_encoder)
        z_x, z_y = self._noisy(mean_x, batch), self._noisy(mean_y, batch)
        x_rec, x_g = self._picture(torch.cat([z_x, z_y]), self.x_decoder).chunk(2)
        y_g, y_rec = self._picture(torch.cat([z_x, z_y]), self.live.decoder).chunk(2)
        mean_y_g = self._mean(within(y_g, x_field), self.y_encoder)
        mean_x_g = self._mean(within(x_g, y_field), self.live.encoder)
        x_again = self._picture(self._noisy(mean_y_g, batch), self.x_decoder)
        y_again = self._picture(self._noisy(mean_x_g, batch), self.live.decoder)
        terms = {
            "reconstruct_x": reconstruction(x_rec, x, x_field),
            "reconstruct_y": reconstruction(y_rec, y, y_field),
            "kl": divergence(mean_x) + divergence(mean_y),
            "cycle_x": image_cycle(x_again, x, x_field),
            "cycle_y": image_cycle(y_again, y, y_field),
            "kl_cycle": divergence(mean_y_g) + divergence(mean_x_g),
        }
        return Made(at_scales(both_ways(batch, x_g, y_g)), terms)

    def _mean(self, picture: Picture, encoder: DomainEncoder) -> Latent:
        return self.live.shared.before(encoder(picture)).float()

    def _noisy(self, mean: Latent, batch: Batch) -> Latent:
        return mean + batch.normal(*mean.shape)

    def _picture(self, z: Latent, decoder: DomainDecoder) -> Picture:
        return decoder(self.live.shared.after(z))


def divergence(mean: Latent) -> Loss:
    """KL of N(mean, I) from N(0, I), mean over the latent's numbers instead of their sum, as its authors weigh it."""
    return mean.square().mean()
