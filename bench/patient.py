"""An adapted model against roadmaps, where the truth is known: phantom patients after one injection.

    python -m bench.patient --seeds 960 961 962 --out patient.json

A recording with one injection teaches. Then the same patient later: new heartbeats and breaths, the table moved, the C-arm
turned. Against the truth: the general model, the last filled frame laid over, the same moved by optical flow, and
the filled frame of the nearest phase. What is adapted is also taught on the true vessels of the recording, to tell what the
segmenter costs.
"""

import itertools
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bench import machine
from calib.bolus import Bolus, tell_bolus
from calib.filling import connected_line_share, dark_line_share
from calib.heart_phase import HeartPhase, heart_phase
from casgan.patient_phantom import RATE_HZ, Moments, PhantomPatient, moments

SCHEMA = "contrastream.patient/1"
BEFORE_S, LASTS_S, AFTER_S = 20.0, 4.0, 6.0
SHIFTS_MM = (5.0, 10.0, 20.0)
TURNS_DEG = (3.0, 6.0, 10.0, 15.0)
NEW_FRAMES = 24
"""Consecutive frames of the same projection: two heartbeats."""
MOVED_FRAMES = 8
"""Frames, 5 apart, of each shift and turn."""


@dataclass(frozen=True)
class PatientEvaluation:
    """Measure adaptation on phantom patients."""

    out: Path
    """The figures, JSON."""
    seeds: tuple[int, ...] = (960, 961, 962)
    """Phantom patients, below 1000: no model was taught on them."""
    model: str = "compact"
    """The general model."""
    segmenter: Path | None = None
    """What finds the vessels of filled frames; none named: the shipped one."""
    steps: int = 1500
    """Of teaching, at most."""
    seconds: float = 240.0
    """Of teaching, at most."""
    threads: int = 2
    """CPU threads of torch."""


@dataclass(frozen=True)
class Scene:
    """Frames of one condition, with their truth."""

    name: str
    plain: np.ndarray
    truth: np.ndarray
    at: Moments
    consecutive: bool


@dataclass(frozen=True)
class Progress:
    """How far teaching is, on one line of the terminal."""

    name: str

    def __call__(self, step: int, steps: int, dice: float) -> None:
        print(f"\r{self.name}: {step}/{steps}, held out {dice:.3f} ", end="", file=sys.stderr, flush=True)


def main() -> int:
    """The command."""
    import cv2
    import torch
    import tyro

    from casgan.segmenter import MOMENTS, read_card

    config = tyro.cli(PatientEvaluation)
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    patients = []
    for seed in config.seeds:
        patients.append(one_patient(seed, config))
        # After each patient, so that a run that is cut off leaves what it has.
        report = {
            "schema": SCHEMA,
            "kind": "phantom",
            # A file's name may be a person's; the hash says which segmenter it was.
            "settings": asdict(config)
            | {"out": config.out.name, "segmenter": read_card(config.segmenter or MOMENTS)["sha256"]},
            "machine": machine.describe(),
            "patients": patients,
        }
        config.out.write_text(json.dumps(report, indent=1, default=float) + "\n", encoding="utf-8")
    return 0


def one_patient(seed: int, config: PatientEvaluation) -> dict[str, Any]:
    """Teach on one recording, measure on all that comes later."""
    from casgan.adapt import AdaptSettings, adapt, held_dice
    from casgan.device import best_device
    from casgan.patient_lessons import Masks, patient_lessons, well_filled
    from casgan.patient_masks import recording_masks
    from casgan.phantom_moments import COMPANY
    from casgan.segmenter import MOMENTS, load_segmenter
    from engines.model import load_model
    from engines.reference import load_reference

    reference = load_reference(load_model(config.model))
    general = reference.network
    patient, rng = PhantomPatient(seed), np.random.default_rng((seed, 0xADA))
    frames, truth, at = patient.recording(rng, BEFORE_S, LASTS_S, AFTER_S)
    bolus, heart = told(frames)
    segmenter = load_segmenter(config.segmenter or MOMENTS, (1, COMPANY)).to(best_device())
    found: dict[str, Masks] = {
        "segmenter": lambda filled, beside: recording_masks(segmenter, frames, filled, beside),
        "truth": lambda filled, beside: truth[filled],
    }
    facts: dict[str, Any] = {
        "seed": seed,
        "recording": bolus.describe(),
        "phase_agreement": float(np.abs(np.exp(2j * np.pi * (heart.phase - at.heart)).mean())),
        "spacing_mm": patient.spacing_mm,
        "taught": {},
    }
    models = {"general": general}
    for labels, masks_of in found.items():
        lessons = patient_lessons(frames, bolus, heart, masks_of)
        taught = adapt(
            general,
            lessons.learn,
            lessons.held,
            AdaptSettings(steps=config.steps, seconds=config.seconds),
            reference.threshold,
            Progress(f"{seed}, {labels}"),
        )
        models[f"adapted, {labels}"] = taught.generator
        facts["taught"][labels] = {
            "steps": taught.steps,
            "seconds": taught.seconds,
            "lessons": len(lessons.learn),
            "held": len(lessons.held),
            "beats": lessons.beats,
            "history": taught.history,
            "held_dice": held_dice(taught.generator, lessons.held),
        }
    # The roadmaps have the true vessels of well filled frames: better ones than any room has.
    full = np.flatnonzero(well_filled(bolus, heart))
    road = (frames[full], truth[full], at.heart[full])
    facts["scenes"] = {
        scene.name: measured(scene, models, road, patient.spacing_mm) for scene in scenes(patient, seed)
    }
    return facts


