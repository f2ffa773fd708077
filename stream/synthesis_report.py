"""What a synthesis says of itself: synthesis.json and the lines at the end. Nothing of a patient is in it."""

import importlib.metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stream.config import SynthesizeConfig
from stream.frame import Reason
from stream.recording import Recording
from stream.statusline import engine_text, passed_over
from stream.synthesis import DICOM_FILES, REPORT
from stream.timing import NS_PER_MS

if TYPE_CHECKING:
    from engines.engine import FrameStatistics, Opened

NOTICE = "Research use only. Not a medical device."
SAID = {
    Reason.NONE: f"SYNTHETIC: vessels drawn by a neural network, not measured. {NOTICE}",
    Reason.UNTAUGHT: f"UNTAUGHT: drawn by a network with random weights, to measure it. {NOTICE}",
    Reason.OUTPUT_INVALID: f"LIVE: the network's output was not finite. {NOTICE}",
}
"""What a frame's file says of itself."""
# Neither the source's nor the output's path: a site may name them after a patient.
SETTINGS = (
    "engine", "threads", "untaught", "frames", "rate", "crop", "gray", "size", "bits", "seed", "contrast", "film", "dicom",
)  # fmt: skip


def synthetic_folder(taught: bool) -> str:
    """Where the frames go: an untaught network's are never called synthetic."""
    return "synthetic" if taught else "untaught"


def first_facts(
    config: SynthesizeConfig, recording: Recording, opened: "Opened", inference_ns: int
) -> dict[str, Any]:
    """What is known before the first frame.

    Args:
        config: What was asked.
        recording: Open.
        opened: The engine.
        inference_ns: Median time of one inference, alone.
    """
    from engines.untaught import find_model

    engine, frame_format = opened.engine, recording.format
    file = find_model(config.model, untaught=config.untaught)
    window = (frame_format.window_center, frame_format.window_width)
    return {
        "notice": SAID[Reason.NONE if engine.taught else Reason.UNTAUGHT],
        "version": importlib.metadata.version("contrastream"),
        "source": {
            "kind": recording.kind,
            "frames": recording.frame_count,
            "rate_hz": recording.rate_hz,
            "rows": frame_format.rows,
            "columns": frame_format.columns,
            "bits_stored": frame_format.bits_stored,
            "photometric": frame_format.photometric.name,
            "window": None if None in window else list(window),
            "notes": list(recording.notes),
        },
        "model": {
            "name": file.said_name,
            "sha256": engine.model_sha256,
            "preset": file.card.preset,
            "taught": engine.taught,
            "licence": file.card.licence,
        },
        "engine": {
            "backend": engine.backend,
            "precision": engine.precision,
            "model_sha256": engine.model_sha256,
            "skipped": [list(pair) for pair in opened.skipped],
            "inference_ms": round(inference_ns / NS_PER_MS, 3),
        },
        "settings": {name: getattr(config, name) for name in SETTINGS},
        "files": _files(config, engine.taught),
    }


def _files(config: SynthesizeConfig, taught: bool) -> dict[str, str]:
    if config.dicom:
        return {
            **dict(zip(("live", "synthetic", "attention"), DICOM_FILES, strict=True)),
            "values": "stored pixel values as in the recording, MONOCHROME1 turned to MONOCHROME2",
        }
    return {
        "synthetic": synthetic_folder(taught),
        "attention": "attention",
        "values": "stored pixel values as in the recording: bits_stored bits in PNGs of 8 or 16, not scaled",
    }


def frame_facts(index: int, said: "FrameStatistics", folder: str) -> dict[str, Any]:
    """What the report says of one frame; JSON has no NaN."""
    finite = said.finite
    return {
        "frame": index,
        "written": folder if finite else "live",
        "finite": finite,
        "area": round(said.area, 6) if finite else None,
        "mean": round(said.mean, 6) if finite else None,
        "maximum": round(said.maximum, 6) if finite else None,
    }


def report(
    facts: dict[str, Any], frames: list[dict[str, Any]], *, seconds: float, complete: bool
) -> dict[str, Any]:
    """What synthesis.json holds.

    Args:
        facts: Of `first_facts`.
        frames: Of `frame_facts`, those whose files are whole.
        seconds: Since the first frame was asked for.
        complete: The recording's end, or that of --frames, was reached.
    """
    areas = [frame["area"] for frame in frames if frame["finite"]]
    return {
        **facts,
        "complete": complete,
        "counts": {
            "frames": len(frames),
            "synthetic": len(areas),
            "live_because_not_finite": len(frames) - len(areas),
        },
        "area": {
            "min": min(areas, default=None),
            "mean": round(sum(areas) / len(areas), 6) if areas else None,
            "max": max(areas, default=None),
        },
        "seconds": round(seconds, 3),
        "frames_per_s": round(len(frames) / seconds, 2) if seconds and frames else None,
        "frames": frames,
    }


def format_report(said: dict[str, Any], folder: Path) -> str:
    """What was done, for a person."""
    counts, engine, area = said["counts"], said["engine"], said["area"]
    kept = synthetic_folder(said["model"]["taught"])
    pictures = DICOM_FILES if said["settings"]["dicom"] else (f"{kept}/", "attention/")
    drawn = (
        f"A above 0 on {100 * area['mean']:.1f} % of the picture, {100 * area['min']:.1f} to {100 * area['max']:.1f} %"
        if area["mean"] is not None
        else "nothing"
    )
    files = [name for name in ("preview.mp4", "preview.png", REPORT) if (folder / name).exists()]
    return "\n".join(
        [
            f"frames   {counts['frames']} of {said['source']['frames']}: {counts['synthetic']} {kept.upper()}, "
            f"{counts['live_because_not_finite']} written as live since the output was not finite",
            f"drawn    {drawn}",
            f"engine   {engine_text(engine)}, one inference {engine['inference_ms']:.1f} ms; "
            f"{said['frames_per_s'] or 0.0:.1f} frames/s with reading and writing",
            f"         passed over: {passed_over(engine['skipped'])}",
            f"written  {folder}: {', '.join([*pictures, *files])}",
            "Research tool, not a medical device.",
        ]
    )


def progress_bar(progress: dict[str, Any]) -> str:
    """The progress line: a bar, frames per second, time left, and how much is drawn."""
    done, total, seconds = progress["done"], max(progress["total"], 1), progress["seconds"]
    filled = 24 * done // total
    rate = done / seconds if seconds > 0 else 0.0
    left = f"{(total - done) / rate:.0f} s left" if rate > 0 else "starting"
    return (
        f"[{'#' * filled}{'.' * (24 - filled)}] {done}/{total} frames  {rate:.1f} frames/s  {left}  "
        f"drawn on {100 * progress['area']:.1f} %"
    )
