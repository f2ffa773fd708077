"""A sheet of what was drawn in a real run, for a person to look at. It shows frames of a patient: never part of the project."""

from pathlib import Path

import cv2
import numpy as np

from bench.patient_real_probe import Draw
from bench.patient_real_run import RealRun

FRAMES = 4
RED, GREEN = (0, 0, 255), (0, 255, 0)
SCENES = (
    "removed",
    "removed, and mirrored",
    "free",
    "free, moved to its pose",
    "free, mended along own",
    "free, mended along mirrored",
)


def write_sheet(folder: Path, run: RealRun, scenes: dict[str, np.ndarray], draws: dict[str, Draw]) -> None:
    """Held-out frames of a run and each model on each scene: drawn red, the source's vessels of that moment green.

    Raises:
        OSError: The folder cannot be written.
    """
    chosen = np.linspace(0, len(run.held) - 1, min(FRAMES, len(run.held))).round().astype(int)
    truth = run.source[run.held]
    lines = [_line("as recorded", run.grey[run.held][chosen], truth[chosen], None)]
    for scene in SCENES:
        lines.append(_line(scene, scenes[scene][chosen], None, None))
        for name, draw in draws.items():
            found = draw(scenes[scene][chosen]) & run.inner
            lines.append(_line(f"{scene}: {name}", scenes[scene][chosen], truth[chosen], found))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{run.name.replace('/', '-')}.png"
    if not cv2.imwrite(str(path), np.vstack(lines)):
        raise OSError(f"{path.name} could not be written")


def _line(words: str, frames: np.ndarray, truth: np.ndarray | None, found: np.ndarray | None) -> np.ndarray:
    shown = []
    for at, frame in enumerate(frames):
        picture = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
        for masks, colour in ((truth, GREEN), (found, RED)):
            if masks is not None:
                outlines, _ = cv2.findContours(
                    masks[at].astype(np.uint8), cv2.RETR_LIST, cv2.CHAIN_APPROX_NONE
                )
                cv2.drawContours(picture, outlines, -1, colour, 1)
        shown.append(picture)
    line = np.hstack(shown)
    cv2.putText(line, words, (6, 14), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0, 255, 255), 1)
    return line
