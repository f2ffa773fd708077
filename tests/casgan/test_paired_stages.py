"""The paired stages learn: two phantoms by heart, and E_Vess, G_BG with them."""

from dataclasses import replace

import pytest
import torch

from casgan.config import TrainConfig
from casgan.data import Pairs, batch_of
from casgan.losses import DENSITY, total_error
from casgan.networks import Generator, blend, clamp_attention
from casgan.paired_stages import Companions, Logits, networks_of
from casgan.presets import PresetConfig
from casgan.processes import start


def test_a_network_learns_two_phantoms_by_heart_in_sixty_steps(pairs: Pairs) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = Logits(Generator(PresetConfig("small", 64, 4, (16, 32), 1, 1, 1)))
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    plain, angiogram, mask, line = batch_of(pairs, torch.arange(2))
    errors = []
    for _ in range(60):
        logit, context = network(plain)
        error = total_error(logit, context, plain, angiogram, mask, line, 0.1)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert all(error < 100 for error in errors)
    assert errors[-1] < 0.5 * errors[0]
    network.eval()
    with torch.no_grad():
        attention, context = network.generator(plain)
        logit, _ = network(plain)
    found = torch.sigmoid(logit) / DENSITY
    assert 2.0 * (found * mask).sum() / (found.sum() + mask.sum()) > 0.5
    attention = clamp_attention(attention, 0.1)
    generated = blend(plain, attention, context)
    untouched = attention == 0
    assert 0.3 < untouched.float().mean() < 1.0
    assert torch.equal(generated[untouched], plain[untouched])
    # The vessels are darker than before, and nearer to the truth than the picture without them.
    vessel = mask > 0.5
    assert (plain - generated)[vessel].mean() > 0
    assert (generated - angiogram)[vessel].abs().mean() < (plain - angiogram)[vessel].abs().mean()


@pytest.mark.parametrize(
    ("without", "terms"),
    [
        pytest.param(
            (), {"error", "reconstruct_x", "empty_y", "draw_y", "prediction", "blindness"}, id="full"
        ),
        pytest.param(("drl",), {"error", "reconstruct_x", "empty_y"}, id="without drl"),
    ],
)
def test_companions_learn_with_the_live_path(
    brief: TrainConfig, pairs: Pairs, without: tuple[str, ...], terms: set[str]
) -> None:
    torch.manual_seed(0)
    config = replace(brief, without=without, companion_steps=60, learning_rate=1e-2)
    fabric, _ = start(config)
    stage = Companions(fabric, config, pairs, {})
    losses = [stage.step(index, torch.Generator().manual_seed(index)) for index in range(25)]
    assert losses[0].keys() - {"gradient"} == terms
    dead = [name for name, weight in stage.learner.module.named_parameters() if not weight.grad.any()]
    assert dead == []
    for name in ("error", "reconstruct_x", "empty_y"):
        late, early = (sum(row[name] for row in rows) for rows in (losses[-5:], losses[:5]))
        assert late < 0.95 * early, name


def test_what_one_stage_taught_the_next_starts_from(brief: TrainConfig, pairs: Pairs) -> None:
    fabric, _ = start(brief)
    taught = Companions(fabric, brief, pairs, {}).handed_on()
    networks = networks_of(brief, taught)
    for name, weights in taught.items():
        found = getattr(networks, name).state_dict()
        assert all(torch.equal(found[key], value) for key, value in weights.items())


def test_without_drl_the_other_direction_starts_with_the_live_path_s_encoder(brief: TrainConfig) -> None:
    config = replace(brief, without=("drl",))
    generator = networks_of(config, {}).generator
    networks = networks_of(config, {"generator": generator.state_dict()})
    assert networks.other_encoder is not None
    for name, value in generator.background.state_dict().items():
        assert torch.equal(networks.other_encoder.state_dict()[name], value)