def told(frames: np.ndarray) -> tuple[Bolus, HeartPhase]:
    """When contrast medium is in the recording, and its heartbeat and breath."""
    field = np.ones(frames.shape[1:], bool)
    areas = [dark_line_share(frame, field) for frame in frames]
    trees = [connected_line_share(frame, field) for frame in frames]
    return tell_bolus(areas, trees), heart_phase(frames, field, RATE_HZ)


def scenes(patient: PhantomPatient, seed: int) -> list[Scene]:
    """The same patient later; nothing here was in the recording."""
    made = [scene("same projection", patient, seed, NEW_FRAMES, 1)]
    for shift_mm in SHIFTS_MM:
        made.append(scene(f"table {shift_mm:g} mm", patient, seed, MOVED_FRAMES, 5, shift_mm))
    for turn_deg in TURNS_DEG:
        turned = PhantomPatient(seed, turn_deg=turn_deg)
        made.append(scene(f"C-arm {turn_deg:g} degrees", turned, seed, MOVED_FRAMES, 5))
    return made


def scene(
    name: str, patient: PhantomPatient, seed: int, count: int, step: int, shift_mm: float = 0.0
) -> Scene:
    """Frames of one condition; the table goes down and to the right alike."""
    rng = np.random.default_rng((seed, 0x7E57, count))
    at = moments(count * step, rng)
    moved = (shift_mm / np.sqrt(2.0),) * 2
    pictures = [patient.picture(patient.pose(at, i), rng, None, moved) for i in range(0, count * step, step)]
    which = np.arange(0, count * step, step)
    return Scene(
        name,
        np.stack([plain for plain, _, _ in pictures]),
        np.stack([mask for _, _, mask in pictures]),
        Moments(at.heart[which], at.breath[which], at.depth[which]),
        step == 1,
    )


def measured(
    scene: Scene, models: dict[str, Any], road: tuple[np.ndarray, np.ndarray, np.ndarray], spacing_mm: float
) -> dict[str, Any]:
    """Every way of drawing on one scene."""
    from casgan.adapt import drawn
    from casgan.roadmap import best_of_all, moved_along, nearest_phase
    from casgan.vessel_metrics import DRAWN

    filled, masks, phases = road
    ways: dict[str, np.ndarray] = {
        name: drawn(generator, scene.plain) > DRAWN for name, generator in models.items()
    }
    ways["static roadmap"] = np.stack([masks[-1]] * len(scene.plain))
    ways["roadmap, optical flow"] = np.stack([moved_along(masks[-1], filled[-1], one) for one in scene.plain])
    ways["nearest phase"] = np.stack([masks[nearest_phase(float(p), phases)] for p in scene.at.heart])
    ways["best filled frame"] = np.stack([masks[best_of_all(masks, one)] for one in scene.truth])
    return {name: figures(some, scene, spacing_mm) for name, some in ways.items()} | {
        "truth": {"flicker": flicker_of(scene.truth) if scene.consecutive else None}
    }


def figures(found: np.ndarray, scene: Scene, spacing_mm: float) -> dict[str, Any]:
    """Means over the frames; the distance is the median of the frames' means."""
    from casgan.vessel_metrics import centreline_dice, centreline_distance_px, dice

    def each(measure: Callable[[np.ndarray, np.ndarray], float]) -> np.ndarray:
        return np.array([measure(one, truth) for one, truth in zip(found, scene.truth, strict=True)])

    return {
        "dice": float(np.nanmean(each(dice))),
        "cldice": float(np.nanmean(each(centreline_dice))),
        "distance_mm": float(np.nanmedian(each(centreline_distance_px))) * spacing_mm,
        "flicker": flicker_of(found) if scene.consecutive else None,
        "frames": len(found),
    }


def flicker_of(masks: np.ndarray) -> float:
    """1 - overlap over union from frame to frame, mean; a beating heart has some, which the truth's own figure tells."""
    changes = []
    for one, two in itertools.pairwise(masks):
        if (one | two).any():
            changes.append(1.0 - float((one & two).sum()) / float((one | two).sum()))
    return float(np.mean(changes)) if changes else float("nan")


if __name__ == "__main__":
    sys.exit(main())
