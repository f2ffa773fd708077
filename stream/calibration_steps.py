"""The calibration's steps on one site's frames: what each needs of those before it, and its plot."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from calib.config import CalibGeometryConfig, MeasuredConfig, PicturedConfig, parse_box
from calib.errors import CalibrationError
from calib.field import field_mask
from calib.record import SiteRecord
from calib.record_text import to_plain
from calib.results import Box, GeometryResult, PixelSpacing, PrecisionResult, StepResult
from stream.calibration_frames import SiteFrames
from stream.frame import Photometric

if TYPE_CHECKING:
    from calib.precision import WorstFrame
    from engines.engine import EngineSpec
    from engines.model import ModelFile
    from engines.planes import Settings

SAYS_PHOTOMETRIC = ("cine", "phantom")
"""Kinds of source that say whether the lowest stored value is black; the others only deliver a picture."""
FIELD_FRAMES = 8
"""Frames of a run that its field is sought in."""
VALUES_SHOWN = 200_000
"""Pixels that a histogram is drawn from."""


@dataclass(frozen=True)
class Measured:
    """What a step found."""

    result: StepResult
    picture: bytes | None = None
    """Its plot, a PNG."""
    worst_frame: bytes | None = None
    """A PNG that may show a frame of the site; see `stream/calibration_worst.py`."""


class Walk:
    """One site's steps.

    Args:
        config: What was asked.
        frames: What was read.
        model: What the record is for.
    """

    def __init__(self, config: MeasuredConfig, frames: SiteFrames, model: "ModelFile") -> None:
        self.config = config
        self.frames = frames
        self.model = model
        self._take: dict[str, Callable[[SiteRecord], Measured]] = {
            "geometry": self._geometry,
            "intensity": self._intensity,
            "domain": self._domain,
            "precision": self._precision,
            "phantom": self._phantom,
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

    def field_of(self, record: SiteRecord) -> np.ndarray:
        """(rows, columns) uint8, 255 where the frames are measured."""
        rows, columns = self.frames.frames.shape[1:]
        if record.geometry is not None:
            return field_mask(record.geometry, rows, columns)
        return self._found_field

    @cached_property
    def _found_field(self) -> np.ndarray:
        """The field where no step has recorded one; the frames of each run have to be inside it."""
        from casgan.field import collimated_field

        inside = np.ones(self.frames.frames.shape[1:], bool)
        for run in np.unique(self.frames.runs):
            frames = self.frames.frames[self.frames.runs == run]
            inside &= collimated_field(frames[:: max(1, len(frames) // FIELD_FRAMES)].astype(np.float32))
        return np.where(inside, np.uint8(255), np.uint8(0))

    def settings_of(self, record: SiteRecord) -> "Settings":
        """Grey levels and field as an engine will have them with this record."""
        from engines.planes import Settings
        from stream.site_engine import grey_tables

        intensity = record.intensity if record.intensity is not None and record.intensity.passed else None
        tables = grey_tables(self.frames.frame_format, None if intensity is None else to_plain(intensity))
        # What did not pass is not used, and without a field vessels are drawn on the whole frame.
        used = record.geometry is not None and record.geometry.passed
        return (
            Settings.default(self.spec)
            .with_tables(*tables)
            .with_field(self.field_of(record) if used else None)
        )

    @property
    def spec(self) -> "EngineSpec":
        """What an engine is opened for."""
        from engines.engine import EngineSpec

        frame_format = self.frames.frame_format
        return EngineSpec(frame_format.rows, frame_format.columns, frame_format.bits_stored)

    # The steps ------------------------------------------------------------------------------------------------

    def _geometry(self, record: SiteRecord) -> Measured:
        from calib.geometry import measure_geometry
        from calib.grid import with_spacing
        from calib.spacing import HeaderGeometry, header_spacing
        from stream.calibration_plots import plot_geometry

        frame_format = self.frames.frame_format
        spacing, says = header_spacing(
            HeaderGeometry(**self.frames.sizes),  # type: ignore[arg-type]  # read by these very names
            frame_format.rows,
            frame_format.columns,
        )
        result = measure_geometry(
            self.frames.frames,
            frame_format.bits_stored,
            inverted=self.inverted,
            spacing=spacing,
            spacing_says=says,
        )
        if isinstance(self.config, CalibGeometryConfig) and self.config.on_phantom:
            measured = self._on_phantom(self.config, result)
            if record.geometry is not None:
                # Field and text are the site's; these frames only show a phantom.
                return Measured(with_spacing(record.geometry, *measured))
            result = with_spacing(result, *measured)
        return Measured(result, plot_geometry(result, self.mean, inverted=self.inverted))

    def _on_phantom(
        self, config: CalibGeometryConfig, seen: GeometryResult
    ) -> tuple[PixelSpacing, tuple[str, ...]]:
        """A pixel's size on the grid or wedge that these frames show."""
        from calib.grid import MOST_SHIFT_PX, compared, shown_part, spacing_on_phantom

        if seen.table_shift_px > MOST_SHIFT_PX:
            raise CalibrationError(
                f"needed a grid or wedge that lies still, got frames that shift by {seen.table_shift_px:.1f} px "
                f"({MOST_SHIFT_PX:g} allowed); hold the table still and record again"
            )
        rows, columns = self.mean.shape
        if config.phantom_box is None:
            box = shown_part(field_mask(seen, rows, columns))
        else:
            left, top, width, height = parse_box(config.phantom_box)
            box = Box(left, top, left + width, top + height)
            if box.right > columns or box.bottom > rows:
                raise CalibrationError(
                    f"--phantom-box must lie inside the frames of {columns} columns x {rows} rows, got {config.phantom_box}; "
                    "give a smaller one"
                )
        at = "calibrated object" if config.phantom_at == "object" else config.phantom_at
        measured, says = spacing_on_phantom(
            self.mean[box.top : box.bottom, box.left : box.right],
            grid_mm=config.grid_mm,
            wedge_mm=config.wedge_mm,
            at=at,
        )
        return measured, says if seen.spacing is None else (*says, compared(measured, seen.spacing))

    def _intensity(self, record: SiteRecord) -> Measured:
        from calib.intensity_site import measure_intensity
        from stream.calibration_plots import plot_intensity

        field = self.field_of(record)
        result = measure_intensity(
            self.frames.frames,
            field,
            self.frames.frame_format.bits_stored,
            reference=self.model.card.reference_greys,
            runs=[int(run) for run in self.frames.runs],
            photometric_inverted=self.inverted if self.frames.source.kind in SAYS_PHOTOMETRIC else None,
            looks_filled=[False] * len(self.frames.frames) if self.config.contrast_free else None,
        )
        return Measured(result, plot_intensity(result, self._values(field > 0)))

    def _domain(self, record: SiteRecord) -> Measured:
        from calib.domain_site import measure_domain
        from engines.open import open_engine
        from stream.calibration_plots import plot_domain

        settings = self.settings_of(record)
        engine = open_engine(
            self.model.path, self.spec, self.config.engine, threads=self.config.threads
        ).engine
        with contextlib.closing(engine):
            if engine.domain is None:
                raise CalibrationError(
                    f"the domain needs a model that carries the statistics of the frames it was taught on, got "
                    f"{self.model.path.name} without them; run: python -m engines.taught_domain {self.model.path}"
                )
            engine.set_grey_table(settings.table, settings.inverse)
            engine.set_field(settings.field)
            slot = engine.slots(1)[0]
            frames = self.frames.frames
            synthetic, attention = np.empty_like(frames[0]), np.empty(frames[0].shape, np.uint8)

            def features(frame: np.ndarray) -> np.ndarray:
                slot.bind(np.ascontiguousarray(frame), synthetic, attention)
                slot.submit()
                return slot.wait().features

            result = measure_domain(
                ((str(run), frame) for run, frame in zip(self.frames.runs, frames, strict=True)),
                features,
                engine.domain.taught,
                max_value=self.frames.frame_format.max_value,
            )
        return Measured(result, plot_domain(result))

    def _phantom(self, record: SiteRecord) -> Measured:
        from calib.phantom_test import measure_phantom

        result, _ = measure_phantom()
        return Measured(result)

    def _precision(self, record: SiteRecord) -> Measured:
        from engines.site_precision import measure_site_precision
        from stream.calibration_plots import plot_precision

        backends = None if self.config.engine == "auto" else (self.config.engine,)
        result, worst = measure_site_precision(
            self.model.path,
            self.spec,
            list(self.frames.frames),
            settings=self.settings_of(record),
            backends=backends,
            threads=self.config.threads,
        )
        chosen = next((frame for name, frame in worst.items() if name.endswith(result.chosen)), None)
        apart = None
        if chosen is not None:
            to_grey = 255.0 / self.frames.frame_format.max_value
            apart = np.abs(chosen.expected.astype(np.float32) - chosen.drawn) * to_grey
        return Measured(result, plot_precision(result, apart), self._worst_frame(record, result, worst))

    def _worst_frame(
        self, record: SiteRecord, result: PrecisionResult, worst: dict[str, "WorstFrame"]
    ) -> bytes | None:
        """Each engine's worst frame, where it is wanted."""
        from stream.calibration_worst import plot_worst, worst_panels

        if not (isinstance(self.config, PicturedConfig) and self.config.worst_frame):
            return None
        readable = record.geometry is not None and record.geometry.passed
        field, largest = self.field_of(record), self.frames.frame_format.max_value
        rows = {
            name: worst_panels(frame, field, largest, inverted=self.inverted, readable=readable)
            for name, frame in worst.items()
        }
        return plot_worst(result.reference, rows, readable=readable)

    def _values(self, field: np.ndarray) -> np.ndarray:
        """Stored values inside the field, thinned."""
        frames = self.frames.frames
        step = max(1, len(frames) * int(field.sum()) // VALUES_SHOWN)
        every = max(1, len(frames) // 16)
        values = np.concatenate([frame[field] for frame in frames[::every]])
        thin: Any = values[:: max(1, step // every)]
        return np.asarray(thin)
