"""A site's own frames: where their centre lies in the model's axes, how far they spread, and which threshold follows.

What adapts, and what does not: the axes and the features are the model's. The centre and the spread along each axis are the
site's. The threshold comes from the scores of loops that centre and spread were not measured on, each loop left out in its
turn. Inverted and enlarged frames, made of the site's own, are told by directions of their own as well
(`calib/domain_changes.py`). So a site whose frames are unlike the taught ones altogether gets a threshold of its own: the score
then says whether a frame is like this site's, no longer whether the network was taught on such frames. `shift` says how far
away they are.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float32, Float64

from calib.domain import CONFIDENCE, Domain, TaughtDomain, frames_needed, threshold_at
from calib.domain_changes import PlacedFrames, centre_and_spread, learned_changes
from calib.errors import DomainError
from calib.results import DomainResult, LearnedChange

FALSE_ALARM_RATE = 0.05
"""Of single frames; three of ten must be strange before anything follows."""
LEAST_GROUPS = 3
"""Loops, so that each can be judged by others."""
MARGIN = 2.0
"""So many times the false-alarm rate, in loops that were not calibrated on, and the step does not pass."""
CAUGHT = 0.9
"""Share of a kind of changed frames that must be above the threshold."""
ZOOM = 3.0
CHANGED = 40
"""About so many frames are changed, to learn what tells them and to see whether they are caught."""
Features = Callable[[np.ndarray], Float32[np.ndarray, "71"]]


def changed_frames(frame: np.ndarray, max_value: int) -> Iterator[tuple[str, np.ndarray]]:
    """A frame as it must not reach the network: black, flat, inverted, and its middle enlarged.

    Args:
        frame: (rows, columns) stored pixel values.
        max_value: The largest stored value.
    """
    yield "black", np.zeros_like(frame)
    yield "flat", np.full_like(frame, int(np.median(frame)))
    yield "inverted", (max_value - frame).astype(frame.dtype)
    yield "zoomed", enlarged(frame, ZOOM)


def enlarged(frame: np.ndarray, times: float) -> np.ndarray:
    """The middle of a frame, so many times larger, at the frame's own size."""
    rows, columns = frame.shape
    height, width = round(rows / times), round(columns / times)
    top, left = (rows - height) // 2, (columns - width) // 2
    middle = np.ascontiguousarray(frame[top : top + height, left : left + width])
    found: np.ndarray = cv2.resize(middle, (columns, rows), interpolation=cv2.INTER_LINEAR)
    return found


