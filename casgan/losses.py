"""The terms of training, one function each.

First the paired teacher's, whose pictures come with and without contrast and with the vessels' mask: all our
choice. Then CAS-GAN's (arXiv:2410.08490), which learns from unpaired pictures; the poster states L_Pred,
VSGG and the log form of VSGL, a summary of the paper names image cycle, latent cycle and reconstruction, and
their weights are not known. Last our own priors. Pictures count inside their field alone.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from casgan.networks import blend, clamp_attention

DENSITY = 0.6
"""Attention to aim at inside a vessel. Below 1, so that the live picture's own texture shows through."""
VESSEL_WEIGHT = 20.0
"""A vessel pixel counts this often in the picture's error: vessels are 5 % of it and dark by 5 %."""

REAL_LABEL = 0.9
"""What D_Sem is told of a real mask: below 1, or a sure discriminator leaves no gradient."""

Picture = Float[Tensor, "b 1 h w"]
Latent = Float[Tensor, "b c h2 w2"]
Score = Float[Tensor, "b 1 p q"]
Loss = Float[Tensor, ""]


def picture_error(generated: Picture, angiogram: Picture, mask: Picture) -> Loss:
    """sum w |y_g - y| / sum w, with w = 1 + 20 mask.

    The weight also makes C say how dark a vessel would be where A only half believes in one; unweighted,
    the median of an unsure place is no vessel at all.
    """
    weight = 1.0 + VESSEL_WEIGHT * mask
    return (weight * (generated - angiogram).abs()).sum() / weight.sum()


def placement_error(logit: Picture, mask: Picture) -> Loss:
    """Binary cross-entropy of A against 0.6 mask, plus 1 - soft Dice of A / 0.6 against mask."""
    entropy = functional.binary_cross_entropy_with_logits(logit, DENSITY * mask)
    attention = torch.sigmoid(logit) / DENSITY
    overlap = (attention * mask).sum(dim=(1, 2, 3))
    dice = (2.0 * overlap + 1.0) / ((attention + mask).sum(dim=(1, 2, 3)) + 1.0)
    return entropy + 1.0 - dice.mean()


def continuity_error(logit: Picture, line: Picture) -> Loss:
    """1 - share of the vessels' middle lines that A / 0.6 covers.

    A thin branch holds few of the mask's pixels but as much of its length as a thick one; without this term
    the Dice alone leaves thin branches half drawn. After skeleton recall (Kirchhoff et al., ECCV 2024).
    """
    covered = (torch.sigmoid(logit) / DENSITY * line).sum(dim=(1, 2, 3))
    return 1.0 - ((covered + 1.0) / (line.sum(dim=(1, 2, 3)) + 1.0)).mean()


def sparsity(attention: Picture) -> Loss:
    """mean A after the clamp: the picture stays as it is where nothing is to be drawn."""
    return attention.mean()


def total_error(
    attention_logit: Picture,
    context_logit: Picture,
    plain: Picture,
    angiogram: Picture,
    mask: Picture,
    line: Picture,
    threshold: float,
) -> Loss:
    """10 picture + placement + 0.25 continuity + 0.1 sparsity; our choice, so that the first two weigh about the same."""
    attention = clamp_attention(torch.sigmoid(attention_logit), threshold)
    generated = blend(plain, attention, torch.tanh(context_logit))
    return (
        10.0 * picture_error(generated, angiogram, mask)
        + placement_error(attention_logit, mask)
        + 0.25 * continuity_error(attention_logit, line)
        + 0.1 * sparsity(attention)
    )


def inside(error: Picture, field: Picture) -> Loss:
    """Mean over pictures of sum(field e) / sum(field): what lies outside the field teaches nothing."""
    return ((error * field).sum(dim=(1, 2, 3)) / field.sum(dim=(1, 2, 3)).clamp(min=1.0)).mean()


def patches(field: Picture, score: Score) -> Score:
    """The share of field in each patch that a discriminator scores."""
    return functional.adaptive_avg_pool2d(field, score.shape[-2:])


def least_squares(score: Score, target: float, field: Picture) -> Loss:
    """Adversarial loss on pictures, (D - target)^2; our choice (LSGAN), the paper's form is not known.

    The generator's is target 1 on what it made; a discriminator's is the mean of target 1 on real and 0 on
    generated pictures, 0.25 when it cannot tell them apart.
    """
    return inside((score - target).square(), patches(field, score))


