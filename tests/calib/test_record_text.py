"""Dataclasses to TOML and back, and what is said of a file that somebody has edited."""

import tomllib
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.errors import CalibrationError
from calib.record_text import from_plain, line_of, read_toml, to_plain, write_toml


@dataclass(frozen=True)
class Box:
    """A region.

    Not shown."""

    top: int
    label: str = ""


@dataclass(frozen=True)
class Sheet:
    """One of everything."""

    name: str
    share: float
    wanted: bool
    box: Box
    boxes: tuple[Box, ...] = ()
    numbers: tuple[float, ...] = ()
    pair: tuple[int, str] = (1, "a")
    corners: tuple[tuple[float, float], ...] = ()
    spacing: float | None = None
    inner: Box | None = None


SHEET = Sheet(
    "a",
    0.5,
    True,
    Box(3),
    (Box(1, "x"), Box(2)),
    tuple(float(n) for n in range(20)),
    (4, "b"),
    ((0.0, 1.0), (2.0, 3.0)),
)
finite = st.floats(allow_nan=False, allow_infinity=False)
boxes = st.builds(Box, st.integers(-(2**62), 2**62), st.text(st.characters(codec="utf-8"), max_size=8))
sheets = st.builds(
    Sheet,
    st.text(st.characters(codec="utf-8"), max_size=8),
    finite,
    st.booleans(),
    boxes,
    st.lists(boxes, max_size=3).map(tuple),
    st.lists(finite, max_size=20).map(tuple),
    st.tuples(st.integers(-9, 9), st.text(st.characters(codec="utf-8"), max_size=3)),
    st.lists(st.tuples(finite, finite), max_size=3).map(tuple),
    st.none() | finite,
    st.none() | boxes,
)


@settings(max_examples=30, deadline=None)
@given(sheets)
def test_what_is_written_is_read_again(sheet: Sheet) -> None:
    assert read_toml(Sheet, write_toml(sheet, "a heading\nof two lines"), "sheet.toml") == sheet
    assert from_plain(Sheet, to_plain(sheet)) == sheet


def test_a_table_has_the_first_line_of_its_docstring_beside_it() -> None:
    text = write_toml(SHEET, "heading")
    assert text.startswith("# heading\n")
    assert "[box] # A region." in text
    assert "Not shown" not in text
    assert max(map(len, text.splitlines())) < 110


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        pytest.param("share = 0.5", 'share = "much"', r"line 4, key share: needed a number, got 'much'", id="text"),
        pytest.param("share = 0.5", "share = true", r"key share: needed a number, got true", id="true for a number"),
        pytest.param("share = 0.5", "share = nan", r"key share: needed a finite number, got nan", id="nan"),
        pytest.param("wanted = true", "wanted = 1", r"line 5, key wanted: needed true or false, got 1", id="1 for true"),
        pytest.param("top = 3", "top = 3.5", r"key box.top: needed a whole number, got 3.5", id="half a pixel"),
        pytest.param("top = 3", "top = true", r"key box.top: needed a whole number, got true", id="true for a row"),
        pytest.param('name = "a"', "name = 3", r"line 3, key name: needed a text in quotes, got 3", id="3 for a text"),
        pytest.param("top = 3", "top = 3\nleft = 4", r"key box.left: no such key; known are top, label", id="unknown"),
        pytest.param("top = 3\n", "", r"key box.top: this key is missing", id="missing"),
        pytest.param("top = 2", 'top = "2"', r"key boxes\[1\].top: needed a whole number, got '2'", id="in a list of tables"),
        pytest.param("2.0, 3.0, 4.0", "2.0, [], 4.0", r"line \d+, key numbers\[3\]: needed a number, got a list", id="in a list"),
        pytest.param('pair = [4, "b"]', "pair = [4]", r"key pair: needed a list of 2 values, got 1", id="too short"),
        pytest.param('"b"', "2", r"key pair\[1\]: needed a text in quotes, got 2", id="in a pair"),
        pytest.param("wanted = true", "wanted = ", r"sheet.toml must be TOML, got: .*line 5", id="no TOML"),
        pytest.param("wanted = true", "wanted = true\nwanted = true", r"sheet.toml must be TOML, got: .*line 6", id="twice"),
    ],
)  # fmt: skip
def test_an_edited_file_is_refused_with_key_and_line(old: str, new: str, said: str) -> None:
    text = write_toml(SHEET, "heading").replace('pair = [\n    4,\n    "b",\n]', 'pair = [4, "b"]')
    assert text.count(old) == 1, text
    with pytest.raises(CalibrationError, match=said):
        read_toml(Sheet, text.replace(old, new), "sheet.toml")


@settings(max_examples=30, deadline=None)
@given(sheets, st.data())
def test_the_line_is_that_of_the_key_in_any_file(sheet: Sheet, data: st.DataObject) -> None:
    lines = write_toml(sheet, "heading").split("\n")
    places = [n for n, line in enumerate(lines) if line.split(" =")[0] in ("share", "wanted")]
    place = data.draw(st.sampled_from(places))
    name = lines[place].split(" =")[0]
    assert line_of("\n".join(lines), (name,)) == place + 1


def test_the_line_of_a_list_is_where_it_begins() -> None:
    text = "a = 1\n\nb = [\n  1,\n  2,\n]\n\n[c.d]\ne = 1\n"
    tomllib.loads(text)
    assert line_of(text, ("b", 1)) == 3
    assert line_of(text, ("c", "d")) == 8
    assert line_of(text, ("c", "d", "missing")) == 8
    assert line_of(text, ("missing",)) == 1


def test_a_number_that_is_not_finite_is_never_written() -> None:
    with pytest.raises(ValueError, match=r"numbers\[1\] must be a finite number, got inf"):
        write_toml(Sheet("a", 0.5, True, Box(1), numbers=(0.0, float("inf"))), "heading")


def test_plain_values_of_another_form_are_refused_with_the_key() -> None:
    with pytest.raises(ValueError, match=r"box: needed a table, got 3"):
        from_plain(Sheet, {"name": "a", "share": 1, "wanted": True, "box": 3})
