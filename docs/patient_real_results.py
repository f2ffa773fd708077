"""Write the section on real runs of casgan/RESULTS.md, and its plot, from the figures of `python -m bench.patient_real`.

    python -m bench.patient_real ../shared/data --out docs/patient-real.json
    python docs/patient_real_results.py

It lies between two markers; what stands outside them is not touched. docs/results.py writes the page anew: run this after it and after
docs/patient_results.py.
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from patient_real_words import HEAD, SAID

from bench.machine import one_line

PLACE = Path(__file__).resolve().parent
PAGE = PLACE.parent / "casgan" / "RESULTS.md"
PLOT = PLACE / "patient-real.svg"
BEGIN, END = "<!-- real runs -->", "<!-- end of real runs -->"
MENDED, DECOYS_TOO, FREE = "adapted, vessels removed", "adapted, decoys too", "adapted, contrast-free"
RIVALS = (
    "general",
    "static roadmap",
    "roadmap, optical flow",
    "nearest phase",
    "best filled frame",
    "all taught frames, as wide",
    "all taught frames by flow, as wide",
)
WAYS = (*RIVALS, MENDED, DECOYS_TOO, FREE)
SEGMENTER = "our segmenter, filled frame"
DECOYS = ("mirrored", "moved", "another moment")
SCENES = (
    "removed",
    *(f"removed, and {name}" for name in DECOYS),
    "free",
    "free, moved to its pose",
    "free, mended along own",
    *(f"free, mended along {name}" for name in DECOYS),
)
Patient = dict[str, Any]


def main() -> int:
    """Write section and plot."""
    report = json.loads((PLACE / "patient-real.json").read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before.rstrip()}\n\n{section(report)}\n{after.lstrip()}", encoding="utf-8")
    plot(report["patients"])
    print(f"written {PAGE}, {PLOT}")
    return 0


def section(report: dict[str, Any]) -> str:
    """The whole section with its markers."""
    patients = report["patients"]
    parts = [
        BEGIN,
        HEAD,
        runs(patients),
        by_patient("clDice, source's masks", WAYS, patients, lambda one, way: cldice(one, way)),
        ahead(patients),
        means(patients),
        probes(patients),
        free_frames(patients),
        "![clDice of each run: roadmaps, what M draws on mended frames, and the leak probe](../docs/patient-real.svg)\n",
        f"Machine: {one_line(report['machine'])}; {report['settings']['threads']} thread of torch, nice 10, others beside it; "
        f"{report['settings']['steps']} steps each, half of them on the contrast-free frames.\n",
        SAID,
        END,
    ]
    return "\n".join(parts)


def cldice(patient: Patient, way: str, judge: str = "source") -> float:
    """Mean over the held-out frames."""
    return float(patient["judged"][judge][way]["cldice"])


def number(patient: Patient) -> str:
    """What a patient is called in the tables."""
    return str(patient["run"].split("/")[0].removeprefix("Patient_"))


def runs(patients: list[Patient]) -> str:
    """What each run holds."""
    lines = [
        "| patient, run | frames | contrast-free | frames per beat, clearness | filled beats | taught | held out | different beats |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for one in patients:
        lines.append(
            f"| {number(one)}, {one['run'].split('/')[1]} | {one['frames']} | {len(one['free'])} | {one['frames_per_beat']:.1f}, "
            f"{one['clear']:.2f} | {one['filled_beats']:.1f} | {len(one['taught_frames'])} | {len(one['held_frames'])} | "
            f"{'yes' if one['beats_apart'] else 'no'} |"
        )
    return "\n".join(lines) + "\n"


def by_patient(
    title: str, rows: tuple[str, ...], patients: list[Patient], figure: Callable[[Patient, str], float]
) -> str:
    """A row of each name, a column of each patient, and the mean."""
    lines = [
        f"| {title} | " + " | ".join(number(one) for one in patients) + " | mean |",
        "|---|" + "---|" * (len(patients) + 1),
    ]
    for name in rows:
        values = [figure(one, name) for one in patients]
        cells = " | ".join(f"{value:.2f}" for value in [*values, float(np.mean(values))])
        lines.append(f"| {name} | {cells} |")
    return "\n".join(lines) + "\n"


def ahead(patients: list[Patient]) -> str:
    """In how many patients what M draws is ahead."""
    lines = []
    for way in (MENDED, DECOYS_TOO, FREE):
        counts = ", ".join(
            f"{rival} in {sum(cldice(one, way) > cldice(one, rival) for one in patients)}" for rival in RIVALS
        )
        lines.append(f"- {way}: of {len(patients)} patients ahead in clDice of {counts}")
    return "\n".join(lines) + "\n"


def means(patients: list[Patient]) -> str:
    """The other figures, means over the patients."""
    lines = [
        "| means over the patients | Dice | clDice | distance px | flicker | clDice, catheter left out | clDice, our segmenter judges |",
        "|---|---|---|---|---|---|---|",
    ]
    for way in (*WAYS, SEGMENTER):

        def mean(judge: str, figure: str, way: str = way) -> str:
            return f"{np.mean([one['judged'][judge][way][figure] for one in patients]):.2f}"

        ours = "" if way == SEGMENTER else mean("our segmenter", "cldice")
        figures = " | ".join(mean("source", name) for name in ("dice", "cldice", "distance_px", "flicker"))
        lines.append(f"| {way} | {figures} | {mean('source, catheter left out', 'cldice')} | {ours} |")
    own = np.mean([one["judged"]["source"]["the judge itself"]["flicker"] for one in patients])
    lines.append(f"| the source's masks themselves | | | | {own:.2f} | | |")
    return "\n".join(lines) + "\n"


def probes(patients: list[Patient]) -> str:
    """The leak probe."""
    head = f"leak probe, {MENDED}: clDice against own vessels; against the decoy (without its mending)"
    lines = [
        f"| {head} | " + " | ".join(number(one) for one in patients) + " |",
        "|---|" + "---|" * len(patients),
    ]
    for scene in SCENES:
        lines.append(f"| {scene} | " + " | ".join(cell([one], MENDED, scene) for one in patients) + " |")
    adapted = (MENDED, DECOYS_TOO, FREE)
    lines += ["", "| the same, means over the patients | " + " | ".join(adapted) + " |", "|---|---|---|---|"]
    for scene in SCENES:
        lines.append(f"| {scene} | " + " | ".join(cell(patients, way, scene) for way in adapted) + " |")
    rows: dict[str, Callable[[Patient], float]] = {
        **{f"own against {name}": lambda one, name=name: one["chance"][name] for name in DECOYS},  # type: ignore[misc]
        "our segmenter on the frames with vessels removed": lambda one: one["left_over"],
        "head on E_BG, contrast-free frames mended (soft Dice)": lambda one: one["latent"]["mended"],
        "head on E_BG, the same as they are (soft Dice)": lambda one: one["latent"]["as it is"],
    }
    told = by_patient("for comparison", tuple(rows), patients, lambda one, name: float(rows[name](one)))
    return "\n".join(lines) + "\n\n" + told


def cell(patients: list[Patient], way: str, scene: str) -> str:
    """Means over some patients: against own vessels; of a decoy, against it, and what that was without its mending."""
    told = [one["probe"][way] for one in patients]
    own = f"{np.mean([of[scene]['own'] for of in told]):.2f}"
    decoy = next((name for name in DECOYS if scene.endswith(f" {name}")), None)
    if decoy is None:
        return own
    plain = scene.split(",")[0]
    with_it, without = (np.mean([of[which][decoy] for of in told]) for which in (scene, plain))
    return f"{own}; {with_it:.2f} ({without:.2f})"


def free_frames(patients: list[Patient]) -> str:
    """What is drawn on the contrast-free frames."""
    ways = (
        "general",
        "all taught frames, as wide",
        "all taught frames by flow, as wide",
        MENDED,
        DECOYS_TOO,
        FREE,
    )
    roads = ("static roadmap", "any taught frame", "best filled frame")

    def figure(one: Patient, name: str) -> float:
        told = one["free_frames"]
        if name in roads:
            return float(told["roadmaps"][name])
        way, what = name.rsplit(": ", 1) if ": " in name else (name, "cldice")
        return float(told[way]["area" if what == "drawn, %" else what]) * (
            100.0 if what == "drawn, %" else 1.0
        )

    rows = (*roads, *ways, f"{MENDED}: drawn, %")
    title = "contrast-free frames, clDice against the filled frame of the nearest phase"
    return by_patient(title, rows, patients, figure)


def plot(patients: list[Patient]) -> None:
    """Each run's clDice, and the leak probe beside it."""
    matplotlib.rcParams["svg.hashsalt"] = "patient-real"
    figure = Figure(figsize=(11.0, 4.6), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    at = np.arange(len(patients))
    shown = (
        ("static roadmap", "s", "0.6"),
        ("roadmap, optical flow", "v", "0.6"),
        ("best filled frame", "^", "0.2"),
        ("all taught frames by flow, as wide", "D", "tab:blue"),
        (MENDED, "o", "tab:red"),
        (FREE, "x", "tab:orange"),
    )
    for way, mark, colour in shown:
        left.plot(at, [cldice(one, way) for one in patients], mark, color=colour, label=way)
    left.set(title="Held-out filled frames, vessels removed", ylabel="clDice, source's masks")
    probed = (
        ("removed", "o", "tab:red"),
        ("removed, and another moment", "o", "tab:pink"),
        ("free, mended along own", "P", "tab:purple"),
        ("free", "s", "tab:green"),
        ("free, moved to its pose", "D", "tab:olive"),
    )
    for scene, mark, colour in probed:
        values = [one["probe"][MENDED][scene]["own"] for one in patients]
        right.plot(at, values, mark, color=colour, label=scene)
    right.set(title=f"Leak probe: {MENDED}")
    for axis in (left, right):
        axis.set_xticks(at, [f"patient {number(one)}" for one in patients], rotation=30)
        axis.grid(axis="y", alpha=0.3)
        axis.set_ylim(0.0, 0.9)
        axis.legend(fontsize=8, ncols=2, loc="upper left")
    figure.savefig(PLOT, metadata={"Date": None})


if __name__ == "__main__":
    sys.exit(main())
