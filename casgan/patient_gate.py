# mypy: allow-subclassing-any
"""Is a frame still of the projection that the patient was taught on? By E_BG's own latent, over a coarse grid.

    E_BG(x) -> mean of each channel in 4 x 4 places -> distance from the taught frames, in their own spread

Only means and spreads are kept: no picture can be made of them.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch.nn import functional

from casgan.networks import Generator

GRID = 4
ROOM = 1.25
"""A frame may be so many times as far away as the farthest of the held-out frames."""


@dataclass(frozen=True)
class Gate:
    """What the taught frames look like to E_BG."""

    mean: Float32[np.ndarray, " f"]
    spread: Float32[np.ndarray, " f"]
    limit: float
    """Distance from which a frame is refused."""

    def distance(self, generator: Generator, grey: UInt8[np.ndarray, "n s s"]) -> Float[np.ndarray, " n"]:
        """How far frames are from the taught ones: root of the mean square, in spreads."""
        away = (features(generator, grey) - self.mean) / self.spread
        far: np.ndarray = np.sqrt((away**2).mean(axis=1))
        return far


def make_gate(
    generator: Generator, learn: UInt8[np.ndarray, "n s s"], held: UInt8[np.ndarray, "m s s"]
) -> Gate:
    """From the frames that a patient was taught on and those held out.

    Args:
        generator: Whose E_BG looks.
        learn: Grey levels 0 to 255.
        held: Other frames of the same projection; they set the limit.
    """
    of_learn = features(generator, learn)
    mean, spread = of_learn.mean(axis=0), of_learn.std(axis=0) + 0.1 * of_learn.std() + 1e-6
    gate = Gate(mean.astype(np.float32), spread.astype(np.float32), 0.0)
    return Gate(gate.mean, gate.spread, ROOM * float(gate.distance(generator, held).max()))


def features(generator: Generator, grey: UInt8[np.ndarray, "n s s"]) -> Float32[np.ndarray, "n f"]:
    """Mean of each latent channel in each place of the grid."""
    parts = []
    with torch.no_grad():
        for some in torch.from_numpy(grey)[:, None].split(8):
            z = generator.encode(some.float() * (2.0 / 255.0) - 1.0)
            parts.append(functional.adaptive_avg_pool2d(z, GRID).flatten(1))
    found: np.ndarray = torch.cat(parts).numpy()
    return found
