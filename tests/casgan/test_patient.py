"""M taught on one patient: what it is taught, that it learns it, and what its file lets in."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from calib.bolus import AFTER, BEFORE, FILLED, Bolus
from calib.errors import CalibrationError
from calib.heart_phase import HeartPhase
from calib.patient_facts import FORMAT, PatientFacts, new_key, projection
from calib.patient_gate import PatientGate
from casgan.adapt import AdaptSettings, adapt, held_dice
from casgan.errors import CheckpointError, DataError
from casgan.networks import Generator
from casgan.patient_file import load_patient, save_patient
from casgan.patient_lessons import Lessons, matched, patient_lessons
from casgan.presets import PresetConfig
from casgan.roadmap import moved_along

SIZE = 64
SMALL = PresetConfig("small", SIZE, 4, (16, 32), 1, 2, 1, deep_widths=(32,))
MODEL = "a" * 64


def hearts(count: int, per_beat: float = 8.0) -> HeartPhase:
    turns = np.arange(count) / per_beat
    return HeartPhase(turns % 1.0, np.sin(np.arange(count) / 10.0) * 1.4, per_beat, 0.9)


def lessons_of(count: int, seed: int) -> Lessons:
    """A bright disc, and a vessel that always crosses it below its middle: the anatomy tells where it is."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:SIZE, :SIZE]
    plain, masks = [], []
    for _ in range(count):
        row, column = rng.integers(20, 40, 2)
        disc = (rows - row) ** 2 + (columns - column) ** 2 < 144
        plain.append(np.clip(90 + 80 * disc + rng.normal(0, 3, disc.shape), 0, 255).astype(np.uint8))
        masks.append((abs(rows - row - 6) < 2) & (abs(columns - column) < 14))
    return Lessons(np.stack(plain), np.stack(masks), 0.2)


@pytest.fixture(scope="module")
def general() -> Generator:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Generator(SMALL).folded()


@pytest.fixture(scope="module")
def adapted(general: Generator) -> Generator:
    # One thread: a second one waits for the first wherever other tests run beside it.
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    settings = AdaptSettings(steps=200, check_every=50, learning_rate=2e-2, shift=0.05, seconds=3600.0)
    try:
        return adapt(general, lessons_of(40, 1), lessons_of(8, 2), settings, 0.1).generator
    finally:
        torch.set_num_threads(threads)


def test_a_patients_vessels_are_learned_from_frames_that_show_none(
    general: Generator, adapted: Generator
) -> None:
    unseen = lessons_of(12, 3)
    assert held_dice(general, unseen) < 0.02
    assert held_dice(adapted, unseen) > 0.1


def test_nothing_but_m_and_the_decoders_is_changed(general: Generator, adapted: Generator) -> None:
    changed = {
        name.split(".")[0]
        for name, value in adapted.state_dict().items()
        if not torch.equal(value, general.state_dict()[name])
    }
    assert changed == {"predictor", "decoders"}


def test_a_frame_is_paired_only_with_one_of_its_own_moment() -> None:
    heart = hearts(80)
    free, filled = np.arange(0, 60), np.arange(60, 80)
    rows, columns = matched(free, filled, heart)
    assert len(rows)
    apart = np.abs(heart.phase[rows] - heart.phase[filled[columns]])
    assert np.minimum(apart, 1.0 - apart).max() <= 0.05 + 1e-9
    assert np.abs(heart.breath[rows] - heart.breath[filled[columns]]).max() <= 0.2 + 1e-9


def recorded(before: int, filled: int, after: int) -> tuple[np.ndarray, Bolus, HeartPhase]:
    states = (BEFORE,) * before + (FILLED,) * filled + (AFTER,) * after
    areas = np.array([0.1 if state == FILLED else 0.01 for state in states])
    grey = np.random.default_rng(0).integers(60, 200, (len(states), SIZE, SIZE)).astype(np.uint8)
    heart = hearts(len(states))
    return grey, Bolus(states, areas, 0.01, 0.1), replace(heart, breath=np.zeros(len(states)))


def stripes(filled: np.ndarray, free: np.ndarray) -> np.ndarray:
    masks = np.zeros((len(filled), SIZE, SIZE), bool)
    masks[:, 30:33] = True
    return masks


def test_what_is_held_out_is_another_heartbeat_behind_other_frames() -> None:
    grey, bolus, heart = recorded(96, 40, 0)
    found = patient_lessons(grey, bolus, heart, stripes)
    learned = {frame.tobytes() for frame in found.learn.plain}
    assert len(found.learn) >= 24
    assert len(found.held) >= 6
    assert not learned & {frame.tobytes() for frame in found.held.plain}
    assert not learned & {frame.tobytes() for frame in grey[bolus.filled]}


