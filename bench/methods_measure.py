"""The figures of one method under the protocol: the same frames, the same judge, the same definition of what was drawn.

A method may have an attention of its own, a derived one or none worth the name, so what is drawn is told alike for all: where
y_g is darker than x by half of what a true vessel is darker. Beside it an independent segmenter says where it sees vessels in y_g.
Every figure is kept by patient, so that intervals, and differences of two methods, can be taken over patients later.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float64

from bench.drawer import Drawer
from bench.judging import Judge, Mask, Picture, Yardstick
from bench.methods_config import MethodsConfig
from bench.phantom_evaluation import FRAMES_PER_PATIENT, REFERENCE_SEEDS, frame_indices, reference_pictures
from calib.phantom import Phantom
from casgan.data import patient_config
from casgan.picture_metrics import exact_fraction, squared_error
from casgan.steadiness import flicker
from casgan.vessel_metrics import centreline_dice, centreline_distance_px, connectivity, dice

DARKER = 8.0
"""Grey levels of 255 by which y_g is darker than x where a vessel counts as drawn: half of a true vessel's on the phantom."""
RUNS = 6
RUN_FRAMES = 6
"""Consecutive frames of the phantom's loop, at 15 per second."""
DISTANCES = ("frechet", "mmd_rbf", "mmd_polynomial")

ByPatient = dict[str, float]
Draw = Callable[[Picture, Mask], Picture]


@dataclass(frozen=True)
class TestFrame:
    """One frame of a patient that nothing was taught on."""

    __test__ = False

    patient: str
    live: Picture
    field: Mask
    angiogram: Picture | None = None
    """y, where there is a truth."""
    mask: Mask | None = None
    """Its vessels."""
    run: str = ""
    """Of a folder's frame: whose run it is of."""


@dataclass(frozen=True)
class Loop:
    """Consecutive contrast-free frames of one patient."""

    live: list[Picture]
    field: Mask


@dataclass(frozen=True)
class TestSet:
    """What every method is measured on."""

    __test__ = False

    frames: list[TestFrame]
    loops: dict[str, Loop]
    """Of some patients."""
    judge: Judge
    yardstick: Yardstick
    """True angiograms: on the phantom of further patients, in a folder the same runs' filled frames."""
    filled: dict[str, list[Mask]] = dataclasses.field(default_factory=dict)
    """In a folder: vessels that the judge sees in filled frames, by run."""
    real: list[Picture] = dataclasses.field(default_factory=list)
    """In a folder: those frames."""

    @property
    def patients(self) -> list[str]:
        """Whose each frame is."""
        return [frame.patient for frame in self.frames]

    def angiogram_of(self, frame: TestFrame) -> Picture:
        """The truth; in a folder, where there is none, the first filled frame of the same run."""
        if frame.angiogram is not None:
            return frame.angiogram
        runs = list(self.filled)
        return self.real[sum(len(self.filled[run]) for run in runs[: runs.index(frame.run)])]


def phantom_test_set(config: MethodsConfig, judge: Judge, variation: float = 0.2) -> TestSet:
    """Render it."""
    frames: list[TestFrame] = []
    loops: dict[str, Loop] = {}
    first = config.first_test_seed
    for seed in range(first, first + config.test_seeds):
        side = config.frame_size
        phantom = Phantom(replace(patient_config(seed), variation=variation, rows=side, columns=side))
        name = f"phantom {seed}"
        for index in frame_indices(phantom, FRAMES_PER_PATIENT):
            frame = phantom.frame(index)
            field = phantom.field > 0.5
            frames.append(TestFrame(name, frame.plain, field, frame.angiogram, frame.mask & field))
        if len(loops) < RUNS:
            live = [phantom.frame(index).plain for index in range(RUN_FRAMES)]
            loops[name] = Loop(live, phantom.field > 0.5)
    reference, whose = reference_pictures(variation)
    return TestSet(frames, loops, judge, Yardstick.of(judge.features(reference), whose))


def figures_of(test: TestSet, drawn: Sequence[Picture]) -> dict[str, ByPatient]:
    """Each figure by patient; a figure that does not exist for a patient is left out.

    Args:
        test: The frames.
        drawn: y_g of each.
    """
    judged = [seen & frame.field for seen, frame in zip(test.judge.masks(drawn), test.frames, strict=True)]
    found: dict[str, list[float]] = {}
    for frame, picture, seen in zip(test.frames, drawn, judged, strict=True):
        darker = frame.live.astype(np.float32) - picture.astype(np.float32)
        marked = (darker >= DARKER) & frame.field
        row = {
            "area": float(marked.sum() / frame.field.sum()),
            "judge_area": float(seen.sum() / frame.field.sum()),
            "judge_whole": connectivity(seen),
        }
        vessels = seen if frame.mask is None else frame.mask
        outside = frame.field & ~vessels
        row["background_exact"] = exact_fraction((frame.live != picture).astype(np.uint8), outside)
        row["background_error"] = squared_error(_grey(frame.live), _grey(picture), outside)
        if frame.mask is not None and frame.angiogram is not None:
            row |= _against_truth(marked, seen, frame.mask)
            row["vessel_error"] = float(
                np.abs(_grey(picture) - _grey(frame.angiogram))[frame.mask].mean(dtype=np.float64)
            )
        for name, value in row.items():
            found.setdefault(name, []).append(value)
    figures = {name: by_patient(values, test.patients) for name, values in found.items()}
    if test.filled:
        from bench.methods_loops import placement

        figures |= placement(test, judged)
    return figures


