"""A site's record in the live path: does it fit what runs, and what of it goes to which process.

The guard reads and checks the record once; the source process gets the burned-in regions to blank, the engine process the
grey tables and the field. They get it with their first packet and not from the file, which may change meanwhile.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from calib.errors import CalibrationError
from calib.record import SiteRecord, SourceIdentity, differences, read_record
from calib.record_text import to_plain
from calib.results import GeometryResult, StepResult
from stream.blank import Blank
from stream.errors import SourceError
from stream.frame import FrameFormat
from stream.sources.options import SourceOptions


def identity_of(opened: dict[str, Any], frame_format: FrameFormat, options: SourceOptions) -> SourceIdentity:
    """Which source this is, for a record.

    Args:
        opened: What the source said when it opened: kind and device.
        frame_format: Of its frames.
        options: What was asked of it; another crop or luma range is another picture.
    """
    device = [str(opened.get("device") or "")]
    if options.crop is not None:
        device.append("crop {},{},{},{}".format(*options.crop))
    if options.luma != "auto":
        device.append(f"luma {options.luma}")
    return SourceIdentity(
        kind=str(opened["kind"]),
        rows=frame_format.rows,
        columns=frame_format.columns,
        bits_stored=frame_format.bits_stored,
        photometric=frame_format.photometric.name,
        device=", ".join(said for said in device if said),
    )


@dataclass(frozen=True)
class Site:
    """A record and the source it is used on."""

    record: SiteRecord
    options: SourceOptions
    """What is asked of the source."""

    def check(self, opened: dict[str, Any], frame_format: FrameFormat) -> None:
        """Refuse a source that the record is not for.

        Args:
            opened: What the source said when it opened.
            frame_format: Of its frames.

        Raises:
            SourceError: They differ; the sentence names in what.
        """
        try:
            self.record.check_fits(identity_of(opened, frame_format, self.options))
        except CalibrationError as error:
            raise SourceError(str(error)) from None

    def why_not(self, frame_format: FrameFormat) -> str | None:
        """Why the record is not for frames of this format, into which a source has changed; None where it is."""
        source = self.record.source
        got = dataclasses.replace(
            source,
            rows=frame_format.rows,
            columns=frame_format.columns,
            bits_stored=frame_format.bits_stored,
            photometric=frame_format.photometric.name,
        )
        said = differences(source, got)
        return f"the site's record needs {'; '.join(said)}" if said else None

    @property
    def unused(self) -> tuple[str, ...]:
        """What of the record is not used since it did not pass or was not run, a sentence each."""
        said = []
        for name, instead in (
            ("geometry", "vessels may be drawn on the whole frame, and burned-in text is not masked"),
            ("intensity", "the grey levels are the default ones"),
            ("domain", "frames are judged by those the model was taught on, not by this site's"),
        ):
            result: StepResult | None = getattr(self.record, name)
            if result is None:
                said.append(f"The site's record has no {name} step: {instead}.")
            elif not result.passed:
                said.append(f"The site's {name} step did not pass and is not used: {instead}.")
        precision = self.record.precision
        if precision is not None and not precision.passed:
            said.append(
                f"The site's precision step did not pass: {precision.chosen} differs from the fp32 reference by more than is "
                "allowed on this site's frames, and runs all the same."
            )
        return tuple(said)

    def as_facts(self) -> dict[str, Any]:
        """For a report: which record was used, and what of it."""
        return {
            "created": self.record.created,
            "version": self.record.version,
            "passed": {name: result.passed for name, result in self.record.steps.items()},
            "unused": list(self.unused),
        }

    @property
    def geometry(self) -> GeometryResult | None:
        """The geometry, where it may be used."""
        result = self.record.geometry
        return result if result is not None and result.passed else None

    @property
    def int8_frames_sha256(self) -> str:
        """Which int8 of the model the site's frames have accepted; empty where none was."""
        precision = self.record.precision
        return precision.int8_frames_sha256 if precision is not None and precision.passed else ""

    @property
    def precision(self) -> str:
        """What OpenVINO is to run in by the site's frames: `int8` or `f32`; empty for what suits the machine."""
        found = self.record.precision
        if found is None or not found.passed:
            return ""
        refused = any(
            each.backend == "openvino" and each.precision == "bf16" and not each.passed
            for each in found.engines
        )
        return "int8" if self.int8_frames_sha256 else "f32" if found.chosen == "f32" and refused else ""

    @property
    def blank(self) -> Blank | None:
        """What no frame may show; None where nobody has looked for it."""
        if self.geometry is None:
            return None
        boxes = tuple((box.top, box.left, box.bottom, box.right) for box in self.geometry.burned_in)
        return Blank(self.geometry.rows, self.geometry.columns, boxes)

    @property
    def blank_json(self) -> dict[str, Any] | None:
        """`blank` for the source process's first packet."""
        return None if self.blank is None else self.blank.as_json()

    def engine_settings(self) -> dict[str, Any]:
        """What the engine process needs, for its first packet: see `apply`."""
        intensity, domain = self.record.intensity, self.record.domain
        usable = intensity is not None and intensity.passed
        return {
            "model_sha256": self.record.model.sha256,
            "intensity": to_plain(intensity) if usable else None,
            "geometry": None if self.geometry is None else to_plain(self.geometry),
            "precision": self.precision,
            "int8_frames_sha256": self.int8_frames_sha256,
            "domain": to_plain(domain) if domain is not None and domain.passed else None,
        }


def open_site(path: Path | None, options: SourceOptions, *, model: str | None) -> Site | None:
    """Read a site's record for a run; None where none was given.

    Args:
        path: The record.
        options: What is asked of the source.
        model: The model that will run; None where none will.

    Raises:
        CalibrationError: No record, or one for another model.
        EngineError: There is no such model.
    """
    if path is None:
        return None
    record = read_record(path)
    if model is not None:
        from engines.model import load_model

        record.check_fits(model_sha256=load_model(model).card.sha256)
    return Site(record, options)
