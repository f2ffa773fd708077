"""The parts of the domain's ROC that need no data and no network."""

import numpy as np
import pytest

from bench.domain import Row, area_under_curve, format_rows, turned
from calib.domain_changes import LEARNED


def test_the_area_is_the_chance_that_a_strange_frame_scores_higher() -> None:
    like = np.array([1.0, 2.0, 3.0])
    assert area_under_curve(np.array([4.0, 5.0]), like) == 1.0
    assert area_under_curve(np.array([0.0]), like) == 0.0
    assert area_under_curve(np.array([2.0]), like) == pytest.approx(0.5)  # one above, one below, one tie
    rng = np.random.default_rng(0)
    strange, known = rng.normal(1.0, 1.0, 400), rng.normal(0.0, 1.0, 300)
    pairs = strange[:, None] - known[None]
    assert area_under_curve(strange, known) == pytest.approx(float((pairs > 0).mean()))


def test_frames_are_changed_as_a_site_learns_it_and_as_it_does_not() -> None:
    frame = np.random.default_rng(0).integers(20, 200, (120, 160)).astype(np.uint8)
    changed = dict(turned(frame))
    assert set(LEARNED) < set(changed)
    np.testing.assert_array_equal(changed["inverted"], 255 - frame)
    # Enlarged twice: the middle stays in the middle, and what lay off it is twice as far away.
    spot = np.zeros((120, 160), np.uint8)
    spot[60:64, 100:104] = 200
    rows, columns = np.nonzero(dict(turned(spot))["enlarged 2 times"] > 100)
    assert columns.mean() == pytest.approx(80 + 2 * (101.5 - 80), abs=1.0)
    assert rows.mean() == pytest.approx(60 + 2 * (61.5 - 60), abs=1.0)
    bent = changed["inverted, gamma 0.6"].astype(int)
    assert (bent >= 255 - frame.astype(int)).all()
    assert changed["on its side"].shape == (160, 120)


def test_rows_stand_in_a_table_with_the_area_of_strange_ones_alone() -> None:
    table = format_rows(
        [
            Row("site", "unseen: A", False, 14, None, (0.0, 0.33)),
            Row("site", "inverted", True, 70, 1.0, (1.0, 1.0)),
        ]
    )
    assert "| site | unseen: A | 14 |  | 0.0 % / 33.0 % |" in table
    assert "| site | inverted | 70 | 1.000 | 100.0 % / 100.0 % |" in table
