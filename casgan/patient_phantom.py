"""A phantom patient's recording with one injection, and the same patient later: exact truth for what an adaptation draws.

The heart's rate and the breath's depth wander from beat to beat and breath to breath, so that no moment comes back exactly. The
picture is wider than the frame: a moved table shows what lay beside it.
"""

import math
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from calib.config import PhantomConfig
from calib.phantom import BOLUS_SPEED_MM_PER_S, Phantom
from calib.phantom_heart import Pose
from calib.phantom_patient import pose_at
from calib.phantom_rendering import soft_step, store
from casgan.data import patient_config

WIDER = 1.3
"""Of the frame's side: room for a table that moves."""
FILLS_S = 0.15
WASHES_S = 0.5
RATE_HZ = 15.0


@dataclass(frozen=True)
class Moments:
    """When the heart and the breath are where, frame by frame."""

    heart: np.ndarray
    """(n,) phase, 0 to 1."""
    breath: np.ndarray
    """(n,) phase, 0 to 1 from the end of expiration."""
    depth: np.ndarray
    """(n,) the breath's depth, times the patient's own."""


def moments(count: int, rng: np.random.Generator, depth: tuple[float, float] = (0.7, 1.3)) -> Moments:
    """A stretch of frames, 15 per second: beats of 60 to 85 per minute, breaths of 11 to 16, of other depths each."""

    def turns(low: float, high: float) -> np.ndarray:
        ends = np.cumsum(60.0 / rng.uniform(low, high, count + 2))
        times = np.arange(count) / RATE_HZ
        return np.interp(
            times + float(rng.uniform(0.0, ends[0])), np.concatenate([[0.0], ends]), np.arange(count + 3)
        )

    heart, breath = turns(60.0, 85.0), turns(11.0, 16.0)
    deep = rng.uniform(*depth, int(breath[-1]) + 2)
    return Moments(heart % 1.0, breath % 1.0, deep[breath.astype(int)])


class PhantomPatient:
    """One phantom patient at the network's size.

    Args:
        seed: Who.
        size: Rows and columns of a frame.
        turn_deg: How far the C-arm is turned from the patient's own view.
    """

    def __init__(self, seed: int, size: int = 256, turn_deg: float = 0.0) -> None:
        wide = 2 * math.ceil(size * WIDER / 2)
        own = patient_config(seed)
        config: PhantomConfig = replace(
            own,
            rows=wide,
            columns=wide,
            field_mm=min(400.0, own.field_mm * wide / size),
            collimated=False,
            variation=0.2,
            contrast=True,
        )
        view = Phantom(replace(config, rows=64, columns=64)).view
        turned = float(np.clip(view.primary_deg + turn_deg, -60.0, 60.0))
        self.phantom = Phantom(
            replace(config, primary_angle_deg=turned, secondary_angle_deg=view.secondary_deg)
        )
        self.size = size
        self.spacing_mm = self.phantom.config.spacing_mm

    def pose(self, at: Moments, index: int) -> Pose:
        """How the heart lies in a frame."""
        patient = replace(
            self.phantom.patient, breath_mm=self.phantom.patient.breath_mm * float(at.depth[index])
        )
        return pose_at(patient, float(at.heart[index]), float(at.breath[index]))

    def picture(
        self,
        pose: Pose,
        rng: np.random.Generator,
        filling: Float32[np.ndarray, " m"] | None = None,
        shift_mm: tuple[float, float] = (0.0, 0.0),
    ) -> tuple[UInt8[np.ndarray, "s s"], UInt8[np.ndarray, "s s"], Bool[np.ndarray, "s s"]]:
        """The frame without contrast medium, with it, and where vessels are.

        Args:
            pose: How the heart lies.
            rng: Of the noise.
            filling: How full each segment is; None for all full.
            shift_mm: How far the table has moved, down and right, at the heart.
        """
        clean = self.phantom.clean(pose, filling)
        plain, angiogram = self.phantom.add_noise(clean, rng)
        room = (self.phantom.config.rows - self.size) // 2
        top, left = (room - round(mm / self.spacing_mm) for mm in shift_mm)
        cut = (slice(top, top + self.size), slice(left, left + self.size))
        return store(plain[cut], 255), store(angiogram[cut], 255), clean.mask[cut]

    def filling(self, since_s: float, lasts_s: float) -> Float32[np.ndarray, " m"]:
        """How full each segment is so long after an injection of such a length began."""
        first, _ = self.phantom.tree.segments
        since = (since_s - self.phantom.tree.reach_mm[first] / BOLUS_SPEED_MM_PER_S).astype(np.float32)
        full = soft_step(since - np.float32(FILLS_S), FILLS_S)
        return full * (np.float32(1.0) - soft_step(since - np.float32(lasts_s + WASHES_S), WASHES_S))

    def recording(
        self, rng: np.random.Generator, before_s: float, lasts_s: float, after_s: float
    ) -> tuple[UInt8[np.ndarray, "n s s"], Bool[np.ndarray, "n s s"], Moments]:
        """Frames before, during and after one injection, with the vessels' truth in each (filled or not)."""
        count = round((before_s + lasts_s + after_s) * RATE_HZ)
        at = moments(count, rng)
        frames, masks = [], []
        for index in range(count):
            amount = self.filling(index / RATE_HZ - before_s, lasts_s)
            plain, angiogram, mask = self.picture(self.pose(at, index), rng, amount)
            frames.append(angiogram if amount.max() > 0 else plain)
            masks.append(mask)
        return np.stack(frames), np.stack(masks), at
