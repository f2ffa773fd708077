"""Discriminators at several scales (arXiv:1711.11585), as UNIT and MUNIT have them: each sees the pictures at half the size of the one above."""

from torch.nn import functional

from casgan.discriminators import Views

SCALES = 3
HALVINGS = 3
"""Of each discriminator: one fewer than where there is one scale, since the smallest picture is a quarter of the side."""


def names_at_scales(*names: str) -> tuple[str, ...]:
    """Of the discriminators: `d_x` at full size, then `d_x_2` and `d_x_4`."""
    return tuple(name if scale == 0 else f"{name}_{2**scale}" for name in names for scale in range(SCALES))


def at_scales(shown: dict[str, Views]) -> dict[str, Views]:
    """What each discriminator is shown, by name as `names_at_scales` gives them."""
    found = {}
    for name, view in shown.items():
        for scaled in names_at_scales(name):
            found[scaled] = view
            view = Views(*(functional.avg_pool2d(part, 2) for part in view))
    return found
