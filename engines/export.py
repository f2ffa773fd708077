"""The command `export`: from a training run to a model file that is known to draw what torch draws."""

import dataclasses
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from calib.config import PhantomConfig
from calib.phantom import Phantom
from calib.precision import LIMITS
from casgan import checkpoint
from casgan.config import TrainConfig
from casgan.data import phantom_reference
from casgan.errors import CheckpointError
from casgan.methods.names import attention_of, title_of
from engines.config import ExportConfig
from engines.engine import BackendName, EngineSpec
from engines.errors import EngineError, ModelError
from engines.model import F16_MARGIN, ModelCard, ModelFile
from engines.network_graph import export_model
from engines.open import open_engine, probe
from engines.overflow import overflow_margin, probing_frames
from engines.parity import Parity, measure_parity
from engines.reference import Reference

PHANTOM = "phantom"
FOLDER, FILE = "folder", "file"
"""What stands in a card where a setting names one."""
HASH_DIGITS = 12
CPU_ENGINES: tuple[BackendName, ...] = ("openvino", "onnxruntime")
LARGEST = LIMITS["f32"].grey_max
"""Grey levels of 255 that an engine may differ from torch in fp32: both round, so one is a tie broken otherwise."""
PARITY_FRAMES = ((512, 512, 8), (384, 320, 12))
"""Rows, columns and bits stored of the phantom's frames; one has another shape, and two bytes a sample."""


def run_folder(path: Path) -> Path:
    """The folder of a training run.

    Args:
        path: The folder, or the checkpoint file in it.

    Raises:
        CheckpointError: Neither.
    """
    if path.is_dir():
        return path
    if path.is_file() and path.name == checkpoint.NAME:
        return path.parent
    got = "a file of another name" if path.is_file() else "nothing there"
    raise CheckpointError(
        f"needed the folder of a training run or its {checkpoint.NAME}, got {got}: {path}; "
        "it is --out of contrastream train"
    )


def licence_of(run: TrainConfig, facts: dict[str, Any]) -> str:
    """What may be done with a run's weights: that follows from what they, and those they started from, were taught on.

    A folder is named by the hash of what was taught: its name may be a patient's.

    Args:
        run: The run's settings.
        facts: As `card_of` takes them.
    """
    runs = [*facts["former"], {"data": run.data, "segmenter": run.segmenter, **facts}]
    folders = [each["data_sha256"][:HASH_DIGITS] for each in runs if each["data"] != PHANTOM]
    if folders:
        taught_on = f"taught on data {' and '.join(dict.fromkeys(folders))} of a folder; its terms apply"
    else:
        taught_on = "Apache-2.0; taught on the digital phantom of this project alone"
    if any(each["segmenter"] for each in runs):
        taught_on += "; semantic loss by a vessel segmenter of a file, whose terms apply too"
    return taught_on


