"""The READMEs' figures: made from the committed reports, and what they say."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bench import results_table
from bench.errors import BenchError
from bench.live import Run
from bench.machine import describe
from bench.report import build_report
from bench.results_table import PAGES, RESULTS, filled, main, read_results

MadeUp = Callable[..., Run]


def test_the_pages_say_what_the_committed_reports_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--check"]) == 0, capsys.readouterr().err
    assert any("<!-- figures" in page.read_text() for page in PAGES)


def test_every_committed_report_is_whole_small_and_beside_its_table() -> None:
    reports = read_results()
    assert reports
    for name, report in reports.items():
        path = RESULTS / name
        assert report["complete"] is True, name
        assert path.stat().st_size < 200_000, name
        assert path.with_suffix(".md").exists(), name
        assert report["machine"]["cpu"]["model"], name


def test_a_page_whose_figures_were_changed_by_hand_is_found_and_made_anew(
    made_up_run: MadeUp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    report = {**build_report(made_up_run(1200)), "machine": describe()}
    page = tmp_path / "README.md"
    page.write_text("# A\n\n<!-- figures live -->\n(typed)\n<!-- end of figures -->\n\nafter\n")
    monkeypatch.setattr(results_table, "PAGES", (page,))
    monkeypatch.setattr(results_table, "read_results", lambda: {"live.json": report})
    assert main(["--check"]) == 1
    assert "(typed)" in page.read_text()
    assert main([]) == 0
    made = page.read_text()
    assert "(typed)" not in made
    assert f"{report['latency_ms']['p50']:.1f}" in made
    assert made.startswith("# A\n")
    assert made.endswith("\nafter\n")
    assert main(["--check"]) == 0
    page.write_text(made.replace("| p50 |", "| p51 |"))
    capsys.readouterr()
    assert main(["--check"]) == 1
    assert "is not what bench/results says" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "reports", "said"),
    [
        pytest.param(
            "<!-- figures live -->\n<!-- end of figures -->", {}, "needed .*live.json, got none", id="no run"
        ),
        pytest.param(
            "<!-- figures x -->\n<!-- end of figures -->",
            {},
            "a block named live or glass or shown or all, got x",
            id="a name",
        ),
        pytest.param(
            "<!-- figures glass -->\n<!-- end of figures -->",
            {},
            "needed .*glass-.*json, got none",
            id="no glass",
        ),
        pytest.param(
            "<!-- figures shown -->\n<!-- end of figures -->",
            {},
            "needed .*live-shown.json, got none",
            id="no shown",
        ),
        pytest.param(
            "<!-- figures all -->\n<!-- end of figures -->",
            {"a.json": {"schema": "other/1"}},
            "needed a report of live, .*, got  in a.json",
            id="another report",
        ),
    ],
)
def test_what_no_table_can_be_made_of_is_said(text: str, reports: dict[str, Any], said: str) -> None:
    with pytest.raises(BenchError, match=said):
        filled(text, reports)


def test_a_report_that_is_none_ends_with_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.json").write_text(json.dumps({"no": "schema"}))
    monkeypatch.setattr(results_table, "read_results", lambda: read_results(tmp_path))
    assert main([]) == 2
    assert "without a schema" in capsys.readouterr().err
