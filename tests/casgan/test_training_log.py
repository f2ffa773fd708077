"""What a run says: rows that are kept, lines where nobody watches, one warning per lost discriminator."""

from pathlib import Path

import pytest

from casgan.training_log import LONG, JudgeWatch, Progress, Table


def watched(watch: JudgeWatch, name: str, value: float, steps: int) -> list[str]:
    return [line for _ in range(steps) for line in watch.warnings({name: value})]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        pytest.param("d_y", 0.25, "D_Y cannot tell real from generated for 200 steps", id="chance"),
        pytest.param("d_x", 0.02, "D_X tells every generated picture for 200 steps", id="won"),
        pytest.param("d_sem", 0.69, "D_SEM cannot tell real from generated", id="semantic chance"),
        pytest.param("d_sem", 0.17, "D_SEM tells every generated picture", id="semantic won"),
    ],
)
def test_a_lost_discriminator_is_told_once(name: str, value: float, words: str) -> None:
    lines = watched(JudgeWatch(), name, value, 5 * LONG)
    assert len(lines) == 1
    assert words in lines[0]


def test_a_fair_discriminator_and_a_brief_lapse_are_not_told() -> None:
    watch = JudgeWatch()
    assert watched(watch, "d_x", 0.15, 3 * LONG) == []
    assert watched(watch, "d_x", 0.25, LONG) == []


def test_a_discriminator_that_is_lost_again_is_told_again() -> None:
    watch = JudgeWatch()
    for _ in range(2):
        assert len(watched(watch, "d_x", 0.02, 3 * LONG)) == 1
        assert watched(watch, "d_x", 0.15, 3 * LONG) == []


def test_a_watch_goes_on_where_it_was() -> None:
    watch = JudgeWatch()
    assert watched(watch, "d_x", 0.25, LONG - 1) == []
    other = JudgeWatch()
    other.load_state(watch.state())
    assert len(watched(other, "d_x", 0.25, 1)) == 1


def test_rows_of_steps_that_were_not_kept_are_dropped(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    table = Table(path, 0)
    for step in range(1, 6):
        table.add(step, {"a": float(step)})
    table.close()
    table = Table(path, 3)
    table.add(4, {"a": 40.0})
    table.close()
    assert path.read_text().split() == ["step,a", "1,1", "2,2", "3,3", "4,40"]


def test_without_a_terminal_there_is_an_early_line_and_a_last_one() -> None:
    lines: list[str] = []
    progress = Progress("warm", 25, 0, lines.append, shown=True)
    for _ in range(25):
        progress.advance({"error": 2.0})
    progress.close()
    assert [line.split()[1] for line in lines] == ["10/25", "25/25"]
    assert all("steps/s" in line and "s left" in line and "error 2" in line for line in lines)


def test_a_process_that_is_not_the_first_says_nothing() -> None:
    lines: list[str] = []
    progress = Progress("warm", 10, 0, lines.append, shown=False)
    for _ in range(10):
        progress.advance({"error": 2.0})
    progress.say("warning")
    assert lines == []
