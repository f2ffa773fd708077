"""What a run learns from follows from its settings, and nothing serves two ends."""

from dataclasses import replace
from pathlib import Path

import pytest

from casgan.config import EVALUATION_SEEDS, SEGMENTER_SEEDS, TrainConfig
from casgan.errors import CheckpointError, DataError, TrainingError
from casgan.lessons import HELD_SEEDS, LEARNT_SEEDS, SEGMENTER_NAME, frames_of, pairs_of, segmenter_of
from casgan.processes import start
from casgan.segmenter import JUDGE_SEEDS, VesselSegmenter, save_segmenter
from casgan.unpaired import Unpaired

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "angiodata_cine"


def silent(_line: str) -> None:
    pass


def test_phantom_patients_never_serve_two_ends(brief: TrainConfig) -> None:
    config = replace(brief, patients=2, frames_per_patient=1)
    frames = frames_of(config, silent)
    assert frames.plain.patients == ("phantom 1002", "phantom 1003")
    assert frames.filled.patients == ("phantom 1004", "phantom 1005")
    assert len(pairs_of(config, None, silent)) == 2  # of 1000 and 1001
    kept = [EVALUATION_SEEDS, LEARNT_SEEDS, HELD_SEEDS, JUDGE_SEEDS]
    assert sum(len(seeds) for seeds in kept) == len(set().union(*kept))
    assert set(LEARNT_SEEDS) | set(HELD_SEEDS) | set(JUDGE_SEEDS) <= set(SEGMENTER_SEEDS)


def test_without_the_semantic_loss_there_is_no_segmenter(brief: TrainConfig) -> None:
    fabric, _ = start(brief)
    assert segmenter_of(replace(brief, without=("vsgl",)), fabric, silent) is None


def test_the_segmenter_that_is_named_is_taken(brief: TrainConfig, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_segmenter(VesselSegmenter(6), path, {})
    fabric, _ = start(brief)
    found = segmenter_of(replace(brief, segmenter=str(path)), fabric, silent)
    assert found is not None
    assert found.base == 6
    assert not any(weight.requires_grad for weight in found.parameters())


def test_a_segmenter_that_is_named_but_missing_is_refused(brief: TrainConfig) -> None:
    fabric, _ = start(brief)
    with pytest.raises(CheckpointError, match=r"found no gone\.safetensors"):
        segmenter_of(replace(brief, segmenter="gone.safetensors"), fabric, silent)


def test_the_run_s_own_segmenter_is_taught_once_and_kept(
    brief: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casgan.lessons.LEARNT_SEEDS", range(3000, 3002))
    monkeypatch.setattr("casgan.lessons.HELD_SEEDS", range(3200, 3201))
    monkeypatch.setattr("casgan.lessons.LEAST_DICE", 0.0)
    config = replace(brief, segmenter_steps=1)
    fabric, _ = start(config)
    lines: list[str] = []
    assert segmenter_of(config, fabric, lines.append) is not None
    path = Path(config.out) / SEGMENTER_NAME
    written = path.read_bytes()
    assert len(lines) == 2
    assert segmenter_of(config, fabric, lines.append) is not None
    assert path.read_bytes() == written
    assert len(lines) == 2


def test_a_segmenter_that_knows_no_vessel_is_refused_and_not_kept(
    brief: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("casgan.lessons.LEARNT_SEEDS", range(3000, 3002))
    monkeypatch.setattr("casgan.lessons.HELD_SEEDS", range(3200, 3201))
    config = replace(brief, segmenter_steps=1)
    fabric, _ = start(config)
    with pytest.raises(
        TrainingError, match=r"Dice 0\.3 or more, got 0\.\d+ after 1 steps.*raise --segmenter-steps"
    ):
        segmenter_of(config, fabric, silent)
    assert not (Path(config.out) / SEGMENTER_NAME).exists()


def test_a_folder_that_is_not_there_is_refused(brief: TrainConfig, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        frames_of(replace(brief, data=str(tmp_path / "nowhere")), silent)


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no real frames at {REAL}")
def test_the_decisions_on_a_site_s_frames_lie_in_the_run_s_folder(brief: TrainConfig) -> None:
    config = replace(brief, data=str(REAL), test_patients=("Patient_6", "Patient_7"))
    frames = frames_of(config, silent)
    assert len(frames.plain) > 0
    assert len(frames.filled) > 0
    assert (Path(config.out) / "decisions.csv").read_text().startswith("patient,run,frame")


def test_a_share_of_the_pairs_lies_on_the_folder_s_own_frames(brief: TrainConfig, unpaired: Unpaired) -> None:
    config = replace(brief, data="a folder", patients=3, frames_per_patient=1, inlay=0.34)
    lines: list[str] = []
    pairs = pairs_of(config, unpaired, lines.append)
    assert len(pairs) == 3
    assert (
        lines[1]
        == f"1 of them are laid into {len(unpaired.plain)} contrast-free frames, at places that mean nothing"
    )
    backgrounds = (unpaired.plain.grey.float() / 255.0).half()
    on_frames = [bool((plain == backgrounds).flatten(1).all(1).any()) for plain in pairs.plain]
    assert on_frames == [False, False, True]
