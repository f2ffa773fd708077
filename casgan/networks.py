# mypy: allow-subclassing-any
"""The generator path that runs live: E_BG -> M -> decoder -> attention and context heads.

CAS-GAN (arXiv:2410.08490), VSGG: z = E_BG(x); v = M(z); A = sigmoid(G_Attn(v)); C = tanh(G_Ctx(v));
y_g = x (1 - A) + C A. The layers are our choice: the paper's are not known.
"""

import copy
import itertools

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from casgan.layers import (
    BINOMIAL,
    QUARTER,
    Blur,
    ConvNorm,
    DeepStage,
    LinearUp,
    Norm,
    Residual,
    ShuffleUp,
    start_like_nearest,
)
from casgan.presets import PresetConfig


def descent(preset: PresetConfig, norm: Norm = nn.BatchNorm2d) -> list[list[nn.Module]]:
    """The layers from a picture (b, 1, h, w) down to the latent's resolution: the stem's, then those of each halving."""
    first = preset.widths[0]
    if preset.unshuffle == 1:
        stem: list[nn.Module] = [ConvNorm(1, first, 7, norm=norm)]
    else:
        stem = [nn.PixelUnshuffle(preset.unshuffle), ConvNorm(preset.unshuffle**2, first, norm=norm)]
    halvings = [
        [Blur(wide, BINOMIAL, stride=2), ConvNorm(wide, wider, norm=norm)]
        for wide, wider in itertools.pairwise(preset.widths)
    ]
    return [stem, *halvings]


class BackgroundEncoder(nn.Module):
    """E_BG: the picture's anatomy, at the latent's resolution."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        down = itertools.chain(*descent(preset))
        blocks = (Residual(preset.widths[-1]) for _ in range(preset.background_blocks))
        self.layers = nn.Sequential(*down, *blocks)

    def forward(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c h2 w2"]:
        return self.layers(x)


class VesselPredictor(nn.Module):
    """M: from the anatomy's latent to the vessels' latent.

    Where a vessel lies follows from the whole heart, so M's deeper stages see the whole picture, and half of
    its blocks come after them, to bring that together with what lies in place.
    """

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        width = preset.widths[-1]
        layers: list[nn.Module] = [Residual(width) for _ in range(preset.predictor_blocks)]
        if preset.deep_widths:
            layers.insert((len(layers) + 1) // 2, DeepStage(width, preset.deep_widths, preset.deep_blocks))
        self.layers = nn.Sequential(*layers)

    def forward(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return self.layers(z)


class Decoder(nn.Module):
    """From the vessels' latent up to the stem's resolution."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        widths = preset.widths[::-1]
        up = ShuffleUp if preset.shuffle_up else LinearUp
        self.layers = nn.Sequential(
            *(Residual(widths[0]) for _ in range(preset.decoder_blocks)),
            *(up(wide, narrow) for wide, narrow in itertools.pairwise(widths)),
        )

    def forward(self, v: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return self.layers(v)


class Head(nn.Module):
    """One plane at full resolution, or several, before its sigmoid or tanh.

    Args:
        preset: The network.
        bias: Where the plane starts. Attention starts near 0, or the first steps grey the whole picture.
        planes: How many.
    """

    def __init__(self, preset: PresetConfig, bias: float, planes: int = 1) -> None:
        super().__init__()
        scale, width = preset.unshuffle, preset.widths[0]
        self.scale = scale
        if scale == 1:
            self.conv = nn.Conv2d(width, planes, 7, padding=3, padding_mode="reflect")
        else:
            self.conv = nn.Conv2d(width, planes * scale**2, 3, padding=1)
            self.blur = Blur(planes, QUARTER if scale == 4 else BINOMIAL)
            start_like_nearest(self.conv, scale)
        assert self.conv.bias is not None
        nn.init.constant_(self.conv.bias, bias)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b p h2 w2"]:
        x = self.conv(x)
        return x if self.scale == 1 else self.blur(functional.pixel_shuffle(x, self.scale))


class LivePath(nn.Module):
    """What runs live, whatever the method: from x to A and C, with a latent beside them.

    Args:
        preset: The network; the latent has its last width and its `latent_stride`.
    """

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        self.preset = preset

    def logits_and_latent(
        self, x: Float[Tensor, "b 1 h w"]
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"], Float[Tensor, "b c h2 w2"]]:
        """As `logits`, and the latent by which a frame is known to be like the taught ones or not."""
        raise NotImplementedError

    def logits(
        self, x: Float[Tensor, "b 1 h w"]
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]]:
        """Attention and context before sigmoid and tanh.

        Args:
            x: Grey levels, -1 black to 1 white; sides are multiples of the preset's stride.
        """
        attention, context, _ = self.logits_and_latent(x)
        return attention, context

    def forward(
        self, x: Float[Tensor, "b 1 h w"]
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]]:
        """A, 0 to 1, and C, -1 to 1."""
        attention, context = self.logits(x)
        return torch.sigmoid(attention), torch.tanh(context)

    def folded(self) -> "LivePath":
        """A copy for inference: each BatchNorm is folded into its convolution."""
        plain: LivePath = copy.deepcopy(self).eval()
        for module in plain.modules():
            if isinstance(module, ConvNorm):
                module.fold()
        return plain


