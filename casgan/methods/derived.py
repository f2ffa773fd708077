# mypy: allow-subclassing-any
"""Attention for methods that have none: told from what they changed, so that they stream as the others do.

With d = y_g - x:  A = min(1, |d| / D),  C = x + sign(d) max(|d|, D).  Then x (1 - A) + C A = y_g, so the blend of the live
graph draws the method's own picture. Two places differ from it: for |d| below one grey level of 255, C goes over from one
sign to the other in a straight line (else resampling would spread a jump), which takes at most a quarter of a level
away; and C is cut to -1 to 1. Our choice; nothing of it is taught. It differs from an attention that was learnt: it
says what was changed, not where a vessel is, and it is above 0 wherever a method changes the background.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from casgan.networks import Generator, LivePath, blend

CHANGE = 0.2
"""D: a change of 25 grey levels of 255 is A = 1; half a true vessel's darkening on the phantom, 8, is A = 0.3."""
LEVEL = 2.0 / 255.0
"""One grey level of 255."""
SURE = 2.0**-8
"""A and C stay this far from their ends, so that logits are finite, in half precision too."""
FAR = 12.0
"""Below the logit of minus this an attention of 8 bits is 0."""

Picture = Float[Tensor, "b 1 h w"]


def logit(share: Picture) -> Picture:
    """The x of sigmoid(x) = share, for shares of 0 to 1."""
    share = share.clamp(SURE, 1.0 - SURE)
    return torch.log(share) - torch.log(1.0 - share)


def inverse_tanh(grey: Picture) -> Picture:
    """The x of tanh(x) = grey, for grey levels of -1 to 1."""
    grey = grey.clamp(SURE - 1.0, 1.0 - SURE)
    return 0.5 * (torch.log(1.0 + grey) - torch.log(1.0 - grey))


def derived_logits(x: Picture, y_g: Picture) -> tuple[Picture, Picture]:
    """Logits of the attention and context that draw y_g on x.

    Args:
        x: -1 to 1.
        y_g: The method's picture, -1 to 1.
    """
    change = y_g - x
    size = change.abs()
    towards = (change * (1.0 / LEVEL)).clamp(-1.0, 1.0)
    context = x + towards * size.clamp(min=CHANGE)
    # The lowest share must be 0 once more after the sigmoid: 2^-8 of 255 levels would round to 1.
    share = size * (1.0 / CHANGE)
    attention = torch.where(share < SURE, share - FAR, logit(share))
    return attention, inverse_tanh(context)


class DerivedPath(LivePath):
    """A live path whose method makes a picture alone."""

    def picture_and_latent(self, x: Picture) -> tuple[Picture, Float[Tensor, "b c h2 w2"]]:
        """y_g and the latent.

        Args:
            x: Grey levels, -1 black to 1 white.
        """
        raise NotImplementedError

    def picture(self, x: Picture) -> Picture:
        """y_g, -1 to 1."""
        return self.picture_and_latent(x)[0]

    def logits_and_latent(self, x: Picture) -> tuple[Picture, Picture, Float[Tensor, "b c h2 w2"]]:
        y_g, latent = self.picture_and_latent(x)
        return *derived_logits(x, y_g), latent


class DerivedGenerator(Generator):
    """CAS-GAN without VSGG: it was taught to draw C alone, and its attention is told from that."""

    def logits_and_latent(self, x: Picture) -> tuple[Picture, Picture, Float[Tensor, "b c h2 w2"]]:
        attention, context, latent = super().logits_and_latent(x)
        y_g = blend(x, torch.sigmoid(attention), torch.tanh(context))
        return *derived_logits(x, y_g), latent
