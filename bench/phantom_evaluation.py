"""A model on phantom patients it has not seen, where the truth is known.

patients -> frames -> drawn -> against the truth, against baselines, as an independent segmenter sees them; then the
same at other variations, under shifts, from frame to frame, and its spectrum.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Float32

from bench.drawer import Drawer, open_drawer
from bench.evaluate_config import EvaluateConfig
from bench.judging import (
    Case,
    Judge,
    Mask,
    Yardstick,
    agreement,
    distance_figures,
    flat,
    layer,
    shape_figures,
)
from bench.progress import Progress
from calib.config import PhantomConfig
from calib.phantom import Phantom
from casgan.baseline import mean_tree, same_pose_tree
from casgan.data import patient_config
from casgan.picture_metrics import darkening, exact_fraction, lattice, psnr, squared_error
from casgan.steadiness import SHIFTS_PX, ShiftTest, flicker, shift_test

FRAMES_PER_PATIENT = 2
VARIATIONS = (0.0, 0.2, 0.5, 1.0)
OTHER_PATIENTS = 12
"""Of each further variation, one frame each."""
REFERENCE_SEEDS = range(700, 740)
"""Patients whose true angiograms the distances are taken to: neither taught on nor tested."""
BASELINE_SEEDS = range(1000, 1300)
"""Patients of the mean tree: of the training's own."""
SHIFT_PATIENTS = 6
RUNS = 4
RUN_FRAMES = 8
"""Consecutive frames of a run, half a second at 15 per second."""


def evaluate_phantom(
    config: EvaluateConfig, drawer: Drawer, judge: Judge, progress: Progress
) -> tuple[dict[str, Any], list[Case]]:
    """The report's figures, and the cases for the page of pictures."""
    seeds = range(config.seed, config.seed + config.patients)
    cases, same_pose, mean_trees = [], [], []
    progress.stage("mean tree")
    tree = mean_tree([_patient(seed, config.variation, config.size) for seed in BASELINE_SEEDS])
    for seed in progress.over(seeds, "patients"):
        phantom = Phantom(_patient(seed, config.variation, config.size))
        for index in frame_indices(phantom, FRAMES_PER_PATIENT):
            case, outline = _case(phantom, index, drawer)
            cases.append(case)
            mean_trees.append(tree.drawn(outline, case.live.shape))
            same_pose.append(same_pose_tree(phantom, index))
    patients = [case.patient for case in cases]
    truth = [_truth(case) for case in cases]
    fields = [case.field for case in cases]

    progress.stage("judge")
    pictures = {
        "model": [case.synthetic for case in cases],
        "identity": [case.live for case in cases],
        "real": [_angiogram(case) for case in cases],
    }
    judged = {name: judge.masks(some) for name, some in pictures.items()}

    def row(drawn: list[Mask]) -> dict[str, Any]:
        return agreement(drawn, truth, patients, config.seed) | {
            "shape": shape_figures(drawn, fields, patients, config.seed)
        }

    drawn = [case.drawn for case in cases]
    vessel = agreement(drawn, truth, patients, config.seed)
    baselines = {
        "as_judge_sees_it": row(judged["model"]),
        "identity": row(judged["identity"]),
        "mean_tree": row([mask & field for mask, field in zip(mean_trees, fields, strict=True)])
        | {"threshold": tree.threshold, "learnt_from": tree.patients},
        "same_pose": row(same_pose),
        "ceiling": row(judged["real"]),
    }
    shapes = {
        "drawn": shape_figures(drawn, fields, patients, config.seed),
        "judge": baselines["as_judge_sees_it"]["shape"],
        "real_judge": baselines["ceiling"]["shape"],
        "truth": shape_figures(truth, fields, patients, config.seed),
    }
    report: dict[str, Any] = {
        "data": {
            "kind": "phantom",
            "seeds": [seeds.start, seeds.stop - 1],
            "variation": config.variation,
            "patients": config.patients,
            "frames": len(cases),
            "rows": config.size,
            "columns": config.size,
            "reference_seeds": [REFERENCE_SEEDS.start, REFERENCE_SEEDS.stop - 1],
            "baseline_seeds": [BASELINE_SEEDS.start, BASELINE_SEEDS.stop - 1],
        },
        "vessel": vessel,
        "baseline": baselines,
        "background": background_figures(cases, truth, config.seed),
        "picture": _picture_figures(cases, config.seed),
        "connectivity": {name: one["connectivity"] for name, one in shapes.items()},
        "vessel_area": {name: one["area"] for name, one in shapes.items()},
        "border": {name: one["border"] for name, one in shapes.items()},
        "shape_intervals": {name: one["interval"] for name, one in shapes.items()},
    }
    progress.stage("distances")
    reference, whose = reference_pictures(config.variation)
    yardstick = Yardstick.of(judge.features(reference), whose)
    sets = {name: judge.features(some) for name, some in pictures.items()}
    report |= distance_figures(yardstick, sets, judge.name, config.seed)
    report["variations"] = _variations(config, drawer, progress)
    report["flicker"] = _flicker(config, drawer, progress)
    small = open_drawer(config.model, *(drawer.facts.network_size,) * 2, config.threads)
    try:
        report["shift"], report["lattice"] = _under_shifts(config, small, progress)
    finally:
        small.close()
    return report, cases


