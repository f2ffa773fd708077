"""Frames of both domains: split by patient, grey levels of their run, never mirrored."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from calib.intensity import LANDMARK_GREYS
from casgan.domains import dark_line_area
from casgan.errors import DataError
from casgan.unpaired import Frames, Unpaired, augmented_unpaired, unpaired_archive, unpaired_phantom

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SIZE = 64
FILL = (0, 0, 0, 0, 0, 0, 2, 5, 5, 5)
"""Vessels that each frame of a run shows."""


def write_run(
    place: Path,
    seed: int,
    fill: tuple[int, ...] = FILL,
    shape: tuple[int, int] = (96, 96),
    deep: bool = False,
) -> None:
    """A run in which dark lines appear on a noisy chest."""
    place.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    chest = cv2.resize(rng.uniform(90, 170, (4, 4)).astype(np.float32), shape[::-1])
    for index, lines in enumerate(fill):
        picture = chest + rng.normal(0, 2, shape)
        for line in range(lines):
            picture[12:84, 14 + 14 * line : 18 + 14 * line] -= 60
        kind = np.uint16 if deep else np.uint8
        scale = 120 if deep else 1
        cv2.imwrite(str(place / f"{index}.png"), (np.clip(picture, 0, 255) * scale).astype(kind))


def write_archive(folder: Path, patients: int = 4, **options: tuple[int, ...]) -> Path:
    for patient in range(patients):
        for run in range(2):
            write_run(folder / f"P{patient}" / f"R{run}", 10 * patient + run, **options)
    return folder


def read(folder: Path, **options: object) -> tuple[Unpaired, Unpaired]:
    return unpaired_archive(folder, SIZE, dark_line_area, report=lambda _: None, **options)  # type: ignore[arg-type]


def test_no_patient_run_or_picture_is_in_both_halves(tmp_path: Path) -> None:
    train, test = read(write_archive(tmp_path))
    assert train.patients | test.patients == {"P0", "P1", "P2", "P3"}
    assert test.patients == {"P3"}
    halves = []
    for part in (train, test):
        sides = (part.plain, part.filled)
        halves.append(
            (
                {run for side in sides for run in side.runs},
                {picture.numpy().tobytes() for side in sides for picture in side.grey},
            )
        )
        for side in sides:
            assert len(side) > 0
            assert all(run.startswith(f"{who}/") for who, run in zip(side.patients, side.runs, strict=True))
    assert not halves[0][0] & halves[1][0]
    assert not halves[0][1] & halves[1][1]


def test_named_test_patients_are_kept_out_of_training(tmp_path: Path) -> None:
    train, test = read(write_archive(tmp_path), test_patients=("P0", "P2"))
    assert (train.patients, test.patients) == ({"P1", "P3"}, {"P0", "P2"})
    with pytest.raises(DataError, match=r"a test patient must be one of P0, P1, P2, P3, got P9"):
        read(tmp_path, test_patients=("P9",))
    with pytest.raises(DataError, match=r"the training patients need frames of both domains, got nobody"):
        read(tmp_path, test_patients=("P0", "P1", "P2", "P3"))


def test_one_picture_under_two_patients_is_refused(tmp_path: Path) -> None:
    write_archive(tmp_path, 2)
    source, copy = tmp_path / "P0" / "R0" / "8.png", tmp_path / "P2" / "R0"
    write_run(copy, 0)
    assert (copy / "8.png").read_bytes() == source.read_bytes()
    with pytest.raises(DataError, match=r"P0/R0 \(training\) and P2/R0 \(test\) share a picture"):
        read(tmp_path)


def test_contrast_free_and_filled_frames_are_told_apart_and_the_table_written(tmp_path: Path) -> None:
    train, test = read(write_archive(tmp_path / "in"), decisions=tmp_path / "domains.csv")
    assert len(train.plain) == 6 * 4
    assert len(train.filled) == 6 * 3
    assert len((tmp_path / "domains.csv").read_text().splitlines()) == 1 + 8 * len(FILL)
    assert float(train.filled.grey.float().mean()) < float(train.plain.grey.float().mean())
    assert train.sha256() != test.sha256()
    assert train.sha256() == read(tmp_path / "in")[0].sha256()


def test_an_override_moves_frames_between_the_domains(tmp_path: Path) -> None:
    write_archive(tmp_path / "in")
    (tmp_path / "mine.csv").write_text("patient,run,frame,domain\nP0,P0/R0,,neither\nP1,P1/R0,6,filled\n")
    train, _ = read(tmp_path / "in", overrides=tmp_path / "mine.csv")
    assert "P0/R0" not in train.plain.runs + train.filled.runs
    assert train.filled.runs.count("P1/R0") == 4


def test_frames_that_are_all_filled_are_refused(tmp_path: Path) -> None:
    write_archive(tmp_path, fill=(5,) * 8)
    with pytest.raises(
        DataError, match=r"needed contrast-free frames, got none in 8 runs; add runs that start"
    ):
        read(tmp_path)


def test_frames_without_any_contrast_are_refused(tmp_path: Path) -> None:
    write_archive(tmp_path / "in", fill=(0,) * 8)
    (tmp_path / "mine.csv").write_text("patient,run,frame,domain\nP0,P0/R0,,plain\n")
    with pytest.raises(DataError, match=r"needed filled frames, got none in 8 runs; add runs with contrast"):
        read(tmp_path / "in", overrides=tmp_path / "mine.csv")


def test_a_single_patient_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"needed two patients or more, one to test on, got 1"):
        read(write_archive(tmp_path, 1))


def test_mixed_sizes_and_depths_are_letterboxed_normalised_and_said(tmp_path: Path) -> None:
    write_archive(tmp_path, 2)
    write_run(tmp_path / "P2" / "R0", 7, shape=(96, 192))
    write_run(tmp_path / "P3" / "R0", 8, deep=True)
    said: list[str] = []
    train, test = unpaired_archive(tmp_path, SIZE, dark_line_area, ("P2", "P3"), report=said.append)
    assert any(
        line.startswith("sizes 96 x 96 (5 runs), 96 x 192 (1 runs): brought to 64 x 64") for line in said
    )
    assert any(line.startswith("bits stored 8 (5 runs), 16 (1 runs)") for line in said)
    wide = test.plain.patients.index("P2")
    assert test.plain.grey[wide, 0, :16].eq(0).all()
    assert test.plain.field[wide, 0, :17].eq(0).all()
    assert test.plain.field[wide, 0, 20:44, 4:-4].eq(1).all()
    deep = test.plain.patients.index("P3")
    for frames, index in ((train.plain, 0), (test.plain, deep)):
        inside = frames.grey[index][frames.field[index] > 0].numpy()
        np.testing.assert_allclose(np.percentile(inside, (1, 99)), 255.0 * np.array(LANDMARK_GREYS), atol=4)


def test_a_run_of_one_grey_level_is_named(tmp_path: Path) -> None:
    write_archive(tmp_path, 2)
    (tmp_path / "P2").mkdir()
    cv2.imwrite(str(tmp_path / "P2" / "flat.png"), np.full((96, 96), 90, np.uint8))
    with pytest.raises(DataError, match=r"flat\.png: the first frame of run P2 must show something"):
        read(tmp_path)


def test_a_size_too_small_to_learn_from_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="size must be 64 pixels or above, got 32"):
        unpaired_archive(tmp_path, 32, dark_line_area)


def test_the_phantoms_domains_share_no_patient_and_are_the_same_each_time() -> None:
    data = unpaired_phantom(SIZE, range(900, 903), range(903, 905), 2)
    assert (len(data.plain), len(data.filled)) == (6, 4)
    assert not set(data.plain.patients) & set(data.filled.patients)
    assert data.sha256() == unpaired_phantom(SIZE, range(900, 903), range(903, 905), 2).sha256()
    inside = data.plain.grey[0][data.plain.field[0] > 0].numpy()
    np.testing.assert_allclose(np.percentile(inside, (1, 99)), 255.0 * np.array(LANDMARK_GREYS), atol=4)


@pytest.mark.parametrize(
    ("plain", "filled", "message"),
    [
        pytest.param(range(5), range(4, 9), "without a common seed, got both holding 4", id="overlap"),
        pytest.param(range(0), range(4, 9), r"got range\(0, 0\) and range\(4, 9\)", id="empty"),
    ],
)
def test_phantom_ranges_that_overlap_are_refused(plain: range, filled: range, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        unpaired_phantom(SIZE, plain, filled, 1)


def marked(count: int = 12) -> Frames:
    """Pictures whose upper left is bright, upper right dark and lower half mid-grey."""
    grey = torch.full((count, 1, SIZE, SIZE), 128, dtype=torch.uint8)
    grey[:, :, :32, :32], grey[:, :, :32, 32:] = 220, 40
    field = torch.zeros_like(grey)
    field[:, :, 4:-4, 4:-4] = 1
    return Frames(grey, field, ("A",) * count, ("r",) * count)


def test_augmentation_never_mirrors_and_keeps_ranges() -> None:
    frames = marked()
    rng = torch.Generator().manual_seed(1)
    for _ in range(10):
        batch = augmented_unpaired(Unpaired(frames, frames), 8, rng)
        for picture, field in ((batch.x, batch.x_field), (batch.y, batch.y_field)):
            assert picture.shape == field.shape == (8, 1, SIZE, SIZE)
            assert picture.dtype == field.dtype == torch.float32
            assert float(picture.min()) >= -1.0
            assert float(picture.max()) <= 1.0
            assert set(field.unique().tolist()) == {0.0, 1.0}
            left, right = (
                picture[..., 10:20, 12:20].mean((1, 2, 3)),
                picture[..., 10:20, 44:52].mean((1, 2, 3)),
            )
            below = picture[..., 48:56, :].mean((1, 2, 3))
            assert (left > below).all()
            assert (below > right).all()


def test_the_same_generator_gives_the_same_batch_and_pictures_differ() -> None:
    data = Unpaired(marked(), marked())
    first = augmented_unpaired(data, 4, torch.Generator().manual_seed(3))
    again = augmented_unpaired(data, 4, torch.Generator().manual_seed(3))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.x[0], first.x[1])
    assert not torch.equal(first.x, first.y)


def test_runs_are_drawn_alike_however_long() -> None:
    frames = marked(10)
    frames = Frames(frames.grey, frames.field, ("A",) * 10, ("long",) * 9 + ("short",))
    assert float(frames.weights[:9].sum()) == pytest.approx(float(frames.weights[9]))


@pytest.mark.real
def test_real_runs_are_split_and_those_already_filled_give_no_contrast_free_frame() -> None:
    if not REAL.is_dir():
        pytest.skip(f"no real X-ray data at {REAL}")
    test_patients = ("Patient_6", "Patient_7")
    train, test = unpaired_archive(
        REAL / "angiodata_cine", 128, dark_line_area, test_patients, report=lambda _: None
    )
    assert train.patients == {f"Patient_{index}" for index in range(1, 6)}
    assert test.patients == set(test_patients)
    assert not {"Patient_6/Coro_2", "Patient_7/Coro_5"} & set(test.plain.runs)
    assert len(train.plain) >= 30
    assert len(train.filled) >= 300
    assert len(set(train.filled.runs)) == 24
