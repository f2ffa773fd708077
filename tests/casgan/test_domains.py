"""Contrast-free or filled, and a person's own say."""

from pathlib import Path

import numpy as np
import pytest
import torch

from casgan.domains import dark_line_area, decide, overridden, read_overrides, write_decisions
from casgan.errors import DataError

FILLING = np.array([0.005, 0.005, 0.006, 0.02, 0.03, 0.05, 0.06, 0.06, 0.055, 0.03])
COUNTS = {("A", "A/1"): 10, ("B", "B/1"): 3}


def letters(areas: np.ndarray) -> str:
    return "".join(each.domain[0] for each in decide("A", "A/1", areas))


def test_a_run_is_contrast_free_at_first_and_filled_later() -> None:
    assert letters(FILLING) == "ppnnnffffn"


def test_contrast_free_frames_end_before_the_area_rises() -> None:
    areas = np.concatenate([np.full(6, 0.005), np.full(8, 0.06)])
    assert letters(areas) == "pppnnn" + "f" * 8


def test_a_run_filled_from_its_first_frame_gives_no_contrast_free_frame() -> None:
    areas = np.array([0.04, 0.05, 0.07, 0.09, 0.1, 0.1])
    decisions = decide("A", "A/1", areas)
    assert "plain" not in {each.domain for each in decisions}
    assert decisions[0].why == "first frame already has 0.0400 of vessels"


@pytest.mark.parametrize("level", [0.001, 0.08], ids=["fluoroscopy", "filled throughout"])
def test_a_run_that_never_fills_is_left_to_a_person(level: float) -> None:
    decisions = decide("A", "A/1", np.full(8, level))
    assert {each.domain for each in decisions} == {"neither"}
    assert "override" in decisions[0].why


def test_one_frame_alone_is_decided_without_an_error() -> None:
    assert letters(np.array([0.01])) == "n"


def test_a_table_given_back_changes_what_it_names_and_nothing_else(tmp_path: Path) -> None:
    decisions = decide("A", "A/1", FILLING)
    write_decisions(tmp_path / "domains.csv", decisions)
    same = read_overrides(tmp_path / "domains.csv", COUNTS)
    assert overridden(decisions, same) == decisions
    text = (tmp_path / "domains.csv").read_text().replace("A,A/1,4,0.03000,neither", "A,A/1,4,0.03000,filled")
    (tmp_path / "mine.csv").write_text(text)
    changed = overridden(decisions, read_overrides(tmp_path / "mine.csv", COUNTS))
    assert [each.frame for each, old in zip(changed, decisions, strict=True) if each != old] == [4]
    assert (changed[4].domain, changed[4].why) == ("filled", "override")


def test_an_empty_frame_names_the_whole_run(tmp_path: Path) -> None:
    (tmp_path / "mine.csv").write_text("patient,run,frame,domain\nB,B/1,,plain\n")
    assert read_overrides(tmp_path / "mine.csv", COUNTS) == {("B/1", frame): "plain" for frame in range(3)}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        pytest.param(
            "A,A/1,0,plain\nC,A/1,0,plain\n", r"line 3: patient 'C', run 'A/1' is not in", id="patient"
        ),
        pytest.param("A,A/9,0,plain\n", r"line 2: patient 'A', run 'A/9'", id="run"),
        pytest.param(
            "A,A/1,0,full\n", r"line 2: domain must be one of plain, filled, neither, got 'full'", id="domain"
        ),
        pytest.param("A,A/1,10,plain\n", r"line 2: frame must be 0 to 9, or empty", id="frame"),
        pytest.param("A,A/1,-1,plain\n", r"line 2: frame must be 0 to 9, or empty", id="negative"),
        pytest.param("A,A/1\n", r"line 2: domain must be one of", id="short"),
    ],
)
def test_a_row_that_cannot_be_meant_is_refused_by_its_line(tmp_path: Path, rows: str, message: str) -> None:
    (tmp_path / "mine.csv").write_text("patient,run,frame,domain\n" + rows)
    with pytest.raises(DataError, match=message):
        read_overrides(tmp_path / "mine.csv", COUNTS)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        pytest.param(b"run,frame\n", "needed the columns .*, patient is missing", id="columns"),
        pytest.param(b"", "patient is missing", id="empty"),
        pytest.param(b"\xff\xfe\x00", "no text table in UTF-8", id="bytes"),
    ],
)
def test_a_file_that_is_no_table_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "mine.csv").write_bytes(data)
    with pytest.raises(DataError, match=message):
        read_overrides(tmp_path / "mine.csv", COUNTS)


def test_a_narrow_dark_line_has_an_area_and_a_broad_shadow_has_none() -> None:
    pictures = torch.full((3, 128, 128), 150, dtype=torch.uint8)
    pictures[1, 30:100, 60:64] = 90
    pictures[2, :, 40:90] = 90
    empty, line, shadow = dark_line_area(pictures).tolist()
    assert empty == shadow == 0.0
    assert 0.01 < line < 0.04
