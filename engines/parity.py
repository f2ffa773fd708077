"""Any engine against the torch reference on the same frames: differences in grey levels of 255."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

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
    (slot,) = engine.slots(1)
    to_grey = 255.0 / float(settings.max_value[0])
    synthetic_errors: list[tuple[float, float]] = []
    attention_errors: list[tuple[float, float]] = []
    exact = True
    for live in frames:
        synthetic = np.empty_like(live)
        attention = np.empty(live.shape, np.uint8)
        slot.bind(live, synthetic, attention)
        slot.submit()
        slot.wait()
        expected = run_reference(reference, spec, live, settings)
        difference = np.abs(synthetic.astype(np.float64) - expected.synthetic) * to_grey
        synthetic_errors.append((float(difference.max()), float(difference.mean())))
        difference = np.abs(attention.astype(np.float64) - expected.attention)
        attention_errors.append((float(difference.max()), float(difference.mean())))
        untouched = attention == 0
        exact &= bool(np.array_equal(synthetic[untouched], live[untouched]))
    if not synthetic_errors:
        raise ValueError("parity needs at least one frame, got none")
    return Parity(
        frames=len(synthetic_errors),
        synthetic_max=max(largest for largest, _ in synthetic_errors),
        synthetic_mean=float(np.mean([mean for _, mean in synthetic_errors])),
        attention_max=max(largest for largest, _ in attention_errors),
        attention_mean=float(np.mean([mean for _, mean in attention_errors])),
        background_exact=exact,
    )
