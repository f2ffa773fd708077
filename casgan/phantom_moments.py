"""Filled frames of phantom patients in their company: the frames before and after, and contrast-free ones of the same moment.

    before, now, after (filled) | mean of three contrast-free frames at nearly that moment of heartbeat and breath -> vessels of now

One look at a filled frame cannot tell a thin branch from noise, nor a vessel from a rib; a recording with a lead without contrast
medium shows both. How far those frames are off is what `casgan.patient_lessons` was seen to be off by on the phantom. In some moments
they are of quite another one, with the table moved: taught without those, it took every change for a vessel on real runs, whose few
contrast-free frames are seldom of the same breath.
"""

from dataclasses import replace

import numpy as np
import torch

from calib.phantom import Phantom
from casgan.masked_pictures import MaskedPictures
from casgan.patient_phantom import PhantomPatient, moments

COMPANY = 4
"""Pictures together: before, now, after, and the contrast-free one."""
FREE = 3
"""Contrast-free frames in its mean."""
PLAIN_SHARE = 0.1
"""Of the moments show no contrast medium, so that catheter, ribs and diaphragm are learnt as such."""
ASTRAY_SHARE = 0.4
"""Of the moments have contrast-free frames of any moment, the table moved by up to `ASTRAY_MM`."""
ASTRAY_MM = 12.0
OFF = {"heart": 0.02, "breath": 0.01, "depth": 0.05}
"""Standard deviation of how far the contrast-free frames are off together: shares of a beat, of a breath and of its depth."""
APART = {"heart": 0.025, "breath": 0.015, "depth": 0.05}
"""And of how far they are off one by one."""


def phantom_moments(seeds: range, size: int, moments_per_seed: int = 3) -> MaskedPictures:
    """Moments of a population, from all sides: every tree its own, faint to full.

    Args:
        seeds: The patients. Keep those of training, of judging and of evaluation apart.
        size: Rows and columns.
        moments_per_seed: Of each patient.

    Returns:
        Pictures of shape (n, `COMPANY`, size, size), and the vessels of each moment.
    """
    pictures: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    groups: list[str] = []
    for seed in seeds:
        rng = np.random.default_rng((seed, 0x2F1))
        patient = PhantomPatient(seed, size)
        config = replace(
            patient.phantom.config,
            variation=float(rng.uniform(0.0, 1.0)),
            primary_angle_deg=float(rng.uniform(-50.0, 50.0)),
            secondary_angle_deg=float(rng.uniform(-35.0, 35.0)),
        )
        patient.phantom = Phantom(config)
        for _ in range(moments_per_seed):
            company, mask = _moment(patient, rng)
            pictures.append(company)
            masks.append(mask)
            groups.append(f"phantom {seed}")
    return MaskedPictures(
        torch.from_numpy(np.stack(pictures)), torch.from_numpy(np.stack(masks))[:, None], tuple(groups)
    )


def _moment(patient: PhantomPatient, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    at, now = moments(3, rng), 1
    strength = float(rng.uniform(0.6, 1.4)) if rng.random() >= PLAIN_SHARE else 0.0
    company = []
    for index in range(3):
        plain, angiogram, marked = patient.picture(patient.pose(at, index), rng)
        company.append(plain + strength * (angiogram.astype(np.float32) - plain))
        if index == now:
            mask = marked
    together = {name: float(rng.normal(0.0, off)) for name, off in OFF.items()}
    moved_mm = (0.0, 0.0)
    if rng.random() < ASTRAY_SHARE:
        together |= {"heart": float(rng.uniform(0.0, 1.0)), "breath": float(rng.uniform(0.0, 1.0))}
        down_mm, right_mm = rng.uniform(-ASTRAY_MM, ASTRAY_MM, 2)
        moved_mm = (float(down_mm), float(right_mm))
    empty = np.zeros(len(patient.filling(0.0, 1.0)), np.float32)
    free = []
    for _ in range(FREE):
        heart, breath, depth = (together[name] + float(rng.normal(0.0, APART[name])) for name in OFF)
        then = replace(
            at,
            heart=(at.heart + heart) % 1.0,
            breath=(at.breath + breath) % 1.0,
            depth=at.depth * (1.0 + depth),
        )
        free.append(patient.picture(patient.pose(then, now), rng, empty, moved_mm)[0].astype(np.float32))
    company.append(np.mean(free, axis=0))
    grey = np.rint(np.clip(np.stack(company), 0.0, 255.0)).astype(np.uint8)
    return grey, (mask & (strength > 0.0)).astype(np.uint8)
