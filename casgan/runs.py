"""A run of an archive brought to training size, its field and its own grey levels."""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from calib.intensity import field_landmarks, landmark_table
from casgan.archive import Run
from casgan.errors import DataError
from casgan.field import collimated_field

FIELD_FRAMES = 9
"""Frames of a run, evenly over it, from which its field is found."""


@dataclass(frozen=True)
class LoadedRun:
    """A run at training size."""

    grey: UInt8[np.ndarray, "n h w"]
    field: Bool[np.ndarray, "h w"]


def load_run(run: Run, size: int) -> LoadedRun:
    """Read a run at training size, find its field and bring it to its own grey levels.

    The grey levels follow from the first frame alone, as they must in a live stream; see
    `calib.intensity.landmark_table`.

    Raises:
        DataError: A frame cannot be read, or the run's first frame is of one grey level.
    """
    largest = (1 << run.bits_stored) - 1
    scale = size / max(run.rows, run.columns)
    rows, columns = max(1, round(run.rows * scale)), max(1, round(run.columns * scale))
    how = cv2.INTER_AREA if scale < 1.0 else cv2.INTER_LINEAR
    # Sixteen bits keep what averaging adds to the stored ones.
    stored = np.empty((run.count, rows, columns), np.uint16)
    for index, picture in enumerate(run.pictures()):
        small = cv2.resize(picture.astype(np.float32), (columns, rows), interpolation=how)
        stored[index] = np.rint(small * (65535.0 / largest))
    some = stored[np.linspace(0, run.count - 1, min(run.count, FIELD_FRAMES)).round().astype(int)]
    upright = some.astype(np.float32)
    field = collimated_field(65535.0 - upright if run.inverted else upright)
    low, high = field_landmarks(stored[0], field)
    try:
        table, _ = landmark_table(
            low / 65535.0 * largest, high / 65535.0 * largest, run.bits_stored, run.inverted
        )
    except ValueError:
        raise DataError(
            f"{run.paths[0].name}: the first frame of run {run.name} must show something, got one grey level all over; "
            "remove the run"
        ) from None
    knots = np.linspace(0.0, 65535.0, len(table))
    every = np.rint(255.0 * np.interp(np.arange(65536), knots, table)).astype(np.uint8)
    top, left = (size - rows) // 2, (size - columns) // 2
    grey = np.zeros((run.count, size, size), np.uint8)
    grey[:, top : top + rows, left : left + columns] = every[stored]
    framed = np.zeros((size, size), bool)
    framed[top : top + rows, left : left + columns] = field
    return LoadedRun(grey, framed)
