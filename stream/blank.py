"""Regions of burned-in text that the source process makes black, so that no process after it ever sees them."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from stream.frame import FrameFormat, Photometric


@dataclass(frozen=True)
class Blank:
    """Regions of burned-in text that no frame shows, for frames of one size."""

    rows: int
    columns: int
    boxes: tuple[tuple[int, int, int, int], ...]
    """Top, left, bottom, right in pixels; bottom and right are the first outside."""

    def __post_init__(self) -> None:
        for box in self.boxes:
            top, left, bottom, right = box
            if not (0 <= top < bottom <= self.rows and 0 <= left < right <= self.columns):
                raise ValueError(
                    f"a burned-in region must lie in frames of {self.rows} x {self.columns}, got rows {top} to {bottom}, "
                    f"columns {left} to {right}; mend geometry.burned_in of the site's record, or calibrate again"
                )

    def as_json(self) -> dict[str, Any]:
        """For the source process's first packet."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, body: dict[str, Any]) -> "Blank":
        """The inverse of `as_json`."""
        boxes = tuple(
            (int(top), int(left), int(bottom), int(right)) for top, left, bottom, right in body["boxes"]
        )
        return cls(int(body["rows"]), int(body["columns"]), boxes)

    def fits(self, frame_format: FrameFormat) -> bool:
        """Whether frames have the size that the regions are for."""
        return (self.rows, self.columns) == (frame_format.rows, frame_format.columns)

    def write(self, live: np.ndarray, frame_format: FrameFormat) -> None:
        """Make the regions of a frame black in place; nothing is allocated.

        Args:
            live: (rows, columns) stored pixel values of a format that `fits`.
            frame_format: Its format; MONOCHROME1 shows its largest value black.
        """
        black = frame_format.max_value if frame_format.photometric is Photometric.MONOCHROME1 else 0
        for top, left, bottom, right in self.boxes:
            live[top:bottom, left:right] = black
