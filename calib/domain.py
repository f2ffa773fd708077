"""Is this frame like those the network was taught on?

    graph (`engines/graph.py`): latent z = E_BG(x) and the picture at the network's size -> 71 features
    here:                       features -> whitened by the taught frames' statistics -> distance -> limit

The features are sums over the field, so they cost next to nothing beside the network; the distance is one product of a
71 x 71 matrix with a vector and stays on the host, so that a site's calibration changes no graph and no plan.

A model's card carries the statistics of the frames it was taught on. A site keeps the model's axes, since they take
thousands of frames to measure, and puts its own centre and spread along each of them; its limit comes from frames that
centre and spread were not measured on. Beside the distance it may have directions that tell inverted and enlarged frames
from its own (`calib/domain_changes.py`).
"""

import base64
import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64

from calib.errors import DomainError

LATENT = 64
"""Mixtures of the latent's channel statistics."""
PICTURE = 7
"""Of the picture at the network's size, -1 black to 1 white: mean, mean square, mean |step| to the right and downwards,
mean |change of the step| along a row, shares within `CLIPPED` of black and of white."""
FEATURES = LATENT + PICTURE
CLIPPED = 0.04
"""How near to the end of -1 to 1 a value counts as clipped: 5 of 255 grey levels."""
SHRINKAGE = 0.02
"""Share of the identity in the covariance of the standardised features: no axis is stretched more than 7 times."""
LEAST_SPREAD = 0.3
"""Of a site's frames along an axis, in taught standard deviations: a few loops vary less than all that will come."""
CONFIDENCE = 0.95
STRANGE, OF = 3, 10
"""Frames above the limit, of the last so many, from which on nothing is drawn (`stream/guard.py`)."""


