"""A site's own grey-level table, measured from its contrast-free frames.

frames -> polarity -> which are filled, which moved -> percentiles inside the field -> landmarks -> table and inverse
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float64, Int64, UInt8

from calib.detector_response import plateaus, response_by_noise
from calib.errors import CalibrationError
from calib.filling import FILLED, FILLED_TREE, PLAIN, connected_line_share, dark_line_share, tell_frames
from calib.intensity import (
    LANDMARK_GREYS,
    LANDMARKS_PERCENT,
    check_reference,
    landmark_table,
    matched_table,
)
from calib.intensity_words import LEAST_FRAMES, SortedFrames, listed, sentences, too_few
from calib.polarity import TELLS, polarity_score
from calib.results import IntensityResult
from calib.table_motion import MOVED_PERCENT, shifts_percent

FALLBACK = tuple(zip(LANDMARKS_PERCENT, LANDMARK_GREYS, strict=True))
"""What frames are brought to where the model's card has no reference."""
LIMIT_PERCENT = 1.0
"""Two halves of the frames must give the same grey levels within this."""
LEAST_RANGE = 8.0
"""Stored values between percentiles 1 and 99 below which a frame shows nothing."""
FULL_SHARE = 0.5
"""Share of the field at one end of the stored range from which a frame is refused as saturated."""
CUT_OFF_MOST = 0.1
"""Share of the field at the ends, or piled up, above which the step does not pass."""
LEAST_SIDE = 64
POLARITY_FRAMES = 24
AREA_SIDE = 256
"""Pixels of the shorter side at which narrow dark lines are counted."""
TREE_FRAMES = 8
"""Frames of a run that never changes in which a tree is looked for."""
PAIRS = 16
"""Pairs of neighbouring frames of which the noise is measured."""


