"""Is a frame still of the projection that the patient was taught on? By what the graph says of every frame anyway.

    statistics of the graph -> 71 described features (`calib/domain.py`) -> distance from the taught frames, along their own axes

E_BG is the same in the general and in the adapted graph, so both say the same of a frame, whichever drew it. Only means and
axes are kept: no picture can be made of them.
"""

import functools
import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Float64

from calib.domain import FEATURES, LEAST_SD, described

SHRINKAGE = 0.05
"""Share of a round cloud in the covariance of the taught frames: no axis is judged more finely than they can tell."""
ROOM = 2.0
"""A frame may be so many times as far away as the farthest of the held-out frames: a breath may be deeper than any of them."""
LEAST_FRAMES = 8
TENSORS = ("gate.centre", "gate.axes")


@dataclass(frozen=True)
class PatientGate:
    """What the taught frames look like to the graph."""

    centre: Float32[np.ndarray, "71"]
    """Mean of their described features."""
    axes: Float32[np.ndarray, "k 71"]
    """Directions in which a frame is compared, each over the spread that counts as usual there."""
    limit: float
    """Distance above which a frame is of another projection."""

    def distances(self, features: Float[np.ndarray, "n 71"]) -> Float64[np.ndarray, " n"]:
        """Root mean square over the axes; infinite where a feature is not finite."""
        with np.errstate(invalid="ignore", over="ignore"):
            placed = (described(features) - self.centre) @ self._columns
            far = np.sqrt(np.mean(placed**2, axis=1))
        return np.where(np.isfinite(far), far, np.inf)

    @functools.cached_property
    def _columns(self) -> Float64[np.ndarray, "71 k"]:
        """The axes as every frame needs them, converted once."""
        return np.ascontiguousarray(self.axes.T, np.float64)

    def distance(self, features: Float32[np.ndarray, "71"]) -> float:
        """Of one frame."""
        return float(self.distances(features[None])[0])

    def tensors(self) -> dict[str, np.ndarray]:
        """As the file keeps it."""
        return dict(zip(TENSORS, (self.centre, self.axes), strict=True))

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, np.ndarray], limit: float) -> "PatientGate":
        """The inverse of `tensors`.

        Raises:
            ValueError: They are none, or the limit is no number above 0; says what was needed and what came.
        """
        if set(tensors) != set(TENSORS):
            raise ValueError(f"{' and '.join(TENSORS)} beside the weights, got {len(tensors)} tensors")
        centre, axes = (tensors[name] for name in TENSORS)
        sizes = centre.shape == (FEATURES,) and axes.ndim == 2 and axes.shape[1] == FEATURES
        if not sizes or not 1 <= len(axes) <= FEATURES or {centre.dtype, axes.dtype} != {np.dtype("<f4")}:
            raise ValueError(f"a gate of {FEATURES} features, got shapes {centre.shape} and {axes.shape}")
        if not (np.isfinite(centre).all() and np.isfinite(axes).all()):
            raise ValueError("a gate of finite numbers, got others")
        if not 0.0 < limit < math.inf:
            raise ValueError(f"a gate's limit above 0, got {limit}")
        return cls(centre, axes, limit)


def make_gate(learn: Float[np.ndarray, "n 71"], held: Float[np.ndarray, "m 71"]) -> PatientGate:
    """From the contrast-free frames that a patient was taught on and those held out.

    Mahalanobis' distance, with the covariance shrunk towards a round one (Ledoit and Wolf, J. Multivar. Anal. 88, 2004; the share is
    our choice): heartbeat and breath move the features along few directions, and a turned C-arm along others.

    Args:
        learn: The graph's features of the frames; not necessarily more of them than there are features.
        held: Of other frames of the same projection; they set the limit.

    Raises:
        ValueError: Too few frames, or features that are not finite.
    """
    if min(len(learn), len(held)) < LEAST_FRAMES:
        raise ValueError(f"a gate needs {LEAST_FRAMES} frames of each kind, got {len(learn)} and {len(held)}")
    if not (np.isfinite(learn).all() and np.isfinite(held).all()):
        raise ValueError("a gate needs finite features, got others; is the model broken?")
    values = described(learn)
    centre, spread = values.mean(axis=0), np.maximum(values.std(axis=0), LEAST_SD)
    covariance = np.cov(((values - centre) / spread).T)
    round_one = np.eye(FEATURES) * (np.trace(covariance) / FEATURES + 1e-9)
    shrunk = (1.0 - SHRINKAGE) * covariance + SHRINKAGE * round_one
    axes = np.linalg.cholesky(np.linalg.inv(shrunk)).T / spread
    gate = PatientGate(centre.astype(np.float32), axes.astype(np.float32), 1.0)
    return PatientGate(gate.centre, gate.axes, ROOM * float(gate.distances(held).max()))
