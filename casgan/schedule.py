"""Learning rates and ramps over the steps of a stage. Standard library only."""

import math

WARM_UP = 30
"""Steps over which the paired teacher's learning rate rises."""
DECAY = 0.4
"""Last share of CAS-GAN's steps, over which its learning rate falls to zero."""


def paired_rate(step: int, steps: int, peak: float) -> float:
    """A linear rise, then half a cosine to zero."""
    rise = min(1.0, (step + 1) / WARM_UP)
    return peak * rise * 0.5 * (1.0 + math.cos(math.pi * step / steps))


def adversarial_rate(step: int, steps: int, peak: float) -> float:
    """Constant, then a straight fall to zero over the last 40 %."""
    return peak * min(1.0, (steps - step) / (DECAY * steps))


def ramp(step: int, steps: int, share: float) -> float:
    """0 to 1 over the first `share` of the steps, then 1."""
    return min(1.0, step / max(1.0, share * steps))


def averaging(updates: int, decay: float) -> float:
    """Decay of a running average after some updates: low at first, so that it forgets where it started."""
    return min(decay, (1 + updates) / (10 + updates))


def step_seed(seed: int, stage: int, step: int, rank: int) -> int:
    """Each step of each process has its own stream of chance, so a resumed run goes on as if uninterrupted."""
    return ((seed * 7 + stage) * 1_000_003 + step) * 1009 + rank
