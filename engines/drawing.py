"""An engine as a plain function, for whoever looks at pictures and not at time."""

import numpy as np

from calib.precision import Draw
from engines.engine import Engine


def drawing(engine: Engine) -> Draw:
    """An engine as `calib.precision` takes it: one frame in, new arrays out, with the engine's settings of the moment."""
    (slot,) = engine.slots(1)

    def draw(live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        synthetic, attention = np.empty_like(live), np.empty(live.shape, np.uint8)
        slot.bind(live, synthetic, attention)
        slot.submit()
        slot.wait()
        return synthetic, attention

    return draw
