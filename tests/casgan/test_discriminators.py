"""What the discriminators see, and what they must not see."""

import torch

from casgan.discriminators import Discriminator, Discriminators, views


def test_the_outline_of_a_field_tells_nothing() -> None:
    torch.manual_seed(0)
    picture = torch.randn(1, 1, 64, 64)
    wide, narrow = torch.ones(2, 1, 1, 64, 64)
    narrow[..., 40:] = 0.0
    seen = views(picture, wide, picture, narrow, outside=-1.0)
    assert torch.equal(seen.real, seen.generated)
    assert (seen.real[..., 40:] == -1.0).all()
    assert torch.equal(seen.field, narrow)


def test_scores_do_not_depend_on_the_rest_of_the_batch() -> None:
    torch.manual_seed(0)
    judge = Discriminator(8)
    pictures = torch.randn(3, 1, 64, 64)
    torch.testing.assert_close(judge(pictures)[1:2], judge(pictures[1:2]), atol=1e-5, rtol=1e-5)


def test_a_patch_sees_94_pixels() -> None:
    judge = Discriminator(4)
    for layer in judge.layers:
        if isinstance(layer, torch.nn.InstanceNorm2d):
            layer.forward = lambda x: x  # a norm would see the whole picture
    picture = torch.randn(1, 1, 192, 192, requires_grad=True)
    score = judge(picture)
    score[0, 0, score.shape[-2] // 2, score.shape[-1] // 2].backward()
    seen = picture.grad[0, 0].any(dim=1).nonzero()
    assert int(seen.max() - seen.min()) + 1 == 94


def test_judging_teaches_every_weight_of_the_judges_and_nothing_of_the_pictures() -> None:
    torch.manual_seed(0)
    judges = Discriminators(4)
    real, generated = (torch.randn(2, 1, 64, 64, requires_grad=True) for _ in range(2))
    field = torch.ones(2, 1, 64, 64)
    seen = {name: views(real, field, generated, field, 0.0) for name in judges.of}
    sum(part.square().sum() for scores in judges(seen).values() for part in scores).backward()
    assert [name for name, weight in judges.named_parameters() if not weight.grad.any()] == []
    assert real.grad is None
    assert generated.grad is None


def test_without_the_semantic_branch_there_are_two() -> None:
    assert list(Discriminators(4, semantic=False).of) == ["d_x", "d_y"]
