"""The command `evaluate`: a model's figures as JSON and a table, with a page of pictures beside them."""

import importlib.util
import math
import os
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from bench.errors import EvaluationError
from bench.evaluate_config import EvaluateConfig
from calib.whole_files import json_bytes, write_whole
from stream.reported import FILE

SCHEMA = "contrastream.evaluation/1"
LATTICE_SEEN = 0.01
"""A grid weaker than this share of the drawing is below the rounding to 8 bits."""
NEEDED = ("torch", "skimage", "safetensors")


def evaluate(config: EvaluateConfig) -> int:
    """Measure, write, print; or print the tables of methods that were measured before.

    Raises:
        EvaluationError: A library, the model or the data is not there or cannot be used.
    """
    if config.table:
        from bench.methods_table import write_table

        print(write_table(config.results))
        print(f"\nwritten: {config.results.resolve().parent / 'RESULTS.md'}")
        return 0
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        raise EvaluationError(
            f"evaluate needs the judge's libraries, found no {', '.join(missing)}; run: pip install -e '.[train]'"
        )
    import cv2
    import torch

    from bench.evaluation_table import format_evaluation
    from bench.gallery import write_gallery

    threads = config.threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    report, panels = measured(config)
    write_report(report, config.out)
    page, sheet = write_gallery(report, panels, config.out)
    print(format_evaluation(report))
    print(f"\nwritten: {config.out}, {page}, {sheet}")
    return 0


def measured(config: EvaluateConfig) -> tuple[dict[str, Any], list[Any]]:
    """The report, and what the page shows."""
    from bench import machine
    from bench.drawer import open_drawer, serial_ms
    from bench.gallery import panels_of
    from bench.judging import Judge
    from bench.progress import Progress
    from casgan.segmenter import JUDGE

    progress = Progress()
    judge = Judge(config.judge or JUDGE)
    drawer = open_drawer(config.model, config.size, config.size, config.threads)
    try:
        if config.data == "phantom":
            from bench.phantom_evaluation import evaluate_phantom

            figures, cases = evaluate_phantom(config, drawer, judge, progress)
            real = None
        else:
            from bench.archive_evaluation import evaluate_archive

            figures, cases, real = evaluate_archive(config, drawer, judge, progress)
        times_ms = serial_ms(drawer, cases[0].live)
    finally:
        drawer.close()
    facts = asdict(drawer.facts) | {"name": _model(config)}
    engine = {name: facts.pop(name) for name in ("backend", "precision")}
    report = {
        "schema": SCHEMA,
        "model": facts,
        "judge": _without(judge.card, "format"),
        "settings": _settings(config),
        "engine": engine
        | {
            "ms": float(np.median(times_ms)),
            "runs": len(times_ms),
            "rows": config.size,
            "columns": config.size,
            "what": "serial median of warm runs, from a frame in memory to its planes",
        },
        "machine": machine.describe(),
        **figures,
    }
    if config.second_judge is not None:
        report["second_judge"] = _second_opinion(config.second_judge, judge, cases, real, config.seed)
    if config.inception is not None:
        report["inception"] = _inception(config.inception, cases, real)
    report["targets"] = targets(report)
    progress.close()
    return report, panels_of(cases, judge, real)


def _model(config: EvaluateConfig) -> str:
    """A shipped model's name; `file` for any other, which its hash names: its file may be named after a patient."""
    return FILE if Path(config.model).exists() else config.model


def _settings(config: EvaluateConfig) -> dict[str, Any]:
    """All settings, each file as the word `file`, a folder of frames as `folder`, and patients by their number alone."""
    settings = asdict(config) | {
        "model": _model(config),
        "data": config.data if config.data == "phantom" else "folder",
        "test_patients": len(config.test_patients),
    }
    return {name: FILE if isinstance(value, Path) else value for name, value in settings.items()}


def _without(facts: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if name not in names}


def _second_opinion(path: Path, judge: Any, cases: list[Any], real: Any, seed: int) -> dict[str, Any]:
    """How far another segmenter sees the same vessels, in what was drawn and in real angiograms."""
    from bench.judging import Judge, agreement

    other = Judge(path)
    found: dict[str, Any] = {"judge": _without(other.card, "format")}
    sets = {"synthetic": ([case.synthetic for case in cases], [case.patient for case in cases])}
    if real is not None:
        sets["real"] = (real.pictures, real.patients)
    elif cases[0].angiogram is not None:
        sets["real"] = ([case.angiogram for case in cases], [case.patient for case in cases])
    for name, (pictures, patients) in sets.items():
        found[name] = agreement(other.masks(pictures), judge.masks(pictures), patients, seed)
    return found


