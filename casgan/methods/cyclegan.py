# mypy: allow-subclassing-any
"""CycleGAN (Zhu et al., ICCV 2017, arXiv:1703.10593): two translators and two judges, tied by cycle consistency.

    L(G, F, D_X, D_Y) = L_GAN(G, D_Y, X, Y) + L_GAN(F, D_X, Y, X) + lambda L_cyc(G, F)
    L_cyc = E_x |F(G(x)) - x|_1 + E_y |G(F(y)) - y|_1
    L_identity = E_y |G(y) - y|_1 + E_x |F(x) - x|_1
L_GAN in least squares, lambda = 10, identity at lambda / 2, discriminators on 50 earlier pictures too, as in the paper.
"""

from typing import ClassVar

import torch

from casgan.losses import image_cycle, reconstruction
from casgan.methods.blocks import ResNetGenerator
from casgan.methods.method import Batch, Made, Method, both_ways, within
from casgan.presets import PresetConfig


class CycleGan(Method):
    """G: X -> Y is what is exported; F: Y -> X exists for teaching."""

    weights: ClassVar[dict[str, float]] = {
        "adversarial": 1.0,
        "cycle_x": 10.0,
        "cycle_y": 10.0,
        "identity_x": 5.0,
        "identity_y": 5.0,
    }
    pool: ClassVar[int] = 50

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__(preset)
        self.live: ResNetGenerator = ResNetGenerator(preset)
        self.back = ResNetGenerator(preset)

    def forward(self, batch: Batch) -> Made:
        x, x_field, y, y_field, _ = batch
        y_g, y_same = self.live.picture(torch.cat([x, y])).chunk(2)
        x_g, x_same = self.back.picture(torch.cat([y, x])).chunk(2)
        x_again = self.back.picture(within(y_g, x_field))
        y_again = self.live.picture(within(x_g, y_field))
        terms = {
            "cycle_x": image_cycle(x_again, x, x_field),
            "cycle_y": image_cycle(y_again, y, y_field),
            "identity_x": reconstruction(x_same, x, x_field),
            "identity_y": reconstruction(y_same, y, y_field),
        }
        return Made(both_ways(batch, x_g, y_g), terms)
