# mypy: allow-subclassing-any
"""MUNIT (Huang et al., ECCV 2018, arXiv:1804.04732): a picture is content, shared by the domains, and a style of its own domain.

    (c_x, s_x) = (E_X^c(x), E_X^s(x));  y_g = G_Y(c_x, s), s from N(0, I)
    L_recon^x = |G_X(c_x, s_x) - x|_1       L_recon^c = |E_Y^c(y_g) - c_x|_1       L_recon^s = |E_Y^s(y_g) - s|_1
    L_cc^x = |G_X(E_Y^c(y_g), s_x) - x|_1   L_GAN in least squares against discriminators at three scales
Weights 10 for pictures, 1 for content and style, 10 for the cycle. G sets the style by adaptive instance normalisation
(AdaIN): gamma (z - mean) / deviation + beta, gamma and beta from the style through two layers.

Live, the style is not taken from chance: the pictures of `STYLES` styles, always the same ones, are averaged, and their gammas
and betas are constants of the exported graph.
"""

import copy
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from casgan.layers import ConvNorm
from casgan.losses import image_cycle, reconstruction
from casgan.methods.blocks import Descent, Drawing, LayerNorm, instance_norm, residuals
from casgan.methods.derived import DerivedPath
from casgan.methods.method import Batch, Latent, Loss, Made, Method, Picture, both_ways, within
from casgan.methods.scales import HALVINGS, at_scales, names_at_scales
from casgan.networks import LivePath, descent
from casgan.presets import PresetConfig

BLOCKS = 4
STYLE = 8
"""Numbers of a style."""
STYLES = 4
"""Styles whose pictures are averaged live."""
STYLE_SEED = 0
HIDDEN = 64

Style = Float[Tensor, "b s"]
Setting = Float[Tensor, "b c 1 1"]
"""gamma or beta of one AdaIN, for each channel."""
Settings = list[Float[Tensor, "b c 1 1"]]
"""The gammas, or the betas, of each AdaIN of a decoder."""
ADAINS = 2 * BLOCKS


def fixed_styles() -> Style:
    """The styles that are averaged live: standard normal, always the same."""
    return torch.randn(STYLES, STYLE, generator=torch.Generator().manual_seed(STYLE_SEED))


class StyleEncoder(nn.Module):
    """E^s: the picture's means after the way down, without norms, which would take the style away."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        parts = [layer for part in descent(preset, lambda _width: nn.Identity()) for layer in part]
        for part in parts:
            if isinstance(part, ConvNorm):
                part.conv.bias = nn.Parameter(torch.zeros(part.conv.out_channels))
        self.layers = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.last = nn.Linear(preset.widths[-1], STYLE)

    def forward(self, picture: Picture) -> Style:
        return self.last(self.layers(picture)).float()


class ContentEncoder(nn.Module):
    """E^c."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        self.layers = nn.Sequential(Descent(preset), residuals(preset, BLOCKS))

    def forward(self, picture: Picture) -> Latent:
        return self.layers(picture).float()


class StyledBlock(nn.Module):
    """A residual block whose norms are AdaIN."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.second = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm = instance_norm(width)

    def forward(self, z: Latent, gammas: Settings, betas: Settings) -> Latent:
        first = self.norm(self.first(z))
        # Settings made by a style are in 32 bits; a network held in 16 goes on in those. Constants need no step, which in
        # an exported graph would cost them their names.
        if gammas[0].dtype != first.dtype:
            gammas, betas = ([each.to(first.dtype) for each in part] for part in (gammas, betas))
        inner = functional.relu(first * gammas[0] + betas[0])
        return z + self.norm(self.second(inner)) * gammas[1] + betas[1]


class StyledDecoder(nn.Module):
    """G's convolutions: from content to picture, with gammas and betas given."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(StyledBlock(preset.widths[-1]) for _ in range(BLOCKS))
        self.drawing = Drawing(preset, LayerNorm)

    def forward(self, z: Latent, gammas: Settings, betas: Settings) -> Picture:
        for index, block in enumerate(self.blocks):
            here = slice(2 * index, 2 * index + 2)
            z = block(z, gammas[here], betas[here])
        return self.drawing(z)


