"""The graph once more in torch, operation by operation and plain on purpose: for parity, and as the torch engine.

Only resampling differs in form: here it is torch's own, there it is written out. Both are linear with
half-pixel centres.
"""

import dataclasses
import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import onnx
import torch
from jaxtyping import Float32, UInt8
from onnx import numpy_helper
from torch import Tensor
from torch.nn import functional

from calib.domain import CLIPPED, mixtures
from casgan.methods.names import title_of
from casgan.methods.registry import live_path
from casgan.networks import LivePath, blend, clamp_attention
from casgan.presets import PRESETS, PresetConfig
from engines.engine import EngineSpec, FrameStatistics
from engines.errors import ModelError
from engines.model import LEVELS, ModelFile
from engines.planes import Settings, statistics_of


@dataclass(frozen=True)
class Reference:
    """A folded network, and the clamp's threshold."""

    network: LivePath
    threshold: float


@dataclass(frozen=True)
class ReferenceFrame:
    """What the reference says of one frame."""

    synthetic: np.ndarray
    """(rows, columns), as the live frame."""
    attention: np.ndarray
    """(rows, columns) uint8."""
    context: Float32[np.ndarray, "h w"]
    """C at the frame's size in stored pixel values, within the bits stored."""
    statistics: FrameStatistics


def load_reference(model: ModelFile, preset: PresetConfig | None = None) -> Reference:
    """The network of an exported model, with the weights read back from its file.

    Args:
        model: The file and its card.
        preset: The network's layers where the card's preset is not a shipped one.

    Raises:
        ModelError: The file's weights are not those of its method and preset.
    """
    if preset is None and model.card.preset not in PRESETS:
        raise ModelError(f"needed one of the presets {', '.join(PRESETS)}, got {model.card.preset!r}")
    if preset is None:
        preset = dataclasses.replace(PRESETS[model.card.preset], network_size=model.card.network_size)
    source = onnx.load(str(model.path))
    _check_whose(source, model)
    network = live_path(preset, model.card.method, model.card.without).folded()
    prefix = "network/network."
    weights: dict[str, Tensor] = {
        tensor.name.removeprefix(prefix): torch.from_numpy(numpy_helper.to_array(tensor).copy())
        for tensor in source.graph.initializer
        if tensor.name.startswith(prefix)
    }
    needed = network.state_dict()
    if any(name not in weights or weights[name].shape != needed[name].shape for name in needed):
        title = title_of(model.card.method, model.card.without)
        raise ModelError(
            f"{model.path.name} must hold the weights of {model.card.preset} for {title}; export it again"
        )
    network.load_state_dict({name: weights[name] for name in needed})
    return Reference(network, model.card.threshold)


def _check_whose(source: onnx.ModelProto, model: ModelFile) -> None:
    """Refuse a card that says another method or preset than the file itself."""
    facts = {entry.key: entry.value for entry in source.metadata_props}
    card = model.card
    # Files of before there were methods say none: they are CAS-GAN's.
    found = _named(facts.get("method", "casgan"), facts.get("without", "[]"), facts.get("preset", "none"))
    said = _named(card.method, json.dumps(card.without), card.preset)
    if found != said:
        raise ModelError(
            f"{model.path.name} holds a network of {found}, its card says {said}; copy both files again"
        )


def _named(method: str, without: str, preset: str) -> str:
    left_out = "" if without == "[]" else f" without {without}"
    return f"{method}{left_out} at preset {preset}"


def run_reference(
    reference: Reference, spec: EngineSpec, live: np.ndarray, settings: Settings | None = None
) -> ReferenceFrame:
    """One frame through the graph of `graph.py`, in fp32.

    Args:
        reference: The network.
        spec: Frame size and bits.
        live: (rows, columns) stored pixel values.
        settings: Grey levels and field; None for the defaults.
    """
    settings = settings or Settings.default(spec)
    with torch.no_grad():
        drawn = draw(
            reference.network.logits_and_latent,
            reference.network.preset.network_size,
            reference.threshold,
            torch.from_numpy(live.astype(np.float32)),
            SettingTensors.of(settings),
        )
    return ReferenceFrame(
        drawn.stored.numpy().astype(live.dtype),
        drawn.level.numpy().astype(np.uint8),
        drawn.context.numpy(),
        statistics_of(drawn.statistics.numpy(), settings.domain),
    )


@dataclass(frozen=True)
class SettingTensors:
    """`Settings` as tensors on the device where the frame is drawn."""

    table: Float32[Tensor, "256"]
    inverse: Float32[Tensor, "256"]
    field: UInt8[Tensor, "h w"]
    largest: float
    """The largest stored value; it follows from the bits stored, so it never changes."""

    @classmethod
    def of(cls, settings: Settings, device: str = "cpu") -> "SettingTensors":
        """Copies on `device`."""
        table, inverse, field = (
            torch.tensor(array, device=device) for array in (settings.table, settings.inverse, settings.field)
        )
        return cls(table, inverse, field, float(settings.max_value[0]))


class Drawn(NamedTuple):
    """What `draw` makes of a frame, all fp32."""

    stored: Float32[Tensor, "h w"]
    """The synthetic picture in whole stored pixel values."""
    level: Float32[Tensor, "h w"]
    """A8, whole numbers from 0 to 255."""
    context: Float32[Tensor, "h w"]
    """C in stored pixel values."""
    statistics: Float32[Tensor, "76"]
    """As the graph's output of that name."""


