"""A site's own frames: where their centre lies in the model's axes, how far they spread, and which threshold follows.

What adapts, and what does not: the axes and the features are the model's. The centre and the spread along each axis are the
site's. The threshold comes from the scores of loops that centre and spread were not measured on, each loop left out in its
turn. So a site whose frames are unlike the taught ones altogether gets a threshold of its own: the score then says whether
a frame is like this site's, no longer whether the network was taught on such frames. `shift` says how far away they are.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from calib.domain import CONFIDENCE, LEAST_SPREAD, Domain, TaughtDomain, frames_needed, threshold_at
from calib.errors import DomainError
from calib.results import DomainResult

FALSE_ALARM_RATE = 0.05
"""Of single frames; three of ten must be strange before anything follows."""
LEAST_GROUPS = 3
"""Loops, so that each can be judged by others."""
MARGIN = 2.0
"""So many times the false-alarm rate, in loops that were not calibrated on, and the step does not pass."""
CAUGHT = 0.9
"""Share of a kind of changed frames that must be above the threshold."""
ZOOM = 3
CHANGED = 40
"""At most so many frames are changed to see whether that is caught."""
Features = Callable[[np.ndarray], Float32[np.ndarray, "71"]]


def changed_frames(frame: np.ndarray, max_value: int) -> Iterator[tuple[str, np.ndarray]]:
    """A frame as it must not reach the network: black, flat, inverted, and its middle enlarged.

    Args:
        frame: (rows, columns) stored pixel values.
        max_value: The largest stored value.
    """
    rows, columns = frame.shape
    yield "black", np.zeros_like(frame)
    yield "flat", np.full_like(frame, int(np.median(frame)))
    yield "inverted", (max_value - frame).astype(frame.dtype)
    height, width = rows // ZOOM, columns // ZOOM
    top, left = (rows - height) // 2, (columns - width) // 2
    middle = np.ascontiguousarray(frame[top : top + height, left : left + width])
    yield "zoomed", cv2.resize(middle, (columns, rows), interpolation=cv2.INTER_LINEAR)


def measure_domain(
    frames: Iterable[tuple[str, np.ndarray]],
    features: Features,
    taught: TaughtDomain,
    *,
    max_value: int,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> DomainResult:
    """A site's centre, spread and threshold from its own frames.

    Args:
        frames: (loop, stored pixel values); best of several patients, contrast-free and filled as they will come. The loop's
            name only says which frames belong together.
        features: What the engine tells of a frame (`engines.engine.FrameStatistics.features`), with the grey table and the
            field that the site will use.
        taught: The model's statistics.
        max_value: The largest stored value.
        false_alarm_rate: Of single frames, at `calib.domain.CONFIDENCE`.

    Raises:
        DomainError: Too few frames or loops, or frames without features.
        ValueError: A rate that is no share.
    """
    found: list[np.ndarray] = []
    groups: list[str] = []
    kept: list[np.ndarray] = []
    for group, frame in frames:
        found.append(features(frame))
        groups.append(group)
        kept.append(frame)
    _check(groups, false_alarm_rate)
    placed = taught.axes(np.stack(found))
    if not np.isfinite(placed).all():
        raise DomainError(
            "needed frames that the engine can tell features of, got some without; see contrastream doctor"
        )
    labels = np.array(groups)
    held = held_out_scores(placed, labels)
    threshold = threshold_at(held, false_alarm_rate)
    centre, spread = centre_and_spread(placed)
    domain = Domain.of_site(taught, centre, spread, threshold, false_alarm_rate)
    limit = MARGIN * false_alarm_rate
    residual = unseen_alarms(placed, labels, false_alarm_rate)
    chosen = np.linspace(0, len(kept) - 1, min(len(kept), CHANGED)).round().astype(int)
    above: dict[str, list[bool]] = {}
    for index in chosen:
        for name, changed in changed_frames(kept[index], max_value):
            above.setdefault(name, []).append(domain.score(features(changed)) > threshold)
    caught = {name: float(np.mean(each)) for name, each in above.items()}
    shift = float(np.sqrt(np.mean(centre**2)))
    missed = [name for name in ("black", "flat", "inverted") if caught[name] < CAUGHT]
    return DomainResult(
        passed=residual <= limit and not missed,
        frames=len(found),
        residual=residual,
        limit=limit,
        unit="share of the frames of a loop that was left out",
        says=_says(shift, caught, missed, residual, limit),
        loops=len(set(groups)),
        threshold=threshold,
        false_alarm_rate=false_alarm_rate,
        confidence=CONFIDENCE,
        strange=domain.strange,
        of=domain.of,
        centre=tuple(float(value) for value in centre),
        spread=tuple(float(value) for value in spread),
        shift=shift,
        score_percentiles=tuple(float(score) for score in np.percentile(held, np.arange(101))),
        caught_black=caught["black"],
        caught_flat=caught["flat"],
        caught_inverted=caught["inverted"],
        caught_zoomed=caught["zoomed"],
    )


def site_domain(taught: TaughtDomain, result: DomainResult) -> Domain:
    """What an engine judges a site's frames by: `engine.set_domain(site_domain(engine.domain.taught, result))`.

    Raises:
        DomainError: The record's numbers are not a domain.
    """
    return Domain.of_site(
        taught,
        result.centre,
        result.spread,
        result.threshold,
        result.false_alarm_rate,
        result.strange,
        result.of,
    )


def centre_and_spread(
    placed: Float[np.ndarray, "n 71"],
) -> tuple[Float64[np.ndarray, "71"], Float64[np.ndarray, "71"]]:
    """Mean and standard deviation of frames along the model's axes, the latter `LEAST_SPREAD` at least."""
    return placed.mean(axis=0), np.maximum(placed.std(axis=0), LEAST_SPREAD)


