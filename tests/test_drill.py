"""`make drill`: its command line, its table, and two of its faults for real; the rest is too long for `make test`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
ALONE = ("--without", "web", "--without", "window")


def drill(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run it as `make drill` does."""
    return subprocess.run(
        [sys.executable, "-m", "drill", *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_a_broken_engine_is_named_survived_and_written_down(tmp_path: Path) -> None:
    out, page = tmp_path / "drill.json", tmp_path / "page.md"
    page.write_text("# Page\n<!-- drill -->\n(typed)\n<!-- end of drill -->\nafter\n")
    asked = ("--only", "engine: wrong size", "--out", str(out), "--into", str(page))
    done = drill(*ALONE, *asked)
    report = json.loads(out.read_text())
    assert report["complete"] is True
    assert [row["client"] for row in report["rows"]] == ["subscriber", "recorder"]
    for row in report["rows"]:
        assert "PASSTHROUGH(engine_lost) > SYNTHETIC" in row["seen"]
        assert row["detect_s"] is not None
    # Times are judged by the drill, not here: a loaded machine may be late, and then says so.
    assert done.returncode == (1 if report["wrong"] else 0)
    assert all("later than" in fault or "after" in fault for fault in report["wrong"])
    text = page.read_text()
    assert text.startswith("# Page\n<!-- drill -->\n")
    assert text.endswith("<!-- end of drill -->\nafter\n")
    assert "| engine: wrong size: an answer of another size | subscriber |" in text
    assert "(typed)" not in text
    assert text.partition("-->\n")[2].startswith(out.with_suffix(".md").read_text()[:100])


def test_a_client_whose_clock_moves_between_two_looks_is_judged_by_one_look(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # A page's changes are put on the frame path's clock by an offset. The first SYNTHETIC is both what was expected and the
    # recovery here; where the second look found it later than the first, it was "not SYNTHETIC again".
    monkeypatch.syspath_prepend(str(ROOT / "tests"))
    from drill.cases import CASES
    from drill.clients import Plain, Seen
    from drill.judge import Judged

    class Shifting(Plain):
        looks = 0

        def __init__(self) -> None:
            pass

        def timeline(self) -> list[Seen]:
            self.looks += 1
            return [Seen(10 - self.looks, "PASSTHROUGH", "starting"), Seen(20 + self.looks, "SYNTHETIC")]

    client = Shifting()
    case = next(case for case in CASES if case.name == "frames lost and late")
    judged = Judged(case, [client], "unused", None)
    row = judged._row(client, 0, 5)
    judged.close()
    assert row.faults == ()
    assert row.recover_s == pytest.approx(16e-9)


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_no_client_ever_gets_a_mixed_picture() -> None:
    done = drill(*ALONE, "--only", "100000", "--frames", "5000")
    assert done.returncode == 0, done.stdout + done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("5000 frames")]
    assert len(rows) == 6
    assert all(" 0 mixed" in row for row in rows)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--only", "frieze"), "--only needed part of a fault's name, got 'frieze'; see --list", id="only"),
        pytest.param(("--frames", "7"), "--frames must be 1000 or more, got 7", id="frames"),
        pytest.param(("--out", "/nowhere/drill.json"), "--out needs a file that ends in .json in a folder that is there", id="out"),
        pytest.param(("--into", "README.md"), "needs the lines <!-- drill --> and <!-- end of drill -->", id="into"),
    ],
)  # fmt: skip
def test_what_it_cannot_do_is_one_sentence_before_anything_is_broken(
    arguments: tuple[str, ...], said: str
) -> None:
    done = drill(*arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_it_lists_its_faults() -> None:
    done = drill("--list", "--only", "engine")
    assert done.returncode == 0
    assert "engine: out of memory: 64 MiB are left (RLIMIT_AS)" in done.stdout