def draw(
    logits: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]],
    size: int,
    threshold: float,
    stored: Float32[Tensor, "h w"],
    settings: SettingTensors,
) -> Drawn:
    """The graph of `graph.py` from stored pixel values to stored pixel values, in fp32 on any device.

    Nothing in here waits for a device or reads from it, so that a CUDA graph can hold all of it.

    Args:
        logits: The network: attention and context logits and the latent, fp32, of a picture (1, 1, size, size) from
            -1 to 1.
        size: The network's rows and columns.
        threshold: t of the attention's clamp.
        stored: The live frame's stored pixel values.
        settings: Grey levels and field, on the same device.
    """
    largest = settings.largest
    grey = _look_up(settings.table, stored * ((LEVELS - 1) / largest))
    boxed, (rows, columns) = _letterbox((2.0 * grey - 1.0)[None, None], size)
    *planes, latent = logits(boxed)
    inside = tuple(plane[..., rows, columns] for plane in planes)
    shape = tuple(stored.shape)
    attention = _linear(torch.sigmoid(inside[0]), shape)[0, 0]
    context = _linear(torch.tanh(inside[1]), shape)[0, 0]
    attention = clamp_attention(attention, threshold) * settings.field.float().clamp(max=1.0)
    level = torch.floor(attention * 255.0 + 0.5).clamp(0.0, 255.0)
    drawn = _look_up(settings.inverse, (context + 1.0) * ((LEVELS - 1) / 2.0)).clamp(0.0, largest)
    synthetic = torch.floor(blend(stored, level / 255.0, drawn) + 0.5).clamp(0.0, largest)
    synthetic = torch.where(level == 0, stored, synthetic)
    finite = planes[0].isfinite().all() & planes[1].isfinite().all()
    statistics = torch.stack(
        [
            finite.float(),
            attention.amin(),
            attention.amax(),
            attention.mean(),
            (level > 0).float().mean(),
        ]
    )
    features = _features(latent, boxed, _boxed_field(settings.field, (rows, columns), size))
    statistics = torch.cat([statistics, features])
    return Drawn(synthetic, level, drawn, statistics)


def _look_up(table: Tensor, level: Tensor) -> Tensor:
    # A NaN of a broken network must not become an index outside the table: on a GPU that ends the process.
    knot = torch.floor(level.nan_to_num(nan=0.0)).clamp(0, LEVELS - 2)
    index = knot.long()
    return table[index] + (level - knot) * (table[index + 1] - table[index])


def _linear(picture: Tensor, size: tuple[int, ...]) -> Tensor:
    return functional.interpolate(picture, size=size, mode="bilinear", align_corners=False)


def _letterbox(picture: Tensor, size: int) -> tuple[Tensor, tuple[slice, slice]]:
    """The picture in the network's square, and where it lies there."""
    sides = list(picture.shape[-2:])
    longer = max(sides)
    targets = [(2 * side * size + longer) // (2 * longer) for side in sides]
    while sides != targets:
        sides = [max(side // 2, target) for side, target in zip(sides, targets, strict=True)]
        picture = _linear(picture, tuple(sides))
    starts = [(size - target) // 2 for target in targets]
    ends = [start + target for start, target in zip(starts, targets, strict=True)]
    pads = (starts[1], size - ends[1], starts[0], size - ends[0])
    boxed = functional.pad(picture, pads, value=-1.0)
    return boxed, (slice(starts[0], ends[0]), slice(starts[1], ends[1]))


def _boxed_field(field: Tensor, inside: tuple[slice, slice], size: int) -> Float32[Tensor, "size size"]:
    """The field in the network's square, by nearest neighbours, 0 around the picture."""
    picked = field.float().clamp(max=1.0)
    for axis, place in enumerate(inside):
        count = place.stop - place.start
        order = torch.arange(count, device=field.device)
        picked = picked.index_select(axis, (2 * order + 1) * picked.shape[axis] // (2 * count))
    boxed = torch.zeros(size, size, device=field.device)
    boxed[inside] = picked
    return boxed


def _features(
    latent: Float32[Tensor, "1 c g g"], boxed: Float32[Tensor, "1 1 n n"], field: Float32[Tensor, "n n"]
) -> Float32[Tensor, "71"]:
    """As `calib/domain.py` describes them."""
    stride = field.shape[0] // latent.shape[-1]
    weight = field[stride // 2 :: stride, stride // 2 :: stride]
    weight = weight / weight.sum().clamp(min=1e-6)
    mean = (latent[0] * weight).sum(dim=(1, 2))
    square = (latent[0] * latent[0] * weight).sum(dim=(1, 2))
    mixed = _mixing(latent.shape[1], latent.device) @ torch.cat([mean, square.sqrt()])
    rows, inside = boxed[0, 0, 1::4], field[1::4]
    step = rows[:, 1:] - rows[:, :-1]
    down = boxed[0, 0, 2::4] - rows
    three = torch.minimum(torch.minimum(inside[:, :-2], inside[:, 1:-1]), inside[:, 2:])
    two = torch.minimum(field[2::4], inside)
    picture = (
        (rows, inside),
        (rows * rows, inside),
        (step[:, 1:].abs(), three),
        (down.abs(), two),
        ((step[:, 1:] - step[:, :-1]).abs(), three),
        ((rows < CLIPPED - 1.0).float(), inside),
        ((rows > 1.0 - CLIPPED).float(), inside),
    )
    means = [(value * weight).sum() / weight.sum().clamp(min=1e-6) for value, weight in picture]
    return torch.cat([mixed, torch.stack(means)])


@functools.cache
def _mixing(channels: int, device: torch.device) -> Tensor:
    """Kept on the device: a copy to it is nothing that a CUDA graph can hold."""
    return torch.from_numpy(mixtures(channels)).to(device)
