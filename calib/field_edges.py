"""Edges of the field along profiles from the outside inwards: where the grey rises from shutter to picture.

An edge lies half-way in grey between the dark outside and the first level inside. A collimator's blade is far from the
detector and the focal spot is not a point, so that its edge is a ramp of up to a tenth of the picture; scatter lifts the
grey behind it. Where the ramp is cut off by the picture's border, the picture's darkest grey stands for the shutter.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

BANDS = 48
"""Profiles across a side. Our choice: each averages about a hundredth of a picture and so its noise away."""
LEAST_CONTRAST = 0.2
"""Least rise of an edge as a share of the way from the darkest grey to the level inside. Our choice."""
FLAT = 0.2
"""A ramp ends where its slope has fallen below this share of its steepest. Our choice."""
KINK = 0.65
"""What rises by less than this share of a ramp's steepest slope before it is not part of it. Our choice."""


@dataclass(frozen=True)
class Rise:
    """One place of a profile where it rises to a level that it had not reached before."""

    depth: float
    """Where half of the rise is done, in samples from the profile's first; below 0 where it was done before that."""
    outside: float
    """Grey where the rise begins."""
    inside: float
    """Grey where it ends."""
    width: int
    """From its begin to its end, in samples."""


def rises(profile: Float32[np.ndarray, " n"], darkest: float, smooth: float) -> list[Rise]:
    """Where a profile rises to a level that it had not reached before, from outside inwards.

    A ramp that begins slowly and then bends is given twice, from its begin and from its bend.

    Args:
        profile: Grey levels from outside inwards, one per pixel.
        darkest: The picture's darkest grey, which is taken for the shutter where a rise begins at the first sample.
        smooth: Standard deviation of the smoothing before slopes are taken, in samples.
    """
    side = 2 * max(1, int(np.ceil(3 * smooth))) + 1
    soft = cv2.GaussianBlur(profile[None], (side, 1), smooth, borderType=cv2.BORDER_REPLICATE)[0]
    slope = np.gradient(soft.astype(np.float64))
    bend = np.gradient(slope)
    found: list[Rise] = []
    steepest: list[int] = []
    highest = np.maximum.accumulate(soft)
    peaks = np.flatnonzero(
        (slope > 0) & (slope >= np.r_[-np.inf, slope[:-1]]) & (slope > np.r_[slope[1:], -np.inf])
    )
    for peak in peaks[np.argsort(-slope[peaks], kind="stable")]:
        low = FLAT * slope[peak]
        begin = end = int(peak)
        while begin > 0 and slope[begin - 1] > low:
            begin -= 1
        while end < len(soft) - 1 and slope[end + 1] > low:
            end += 1
        if any(begin <= other <= end for other in steepest):
            continue  # a flatter part of a ramp that is counted already
        steepest.append(int(peak))
        feet = [begin]
        # Scattered rays make the grey behind a blade rise too; the blade's own ramp then begins with a bend.
        bent = begin + int(np.argmax(bend[begin : peak + 1]))
        if bent - begin >= 3 and soft[bent] - soft[begin] < KINK * slope[peak] * (bent - begin):
            feet.append(bent)
        inside = float(soft[end])
        for foot in feet:
            # The smoothing has lifted the bend itself.
            outside = darkest if foot == 0 else float(soft[max(0, foot - round(smooth)) : foot + 1].min())
            half = 0.5 * (outside + inside)
            if inside - outside < LEAST_CONTRAST * max(inside - darkest, 1e-6):
                continue
            if foot and highest[foot] > half:
                continue  # it was as bright as this further out already: no edge of the field
            depth = _crossing(soft, half, foot, end, float(slope[peak]))
            found.append(Rise(depth, outside, inside, end - foot))
    return sorted(found, key=lambda rise: rise.depth)


def _crossing(soft: Float32[np.ndarray, " n"], half: float, begin: int, end: int, steepest: float) -> float:
    if soft[begin] >= half:
        return 0.5 + begin - (float(soft[begin]) - half) / max(steepest, 1e-9)
    above = begin + int(np.argmax(soft[begin : end + 1] >= half))
    before, after = float(soft[above - 1]), float(soft[above])
    return above - 1 + 0.5 + (half - before) / max(after - before, 1e-9)


def across(
    picture: Float32[np.ndarray, "h w"],
    start: tuple[float, float],
    end: tuple[float, float],
    reach: tuple[float, float],
    darkest: float,
    bands: int = BANDS,
) -> tuple[Float32[np.ndarray, "b n"], Float64[np.ndarray, " b"]]:
    """Profiles across a line, each the mean of a band along it.

    Args:
        picture: Grey levels.
        start: Where the line begins, (column, row); what is inside lies to its right, rows counted downwards.
        end: Where it ends.
        reach: From where to where the profiles go, pixels from the line, inwards above 0.
        darkest: Grey of what lies outside the picture.
        bands: How many.

    Returns:
        The profiles, whose sample k is `reach[0]` + k + 0.5 from the line, and each band's middle along the line in
        pixels from its start.
    """
    along = np.array([end[0] - start[0], end[1] - start[1]], np.float64)
    length = float(np.hypot(*along))
    along /= length
    inwards = np.array([-along[1], along[0]])
    steps = max(1, round(length / bands))
    where = (np.arange(bands * steps) + 0.5) * (length / (bands * steps))
    depths = np.arange(reach[0], reach[1]) + 0.5
    columns = start[0] + along[0] * where[:, None] + inwards[0] * depths - 0.5
    lines = start[1] + along[1] * where[:, None] + inwards[1] * depths - 0.5
    sampled = cv2.remap(
        picture,
        columns.astype(np.float32),
        lines.astype(np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=darkest,
    )
    profiles: Float32[np.ndarray, "b n"] = sampled.reshape(bands, steps, -1).mean(axis=1)
    return profiles, where.reshape(bands, steps).mean(axis=1)
