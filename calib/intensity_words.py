"""What a person should know of a site's grey levels, in sentences."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from calib.intensity import STEEPEST
from calib.results import IntensityResult
from calib.table_motion import MOVED_PERCENT

LEAST_FRAMES = 4
CUT_OFF_SAID = 0.001
MISSED_SAID = 0.03
"""A landmark further than this from its grey level is said."""


@dataclass(frozen=True)
class SortedFrames:
    """Which frames serve."""

    used: tuple[int, ...]
    filled: tuple[int, ...]
    between: tuple[int, ...]
    moved: tuple[int, ...]
    never: tuple[int, ...]
    """Runs that never fill."""
    shift_percent: float


def listed(frames: Sequence[int], of: int) -> str:
    """Frames in words."""
    if len(frames) == of:
        return f"all {of} frames"
    shown = ", ".join(map(str, frames[:8])) + (" and more" if len(frames) > 8 else "")
    return f"{len(frames)} of {of} frames ({shown})"


def too_few(kept: SortedFrames, of: int) -> str:
    """Why too few frames are left."""
    why = [
        f"{listed(some, of)} {what}"
        for some, what in (
            (kept.filled, "look filled with contrast medium"),
            (kept.between, "are on the way to it or away from it"),
            (kept.moved, "were taken after the table had moved"),
        )
        if some
    ]
    what = (
        "hold the table still"
        if kept.moved and not kept.filled
        else (
            "record a loop before any contrast is given, or give --contrast-free where you know that there is none"
        )
    )
    return (
        f"the grey levels need {LEAST_FRAMES} frames without contrast or more, got {len(kept.used)} of {of}: "
        f"{', '.join(why)}; {what}"
    )


def sentences(found: IntensityResult, kept: SortedFrames, runs: int, between_runs: float) -> tuple[str, ...]:
    """What a person should know."""
    said = [
        f"{found.frames} frames without contrast of {runs} run{'s' * (runs > 1)}; stored values {found.landmarks[0]:.0f} "
        f"and {found.landmarks[-1]:.0f} (percentiles {found.percents[0]:g} and {found.percents[-1]:g} of the picture with "
        f"vessels dark) become grey levels {found.reference[0]:.3f} and {found.reference[-1]:.3f}"
    ]
    if found.reference_from == "fallback":
        said.append(
            "the model's card has no reference_greys, so the frames were brought to the digital phantom's two landmarks; "
            "export the model again to have its own"
        )
    missed = missed_by(found)
    if missed > MISSED_SAID:
        said.append(
            f"the histogram is unlike the taught frames': with no slope beyond {STEEPEST:g} times the mean the table misses "
            f"grey levels of landmarks by up to {missed:.2f}; were these frames really without contrast, and inside the field?"
        )
    if runs > 1:
        said.append(
            f"a single run's own table is up to {between_runs:.1f} % of the grey levels from the site's"
        )
    said.append(_polarity_words(found))
    if found.response == "cannot tell":
        said.append("whether the detector's response is linear or logarithmic cannot be told from the noise")
    else:
        said.append(
            f"the noise says a {found.response} response (variance goes with the signal to the power "
            f"{found.response_slope:.2f}; black level, gamma and noise reduction change it)"
        )
    cut = [
        f"{100.0 * share:.1f} % of the field is at {value}"
        for share, value in (
            (found.clipped_low, "0"),
            (found.clipped_high, f"{(1 << found.bits_stored) - 1}"),
        )
        if share > CUT_OFF_SAID
    ]
    cut += [
        f"values pile up at {value:.0f}, as where a detector or a window cuts them off"
        for value in (found.plateau_low, found.plateau_high)
        if value is not None
    ]
    said += cut
    if found.filled_frames:
        said.append(f"{len(found.filled_frames)} frames look filled with contrast medium and were left out")
    if kept.between:
        said.append(f"{len(kept.between)} frames on the way to that or away from it were left out too")
    if kept.never:
        said.append(
            f"{len(kept.never)} of the runs never fill and show few narrow dark lines: taken for contrast-free throughout; look at them"
        )
    if found.moved_frames:
        said.append(
            f"the table moved: {len(found.moved_frames)} frames are shifted by more than {MOVED_PERCENT:g} % of the picture "
            "and were left out"
        )
    if found.residual > found.limit:
        said.append(
            f"two halves of the frames give grey levels {found.residual:.1f} % apart, {found.limit:g} % is allowed: record "
            "more frames, with the exposure settled"
        )
    return tuple(said)


def missed_by(found: IntensityResult) -> float:
    """How far the table is from a landmark's grey level at most."""
    stored = np.linspace(0.0, float((1 << found.bits_stored) - 1), len(found.table))
    return float(np.abs(np.interp(found.landmarks, stored, found.table) - found.reference).max())


def _polarity_words(found: IntensityResult) -> str:
    if found.polarity_seen == "cannot tell":
        says = (
            "nothing of it, so MONOCHROME2 is assumed"
            if found.polarity_said == "nothing"
            else found.polarity_said
        )
        return f"thin structures do not tell the polarity (score {found.polarity_score:+.2f}); the source says {says}"
    seen = f"thin structures are {found.polarity_seen} (score {found.polarity_score:+.2f})"
    if found.polarity_said == "nothing":
        return f"{seen}, so the table {'inverts' if found.inverted else 'does not invert'}"
    if found.inverted == (found.polarity_said == "MONOCHROME1"):
        return f"{seen}, as {found.polarity_said} says"
    return f"{seen}, but the source says {found.polarity_said}: the table follows the frames; check the source's setting"