def measure_domain(
    frames: Iterable[tuple[str, np.ndarray]],
    features: Features,
    taught: TaughtDomain,
    *,
    max_value: int,
    false_alarm_rate: float = FALSE_ALARM_RATE,
) -> DomainResult:
    """A site's centre, spread, threshold and learned changes from its own frames.

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
    own = taught.axes(np.stack(found))
    labels = np.array(groups)
    chosen = _to_be_changed(labels)
    changed: dict[str, list[np.ndarray]] = {}
    for index in chosen:
        for name, frame in changed_frames(kept[index], max_value):
            changed.setdefault(name, []).append(features(frame))
    placed = PlacedFrames(
        own, labels, {name: taught.axes(np.stack(each)) for name, each in changed.items()}, labels[chosen]
    )
    if not all(np.isfinite(each).all() for each in (own, *placed.changed.values())):
        raise DomainError(
            "needed frames that the engine can tell features of, got some without; see contrastream doctor"
        )
    domain = learned_domain(taught, placed, false_alarm_rate)
    residual, caught = unseen_loops(taught, placed, false_alarm_rate)
    limit = MARGIN * false_alarm_rate
    shift = float(np.sqrt(np.mean(domain.centre**2)))
    missed = [name for name in caught if caught[name] < CAUGHT]
    return DomainResult(
        passed=residual <= limit and not missed,
        frames=len(found),
        residual=residual,
        limit=limit,
        unit="share of the frames of a loop that was left out",
        says=_says(shift, caught, missed, residual, limit),
        loops=len(placed.loops),
        threshold=domain.threshold,
        false_alarm_rate=false_alarm_rate,
        confidence=CONFIDENCE,
        strange=domain.strange,
        of=domain.of,
        centre=_plain(domain.centre),
        spread=_plain(domain.spread),
        shift=shift,
        score_percentiles=_plain(np.percentile(held_out_scores(own, labels), np.arange(101))),
        caught_black=caught["black"],
        caught_flat=caught["flat"],
        caught_inverted=caught["inverted"],
        caught_zoomed=caught["zoomed"],
        changes=tuple(
            LearnedChange(name, _plain(weights)) for name, weights in learned_changes(placed).items()
        ),
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
        [change.weights for change in result.changes],
    )


def learned_domain(taught: TaughtDomain, frames: PlacedFrames, false_alarm_rate: float) -> Domain:
    """Centre, spread, threshold and changes of a site's frames.

    The threshold is that of `calib.domain.threshold_at`; where the frames are too few for the rate, their largest held-out
    score.
    """
    held = held_out_scores(frames.own, frames.labels)
    few = len(held) < frames_needed(false_alarm_rate)
    threshold = float(held.max()) if few else threshold_at(held, false_alarm_rate)
    centre, spread = centre_and_spread(frames.own)
    changes = tuple(learned_changes(frames).values())
    return Domain.of_site(taught, centre, spread, threshold, false_alarm_rate, changes=changes)


def held_out_scores(placed: Float[np.ndarray, "n 71"], labels: np.ndarray) -> Float64[np.ndarray, " n"]:
    """Each frame's distance by centre and spread of the other loops."""
    scores = np.empty(len(placed))
    for label in np.unique(labels):
        out = labels == label
        centre, spread = centre_and_spread(placed[~out])
        scores[out] = np.sqrt(np.mean(((placed[out] - centre) / spread) ** 2, axis=1))
    return scores


def unseen_loops(
    taught: TaughtDomain, frames: PlacedFrames, false_alarm_rate: float
) -> tuple[float, dict[str, float]]:
    """How loops fare that had no part in centre, spread, threshold and changes: each is left out in its turn.

    Returns:
        Share of the frames above the threshold, the mean over loops; and the share of changed frames above it, by what was
        done to them.
    """
    alarms: list[float] = []
    above: dict[str, list[bool]] = {name: [] for name in frames.changed}
    for others, loop in frames.each_left_out():
        domain = learned_domain(taught, others, false_alarm_rate)
        alarms.append(float(np.mean(domain.scores_at(loop.own) > domain.threshold)))
        for name, changed in loop.changed.items():
            above[name] += (domain.scores_at(changed) > domain.threshold).tolist()
    return float(np.mean(alarms)), {name: float(np.mean(each)) for name, each in above.items()}


def _to_be_changed(labels: np.ndarray) -> np.ndarray:
    """Which frames are changed: about `CHANGED`, of every loop as many, spread evenly over it."""
    loops = [np.flatnonzero(labels == label) for label in np.unique(labels)]
    each = max(1, CHANGED // len(loops))
    return np.concatenate(
        [
            frames[np.unique(np.linspace(0, len(frames) - 1, min(each, len(frames))).round().astype(int))]
            for frames in loops
        ]
    )


def _plain(values: Float64[np.ndarray, " n"]) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


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
    shares = ", ".join(f"{name} {100 * share:.0f} %" for name, share in caught.items())
    said.append(f"Caught of frames that were changed on purpose, in loops that were left out: {shares}.")
    if missed:
        said.append(
            f"Frames that must be caught are not: {', '.join(missed)}; the loops are too unlike each other for one "
            "threshold: calibrate on loops of one kind, or give more of them."
        )
    if residual > limit:
        said.append(
            f"{100 * residual:.0f} % of the frames of a loop that was left out count as strange: give more loops."
        )
    said.append(
        "Neighbouring frames of a loop are alike, so the confidence is that of so many loops rather than of so many frames."
    )
    return tuple(said)
