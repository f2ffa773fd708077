"""Is an engine close enough to the reference on the site's own frames, and may it run in int8?

Engines come as callables, so nothing here knows a runtime. Grey levels and attention levels are of 255 whatever the
bits stored, so that the figures of two frame formats compare.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Float64

from calib.errors import CalibrationError
from calib.results import EngineDifference, PrecisionResult

Draw = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]
"""An engine on one frame: (rows, columns) stored pixel values to the synthetic picture, of the same kind, and the attention,
uint8. Neither may be overwritten by the next call."""

DRAWN_LEVEL = 76
"""Attention above it is a drawn vessel: 0.3 of 255, as `casgan/vessel_metrics.py` counts."""
MIN_FRAMES = 8
MIN_TIMINGS = 40
"""Inferences of each engine behind a median."""
WARM_UP = 3
FASTER = 0.95
"""int8 must take less than this share of the other engine's time, or nothing is won by it."""


@dataclass(frozen=True)
class PrecisionLimits:
    """What an engine may differ from the fp32 reference by. All of it is our choice.

    Grey levels are of 255. The quantum noise of a cine frame has a standard deviation of 2 to 4 of them.
    """

    grey_mean: float
    grey_p99: float
    grey_max: float
    dice: float
    """Vessels drawn against the reference's, at least."""
    truth_loss: float
    """By how much the agreement with true vessels may fall, where they are known."""


LIMITS: Mapping[str, PrecisionLimits] = {
    "f32": PrecisionLimits(0.001, 1.0, 1.0, 0.999, 0.001),
    # Never measured on a GPU; fp16 has three bits more than bf16, so it must do no worse.
    "f16": PrecisionLimits(0.05, 1.0, 4.0, 0.99, 0.005),
    "bf16": PrecisionLimits(0.05, 1.0, 4.0, 0.99, 0.005),
    "int8": PrecisionLimits(0.2, 2.0, 16.0, 0.97, 0.01),
}
"""By what the convolutions are computed in."""


@dataclass(frozen=True)
class Candidate:
    """An engine to be measured."""

    backend: str
    precision: str
    draw: Draw

    @property
    def name(self) -> str:
        """As it is shown and chosen: `openvino bf16`."""
        return f"{self.backend} {self.precision}"


@dataclass(frozen=True)
class WorstFrame:
    """The frame on which an engine differs most from the reference."""

    index: int
    live: np.ndarray
    expected: np.ndarray
    drawn: np.ndarray
    largest: float
    """Of its differences, in grey levels of 255."""


class Differences:
    """Takes in frames one by one and keeps counts, so that percentiles are exact and no frame is kept but the worst.

    Args:
        bits_stored: Of the frames, 8 to 16.
    """

    def __init__(self, bits_stored: int) -> None:
        self.frames = 0
        self.background_exact = True
        self.worst: WorstFrame | None = None
        self._to_grey = 255.0 / float((1 << bits_stored) - 1)
        self._grey = np.zeros(1 << bits_stored, np.int64)
        self._attention = np.zeros(256, np.int64)
        self._agree = np.zeros(3, np.int64)
        """Vessel pixels of both, of the engine, of the reference."""
        self._truth: np.ndarray | None = None
        """Vessel pixels of engine and truth, of reference and truth, of the engine, of the reference, of truth."""

    def add(
        self,
        live: np.ndarray,
        drawn: tuple[np.ndarray, np.ndarray],
        expected: tuple[np.ndarray, np.ndarray],
        truth: np.ndarray | None = None,
    ) -> None:
        """One frame.

        Args:
            live: (rows, columns) stored pixel values.
            drawn: The engine's picture and attention.
            expected: The reference's.
            truth: (rows, columns) bool, where vessels are; None where nobody knows.
        """
        apart = np.abs(drawn[0].astype(np.int32) - expected[0].astype(np.int32))
        self._grey += np.bincount(apart.ravel(), minlength=len(self._grey))
        levels = np.abs(drawn[1].astype(np.int32) - expected[1].astype(np.int32))
        self._attention += np.bincount(levels.ravel(), minlength=256)
        untouched = drawn[1] == 0
        self.background_exact &= bool(np.array_equal(drawn[0][untouched], live[untouched]))
        ours, theirs = drawn[1] > DRAWN_LEVEL, expected[1] > DRAWN_LEVEL
        self._agree += [np.count_nonzero(part) for part in (ours & theirs, ours, theirs)]
        if truth is not None:
            parts = (ours & truth, theirs & truth, ours, theirs, truth)
            counts = np.array([np.count_nonzero(part) for part in parts], np.int64)
            self._truth = counts if self._truth is None else self._truth + counts
        largest = float(apart.max()) * self._to_grey
        if self.worst is None or largest > self.worst.largest:
            self.worst = WorstFrame(self.frames, live.copy(), expected[0].copy(), drawn[0].copy(), largest)
        self.frames += 1

    @property
    def grey(self) -> tuple[float, float, float]:
        """Mean, 99th percentile and maximum of the differences in grey levels of 255."""
        mean, p99, largest = (value * self._to_grey for value in _summary(self._grey))
        return mean, p99, largest

    @property
    def attention(self) -> tuple[float, float, float]:
        """The same of the attention, in levels of 255."""
        return _summary(self._attention)

    def result(self, candidate: Candidate, median_ms: float | None = None) -> EngineDifference:
        """What was found, and whether it is within the limits of the candidate's precision.

        Raises:
            ValueError: No frame was added, or there are no limits for the precision.
        """
        if self.worst is None:
            raise ValueError("differences need at least one frame, got none")
        truth_dice = reference_truth_dice = None
        if self._truth is not None:
            truth_dice = _dice(self._truth[0], self._truth[2], self._truth[4])
            reference_truth_dice = _dice(self._truth[1], self._truth[3], self._truth[4])
        found = EngineDifference(
            candidate.backend,
            candidate.precision,
            True,
            *self.grey,
            *self.attention,
            dice=_dice(*self._agree),
            truth_dice=truth_dice,
            reference_truth_dice=reference_truth_dice,
            background_exact=self.background_exact,
            worst_frame=self.worst.index,
            median_ms=median_ms,
        )
        return replace(found, passed=not beyond(found))