def _patient(seed: int, variation: float, size: int) -> PhantomConfig:
    return replace(patient_config(seed), variation=variation, rows=size, columns=size)


def frame_indices(phantom: Phantom, count: int) -> list[int]:
    """Some frames of a patient's loop, always the same ones."""
    rng = np.random.default_rng((phantom.config.seed, 0xE7A1))
    return [int(index) for index in rng.choice(phantom.loop.frames, count, replace=False)]


def _case(phantom: Phantom, index: int, drawer: Drawer) -> tuple[Case, Any]:
    frame = phantom.frame(index)
    synthetic, attention = drawer.draw(frame.plain)
    case = Case(
        patient=f"phantom {phantom.config.seed}",
        live=frame.plain,
        synthetic=synthetic,
        attention=attention,
        field=phantom.field > 0.5,
        angiogram=frame.angiogram,
        mask=frame.mask,
    )
    return case, frame.outline


def _truth(case: Case) -> Mask:
    assert case.mask is not None
    return case.mask


def _angiogram(case: Case) -> np.ndarray:
    assert case.angiogram is not None
    return case.angiogram


def background_figures(cases: list[Case], vessels: list[Mask], seed: int) -> dict[str, Any]:
    """What was left alone outside the vessels, inside the field.

    Args:
        cases: Frames.
        vessels: Of each, what does not count as background.
        seed: Of the intervals.
    """
    patients = [case.patient for case in cases]
    outside = [case.field & ~mask for case, mask in zip(cases, vessels, strict=True)]
    pairs = list(zip(cases, outside, strict=True))
    figures = flat(
        {
            "exact_fraction": [exact_fraction(case.attention, where) for case, where in pairs],
            "exact_of_field": [exact_fraction(case.attention, case.field) for case in cases],
        },
        patients,
        seed,
    )
    errors = [squared_error(_grey(case.live), _grey(case.synthetic), where) for case, where in pairs]
    # Over all frames' mean error: a mean of decibels would be led by the emptiest drawing.
    return figures | {"psnr": psnr(float(np.mean(errors)), 255.0), "psnr_unit": "dB"}


def _picture_figures(cases: list[Case], seed: int) -> dict[str, Any]:
    """How dark vessels come out, and how near to the truth, inside the true vessels; grey levels of 255."""
    figures: dict[str, list[float]] = {
        "darkening": [],
        "darkening_true": [],
        "darkening_drawn": [],
        "vessel_error": [],
        "identity_error": [],
    }
    for case in cases:
        live, drawn, true = _grey(case.live), _grey(case.synthetic), _grey(_angiogram(case))
        mask = _truth(case)
        figures["darkening"].append(darkening(live, drawn, mask))
        figures["darkening_true"].append(darkening(live, true, mask))
        figures["darkening_drawn"].append(darkening(live, drawn, case.drawn))
        figures["vessel_error"].append(float(np.abs(drawn - true)[mask].mean(dtype=np.float64)))
        figures["identity_error"].append(float(np.abs(live - true)[mask].mean(dtype=np.float64)))
    return flat(figures, [case.patient for case in cases], seed)


def _grey(picture: np.ndarray) -> Float32[np.ndarray, "h w"]:
    grey: np.ndarray = picture.astype(np.float32)
    return grey


