"""The methods by name, and what must be known of each before any of it is loaded. Standard library only."""

import difflib
from dataclasses import dataclass
from typing import Literal

Attention = Literal["own", "derived"]
"""Whether a method says itself where it draws, or that is told from what it changed."""


@dataclass(frozen=True)
class MethodFacts:
    """One method."""

    title: str
    paper: str
    attention: Attention
    clamped: bool
    """With the attention's clamp at `--threshold`; without it what a method draws is its own picture, unchanged."""
    learning_share: float = 1.0
    """Its learning rate over `gan_learning_rate`, 2e-4: what its authors took."""


METHODS: dict[str, MethodFacts] = {
    "casgan": MethodFacts("CAS-GAN", "arXiv:2410.08490", "own", clamped=True),
    "cyclegan": MethodFacts("CycleGAN", "arXiv:1703.10593", "derived", clamped=False),
    "unit": MethodFacts("UNIT", "arXiv:1703.00848", "derived", clamped=False, learning_share=0.5),
    "munit": MethodFacts("MUNIT", "arXiv:1804.04732", "derived", clamped=False, learning_share=0.5),
    "cut": MethodFacts("CUT", "arXiv:2007.15651", "derived", clamped=False),
    "attentiongan": MethodFacts("AttentionGAN", "arXiv:1911.11897", "own", clamped=False),
}
PARTS = ("drl", "vsgg", "vsgl")
"""What CAS-GAN can be taught without: the poster's Table II."""


def check_method(name: str, without: tuple[str, ...]) -> None:
    """Refuse what is no method, and parts of another one.

    Raises:
        ValueError: The name is unknown; the nearest one is suggested. Or parts are left out of a rival.
    """
    if name not in METHODS:
        near = difflib.get_close_matches(name.lower(), METHODS, 1, 0.5)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ValueError(f"method must be one of {', '.join(METHODS)}, got {name!r}{hint}")
    if without and name != "casgan":
        raise ValueError(
            f"--without leaves parts out of casgan, got --method {name} without {' '.join(without)}; leave --without away"
        )


def attention_of(method: str, without: tuple[str, ...]) -> Attention:
    """Whether the attention of a run's model is its own."""
    return "derived" if "vsgg" in without else METHODS[method].attention


def title_of(method: str, without: tuple[str, ...] = ()) -> str:
    """As a table names it: `CAS-GAN without DRL and VSGL`."""
    left_out = " and ".join(part.upper() for part in PARTS if part in without)
    return METHODS[method].title + (f" without {left_out}" if left_out else "")
