"""Phase of the heartbeat and state of the breath of each frame, from the pictures alone.

    frames -> thin dark lines filled up (contrast medium must not count as motion) -> flow from frame to frame
           -> its main ways of moving -> the one that repeats at a heart's rate -> phase
                                      -> what is slower -> breath

The phase is 0 to 1 and starts wherever the run does: what is needed is which frames are alike, not where systole is.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from calib.errors import CalibrationError

SIDE = 96
"""Rows and columns at which motion is looked at."""
LINE_PX = 9
"""Width of the widest line that is filled up there; vessels are 2 to 5 pixels."""
BEATS_PER_MIN = (38.0, 170.0)
"""Heart rates looked for where the frame rate is known."""
FRAMES_PER_BEAT = (4.0, 26.0)
"""And where it is not: cine runs have 7.5 to 30 frames a second."""
WAYS = 4
"""Ways of moving that are kept."""
CLEAR = 0.30
"""Autocorrelation from which a period is believed."""


@dataclass(frozen=True)
class HeartPhase:
    """What the pictures tell."""

    phase: Float[np.ndarray, " n"]
    """0 to 1, of each frame."""
    breath: Float[np.ndarray, " n"]
    """How deep the breath is: mean 0, standard deviation 1 over the run, larger is further down. Table motion is in it too."""
    frames_per_beat: float
    clear: float
    """Autocorrelation of the heart's motion one beat on, -1 to 1: below 0.3 the phase means little."""
    source: str = "pictures"
    """"pictures" or "ECG"."""

    @property
    def beat(self) -> np.ndarray:
        """(n,) which beat each frame belongs to, from 0."""
        beat: np.ndarray = np.floor(self._turns).astype(int)
        return beat

    @property
    def beats(self) -> float:
        """How many heartbeats the run holds."""
        return float(self._turns[-1]) + 1.0 / self.frames_per_beat

    @property
    def _turns(self) -> np.ndarray:
        steps = np.diff(self.phase)
        # From one frame to the next the phase goes on by less than a beat, and never back.
        turns: np.ndarray = np.concatenate([[0.0], np.cumsum(steps - np.floor(steps))]) + self.phase[0]
        return turns


def heart_phase(
    frames: UInt8[np.ndarray, "n h w"], field: Bool[np.ndarray, "h w"], rate_hz: float | None = None
) -> HeartPhase:
    """Estimate phase and breath.

    Args:
        frames: A run in order, vessels dark, grey levels 0 to 255.
        field: True inside the collimated field.
        rate_hz: Frames per second; None where it is not known.

    Raises:
        CalibrationError: Fewer than 8 frames.
    """
    if len(frames) < 8:
        raise CalibrationError(
            f"needed 8 frames or more to see a heartbeat, got {len(frames)}; record a longer run"
        )
    flows, still = _flows(frames, field)
    ways = _ways(flows)
    low, high = FRAMES_PER_BEAT
    if rate_hz is not None:
        low, high = max(2.5, rate_hz * 60.0 / BEATS_PER_MIN[1]), rate_hz * 60.0 / BEATS_PER_MIN[0]
    high = min(high, 0.6 * len(ways))
    low = min(low, high)
    period, clear = _period(ways, low, high)
    return HeartPhase(_phase(ways, period), _breath(still, flows, period), period, clear)


