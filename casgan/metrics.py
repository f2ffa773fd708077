"""What a network does on patients with known truth."""

import torch

from casgan.data import Batch
from casgan.networks import Generator, blend, clamp_attention

DRAWN = 0.3
"""Attention above which a pixel counts as drawn: half of what training aims at inside a vessel."""


def evaluate(network: Generator, batch: Batch, threshold: float) -> dict[str, float]:
    """Placement and background on paired pictures.

    Args:
        network: The generator.
        batch: Plain, angiogram and mask.
        threshold: t of the attention's clamp.

    Returns:
        dice: mean over pictures of Dice of (A > 0.3) against the mask.
        exact_background: share of pixels outside the mask whose 8-bit attention is 0.
        exact_picture: the same over the whole picture.
        darkening: mean of x - y_g inside the mask, grey levels 0 to 1; darkening_true: the same of x - y.
        vessel_error, identity_error: mean |y_g - y| and |x - y| inside the mask, grey levels 0 to 1.
    """
    network.eval()
    sums: dict[str, float] = {}
    with torch.no_grad():
        for plain, angiogram, mask in zip(*(part.split(1) for part in batch), strict=True):
            attention, context = network(plain)
            attention = clamp_attention(attention, threshold)
            generated = blend(plain, attention, context)
            drawn = attention > DRAWN
            vessel = mask > 0.5
            untouched = torch.floor(attention * 255.0 + 0.5) == 0
            values = {
                "dice": 2.0 * (drawn & vessel).sum() / ((drawn.sum() + vessel.sum()).clamp(min=1)),
                "exact_background": untouched[~vessel].float().mean(),
                "exact_picture": untouched.float().mean(),
                "darkening": ((plain - generated) / 2.0)[vessel].mean(),
                "darkening_true": ((plain - angiogram) / 2.0)[vessel].mean(),
                "vessel_error": ((generated - angiogram).abs() / 2.0)[vessel].mean(),
                "identity_error": ((plain - angiogram).abs() / 2.0)[vessel].mean(),
            }
            for name, value in values.items():
                sums[name] = sums.get(name, 0.0) + float(value)
    return {name: total / len(batch[0]) for name, total in sums.items()}