def measure_intensity(
    frames: np.ndarray,
    field: np.ndarray,
    bits_stored: int,
    *,
    reference: Sequence[tuple[float, float]] = (),
    runs: Sequence[int] | None = None,
    photometric_inverted: bool | None = None,
    looks_filled: Sequence[bool] | None = None,
) -> IntensityResult:
    """Measure the table that brings a site's stored values to the grey levels a model was taught on.

    Landmarks are percentiles inside the field: of each frame, median over a run's frames, mean over runs. The
    table goes through all of them (`calib.intensity.matched_table`).

    Args:
        frames: (n, rows, columns) uint8 for 8 bits stored, else uint16; in order, run after run. Not changed.
        field: (rows, columns), or (n, rows, columns) where runs have fields of their own; above 0 inside.
        bits_stored: Bits stored per sample, 8 to 16.
        reference: (percentile, grey level) pairs of the model's card, `ModelCard.reference_greys`; empty falls back
            to `calib.intensity.LANDMARK_GREYS`, and the result says so.
        runs: Which run each frame belongs to; None for all of one.
        photometric_inverted: True where the source says MONOCHROME1, False for MONOCHROME2, None where it says
            nothing, as a frame-grabber does.
        looks_filled: What a person says of each frame; None leaves it to the dark lines.

    Returns:
        The table and how it came about. It passes when two halves of the frames agree within 1 % of the grey
        levels and the picture is not cut off.

    Raises:
        CalibrationError: Nothing can be measured on these frames: too few, all filled, constant, saturated, or the
            table moved all the time.
        ValueError: Arguments that do not fit each other.
    """
    run_of, fields = _checked(frames, field, bits_stored, runs, looks_filled)
    largest = float((1 << bits_stored) - 1)
    pairs = tuple((float(percent), float(grey)) for percent, grey in reference) or FALLBACK
    check_reference(pairs)
    _refuse_empty(frames, fields, largest)

    some = _spread(len(frames), POLARITY_FRAMES)
    score = float(np.mean([polarity_score(frames[index], fields[index]) for index in some]))
    inverted = score < 0.0 if abs(score) >= TELLS else bool(photometric_inverted)
    kept = _sorted_frames(frames, fields, run_of, bits_stored, inverted, looks_filled)
    if len(kept.used) < LEAST_FRAMES:
        raise CalibrationError(too_few(kept, len(frames)))

    percents, greys = (tuple(values) for values in zip(*pairs, strict=True))

    def upright(index: int) -> np.ndarray:
        """A frame with vessels dark."""
        return np.asarray(int(largest) - frames[index] if inverted else frames[index])

    marks = np.array([np.percentile(upright(index)[fields[index]], percents) for index in kept.used])
    of_run = run_of[list(kept.used)]
    landmarks = _over_runs(marks, of_run)
    table, inverse = matched_table(landmarks, greys, bits_stored, inverted)
    residual = _residual(marks, of_run, greys, bits_stored)
    between_runs = _between_runs(marks, of_run, greys, bits_stored)

    counts = np.zeros(int(largest) + 1, np.int64)
    for index in kept.used:
        counts += np.bincount(frames[index][fields[index]], minlength=len(counts))
    shares = counts / counts.sum()
    piled = plateaus(counts)
    cut_off = float(shares[0] + shares[-1] + sum(shares[value] for value in piled if value is not None))
    pairs_of_frames = [(upright(one), upright(two)) for one, two in _neighbours(kept.used, run_of)]
    response, slope = response_by_noise(pairs_of_frames, _common(fields, kept.used), largest)
    result = IntensityResult(
        passed=residual <= LIMIT_PERCENT and cut_off <= CUT_OFF_MOST,
        frames=len(kept.used),
        residual=residual,
        limit=LIMIT_PERCENT,
        unit="% of the grey levels",
        says=(),
        bits_stored=bits_stored,
        table=tuple(map(float, table)),
        inverse=tuple(map(float, inverse)),
        percents=percents,
        landmarks=tuple(float(largest - value if inverted else value) for value in landmarks),
        reference=greys,
        reference_from="model" if reference else "fallback",
        inverted=inverted,
        polarity_said={True: "MONOCHROME1", False: "MONOCHROME2", None: "nothing"}[photometric_inverted],
        polarity_seen="cannot tell" if abs(score) < TELLS else "dark" if score > 0.0 else "bright",
        polarity_score=score,
        response=response,
        response_slope=slope,
        clipped_low=float(shares[0]),
        clipped_high=float(shares[-1]),
        plateau_low=None if piled[0] is None else float(piled[0]),
        plateau_high=None if piled[1] is None else float(piled[1]),
        filled_frames=kept.filled,
        moved_frames=kept.moved,
        shift_percent=kept.shift_percent,
    )
    return replace(result, says=sentences(result, kept, len(set(of_run.tolist())), between_runs))


def _checked(
    frames: np.ndarray,
    field: np.ndarray,
    bits_stored: int,
    runs: Sequence[int] | None,
    looks_filled: Sequence[bool] | None,
) -> tuple[Int64[np.ndarray, " n"], Bool[np.ndarray, "n h w"]]:
    """The run of each frame, and each frame's field.

    Raises:
        ValueError: Something does not fit.
        CalibrationError: Too few frames.
    """
    if not 8 <= bits_stored <= 16:
        raise ValueError(f"bits_stored must be 8 to 16, got {bits_stored}; convert the source")
    dtype = np.uint8 if bits_stored == 8 else np.uint16
    if frames.ndim != 3 or frames.dtype != dtype:
        raise ValueError(
            f"frames must be (n, rows, columns) {np.dtype(dtype)} for {bits_stored} bits stored, got {frames.shape} "
            f"{frames.dtype}; convert the source"
        )
    if len(frames) < LEAST_FRAMES:
        raise CalibrationError(
            f"the grey levels need {LEAST_FRAMES} frames or more, got {len(frames)}; record a longer loop without contrast"
        )
    if min(frames.shape[1:]) < LEAST_SIDE:
        raise ValueError(
            f"frames must be {LEAST_SIDE} x {LEAST_SIDE} pixels or above, got {frames.shape[1:]}"
        )
    if field.shape not in (frames.shape, frames.shape[1:]):
        raise ValueError(
            f"field must be {frames.shape[1:]} as the frames are, or one for each of them, got {field.shape}"
        )
    if int(frames.max()) >= 1 << bits_stored:
        raise ValueError(
            f"{bits_stored} bits hold values to {(1 << bits_stored) - 1}, got {int(frames.max())}; give the source's own "
            "bits stored"
        )
    fields = np.broadcast_to(field > 0, frames.shape)
    if not fields.any(axis=(1, 2)).all():
        raise ValueError("field must have pixels inside, got none; measure the geometry first")
    run_of = np.zeros(len(frames), np.int64) if runs is None else np.asarray(runs, np.int64)
    for name, values in (("runs", run_of), ("looks_filled", looks_filled)):
        if values is not None and len(values) != len(frames):
            raise ValueError(f"{name} must name each of {len(frames)} frames, got {len(values)} values")
    return run_of, fields