def _flows(
    frames: np.ndarray, field: np.ndarray
) -> tuple[Float[np.ndarray, "m s s 2"], Float[np.ndarray, "n t t"]]:
    """Motion from each frame to the next, pixels of `SIDE`, 0 outside the field, frames - 1 of them; and what lies in each
    frame, coarsely and without thin dark lines."""
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (LINE_PX, LINE_PX))
    inside = cv2.resize(field.astype(np.float32), (SIDE, SIDE), interpolation=cv2.INTER_AREA) > 0.9
    inside = cv2.erode(inside.astype(np.uint8), np.ones((7, 7), np.uint8)).astype(np.float32)
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    last = None
    found, coarse = [], []
    for frame in frames:
        small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
        filled = cv2.GaussianBlur(cv2.morphologyEx(small, cv2.MORPH_CLOSE, kernel), (0, 0), 1.0)
        # The fine structure alone: a bolus in the muscle brightens nothing then.
        wide = cv2.GaussianBlur(filled.astype(np.float32), (0, 0), 12.0)
        fine = np.clip(128.0 + 4.0 * (filled.astype(np.float32) - wide), 0.0, 255.0).astype(np.uint8)
        lies = (cv2.GaussianBlur(filled, (0, 0), 1.7).astype(np.float32) - wide) * inside
        coarse.append(cv2.resize(lies, (SIDE // 2, SIDE // 2), interpolation=cv2.INTER_AREA))
        if last is not None:
            found.append(flow.calc(last, fine, None) * inside[..., None])
        last = fine
    stacked = np.stack(found)
    # A frame that jumps as a whole must not outweigh the heartbeats.
    speed = np.sqrt((stacked**2).sum(axis=3).mean(axis=(1, 2)))
    most = 3.0 * float(np.median(speed)) + 1e-6
    stacked *= np.minimum(1.0, most / np.maximum(speed, 1e-9))[:, None, None, None]
    return stacked, np.stack(coarse)


def _ways(flows: np.ndarray) -> Float[np.ndarray, "m k"]:
    """How strongly each main way of moving is present from frame to frame."""
    flat = flows.reshape(len(flows), -1)
    flat = flat - flat.mean(axis=0)
    # As few frames as there are, their own products are the smaller problem.
    values, vectors = np.linalg.eigh(flat @ flat.T)
    order = np.argsort(values)[::-1][:WAYS]
    ways: np.ndarray = vectors[:, order] * np.sqrt(np.maximum(values[order], 0.0))
    return ways


def _period(ways: np.ndarray, low: float, high: float) -> tuple[float, float]:
    """The lag at which motion repeats best, in frames, and how well."""
    count = len(ways)
    lags = np.arange(int(np.floor(low)), int(np.ceil(high)) + 2)
    lags = lags[(lags >= 2) & (lags < count - 2)]
    alike = np.array([_alike(ways[:-lag], ways[lag:]) for lag in lags])
    inner = [
        at
        for at in range(1, len(lags))
        if alike[at] >= alike[at - 1] and (at == len(lags) - 1 or alike[at] > alike[at + 1])
    ]
    best = max((float(alike[at]) for at in inner), default=0.0)
    if best <= 0.0:
        return float(lags[int(alike.argmax())]), float(alike.max())
    # Two beats repeat as well as one: the first peak that is nearly as high counts.
    at = next(at for at in inner if alike[at] >= 0.8 * best)
    if at == len(lags) - 1:
        return float(lags[at]), float(alike[at])
    left, middle, right = alike[at - 1 : at + 2]
    bend = left - 2.0 * middle + right
    return float(lags[at] + (0.5 * (left - right) / bend if bend else 0.0)), float(middle)


def _alike(one: np.ndarray, two: np.ndarray) -> float:
    return float((one * two).sum() / (np.linalg.norm(one) * np.linalg.norm(two) + 1e-12))


def _phase(ways: np.ndarray, period: float) -> Float[np.ndarray, " n"]:
    """Phase from the strongest way's part at the heart's rate, by a window of complex waves as long as a beat and a half."""
    count = len(ways)
    reach = max(2, round(0.75 * period))
    at = np.arange(-reach, reach + 1)
    window = np.hanning(len(at) + 2)[1:-1]
    wave = window * np.exp(-2j * np.pi * at / period)
    energy = []
    for column in ways.T:
        padded = np.pad(column, reach, mode="reflect") if count > reach else np.pad(column, reach)
        energy.append(np.array([(padded[i : i + len(at)] * wave).sum() for i in range(count)]))
    strongest = max(energy, key=lambda z: float(np.abs(z).sum()))
    turns = np.unwrap(np.angle(strongest)) / (2.0 * np.pi)
    if turns[-1] < turns[0]:
        turns = -turns
    # Never back: where the wave is weak its angle wanders.
    turns = np.maximum.accumulate(turns)
    # Motion i lies between frames i and i + 1.
    between = np.interp(np.arange(count + 1) - 0.5, np.arange(count), turns)
    between[0] = turns[0] - 0.5 / period
    between[-1] = turns[-1] + 0.5 / period
    phase: np.ndarray = (between - between[0]) % 1.0
    return phase


def _breath(still: np.ndarray, flows: np.ndarray, period: float) -> Float[np.ndarray, " n"]:
    """The main way in which pictures differ once a beat's motion is averaged out, mean 0 and standard deviation 1.

    Adding up motion from frame to frame drifts; a picture compared with all others does not.
    """
    pictures = still.reshape(len(still), -1).astype(np.float64)
    wide = min(len(pictures), round(period)) | 1
    summed = np.cumsum(np.pad(pictures, ((wide // 2 + 1, wide // 2), (0, 0)), mode="edge"), axis=0)
    calm = (summed[wide:] - summed[:-wide])[: len(pictures)] / wide
    calm -= calm.mean(axis=0)
    _, vectors = np.linalg.eigh(calm @ calm.T)
    place = vectors[:, -1]
    moving = np.abs(flows).sum(axis=3) > 0
    down = [
        float(one[some].mean()) if some.any() else 0.0
        for one, some in zip(flows[..., 1], moving, strict=True)
    ]
    if float((np.diff(place) * down).sum()) < 0.0:
        place = -place
    spread = float(place.std())
    return np.asarray((place - place.mean()) / spread if spread else place)