def _against_truth(marked: Mask, seen: Mask, truth: Mask) -> dict[str, float]:
    """What was darkened, and what the judge sees, against the true vessels."""
    return {
        "dice": dice(marked, truth),
        "cldice": centreline_dice(marked, truth),
        "centreline_px": centreline_distance_px(marked, truth),
        "judge_dice": dice(seen, truth),
        "judge_cldice": centreline_dice(seen, truth),
        "judge_centreline_px": centreline_distance_px(seen, truth),
    }


def by_patient(values: Sequence[float], patients: Sequence[str]) -> ByPatient:
    """Each patient's mean over the frames where the figure exists."""
    array, names = np.asarray(values, np.float64), np.asarray(patients)
    means = {}
    for name in dict.fromkeys(patients):
        known = array[(names == name) & ~np.isnan(array)]
        if len(known):
            means[name] = round(float(known.mean()), 6)
    return means


def distances_of(test: TestSet, drawn: Sequence[Picture]) -> dict[str, dict[str, Any]]:
    """Frechet distance and both MMD to true angiograms of other patients, and each with one patient left out at a time.

    The latter are for intervals (jackknife): a bootstrap would see pictures twice, which these distances take for alikeness.
    """
    features, names = test.judge.features(drawn), np.asarray(test.patients)
    whole = test.yardstick.distance(features)
    parts = {name: test.yardstick.distance(features[names != name]) for name in dict.fromkeys(test.patients)}
    return {
        kind: {
            "value": round(float(getattr(whole, kind)), 6),
            "left_out": {name: round(float(getattr(part, kind)), 6) for name, part in parts.items()},
        }
        for kind in DISTANCES
    }


def flicker_of(test: TestSet, draw: Draw) -> dict[str, ByPatient]:
    """From frame to frame: change of the layer over its strength, and that strength, without which the first says nothing."""
    found: dict[str, ByPatient] = {"flicker": {}, "layer": {}}
    for patient, loop in test.loops.items():
        drawn = [draw(frame, loop.field) for frame in loop.live]
        result = flicker([_grey(frame) for frame in loop.live], [_grey(picture) for picture in drawn])
        if not np.isnan(result.ratio):
            found["flicker"][patient] = round(result.ratio, 6)
        found["layer"][patient] = round(result.strength, 6)
    return found


def measured(test: TestSet, drawer: Drawer) -> tuple[dict[str, Any], list[Picture]]:
    """All figures of a model, and what it drew."""

    def draw(live: Picture, field: Mask) -> Picture:
        # Outside the field nothing is drawn, as where a site is calibrated.
        return drawer.draw(live, field * np.uint8(255))[0]

    drawn = [draw(frame.live, frame.field) for frame in test.frames]
    figures = figures_of(test, drawn) | flicker_of(test, draw)
    return {"figures": figures, "distances": distances_of(test, drawn)}, drawn


def references(test: TestSet) -> dict[str, dict[str, Any]]:
    """The floor and the ceiling of every table: the picture unchanged, and true angiograms of the same patients."""
    pictures = {"identity": [frame.live for frame in test.frames]}
    angiograms = [frame.angiogram for frame in test.frames if frame.angiogram is not None]
    if angiograms:
        pictures["real"] = angiograms
    found: dict[str, dict[str, Any]] = {}
    for name, drawn in pictures.items():
        found[name] = {"figures": figures_of(test, drawn), "distances": distances_of(test, drawn)}
    if test.filled:
        from bench.methods_loops import between_filled

        # No distances: these pictures are what the others' are measured to.
        found["real"] = {"figures": between_filled(test), "distances": {}}
    halves = test.yardstick.halves(0)
    found["real_halves"] = {}
    for kind in DISTANCES if halves else ():
        values = [getattr(half, kind) for half in halves]
        found["real_halves"][kind] = {
            "mean": float(np.mean(values)),
            "sd": float(np.std(values)),
            "splits": len(halves),
            "n": list(halves[0].n),
        }
    found["reference"] = {
        "seeds": None if test.filled else [REFERENCE_SEEDS.start, REFERENCE_SEEDS.stop - 1],
        "pictures": len(test.yardstick.reference),
        "tested": len(test.frames),
        "features": test.judge.name,
    }
    return found


def _grey(picture: Picture) -> Float64[np.ndarray, "h w"]:
    grey: np.ndarray = picture.astype(np.float64)
    return grey
