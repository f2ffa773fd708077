"""Generated pictures that discriminators are shown again later (Shrivastava et al., arXiv:1612.07828), as CycleGAN does."""

import torch
from torch import Tensor

from casgan.discriminators import Views


class Pool:
    """Keeps what one discriminator was shown, up to `size` pictures.

    A generated picture goes with the real one that it was seen beside, since both are cut to one field: our choice.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.kept: list[Tensor] = []

    def exchanged(self, view: Views, draw: torch.Generator) -> Views:
        """The same, but each picture with a chance of one half changed for an earlier one, once the pool is full.

        Args:
            view: Of this step, without gradients; not changed.
            draw: Where the chance comes from, on the CPU.
        """
        shown = []
        for fresh in torch.stack([part.detach() for part in view], dim=1):
            if len(self.kept) < self.size:
                self.kept.append(fresh)
                shown.append(fresh)
            elif float(torch.rand((), generator=draw)) < 0.5:
                at = int(torch.randint(self.size, (), generator=draw))
                shown.append(self.kept[at])
                self.kept[at] = fresh
            else:
                shown.append(fresh)
        return Views(*torch.stack(shown).unbind(dim=1))

    def state(self) -> list[Tensor]:
        return list(self.kept)

    def load_state(self, state: list[Tensor], device: torch.device) -> None:
        self.kept = [picture.to(device) for picture in state]