def _inception(weights: Path, cases: list[Any], real: Any) -> dict[str, float]:
    """FID and KID by torch-fidelity, of pictures written for it."""
    import tempfile

    import cv2

    from casgan.frechet import inception_distances

    pictures = real.pictures if real is not None else [case.angiogram for case in cases]
    with tempfile.TemporaryDirectory(prefix="contrastream-") as name:
        folders = [Path(name) / kind for kind in ("synthetic", "real")]
        for folder, some in zip(folders, ([case.synthetic for case in cases], pictures), strict=True):
            folder.mkdir()
            for number, picture in enumerate(some):
                cv2.imwrite(str(folder / f"{number:05}.png"), cv2.cvtColor(picture, cv2.COLOR_GRAY2BGR))
        return inception_distances(folders[0], folders[1], weights)


def targets(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What a model worth shipping must reach, and whether this one does; None where a figure does not exist."""
    rows: list[dict[str, Any]] = []

    def add(name: str, value: float | None, needed: str, met: bool | None) -> None:
        rows.append({"name": name, "value": value, "needed": needed, "met": met})

    def at_least(name: str, value: float | None, least: float) -> None:
        add(name, value, f">= {least:.2f}", None if value is None else value >= least)

    def at_most(name: str, value: float | None, most: float) -> None:
        add(name, value, f"<= {most:.2f}", None if value is None else value <= most)

    vessel, base = report["vessel"], report["baseline"]
    if vessel is not None:
        at_least("vessel Dice", vessel["dice"], 0.5)
        at_least("vessel clDice", vessel["cldice"], 0.6)
        at_least("Dice above the mean tree", vessel["dice"] - base["mean_tree"]["dice"], 0.1)
        at_least("clDice above the mean tree", vessel["cldice"] - base["mean_tree"]["cldice"], 0.1)
        course = [one["dice"] for _, one in sorted(report["variations"].items(), key=lambda kv: float(kv[0]))]
        falls = all(later <= earlier + 0.01 for earlier, later in pairwise(course))
        add("Dice lost from variation 0 to 1", course[0] - course[-1], "falling", falls)
        at_most("share of vessels on the border", report["border"]["drawn"], report["border"]["truth"] + 0.02)
    else:
        for name, unit in (("frechet", "value"), ("mmd", "rbf")):
            own = report[name][unit]
            identity = (
                report[name]["identity"] if name == "frechet" else report[name]["others_rbf"]["identity"]
            )
            at_most(f"{name} below the unchanged picture's", own, identity)
        real_area = report["vessel_area"]["real_judge"]
        relative = report["vessel_area"]["judge"] / real_area if real_area else None
        add(
            "vessel area relative to real",
            relative,
            "0.70 to 1.30",
            None if relative is None else 0.7 <= relative <= 1.3,
        )
        at_least(
            "connectivity above the unchanged picture's",
            report["connectivity"]["judge"],
            report["connectivity"]["identity_judge"] or 0.0,
        )
    at_least("background exactly unchanged, of the field", report["background"]["exact_of_field"], 0.7)
    at_most("shift test, worst of 1 to 7 px", report["shift"]["worst"], 0.25)
    for period in ("1/8", "1/4"):
        ratio, amplitude = (_known(report["lattice"][part][period]) for part in ("ratio", "amplitude"))
        seen = None if ratio is None or amplitude is None else ratio > 2.0 and amplitude > LATTICE_SEEN
        needed = f"<= 2.00, or under {100 * LATTICE_SEEN:.0f} % of the layer"
        add(f"lattice at {period} cycles per pixel", ratio, needed, None if seen is None else not seen)
    return rows


def _known(value: float) -> float | None:
    return None if value is None or math.isnan(value) else value


def write_report(report: dict[str, Any], path: Path) -> None:
    """As JSON; what is not a number is null.

    Raises:
        EvaluationError: The file cannot be written.
    """
    try:
        write_whole({path: json_bytes(_plain(report), allow_nan=False)})
    except OSError as error:
        raise EvaluationError(f"the report cannot be written: {error}; choose another --out") from error


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, np.integer):
        return int(value)
    return value
