"""The presets' size and cost, and what anti-aliasing must hold for any weights."""

import pytest
import torch

from casgan.layers import BINOMIAL, QUARTER, Blur
from casgan.networks import Generator, Head, blend, clamp_attention, multiply_accumulates
from casgan.presets import PRESETS, PresetConfig

TINY = PresetConfig("tiny", 64, 4, (8, 16), 1, 1, 1)


@pytest.mark.parametrize(
    ("preset", "parameters_million", "gigamacs_256", "gigamacs_512"),
    [
        pytest.param("compact", 2.85, 1.05, 4.19, id="compact"),
        pytest.param("compact-s", 1.34, 0.50, 1.99, id="compact-s"),
        pytest.param("full", 18.52, 52.56, 210.24, id="full"),
        pytest.param("paper", 20.54, 83.24, 332.98, id="paper"),
    ],
)
def test_presets_cost_what_was_planned(
    preset: str, parameters_million: float, gigamacs_256: float, gigamacs_512: float
) -> None:
    # Meta tensors: shapes without the work.
    with torch.device("meta"):
        network = Generator(PRESETS[preset]).eval()
    found = sum(weight.numel() for weight in network.parameters()) / 1e6
    assert found == pytest.approx(parameters_million, rel=0.01)
    assert multiply_accumulates(network, 256, 256) / 1e9 == pytest.approx(gigamacs_256, rel=0.01)
    assert multiply_accumulates(network, 512, 512) / 1e9 == pytest.approx(gigamacs_512, rel=0.01)


@pytest.mark.parametrize("shuffle_up", [True, False], ids=["shuffle", "resize"])
@pytest.mark.parametrize("unshuffle", [1, 2, 4])
def test_folding_the_norms_changes_nothing(unshuffle: int, shuffle_up: bool) -> None:
    torch.manual_seed(0)
    preset = PresetConfig(
        "t", 64, unshuffle, (8, 16), 1, 1, 1, decoders=2, shuffle_up=shuffle_up, deep_widths=(8, 8)
    )
    network = Generator(preset)
    for _ in range(3):
        network(torch.randn(2, 1, 64, 64))
    network.eval()
    folded = network.folded()
    x = torch.randn(1, 1, 64, 64)
    assert not [module for module in folded.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for plane, expected in zip(folded(x), network(x), strict=True):
        torch.testing.assert_close(plane, expected, atol=2e-5, rtol=2e-5)


def test_the_deeper_stages_let_the_whole_picture_matter_everywhere() -> None:
    """Without them a change in one corner of `compact`'s picture does not reach the opposite one."""

    def reaches(deep_widths: tuple[int, ...]) -> bool:
        torch.manual_seed(0)
        preset = PresetConfig("t", 256, 4, (8, 16), 1, 2, 1, deep_widths=deep_widths)
        network = Generator(preset).eval()
        x = torch.zeros(2, 1, 256, 256)
        x[1, :, :16, :16] = 1.0
        still, changed = network.logits(x)[0]
        return bool((still != changed)[:, -16:, -16:].any())

    assert not reaches(())
    assert reaches((16, 16, 16))


def test_a_size_that_the_deepest_stage_cannot_halve_is_refused() -> None:
    with pytest.raises(ValueError, match="multiple of its stride 32, got 80"):
        PresetConfig("t", 80, 4, (8, 16), 1, 1, 1, deep_widths=(8, 8))


def test_zero_attention_gives_the_picture_bit_for_bit() -> None:
    torch.manual_seed(0)
    x, context = torch.randn(2, 1, 1, 16, 16)
    assert torch.equal(blend(x, torch.zeros_like(x), context), x)


def test_the_clamp_gives_exact_zero_and_keeps_one() -> None:
    attention = clamp_attention(torch.tensor([0.0, 0.05, 0.1, 0.55, 1.0]), 0.1)
    torch.testing.assert_close(attention, torch.tensor([0.0, 0.0, 0.0, 0.5, 1.0]))
    assert attention[:3].max() == 0


@pytest.mark.parametrize("unshuffle", [2, 4])
def test_a_head_leaves_no_lattice_whatever_its_weights(unshuffle: int) -> None:
    torch.manual_seed(1)
    head = Head(PresetConfig("t", 64, unshuffle, (8, 16), 1, 1, 1), bias=0.0)
    torch.nn.init.normal_(head.conv.weight)
    torch.nn.init.normal_(head.conv.bias)
    plane = head(torch.ones(1, 8, 16, 16))
    # Away from the zero padding the features are constant, so the plane must be.
    inner = plane[..., 8:-8, 8:-8]
    assert inner.max() - inner.min() < 1e-5 * inner.abs().max()


@pytest.mark.parametrize(
    ("taps", "period"),
    [
        pytest.param(BINOMIAL, 2, id="half"),
        pytest.param(QUARTER, 4, id="quarter"),
        pytest.param(QUARTER, 2, id="both"),
    ],
)
def test_a_blur_removes_its_lattice_and_keeps_a_constant(taps: tuple[float, ...], period: int) -> None:
    wave = torch.cos(torch.arange(32) * 2 * torch.pi / period).repeat(32, 1)[None, None]
    blur = Blur(1, taps)
    assert blur(wave)[..., 4:-4].abs().max() < 1e-6
    torch.testing.assert_close(blur(torch.full((1, 1, 8, 8), 3.0)), torch.full((1, 1, 8, 8), 3.0))


def test_every_weight_learns_from_the_picture() -> None:
    network = Generator(TINY)
    x = torch.randn(2, 1, 64, 64)
    attention, context = network(x)
    blend(x, attention, context).square().sum().backward()
    dead = [
        name for name, weight in network.named_parameters() if weight.grad is None or not weight.grad.any()
    ]
    assert dead == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"network_size": 60}, "multiple of its stride 8, got 60", id="size"),
        pytest.param({"decoders": 3}, "1 or 2 decoders", id="decoders"),
        pytest.param({"background_blocks": 0}, "positive counts", id="blocks"),
    ],
)
def test_a_network_that_cannot_be_is_refused(settings: dict[str, int], message: str) -> None:
    facts = {"name": "t", "network_size": 64, "unshuffle": 4, "widths": (8, 16)}
    blocks = {"background_blocks": 1, "predictor_blocks": 1, "decoder_blocks": 1}
    with pytest.raises(ValueError, match=message):
        PresetConfig(**{**facts, **blocks, **settings})
