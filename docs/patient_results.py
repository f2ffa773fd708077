"""Write the section on patient adaptation of casgan/RESULTS.md from the figures of `python -m bench.patient`.

    python -m bench.patient --seeds 960 961 --steps 300 --seconds 240 --out docs/patient.json
    python docs/patient_results.py

It lies between two markers; what stands outside them is not touched. docs/results.py writes the page anew: run this after it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from bench.machine import one_line

PLACE = Path(__file__).resolve().parent
PAGE = PLACE.parent / "casgan" / "RESULTS.md"
BEGIN, END = "<!-- patient -->", "<!-- end of patient -->"
WAYS = (
    "general",
    "adapted, segmenter",
    "adapted, truth",
    "static roadmap",
    "roadmap, optical flow",
    "nearest phase",
    "best filled frame",
)
NEEDED_CLDICE, NEEDED_MM = 0.85, 1.0

HEAD = """## Patient adaptation, on the phantom

Written by `docs/patient_results.py` from `docs/patient.json`: no table was typed. One recording with one injection teaches (20 s before it, 4 s of
injection, 6 s after, 15 frames per second); everything measured comes later, with other heartbeats and breaths of other depths. "adapted,
segmenter" is what `contrastream calib patient` gives; "adapted, truth" was taught on the true vessels of the recording's filled frames, to tell what
the segmenter costs. The roadmaps have the true vessels of the filled frames, and "nearest phase" the true phase, which no room has; "best filled
frame" is chosen knowing the truth. No frame that is judged, and none that M is taught on, was ever filled, so there is nothing to read in them.
"""

SAID = """Read off it: at the taught projection the adapted model is ahead of the general one in Dice and clDice in each patient, and of the static roadmap, of
optical flow and of the nearest phase in clDice; a table that moves by 20 mm changes nothing. A C-arm that turns by 3 degrees already makes it worse than
the general model in clDice. The gate refuses 10 degrees and more always, 6 degrees in part and 3 degrees hardly; it also refuses a moved table, where
drawing would have been right, and some frames of the taught projection: it is too lax for the one and too strict for the other, and not fit for use. The
segmenter that labels the filled frames is what limits the rest: it puts vessels where there are none, so that in phantom 961 the distance is
larger than the general model's while Dice and clDice are better. Optical flow and the nearest phase lie nearer to the true lines than what is drawn,
where they have the true vessels.

**Filled frames with their vessels removed do not teach.** Tried on phantom 960 before this evaluation, 300 steps each, true masks, 26 filled frames:
mended by inpainting and mended along decoys alike, M's Dice on held-out mended frames rose from 0.51 to 0.78 while on the same moments truly without contrast
medium it stayed at 0.68; with the whole picture smoothed and its grain laid in anew, 0.74 and 0.67; with contrast-free frames warped by optical flow to the
filled ones' pose, 0.67 on true ones; with the exact contrast-free picture of each filled frame, which no room has, 0.83. So M reads the mending, as
training.md feared, and teaching takes contrast-free frames beside the vessels of the same moment instead. (Figures of single trials, not kept as files.)

**Not measured:** real runs. None of the 35 in hand holds ten contrast-free heartbeats (1 to 10 contrast-free frames each), so `calib patient`
refuses them, and judging on mended frames would flatter as above. Recordings with fluoroscopy before the injection are needed.
"""


def main() -> int:
    """Write the section."""
    report = json.loads((PLACE / "patient.json").read_text(encoding="utf-8"))
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before.rstrip()}\n\n{section(report)}\n{after.lstrip()}", encoding="utf-8")
    print(f"written {PAGE}")
    return 0


def section(report: dict[str, Any]) -> str:
    """The whole section with its markers."""
    parts = [BEGIN, HEAD]
    for patient in report["patients"]:
        taught = patient["taught"]
        parts.append(
            f"Phantom {patient['seed']}: "
            + "; ".join(
                f"taught on the {labels}'s vessels with {one['lessons']} pairs, {one['steps']} steps in {one['seconds']:.0f} s"
                for labels, one in taught.items()
            )
            + ".\n"
        )
        parts.append(same_projection(patient))
        parts.append(moved(patient))
    parts.append(targets(report))
    parts.append(
        f"Machine: {one_line(report['machine'])}; {report['settings']['threads']} thread of torch, nice 10, others beside it.\n"
    )
    parts += [SAID, END]
    return "\n".join(parts)


def same_projection(patient: dict[str, Any]) -> str:
    """The table of the taught projection."""
    scene = patient["scenes"]["same projection"]
    lines = [
        f"| same projection, {scene['general']['frames']} frames | Dice | clDice | distance mm | flicker |",
        "|---|---|---|---|---|",
    ]
    for way in WAYS:
        one = scene[way]
        lines.append(
            f"| {way} | {one['dice']:.3f} | {one['cldice']:.3f} | {one['distance_mm']:.2f} | {one['flicker']:.2f} |"
        )
    lines.append(f"| the truth itself | | | | {scene['truth']['flicker']:.2f} |")
    return "\n".join(lines) + "\n"


def moved(patient: dict[str, Any]) -> str:
    """clDice under a moved table and a turned C-arm."""
    lines = [
        "| clDice | " + " | ".join(WAYS) + " | refused by the gate |",
        "|---|" + "---|" * (len(WAYS) + 1),
    ]
    for name, scene in patient["scenes"].items():
        values = " | ".join(f"{scene[way]['cldice']:.2f}" for way in WAYS)
        lines.append(f"| {name} | {values} | {scene['gate']['refused']:.0%} |")
    return "\n".join(lines) + "\n"


def targets(report: dict[str, Any]) -> str:
    """What was aimed at, met or not."""
    lines = []
    for patient in report["patients"]:
        for way in ("adapted, segmenter", "adapted, truth"):
            one = patient["scenes"]["same projection"][way]
            met = one["cldice"] >= NEEDED_CLDICE and one["distance_mm"] <= NEEDED_MM
            lines.append(
                f"- {'met' if met else 'MISSED'}: phantom {patient['seed']}, {way}: clDice {one['cldice']:.3f} (needed >= {NEEDED_CLDICE}), "
                f"median distance {one['distance_mm']:.2f} mm (needed <= {NEEDED_MM:g})"
            )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main())
