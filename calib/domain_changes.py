"""A site's frames and the same frames changed on purpose: which direction tells the two apart.

The distance of `calib/domain.py` asks how far a frame is from all of a site's frames, along all axes alike. An inverted frame
differs along few of them, and there always to the same side, so a distance that also covers the site's rarest view does not
reach it. Here the changed frames are at hand, made of the site's own: one direction is learned from both, with a bound that no
frame of a loop crossed which the direction was not learned on.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from calib.domain import FEATURES, LEAST_SPREAD

LEARNED = ("inverted", "zoomed")
"""Changes of which a direction is learned. A frame on its side is not among them: it lies within what patients differ by."""
SHRINKAGE = 0.1
"""Share of the identity in the covariance within each kind. Our choice: 0.05 to 0.2 did as well on seven patients."""
USELESS = 2.0
"""The changed frames' own mean, in units of half the way there: a bound beyond it would tell few of them."""


@dataclass(frozen=True)
class PlacedFrames:
    """A site's frames along the model's axes, each with its loop, and some of them changed."""

    own: Float64[np.ndarray, "n 71"]
    labels: np.ndarray
    """(n,) the loop of each."""
    changed: Mapping[str, Float64[np.ndarray, "m 71"]]
    """By what was done to them."""
    changed_labels: np.ndarray
    """(m,) the loop of each changed frame, the same for every kind."""

    @property
    def loops(self) -> np.ndarray:
        """The loops' names, sorted."""
        return np.unique(self.labels)

    def of(self, loop: str, *, others: bool = False) -> "PlacedFrames":
        """The frames of one loop, or of all others."""
        own, changed = self.labels == loop, self.changed_labels == loop
        if others:
            own, changed = ~own, ~changed
        return PlacedFrames(
            self.own[own],
            self.labels[own],
            {name: frames[changed] for name, frames in self.changed.items()},
            self.changed_labels[changed],
        )

    def each_left_out(self) -> Iterator[tuple["PlacedFrames", "PlacedFrames"]]:
        """(the other loops, one loop), each in its turn."""
        for loop in self.loops:
            yield self.of(loop, others=True), self.of(loop)


def centre_and_spread(
    placed: Float[np.ndarray, "n 71"],
) -> tuple[Float64[np.ndarray, "71"], Float64[np.ndarray, "71"]]:
    """Mean and standard deviation of frames along the model's axes, the latter `LEAST_SPREAD` at least."""
    return placed.mean(axis=0), np.maximum(placed.std(axis=0), LEAST_SPREAD)


def learned_changes(frames: PlacedFrames) -> dict[str, Float64[np.ndarray, "71"]]:
    """What tells each kind of changed frame from the site's own.

    Returns:
        Weights by the change's name. (frame - centre) / spread times them is 0 on average of the site's frames; above 1 a frame
        counts as changed so. A change without a direction, or whose bound would tell few of its frames, is left out.
    """
    found = {}
    for name in LEARNED:
        if not len(frames.changed.get(name, ())):
            continue
        weights = _direction(frames, name)
        bound = 1.0
        for others, loop in frames.each_left_out():
            if weights is None or not len(others.changed[name]):
                continue
            learned = _direction(others, name)
            if learned is not None:
                centre, spread = centre_and_spread(others.own)
                bound = max(bound, float(((loop.own - centre) / spread @ learned).max()))
        if weights is not None and bound < USELESS:
            found[name] = weights / bound
    return found


def _direction(frames: PlacedFrames, name: str) -> Float64[np.ndarray, "71"] | None:
    """Fisher's linear discriminant w = S^-1 d, scaled to 1 half-way from the site's mean to the changed frames'.

    S is the mean covariance within the two kinds, shrunk towards the identity, d the difference of their means, both in
    the site's spreads (Fisher, Ann. Eugen. 7, 1936). None where the means do not differ.
    """
    centre, spread = centre_and_spread(frames.own)
    own, changed = ((each - centre) / spread for each in (frames.own, frames.changed[name]))
    apart = changed.mean(axis=0)
    around = changed - apart
    within = 0.5 * (own.T @ own / len(own) + around.T @ around / len(around))
    shrunk = (1.0 - SHRINKAGE) * within + SHRINKAGE * np.eye(FEATURES)
    weights: np.ndarray = np.linalg.solve(shrunk, apart)
    reach = float(apart @ weights)
    return 2.0 * weights / reach if reach > 1e-9 else None