def _refuse_empty(frames: np.ndarray, fields: Bool[np.ndarray, "n h w"], largest: float) -> None:
    """Refuse frames in which there is nothing to measure.

    Raises:
        CalibrationError: Constant or saturated ones.
    """
    constant, saturated = [], []
    for index, (frame, field) in enumerate(zip(frames, fields, strict=True)):
        inside = frame[field]
        low, high = np.percentile(inside, (1.0, 99.0))
        if max(float((inside == 0).mean()), float((inside == int(largest)).mean())) > FULL_SHARE:
            saturated.append(index)
        elif high - low < LEAST_RANGE:
            constant.append(index)
    if saturated:
        raise CalibrationError(
            f"more than half of the field must lie between 0 and {largest:g}, but is at one of them in "
            f"{listed(saturated, len(frames))}; lower the gain, or leave these frames out"
        )
    if constant:
        raise CalibrationError(
            f"frames must show something, but values differ by less than {LEAST_RANGE:g} all over "
            f"{listed(constant, len(frames))}; leave these frames out, or check the cable and the source"
        )


def _sorted_frames(
    frames: np.ndarray,
    fields: Bool[np.ndarray, "n h w"],
    run_of: Int64[np.ndarray, " n"],
    bits_stored: int,
    inverted: bool,
    looks_filled: Sequence[bool] | None,
) -> SortedFrames:
    """Tell which frames serve: neither filled, nor on the way to it, nor of a table that has moved."""
    used, filled, between, moved, never, largest_shift = [], [], [], [], [], 0.0
    for run in dict.fromkeys(run_of.tolist()):
        members = np.flatnonzero(run_of == run)
        if looks_filled is not None:
            told = [FILLED if looks_filled[int(index)] else PLAIN for index in members]
        else:
            field = _common(fields, members.tolist())
            greys = _small_greys(frames, field, members, bits_stored, inverted)
            areas = np.array([dark_line_share(grey, small_field) for grey, small_field in greys])
            told = [domain for domain, _ in tell_frames(areas, len(members))]
            if FILLED not in told:
                # It does not change: only how large the largest tree of dark lines is can tell.
                tree = np.median(
                    [connected_line_share(*greys[at]) for at in _spread(len(greys), TREE_FRAMES)]
                )
                told = [FILLED if tree > FILLED_TREE else PLAIN] * len(told)
                never += [run] if tree <= FILLED_TREE else []
        plain = [int(index) for index, domain in zip(members, told, strict=True) if domain == PLAIN]
        filled += [int(index) for index, domain in zip(members, told, strict=True) if domain == FILLED]
        between += [
            int(index) for index, domain in zip(members, told, strict=True) if domain not in (PLAIN, FILLED)
        ]
        if not plain:
            continue
        shifts = shifts_percent((frames[index] for index in plain), _common(fields, plain))
        for index, shift in zip(plain, shifts, strict=True):
            if shift > MOVED_PERCENT:
                moved.append(index)
            else:
                used.append(index)
                largest_shift = max(largest_shift, shift)
    return SortedFrames(tuple(used), tuple(filled), tuple(between), tuple(moved), tuple(never), largest_shift)


