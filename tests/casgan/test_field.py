"""The collimated field: found where there is a border, and nothing taken away where there is none."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Phantom
from casgan.archive import read_archive
from casgan.field import collimated_field, margin_px
from casgan.runs import load_run

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
SIDE = 128


def chest(count: int = 3) -> np.ndarray:
    rng = np.random.default_rng(5)
    rough = rng.uniform(0.4, 0.8, (count, 12, 12)).astype(np.float32)
    return np.stack([cv2.resize(each, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC) for each in rough])


def overlap(found: np.ndarray, truth: np.ndarray) -> float:
    return float((found & truth).sum() / (found | truth).sum())


def test_without_a_border_only_the_outermost_pixels_go() -> None:
    field = collimated_field(chest())
    margin = margin_px(SIDE)
    assert field[margin:-margin, margin:-margin].all()
    assert not field[0].any()


def test_a_black_circle_is_found() -> None:
    rows, columns = np.mgrid[:SIDE, :SIDE]
    circle = np.hypot(rows - 63.5, columns - 63.5) < 60
    field = collimated_field(chest() * circle)
    assert not (field & ~circle).any()
    assert overlap(field, circle) > 0.9


@pytest.mark.parametrize("bright", [0.0, 1.0], ids=["black", "white"])
def test_a_steady_letterbox_is_found(bright: float) -> None:
    pictures = chest()
    pictures[:, :20] = pictures[:, 108:] = bright
    field = collimated_field(pictures)
    assert not field[:20].any()
    assert not field[108:].any()
    assert field[24:104, 10:118].all()


def test_the_phantoms_blades_are_found() -> None:
    for seed in range(6):
        phantom = Phantom(PhantomConfig(seed=seed, rows=SIDE, columns=SIDE))
        frames = np.stack([phantom.frame(index).plain for index in (0, 9, 18)]).astype(np.float32)
        truth = phantom.field > 0.5
        field = collimated_field(frames)
        assert not (field & ~truth).any()
        assert overlap(field, truth) > 0.85


def test_a_picture_that_is_nearly_all_dark_keeps_its_field() -> None:
    pictures = np.zeros((2, SIDE, SIDE), np.float32)
    pictures[:, 60:70, 60:70] = 1.0
    assert collimated_field(pictures).mean() > 0.9


@pytest.mark.real
def test_real_fields_hold_no_blade() -> None:
    if not REAL.is_dir():
        pytest.skip(f"no real X-ray data at {REAL}")
    for run in read_archive(REAL / "angiodata_cine").runs[::5]:
        loaded = load_run(run, SIDE)
        share = loaded.field.mean()
        assert 0.6 < share < 0.97
        # A blade is far darker than any part of the chest in these runs: none of its grey may be inside.
        assert np.percentile(loaded.grey[0][loaded.field], 1) > 15
