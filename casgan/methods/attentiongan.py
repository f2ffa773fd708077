# mypy: allow-subclassing-any
"""AttentionGAN (Tang et al., IEEE TNNLS 2021, arXiv:1911.11897): CycleGAN whose generators say where they draw.

A generator makes n - 1 = 9 content masks C_f and n = 10 attention masks, of which a softmax over the masks makes shares:
    G(x) = sum_f C_f A_f + x A_b        A_f: nine foregrounds, A_b: the background, which keeps the input
    L = L_GAN + 10 L_cyc + 5 L_identity, in least squares, as CycleGAN's.
So A = 1 - A_b and C = sum_f C_f A_f / (1 - A_b) draw the same picture in the form x (1 - A) + C A: its attention is its own.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from casgan.methods.blocks import Ascent, Descent, residuals
from casgan.methods.cyclegan import CycleGan
from casgan.methods.derived import inverse_tanh
from casgan.methods.method import Latent, Method, Picture
from casgan.networks import Head, LivePath, blend
from casgan.presets import PresetConfig

MASKS = 10
BLOCKS = 9


class AttentionGenerator(LivePath):
    """One encoder; a way up of its own for contents and for masks."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__(preset)
        self.descent = Descent(preset)
        self.blocks = residuals(preset, BLOCKS)
        self.to_contents, self.to_masks = Ascent(preset), Ascent(preset)
        self.contents = Head(preset, bias=0.0, planes=MASKS - 1)
        self.masks = Head(preset, bias=0.0, planes=MASKS)

    def attention_and_context(self, x: Picture) -> tuple[Picture, Picture, Latent]:
        """The logit of A, C itself (-1 to 1), and the latent."""
        z = self.blocks(self.descent(x))
        contents = torch.tanh(self.contents(self.to_contents(z)).float())
        masks: Float[Tensor, "b m h w"] = self.masks(self.to_masks(z)).float()
        foreground, background = masks[:, :-1], masks[:, -1:]
        # sigmoid(logsumexp(f) - b) = sum e^f / (sum e^f + e^b), the share of all foregrounds.
        # Written out: OpenVINO 2026.4's own ReduceLogSumExp is off by up to 8.
        largest = foreground.amax(dim=1, keepdim=True)
        total = torch.exp(foreground - largest).sum(dim=1, keepdim=True)
        attention = largest + torch.log(total) - background
        context = (torch.softmax(foreground, dim=1) * contents).sum(dim=1, keepdim=True)
        return attention, context, z

    def logits_and_latent(self, x: Picture) -> tuple[Picture, Picture, Latent]:
        attention, context, z = self.attention_and_context(x)
        return attention, inverse_tanh(context), z

    def picture(self, x: Picture) -> Picture:
        """y_g, -1 to 1."""
        attention, context, _ = self.attention_and_context(x)
        return blend(x, torch.sigmoid(attention), context)


class AttentionGan(CycleGan):
    """As CycleGAN, with other generators."""

    def __init__(self, preset: PresetConfig) -> None:
        Method.__init__(self, preset)
        self.live = AttentionGenerator(preset)
        self.back = AttentionGenerator(preset)
