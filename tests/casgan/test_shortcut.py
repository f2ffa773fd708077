"""The probe tells an encoder that passes vessels on from one that cannot see them."""

import pytest
import torch

from casgan.data import Pairs, phantom_pairs
from casgan.networks import Generator
from casgan.presets import PresetConfig
from casgan.shortcut import vessel_shortcut

SMALL = PresetConfig("small", 128, 2, (8, 16), 1, 1, 1)


@pytest.fixture(scope="module")
def many() -> Pairs:
    return phantom_pairs(128, range(30, 46), 1)


def test_vessels_are_found_in_what_an_encoder_passes_on(many: Pairs) -> None:
    torch.manual_seed(0)
    found = vessel_shortcut(Generator(SMALL), many)
    # A random encoder passes on what it is shown.
    assert found.head_from_y > found.head_from_x + 0.1
    assert found.distance > 0.01


def test_an_encoder_that_cannot_see_contrast_shows_no_shortcut(many: Pairs) -> None:
    torch.manual_seed(0)
    blind = Pairs(many.plain, many.plain, many.mask, many.line)
    found = vessel_shortcut(Generator(SMALL), blind)
    assert found.head_from_y == found.head_from_x
    assert found.drawn_from_y == found.drawn_from_x
    assert found.distance == 0


def test_the_probe_leaves_the_network_as_it_was(many: Pairs) -> None:
    generator = Generator(SMALL).train()
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    vessel_shortcut(generator, many)
    assert generator.training
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert all(weight.grad is None for weight in generator.parameters())


def test_too_few_pairs_are_refused(pairs: Pairs) -> None:
    with pytest.raises(ValueError, match="needs 4 pairs or more, got 2"):
        vessel_shortcut(Generator(SMALL), pairs)
