"""The loop: it goes on where it stopped, keeps what it promises, and says what went wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from calib.intensity import LANDMARK_GREYS
from casgan import checkpoint
from casgan.config import TrainConfig
from casgan.data import Pairs, phantom_pairs
from casgan.errors import CheckpointError, DataError, TrainingError
from casgan.presets import PRESETS
from casgan.schedule import step_seed
from casgan.train import Lessons, StopWish, stage_names, train
from casgan.unpaired import reference_greys


class AfterSteps(StopWish):
    """Somebody who wants the run to end after some steps."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def wanted(self) -> bool:
        self.left -= 1
        return self.left <= 0


def silent(_line: str) -> None:
    pass


def tensors(state: object, name: str = "") -> dict[str, torch.Tensor]:
    """All tensors of a nested state, by where they stand."""
    if isinstance(state, torch.Tensor):
        return {name: state}
    items = state.items() if isinstance(state, dict) else enumerate(state) if isinstance(state, list) else ()
    return {key: value for at, part in items for key, value in tensors(part, f"{name}/{at}").items()}


def test_a_run_that_is_stopped_and_resumed_comes_to_the_same_bits(
    brief: TrainConfig, lessons: Lessons, tmp_path: Path
) -> None:
    whole = train(brief, lessons, silent)
    other = replace(brief, out=str(tmp_path / "other"))
    # Once in each stage: after a step of the paired one, of the companions', of CAS-GAN's.
    for steps, expected in ((1, ("warm", 1)), (2, ("companions", 1)), (3, ("cas-gan", 2))):
        state = train(other, lessons, silent, AfterSteps(steps))
        assert (state["stage"], state["step"]) == expected
        assert not state["finished"]
    resumed = train(other, lessons, silent)
    assert resumed["finished"]
    expected_tensors, found = tensors(whole), tensors(resumed)
    assert found.keys() == expected_tensors.keys()
    assert [name for name, value in expected_tensors.items() if not torch.equal(found[name], value)] == []
    for stage in stage_names(brief):
        tables = [Path(run.out) / f"losses-{stage}.csv" for run in (brief, other)]
        assert tables[0].read_text() == tables[1].read_text()


def test_a_run_leaves_its_settings_its_losses_pictures_and_a_network(
    brief: TrainConfig, lessons: Lessons
) -> None:
    lines: list[str] = []
    state = train(brief, lessons, lines.append)
    folder = Path(brief.out)
    assert TrainConfig.from_dict(json.loads((folder / "config.json").read_text())) == brief
    with (folder / "losses-cas-gan.csv").open(newline="") as table:
        rows = list(csv.DictReader(table))
    assert [row["step"] for row in rows] == ["1", "2", "3"]
    assert {"d_x", "d_y", "d_sem", "prediction", "cycle_x", "shift"} < rows[0].keys()
    assert all(float(value) == float(value) for row in rows for value in row.values())
    assert sorted(path.stem for path in (folder / "samples").iterdir()) == [
        "cas-gan-000003",
        "companions-000002",
        "warm-000002",
    ]
    network, _, facts = checkpoint.taught_network(folder)
    assert (facts["stage"], facts["step"]) == ("cas-gan", 3)
    assert torch.equal(network.attention.conv.weight, state["average"]["attention.conv.weight"])
    assert lessons.unpaired is not None
    # What the card will say of the frames it was taught on; theirs were brought to the two landmarks.
    reference = [tuple(pair) for pair in facts["reference_greys"]]
    assert reference == list(reference_greys(lessons.unpaired.plain))
    assert (reference[0][1], reference[-1][1]) == pytest.approx(LANDMARK_GREYS, abs=0.03)
    assert any(line.startswith("cas-gan 3/3") and "steps/s" in line for line in lines)


def test_a_run_starts_from_what_another_has_learnt(
    brief: TrainConfig, lessons: Lessons, tmp_path: Path
) -> None:
    short = replace(brief, steps=0)
    train(short, lessons, silent)
    taught, _, facts = checkpoint.taught_network(Path(short.out))
    # So slow that the weights stay where they start.
    slow = replace(short, start_from=short.out, out=str(tmp_path / "on"), learning_rate=1e-9, seed=1)
    lines: list[str] = []
    train(slow, lessons, lines.append)
    went_on, _, its_facts = checkpoint.taught_network(Path(slow.out))
    assert torch.allclose(went_on.attention.conv.weight, taught.attention.conv.weight, atol=1e-6)
    assert lines[0] == f"starting from step 2 of warm in {short.out}"
    assert its_facts["former"] == [checkpoint.former_run(short, facts)]
    third = replace(slow, start_from=slow.out, out=str(tmp_path / "third"))
    assert len(train(third, lessons, silent, AfterSteps(1))["former"]) == 2
    assert len(train(third, lessons, silent)["former"]) == 2


