"""The terms of the first teacher: paired pictures with and without contrast, and the vessel mask.

All of them are our choice. CAS-GAN (arXiv:2410.08490) learns from unpaired pictures; its terms come with
that training.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

DENSITY = 0.6
"""Attention to aim at inside a vessel. Below 1, so that the live picture's own texture shows through."""
VESSEL_WEIGHT = 20.0
"""A vessel pixel counts this often in the picture's error: vessels are 5 % of it and dark by 5 %."""

Picture = Float[Tensor, "b 1 h w"]


def picture_error(generated: Picture, angiogram: Picture, mask: Picture) -> Float[Tensor, ""]:
    """sum w |y_g - y| / sum w, with w = 1 + 20 mask.

    The weight also makes C say how dark a vessel would be where A only half believes in one; unweighted,
    the median of an unsure place is no vessel at all.
    """
    weight = 1.0 + VESSEL_WEIGHT * mask
    return (weight * (generated - angiogram).abs()).sum() / weight.sum()


def placement_error(logit: Picture, mask: Picture) -> Float[Tensor, ""]:
    """Binary cross-entropy of A against 0.6 mask, plus 1 - soft Dice of A / 0.6 against mask."""
    entropy = functional.binary_cross_entropy_with_logits(logit, DENSITY * mask)
    attention = torch.sigmoid(logit) / DENSITY
    overlap = (attention * mask).sum(dim=(1, 2, 3))
    dice = (2.0 * overlap + 1.0) / ((attention + mask).sum(dim=(1, 2, 3)) + 1.0)
    return entropy + 1.0 - dice.mean()


def sparsity(attention: Picture) -> Float[Tensor, ""]:
    """mean A after the clamp: the picture stays as it is where nothing is to be drawn."""
    return attention.mean()
