"""One step of CAS-GAN: who learns, who must not, and what a second process changes."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from casgan.cas_gan_stage import CasGanStage
from casgan.config import TrainConfig
from casgan.errors import TrainingError
from casgan.losses import moved
from casgan.presets import PRESETS
from casgan.processes import start
from casgan.segmenter import VesselSegmenter
from casgan.stage import Learner, with_statistics_of
from casgan.train import Lessons
from casgan.training_networks import Batch
from casgan.unpaired import Unpaired


@pytest.fixture
def stage(brief: TrainConfig, lessons: Lessons) -> CasGanStage:
    fabric, _ = start(brief)
    torch.manual_seed(0)
    assert lessons.unpaired is not None
    return CasGanStage(fabric, brief, lessons.unpaired, {}, lessons.segmenter, lessons.pairs)


def weights(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in learner.module.named_parameters()}


def test_a_step_teaches_every_network_of_both_sides(stage: CasGanStage) -> None:
    before = weights(stage.networks) | weights(stage.judges)
    losses = stage.step(2, torch.Generator().manual_seed(0))
    assert all(abs(value) < 1e4 for value in losses.values())
    for learner in (stage.networks, stage.judges):
        dead = [name for name, weight in learner.module.named_parameters() if not weight.grad.any()]
        assert dead == []
        assert [name for name, weight in weights(learner).items() if torch.equal(weight, before[name])] == []


def test_known_pairs_are_learnt_from_too(stage: CasGanStage) -> None:
    losses = stage.step(0, torch.Generator().manual_seed(0))
    assert losses["anchor"] > 0
    stage.pairs = None
    assert "anchor" not in stage.step(1, torch.Generator().manual_seed(0))


def test_the_frozen_segmenter_stays_as_it_was(stage: CasGanStage, lessons: Lessons) -> None:
    segmenter = lessons.segmenter
    assert segmenter is not None
    before = {name: value.clone() for name, value in segmenter.state_dict().items()}
    stage.step(0, torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[name]) for name, value in segmenter.state_dict().items())
    assert all(weight.grad is None for weight in segmenter.parameters())


def test_each_side_learns_in_its_own_half_of_a_step(
    stage: CasGanStage, monkeypatch: pytest.MonkeyPatch
) -> None:
    halves = []
    for own, other in ((stage.networks, stage.judges), (stage.judges, stage.networks)):

        def learn(
            *given: object, own: Learner = own, other: Learner = other, step: object = own.learn
        ) -> float:
            before, foreign = weights(own), weights(other)
            gradients = [weight.grad for weight in other.module.parameters()]
            norm = step(*given)
            assert not all(torch.equal(value, before[name]) for name, value in weights(own).items())
            assert all(torch.equal(value, foreign[name]) for name, value in weights(other).items())
            assert all(a is b.grad for a, b in zip(gradients, other.module.parameters(), strict=True))
            halves.append(own)
            return norm

        monkeypatch.setattr(own, "learn", learn)
    stage.step(0, torch.Generator().manual_seed(0))
    assert halves == [stage.networks, stage.judges]


def test_the_same_draw_gives_the_same_step(brief: TrainConfig, lessons: Lessons) -> None:
    fabric, _ = start(brief)
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        assert lessons.unpaired is not None
        stage = CasGanStage(fabric, brief, lessons.unpaired, {}, lessons.segmenter, lessons.pairs)
        found.append(stage.step(0, torch.Generator().manual_seed(5)))
    assert found[0] == found[1]


def test_exported_statistics_are_those_of_the_live_path(stage: CasGanStage) -> None:
    stage.step(0, torch.Generator().manual_seed(0))
    kept = stage.average()
    x = torch.randn(4, 1, 64, 64)
    fresh = with_statistics_of(kept, [x])
    norm = fresh.background.layers[1].norm
    entering = fresh.background.layers[1].conv(fresh.background.layers[0](x))
    torch.testing.assert_close(norm.running_mean, entering.mean(dim=(0, 2, 3)), atol=1e-5, rtol=1e-4)
    for plane, expected in zip(fresh.folded()(x), fresh(x), strict=True):
        torch.testing.assert_close(plane, expected, atol=2e-5, rtol=2e-5)


def test_frozen_norms_keep_their_statistics(brief: TrainConfig, lessons: Lessons) -> None:
    fabric, _ = start(brief)
    assert lessons.unpaired is not None
    stage = CasGanStage(
        fabric, replace(brief, frozen_norms=True), lessons.unpaired, {}, lessons.segmenter, lessons.pairs
    )
    before = {name: value.clone() for name, value in stage.networks.module.named_buffers()}
    stage.step(0, torch.Generator().manual_seed(0))
    assert all(torch.equal(value, before[name]) for name, value in stage.networks.module.named_buffers())


def test_pictures_are_not_rounded_to_sixteen_bits(brief: TrainConfig, lessons: Lessons) -> None:
    fabric, _ = start(replace(brief, precision="bf16"))
    assert lessons.unpaired is not None
    stage = CasGanStage(fabric, brief, lessons.unpaired, {}, lessons.segmenter, lessons.pairs)
    x = torch.rand(2, 1, 64, 64)
    nowhere = torch.zeros_like(x)
    with torch.no_grad():
        made = stage.networks.wrapped(Batch(x, nowhere, x, nowhere, x[:1], torch.zeros(4, 1, 64, 64), x[:0]))
    assert torch.equal(made.y_g, x)


def test_sixteen_bits_on_a_cpu_are_refused(brief: TrainConfig) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU does 16 bits")
    with pytest.raises(TrainingError, match="precision 16 needs a GPU, found a CPU alone"):
        start(replace(brief, precision="16"))


def shared_batch(part: slice) -> Batch:
    """Some pictures of one batch of four."""
    rng = torch.Generator().manual_seed(7)
    x, y = 2.0 * torch.rand(2, 4, 1, 64, 64, generator=rng) - 1.0
    field = torch.ones(4, 1, 64, 64)
    field[1, :, :, :20] = 0.0
    hush = 0.02 * torch.randn(2, 4, 1, 64, 64, generator=rng)
    second = y[part], field.flip(0)[part], moved(x, 1, 2)[part], hush[:, part].flatten(0, 1)
    return Batch(x[part], field[part], *second, x[:0])


def two_steps(config: TrainConfig) -> tuple[list[dict[str, float]], float]:
    """Losses of two steps on this process's share of the shared batch, and a sum over all weights after them."""
    fabric, _ = start(config)
    torch.manual_seed(0)
    # Frames are not drawn here: the batch is given.
    none = Unpaired.__new__(Unpaired)
    stage = CasGanStage(fabric, config, none, {}, VesselSegmenter(4), None)
    segmenter = VesselSegmenter(4).eval()
    stage.segment = lambda picture, _draw: torch.sigmoid(segmenter(picture))
    share = 4 // fabric.world_size
    part = slice(fabric.global_rank * share, (fabric.global_rank + 1) * share)
    rng = torch.Generator()
    losses = [stage.learn(index, shared_batch(part), (1, 2), rng) for index in range(2)]
    total = sum(float(weight.detach().double().abs().sum()) for weight in stage.networks.module.parameters())
    return losses, total


def test_two_processes_learn_what_one_does_with_the_doubled_batch(brief: TrainConfig, tmp_path: Path) -> None:
    config = replace(brief, frozen_norms=True)
    expected, total = two_steps(config)
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node=2",
            __file__,
            str(tmp_path),
        ],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2)]
    assert found[0] == found[1]
    losses, weights_total = found[0]
    for step, step_expected in zip(losses, expected, strict=True):
        assert step == pytest.approx(step_expected, rel=2e-3, abs=1e-4)
    assert weights_total == pytest.approx(total, rel=1e-5)


if __name__ == "__main__":
    from tests.casgan.conftest import TINY  # run by torchrun, one process of two

    PRESETS["tiny"] = TINY
    torch.set_num_threads(1)
    told = TrainConfig(
        preset="tiny", steps=3, batch=2, discriminator_width=4, precision="32", threads=1, frozen_norms=True
    )
    (Path(sys.argv[1]) / f"{os.environ['RANK']}.json").write_text(json.dumps(two_steps(told)))
