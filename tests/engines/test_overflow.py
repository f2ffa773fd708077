"""How far a network's values stay from what fp16 can hold."""

import pytest
import torch
from torch import Tensor

from calib.config import PhantomConfig
from calib.phantom import Phantom
from casgan.networks import Generator
from engines.errors import ModelError
from engines.model import load_model
from engines.overflow import check_overflow, overflow_margin
from engines.reference import load_reference


def picture(value: float = 0.5, side: int = 64) -> Tensor:
    return torch.full((1, 1, side, side), value)


def test_the_margin_is_fp16s_largest_over_the_networks(tiny_network: Generator) -> None:
    network = tiny_network.folded()
    with torch.no_grad():
        # No other value of this network is near it.
        network.attention.conv.weight.zero_()
        network.attention.conv.bias.fill_(6550.4)
    assert overflow_margin(network, [picture()]) == pytest.approx(10.0, rel=1e-3)
    assert check_overflow(network, [picture()]) == pytest.approx(10.0, rel=1e-3)


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


def test_too_small_a_margin_is_refused(tiny_network: Generator) -> None:
    network = tiny_network.folded()
    with torch.no_grad():
        network.attention.conv.bias.fill_(20000.0)
    with pytest.raises(
        ModelError, match=r"must stay 8 times below fp16's 65504, got 3\.2\d times; run it in f32"
    ):
        check_overflow(network, [picture()])


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
    phantom = Phantom(PhantomConfig(seed=1, rows=256, columns=256, bits_stored=8))
    frame = torch.from_numpy(phantom.frame(3).plain).float()[None, None] / 127.5 - 1.0
    noise = torch.rand(1, 1, 256, 256, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    checkers = torch.where((torch.arange(256)[:, None] + torch.arange(256)) % 2 == 0, 1.0, -1.0)[None, None]
    frames = [frame, picture(-1.0, 256), picture(1.0, 256), noise, checkers]
    assert check_overflow(network, frames) > 100.0
