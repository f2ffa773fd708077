"""The leak probe: does what is drawn follow the patient's anatomy, or the mending of the picture?

    filled frame, its vessels removed          what the figures of `bench.patient_real` are measured on
      and mended along a decoy too             the same traces where no vessel was
    contrast-free frame as it is               nothing to read; but the nearest in phase is not of that moment
      moved to the filled frame's pose         as optical flow sees it; still nothing to read
      mended along the filled frame's vessels  nothing to read but the mending
      mended along a decoy                     the same elsewhere

An M that predicts draws the vessels of the moment whatever was mended. An M that reads draws what was mended.
"""

from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Bool

from bench.patient_real_run import RealRun
from casgan.data import Pairs
from casgan.mending import mended, mirrored, moved
from casgan.networks import Generator
from casgan.patient_masks import patient_masks
from casgan.roadmap import brought
from casgan.segmenter import VesselSegmenter
from casgan.shortcut import vessel_shortcut
from casgan.vessel_metrics import centreline_dice

MOVED_PX = 14
"""Down and to the right, of 256: a decoy where a vessel might be."""
HEAD_PAIRS = 24
HEAD_REACH_PX = 40

Draw = Callable[[np.ndarray], np.ndarray]
"""Grey levels (n, s, s) uint8 to drawn vessels (n, s, s) bool."""


def decoys_of(masks: Bool[np.ndarray, "n s s"]) -> dict[str, Bool[np.ndarray, "n s s"]]:
    """Where the vessels of these frames are not, or not at that moment."""
    return {
        "mirrored": masks[:, :, ::-1],
        "moved": np.stack([moved(mask, MOVED_PX, MOVED_PX) for mask in masks]),
        # Of held-out frames in order, half of them further: in another part of the heartbeat.
        "another moment": np.roll(masks, len(masks) // 2, axis=0),
    }


def scenes_of(run: RealRun, seed: int = 0) -> dict[str, np.ndarray]:
    """The pictures of each held-out frame, by what was done to it; those with a decoy once for each of `decoys_of`."""
    rng = np.random.default_rng((seed, 0xDEC0))
    filled, free = run.grey[run.held], run.grey[[run.nearest(k, run.free) for k in run.held.tolist()]]
    cut = run.vessels[run.held]

    def along(frames: np.ndarray, masks: np.ndarray) -> np.ndarray:
        return np.stack([mended(one, mask & run.inner, rng) for one, mask in zip(frames, masks, strict=True)])

    removed = along(filled, cut)
    made = {
        "removed": removed,
        "free": free,
        "free, moved to its pose": np.stack(
            [brought(one, live) for one, live in zip(free, removed, strict=True)]
        ),
        "free, mended along own": along(free, cut),
    }
    for name, elsewhere in decoys_of(cut).items():
        made[f"removed, and {name}"] = along(filled, cut | elsewhere)
        made[f"free, mended along {name}"] = along(free, elsewhere)
    return made


def probe(run: RealRun, scenes: dict[str, np.ndarray], draw: Draw) -> dict[str, dict[str, float]]:
    """clDice of what is drawn in each scene, against the vessels of that moment and against each decoy of theirs.

    Args:
        run: Whose source masks judge.
        scenes: From `scenes_of`.
        draw: A model.

    Returns:
        By scene: "own" and each of `decoys_of` (clDice, mean), and "area" (drawn share of what is judged).
    """
    truth = run.source[run.held]
    against = {"own": truth} | {name: masks & run.inner for name, masks in decoys_of(truth).items()}
    told = {}
    for scene, frames in scenes.items():
        found = draw(frames) & run.inner
        told[scene] = {name: mean_cldice(found, masks) for name, masks in against.items()}
        told[scene]["area"] = float(found.sum() / (len(found) * run.inner.sum()))
    return told


def chance(run: RealRun) -> dict[str, float]:
    """clDice between the vessels and each decoy of theirs: what drawing the one gives against the other."""
    truth = run.source[run.held]
    return {name: mean_cldice(truth, masks & run.inner) for name, masks in decoys_of(truth).items()}


def mean_cldice(found: np.ndarray, truth: np.ndarray) -> float:
    """Mean over the frames; frames without truth are left out."""
    return float(np.nanmean([centreline_dice(one, two) for one, two in zip(found, truth, strict=True)]))


def left_over(run: RealRun, removed: np.ndarray, segmenter: VesselSegmenter) -> float:
    """clDice of what our segmenter still finds in the frames whose vessels were removed: what of them is left to read."""
    found = patient_masks(segmenter, removed, run.grey[run.free]) & run.inner
    return mean_cldice(found, run.source[run.held])


def on_free_frames(run: RealRun, draw: Draw) -> dict[str, float]:
    """What is drawn on the run's own contrast-free frames."""
    return against_phase(run, draw(run.grey[run.free]) & run.inner)


def roadmaps_on_free_frames(run: RealRun) -> dict[str, float]:
    """clDice of taught frames laid over the contrast-free ones: the last, all of them (mean), and the best for each."""
    truth = of_phase(run)
    each = np.array([[centreline_dice(run.source[at], one) for at in run.taught.tolist()] for one in truth])
    return {
        "static roadmap": float(each[:, -1].mean()),
        "any taught frame": float(each.mean()),
        "best filled frame": float(each.max(axis=1).mean()),
    }


def of_phase(run: RealRun) -> np.ndarray:
    """The vessels of the filled frame nearest in phase to each contrast-free one: as near to a truth as there is."""
    filled = np.concatenate([run.taught, run.held])
    return run.source[[run.nearest(at, filled) for at in run.free.tolist()]]


def against_phase(run: RealRun, found: np.ndarray) -> dict[str, float]:
    """clDice, and how much is drawn against how much there is, both as a share of what is judged."""
    truth = of_phase(run)
    judged = len(truth) * float(run.inner.sum())
    return {
        "cldice": mean_cldice(found, truth),
        "area": float(found.sum()) / judged,
        "filled_area": float(truth.sum()) / judged,
    }


def trace_in_latent(run: RealRun, generator: Generator, seed: int = 0) -> dict[str, float]:
    """Does E_BG pass the mending on? A small head looks for it in contrast-free frames mended along moved vessels.

    Returns:
        The head's soft Dice, on pictures that it was not taught on: "mended", and "as it is" of the same frames, where there is
        nothing to find.
    """
    rng = np.random.default_rng((seed, 0x7EAD))
    cut = run.vessels[np.concatenate([run.taught, run.held])]
    plain, after, masks = [], [], []
    for at in range(HEAD_PAIRS):
        mask = cut[rng.integers(len(cut))]
        mask = moved(
            mirrored(mask) if rng.random() < 0.5 else mask,
            *(int(by) for by in rng.integers(-HEAD_REACH_PX, HEAD_REACH_PX + 1, 2)),
        )
        frame = run.grey[run.free[at % len(run.free)]]
        plain.append(frame)
        after.append(mended(frame, mask & run.inner, rng))
        masks.append(mask & run.inner)
    x, y = (torch.from_numpy(np.stack(part)[:, None] / 255.0).half() for part in (plain, after))
    truth = torch.from_numpy(np.stack(masks)[:, None]).half()
    found = vessel_shortcut(generator, Pairs(x, y, truth, torch.zeros_like(truth)), seed)
    return {"mended": found.head_from_y, "as it is": found.head_from_x}