class StyleLayers(nn.Module):
    """From a style to the gammas and betas of a decoder."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        self.shape = (2, ADAINS, preset.widths[-1], 1, 1)
        self.layers = nn.Sequential(
            nn.Linear(STYLE, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, HIDDEN),
            nn.ReLU(),
            nn.Linear(HIDDEN, 2 * ADAINS * preset.widths[-1]),
        )

    def forward(self, style: Style) -> tuple[Settings, Settings]:
        set_to = self.layers(style).float().view(-1, *self.shape)
        # About 1, so that a decoder starts as one with plain instance norms.
        return list((1.0 + set_to[:, 0]).unbind(1)), list(set_to[:, 1].unbind(1))


class MunitPath(DerivedPath):
    """E_X^c, then G_Y at the fixed styles."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__(preset)
        self.encoder = ContentEncoder(preset)
        self.decoder = StyledDecoder(preset)
        self.styles: StyleLayers | None = StyleLayers(preset)

    def picture_and_latent(self, x: Picture) -> tuple[Picture, Latent]:
        z = self.encoder(x).to(x.dtype)
        gammas, betas = self._settings(x.device)
        if len(x) > 1:  # a repetition of one would be a node of the live graph for nothing
            gammas, betas = ([each.repeat(len(x), 1, 1, 1) for each in part] for part in (gammas, betas))
        every = z.repeat_interleave(STYLES, dim=0)
        picture = self.decoder(every, gammas, betas)
        return picture.unflatten(0, (len(x), STYLES)).mean(dim=1), z

    def _settings(self, device: torch.device) -> tuple[Settings, Settings]:
        if self.styles is not None:
            found: tuple[Settings, Settings] = self.styles(fixed_styles().to(device))
            return found
        gammas, betas = (
            [getattr(self, f"{kind}_{number}") for number in range(ADAINS)] for kind in ("gamma", "beta")
        )
        return gammas, betas

    def folded(self) -> LivePath:
        """A copy for inference, whose gammas and betas are constants."""
        plain: MunitPath = copy.deepcopy(self).eval()
        if plain.styles is not None:
            with torch.no_grad():
                settings = plain._settings(next(plain.parameters()).device)
            for kind, values in zip(("gamma", "beta"), settings, strict=True):
                for number, value in enumerate(values):
                    plain.register_buffer(f"{kind}_{number}", value.clone())
            plain.styles = None
        return plain


class Munit(Method):
    """Both autoencoders; the live path holds X's content encoder and Y's decoder."""

    weights: ClassVar[dict[str, float]] = {
        "adversarial": 1.0,
        "reconstruct_x": 10.0,
        "reconstruct_y": 10.0,
        "content": 1.0,
        "style": 1.0,
        "cycle_x": 10.0,
        "cycle_y": 10.0,
    }
    judges: ClassVar[tuple[str, ...]] = names_at_scales("d_x", "d_y")
    halvings: ClassVar[int] = HALVINGS
    judge_norms: ClassVar[bool] = False
    weight_decay: ClassVar[float] = 1e-4

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__(preset)
        self.live: MunitPath = MunitPath(preset)
        self.y_content = ContentEncoder(preset)
        self.x_decoder, self.x_styles = StyledDecoder(preset), StyleLayers(preset)
        self.x_style, self.y_style = StyleEncoder(preset), StyleEncoder(preset)

    def forward(self, batch: Batch) -> Made:
        x, x_field, y, y_field, _ = batch
        count = len(x)
        c_x, c_y = self.live.encoder(x), self.y_content(y)
        s_x, s_y = self.x_style(x), self.y_style(y)
        drawn_x, drawn_y = batch.normal(count, STYLE), batch.normal(count, STYLE)
        x_rec, x_g = self._to_x(torch.cat([c_x, c_y]), torch.cat([s_x, drawn_x])).chunk(2)
        y_rec, y_g = self._to_y(torch.cat([c_y, c_x]), torch.cat([s_y, drawn_y])).chunk(2)
        seen_y, seen_x = within(y_g, x_field), within(x_g, y_field)
        c_x_again, c_y_again = self.y_content(seen_y), self.live.encoder(seen_x)
        terms = {
            "reconstruct_x": reconstruction(x_rec, x, x_field),
            "reconstruct_y": reconstruction(y_rec, y, y_field),
            "content": gap(c_x_again, c_x) + gap(c_y_again, c_y),
            "style": gap(self.y_style(seen_y), drawn_y) + gap(self.x_style(seen_x), drawn_x),
            "cycle_x": image_cycle(self._to_x(c_x_again, s_x), x, x_field),
            "cycle_y": image_cycle(self._to_y(c_y_again, s_y), y, y_field),
        }
        return Made(at_scales(both_ways(batch, x_g, y_g)), terms)

    def _to_x(self, content: Latent, style: Style) -> Picture:
        return self.x_decoder(content, *self.x_styles(style))

    def _to_y(self, content: Latent, style: Style) -> Picture:
        assert self.live.styles is not None
        return self.live.decoder(content, *self.live.styles(style))


def gap(found: Float[Tensor, "*shape"], wanted: Float[Tensor, "*shape"]) -> Loss:
    """Mean absolute difference of contents or styles."""
    return (found - wanted).abs().mean()
