"""The mean tree: it lands where the outline lies, and is what a drawing has to beat."""

from dataclasses import replace

import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Phantom
from calib.phantom_heart import Outline
from casgan.baseline import SIDE, mean_tree, same_pose_tree, warped
from casgan.vessel_metrics import dice


def test_a_map_is_laid_into_the_outline_turned_and_scaled() -> None:
    # One spot on the long axis, half way from the middle to the apex.
    share = np.zeros((SIDE, SIDE), np.float32)
    column = round((0.5 / 1.4 + 1.0) * SIDE / 2)
    share[SIDE // 2 - 3 : SIDE // 2 + 3, column - 3 : column + 3] = 1.0
    for angle in (0.0, 0.5, 2.0):
        outline = Outline((60.0, 70.0), (40.0, 25.0), angle)
        rows, columns = np.nonzero(warped(share, outline, (128, 128)) > 0.5)
        assert columns.mean() == pytest.approx(60.0 + 20.0 * np.cos(angle), abs=0.7)
        assert rows.mean() == pytest.approx(70.0 + 20.0 * np.sin(angle), abs=0.7)


def test_the_mean_tree_of_one_patient_is_that_patients_tree() -> None:
    config = PhantomConfig(seed=1001, variation=0.0, collimated=False)
    tree = mean_tree([config])
    assert tree.learning_dice > 0.75
    assert tree.patients == 1
    with pytest.raises(ValueError, match="a mean tree needs patients, got none"):
        mean_tree([])


def test_the_oracle_beats_the_mean_tree_and_is_exact_without_variation() -> None:
    template = PhantomConfig(rows=256, columns=256)
    tree = mean_tree([replace(template, seed=seed) for seed in range(1000, 1012)])
    means, oracles = [], []
    for seed in range(960, 964):
        phantom = Phantom(replace(template, seed=seed))
        frame = phantom.frame(5)
        means.append(dice(tree.drawn(frame.outline, frame.mask.shape), frame.mask))
        oracles.append(dice(same_pose_tree(phantom, 5), frame.mask))
    assert 0.2 < np.mean(means) < np.mean(oracles) < 1.0
    same = Phantom(replace(template, seed=960, variation=0.0))
    assert np.array_equal(same_pose_tree(same, 5), same.frame(5).mask)
