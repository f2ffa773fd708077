"""What a run learns from, by its settings: phantom pairs, unpaired frames, the segmenter of the semantic loss.

Phantom patients never serve two ends: pairs, frames of X, frames of Y, the segmenter's and the judge's
(`casgan.segmenter.JUDGE_SEEDS`) are others; those below 1000 are for evaluation.
"""

import functools
import itertools
from collections.abc import Callable
from pathlib import Path

from lightning_fabric import Fabric

from casgan.config import TrainConfig
from casgan.data import Pairs, joined, phantom_pairs, real_background_pairs
from casgan.domains import dark_line_area
from casgan.errors import TrainingError
from casgan.masked_pictures import phantom_pictures
from casgan.segmenter import (
    VesselSegmenter,
    load_segmenter,
    mean_dice,
    save_segmenter,
    vessel_area,
)
from casgan.segmenter_teaching import teach_segmenter
from casgan.unpaired import Unpaired, unpaired_archive, unpaired_phantom

LEARNT_SEEDS = range(3000, 3200)
"""Of the segmenter, inside `casgan.config.SEGMENTER_SEEDS`."""
HELD_SEEDS = range(3200, 3220)
LEAST_DICE = 0.3
"""Of a segmenter of the run's own, on pictures it has not seen."""
SEGMENTER_NAME = "segmenter.safetensors"

Report = Callable[[str], None]


def pairs_of(config: TrainConfig, frames: Unpaired | None, report: Report) -> Pairs:
    """Pictures with and without contrast: the phantom's, and as many on real backgrounds as `inlay` says.

    Args:
        config: The run.
        frames: The folder's, for their backgrounds; None without `inlay`.
        report: Takes lines of text.
    """
    count, each = config.patients, config.frames_per_patient
    seeds = range(config.first_seed, config.first_seed + count)
    laid_in = round(config.inlay * count)
    report(f"rendering {count} phantom patients at {config.picture_size} px")
    parts = []
    if laid_in < count:
        parts.append(phantom_pairs(config.picture_size, seeds[laid_in:], each))
    if laid_in:
        assert frames is not None, "the caller reads the folder first"
        plain = frames.plain
        report(
            f"{laid_in} of them are laid into {len(plain)} contrast-free frames, at places that mean nothing"
        )
        parts.append(real_background_pairs(plain.grey, plain.field, seeds[:laid_in], each))
    return functools.reduce(joined, parts)


def frames_of(config: TrainConfig, report: Report) -> Unpaired:
    """Frames of both domains; of a folder, those of the training patients.

    Raises:
        DataError: The folder cannot be learned from.
    """
    if config.data == "phantom":
        first, count = config.first_seed + config.patients, config.patients
        plain, filled = range(first, first + count), range(first + count, first + 2 * count)
        return unpaired_phantom(config.picture_size, plain, filled, config.frames_per_patient)
    # A segmenter that was taught on the phantom alone does not know real frames well enough to sort them.
    area = dark_line_area
    if config.segmenter:
        area = functools.partial(vessel_area, load_segmenter(Path(config.segmenter)))
    out = Path(config.out)
    out.mkdir(parents=True, exist_ok=True)
    train, _ = unpaired_archive(
        Path(config.data),
        config.picture_size,
        area,
        test_patients=config.test_patients or None,
        overrides=Path(config.overrides) if config.overrides else None,
        report=report,
        decisions=out / "decisions.csv",
    )
    return train


def segmenter_of(config: TrainConfig, fabric: Fabric, report: Report) -> VesselSegmenter | None:
    """The frozen U-Net of the semantic loss: the one that is named, or one taught now and kept with the run.

    Returns:
        None without VSGL.
    """
    if "vsgl" in config.without:
        return None
    if config.segmenter:
        return load_segmenter(Path(config.segmenter))
    path = Path(config.out) / SEGMENTER_NAME
    if fabric.is_global_zero and not path.with_suffix(".json").is_file():
        report(f"teaching a vessel segmenter on {len(LEARNT_SEEDS)} phantom patients")
        learnt = phantom_pictures(LEARNT_SEEDS, config.picture_size)
        size = min(160, config.picture_size)
        segmenter = teach_segmenter(
            learnt.pictures,
            learnt.masks,
            steps=config.segmenter_steps,
            seed=config.seed,
            size=size,
            report=_seldom(report),
        )
        held = phantom_pictures(HELD_SEEDS, config.picture_size)
        dice = round(mean_dice(segmenter, held.pictures, held.masks), 4)
        report(f"the segmenter reaches Dice {dice:.3f} on {len(held)} phantom pictures it has not seen")
        if dice < LEAST_DICE:
            raise TrainingError(
                f"the semantic loss needs a segmenter of Dice {LEAST_DICE} or more, got {dice:.3f} after "
                f"{config.segmenter_steps} steps: its masks would teach nothing; raise --segmenter-steps, name a "
                "--segmenter, or leave the term out with --without vsgl"
            )
        facts = {
            "data": "phantom",
            "seeds": [LEARNT_SEEDS.start, LEARNT_SEEDS.stop],
            "steps": config.segmenter_steps,
            "seed": config.seed,
            "dice_held_out": dice,
        }
        save_segmenter(segmenter, path, facts)
    fabric.barrier()
    return load_segmenter(path)


def _seldom(report: Report) -> Report:
    """Every fifth of the segmenter's lines: one in 100 steps."""
    count = itertools.count(1)
    return lambda line: report(f"segmenter {line}") if next(count) % 5 == 0 else None
