"""What each term of training says of pictures whose answer is known."""

import math

import pytest
import torch
from torch import Tensor

from casgan.losses import (
    attention_area,
    darkening,
    image_cycle,
    inside,
    latent_cycle,
    latent_distance,
    least_squares,
    log_form,
    moved,
    prediction,
    reconstruction,
    shift_consistency,
)

HALF = torch.cat([torch.ones(2, 1, 8, 4), torch.zeros(2, 1, 8, 4)], dim=3)
"""A field: the left half."""


def plane(value: float) -> Tensor:
    return torch.full((2, 1, 8, 8), value)


@pytest.mark.parametrize("term", [image_cycle, reconstruction], ids=["cycle", "reconstruction"])
def test_outside_the_field_nothing_counts(term: object) -> None:
    picture = plane(0.5)
    wrong_outside = picture + 9.0 * (1.0 - HALF)
    assert term(wrong_outside, picture, HALF) == 0
    assert term(picture + 0.25, picture, HALF) == pytest.approx(0.25)


def test_every_picture_weighs_the_same_however_small_its_field() -> None:
    field = torch.ones(2, 1, 8, 8)
    field[1, :, 1:] = 0.0
    error = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    assert inside(error, field) == pytest.approx(0.5)


def test_a_field_of_nothing_gives_zero_not_nan() -> None:
    assert inside(plane(1.0), plane(0.0)) == 0


def test_least_squares_is_a_quarter_for_a_discriminator_that_cannot_tell() -> None:
    score, field = torch.full((2, 1, 3, 3), 0.5), torch.ones(2, 1, 8, 8)
    both = 0.5 * (least_squares(score, 1.0, field) + least_squares(score, 0.0, field))
    assert both == pytest.approx(0.25)


def test_log_form_is_log_two_for_a_discriminator_that_cannot_tell() -> None:
    score, field = torch.zeros(2, 1, 3, 3), torch.ones(2, 1, 8, 8)
    assert log_form(score, 1.0, field) == pytest.approx(math.log(2.0))


def test_a_patch_outside_the_field_has_no_say() -> None:
    score = torch.tensor([[1.0, 7.0], [1.0, 7.0]]).expand(2, 1, 2, 2)
    assert least_squares(score, 1.0, HALF) == 0


def test_latents_cannot_come_nearer_by_shrinking() -> None:
    torch.manual_seed(0)
    near, far = torch.randn(2, 2, 4, 8, 8)
    assert latent_distance(0.1 * near, 0.1 * far) == pytest.approx(
        float(latent_distance(near, far)), rel=0.02
    )


def test_prediction_teaches_the_predictor_ten_times_as_much_as_the_encoder() -> None:
    predicted, vessels = (torch.randn(2, 4, 8, 8, requires_grad=True) for _ in range(2))
    strength = [t.detach().abs().mean(dim=(1, 2, 3)) + 1e-3 for t in (predicted, vessels)]
    prediction(predicted, vessels).backward()
    there = predicted.grad.abs().sum(dim=(1, 2, 3)) * strength[1]
    back = vessels.grad.abs().sum(dim=(1, 2, 3)) * strength[0]
    torch.testing.assert_close(there, 10.0 * back)


def test_the_latent_cycle_asks_the_encoder_of_angiograms_to_change_not_the_emptied_picture() -> None:
    z_x, z_y_g, z_y, z_x_g, v_x, v_y_g = (torch.randn(1, 4, 8, 8, requires_grad=True) for _ in range(6))
    latent_cycle(z_x, z_y_g, z_y, z_x_g, v_x, v_y_g).backward()
    assert all(taught.grad.any() for taught in (z_y_g, z_y, v_y_g))
    assert all(target.grad is None for target in (z_x, z_x_g, v_x))


def test_only_brighter_than_the_live_picture_is_punished() -> None:
    field = torch.ones(2, 1, 8, 8)
    assert darkening(plane(-0.5), plane(0.0), field) == 0
    assert darkening(plane(0.25), plane(0.0), field) == pytest.approx(0.25)


def test_attention_area_is_its_mean_inside_the_field() -> None:
    assert attention_area(HALF * 0.2 + (1.0 - HALF), HALF) == pytest.approx(0.2)


@pytest.mark.parametrize(("down", "right"), [(1, 0), (-3, 2), (7, -7)])
def test_a_layer_that_moves_with_the_picture_is_consistent(down: int, right: int) -> None:
    torch.manual_seed(0)
    layer = torch.randn(2, 1, 32, 32)
    assert shift_consistency(layer, moved(layer, down, right), down, right) == 0
    assert shift_consistency(layer, layer, down, right) > 0.5


def test_a_picture_moved_down_and_right_shows_its_first_pixel_there() -> None:
    picture = torch.arange(36.0).reshape(1, 1, 6, 6)
    there = moved(picture, 2, 1)
    assert there[0, 0, 2, 1] == picture[0, 0, 0, 0]
    assert there[0, 0, 5, 5] == picture[0, 0, 3, 4]


def test_drawing_less_does_not_make_a_jumping_layer_consistent() -> None:
    torch.manual_seed(0)
    layer, other = torch.randn(2, 2, 1, 32, 32)
    loud, faint = shift_consistency(layer, other, 1, 1), shift_consistency(0.1 * layer, 0.1 * other, 1, 1)
    assert faint == pytest.approx(float(loud), rel=0.01)


def test_consistency_of_an_empty_layer_is_finite_and_so_is_its_gradient() -> None:
    layer = torch.zeros(1, 1, 32, 32, requires_grad=True)
    shift_consistency(layer, torch.zeros(1, 1, 32, 32), 1, 1).backward()
    assert torch.isfinite(layer.grad).all()


def test_sparsity_does_not_push_where_nothing_is_drawn() -> None:
    attention = torch.tensor([0.0, 0.4]).repeat(1, 1, 2, 1).requires_grad_()
    attention_area(attention, torch.ones(1, 1, 2, 2)).backward()
    assert (attention.grad[..., 0] == 0).all()
    assert (attention.grad[..., 1] > 0).all()