def _summary(counts: np.ndarray) -> tuple[float, float, float]:
    """Mean, 99th percentile (the smallest level that 99 % of the pixels do not exceed) and maximum of counted levels."""
    level = np.arange(len(counts))
    total = int(counts.sum())
    mean = float((counts * level).sum()) / total
    p99 = int(np.searchsorted(np.cumsum(counts), 0.99 * total))
    return mean, float(p99), float(np.flatnonzero(counts)[-1])


def _dice(both: np.int64, one: np.int64, other: np.int64) -> float | None:
    """2 |P n T| / (|P| + |T|) over all frames together; None where nobody drew anything."""
    return 2.0 * int(both) / int(one + other) if one + other else None


def limits_of(precision: str) -> PrecisionLimits:
    """The limits of a precision.

    Raises:
        ValueError: There are none.
    """
    if precision not in LIMITS:
        raise ValueError(f"limits are known for {', '.join(LIMITS)}, got the precision {precision!r}")
    return LIMITS[precision]


def beyond(found: EngineDifference) -> list[str]:
    """Every limit that an engine exceeds, as a phrase; empty where it is close enough."""
    limits = limits_of(found.precision)
    phrases = [
        f"{name} {got:.3g} grey levels of 255, {most:g} allowed"
        for name, got, most in (
            ("mean", found.grey_mean, limits.grey_mean),
            ("p99", found.grey_p99, limits.grey_p99),
            ("largest", found.grey_max, limits.grey_max),
        )
        # Compared with a thousandth to spare: 4 steps of 4095 are not 4 thousandths of a level too many by rounding.
        if got > most + 1e-3
    ]
    if found.dice is not None and found.dice < limits.dice:
        phrases.append(f"vessel Dice {found.dice:.4f} against the reference, {limits.dice:g} needed")
    if found.truth_dice is not None and found.reference_truth_dice is not None:
        loss = found.reference_truth_dice - found.truth_dice
        if loss > limits.truth_loss:
            phrases.append(
                f"vessel Dice against the truth falls by {loss:.4f}, {limits.truth_loss:g} allowed"
            )
    if not found.background_exact:
        phrases.append("the picture is changed where nothing is drawn")
    return phrases


