# mypy: allow-subclassing-any
"""The shortcut in the prediction loss: does M predict vessels, or read them?

L_Pred teaches M on E_BG(y), and y shows its vessels. If E_BG passes them on, M may read what it should
predict, and then finds nothing to read in x. On the phantom x and y of the same patient and moment exist,
so both can be asked.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional

from casgan.data import Pairs, batch_of
from casgan.losses import DENSITY, latent_distance
from casgan.networks import Generator

DRAWN = 0.5 * DENSITY
STEPS = 60
"""Steps of the small head; the encoder is not taught."""

Latents = Float[Tensor, "n c h2 w2"]


class Shortcut(NamedTuple):
    """What was found; each figure means little without the one beside it."""

    head_from_y: float
    """Soft Dice of vessels that a small head finds in E_BG(y), on pictures it was not taught on."""
    head_from_x: float
    """The same in E_BG(x) of the same patients and moments: what the anatomy alone tells."""
    drawn_from_y: float
    """Dice of what the live path draws from M(E_BG(y)) against the vessels of y."""
    drawn_from_x: float
    """The same from M(E_BG(x)): what the network is for."""
    distance: float
    """mean |E_BG(y) - E_BG(x)| / mean |E_BG(x)|: 0 for an encoder that does not see contrast."""


def vessel_shortcut(generator: Generator, pairs: Pairs, seed: int = 0) -> Shortcut:
    """Probe a live path on phantom pairs, half of them to teach the heads, half to measure.

    Args:
        generator: Not changed.
        pairs: Four or more, of patients that it was not taught on; frames of a patient stand together.
        seed: Of the heads' weights.

    Raises:
        ValueError: Too few pairs.
    """
    if len(pairs) < 4:
        raise ValueError(f"the probe needs 4 pairs or more, got {len(pairs)}")
    training = generator.training
    generator.eval()
    plain, angiogram, truth, _ = batch_of(pairs, torch.arange(len(pairs)))
    with torch.no_grad():
        of_x, drawn_from_x = _latents_and_drawn(generator, plain)
        of_y, drawn_from_y = _latents_and_drawn(generator, angiogram)
        distance = float(latent_distance(of_y, of_x))
    generator.train(training)
    # At the latent's resolution: the share of vessel in each of its cells.
    cells = functional.adaptive_avg_pool2d(truth, of_x.shape[-2:])
    return Shortcut(
        head_from_y=_head_dice(of_y, cells, seed),
        head_from_x=_head_dice(of_x, cells, seed),
        drawn_from_y=_dice(drawn_from_y, truth),
        drawn_from_x=_dice(drawn_from_x, truth),
        distance=distance,
    )


def _latents_and_drawn(
    generator: Generator, pictures: Float[Tensor, "n 1 h w"]
) -> tuple[Latents, Bool[Tensor, "n 1 h w"]]:
    """E_BG of the pictures, and where vessels are drawn from M of it."""
    latents, drawn = [], []
    for some in pictures.split(8):
        z = generator.encode(some)
        latents.append(z)
        drawn.append(torch.sigmoid(generator.decode(generator.predict(z))[0]) > DRAWN)
    return torch.cat(latents), torch.cat(drawn)


def _head_dice(z: Latents, cells: Float[Tensor, "n 1 h2 w2"], seed: int) -> float:
    """Teach a head on the first half, measure its soft Dice on the second."""
    half = len(z) // 2
    mean, spread = z[:half].mean(dim=(0, 2, 3), keepdim=True), z[:half].std(dim=(0, 2, 3), keepdim=True)
    z = (z - mean) / (spread + 1e-5)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        head = nn.Sequential(nn.Conv2d(z.shape[1], 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 1, 1))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2, weight_decay=1e-2)
    for _ in range(STEPS):
        error = 1.0 - _soft_dice(torch.sigmoid(head(z[:half])), cells[:half])
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
    with torch.no_grad():
        return float(_soft_dice(torch.sigmoid(head(z[half:])), cells[half:]))


def _soft_dice(found: Tensor, truth: Tensor) -> Tensor:
    return (2.0 * (found * truth).sum() + 1e-3) / (found.square().sum() + truth.square().sum() + 1e-3)


def _dice(drawn: Tensor, truth: Tensor) -> float:
    vessel = truth > 0.5
    overlap = (drawn & vessel).flatten(1).sum(dim=1)
    return float(
        (2.0 * overlap / (drawn.flatten(1).sum(dim=1) + vessel.flatten(1).sum(dim=1)).clamp(min=1)).mean()
    )
