"""Which frames of a run are contrast-free and which are filled, told by vessel area, and what a person says of it.

Every decision is written to a table, one row a frame; a person may change its `domain` column and give the
table back.
"""

import csv
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from calib.filling import FILLED, NEITHER, PLAIN, dark_line_share, tell_frames
from casgan.errors import DataError

DOMAINS = (PLAIN, FILLED, NEITHER)
COLUMNS = ("patient", "run", "frame", "vessel_area", "domain", "why")


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
    """Tell the frames of one run apart by vessel area, as `calib.filling.tell_frames` does.

    A run that never fills clearly gives none of either kind: filled frames taken for contrast-free ones would
    poison the teaching. A person can say so.

    Args:
        patient: Whose run.
        run: Its name.
        areas: Vessel area of its frames in order, 0 to 1.
    """
    return [
        Decision(patient, run, frame, float(areas[frame]), domain, why)
        for frame, (domain, why) in enumerate(tell_frames(areas))
    ]


def dark_line_area(pictures: UInt8[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Share of each picture that is a narrow dark line, `calib.filling.dark_line_share`, for archives on which no
    segmenter was taught."""
    return torch.tensor([dark_line_share(picture) for picture in pictures.numpy()])


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