def reference_pictures(variation: float) -> tuple[list[np.ndarray], list[str]]:
    """True angiograms of `REFERENCE_SEEDS` at 256 x 256, and whose they are: what distances are taken to."""
    pictures, whose = [], []
    for seed in REFERENCE_SEEDS:
        phantom = Phantom(_patient(seed, variation, 256))
        for index in frame_indices(phantom, FRAMES_PER_PATIENT):
            pictures.append(phantom.frame(index).angiogram)
            whose.append(f"phantom {seed}")
    return pictures, whose


def _variations(config: EvaluateConfig, drawer: Drawer, progress: Progress) -> dict[str, Any]:
    """Agreement with the truth at other variations, same patients: it falls where a model predicts, not where it reads."""
    found = {}
    count = min(OTHER_PATIENTS, config.patients)
    for variation in progress.over(VARIATIONS, "variations"):
        cases = []
        for seed in range(config.seed, config.seed + count):
            phantom = Phantom(_patient(seed, variation, config.size))
            cases.append(_case(phantom, frame_indices(phantom, 1)[0], drawer)[0])
        patients = [case.patient for case in cases]
        drawn, truth = [case.drawn for case in cases], [_truth(case) for case in cases]
        found[f"{variation:g}"] = agreement(drawn, truth, patients, config.seed) | {"frames": len(cases)}
    return found


def _runs(config: EvaluateConfig, count: int) -> Iterator[Phantom]:
    for seed in range(config.seed, config.seed + min(count, config.patients)):
        yield Phantom(_patient(seed, config.variation, config.size))


def _flicker(config: EvaluateConfig, drawer: Drawer, progress: Progress) -> dict[str, Any]:
    """Consecutive frames of unseen patients; and one frame taken again and again, where only the noise is new."""
    runs: dict[str, list[float]] = {
        name: [] for name in ("ratio", "excess", "truth_ratio", "strength", "drawn")
    }
    noise = []
    for phantom in progress.over(list(_runs(config, RUNS)), "runs"):
        frames = [phantom.frame(index) for index in range(RUN_FRAMES)]
        live = [_grey(frame.plain) for frame in frames]
        synthetic = [_grey(drawer.draw(frame.plain)[0]) for frame in frames]
        found = flicker(live, synthetic, [_grey(frame.angiogram) for frame in frames])
        for name in runs:
            runs[name].append(getattr(found, name))
        # The same place in the loop, a loop later each time: same pose, another noise.
        still = [phantom.frame(step * phantom.loop.frames).plain for step in range(3)]
        drawn = [_grey(drawer.draw(frame)[0]) for frame in still]
        noise.append(flicker([_grey(frame) for frame in still], drawn).ratio)
    names = [f"run {number}" for number in range(len(noise))]
    return flat(runs | {"noise_ratio": noise}, names, config.seed) | {
        "runs": len(noise),
        "frames_per_run": RUN_FRAMES,
    }


def _under_shifts(
    config: EvaluateConfig, drawer: Drawer, progress: Progress
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The shift test and the lattice, at the network's own size, where a pixel of the frame is one of the network."""
    size = drawer.facts.network_size
    most = max(SHIFTS_PX)
    tests, planes = [], []

    def draw(live: np.ndarray) -> np.ndarray:
        synthetic, attention = drawer.draw(live)
        planes.append(attention.astype(np.float32))
        return layer(live, synthetic)

    count = min(SHIFT_PATIENTS, config.patients)
    for seed in progress.over(range(config.seed, config.seed + count), "shifts"):
        patient = _patient(seed, config.variation, size + most)
        # As large a field per pixel as at the network's size.
        wide = Phantom(replace(patient, field_mm=patient.field_mm * (size + most) / size))
        tests.append(shift_test(draw, wide.frame(frame_indices(wide, 1)[0]).plain))
    patients = [f"phantom {number}" for number in range(count)]
    return shift_figures(tests, patients, size, config.seed), {**lattice(planes), "rows": size}


def shift_figures(
    tests: Sequence[ShiftTest], patients: Sequence[str], size: int, seed: int
) -> dict[str, Any]:
    """The shift test's means over frames, with the worst shift, and how much was drawn at all."""
    means = flat({str(shift): [test.change[shift] for test in tests] for shift in SHIFTS_PX}, patients, seed)
    change = {name: value for name, value in means.items() if name != "interval"}
    known = [value for value in change.values() if value is not None]
    return {
        "worst": max(known) if known else None,
        "change": change,
        "interval": means["interval"],
        "strength": float(np.mean([test.strength for test in tests])),
        "drawn": float(np.mean([test.drawn for test in tests])),
        "frames": len(tests),
        "rows": size,
    }
