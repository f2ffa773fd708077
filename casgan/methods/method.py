# mypy: allow-subclassing-any
"""The small interface of a method that learns from unpaired frames: networks, losses, what its judges are shown.

A method is a module whose forward is its whole pass over a batch, so that DDP sees one module. It says what each
discriminator is shown and every loss that is not adversarial; the step (`stage.py`) is the same for all. CAS-GAN's
own method has more in its step than these (frozen U-Net, known pairs, moved pictures), so it is a stage of its own,
`casgan/cas_gan_stage.py`, and shares the adversarial half (`casgan/adversarial.py`).

Each is written anew from its paper, whose equations are cited; no code of the authors' repositories is in here.
"""

from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from casgan.discriminators import Discriminator, Discriminators, Views, views
from casgan.networks import LivePath
from casgan.presets import PresetConfig
from casgan.training_networks import BLACK

Picture = Float[Tensor, "b 1 h w"]
Latent = Float[Tensor, "b c h2 w2"]
Loss = Float[Tensor, ""]


class Batch(NamedTuple):
    """Unpaired pictures of one step, -1 to 1, and where its chance comes from."""

    x: Picture
    """Contrast-free."""
    x_field: Picture
    """1 where x shows something, 0 outside the field."""
    y: Picture
    """Angiograms of other moments or patients."""
    y_field: Picture
    """The same of y."""
    draw: torch.Generator
    """On the CPU."""

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers of this step, on the pictures' device."""
        return torch.randn(*shape, generator=self.draw).to(self.x.device)


class Made(NamedTuple):
    """What a pass made of a batch."""

    shown: dict[str, Views]
    """Real and generated pictures, by discriminator."""
    terms: dict[str, Loss]
    """Losses that are not adversarial, by name."""


class Method(nn.Module):
    """The generator's side of one method.

    Args:
        preset: Widths and scales, the same for every method.
    """

    weights: ClassVar[dict[str, float]]
    """Of the terms; `adversarial` weighs each discriminator's."""
    judges: ClassVar[tuple[str, ...]] = ("d_x", "d_y")
    """The discriminators' names, as in `Made.shown`."""
    halvings: ClassVar[int] = 4
    """Of each discriminator."""
    judge_norms: ClassVar[bool] = True
    weight_decay: ClassVar[float] = 0.0
    pool: ClassVar[int] = 0
    """Generated pictures that the discriminators are shown again later."""

    live: LivePath
    """The path x -> y_g, which is what is exported."""

    def __init__(self, preset: PresetConfig) -> None:
        super().__init__()
        self.preset = preset

    def forward(self, batch: Batch) -> Made:
        """The whole pass."""
        raise NotImplementedError


class Judges(Discriminators):
    """The discriminators of a method.

    Args:
        method: What it needs.
        width: Channels of the first layer of each.
    """

    def __init__(self, method: type[Method], width: int) -> None:
        nn.Module.__init__(self)
        self.of = nn.ModuleDict(
            {
                name: Discriminator(width, halvings=method.halvings, norms=method.judge_norms)
                for name in method.judges
            }
        )


def within(picture: Picture, field: Picture) -> Picture:
    """The picture, black outside the field."""
    return picture * field + BLACK * (1.0 - field)


def both_ways(batch: Batch, x_g: Picture, y_g: Picture) -> dict[str, Views]:
    """What D_X and D_Y are shown: x beside x_g, y beside y_g, each pair through one field."""
    return {
        "d_x": views(batch.x, batch.x_field, x_g, batch.y_field, BLACK),
        "d_y": views(batch.y, batch.y_field, y_g, batch.x_field, BLACK),
    }
