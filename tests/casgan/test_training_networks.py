"""One pass through everything: which gradients flow, and what the switches of the ablation leave out."""

import pytest
import torch

from casgan.losses import moved
from casgan.networks import Generator, clamp_attention
from casgan.presets import PresetConfig
from casgan.training_networks import Batch, CasGan, Pass, drawn_attention

TINY = PresetConfig("tiny", 64, 4, (8, 16), 1, 1, 1, deep_widths=(16,))


@pytest.fixture
def batch() -> Batch:
    torch.manual_seed(0)
    x, y = 2.0 * torch.rand(2, 2, 1, 64, 64) - 1.0
    field = torch.ones(2, 1, 64, 64)
    field[..., 48:] = 0.0
    hush, anchor = 0.02 * torch.randn(4, 1, 64, 64), 2.0 * torch.rand(1, 1, 64, 64) - 1.0
    return Batch(x, field, y, field.flip(3), moved(x[:1], 2, -3), hush, anchor)


def strength(made: Pass) -> torch.Tensor:
    return sum(part.square().mean() for part in made if part is not None)


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="full"),
        pytest.param({"drl": False}, id="without drl"),
        pytest.param({"vsgg": False}, id="without vsgg"),
        pytest.param({"predict_from": "angiogram"}, id="prediction as in the paper"),
    ],
)
def test_a_pass_teaches_every_weight(batch: Batch, settings: dict[str, object]) -> None:
    networks = CasGan(TINY, 0.1, **settings)
    strength(networks(batch)).backward()
    dead = [
        name
        for name, weight in networks.named_parameters()
        if weight.requires_grad and (weight.grad is None or not weight.grad.any())
    ]
    assert dead == []


@pytest.mark.parametrize(
    "preset", [(4, True, 1), (2, False, 1), (1, False, 2)], ids=["shuffle", "resize", "paper"]
)
def test_a_pass_gives_pictures_of_the_same_size_for_every_kind_of_preset(
    batch: Batch, preset: tuple[int, bool, int]
) -> None:
    unshuffle, shuffle_up, decoders = preset
    kind = PresetConfig("t", 64, unshuffle, (8, 16), 1, 1, 1, decoders=decoders, shuffle_up=shuffle_up)
    made = CasGan(kind, 0.1)(batch)
    for picture in (made.y_g, made.x_g, made.x_rec, made.x_cycle, made.y_cycle, made.y_rec):
        assert picture.shape == batch.x.shape
    assert made.moved.shape == batch.x_moved.shape


def test_the_drawn_picture_is_the_live_path_and_untouched_outside_the_field(batch: Batch) -> None:
    networks = CasGan(TINY, 0.1).eval()
    with torch.no_grad():
        made = networks(batch)
        attention, _ = networks.generator(batch.x)
    torch.testing.assert_close(made.attention, clamp_attention(attention, 0.1) * batch.x_field)
    outside = batch.x_field == 0
    assert torch.equal(made.y_g[outside], batch.x[outside])
    assert (made.x_g[batch.y_field == 0] == -1.0).all()


def test_no_cycle_rewards_hiding_vessels_in_the_emptied_picture(batch: Batch) -> None:
    networks = CasGan(TINY, 0.1).eval()  # in training every picture of a batch sees the others by its norms
    made = networks(batch)
    (
        made.y_cycle.square().mean() + made.z_x_g.square().mean() + made.v_y_predicted.square().mean()
    ).backward()
    assert all(weight.grad is None for weight in networks.background_decoder.parameters())
    assert all(weight.grad.any() for weight in networks.generator.background.parameters())


def test_the_paper_s_prediction_reads_the_angiogram_and_ours_does_not(batch: Batch) -> None:
    for predict_from, reads_it in (("angiogram", True), ("emptied", False)):
        networks = CasGan(TINY, 0.1, predict_from=predict_from).eval()
        y = batch.y.clone().requires_grad_()
        networks(batch._replace(y=y)).v_y_predicted.square().mean().backward()
        assert (y.grad is not None and bool(y.grad.any())) == reads_it


def test_without_vsgg_the_whole_picture_is_generated_and_the_live_path_does_so_too(batch: Batch) -> None:
    networks = CasGan(TINY, 0.1, vsgg=False).eval()
    taught = Generator(TINY)
    networks.generator.load_state_dict(taught.state_dict())
    networks.draw_everywhere()
    attention, context = networks.generator(batch.x)
    assert (attention == 1.0).all()
    made = networks(batch)
    inside = batch.x_field == 1
    torch.testing.assert_close(made.y_g[inside], context[inside])


def test_without_drl_there_are_no_vessel_latents(batch: Batch) -> None:
    networks = CasGan(TINY, 0.1, drl=False)
    made = networks(batch)
    assert (made.y_rec, made.v_y, made.v_y_g) == (None, None, None)
    assert networks.vessel_encoder is None


def test_what_is_not_drawn_can_still_come_to_be_drawn() -> None:
    attention = torch.tensor([0.02, 0.5], requires_grad=True)
    drawn = drawn_attention(attention, 0.1)
    torch.testing.assert_close(drawn, clamp_attention(attention, 0.1))
    assert drawn[0] == 0
    drawn.sum().backward()
    torch.testing.assert_close(attention.grad, torch.full((2,), 1.0 / 0.9))


def test_no_cycle_rewards_drawing_nothing(batch: Batch) -> None:
    networks = CasGan(TINY, 0.1).eval()
    made = networks(batch)
    (made.x_cycle.square().mean() + made.z_y_g.square().mean()).backward()
    assert all(weight.grad is None for weight in networks.generator.attention.parameters())
    assert all(weight.grad.any() for weight in networks.background_decoder.parameters())


def test_the_anchor_is_drawn_by_the_live_path_and_may_be_left_out(batch: Batch) -> None:
    networks = CasGan(TINY, 0.1).eval()
    made = networks(batch)
    attention, context = networks.generator.logits(batch.anchor)
    assert torch.allclose(made.anchor_attention, attention, atol=1e-5)
    assert torch.allclose(made.anchor_context, context, atol=1e-5)
    without = networks(batch._replace(anchor=batch.anchor[:0]))
    assert len(without.anchor_attention) == 0
    assert torch.allclose(without.y_g, made.y_g, atol=1e-5)
