"""A command's settings as its report may say them: without the name or the path of any file, which may be a patient's."""

import dataclasses
from pathlib import Path
from typing import Any

from stream.config import ReplayConfig, RunConfig

RECORDING = "recording"
FILE = "file"
ADDRESSES = ("rtsp", "tcp", "gst", "igtl")


def reported_source(source: str) -> str:
    """A source in words: what a user typed where that names no file, and of an address its kind alone, since it may hold a password."""
    if (scheme := source.partition(":")[0]) in ADDRESSES:
        return scheme
    return source if source == "phantom" or source.startswith(("v4l2:", "python:")) else RECORDING


def reported_model(model: str) -> str:
    """A shipped model's or a preset's name; `file` for a model's file, which its hash names elsewhere in the report."""
    return FILE if Path(model).name != model or Path(model).suffix else model


def reported(config: RunConfig | ReplayConfig) -> dict[str, Any]:
    """All settings, each file as the word `file` and a recording as `recording`; the engine's entry names the model by its hash."""
    settings = dataclasses.asdict(config)
    for name, value in settings.items():
        if isinstance(value, Path):
            settings[name] = FILE
    settings["source"] = reported_source(config.source)
    if isinstance(config, RunConfig):
        settings["more"] = [reported_source(source) for source in config.more]
    settings["model"] = reported_model(config.model)
    return settings
