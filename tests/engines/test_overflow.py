"""How far a network's values stay from what fp16 can hold."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from casgan.networks import Generator
from casgan.presets import PresetConfig
from engines.engine import EngineSpec
from engines.errors import ModelError
from engines.model import ModelCard, load_model
from engines.overflow import overflow_margin, probing_frames
from engines.reference import load_reference
from engines.torch_engine import TorchEngine
from engines.typed import typed_model


def picture(value: float = 0.5, side: int = 64) -> Tensor:
    return torch.full((1, 1, side, side), value)


def test_the_margin_is_fp16s_largest_over_the_networks(tiny_network: Generator) -> None:
    network = tiny_network.folded()
    with torch.no_grad():
        # No other value of this network is near it.
        network.attention.conv.weight.zero_()
        network.attention.conv.bias.fill_(6550.4)
    assert overflow_margin(network, [picture()]) == pytest.approx(10.0, rel=1e-3)


def test_a_value_inside_counts_though_the_logits_are_small(tiny_network: Generator) -> None:
    network = tiny_network.folded()
    before = overflow_margin(network, [picture()])
    with torch.no_grad():
        first = network.predictor.layers[0].first.conv
        first.bias.fill_(30000.0)
        network.predictor.layers[0].second.conv.weight.zero_()
    assert before > 100.0
    assert overflow_margin(network, [picture()]) < 2.3


def test_the_worst_frame_decides(tiny_network: Generator) -> None:
    network = tiny_network.folded()
    margins = [overflow_margin(network, [picture(value)]) for value in (-1.0, 1.0)]
    assert overflow_margin(network, [picture(-1.0), picture(1.0)]) == min(margins)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_leaves_no_margin(tiny_network: Generator, value: float) -> None:
    network = tiny_network.folded()
    with torch.no_grad():
        network.context.conv.bias.fill_(value)
    assert overflow_margin(network, [picture(), picture()]) == 0.0


def test_no_frames_are_refused(tiny_network: Generator) -> None:
    with pytest.raises(ValueError, match="at least one frame, got none"):
        overflow_margin(tiny_network.folded(), [])


def test_no_hook_stays_in_the_network(tiny_network: Generator) -> None:
    network = tiny_network.folded()
    overflow_margin(network, [picture()])
    assert not any(module._forward_hooks for module in network.modules())


@pytest.mark.parametrize("name", ["compact", "compact-s"])
def test_the_shipped_networks_keep_far_from_overflow(name: str) -> None:
    network = load_reference(load_model(name)).network
    assert overflow_margin(network, probing_frames(256)) > 100.0


def test_a_network_of_too_small_a_margin_is_refused_in_half_precision_and_in_no_other(
    tiny_network: Generator, export_tiny: Callable[..., Path], tiny_preset: PresetConfig
) -> None:
    file = load_model(export_tiny(tiny_network, ModelCard("tiny", 64, 0.1, taught=True, f16_margin=3.25)))
    spec = EngineSpec(64, 64, slots=1)
    said = r"values inside changed\.onnx must stay 8 times below .* to run in f16, got 3\.25 times .* \(openvino\)"
    with pytest.raises(ModelError, match=said):
        typed_model(file, spec, "f16")
    with pytest.raises(ModelError, match=said):
        TorchEngine(file, spec, precision="f16", device="cpu", preset=tiny_preset)
    assert typed_model(file, spec, "f32").graph.node
    TorchEngine(file, spec, precision="bf16", device="cpu", preset=tiny_preset).close()
