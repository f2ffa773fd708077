"""Any engine against the torch reference on the same frames: differences in grey levels of 255."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from calib.precision import Differences
from engines.drawing import drawing
from engines.engine import Engine
from engines.planes import Settings
from engines.reference import Reference, run_reference


@dataclass(frozen=True)
class Parity:
    """How far an engine is from the reference, over all pixels of all frames.

    Grey levels are of 255 whatever the bits stored, so the numbers of two frame formats compare.
    """

    frames: int
    synthetic_max: float
    synthetic_mean: float
    attention_max: float
    attention_mean: float
    background_exact: bool
    """Wherever the engine's own attention is 0, its synthetic picture is the live one bit for bit."""


def measure_parity(engine: Engine, reference: Reference, frames: Iterable[np.ndarray]) -> Parity:
    """Run frames through both.

    Args:
        engine: Open, with its default grey levels and the whole frame as field.
        reference: The same model's reference.
        frames: (rows, columns) stored pixel values of the engine's frame format.

    Raises:
        ValueError: No frames.
    """
    spec = engine.spec
    settings = Settings.default(spec)
    draw = drawing(engine)
    differences = Differences(spec.bits_stored)
    for live in frames:
        expected = run_reference(reference, spec, live, settings)
        differences.add(live, draw(live), (expected.synthetic, expected.attention))
    if not differences.frames:
        raise ValueError("parity needs at least one frame, got none")
    synthetic_mean, _, synthetic_max = differences.grey
    attention_mean, _, attention_max = differences.attention
    return Parity(
        frames=differences.frames,
        synthetic_max=synthetic_max,
        synthetic_mean=synthetic_mean,
        attention_max=attention_max,
        attention_mean=attention_mean,
        background_exact=differences.background_exact,
    )
