"""The page on safety says what is there: every test that it names exists, and every hazard has one."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "stream" / "SAFETY.md").read_text()


def all_tests() -> set[str]:
    return {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }


def test_every_test_that_the_page_names_exists() -> None:
    named = set(re.findall(r"`(test_\w+)`", PAGE))
    assert len(named) > 30
    assert named - all_tests() == set()


def test_every_hazard_has_a_control_and_a_test() -> None:
    rows = [line.split("|")[1:-1] for line in PAGE.splitlines() if re.match(r"\| H\d+ ", line)]
    assert [row[0].split()[0] for row in rows] == [f"H{number}" for number in range(1, len(rows) + 1)]
    for row in rows:
        assert len(row) == 5, row[0]
        assert all(cell.strip() for cell in row), row[0]
        assert "`test_" in row[4], row[0]


def test_the_page_claims_no_conformity() -> None:
    assert "claims no conformity" in PAGE
    assert "not a medical device" in PAGE


def test_the_drill_s_place_is_kept() -> None:
    assert PAGE.index("<!-- drill -->") < PAGE.index("<!-- end of drill -->")
