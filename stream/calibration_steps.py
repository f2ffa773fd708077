"""The calibration's steps on one site's frames: what each needs of those before it, and its plot."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from calib.config import SiteConfig
from calib.errors import CalibrationError
from calib.field import field_mask
from calib.record import SiteRecord
from calib.results import GeometryResult, StepResult
from stream.calibration_frames import SiteFrames
from stream.frame import Photometric

if TYPE_CHECKING:
    from engines.model import ModelFile

VALUES_SHOWN = 200_000
"""Pixels that a histogram is drawn from."""


@dataclass(frozen=True)
class Measured:
    """What a step found."""

    result: StepResult
    picture: bytes | None = None
    """Its plot, a PNG."""


class Walk:
    """One site's steps.

    Args:
        config: What was asked.
        frames: What was read.
        model: What the record is for.
    """

    def __init__(self, config: SiteConfig, frames: SiteFrames, model: "ModelFile") -> None:
        self.config = config
        self.frames = frames
        self.model = model
        self._take: dict[str, Callable[[SiteRecord], Measured]] = {
            "geometry": self._geometry,
            "intensity": self._intensity,
        }

    def take(self, name: str, record: SiteRecord) -> Measured:
        """Take a step.

        Args:
            name: Of `calib.record.STEPS`.
            record: What the steps before it found.

        Raises:
            CalibrationError: These frames do not allow it; the sentence says what would.
        """
        return self._take[name](record)

    def __enter__(self) -> "Walk":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Give back what the steps have opened."""

    @property
    def inverted(self) -> bool:
        """Whether the lowest stored value is white, as the source says."""
        return self.frames.frame_format.photometric is Photometric.MONOCHROME1

    @cached_property
    def mean(self) -> np.ndarray:
        """(rows, columns) float32 mean of all frames."""
        total = np.zeros(self.frames.frames.shape[1:], np.float64)
        for frame in self.frames.frames:
            total += frame
        return (total / len(self.frames.frames)).astype(np.float32)

    def geometry_of(self, record: SiteRecord) -> GeometryResult:
        """The record's geometry; measured anew where it has none that may be used."""
        if record.geometry is not None and record.geometry.passed:
            return record.geometry
        return self._measured_geometry

    def field_of(self, record: SiteRecord) -> np.ndarray:
        """(rows, columns) bool, True where the frames are measured."""
        frame_format = self.frames.frame_format
        return field_mask(self.geometry_of(record), frame_format.rows, frame_format.columns) > 0

    # The steps ------------------------------------------------------------------------------------------------

    @cached_property
    def _measured_geometry(self) -> GeometryResult:
        from calib.geometry import measure_geometry

        return measure_geometry(
            self.frames.frames,
            self.frames.frame_format.bits_stored,
            inverted=self.inverted,
            spacing=self.frames.spacing,
        )

    def _geometry(self, record: SiteRecord) -> Measured:
        from stream.calibration_plots import plot_geometry

        result = self._measured_geometry
        return Measured(result, plot_geometry(result, self.mean, inverted=self.inverted))

    def _intensity(self, record: SiteRecord) -> Measured:
        raise CalibrationError("to come")

    def _values(self, field: np.ndarray) -> np.ndarray:
        """Stored values inside the field, thinned."""
        frames = self.frames.frames
        step = max(1, len(frames) * int(field.sum()) // VALUES_SHOWN)
        every = max(1, len(frames) // 16)
        values = np.concatenate([frame[field] for frame in frames[::every]])
        thin: Any = values[:: max(1, step // every)]
        return np.asarray(thin)