def log_form(score: Score, target: float, field: Picture) -> Loss:
    """CAS-GAN (arXiv:2410.08490), VSGL: E_s log D_Sem(s) + E_s_g log(1 - D_Sem(s_g)), s = UNet(y), s_g = UNet(y_g).

    Written as a cross-entropy on logits. The generator minimises -log D_Sem(s_g) (target 1), which has
    gradients while D_Sem is sure: our choice.
    """
    error = functional.binary_cross_entropy_with_logits(
        score, torch.full_like(score, target), reduction="none"
    )
    return inside(error, patches(field, score))


def latent_distance(latent: Latent, target: Latent) -> Loss:
    """mean |z - sg(t)| / mean |sg(t)| of each picture, sg: no gradient. Our choice.

    Divided by the target's strength, or all latents would shrink until every distance is small.
    """
    target = target.detach()
    axes = (1, 2, 3)
    return ((latent - target).abs().mean(dim=axes) / (target.abs().mean(dim=axes) + 1e-3)).mean()


def prediction(predicted: Latent, vessels: Latent) -> Loss:
    """CAS-GAN (arXiv:2410.08490), L_Pred: E_y |M(z_y^BG) - z_y^Vess|_1.

    M learns what E_Vess sees; a tenth goes the other way, so that E_Vess keeps to what can be predicted. Both
    the stop-gradient and the tenth are our choice.
    """
    return latent_distance(predicted, vessels) + 0.1 * latent_distance(vessels, predicted)


def latent_cycle(z_x: Latent, z_y_g: Latent, z_y: Latent, z_x_g: Latent, v_x: Latent, v_y_g: Latent) -> Loss:
    """E_BG(y_g) ~ E_BG(x), E_BG(y) ~ E_BG(x_g), E_Vess(y_g) ~ M(E_BG(x)).

    The anatomy's latent must not change with contrast. The right sides have no gradient: what is taught is
    E_BG's blindness for vessels, never x_g to carry a trace of them. Inferred from the paper's summary.
    """
    return latent_distance(z_y_g, z_x) + latent_distance(z_y, z_x_g) + latent_distance(v_y_g, v_x)


def image_cycle(again: Picture, picture: Picture, field: Picture) -> Loss:
    """|G_BG(E_BG(y_g)) - x|_1 and |VSGG(x_g, M(E_BG(x_g))) - y|_1. Inferred from the paper's summary."""
    return inside((again - picture).abs(), field)


def reconstruction(again: Picture, picture: Picture, field: Picture) -> Loss:
    """|G_BG(E_BG(x)) - x|_1 and |VSGG(x_g, E_Vess(y)) - y|_1. Inferred from the paper's summary.

    The first is also the identity term of y -> x: emptying a picture without vessels leaves it as it is.
    """
    return inside((again - picture).abs(), field)


def attention_area(attention: Picture, field: Picture) -> Loss:
    """mean A inside the field, taught only where A is above 0: sparsity. Our choice.

    The drawn attention's gradient also passes where nothing is drawn, and sparsity would push there for ever.
    """
    return inside(attention * (attention > 0), field)


def darkening(y_g: Picture, x: Picture, field: Picture) -> Loss:
    """mean relu(y_g - x): contrast absorbs, so it never makes a pixel brighter. Our choice."""
    return inside(functional.relu(y_g - x), field)


def moved(picture: Picture, down: int, right: int) -> Picture:
    """The picture moved by whole pixels, its edge replicated."""
    rows, columns = picture.shape[-2:]
    reach = max(abs(down), abs(right))
    padded = functional.pad(picture, (reach,) * 4, mode="replicate")
    top, left = reach - down, reach - right
    return padded[..., top : top + rows, left : left + columns]


def shift_consistency(layer: Picture, layer_moved: Picture, down: int, right: int) -> Loss:
    """mean |L - S^-1 L(S x)| / mean (|L| + |L(S x)|) / 2, with L = y_g - x and S a move by whole pixels. Our choice.

    Vessels must move with the picture. Divided by the layer's own strength, with gradient: a plain distance
    is least when nothing is drawn, and collapsed to that in a trial.
    """
    rows, columns = layer.shape[-2:]
    edge = max(abs(down), abs(right))
    here = layer[:, :, edge : rows - edge, edge : columns - edge]
    there = layer_moved[:, :, edge + down : rows - edge + down, edge + right : columns - edge + right]
    axes = (1, 2, 3)
    strength = 0.5 * (here.abs() + there.abs()).mean(dim=axes)
    return ((here - there).abs().mean(dim=axes) / (strength + 1e-4)).mean()
