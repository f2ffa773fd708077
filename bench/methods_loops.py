"""The protocol on real loops, where nobody knows the truth: the same run's filled frames stand for it, with their confounders.

A contrast-free frame is drawn on; vessels that an independent segmenter sees in it are laid over those that it sees in the
filled frames of the same run. The heart beats and breathes between the two, the segmenter errs on both, and it sees
catheters too: so the same is measured against other patients' runs, and with the frame unchanged. Only what a method has
above both says anything.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.archive_evaluation import unnamed
from bench.errors import EvaluationError
from bench.judging import Judge, Mask, Yardstick
from bench.methods_config import MethodsConfig
from bench.methods_measure import Loop, TestFrame, TestSet, by_patient
from casgan.domains import dark_line_area
from casgan.unpaired import Frames, unpaired_archive
from casgan.vessel_metrics import centreline_dice, dice

MOST_PLAIN = 4
MOST_FILLED = 8
"""Frames of a run, evenly over it."""
LEAST_RUNS = 2


def folder_test_set(config: MethodsConfig, judge: Judge, say: Callable[[str], None]) -> TestSet:
    """Contrast-free frames of the test patients, and filled ones of the same runs.

    Raises:
        EvaluationError: Too few runs have frames of both domains.
    """
    _, test = unpaired_archive(
        Path(config.data),
        config.frame_size,
        dark_line_area,  # not the judge, which must not choose what it judges
        test_patients=config.test_patients or None,
        overrides=config.overrides,
        report=say,
    )
    plain_frames, filled_frames = unnamed(test.plain, test.filled)
    plain, filled = _by_run(plain_frames, MOST_PLAIN), _by_run(filled_frames, MOST_FILLED)
    both = [run for run in plain if run in filled]
    if len(both) < LEAST_RUNS:
        raise EvaluationError(
            f"the test needs {LEAST_RUNS} runs of the test patients with frames of both domains, got {len(both)}; name "
            "more --test-patients"
        )
    frames, loops = [], {}
    for run in both:
        for index in plain[run]:
            live = np.ascontiguousarray(plain_frames.grey[index, 0].numpy())
            frames.append(TestFrame(plain_frames.patients[index], live, _field(plain_frames, index), run=run))
        if len(plain[run]) > 1:
            first = plain[run][0]
            loops[plain_frames.runs[first]] = Loop(
                [np.ascontiguousarray(plain_frames.grey[index, 0].numpy()) for index in plain[run]],
                _field(plain_frames, first),
            )
    pictures = [filled_frames.grey[index, 0].numpy() for run in both for index in filled[run]]
    whose = [run for run in both for _ in filled[run]]
    masks: dict[str, list[Mask]] = {run: [] for run in both}
    for run, mask in zip(whose, judge.masks(pictures), strict=True):
        masks[run].append(mask)
    return TestSet(frames, loops, judge, Yardstick.of(judge.features(pictures), whose), masks, pictures)


def _by_run(frames: Frames, most: int) -> dict[str, list[int]]:
    runs: dict[str, list[int]] = {}
    for index, run in enumerate(frames.runs):
        runs.setdefault(f"{frames.patients[index]}/{run}", []).append(index)
    return {
        run: [indices[round(at)] for at in np.linspace(0, len(indices) - 1, min(most, len(indices)))]
        for run, indices in runs.items()
    }


def _field(frames: Frames, index: int) -> Mask:
    field: np.ndarray = frames.field[index, 0].numpy() > 0
    return field


def placement(test: TestSet, judged: list[Mask]) -> dict[str, dict[str, float]]:
    """Vessels seen in drawn frames over those of filled frames: of the same run, and of other patients' runs.

    Args:
        test: Of a folder.
        judged: What the judge sees in each drawn frame.
    """
    found: dict[str, list[float]] = {
        name: [] for name in ("same_dice", "same_cldice", "other_dice", "other_cldice")
    }
    for frame, mask in zip(test.frames, judged, strict=True):
        own = [(mask, there & frame.field) for there in test.filled[frame.run]]
        others = [
            (mask, there & frame.field)
            for run, masks in test.filled.items()
            if _patient(run) != frame.patient
            for there in masks[:2]
        ]
        for name, pairs in (("same", own), ("other", others)):
            found[f"{name}_dice"].append(_mean([dice(*pair) for pair in pairs]))
            found[f"{name}_cldice"].append(_mean([centreline_dice(*pair) for pair in pairs]))
    return {name: by_patient(values, test.patients) for name, values in found.items()}


def between_filled(test: TestSet) -> dict[str, dict[str, float]]:
    """The ceiling: vessels seen in true angiograms over those of the other ones of the same run, and of other patients' runs.

    Args:
        test: Of a folder.

    Returns:
        By figure, then by patient, as `placement` gives them, and the share of the field that vessels have.
    """
    found: dict[str, list[float]] = {}
    patients = []
    field_of = {frame.run: frame.field for frame in test.frames}
    for run, masks in test.filled.items():
        others = [
            one for other, them in test.filled.items() if _patient(other) != _patient(run) for one in them[:2]
        ]
        field = field_of[run]
        for at, mask in enumerate(masks):
            rest = masks[:at] + masks[at + 1 :]
            row = {"judge_area": float((mask & field).sum() / field.sum())}
            for name, against in (("same", rest), ("other", others)):
                row[f"{name}_dice"] = _mean([dice(mask & field, one & field) for one in against])
                row[f"{name}_cldice"] = _mean([centreline_dice(mask & field, one & field) for one in against])
            for name, value in row.items():
                found.setdefault(name, []).append(value)
            patients.append(_patient(run))
    return {name: by_patient(values, patients) for name, values in found.items()}


def _patient(run: str) -> str:
    return run.partition("/")[0]


def _mean(values: list[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
