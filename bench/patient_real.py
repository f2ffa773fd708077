"""Real runs: an adapted model against roadmaps on held-out heartbeats, and the leak probe that says what its figure is worth.

    python -m bench.patient_real ../shared/data --out docs/patient-real.json

The real runs in hand hold 1 to 10 contrast-free frames, too few to teach as `calib patient` does. So filled frames of the taught
heartbeats teach with their vessels removed, and held-out filled frames with their vessels removed judge. What is drawn there
may be read from the mending instead of predicted: `bench.patient_real_probe` tells. No picture is kept; a run that the file
holds already is not measured again.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
import tyro

from bench import machine
from bench.errors import BenchError
from bench.patient_real_probe import (
    Draw,
    against_phase,
    chance,
    left_over,
    on_free_frames,
    probe,
    roadmaps_on_free_frames,
    scenes_of,
    trace_in_latent,
)
from bench.patient_real_roadmaps import roadmaps, wide_roadmaps
from bench.patient_real_run import RealRun, masked_runs, read_run
from calib.errors import CalibrationError
from casgan.adapt import AdaptSettings, adapt, drawn
from casgan.errors import DataError
from casgan.mending import mended, mirrored, moved
from casgan.networks import Generator
from casgan.patient_lessons import MATCHES, Lessons, vessel_depth
from casgan.segmenter import JUDGE, VesselSegmenter, load_segmenter, read_card
from casgan.vessel_metrics import DRAWN, centreline_dice, centreline_distance_px, dice
from engines.errors import ModelError
from engines.model import load_model
from engines.reference import Reference, load_reference

SCHEMA = "contrastream.patient-real/1"
DECOYS_EACH = 6
"""Ways in which each taught frame is mended where decoys are taught too."""
DECOY_REACH_PX = 40
MENDED = "adapted, vessels removed"
FREE = "adapted, contrast-free"
ENDLESS = 10**6
"""Looks without a better result: with so few frames none is spared to say when to stop."""


@dataclass(frozen=True)
class RealEvaluation:
    """Measure adaptation on real runs, the leak probe beside every figure."""

    data: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DATA")]
    """Folder with angiodata_cine, as this project's tests use it."""
    out: Path
    """The figures, JSON; runs that it holds already are not measured again."""
    model: str = "compact"
    """The general model."""
    steps: int = 150
    """Of teaching, of each adaptation; half of them for the few contrast-free frames."""
    threads: int = 1
    """CPU threads of torch."""
    sheets: Path | None = None
    """Folder for sheets of what was drawn. They show frames of patients: keep it outside any repository."""

    def __post_init__(self) -> None:
        if min(self.steps, self.threads) < 1:
            raise ValueError(f"--steps and --threads must be 1 or above, got {self.steps} and {self.threads}")


def main() -> int:
    """The command."""
    config = tyro.cli(RealEvaluation)
    torch.set_num_threads(config.threads)
    cv2.setNumThreads(config.threads)
    try:
        reference = load_reference(load_model(config.model))
        segmenter = load_segmenter(JUDGE)
        report = begun(config, reference)
        done = {one["run"] for one in report["patients"]}
        for run in masked_runs(config.data):
            if run.name not in done:
                real = read_run(run, load_model(config.model).card.network_size, segmenter)
                report["patients"].append(one_patient(real, reference, segmenter, config))
                # After each, so that a command that is cut off leaves what it has.
                config.out.write_text(json.dumps(report, indent=1, default=float) + "\n", encoding="utf-8")
    except (BenchError, CalibrationError, DataError, ModelError, OSError) as error:
        print(f"bench.patient_real: {error}", file=sys.stderr)
        return 2
    return 0


def begun(config: RealEvaluation, reference: Reference) -> dict[str, Any]:
    """The report so far.

    Raises:
        BenchError: The file is of other settings, or no report.
    """
    settings = {
        "model": config.model,
        "steps": config.steps,
        "threads": config.threads,
        "segmenter": read_card(JUDGE)["sha256"],
    }
    fresh = {"schema": SCHEMA, "settings": settings, "machine": machine.describe(), "patients": []}
    if not config.out.is_file():
        return fresh
    try:
        old: dict[str, Any] = json.loads(config.out.read_text(encoding="utf-8"))
    except ValueError:
        old = {}
    if old.get("schema") != SCHEMA or old.get("settings") != settings:
        raise BenchError(
            f"needed a report of these settings to go on with, {config.out.name} is another; give another --out"
        )
    return old


