"""Which frames of a run are contrast-free and which are filled, told by vessel area, and what a person says of it.

Every decision is written to a table, one row a frame; a person may change its `domain` column and give the
table back.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from casgan.errors import DataError

PLAIN, FILLED, NEITHER = "plain", "filled", "neither"
DOMAINS = (PLAIN, FILLED, NEITHER)
COLUMNS = ("patient", "run", "frame", "vessel_area", "domain", "why")

PLAIN_GROWTH = 1.25
PLAIN_SLACK = 0.002
"""A frame stays contrast-free while its vessel area is below 1.25 times the first frame's plus 0.2 % of the picture."""
PLAIN_RISE = 0.15
"""And while it has not risen by more than this share of the run's whole rise, where that is less."""
PLAIN_AHEAD = 4
"""Contrast-free frames end this many frames before the first filled one: contrast comes before it is segmented."""
PLAIN_FRAMES = 4
"""And are at most the first 4 of a run: frames after them were seen to show contrast that no area told."""
PLAIN_MOST = 0.02
PLAIN_SHARE = 0.25
"""A first frame with more vessel area than 2 % of the picture and a quarter of the run's largest shows vessels; a
catheter alone was seen to have up to 1.5 %."""
FILLED_SHARE = 0.6
"""Filled is above this share of the run's largest area."""
FILLED_RISE = 0.01
"""And above the first frame by this share of the picture at least, and by half."""


LINE_PX = 11 / 128
"""Width of the widest dark line that `dark_line_area` looks for, as a share of the picture's side."""
LINE_DEPTH = 13
"""And how much darker than its surroundings it must be, in grey levels of 255."""


@dataclass(frozen=True)
class Decision:
    """What one frame is taken for, and why."""

    patient: str
    run: str
    frame: int
    vessel_area: float | None
    """Share of the picture that the segmenter takes for vessels; None where nobody asked it."""
    domain: str
    """"plain", "filled" or "neither"."""
    why: str


def decide(patient: str, run: str, areas: Float[np.ndarray, " n"]) -> list[Decision]:
    """Tell the frames of one run apart by vessel area, our choice.

    A run whose first frame already shows vessels gives no contrast-free frame. A run that never fills clearly
    gives none of either kind: it may be fluoroscopy without contrast medium, but a poor segmenter sees every
    run so, and filled frames taken for contrast-free ones would poison the teaching. A person can say so.

    Args:
        patient: Whose run.
        run: Its name.
        areas: Vessel area of its frames in order, 0 to 1.
    """
    first, largest = float(areas[0]), float(areas.max())
    fills = largest >= first + FILLED_RISE and largest >= 1.5 * first
    plain_limit = min(PLAIN_GROWTH * first + PLAIN_SLACK, first + PLAIN_RISE * (largest - first))
    filled_limit = max(FILLED_SHARE * largest, first + FILLED_RISE, 1.5 * first)
    is_filled = (areas >= filled_limit) & fills
    end = min(PLAIN_FRAMES, max(1, int(is_filled.argmax()) - PLAIN_AHEAD + 1))
    decisions = []
    bare = first <= max(PLAIN_MOST, PLAIN_SHARE * largest)
    still_plain = fills and bare
    for frame, area in enumerate(areas):
        still_plain = still_plain and frame < end and float(area) <= plain_limit
        if is_filled[frame]:
            domain, why = FILLED, f"area at or above {filled_limit:.4f}"
        elif still_plain:
            domain, why = PLAIN, "first frame" if frame == 0 else f"area still at or below {plain_limit:.4f}"
        elif not fills:
            domain, why = NEITHER, "the run never fills clearly; say plain or filled in an override file"
        elif not bare:
            domain, why = NEITHER, f"first frame already has {first:.4f} of vessels"
        else:
            domain, why = NEITHER, "between contrast-free and filled"
        decisions.append(Decision(patient, run, frame, float(area), domain, why))
    return decisions


def dark_line_area(pictures: UInt8[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Share of each picture that is a narrow dark line: a vessel area that needs no network.

    Our choice, for archives on which no segmenter was taught: what a closing fills by more than 13 grey levels,
    less a margin at the border. Catheters, clips and edges of the spine count too, so only changes over a run
    mean anything.
    """
    rows, columns = pictures.shape[1:]
    width = max(3, round(LINE_PX * min(rows, columns)) | 1)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
    margin = max(1, min(rows, columns) // 16)
    shares = []
    for picture in pictures.numpy():
        smooth = cv2.GaussianBlur(picture, (0, 0), min(rows, columns) / 128)
        depth = cv2.morphologyEx(smooth, cv2.MORPH_BLACKHAT, kernel)
        shares.append(float((depth[margin:-margin, margin:-margin] > LINE_DEPTH).mean()))
    return torch.tensor(shares)


def write_decisions(path: Path, decisions: Iterable[Decision]) -> None:
    """Write the table of decisions, CSV with a header."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for each in decisions:
            area = "" if each.vessel_area is None else f"{each.vessel_area:.5f}"
            writer.writerow((each.patient, each.run, each.frame, area, each.domain, each.why))


def read_overrides(path: Path, frame_counts: Mapping[tuple[str, str], int]) -> dict[tuple[str, int], str]:
    """Read what a person says: a table of decisions, whole or in part, with the domains changed.

    Args:
        path: CSV with at least the columns patient, run, frame and domain; an empty frame names the whole run.
        frame_counts: Frames of each (patient, run) that there is.

    Returns:
        The domain of (run, frame).

    Raises:
        DataError: Not readable, or a row that names an unknown run, frame or domain, by its line number.
    """
    found: dict[tuple[str, int], str] = {}
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            missing = [
                name
                for name in ("patient", "run", "frame", "domain")
                if name not in (reader.fieldnames or [])
            ]
            if missing:
                raise DataError(
                    f"{path.name}: needed the columns patient, run, frame and domain, {missing[0]} is missing; start "
                    "from the domains.csv that was written"
                )
            for row in reader:
                where = f"{path.name}, line {reader.line_num}"
                values = {name: (row[name] or "").strip() for name in ("patient", "run", "frame", "domain")}
                run, domain = values["run"], values["domain"]
                count = frame_counts.get((values["patient"], run))
                if count is None:
                    raise DataError(
                        f"{where}: patient {values['patient']!r}, run {run!r} is not in the folder; give names as "
                        "domains.csv has them"
                    )
                if domain not in DOMAINS:
                    raise DataError(f"{where}: domain must be one of {', '.join(DOMAINS)}, got {domain!r}")
                for frame in _frames_of(values["frame"], count, where):
                    found[run, frame] = domain
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        what = error.strerror if isinstance(error, OSError) else "it is no text table in UTF-8"
        raise DataError(f"{path}: the override file cannot be read: {what}") from None
    return found


def _frames_of(text: str, count: int, where: str) -> Iterable[int]:
    if not text:
        return range(count)
    if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) < count):
        raise DataError(f"{where}: frame must be 0 to {count - 1}, or empty for the whole run, got {text!r}")
    return (int(text),)


def overridden(decisions: Iterable[Decision], overrides: Mapping[tuple[str, int], str]) -> list[Decision]:
    """The decisions with a person's own in place of those they change."""
    changed = []
    for each in decisions:
        domain = overrides.get((each.run, each.frame), each.domain)
        if domain != each.domain:
            each = Decision(each.patient, each.run, each.frame, each.vessel_area, domain, "override")
        changed.append(each)
    return changed
