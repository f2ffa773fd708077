"""CAS-GAN's rivals, each small enough to be taught in a second."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from casgan import checkpoint
from casgan.config import TrainConfig
from casgan.discriminators import Views
from casgan.errors import CheckpointError
from casgan.methods.cut import contrast
from casgan.methods.derived import LEVEL, DerivedGenerator, derived_logits
from casgan.methods.munit import STYLES, MunitPath
from casgan.methods.names import METHODS, PARTS, attention_of, title_of
from casgan.methods.pool import Pool
from casgan.methods.registry import PATHS, RIVALS, live_path, rival_stage
from casgan.methods.stage import MethodStage
from casgan.networks import Generator, blend, clamp_attention, multiply_accumulates
from casgan.presets import PRESETS, PresetConfig
from casgan.processes import start
from casgan.train import Lessons, StopWish, stage_names, train


@pytest.fixture(params=RIVALS)
def rival(request: pytest.FixtureRequest, brief: TrainConfig) -> TrainConfig:
    """A run of two steps of one method."""
    return replace(brief, method=request.param, steps=2)


@pytest.fixture
def stage(rival: TrainConfig, lessons: Lessons) -> MethodStage:
    fabric, _ = start(rival)
    torch.manual_seed(0)
    assert lessons.unpaired is not None
    return rival_stage(fabric, rival, lessons.unpaired, None)


class AfterOne(StopWish):
    """Somebody who wants the run to end after its first step."""

    def wanted(self) -> bool:
        return True


def test_a_step_teaches_every_parameter_of_both_sides(stage: MethodStage) -> None:
    sides = (stage.networks, stage.judges)
    before = [{n: w.detach().clone() for n, w in side.module.named_parameters()} for side in sides]
    losses = stage.step(0, torch.Generator().manual_seed(0))
    assert {name for name in losses if name.startswith("persuade_")} == {
        f"persuade_{name}" for name in type(stage.networks.module).judges
    }
    for side, old in zip(sides, before, strict=True):
        dead = [name for name, weight in side.module.named_parameters() if not weight.grad.any()]
        assert dead == []
        assert [n for n, w in side.module.named_parameters() if torch.equal(w, old[n])] == []


def test_what_is_not_adversarial_falls_on_a_few_pictures(rival: TrainConfig, lessons: Lessons) -> None:
    config = replace(rival, steps=1000, gan_learning_rate=3e-3)
    fabric, _ = start(config)
    torch.manual_seed(0)
    assert lessons.unpaired is not None
    stage = rival_stage(fabric, config, lessons.unpaired, None)

    def error(losses: dict[str, float]) -> float:
        weights = {name: weight for name, weight in stage.weights.items() if name != "adversarial"}
        return sum(weight * losses[name] for name, weight in weights.items())

    # The same draw each time: the same pictures, moved alike.
    found = [error(stage.step(0, torch.Generator().manual_seed(1))) for _ in range(8)]
    assert sum(found[-2:]) / 2 < 0.95 * found[0]


def test_a_stopped_run_comes_to_the_same_bits_and_its_network_comes_back(
    rival: TrainConfig, lessons: Lessons, tmp_path: Path
) -> None:
    whole = train(rival, lessons, lambda _line: None)
    other = replace(rival, out=str(tmp_path / "other"))
    assert not train(other, lessons, lambda _line: None, AfterOne())["finished"]
    resumed = train(other, lessons, lambda _line: None)
    assert [n for n, w in whole["average"].items() if not torch.equal(w, resumed["average"][n])] == []
    network, config, facts = checkpoint.taught_network(Path(other.out))
    assert (config.method, facts["stage"], facts["step"]) == (rival.method, "unpaired", 2)
    assert type(network) is PATHS[rival.method]
    plain, angiogram = torch.rand(2, 1, 1, 64, 64) - 0.5
    for found, kept in zip(network.folded().logits(plain), network.logits(plain), strict=True):
        torch.testing.assert_close(found, kept, atol=1e-4, rtol=1e-4)
    assert not torch.equal(network(plain)[1], network(angiogram)[1])


def test_another_method_in_the_same_folder_is_refused_naming_both(
    brief: TrainConfig, lessons: Lessons, tmp_path: Path
) -> None:
    config = replace(brief, method="cut", steps=1)
    train(config, lessons, lambda _line: None)
    with pytest.raises(CheckpointError, match="method is 'cut' there, 'cyclegan' here"):
        train(replace(config, method="cyclegan"), lessons, lambda _line: None)
    fresh = replace(config, method="unit", start_from=config.out, out=str(tmp_path / "unit"))
    with pytest.raises(CheckpointError, match=r"needs a run of UNIT, got .* of CUT; give --method cut"):
        train(fresh, lessons, lambda _line: None)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"method": "cylcegan"}, "got 'cylcegan'; did you mean cyclegan?"),
        ({"method": "diffusion"}, r"one of casgan, .*, attentiongan, got 'diffusion'$"),
        ({"method": "cut", "without": ("drl",)}, "leaves parts out of casgan, got --method cut without drl"),
        ({"method": "cut", "steps": 0}, "steps must be 1 or above for cut"),
    ],
)
def test_a_wrong_method_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        TrainConfig(**given)  # type: ignore[arg-type]


def test_a_rival_has_one_stage_and_draws_without_a_clamp() -> None:
    assert stage_names(TrainConfig(method="munit")) == ["unpaired"]
    assert TrainConfig(method="munit").drawn_above == 0.0
    assert TrainConfig(without=("vsgg",)).drawn_above == 0.0
    assert TrainConfig().drawn_above == 0.1
    assert [name for name in METHODS if attention_of(name, ()) == "own"] == ["casgan", "attentiongan"]
    assert title_of("casgan", ("vsgl", "drl")) == "CAS-GAN without DRL and VSGL"
    assert attention_of("casgan", PARTS) == "derived"


def test_a_derived_attention_draws_the_methods_own_picture() -> None:
    rng = torch.Generator().manual_seed(0)
    x = 1.2 * torch.rand(1, 1, 64, 64, generator=rng) - 0.6
    y_g = (x + 0.5 * (torch.rand(1, 1, 64, 64, generator=rng) - 0.6)).clamp(-1.0, 1.0)
    y_g[..., :8] = x[..., :8]
    attention, context = derived_logits(x, y_g)
    shares, greys = torch.sigmoid(attention), torch.tanh(context)
    assert bool((torch.round(255.0 * shares[..., :8]) == 0).all())
    assert attention.isfinite().all()
    assert context.isfinite().all()
    # A and C stay 2^-8 from their ends, and below one level C changes its sign in a straight line.
    assert float((blend(x, shares, greys) - y_g).abs().max()) < 0.6 * LEVEL


def test_casgan_without_vsgg_draws_the_same_picture_through_a_derived_attention(tiny: PresetConfig) -> None:
    network = Generator(tiny).eval()
    with torch.no_grad():
        network.attention.conv.weight.zero_()
        network.attention.conv.bias.fill_(20.0)
    derived = live_path(tiny, "casgan", ("vsgg",)).eval()
    assert type(derived) is DerivedGenerator
    derived.load_state_dict(network.state_dict())
    x = 1.6 * torch.rand(1, 1, 64, 64) - 0.8
    with torch.no_grad():
        attention, context = network(x)
    own = blend(x, clamp_attention(attention, 0.1), context)
    with torch.no_grad():
        drawn = blend(x, *derived(x))
    assert float((drawn - own).abs().max()) < 0.6 * LEVEL + 0.004


@pytest.mark.parametrize("method", METHODS)
def test_a_network_held_in_sixteen_bits_draws_nearly_the_same(method: str, tiny: PresetConfig) -> None:
    # As the torch engine holds it on a GPU, without autocast: every layer must go on in what it was given.
    torch.manual_seed(0)
    network = live_path(tiny, method).eval().folded()
    picture = torch.rand(1, 1, 64, 64) * 2.0 - 1.0
    with torch.no_grad():
        exact = network.logits_and_latent(picture)
        coarse = network.to(torch.bfloat16).logits_and_latent(picture.to(torch.bfloat16))
    for one, other in zip(exact[:2], coarse[:2], strict=True):
        assert other.isfinite().all()
        assert (torch.tanh(one) - torch.tanh(other.float())).abs().mean() < 0.1


def test_the_styles_of_munit_are_fixed_averaged_and_counted(tiny: PresetConfig) -> None:
    path = MunitPath(tiny).eval()
    x = torch.rand(2, 1, 64, 64) - 0.5
    apart = torch.cat([path.picture(picture[None]) for picture in x])
    torch.testing.assert_close(path.picture(x), apart, atol=1e-5, rtol=1e-5)
    assert path.folded().styles is None
    single = multiply_accumulates(live_path(PRESETS["tiny"], "unit"), 64, 64)
    assert single < multiply_accumulates(path.folded(), 64, 64) < STYLES * single


def test_patches_are_told_apart_by_their_own_feature() -> None:
    features = torch.nn.functional.normalize(torch.randn(2, 50, 8), dim=2)
    assert float(contrast(features, features)) < 0.2 * float(contrast(features, features.flip(1)))


def test_a_pool_shows_earlier_pictures_once_it_is_full() -> None:
    pool, draw = Pool(2), torch.Generator().manual_seed(0)

    def shown(value: float) -> set[float]:
        views = Views(*(torch.full((1, 1, 2, 2), value + part / 10) for part in range(3)))
        given = pool.exchanged(views, draw)
        first = float(given.real[0, 0, 0, 0])
        # A real picture, a generated one and their field stay together.
        assert float(given.generated.mean()) == pytest.approx(first + 0.1)
        assert float(given.field.mean()) == pytest.approx(first + 0.2)
        return {first}

    assert [shown(value) for value in (1.0, 2.0)] == [{1.0}, {2.0}]
    later = set().union(*(shown(value) for value in (3.0, 4.0, 5.0, 6.0, 7.0, 8.0)))
    assert later & {1.0, 2.0}
    assert len(pool.state()) == 2