def one_patient(
    run: RealRun, reference: Reference, segmenter: VesselSegmenter, config: RealEvaluation
) -> dict[str, Any]:
    """Teach on some heartbeats of a run, measure on the others."""
    general = reference.network
    scenes = scenes_of(run)
    facts = run.describe() | {"taught": {}, "probe": {}, "free_frames": {}}
    models: dict[str, Generator] = {"general": general}
    for name, lessons in lessons_of(run).items():
        steps = max(1, config.steps // 2) if name == FREE else config.steps
        settings = AdaptSettings(steps=steps, seconds=3600.0, check_every=50, patience=ENDLESS)
        # Held out from the judge are other heartbeats; the best step is chosen on what is taught itself.
        taught = adapt(general, lessons, lessons, settings, reference.threshold, Progress(run.name, name))
        models[name] = taught.generator
        facts["taught"][name] = {
            "lessons": len(lessons),
            "steps": taught.steps,
            "seconds": taught.seconds,
            "history": taught.history,
        }
    ways = roadmaps(run, scenes["removed"])
    for name, generator in models.items():
        draw = drawer(generator)
        ways[name] = draw(scenes["removed"])
        facts["probe"][name] = probe(run, scenes, draw)
        facts["free_frames"][name] = on_free_frames(run, draw)
    area = facts["probe"][MENDED]["removed"]["area"]
    ways |= wide_roadmaps(run, scenes["removed"], area)
    ways["our segmenter, filled frame"] = run.ours[run.held]
    facts["chance"] = chance(run)
    facts["left_over"] = left_over(run, scenes["removed"], segmenter)
    wide = wide_roadmaps(run, run.grey[run.free], facts["free_frames"][MENDED]["area"])
    facts["free_frames"] |= {name: against_phase(run, found) for name, found in wide.items()}
    facts["free_frames"]["roadmaps"] = roadmaps_on_free_frames(run)
    facts["latent"] = trace_in_latent(run, general)
    facts["judged"] = {judge: judged(run, ways, judge) for judge in JUDGES}
    if config.sheets is not None:
        from bench.patient_real_sheet import write_sheet

        write_sheet(config.sheets, run, scenes, {name: drawer(one) for name, one in models.items()})
    return facts


@dataclass(frozen=True)
class Progress:
    """How far teaching is, on one line of the terminal."""

    run: str
    name: str

    def __call__(self, step: int, steps: int, dice: float) -> None:
        print(
            f"\r{self.run}, {self.name}: {step}/{steps}, on what is taught {dice:.3f} ",
            end="",
            file=sys.stderr,
            flush=True,
        )


def drawer(generator: Generator) -> Draw:
    """What a model draws."""
    return lambda grey: drawn(generator, grey) > DRAWN


def lessons_of(run: RealRun, seed: int = 0) -> dict[str, Lessons]:
    """What each adaptation is taught; the labels are the source's masks."""
    rng = np.random.default_rng((seed, 0x1E55))
    depth = vessel_depth(run.grey[run.taught], run.source[run.taught])
    cut = run.vessels & run.inner

    def lessons(plain: list[np.ndarray], of: list[int]) -> Lessons:
        return Lessons(np.stack(plain), run.source[of], depth)

    own = [mended(run.grey[at], cut[at], rng) for at in run.taught]
    each = np.repeat(run.taught, DECOYS_EACH).tolist()
    with_decoys = [mended(run.grey[at], cut[at] | (_decoy(run, rng) & run.inner), rng) for at in each]
    # The few frames that never had contrast medium, beside the filled ones nearest in phase; no traces at all in them.
    free, beside = [], []
    for at in run.free:
        apart = np.abs(run.heart.phase[run.taught] - run.heart.phase[at])
        for near in run.taught[np.argsort(np.minimum(apart, 1.0 - apart))[:MATCHES]]:
            free.append(run.grey[at])
            beside.append(int(near))
    return {
        MENDED: lessons(own, run.taught.tolist()),
        "adapted, decoys too": lessons(with_decoys, each),
        FREE: lessons(free, beside),
    }


def _decoy(run: RealRun, rng: np.random.Generator) -> np.ndarray:
    """The vessels of a taught frame, moved somewhere, every second mirrored."""
    mask = run.vessels[rng.choice(run.taught)]
    rows, columns = (int(by) for by in rng.integers(-DECOY_REACH_PX, DECOY_REACH_PX + 1, 2))
    return moved(mirrored(mask) if rng.random() < 0.5 else mask, rows, columns)


JUDGES = ("source", "source, catheter left out", "our segmenter")


def judged(run: RealRun, ways: dict[str, np.ndarray], judge: str) -> dict[str, Any]:
    """Every way against one judge's vessels."""
    truth = (run.ours if judge == "our segmenter" else run.source)[run.held]
    where = run.inner & ~run.catheter if judge == "source, catheter left out" else run.inner
    follow = np.flatnonzero(np.diff(run.held) == 1)
    told = {
        name: figures(found & where, truth & where, follow)
        for name, found in ways.items()
        if not (judge == "our segmenter" and name == "our segmenter, filled frame")
    }
    return told | {"the judge itself": {"flicker": flicker(truth & where, follow)}}


def figures(found: np.ndarray, truth: np.ndarray, follow: np.ndarray) -> dict[str, float]:
    """Means over the frames; the distance is the median of the frames' means, in pixels of the network.

    Args:
        found: (n, s, s).
        truth: (n, s, s).
        follow: Indices i of frames whose next one, i + 1, followed at once in the run.
    """
    pairs = list(zip(found, truth, strict=True))
    return {
        "dice": float(np.nanmean([dice(*pair) for pair in pairs])),
        "cldice": float(np.nanmean([centreline_dice(*pair) for pair in pairs])),
        "distance_px": float(np.nanmedian([centreline_distance_px(*pair) for pair in pairs])),
        "flicker": flicker(found, follow),
    }


def flicker(masks: np.ndarray, follow: np.ndarray) -> float:
    """1 - overlap over union from frame to frame, mean."""
    changes = [
        1.0 - float((masks[at] & masks[at + 1]).sum()) / float((masks[at] | masks[at + 1]).sum())
        for at in follow
        if (masks[at] | masks[at + 1]).any()
    ]
    return float(np.mean(changes)) if changes else float("nan")


if __name__ == "__main__":
    sys.exit(main())