def measure_precision(
    frames: Sequence[np.ndarray],
    bits_stored: int,
    reference: Candidate,
    candidates: Sequence[Candidate],
    *,
    truths: Sequence[np.ndarray] | None = None,
    int8_frames_sha256: str = "",
    without: Sequence[str] = (),
) -> tuple[PrecisionResult, dict[str, WorstFrame]]:
    """Compare engines with the reference, time them in turn, and choose the precision to run in.

    Args:
        frames: (rows, columns) stored pixel values. Not those that int8 was calibrated on.
        bits_stored: Of the frames.
        reference: The fp32 engine that all are compared with.
        candidates: The engines. The first is what suits this machine, and stays unless int8 is accepted, or it is not close
            enough and f32 on the same backend is.
        truths: True vessels of each frame, bool; None where nobody knows them.
        int8_frames_sha256: What int8 was calibrated on.
        without: Sentences on engines that could not be measured, with the reason.

    Returns:
        The result, and the worst frame of each candidate by its name, for the caller to keep as a picture.

    Raises:
        CalibrationError: Too few frames.
        ValueError: No candidate, or as many truths as there are not frames.
    """
    if len(frames) < MIN_FRAMES:
        raise CalibrationError(
            f"precision needs at least {MIN_FRAMES} frames to judge an engine on, got {len(frames)}; record a longer run"
        )
    if not candidates or (truths is not None and len(truths) != len(frames)):
        raise ValueError(
            f"precision needs an engine and a truth for each frame or none, got {len(candidates)} engines, "
            f"{len(frames)} frames and {'no' if truths is None else len(truths)} truths"
        )
    gathered = [Differences(bits_stored) for _ in candidates]
    for index, live in enumerate(frames):
        expected = reference.draw(live)
        truth = None if truths is None else truths[index]
        for candidate, differences in zip(candidates, gathered, strict=True):
            differences.add(live, candidate.draw(live), expected, truth)
    medians = median_times_ms(candidates, frames)
    found = [
        differences.result(candidate, float(median))
        for candidate, differences, median in zip(candidates, gathered, medians, strict=True)
    ]
    worst = {
        candidate.name: differences.worst
        for candidate, differences in zip(candidates, gathered, strict=True)
        if differences.worst is not None
    }
    return _choose(found, reference.name, len(frames), int8_frames_sha256, without), worst


def median_times_ms(
    candidates: Sequence[Candidate], frames: Sequence[np.ndarray]
) -> Float64[np.ndarray, " n"]:
    """Median time of each engine on a frame, in ms. They take turns, so that what the machine does else hits all alike."""
    rounds = [frames[index % len(frames)] for index in range(WARM_UP + max(MIN_TIMINGS, len(frames)))]
    taken = np.zeros((len(rounds), len(candidates)))
    for index, live in enumerate(rounds):
        for place, candidate in enumerate(candidates):
            began = time.perf_counter()
            candidate.draw(live)
            taken[index, place] = time.perf_counter() - began
    medians: Float64[np.ndarray, " n"] = np.median(taken[WARM_UP:], axis=0) * 1e3
    return medians


def _choose(
    found: Sequence[EngineDifference], reference: str, frames: int, sha256: str, without: Sequence[str]
) -> PrecisionResult:
    """The first engine, or int8 on the same backend where it is close enough and faster; f32 on it where neither is close."""
    says = [_sentence(each) for each in found]
    chosen = found[0]
    for each in found[1:]:
        if each.precision != "int8" or each.backend != chosen.backend:
            continue
        why = beyond(each)
        if each.dice is None:
            why.append("neither it nor the reference draws a vessel on these frames, so it cannot be judged")
        if each.median_ms is not None and chosen.median_ms is not None:
            share = each.median_ms / chosen.median_ms
            if share >= FASTER:
                why.append(f"it takes {share:.2f} times as long as {chosen.precision}, so nothing is won")
        if why:
            says.append(f"int8 is refused and {chosen.precision} stays: {'; '.join(why)}")
        else:
            says.append(f"int8 is accepted in place of {chosen.precision}")
            chosen = each
    full = [
        each
        for each in found
        if each.backend == chosen.backend and each.precision == "f32" and each.passed and not chosen.passed
    ]
    if full:
        says.append(f"{chosen.precision} is refused and f32 is run in its place: {'; '.join(beyond(chosen))}")
        chosen = full[0]
    says.extend(without)
    return PrecisionResult(
        passed=chosen.passed,
        frames=frames,
        residual=chosen.grey_p99,
        limit=limits_of(chosen.precision).grey_p99,
        unit="grey levels of 255",
        says=tuple(says),
        reference=reference,
        chosen=chosen.precision,
        engines=tuple(found),
        int8_frames_sha256=sha256 if chosen.precision == "int8" else "",
    )


def _sentence(found: EngineDifference) -> str:
    dice = "no vessels drawn" if found.dice is None else f"vessel Dice {found.dice:.4f}"
    taken = "" if found.median_ms is None else f"; median {found.median_ms:.1f} ms"
    why = beyond(found)
    return (
        f"{found.backend} {found.precision}: grey levels of 255 mean {found.grey_mean:.3f}, p99 {found.grey_p99:.2f}, "
        f"largest {found.grey_max:.1f}; attention mean {found.attention_mean:.2f}, p99 {found.attention_p99:.0f}, "
        f"largest {found.attention_max:.0f}; {dice}{taken}" + (f"; refused: {'; '.join(why)}" if why else "")
    )