def mixtures(channels: int) -> Float32[np.ndarray, "64 values"]:
    """Fixed mixtures of the latent's 2 x `channels` statistics: signs that mean nothing, over sqrt(2 channels).

    So every preset has as many features, and distances between frames stay nearly what they were (random projection;
    Achlioptas, J. Comput. Syst. Sci. 66, 2003). The signs are bits of SHAKE-256, the same on every machine for ever.
    """
    count = LATENT * 2 * channels
    said = hashlib.shake_256(f"contrastream domain {channels}".encode()).digest(-(-count // 8))
    bits = np.unpackbits(np.frombuffer(said, np.uint8))[:count].reshape(LATENT, 2 * channels)
    return ((bits.astype(np.float32) * 2.0 - 1.0) / math.sqrt(2 * channels)).astype(np.float32)


def described(features: Float[np.ndarray, "n 71"]) -> Float64[np.ndarray, "n 71"]:
    """The graph's features as they are compared: contrast and noise by their logarithm, shares by their root."""
    values = features.astype(np.float64)
    picture = values[:, LATENT:]
    variance = np.maximum(picture[:, 1] - picture[:, 0] ** 2, 0.0)
    values[:, LATENT + 1] = 0.5 * np.log(variance + 1e-5)
    values[:, LATENT + 2 : LATENT + 5] = np.log(np.maximum(picture[:, 2:5], 0.0) + 1e-3)
    values[:, LATENT + 5 :] = np.sqrt(np.maximum(features[:, LATENT + 5 :], 0.0))
    return values


LEAST_SD = np.concatenate([np.full(LATENT, 1e-3), [0.02, 0.05, 0.05, 0.05, 0.05, 0.05, 0.05]])
"""Of a described feature: one that never varied among the taught frames is not judged more finely than this."""


@dataclass(frozen=True)
class TaughtDomain:
    """The statistics of the frames a model was taught on, and a limit from frames it was not."""

    centre: Float64[np.ndarray, "71"]
    """Mean of the described features."""
    whitening: Float64[np.ndarray, "71 71"]
    """(described - centre) @ whitening has unit variance along every axis."""
    threshold: float = math.inf
    """Distance above which a frame is strange."""
    false_alarm_rate: float = 0.0
    """Share of frames like the held-out ones that is above the threshold, at most, at `CONFIDENCE`."""
    facts: Mapping[str, Any] | None = None
    """What it was measured on."""

    def axes(self, features: Float[np.ndarray, "n 71"]) -> Float64[np.ndarray, "n 71"]:
        """Frames in the taught frames' own units."""
        with np.errstate(invalid="ignore", over="ignore"):
            placed: Float64[np.ndarray, "n 71"] = (described(features) - self.centre) @ self.whitening
        return placed

    def card(self) -> dict[str, Any]:
        """As a model's sidecar keeps it; arrays as little-endian float32 in base64."""
        return {
            "threshold": self.threshold,
            "false_alarm_rate": self.false_alarm_rate,
            **(self.facts or {}),
            "centre": _packed(self.centre),
            "whitening": _packed(self.whitening),
        }

    @classmethod
    def of_card(cls, card: Mapping[str, Any]) -> "TaughtDomain":
        """The inverse of `card`.

        Raises:
            DomainError: It is not one.
        """
        try:
            centre = _unpacked(card["centre"], (FEATURES,))
            whitening = _unpacked(card["whitening"], (FEATURES, FEATURES))
            threshold, rate = float(card["threshold"]), float(card["false_alarm_rate"])
        except (KeyError, TypeError, ValueError) as error:
            raise DomainError(
                f"the model's domain statistics must be {FEATURES} features with their whitening, a threshold and "
                f"its false-alarm rate, got: {type(error).__name__} {error}; export the model again"
            ) from error
        known = ("centre", "whitening", "threshold", "false_alarm_rate")
        facts = {name: value for name, value in card.items() if name not in known}
        return cls(centre, whitening, threshold, rate, facts)


@dataclass(frozen=True)
class Domain:
    """What an engine judges frames by: the model's statistics as they are, or a site's in their axes."""

    taught: TaughtDomain
    centre: Float64[np.ndarray, "71"]
    """In the taught axes; zeros without a site."""
    spread: Float64[np.ndarray, "71"]
    """Standard deviations in the taught axes; ones without a site."""
    threshold: float
    false_alarm_rate: float
    origin: str
    """`model` or `site`."""
    strange: int = STRANGE
    """Frames above the threshold ..."""
    of: int = OF
    """... of the last so many, from which on nothing is drawn."""
    changes: Float64[np.ndarray, "k 71"] = field(default_factory=lambda: np.zeros((0, FEATURES)))
    """Weights of the frames in the site's spreads, one row for each kind of changed frame: above 1 it counts as one."""

    @classmethod
    def of_model(cls, taught: TaughtDomain) -> "Domain":
        """The model's own."""
        still, unit = np.zeros(FEATURES), np.ones(FEATURES)
        return cls(taught, still, unit, taught.threshold, taught.false_alarm_rate, "model")

    @classmethod
    def of_site(
        cls,
        taught: TaughtDomain,
        centre: "tuple[float, ...] | Float64[np.ndarray, '71']",
        spread: "tuple[float, ...] | Float64[np.ndarray, '71']",
        threshold: float,
        false_alarm_rate: float,
        strange: int = STRANGE,
        of: int = OF,
        changes: "Sequence[tuple[float, ...] | Float64[np.ndarray, '71']]" = (),
    ) -> "Domain":
        """A site's, from what its `DomainResult` keeps.

        Raises:
            DomainError: Not 71 finite numbers each, or a spread or threshold that is not positive.
        """
        checked = []
        for name, values in (("centre", centre), ("spread", spread), *(("change", each) for each in changes)):
            array = np.asarray(values, np.float64)
            if array.shape != (FEATURES,) or not np.isfinite(array).all():
                raise DomainError(
                    f"the site's domain {name} must be {FEATURES} finite numbers, got {array.shape}; "
                    "run: contrastream calib domain"
                )
            checked.append(array)
        if not (checked[1] > 0.0).all() or not threshold > 0.0:
            raise DomainError(
                "the site's domain spread and threshold must be above 0; run: contrastream calib domain"
            )
        learned = np.stack(checked[2:]) if changes else np.zeros((0, FEATURES))
        return cls(taught, checked[0], checked[1], threshold, false_alarm_rate, "site", strange, of, learned)

    @property
    def rule(self) -> dict[str, Any]:
        """When a frame is strange and how many of them are too many, for the guard and the status."""
        return {
            "threshold": self.threshold,
            "false_alarm_rate": self.false_alarm_rate,
            "strange": self.strange,
            "of": self.of,
            "origin": self.origin,
        }

    def scores(self, features: Float[np.ndarray, "n 71"]) -> Float64[np.ndarray, " n"]:
        """Root mean square distance from the centre over the 71 axes: 0.7 or so for frames like those measured, since some
        axes hardly vary. At least the threshold times the largest of the site's `changes`.

        Infinite where a feature is not finite.
        """
        return self.scores_at(self.taught.axes(features))

    def scores_at(self, axes: Float[np.ndarray, "n 71"]) -> Float64[np.ndarray, " n"]:
        """Of frames that are placed along the taught axes already."""
        with np.errstate(invalid="ignore", over="ignore"):
            placed = (axes - self.centre) / self.spread
            found = np.sqrt(np.mean(placed**2, axis=1))
            if len(self.changes):
                found = np.maximum(found, self.threshold * (placed @ self.changes.T).max(axis=1))
        return np.where(np.isfinite(found), found, np.inf)

    def score(self, features: Float32[np.ndarray, "71"]) -> float:
        """Of one frame."""
        return float(self.scores(features[None])[0])


def measure_axes(features: Float[np.ndarray, "n 71"]) -> TaughtDomain:
    """Centre and whitening of taught frames, without a threshold yet.

    The covariance of the standardised features is shrunk towards the identity (Ledoit and Wolf, J. Multivar. Anal. 88,
    2004; the share is our choice), so that an axis along which taught frames hardly vary decides nothing alone.

    Raises:
        DomainError: Fewer frames than make a covariance, or features that are not finite.
    """
    if len(features) < 4 * FEATURES:
        raise DomainError(f"needed {4 * FEATURES} taught frames for {FEATURES} features, got {len(features)}")
    if not np.isfinite(features).all():
        raise DomainError("needed finite features of every taught frame, got others; is the model broken?")
    values = described(features)
    centre = values.mean(axis=0)
    sd = np.maximum(values.std(axis=0), LEAST_SD)
    standard = (values - centre) / sd
    shrunk = (1.0 - SHRINKAGE) * (standard.T @ standard) / len(values) + SHRINKAGE * np.eye(FEATURES)
    whitening = np.linalg.cholesky(np.linalg.inv(shrunk)) / sd[:, None]
    return TaughtDomain(centre, whitening)


def threshold_at(
    scores: Float[np.ndarray, " n"], false_alarm_rate: float, confidence: float = CONFIDENCE
) -> float:
    """The smallest score of which it can be said that at most so many frames of the same kind lie above it.

    The r-th smallest of n scores is above the (1 - rate) quantile with the probability that fewer than r of n fall below
    that quantile, a binomial sum whatever the scores' distribution (Wilks, Ann. Math. Stat. 12, 1941). Taken for
    independent frames; neighbouring frames of a loop are not, so let each loop give few, or many loops.

    Args:
        scores: Of frames that the statistics were not measured on.
        false_alarm_rate: Above 0, below 1.
        confidence: Of the statement.

    Raises:
        ValueError: A rate or confidence that is no share.
        DomainError: Too few frames for it, or a score that is not finite.
    """
    for name, share in (("false_alarm_rate", false_alarm_rate), ("confidence", confidence)):
        if not 0.0 < share < 1.0:
            raise ValueError(f"{name} must be above 0 and below 1, got {share}")
    if not np.isfinite(scores).all():
        raise DomainError("needed calibration frames with finite scores, got others; are some frames broken?")
    count = len(scores)
    needed = frames_needed(false_alarm_rate, confidence)
    if count < needed:
        raise DomainError(
            f"a false-alarm rate of {100 * false_alarm_rate:g} % at {100 * confidence:g} % confidence needs {needed} "
            f"frames or more, got {count}; give more loops, or ask for a higher rate"
        )
    below = 1.0 - false_alarm_rate
    logs = (math.log(below), math.log(false_alarm_rate))
    sum_below = 0.0
    for rank in range(1, count + 1):
        # P(exactly rank - 1 of them lie below the quantile)
        ways = math.lgamma(count + 1) - math.lgamma(rank) - math.lgamma(count - rank + 2)
        sum_below += math.exp(ways + (rank - 1) * logs[0] + (count - rank + 1) * logs[1])
        if sum_below >= confidence:
            return float(np.sort(scores)[rank - 1])
    return float(np.max(scores))  # reached by rounding alone: rank = count was enough by `frames_needed`


def frames_needed(false_alarm_rate: float, confidence: float = CONFIDENCE) -> int:
    """How many frames `threshold_at` needs: so many that their largest score will do."""
    return math.ceil(math.log(1.0 - confidence) / math.log(1.0 - false_alarm_rate))


def _packed(array: Float64[np.ndarray, "..."]) -> str:
    return base64.b64encode(np.ascontiguousarray(array, "<f4").tobytes()).decode("ascii")


def _unpacked(text: str, shape: tuple[int, ...]) -> Float64[np.ndarray, "..."]:
    array = np.frombuffer(base64.b64decode(text, validate=True), "<f4").astype(np.float64).reshape(shape)
    if not np.isfinite(array).all():
        raise ValueError("a number that is not finite")
    return array