def held_out_scores(placed: Float[np.ndarray, "n 71"], labels: np.ndarray) -> Float64[np.ndarray, " n"]:
    """Each frame's score by centre and spread of the other loops."""
    scores = np.empty(len(placed))
    for label in np.unique(labels):
        out = labels == label
        centre, spread = centre_and_spread(placed[~out])
        scores[out] = np.sqrt(np.mean(((placed[out] - centre) / spread) ** 2, axis=1))
    return scores


def unseen_alarms(placed: Float[np.ndarray, "n 71"], labels: np.ndarray, false_alarm_rate: float) -> float:
    """Share of frames above a threshold that their own loop had no part in: the mean over loops, each left out in turn.

    Where the others are too few for the rate, their largest held-out score is the threshold.
    """
    shares = []
    for label in np.unique(labels):
        out = labels == label
        others = held_out_scores(placed[~out], labels[~out])
        if len(others) < frames_needed(false_alarm_rate):
            threshold = float(others.max())
        else:
            threshold = threshold_at(others, false_alarm_rate)
        centre, spread = centre_and_spread(placed[~out])
        scores = np.sqrt(np.mean(((placed[out] - centre) / spread) ** 2, axis=1))
        shares.append(float(np.mean(scores > threshold)))
    return float(np.mean(shares))


def _check(groups: Sequence[str], false_alarm_rate: float) -> None:
    if not 0.0 < false_alarm_rate < 1.0:
        raise ValueError(f"the false-alarm rate must be above 0 and below 1, got {false_alarm_rate}")
    needed = frames_needed(false_alarm_rate)
    if len(groups) < needed:
        raise DomainError(
            f"a false-alarm rate of {100 * false_alarm_rate:g} % at {100 * CONFIDENCE:g} % confidence needs {needed} frames "
            f"or more, got {len(groups)}; give more loops, or ask for a higher rate"
        )
    if len(set(groups)) < LEAST_GROUPS:
        raise DomainError(
            f"needed frames of {LEAST_GROUPS} loops or more, so that each can be judged by the others, got "
            f"{len(set(groups))}; give more loops, best of several patients"
        )


def _says(
    shift: float, caught: dict[str, float], missed: list[str], residual: float, limit: float
) -> tuple[str, ...]:
    said = [
        f"The site's frames lie {shift:.1f} taught standard deviations from those the network was taught on."
        + (" What it draws on them was never taught." if shift > 1.0 else "")
    ]
    if missed:
        shares = ", ".join(f"{name} {100 * caught[name]:.0f} %" for name in missed)
        said.append(
            f"Frames that must be caught are not, of those changed on purpose: {shares}; the loops are too unlike each other "
            "for one threshold: calibrate on loops of one kind, or ask for a higher false-alarm rate."
        )
    if residual > limit:
        said.append(
            f"{100 * residual:.0f} % of the frames of a loop that was left out count as strange: give more loops."
        )
    said.append(
        "Neighbouring frames of a loop are alike, so the confidence is that of so many loops rather than of so many frames."
    )
    return tuple(said)
