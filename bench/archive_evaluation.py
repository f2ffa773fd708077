"""A model on real frames of patients it was not taught on. There is no truth: an independent segmenter judges.

folder -> domains and split as in training -> test patients -> drawn -> as the judge sees it, beside the unchanged
picture and beside real angiograms of the same patients.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.drawer import Drawer, open_drawer
from bench.errors import EvaluationError
from bench.evaluate_config import EvaluateConfig
from bench.judging import Case, Judge, Mask, Yardstick, distance_figures, flat, layer, shape_figures
from bench.phantom_evaluation import background_figures, shift_figures
from bench.progress import Progress
from casgan.domains import dark_line_area
from casgan.picture_metrics import darkening, lattice
from casgan.steadiness import SHIFTS_PX, flicker, shift_test
from casgan.unpaired import Frames, unpaired_archive

MOST_FRAMES = 48
"""Of either domain, evenly over the runs: neighbouring frames say little more."""
SHIFT_FRAMES = 6
LEAST_FRAMES = 2


@dataclass(frozen=True)
class RealAngiograms:
    """Filled frames of the test patients."""

    pictures: list[np.ndarray]
    fields: list[Mask]
    patients: list[str]
    runs: list[str]


def evaluate_archive(
    config: EvaluateConfig, drawer: Drawer, judge: Judge, progress: Progress
) -> tuple[dict[str, Any], list[Case], RealAngiograms]:
    """The report's figures, the cases for the page of pictures, and the real angiograms beside them.

    Raises:
        EvaluationError: The folder's test patients have too few frames.
        DataError: The folder cannot be used.
    """
    folder = Path(config.data)
    if not folder.is_dir():
        raise EvaluationError(f"--data must be phantom or a folder of frames, found no folder {folder}")
    _, test = unpaired_archive(
        folder,
        config.size,
        # Not by the judge: whom it is to judge it must not choose.
        dark_line_area,
        test_patients=config.test_patients or None,
        overrides=config.overrides,
        report=lambda line: progress.note(line),
    )
    if min(len(test.plain), len(test.filled)) < LEAST_FRAMES:
        raise EvaluationError(
            f"an evaluation needs {LEAST_FRAMES} contrast-free and {LEAST_FRAMES} filled frames of the test patients, got "
            f"{len(test.plain)} and {len(test.filled)}; name more --test-patients"
        )
    plain, filled = unnamed(test.plain, test.filled)
    real = _real(filled)
    cases = [_case(plain, index, drawer) for index in progress.over(_evenly(len(plain)), "frames")]
    patients = [case.patient for case in cases]
    fields = [case.field for case in cases]
    progress.stage("judge")
    judged = judge.masks([case.synthetic for case in cases])
    shapes = {
        "drawn": shape_figures([case.drawn for case in cases], fields, patients, config.seed),
        "judge": shape_figures(judged, fields, patients, config.seed),
        "identity_judge": shape_figures(
            judge.masks([case.live for case in cases]), fields, patients, config.seed
        ),
        "real_judge": shape_figures(judge.masks(real.pictures), real.fields, real.patients, config.seed),
    }
    yardstick = Yardstick.of(judge.features(real.pictures), real.runs)
    sets = {
        "model": judge.features([case.synthetic for case in cases]),
        "identity": judge.features([case.live for case in cases]),
    }
    report: dict[str, Any] = {
        "data": {
            "kind": "folder",
            "test_patients": len(test.patients),
            "frames": len(cases),
            "real_frames": len(real.pictures),
            "rows": config.size,
            "columns": config.size,
            "sha256": test.sha256(),
            "halves_by": "run",
        },
        "vessel": None,
        "baseline": None,
        "background": background_figures(cases, judged, config.seed),
        "picture": _darkening(cases, judged, config.seed),
        "connectivity": {name: one["connectivity"] for name, one in shapes.items()},
        "vessel_area": {name: one["area"] for name, one in shapes.items()},
        "border": {name: one["border"] for name, one in shapes.items()},
        "shape_intervals": {name: one["interval"] for name, one in shapes.items()},
        **distance_figures(yardstick, sets, judge.name, config.seed),
        "flicker": _flicker(plain, drawer, progress, config.seed),
    }
    small = open_drawer(config.model, *(drawer.facts.network_size,) * 2, config.threads)
    try:
        report["shift"], report["lattice"] = _under_shifts(cases, small, progress, config.seed)
    finally:
        small.close()
    return report, cases, real


def unnamed(*domains: Frames) -> tuple[Frames, ...]:
    """The same frames with patients and runs as numbers, in the order of their folders' names, which may be people's."""
    patients = sorted({patient for frames in domains for patient in frames.patients})
    of_patient = {patient: f"patient {number}" for number, patient in enumerate(patients, 1)}
    owner = {
        run: patient for frames in domains for run, patient in zip(frames.runs, frames.patients, strict=True)
    }
    of_run = {
        run: f"{of_patient[patient]}, run {number}"
        for patient in patients
        for number, run in enumerate(sorted(run for run, whose in owner.items() if whose == patient), 1)
    }
    return tuple(
        replace(
            frames,
            patients=tuple(of_patient[patient] for patient in frames.patients),
            runs=tuple(of_run[run] for run in frames.runs),
        )
        for frames in domains
    )


def _evenly(count: int) -> list[int]:
    return sorted({round(at) for at in np.linspace(0, count - 1, min(count, MOST_FRAMES))})


def _real(frames: Frames) -> RealAngiograms:
    chosen = _evenly(len(frames))
    return RealAngiograms(
        [frames.grey[index, 0].numpy() for index in chosen],
        [frames.field[index, 0].numpy() > 0 for index in chosen],
        [frames.patients[index] for index in chosen],
        [frames.runs[index] for index in chosen],
    )


def _case(frames: Frames, index: int, drawer: Drawer) -> Case:
    live = np.ascontiguousarray(frames.grey[index, 0].numpy())
    field = frames.field[index, 0].numpy()
    synthetic, attention = drawer.draw(live, field * np.uint8(255))
    return Case(frames.patients[index], live, synthetic, attention, field > 0)


def _darkening(cases: Sequence[Case], judged: Sequence[Mask], seed: int) -> dict[str, Any]:
    """How much darker, in grey levels of 255, the picture is where the model and where the judge see a vessel."""
    figures: dict[str, list[float]] = {"darkening_drawn": [], "darkening_judged": []}
    for case, mask in zip(cases, judged, strict=True):
        live, drawn = case.live.astype(np.float32), case.synthetic.astype(np.float32)
        figures["darkening_drawn"].append(darkening(live, drawn, case.drawn))
        figures["darkening_judged"].append(darkening(live, drawn, mask))
    return flat(figures, [case.patient for case in cases], seed)


def _flicker(frames: Frames, drawer: Drawer, progress: Progress, seed: int) -> dict[str, Any]:
    """The contrast-free frames that follow one another in each run."""
    runs: dict[str, list[int]] = {}
    for index, run in enumerate(frames.runs):
        runs.setdefault(run, []).append(index)
    figures: dict[str, list[float]] = {name: [] for name in ("ratio", "excess", "strength", "drawn")}
    names = []
    for indices in progress.over(list(runs.values()), "runs"):
        if len(indices) < 2:
            continue
        cases = [_case(frames, index, drawer) for index in indices[:8]]
        live = [case.live.astype(np.float32) for case in cases]
        found = flicker(live, [case.synthetic.astype(np.float32) for case in cases])
        for figure, values in figures.items():
            values.append(getattr(found, figure))
        names.append(frames.patients[indices[0]])
    if not names:
        nothing = dict.fromkeys(figures, None)
        return {**nothing, "runs": 0, "interval": {figure: [None, None] for figure in figures}}
    return flat(figures, names, seed) | {"runs": len(names)}


def _under_shifts(
    cases: Sequence[Case], drawer: Drawer, progress: Progress, seed: int
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The shift test and the lattice at the network's own size; the frame's edge is repeated to move it."""
    size, most = drawer.facts.network_size, max(SHIFTS_PX)
    planes: list[np.ndarray] = []
    tests = []

    def draw(live: np.ndarray) -> np.ndarray:
        synthetic, attention = drawer.draw(live)
        planes.append(attention.astype(np.float32))
        return layer(live, synthetic)

    chosen = [round(at) for at in np.linspace(0, len(cases) - 1, min(SHIFT_FRAMES, len(cases)))]
    for index in progress.over(chosen, "shifts"):
        picture = cv2.resize(cases[index].live, (size, size), interpolation=cv2.INTER_AREA)
        tests.append(shift_test(draw, np.pad(picture, ((0, most), (0, most)), mode="edge")))
    patients = [cases[index].patient for index in chosen]
    return shift_figures(tests, patients, size, seed), {**lattice(planes), "rows": size}
