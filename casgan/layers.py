# mypy: allow-subclassing-any
"""What the networks are built of.

Nothing here may depend on where a vessel lies relative to the latent's grid. A stride without a low pass
makes vessels jump while the anatomy moves smoothly, and pixel shuffle leaves a lattice. So every halving of
features is a fixed binomial blur with stride 2 before its convolution, and every pixel shuffle is followed
by a fixed blur with zeros at the lattice's own frequencies.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

BINOMIAL = (1.0, 2.0, 1.0)
"""Zero at 1/2 cycle per pixel: ends what aliases at stride 2, and the lattice of pixel shuffle 2."""
QUARTER = (1.0, 2.0, 2.0, 2.0, 1.0)
"""(1, 1, 1, 1) * (1, 1): zeros at 1/4 and 1/2 cycle per pixel, the lattice of pixel shuffle 4."""

Norm = Callable[[int], nn.Module]
"""Makes the norm of so many channels."""


class Blur(nn.Module):
    """A fixed separable low pass, channel by channel. Edges are replicated, so a constant stays constant.

    Args:
        channels: Channels in and out.
        taps: Odd number of weights of one axis; normalised here.
        stride: Keep every `stride`-th sample.
    """

    kernel: Tensor

    def __init__(self, channels: int, taps: tuple[float, ...], stride: int = 1) -> None:
        super().__init__()
        row = torch.tensor(taps) / sum(taps)
        self.register_buffer("kernel", torch.outer(row, row).repeat(channels, 1, 1, 1), persistent=False)
        self.reach = len(taps) // 2
        self.stride = stride

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h2 w2"]:
        padded = functional.pad(x, (self.reach,) * 4, mode="replicate")
        return functional.conv2d(padded, self.kernel, stride=self.stride, groups=x.shape[1])


class ConvNorm(nn.Module):
    """Convolution, a norm and, if asked, ReLU. `fold` makes it one convolution with a bias where the norm is a BatchNorm."""

    def __init__(
        self, inputs: int, outputs: int, size: int = 3, *, relu: bool = True, norm: Norm = nn.BatchNorm2d
    ) -> None:
        super().__init__()
        # Zero padding fuses into the convolution everywhere; reflection is kept for the 7x7 ends.
        mode = "reflect" if size == 7 else "zeros"
        self.conv = nn.Conv2d(inputs, outputs, size, padding=size // 2, padding_mode=mode, bias=False)
        self.norm: nn.Module = norm(outputs)
        self.relu = relu

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        x = self.norm(self.conv(x))
        return functional.relu(x) if self.relu else x

    def fold(self) -> None:
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv, self.norm)
            self.norm = nn.Identity()


class Residual(nn.Module):
    """x + norm(conv(relu(norm(conv(x))))), then no activation."""

    def __init__(self, width: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.first = ConvNorm(width, width, norm=norm)
        self.second = ConvNorm(width, width, relu=False, norm=norm)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.second(self.first(x))


class ShuffleUp(nn.Module):
    """Twice the size: 1x1 convolution, pixel shuffle, the blur that removes its lattice, ReLU."""

    def __init__(self, inputs: int, outputs: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, 4 * outputs, 1, relu=False, norm=norm)
        self.blur = Blur(outputs, BINOMIAL)
        start_like_nearest(self.conv.conv, 2)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        return functional.relu(self.blur(functional.pixel_shuffle(self.conv(x), 2)))


class LinearUp(nn.Module):
    """Twice the size: linear resize, then a 3x3 convolution."""

    def __init__(self, inputs: int, outputs: int, norm: Norm = nn.BatchNorm2d) -> None:
        super().__init__()
        self.conv = ConvNorm(inputs, outputs, norm=norm)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h2 w2"]:
        size = (2 * x.shape[-2], 2 * x.shape[-1])
        return self.conv(functional.interpolate(x, size=size, mode="bilinear", align_corners=False))


def start_like_nearest(conv: nn.Conv2d, scale: int) -> None:
    """ICNR: the convolution before a pixel shuffle starts as nearest-neighbour upsampling, without a lattice."""
    outputs = conv.out_channels // scale**2
    with torch.no_grad():
        conv.weight.copy_(conv.weight[:outputs].repeat_interleave(scale**2, dim=0))
        if conv.bias is not None:
            conv.bias.copy_(conv.bias[:outputs].repeat_interleave(scale**2, dim=0))


class DeepStage(nn.Module):
    """x plus what is seen of it at half the size: there, one block, the next deeper stage, and back up.

    Args:
        width: Channels in and out.
        deeper: Channels of this stage and of those below it.
        blocks: Residual blocks of the deepest.
    """

    def __init__(self, width: int, deeper: tuple[int, ...], blocks: int) -> None:
        super().__init__()
        inner, rest = deeper[0], deeper[1:]
        self.down = nn.Sequential(Blur(width, BINOMIAL, stride=2), ConvNorm(width, inner))
        below: list[nn.Module] = (
            [Residual(inner), DeepStage(inner, rest, blocks)]
            if rest
            else [Residual(inner) for _ in range(blocks)]
        )
        self.below = nn.Sequential(*below)
        self.up = ShuffleUp(inner, width)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        return x + self.up(self.below(self.down(x)))
