"""A training run on disk: weights, optimizer and step, with the configuration that made them."""

import dataclasses
import json
import os
import pickle
from pathlib import Path
from typing import Any

import torch

from casgan.config import TrainConfig
from casgan.errors import CheckpointError
from casgan.networks import Generator
from casgan.presets import PRESETS

NAME = "checkpoint.pt"


def save(folder: Path, config: TrainConfig, state: dict[str, Any]) -> Path:
    """Write a checkpoint; an interrupted write leaves the former one whole.

    Args:
        folder: Where to; made if needed.
        config: The run's settings, saved beside it as JSON too.
        state: Tensors, numbers and strings in dicts and lists.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = json.dumps(dataclasses.asdict(config), indent=2)
    (folder / "config.json").write_text(settings + "\n", encoding="utf-8")
    path = folder / NAME
    fresh = path.with_suffix(".new")
    torch.save({**state, "config": settings}, fresh)
    os.replace(fresh, path)
    return path


def load(folder: Path) -> tuple[TrainConfig, dict[str, Any]]:
    """Read a checkpoint; only tensors and plain values are unpickled.

    Raises:
        CheckpointError: Missing, not a checkpoint, or of other settings than this version knows.
    """
    path = folder / NAME
    if not path.is_file():
        raise CheckpointError(f"needed a checkpoint, found none at {path}; train first")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        config = TrainConfig(**json.loads(state["config"]))
    except (
        OSError,
        RuntimeError,
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        TypeError,
        ValueError,
    ) as error:
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} must be a checkpoint of this version, got: {reason}; train anew"
        ) from error
    return config, state


def taught_network(folder: Path) -> tuple[Generator, TrainConfig, dict[str, Any]]:
    """The averaged weights of a run, ready to export; with its settings and what it says of itself."""
    config, state = load(folder)
    network = Generator(PRESETS[config.preset])
    network.load_state_dict(state["average"])
    facts = {name: state[name] for name in ("step", "data_sha256", "seconds")}
    return network.eval(), config, facts
