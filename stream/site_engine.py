"""What a site's record sets in an engine: grey tables and the field. Runs in the engine's process, never in the guard's."""

from typing import TYPE_CHECKING, Any

import numpy as np

from stream.frame import FrameFormat, Photometric

if TYPE_CHECKING:
    from engines.engine import Engine, Precision


def set_up(
    engine: "Engine",
    frame_format: FrameFormat,
    site: dict[str, Any] | None,
    *,
    model_sha256: str | None = None,
) -> None:
    """Give an engine its grey tables and its field.

    Args:
        engine: Open, for frames of this format.
        frame_format: Of the frames.
        site: `stream.site.Site.engine_settings`; None for the default grey levels on the whole frame.
        model_sha256: The model that the record must be for: the general one of an adapted engine; None for the engine's own.

    Raises:
        CalibrationError: The record is for another model.
        ValueError: The settings do not fit the frames.
    """
    from calib.domain_site import site_domain
    from calib.errors import CalibrationError
    from calib.field import field_mask
    from calib.record_text import from_plain
    from calib.results import DomainResult, GeometryResult

    whose = model_sha256 or engine.model_sha256
    if site is not None and site["model_sha256"] != whose:
        raise CalibrationError(
            f"the site's record is for model {site['model_sha256'][:12]}, got {whose[:12]}; calibrate this one"
        )
    engine.set_grey_table(*grey_tables(frame_format, None if site is None else site["intensity"]))
    if site is not None and site["domain"] is not None and engine.domain is not None:
        engine.set_domain(site_domain(engine.domain.taught, from_plain(DomainResult, site["domain"])))
    if site is not None and site["geometry"] is not None:
        geometry = from_plain(GeometryResult, site["geometry"])
        engine.set_field(field_mask(geometry, frame_format.rows, frame_format.columns))


def precision_for(backend: str, site: dict[str, Any] | None) -> tuple["Precision | None", str]:
    """What the site's frames want OpenVINO to run in, where it will run anyway.

    Args:
        backend: What was asked for.
        site: `stream.site.Site.engine_settings`; None without a record.

    Returns:
        The precision, None for the runtime's usual one; and for int8 the hash of the frames it was calibrated on, else
        nothing.
    """
    from engines.engine import AUTO_ORDER
    from engines.open import probe

    wanted = "" if site is None else str(site["precision"])
    if site is None or not wanted or backend not in ("auto", "openvino"):
        return None, ""
    # A record of the CPU must not keep a GPU idle that has come since.
    first = backend if backend != "auto" else next((name for name in AUTO_ORDER if probe(name)[0]), "")
    if first != "openvino":
        return None, ""
    return ("int8", str(site["int8_frames_sha256"])) if wanted == "int8" else ("f32", "")


def grey_tables(frame_format: FrameFormat, intensity: dict[str, Any] | None) -> tuple[np.ndarray, np.ndarray]:
    """Table and inverse, (256,) float32 each: the site's, or those of the stored range and its window.

    Args:
        frame_format: Of the frames.
        intensity: An `IntensityResult` as plain values; None where the site has none.

    Raises:
        ValueError: The result is broken, or for other bits stored.
    """
    from calib.intensity import default_tables
    from calib.record_text import from_plain
    from calib.results import IntensityResult

    if intensity is not None:
        result = from_plain(IntensityResult, intensity)
        if result.bits_stored != frame_format.bits_stored:
            raise ValueError(
                f"the site's grey table is for {result.bits_stored} bits stored, got {frame_format.bits_stored}"
            )
        return np.array(result.table, np.float32), np.array(result.inverse, np.float32)
    window = None
    if frame_format.window_center is not None and frame_format.window_width is not None:
        window = (frame_format.window_center, frame_format.window_width)
    return default_tables(
        frame_format.bits_stored,
        inverted=frame_format.photometric is Photometric.MONOCHROME1,
        window=window,
    )
