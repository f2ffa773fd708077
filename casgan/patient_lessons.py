"""What one patient's recording teaches: frames that never had contrast medium, with the vessels of the same moment of a heartbeat.

    recording -> contrast-free | filled, heartbeat and breath of each frame (calib) -> vessels of the filled ones (segmenter)
              -> each contrast-free frame beside the filled frame of the nearest phase and breath -> its vessels laid in

Filled frames with their vessels removed are not used: whatever was tried, M learned to read the traces of the mending
(casgan/RESULTS.md), with decoys and without.
"""

from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from calib.bolus import Bolus
from calib.heart_phase import HeartPhase
from casgan.errors import DataError

PHASE_REACH = 0.05
"""Share of a beat up to which two frames count as of one moment; the phase is known to 0.04."""
BREATH_REACH = 0.2
"""And share of the breath's own spread (one standard deviation) up to which they count as of one breath."""
WELL_FILLED = 0.85
"""Of the largest vessel area, averaged over a beat: below it distal branches are not filled yet, or no longer."""
MATCHES = 3
LEAST_BEATS = 2
"""Filled heartbeats: one to learn from, one held out."""
LEAST_LESSONS = 24
"""Pairs to learn from; a quarter of that is held out."""
LEAST_FREE_BEATS = 10
WIDEN = np.ones((5, 5), np.uint8)

Masks = Callable[[np.ndarray, np.ndarray], Bool[np.ndarray, "n s s"]]
"""From the numbers of filled frames (n), and of the contrast-free ones nearest to each (n, k), to the vessels of the filled ones."""
BESIDE = 3
"""Contrast-free frames that are looked at beside each filled one."""


@dataclass(frozen=True)
class Lessons:
    """Pairs at the network's size."""

    plain: UInt8[np.ndarray, "n s s"]
    """Grey levels 0 to 255 of frames that never had contrast medium."""
    masks: Bool[np.ndarray, "n s s"]
    """Vessels at that moment, as far as it is known."""
    depth: float
    """How much of the light a vessel takes, 0 to 1, as measured in the filled frames."""

    def __len__(self) -> int:
        return len(self.plain)

    def some(self, which: np.ndarray) -> "Lessons":
        """Those with these indices, or where it is True."""
        return Lessons(self.plain[which], self.masks[which], self.depth)


@dataclass(frozen=True)
class PatientLessons:
    """What is learned from, and what is held out."""

    learn: Lessons
    held: Lessons
    """Vessels of another heartbeat, behind contrast-free frames of other moments."""
    beats: float
    """Filled heartbeats."""


def patient_lessons(
    grey: UInt8[np.ndarray, "n s s"], bolus: Bolus, heart: HeartPhase, masks_of: Masks
) -> PatientLessons:
    """Pair contrast-free frames with the vessels of their moment.

    Args:
        grey: The recording in order, at the network's size, grey levels 0 to 255.
        bolus: Which frames are filled, and which free.
        heart: Phase and breath of each frame.
        masks_of: Segments filled frames, by their numbers in `grey`.

    Raises:
        DataError: Too few heartbeats are filled, or too few contrast-free frames lie at their moments.
    """
    filled, free = np.flatnonzero(well_filled(bolus, heart)), np.flatnonzero(bolus.free)
    beats = len(filled) / heart.frames_per_beat
    if beats < LEAST_BEATS:
        raise DataError(
            f"needed {LEAST_BEATS} filled heartbeats or more ({round(LEAST_BEATS * heart.frames_per_beat)} frames at this "
            f"heart's rate), got {beats:.1f}; inject for longer"
        )
    if len(free) < LEAST_LESSONS:
        raise DataError(_too_few_free(heart, f"{len(free)} contrast-free frames"))
    beside = free[np.argsort(_apart(filled, free, heart), axis=1)[:, :BESIDE]]
    masks = masks_of(filled, beside)
    # The last beat is held out.
    last = np.arange(len(filled)) >= len(filled) - round(heart.frames_per_beat)
    stretch = held_out(len(free), heart)
    depth = vessel_depth(grey[filled], masks)
    parts = []
    for part_free, part_filled in ((free[~stretch], ~last), (free[stretch], last)):
        rows, columns = matched(part_free, filled[part_filled], heart)
        parts.append(Lessons(grey[rows], masks[part_filled][columns], depth))
    learn, held = parts
    if len(learn) < LEAST_LESSONS or len(held) < LEAST_LESSONS // 4:
        said = f"{len(learn)} and {len(held)} pairs of {len(free)} contrast-free frames"
        raise DataError(_too_few_free(heart, said))
    return PatientLessons(learn, held, beats)


