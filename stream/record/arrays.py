"""A recording as arrays: everything that came, for numpy."""

import json
import os
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from stream.errors import RecordError
from stream.frame import Plane
from stream.record.segment import Segment


def write_arrays(out: Path, segment: Segment, progress: Callable[[], None]) -> list[Path]:
    """Write one .npz, frame by frame, without holding the recording in memory.

    Holds `live` (n, rows, columns), `synthetic` and `attention` (m, rows, columns) with `synthetic_frame` (m,), the place
    among the n of each; `sequence`, `publication`, `state`, `reason` (n,); `stamps_ns` (n, 6): due, grabbed, submitted,
    inferred, published, received, 0 where not passed; and `about`, JSON with the notice, the engine and the format.

    Args:
        out: The file.
        segment: The frames.
        progress: Called for each frame of each array.

    Raises:
        RecordError: The disk is full.
    """
    frame_format, drawn = segment.frame_format, segment.synthetic
    shape = (frame_format.rows, frame_format.columns)
    partial = out.with_name(out.name + ".partial")

    def planes(plane: Plane) -> Iterable[np.ndarray]:
        for place in drawn:
            yield segment.capture.frame(segment.first + place).message.planes[plane]

    try:
        with zipfile.ZipFile(partial, "w", zipfile.ZIP_STORED, allowZip64=True) as archive:
            live = (frame.message.live for frame in segment)
            _add(archive, "live", (len(segment), *shape), frame_format.dtype, live, progress)
            _add(
                archive,
                "synthetic",
                (len(drawn), *shape),
                frame_format.dtype,
                planes(Plane.SYNTHETIC),
                progress,
            )
            _add(
                archive,
                "attention",
                (len(drawn), *shape),
                np.dtype(np.uint8),
                planes(Plane.ATTENTION),
                progress,
            )
            said = np.array(json.dumps(about(segment)))
            for name, values in {**_of_each(segment), "about": said}.items():
                with archive.open(f"{name}.npy", "w") as member:
                    np.lib.format.write_array(member, values, allow_pickle=False)
        os.replace(partial, out)
    except OSError as error:
        partial.unlink(missing_ok=True)
        raise RecordError(f"needed to write {out}, got: {error.strerror}; free some space") from error
    return [out]


def about(segment: Segment) -> dict[str, Any]:
    """What a recording is, for its JSON."""
    frame_format, spacing = segment.frame_format, segment.spacing
    return {
        "schema": "contrastream.recording/1",
        "notice": "Vessels in it are synthetic. Research tool, not a medical device.",
        "begun": segment.capture.begun,
        "cut_off": segment.capture.cut_off,
        "frames": len(segment),
        "synthetic_frames": len(segment.synthetic),
        "lost": segment.lost,
        "not_live": segment.stops,
        "rows": frame_format.rows,
        "columns": frame_format.columns,
        "bits_stored": frame_format.bits_stored,
        "photometric": frame_format.photometric.name,
        "rate_hz": segment.rate_hz,
        "spacing_mm": None
        if spacing is None
        else [spacing.row_mm, spacing.column_mm, spacing.place.name.lower()],
        "burned_in_text_may_show": segment.unmasked_text,
        "engines": segment.engines,
        "adaptations": segment.adaptations,
        "engine_by_minute": segment.engine_by_minute,
    }


def _of_each(segment: Segment) -> dict[str, np.ndarray]:
    headers = segment.headers
    received = [frame.received_ns for frame in segment]
    return {
        "synthetic_frame": np.array(segment.synthetic, np.int64),
        "sequence": np.array([header.sequence for header in headers], np.uint64),
        "publication": np.array([header.publication for header in headers], np.uint64),
        "state": np.array([header.state for header in headers], np.uint8),
        "reason": np.array([header.reason for header in headers], np.uint8),
        "stamps_ns": np.array(
            [(*header.stamps_ns, came) for header, came in zip(headers, received, strict=True)], np.uint64
        ),
    }


def _add(
    archive: zipfile.ZipFile,
    name: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    planes: Iterable[np.ndarray],
    progress: Callable[[], None],
) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
        said = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_2_0(member, said)
        for plane in planes:
            member.write(np.ascontiguousarray(plane).data)
            progress()