def test_a_start_of_another_preset_or_of_nothing_is_refused(
    brief: TrainConfig, lessons: Lessons, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(replace(brief, steps=0), lessons, silent)
    monkeypatch.setitem(PRESETS, "other", replace(PRESETS["tiny"], predictor_blocks=2))
    other = replace(brief, preset="other", start_from=brief.out, out=str(tmp_path / "on"))
    with pytest.raises(CheckpointError, match=r"needs a run of preset other, got .* of preset tiny; give"):
        train(other, lessons, silent)
    with pytest.raises(CheckpointError, match="needed a checkpoint, found none"):
        train(replace(other, start_from=str(tmp_path / "nowhere")), lessons, silent)


def test_a_stage_of_no_steps_is_left_out(brief: TrainConfig, lessons: Lessons) -> None:
    assert stage_names(replace(brief, steps=0)) == ["warm"]
    assert stage_names(replace(brief, warm_steps=0, companion_steps=0)) == ["cas-gan"]
    state = train(replace(brief, warm_steps=0, companion_steps=0, steps=1), lessons, silent)
    assert state["stage"] == "cas-gan"


@pytest.mark.parametrize("part", ["drl", "vsgg", "vsgl"])
def test_a_run_without_a_part_of_the_method_goes_through(
    brief: TrainConfig, lessons: Lessons, part: str
) -> None:
    state = train(replace(brief, without=(part,), warm_steps=1, companion_steps=1, steps=1), lessons, silent)
    assert state["finished"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        pytest.param({"seed": 1}, "other settings: seed is 0 there, 1 here; give the same", id="seed"),
        pytest.param({"preset": "compact-s"}, "preset is 'tiny' there, 'compact-s' here", id="preset"),
        pytest.param({"resume": "never"}, "already holds a run; choose another --out", id="never"),
    ],
)
def test_a_run_of_other_settings_is_refused_with_what_differs(
    brief: TrainConfig, lessons: Lessons, settings: dict[str, Any], message: str
) -> None:
    train(brief, lessons, silent, AfterSteps(1))
    with pytest.raises(CheckpointError, match=message):
        train(
            replace(brief, size=64, **settings) if "preset" in settings else replace(brief, **settings),
            lessons,
        )


def test_a_run_of_other_data_is_refused(brief: TrainConfig, lessons: Lessons) -> None:
    train(brief, lessons, silent, AfterSteps(1))
    with pytest.raises(CheckpointError, match=r"other data: pairs [0-9a-f]{12} there"):
        train(brief, replace(lessons, pairs=phantom_pairs(64, range(5, 7), 1)), silent)


def test_threads_and_where_it_is_kept_may_change(brief: TrainConfig, lessons: Lessons) -> None:
    train(brief, lessons, silent, AfterSteps(1))
    state = train(replace(brief, save_every=1, sample_minutes=0.0), lessons, silent, AfterSteps(1))
    assert (state["step"], state["finished"]) == (2, False)


def test_a_loss_that_is_not_finite_ends_the_run_by_its_name_and_keeps_the_last_good_checkpoint(
    brief: TrainConfig, pairs: Pairs
) -> None:
    many = Pairs(
        *(part.repeat(8, 1, 1, 1) for part in (pairs.plain, pairs.angiogram, pairs.mask, pairs.line))
    )
    config = replace(brief, warm_steps=8, warm_batch=1, save_every=1, steps=0)
    drawn = [
        int(torch.randint(len(many), (1,), generator=torch.Generator().manual_seed(step_seed(0, 0, step, 0))))
        for step in range(8)
    ]
    first = next(step for step in range(1, 8) if drawn[step] not in drawn[:step])
    many.plain[drawn[first]] = float("nan")
    with pytest.raises(
        TrainingError,
        match=rf"the loss error became nan in step {first + 1} of warm; .* is whole \(warm, step {first}\)",
    ):
        train(config, Lessons(many), silent)
    _, state = checkpoint.load(Path(config.out))
    assert state["step"] == first
    assert all(torch.isfinite(weight).all() for weight in state["average"].values())


def test_out_of_memory_says_what_to_lower(brief: TrainConfig, pairs: Pairs) -> None:
    config = replace(brief, warm_batch=10**7, steps=0)
    with pytest.raises(
        TrainingError, match=r"out of memory in step 1 of warm: lower --warm-batch \(now 10000000\)"
    ):
        train(
            config,
            Lessons(
                Pairs(
                    *(
                        part.expand(2, 1, 64, 64).repeat(1, 1, 16, 16)
                        for part in (pairs.plain, pairs.angiogram, pairs.mask, pairs.line)
                    )
                )
            ),
            silent,
        )


SCRIPT = """
import sys
from casgan.config import TrainConfig
from casgan.train import train_command
sys.exit(train_command(TrainConfig(
    out=sys.argv[1], preset="compact-s", size=64, patients=2, warm_steps=100_000, steps=0, warm_batch=1,
    threads=1, save_every=1000, sample_minutes=0.0)))
"""


def test_ctrl_c_and_a_polite_kill_leave_a_checkpoint(tmp_path: Path) -> None:
    signals = {"int": signal.SIGINT, "term": signal.SIGTERM}
    runs = {
        name: subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(tmp_path / name)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            cwd=Path(__file__).resolve().parents[2],
        )
        for name in signals
    }
    try:
        for name, run in runs.items():
            assert run.stdout is not None
            lines = iter(run.stdout.readline, "")
            assert any(line.startswith("warm 10/") for line in lines)
            run.send_signal(signals[name])
        for name, run in runs.items():
            out, err = run.communicate(timeout=60)
            assert run.returncode == 130, err
            assert "of warm is kept in" in out
            _, state = checkpoint.load(tmp_path / name)
            assert state["step"] > 0
    finally:
        for run in runs.values():
            run.kill()
            run.wait()


def test_a_folder_that_cannot_be_learned_from_is_refused_before_anything_is_taught(
    brief: TrainConfig, pairs: Pairs, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match="nowhere"):
        train(replace(brief, data=str(tmp_path / "nowhere")), Lessons(pairs), lambda _line: None)
    assert not (Path(brief.out) / checkpoint.NAME).exists()