def held_out(count: int, heart: HeartPhase) -> Bool[np.ndarray, " n"]:
    """Which of so many contrast-free frames, in order, are held out: every fourth stretch of a beat, since neighbours look alike."""
    return np.asarray((np.arange(count) // max(1.0, heart.frames_per_beat)).astype(int) % 4 == 3)


def _too_few_free(heart: HeartPhase, got: str) -> str:
    return (
        f"needed {LEAST_FREE_BEATS} heartbeats or more without contrast medium ({round(LEAST_FREE_BEATS * heart.frames_per_beat)} "
        f"frames at this heart's rate) that meet the filled ones in heartbeat and breath, got {got}; record longer before the "
        "injection, or name recordings of the same projection before the run"
    )


def well_filled(bolus: Bolus, heart: HeartPhase) -> Bool[np.ndarray, " n"]:
    """Filled frames whose branches are filled too, by the vessel area without the heartbeat's own ups and downs."""
    wide = min(len(bolus.areas), max(3, round(heart.frames_per_beat))) | 1
    padded = np.pad(bolus.areas, wide // 2, mode="edge")
    calm = np.convolve(padded, np.ones(wide) / wide, mode="valid")[: len(bolus.areas)]
    return bolus.filled & (calm >= WELL_FILLED * float(calm[bolus.filled].max()))


def matched(free: np.ndarray, filled: np.ndarray, heart: HeartPhase) -> tuple[np.ndarray, np.ndarray]:
    """For each contrast-free frame the filled ones of its moment.

    Args:
        free: Frame numbers.
        filled: Frame numbers.
        heart: Of all frames.

    Returns:
        Frame numbers out of `free`, and beside each an index into `filled`: the nearest `MATCHES` within reach, since each
        is a little off and their mean less so.
    """
    distance = _apart(free, filled, heart)
    nearest = np.argsort(distance, axis=1)[:, :MATCHES]
    near = np.take_along_axis(distance, nearest, axis=1) <= 1.0
    rows, _ = np.nonzero(near)
    return free[rows], nearest[near]


def _apart(these: np.ndarray, those: np.ndarray, heart: HeartPhase) -> Float[np.ndarray, "n m"]:
    """How far frames are from others in heartbeat and breath; 1 is at the edge of one moment."""
    phase = np.abs(heart.phase[these][:, None] - heart.phase[those][None])
    phase = np.minimum(phase, 1.0 - phase) / PHASE_REACH
    breath = np.abs(heart.breath[these][:, None] - heart.breath[those][None]) / BREATH_REACH
    apart: np.ndarray = np.hypot(phase, breath)
    return apart


def vessel_depth(grey: UInt8[np.ndarray, "n s s"], masks: Bool[np.ndarray, "n s s"]) -> float:
    """How much darker vessels are than what lies around them, 0 to 1: the median over the frames."""
    shares = []
    for frame, mask in zip(grey, masks, strict=True):
        wide = cv2.dilate(mask.astype(np.uint8), WIDEN) > 0
        around = (cv2.dilate(wide.astype(np.uint8), WIDEN) > 0) & ~wide
        if mask.any() and around.any():
            shares.append(1.0 - float(frame[mask].mean()) / max(1.0, float(frame[around].mean())))
    if not shares:
        raise DataError(
            "needed vessels in the filled frames, the segmenter found none; give another --segmenter"
        )
    return float(np.clip(np.median(shares), 0.05, 0.6))


def angiograms(lessons: Lessons) -> Float[np.ndarray, "n s s"]:
    """The contrast-free frames with their vessels laid in, grey levels 0 to 255: v (1 - depth K * mask), K a small blur."""
    laid = np.empty(lessons.plain.shape, np.float32)
    for at, (plain, mask) in enumerate(zip(lessons.plain, lessons.masks, strict=True)):
        laid[at] = plain * (1.0 - lessons.depth * cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 0.8))
    return laid
