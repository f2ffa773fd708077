# mypy: allow-subclassing-any
"""The U-Net of the vessel segmenter: MONAI's BasicUNet in two dimensions with batch norm, the same weights by the same names.

Written out here since importing MONAI takes longer than importing torch, and nothing else of it is used: 3.4 s of CPU for its 432
modules before anything is taught or judged. A test holds both to the same bits.

After Falk et al., U-Net: deep learning for cell counting, detection, and morphometry, Nature Methods 16, 67-70 (2019).
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

SLOPE = 0.1
"""Of the activations below 0."""


class _Convolution(nn.Module):
    """3x3 convolution, batch norm, leaky ReLU."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out, 3, padding=1)
        self.adn = nn.ModuleDict({"N": nn.BatchNorm2d(channels_out)})

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return functional.leaky_relu(self.adn["N"](self.conv(x)), SLOPE, inplace=True)


class _TwoConvolutions(nn.Module):
    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv_0 = _Convolution(channels_in, channels_out)
        self.conv_1 = _Convolution(channels_out, channels_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        return self.conv_1(self.conv_0(x))


class _Down(nn.Module):
    """To half the size, then two convolutions."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.convs = _TwoConvolutions(channels_in, channels_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d g v"]:
        return self.convs(functional.max_pool2d(x, 2))


class _Up(nn.Module):
    """To twice the size, beside the features of that size on the way down, then two convolutions."""

    def __init__(
        self, channels_in: int, channels_beside: int, channels_out: int, *, halves: bool = True
    ) -> None:
        super().__init__()
        channels_up = channels_in // 2 if halves else channels_in
        self.upsample = nn.ModuleDict({"deconv": nn.ConvTranspose2d(channels_in, channels_up, 2, stride=2)})
        self.convs = _TwoConvolutions(channels_beside + channels_up, channels_out)

    def forward(
        self, x: Float[Tensor, "b c h w"], beside: Float[Tensor, "b e g v"]
    ) -> Float[Tensor, "b d g v"]:
        x = self.upsample["deconv"](x)
        # A side that was odd has lost a pixel on the way down.
        missing = [there - here for there, here in zip(beside.shape[-2:], x.shape[-2:], strict=True)]
        if any(missing):
            x = functional.pad(x, (0, missing[1], 0, missing[0]), mode="replicate")
        return self.convs(torch.cat([beside, x], dim=1))


class UNet(nn.Module):
    """Five levels, one channel in and one out.

    Args:
        features: Channels of the five levels, from full resolution down, and of the last two convolutions.
    """

    def __init__(self, features: Sequence[int]) -> None:
        super().__init__()
        first, second, third, fourth, fifth, last = features
        self.conv_0 = _TwoConvolutions(1, first)
        self.down_1 = _Down(first, second)
        self.down_2 = _Down(second, third)
        self.down_3 = _Down(third, fourth)
        self.down_4 = _Down(fourth, fifth)
        self.upcat_4 = _Up(fifth, fourth, fourth)
        self.upcat_3 = _Up(fourth, third, third)
        self.upcat_2 = _Up(third, second, second)
        self.upcat_1 = _Up(second, first, last, halves=False)
        self.final_conv = nn.Conv2d(last, 1, 1)

    def levels(self, picture: Float[Tensor, "b 1 h w"]) -> list[Tensor]:
        """The features of each level on the way down, from full resolution to a sixteenth."""
        found = [self.conv_0(picture)]
        for stage in (self.down_1, self.down_2, self.down_3, self.down_4):
            found.append(stage(found[-1]))
        return found

    def forward(self, picture: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        first, second, third, fourth, x = self.levels(picture)
        for stage, beside in (
            (self.upcat_4, fourth),
            (self.upcat_3, third),
            (self.upcat_2, second),
            (self.upcat_1, first),
        ):
            x = stage(x, beside)
        return self.final_conv(x)
