"""A training run on disk: weights, optimizers and step, with the configuration that made them."""

import contextlib
import dataclasses
import io
import json
import os
from pathlib import Path
from typing import Any

import torch

from casgan.config import TrainConfig, differences
from casgan.errors import CheckpointError
from casgan.methods.names import title_of
from casgan.networks import LivePath

NAME = "checkpoint.pt"


def save(folder: Path, config: TrainConfig, state: dict[str, Any]) -> Path:
    """Write a checkpoint; whatever interrupts it, the former one stays whole.

    Args:
        folder: Where to; made if needed.
        config: The run's settings, saved beside it as JSON too.
        state: Tensors, numbers and strings in dicts and lists.

    Raises:
        CheckpointError: The disk does not take it.
    """
    settings = json.dumps(dataclasses.asdict(config), indent=2)
    # In memory first: torch reports a full disk as an error of its own, without saying so.
    content = io.BytesIO()
    torch.save({**state, "config": settings}, content)
    path = folder / NAME
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _replace(folder / "config.json", (settings + "\n").encode())
        _replace(path, content.getbuffer())
    except OSError as error:
        kept = "the one before it is whole" if path.is_file() else "there is none before it"
        raise CheckpointError(
            f"{path} needed {len(content.getbuffer()) / 1e6:.1f} MB, could not be written: {error.strerror}; {kept}; "
            f"make room in {folder} and give the same command again"
        ) from error
    return path


def _replace(path: Path, content: bytes | memoryview) -> None:
    """All of the new file or all of the old one, even if the power fails."""
    fresh = path.with_name(path.name + ".new")
    try:
        with fresh.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(fresh, path)
    except OSError:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise


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
        config = TrainConfig.from_dict(json.loads(state["config"]))
    except (
        Exception
    ) as error:  # torch's unpickler raises whatever its stack lacks: IndexError, AttributeError, ...
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} must be a checkpoint of this version, got: {reason}; train anew"
        ) from error
    return config, state


def load_to_resume(config: TrainConfig) -> dict[str, Any] | None:
    """What the run in `config.out` has come to, or None where there is none yet.

    Raises:
        CheckpointError: There is a run, but not of these settings, or none is wanted.
    """
    folder = Path(config.out)
    if not (folder / NAME).is_file():
        return None
    if config.resume == "never":
        raise CheckpointError(f"{folder} already holds a run; choose another --out, or --resume auto")
    saved, state = load(folder)
    if found := differences(saved, config):
        raise CheckpointError(
            f"{folder} holds a run of other settings: {'; '.join(found)}; give the same ones, or another --out"
        )
    return state


def taught_network(folder: Path) -> tuple[LivePath, TrainConfig, dict[str, Any]]:
    """The averaged weights of a run, ready to export; with its settings and what it says of itself.

    `former` lists the runs that it started from, the first one first; `reference_greys` are those of the unpaired frames
    it has learned from, and empty where it has learned from phantom pairs alone.

    Raises:
        CheckpointError: As `load`, or the weights are not of the preset that the settings name.
    """
    # Late: the registry knows every method, and only who opens weights needs that.
    from casgan.methods.registry import live_path

    config, state = load(folder)
    network = live_path(config.network, config.method, config.without)
    try:
        network.load_state_dict(state["average"])
    except (KeyError, RuntimeError) as error:
        raise CheckpointError(
            f"{folder / NAME} must hold the weights of {title_of(config.method, config.without)} at preset "
            f"{config.preset} as this version builds them; train anew"
        ) from error
    facts = {name: state[name] for name in ("stage", "step", "data_sha256", "seconds")}
    for name in ("former", "reference_greys"):
        facts[name] = state.get(name, [])
    return network.eval(), config, facts


def former_run(config: TrainConfig, facts: dict[str, Any]) -> dict[str, Any]:
    """What a run that starts from another says of it: what it was taught on, and how long. No name of a folder or file.

    Args:
        config: The other run's settings.
        facts: As `taught_network` gives them.
    """
    kept = {
        "data": "phantom" if config.data == "phantom" else "folder",
        "segmenter": "file" if config.segmenter else "",
    }
    return {**kept, **{name: facts[name] for name in ("stage", "step", "data_sha256", "seconds")}}
