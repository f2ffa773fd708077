"""Training: it learns, it goes on where it stopped, and it keeps what it promises on Ctrl-C."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from casgan import checkpoint
from casgan.config import TrainConfig
from casgan.data import Pairs, augmented_batch, batch_of, phantom_pairs
from casgan.errors import CheckpointError
from casgan.metrics import evaluate
from casgan.networks import Generator, blend, clamp_attention
from casgan.presets import PresetConfig
from casgan.train import Logits, total_error, train


@pytest.fixture(scope="module")
def pairs() -> Pairs:
    return phantom_pairs(64, range(2), 1)


@pytest.fixture
def config(tmp_path: Path) -> TrainConfig:
    return TrainConfig(
        out=str(tmp_path / "run"), preset="compact-s", steps=4, batch=2, size=64, threads=1, save_every=2
    )


def silent(_line: str) -> None:
    pass


def test_a_network_learns_two_phantoms_by_heart(pairs: Pairs) -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)
    network = Logits(Generator(PresetConfig("small", 64, 4, (16, 32), 1, 1, 1)))
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3)
    batch = batch_of(pairs, torch.arange(2))
    errors = []
    for _ in range(80):
        error = total_error(network, batch, 0.1)
        optimizer.zero_grad()
        error.backward()
        optimizer.step()
        errors.append(float(error.detach()))
    assert errors[-1] < 0.5 * errors[0]
    attention, context = network.generator(batch[0])
    attention = clamp_attention(attention, 0.1)
    generated = blend(batch[0], attention, context)
    untouched = attention == 0
    assert 0.3 < untouched.float().mean() < 1.0
    assert torch.equal(generated[untouched], batch[0][untouched])
    # The vessels are darker than before, and nearer to the truth than the picture without them.
    measured = evaluate(network.generator, batch, 0.1)
    assert measured["darkening"] > 0
    assert measured["vessel_error"] < measured["identity_error"]


def test_ctrl_c_leaves_a_checkpoint_and_the_run_goes_on_as_if_uninterrupted(
    pairs: Pairs, config: TrainConfig, tmp_path: Path
) -> None:
    whole = train(config, pairs, silent)
    other = replace(config, out=str(tmp_path / "other"))
    taken = 0

    def press_ctrl_c_in_the_fourth_step(pool: Pairs, count: int, rng: torch.Generator) -> object:
        nonlocal taken
        taken += 1
        if taken == 4:
            raise KeyboardInterrupt
        return augmented_batch(pool, count, rng)

    lines: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("casgan.train.augmented_batch", press_ctrl_c_in_the_fourth_step)
        with pytest.raises(KeyboardInterrupt):
            train(other, pairs, lines.append)
    assert "stopped; step 3 of 4 is kept" in lines[-1]
    resumed = train(other, pairs, lines.append)
    assert "going on from step 3" in lines
    for name, weight in whole["average"].items():
        torch.testing.assert_close(resumed["average"][name], weight, msg=name)


def test_a_run_with_other_settings_is_not_overwritten(pairs: Pairs, config: TrainConfig) -> None:
    train(config, pairs, silent)
    with pytest.raises(
        CheckpointError, match="holds a run with other settings or data; choose another --out"
    ):
        train(replace(config, seed=1), pairs, silent)


def test_the_taught_network_is_the_average_with_its_settings(pairs: Pairs, config: TrainConfig) -> None:
    state = train(config, pairs, silent)
    network, read, facts = checkpoint.taught_network(Path(config.out))
    assert read == config
    assert (facts["step"], facts["data_sha256"]) == (4, pairs.sha256())
    assert torch.equal(network.attention.conv.weight, state["average"]["attention.conv.weight"])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(None, "found none at", id="missing"),
        pytest.param(b"not a checkpoint", "must be a checkpoint of this version", id="text"),
    ],
)
def test_a_folder_without_a_usable_checkpoint_is_refused(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / checkpoint.NAME).write_bytes(content)
    with pytest.raises(CheckpointError, match=message):
        checkpoint.load(tmp_path)


def test_augmentation_keeps_pairs_equal_beyond_the_vessels_and_repeats_from_its_seed(pairs: Pairs) -> None:
    plain, angiogram, mask = augmented_batch(pairs, 8, torch.Generator().manual_seed(5))
    again = augmented_batch(pairs, 8, torch.Generator().manual_seed(5))
    assert torch.equal(plain, again[0])
    assert plain.min() >= -1
    assert plain.max() <= 1
    # The mask grown by four pixels covers focal blur and the augmentation's own.
    near = torch.nn.functional.max_pool2d(mask, 9, stride=1, padding=4) > 0
    assert torch.equal(plain[~near], angiogram[~near])
    assert (plain - angiogram)[mask > 0.5].mean() > 0.005


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"preset": "huge"}, "preset must be one of compact, .* got 'huge'", id="preset"),
        pytest.param({"steps": 0}, "steps must be 1 or above, got 0", id="steps"),
        pytest.param({"size": 100}, "multiple of 8, 64 or above, got 100", id="size"),
        pytest.param({"threshold": 1.0}, "threshold and ema must be 0 to below 1", id="threshold"),
        pytest.param({"learning_rate": float("nan")}, "learning_rate must be above 0", id="rate"),
    ],
)
def test_bad_settings_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainConfig(**settings)