class Generator(LivePath):
    """CAS-GAN's path that runs live, for one preset."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__(preset)
        self.background = BackgroundEncoder(preset)
        self.predictor = VesselPredictor(preset)
        self.decoders = nn.ModuleList(Decoder(preset) for _ in range(preset.decoders))
        self.attention = Head(preset, bias=-2.0)
        self.context = Head(preset, bias=0.0)

    def logits_and_latent(
        self, x: Float[Tensor, "b 1 h w"]
    ) -> tuple[Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"], Float[Tensor, "b c h2 w2"]]:
        """As `logits`, and z = E_BG(x), by which a frame is known to be like the taught ones or not."""
        z = self.encode(x)
        attention, context = self.decode(self.predict(z))
        return attention, context, z

    def encode(self, x: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b c h2 w2"]:
        """z = E_BG(x)."""
        return self.background(x)

    def predict(self, z: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """v = M(z)."""
        return self.predictor(z)

    def decode(
        self, v: Float[Tensor, "b c h w"]
    ) -> tuple[Float[Tensor, "b 1 h2 w2"], Float[Tensor, "b 1 h2 w2"]]:
        """G_Vess: attention and context of a vessels' latent, before sigmoid and tanh."""
        decoded = [decoder(v) for decoder in self.decoders]
        return self.attention(decoded[0]), self.context(decoded[-1])


def clamp_attention(attention: Float[Tensor, "*shape"], threshold: float) -> Float[Tensor, "*shape"]:
    """Attention with an exact zero: a sigmoid alone never leaves a pixel unchanged.

    A <- max(0, (A - t) / (1 - t)), our choice.
    """
    return functional.relu((attention - threshold) / (1.0 - threshold))


def blend(
    x: Float[Tensor, "*shape"], attention: Float[Tensor, "*shape"], context: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape"]:
    """CAS-GAN (arXiv:2410.08490), VSGG: y_g = x (1 - A) + C A, written so that A = 0 gives x bit for bit."""
    return x + attention * (context - x)


def multiply_accumulates(network: LivePath, rows: int, columns: int) -> int:
    """Multiply-accumulates of the learned convolutions for one frame of the network's input."""
    total = 0

    def count(module: nn.Module, _inputs: object, output: Tensor) -> None:
        nonlocal total
        assert isinstance(module, nn.Conv2d)
        # A batch of several is what one frame costs where a method averages pictures.
        places = output.shape[0] * output.shape[-2] * output.shape[-1]
        total += places * module.weight.numel()

    hooks = [m.register_forward_hook(count) for m in network.modules() if isinstance(m, nn.Conv2d)]
    try:
        network.logits(torch.empty(1, 1, rows, columns, device=next(network.parameters()).device))
    finally:
        for hook in hooks:
            hook.remove()
    return total