@pytest.mark.parametrize(
    ("before", "filled", "said"),
    [
        (96, 12, r"needed 2 filled heartbeats or more \(16 frames.*got 1\.\d; inject for longer"),
        (
            6,
            40,
            r"needed 10 heartbeats or more without contrast medium \(80 frames.*got 6 contrast-free frames",
        ),
    ],
    ids=["short injection", "no lead"],
)
def test_a_recording_that_is_too_short_is_told_how_many_heartbeats_it_needs(
    before: int, filled: int, said: str
) -> None:
    grey, bolus, heart = recorded(before, filled, 0)
    with pytest.raises(DataError, match=said):
        patient_lessons(grey, bolus, heart, stripes)


def test_vessels_move_with_the_background_under_optical_flow() -> None:
    rng = np.random.default_rng(4)
    texture = np.kron(rng.integers(60, 200, (16, 16)), np.ones((8, 8))).astype(np.uint8)
    mask = np.zeros((128, 128), bool)
    mask[60:64, 30:100] = True
    moved = moved_along(mask, texture, np.roll(texture, 4, 0))
    truth = np.roll(mask, 4, 0)
    assert (moved & truth).sum() > 0.5 * truth.sum() > (mask & truth).sum()


FACTS = PatientFacts(MODEL, new_key(), "c" * 64, "10:15", 90, 4.0, 0.8, 0.6, -30.0, 20.0)


GATE = PatientGate(np.zeros(71, np.float32), np.eye(71, dtype=np.float32), 2.5)


@pytest.fixture
def file(tmp_path: Path, general: Generator, adapted: Generator) -> Path:
    path = tmp_path / "patient.safetensors"
    save_patient(path, general, adapted, GATE, FACTS)
    return path


def test_a_file_gives_the_adapted_network_back_and_says_its_projection(
    file: Path, general: Generator, adapted: Generator
) -> None:
    loaded, gate, facts = load_patient(file, general, MODEL)
    unseen = lessons_of(6, 3)
    assert held_dice(loaded, unseen) == pytest.approx(held_dice(adapted, unseen), abs=0.01)
    assert facts == FACTS
    assert facts.describe() == "patient-adapted, run of 10:15, RAO 30 CRAN 20"
    assert projection(None, 3.0) == "projection not known"
    assert file.stat().st_mode & 0o077 == 0
    assert gate.limit == GATE.limit
    np.testing.assert_array_equal(gate.axes, GATE.axes)


def test_a_file_of_another_model_is_refused(file: Path, general: Generator) -> None:
    with pytest.raises(
        CheckpointError, match="must be for the model in use, bbbbbbbbbbbb, got one for aaaaaaaaaaaa"
    ):
        load_patient(file, general, "b" * 64)


def test_what_is_no_adaptation_or_was_changed_is_refused(file: Path, general: Generator) -> None:
    tensors, facts = load_file(file), json.dumps(FACTS.__dict__)
    said = {"format": FORMAT, "facts": facts, "gate_limit": "1.0"}
    first = next(name for name in tensors if name.startswith("delta."))
    hostile = {
        "a name too many": ({**tensors, "delta.background.x": torch.zeros(2, dtype=torch.float16)}, said),
        "another shape": ({**tensors, first: torch.zeros(3, dtype=torch.float16)}, said),
        "not a number": ({**tensors, first: tensors[first] * float("nan")}, said),
        "no facts": (tensors, {**said, "facts": "{}"}),
        "nested facts": (tensors, {**said, "facts": "[" * 2000}),
        "facts of other types": (tensors, {**said, "facts": facts.replace('"10:15"', "[]")}),
        "an infinite limit": (tensors, {**said, "gate_limit": "inf"}),
        "another format": (tensors, {**said, "format": "pickle"}),
    }
    for some, metadata in hostile.values():
        save_file(some, file, metadata=metadata)
        with pytest.raises(CheckpointError, match="make it anew"):
            load_patient(file, general, MODEL)
    # What the library that writes such files would not write.
    table = {"x": {"dtype": "F16", "shape": [2], "data_offsets": [0, 4]}}
    for changed in (
        {"dtype": "F64"},
        {"shape": [2**40, 2**40]},
        {"shape": [-2]},
        {"shape": "2"},
        {"data_offsets": [0, 400]},
        {"data_offsets": [2, 6]},
        {"data_offsets": [4, 0]},
    ):
        text = json.dumps({"x": {**table["x"], **changed}}).encode()
        file.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4))
        with pytest.raises(CheckpointError, match="got something else or a damaged one"):
            load_patient(file, general, MODEL)
    for content in (
        b"\xff" * 100,
        b"",
        (2**40).to_bytes(8, "little") + b"{}",
        (4000).to_bytes(8, "little") + b"[" * 4000,
    ):
        file.write_bytes(content)
        with pytest.raises(CheckpointError, match="got something else or a damaged one"):
            load_patient(file, general, MODEL)
    with pytest.raises(CheckpointError, match="must be a file, got something else"):
        load_patient(file.parent, general, MODEL)
    with pytest.raises(CalibrationError, match="cannot be read: No such file"):
        load_patient(file.with_name("none.safetensors"), general, MODEL)
