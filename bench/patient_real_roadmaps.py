"""Roadmaps of a real run's taught frames: one frame's vessels as they are, and all frames' at once, as wide as what M draws.

M draws wider vessels than a mask has, and a wide line covers more of the true centreline: against roadmaps of the masks' own width
that would flatter it. The wide ones have the area that it draws.
"""

import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from bench.patient_real_run import RealRun
from casgan.roadmap import best_of_all, moved_along

BLUR_PX = 3.0
"""Before the masks of the taught frames are averaged. The static average's clDice, mean of the 7 runs at 3 to 10 % of the area, was 0.28 with 1.5,
0.30 with 3 and 0.32 with 5, and the distance grew from 5.8 to 7.9 and 11.5 pixels."""


def roadmaps(run: RealRun, live: UInt8[np.ndarray, "m s s"]) -> dict[str, Bool[np.ndarray, "m s s"]]:
    """One taught frame's vessels over each held-out frame, the source's masks.

    Args:
        run: Its `held` frames are drawn on.
        live: They, with their vessels removed: what a live picture would show.
    """
    last, masks = run.taught[-1], run.source[run.taught]
    return {
        "static roadmap": np.stack([run.source[last]] * len(live)),
        "roadmap, optical flow": np.stack(
            [moved_along(run.source[last], run.grey[last], one) for one in live]
        ),
        "nearest phase": run.source[[run.nearest(at, run.taught) for at in run.held.tolist()]],
        "best filled frame": np.stack([masks[best_of_all(masks, run.source[at])] for at in run.held]),
    }


def wide_roadmaps(
    run: RealRun, live: UInt8[np.ndarray, "m s s"], area: float
) -> dict[str, Bool[np.ndarray, "m s s"]]:
    """The average of all taught frames' vessels, static and moved by optical flow each, cut off at an area.

    Args:
        run: As above.
        live: As above, or contrast-free frames.
        area: Share of `run.inner` that is drawn, 0 to 1.
    """
    masks, frames = run.source[run.taught], run.grey[run.taught]
    static = cut_at(_average(masks), run.inner, area)
    followed = [
        cut_at(
            _average(
                np.stack([moved_along(mask, frame, one) for mask, frame in zip(masks, frames, strict=True)])
            ),
            run.inner,
            area,
        )
        for one in live
    ]
    return {
        "all taught frames, as wide": np.stack([static] * len(live)),
        "all taught frames by flow, as wide": np.stack(followed),
    }


def _average(masks: np.ndarray) -> Float[np.ndarray, "s s"]:
    return np.asarray(cv2.GaussianBlur(masks.mean(axis=0).astype(np.float32), (0, 0), BLUR_PX))


def cut_at(
    likely: Float[np.ndarray, "s s"], inner: Bool[np.ndarray, "s s"], area: float
) -> Bool[np.ndarray, "s s"]:
    """The likeliest pixels inside, so many that they are this share of it."""
    limit = float(np.quantile(likely[inner], 1.0 - min(1.0, area)))
    return np.asarray((likely > limit) & inner)