def without_names(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings of a run with words in place of the names of folders and files, which may be people's."""
    kept = dict(settings)
    kept["data"] = PHANTOM if kept["data"] == PHANTOM else FOLDER
    for name in ("segmenter", "overrides"):
        if kept.get(name):
            kept[name] = FILE
    return kept


def card_of(run: TrainConfig, facts: dict[str, Any]) -> ModelCard:
    """What the model file will say of itself; no path, and no name of a folder or a file.

    Args:
        run: The run's settings.
        facts: What its checkpoint says of it: stage, step, seconds, data_sha256, former, reference_greys.
    """
    settings = dataclasses.asdict(run)
    for private in ("out", "start_from", "test_patients"):
        del settings[private]
    former = [without_names(each) for each in facts["former"]]  # checkpoints of earlier versions name them
    reached = {"stage": facts["stage"], "step": facts["step"], "seconds": round(facts["seconds"])}
    return ModelCard(
        preset=run.preset,
        network_size=run.network.network_size,
        threshold=run.drawn_above,
        taught=True,
        method=run.method,
        without=run.without,
        attention=attention_of(run.method, run.without),
        training_run={**without_names(settings), "without": list(run.without), "former": former, **reached},
        data_sha256=facts["data_sha256"],
        licence=licence_of(run, facts),
        reference_greys=reference_of(run, facts),
    )


def reference_of(run: TrainConfig, facts: dict[str, Any]) -> tuple[tuple[float, float], ...]:
    """Grey levels of the contrast-free frames that a run was taught on, as the card says them.

    Those of its unpaired frames where it has come to them; else those of its phantom pairs, rendered again.
    """
    if facts["reference_greys"]:
        return tuple((float(percent), float(grey)) for percent, grey in facts["reference_greys"])
    return phantom_reference(run.picture_size, range(run.first_seed, run.first_seed + run.patients))


def left_to_teach(run: dict[str, Any]) -> str:
    """What of its teaching a run has not had; empty where it is done.

    Args:
        run: A card's `training_run`.
    """
    named = "cas-gan" if run.get("method", "casgan") == "casgan" else "unpaired"
    last = (named, run["steps"]) if run["steps"] else ("warm", run["warm_steps"])
    if (run["stage"], run["step"]) == last:
        return ""
    return f"the run is at step {run['step']} of its stage {run['stage']}, and ends at step {last[1]} of {last[0]}"


@dataclass(frozen=True)
class Checked:
    """How far an engine is from torch on frames of one format."""

    backend: BackendName
    spec: EngineSpec
    parity: Parity


def check_parity(file: ModelFile, reference: Reference) -> list[Checked]:
    """Run phantom frames through every CPU engine that is here, and through torch.

    Args:
        file: The exported model.
        reference: The network it was exported from.

    Returns:
        One for every frame format and engine.

    Raises:
        ModelError: An engine differs by more than `LARGEST`, or changes pixels outside the attention.
        EngineError: There is no CPU engine here.
    """
    backends = [backend for backend in CPU_ENGINES if probe(backend)[0]]
    if not backends:
        raise EngineError(f"needed {' or '.join(CPU_ENGINES)} to check the model, found neither; install one")
    checked: list[Checked] = []
    for rows, columns, bits in PARITY_FRAMES:
        spec = EngineSpec(rows, columns, bits, slots=1)
        phantom = Phantom(PhantomConfig(seed=0, rows=rows, columns=columns, bits_stored=bits))
        frames: list[np.ndarray] = [phantom.frame(0).plain]
        for backend in backends:
            engine = open_engine(file.path, spec, backend, precision="f32").engine
            try:
                parity = measure_parity(engine, reference, frames)
            finally:
                engine.close()
            if max(parity.synthetic_max, parity.attention_max) > LARGEST or not parity.background_exact:
                raise ModelError(
                    f"the exported graph must draw what torch draws within {LARGEST:g} grey level of 255, got "
                    f"{parity.synthetic_max:.2f} in the picture and {parity.attention_max:.2f} in the attention on "
                    f"{backend} at {rows}x{columns} of {bits} bits; nothing was written. This is a fault of ours: "
                    "please report it with the checkpoint's preset"
                )
            checked.append(Checked(backend, spec, parity))
    return checked


def check_out(config: ExportConfig) -> None:
    """Refuse a place for the model before anything is computed.

    Raises:
        ValueError: It cannot be used.
    """
    out = config.out
    if out.suffix != ".onnx":
        raise ValueError(f"--out must end in .onnx, got {out.name}; for example model.onnx")
    if not out.parent.is_dir():
        raise ValueError(f"--out needs an existing folder, got {out.parent}; make it first")
    if out.is_dir():
        raise ValueError(f"--out needs a file name, got the folder {out}; add a name")
    taken = [path for path in (out, out.with_suffix(".json")) if path.exists()]
    if taken and not config.overwrite:
        raise ValueError(f"{taken[0]} exists; choose another --out, or replace it with --overwrite")


def export_run(config: ExportConfig) -> tuple[ModelCard, list[Checked]]:
    """Write the model of a training run; it appears only once it is known to be right.

    Returns:
        The card as written, and how far each engine was from torch, per frame format.

    Raises:
        CheckpointError: There is no usable run.
        ModelError: The graph does not draw what torch draws.
        ValueError: The place cannot be used, or a weight is not finite.
    """
    check_out(config)
    network, run, facts = checkpoint.taught_network(run_folder(config.checkpoint))
    with tempfile.TemporaryDirectory(prefix=".export-", dir=config.out.parent) as unchecked:
        fresh = Path(unchecked) / config.out.name
        margin = overflow_margin(network.eval().folded(), probing_frames(network.preset.network_size))
        card = export_model(
            network, dataclasses.replace(card_of(run, facts), f16_margin=round(margin, 2)), fresh
        )
        # Against the network as it was taught, so that the folding of its norms is checked too.
        reference = Reference(network.eval(), card.threshold)
        checked = check_parity(ModelFile(fresh, card), reference)
        for suffix in (".json", ".onnx"):
            os.replace(fresh.with_suffix(suffix), config.out.with_suffix(suffix))
    return card, checked


def margin_text(card: ModelCard) -> str:
    """How far the network's values stay from what fp16 can hold, and what follows."""
    assert card.f16_margin is not None
    said = f"the largest value inside it fits {card.f16_margin:.3g} times below fp16's largest"
    if card.f16_margin >= F16_MARGIN:
        return said
    return f"{said}, needed {F16_MARGIN:g}: GPU engines refuse it in f16; train again, or run it on openvino"


def export(config: ExportConfig) -> int:
    """`contrastream export`."""
    card, checked = export_run(config)
    print(
        f"model    {card.sha256[:16]}: {title_of(card.method, card.without)}, {card.preset}, stage "
        f"{card.training_run['stage']}, step {card.training_run['step']}"
    )
    if card.attention == "derived":
        print(
            "note     its attention is derived from what the picture changed, not learnt: where A is above 0 is no vessel"
        )
    if left := left_to_teach(card.training_run):
        print(f"note     {left}")
    print(f"licence  {card.licence}")
    print(f"margin   {margin_text(card)}")
    for each in checked:
        spec, parity = each.spec, each.parity
        print(
            f"parity   {each.backend} against torch, phantom {spec.rows}x{spec.columns} of {spec.bits_stored} bits: "
            f"largest difference {parity.synthetic_max:.2f} grey levels of 255, mean {parity.synthetic_mean:.4f}; "
            f"attention {parity.attention_max:.0f} of 255"
        )
    print(f"written  {config.out}, {config.out.with_suffix('.json').name}")
    print(f"next     contrastream run phantom --model {config.out}")
    return 0