def _small_greys(
    frames: np.ndarray,
    field: Bool[np.ndarray, "h w"],
    members: Int64[np.ndarray, " m"],
    bits_stored: int,
    inverted: bool,
) -> list[tuple[UInt8[np.ndarray, "rows columns"], Bool[np.ndarray, "rows columns"]]]:
    """Each frame of a run, small, at the grey levels that training gives the run, and the field at that size."""
    low, high = np.percentile(frames[members[0]][field], LANDMARKS_PERCENT)
    table, _ = landmark_table(float(low), float(high), bits_stored, inverted)
    knots = np.linspace(0.0, float((1 << bits_stored) - 1), len(table))
    every = np.rint(255.0 * np.interp(np.arange(1 << bits_stored), knots, table)).astype(np.uint8)
    scale = min(1.0, AREA_SIDE / min(field.shape))
    size = (max(1, round(field.shape[1] * scale)), max(1, round(field.shape[0] * scale)))
    small_field = cv2.resize(field.astype(np.uint8), size, interpolation=cv2.INTER_AREA) > 0
    return [
        (np.asarray(cv2.resize(every[frames[index]], size, interpolation=cv2.INTER_AREA)), small_field)
        for index in members
    ]


def _common(fields: Bool[np.ndarray, "n h w"], frames: Sequence[int]) -> Bool[np.ndarray, "h w"]:
    """What is inside the field in all of some frames."""
    if fields.strides[0] == 0:  # one field for all of them
        return np.asarray(fields[0])
    return np.asarray(np.logical_and.reduce([fields[index] for index in frames]))


def _over_runs(
    marks: Float64[np.ndarray, "n k"], of_run: Int64[np.ndarray, " n"]
) -> Float64[np.ndarray, " k"]:
    """Median over the frames of each run, mean over runs, so that a run weighs as much as another."""
    of_each = [np.median(marks[of_run == run], axis=0) for run in np.unique(of_run)]
    return np.asarray(np.mean(of_each, axis=0))


def _residual(
    marks: Float64[np.ndarray, "n k"],
    of_run: Int64[np.ndarray, " n"],
    greys: tuple[float, ...],
    bits_stored: int,
) -> float:
    """How far apart the tables of every other frame of each run and of the rest are, % of the grey levels.

    A run of one frame counts in both halves.
    """
    order = np.zeros(len(marks), np.int64)
    alone = np.zeros(len(marks), bool)
    for run in np.unique(of_run):
        members = np.flatnonzero(of_run == run)
        order[members] = np.arange(len(members)) % 2
        alone[members] = len(members) == 1
    halves = [_over_runs(marks[(order == half) | alone], of_run[(order == half) | alone]) for half in (0, 1)]
    return _apart(halves[0], halves[1], greys, bits_stored)


def _between_runs(
    marks: Float64[np.ndarray, "n k"],
    of_run: Int64[np.ndarray, " n"],
    greys: tuple[float, ...],
    bits_stored: int,
) -> float:
    """How far a single run's own table is from the site's at most, % of the grey levels."""
    whole = _over_runs(marks, of_run)
    return max(
        _apart(whole, np.median(marks[of_run == run], axis=0), greys, bits_stored)
        for run in np.unique(of_run)
    )


def _apart(
    one: Float64[np.ndarray, " k"], two: Float64[np.ndarray, " k"], greys: tuple[float, ...], bits_stored: int
) -> float:
    """Largest difference of two tables between the outer landmarks of the first, % of the grey levels."""
    largest = float((1 << bits_stored) - 1)
    where = np.linspace(one[0], one[-1], 256)
    tables = [matched_table(marks, greys, bits_stored)[0] for marks in (one, two)]
    knots = np.linspace(0.0, largest, len(tables[0]))
    levels = [np.interp(where, knots, table) for table in tables]
    return 100.0 * float(np.abs(levels[0] - levels[1]).max())


def _neighbours(used: tuple[int, ...], run_of: Int64[np.ndarray, " n"]) -> list[tuple[int, int]]:
    """Pairs of frames that follow on each other in one run, some evenly over all."""
    pairs = [
        (one, two) for one, two in itertools.pairwise(used) if two == one + 1 and run_of[one] == run_of[two]
    ]
    return [pairs[at] for at in _spread(len(pairs), PAIRS)]


def _spread(count: int, most: int) -> list[int]:
    """At most `most` numbers, evenly from 0 to below `count`."""
    return sorted({int(at) for at in np.linspace(0, count - 1, min(count, most)).round()}) if count else []
