"""The docs and the program say the same: every command in a page is one of ours, and the site builds without a warning."""

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import contrastream as door

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted(
    {
        path
        for folder in ("docs", "stream", "engines", "calib", "casgan", "bench")
        for path in [*ROOT.glob("*.md"), *(ROOT / folder).rglob("*.md")]
        if path.name not in ("CHANGELOG.md", "commands.md")
    }
)
BLOCK = re.compile(r"^```(?:sh|bash|)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def commands(page: Path) -> Iterator[str]:
    """Lines of a page's code blocks that call `contrastream`, without what follows in a pipe or a comment."""
    for block in BLOCK.findall(page.read_text(encoding="utf-8")):
        for line in block.replace("\\\n", " ").splitlines():
            if (called := line.removeprefix("$ ")).startswith("contrastream "):
                yield called.removeprefix("contrastream ").removesuffix(" &")


WRITTEN = [
    pytest.param(command, id=f"{page.relative_to(ROOT)}: {command[:60]}")
    for page in PAGES
    for command in dict.fromkeys(commands(page))
]


def test_the_pages_hold_commands() -> None:
    assert len(WRITTEN) > 40


@pytest.mark.parametrize("command", WRITTEN)
def test_every_command_in_the_docs_is_one_of_ours(command: str) -> None:
    """A place that is not there yet is no fault of a page; an option or a subcommand that is not there is."""
    words = shlex.split(command.split(" | ")[0], comments=True)
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            door.parse([word for word in words if word not in ("...",)])
        except SystemExit as ended:
            if ended.code:
                assert "needs an existing folder" in said.getvalue(), said.getvalue()


def built(source: Path, out: Path) -> "subprocess.CompletedProcess[str]":
    """The site as `make docs` builds it."""
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--nitpicky", "--keep-going", "--quiet"]
    return subprocess.run(
        [*command, "--builder", "html", str(source), str(out)], capture_output=True, text=True, timeout=110
    )


def test_the_site_builds_without_a_warning_and_shows_what_it_was_given(tmp_path: Path) -> None:
    done = built(ROOT / "docs", tmp_path)
    assert done.returncode == 0, done.stderr
    commands_page = (tmp_path / "reference" / "commands.html").read_text()
    assert "contrastream calib phantom" in commands_page
    assert "core length in bytes" in (tmp_path / "reference" / "wire.html").read_text()
    assert "Hazards" in (tmp_path / "reference" / "safety.html").read_text()
    assert list((tmp_path / "_images").glob("viewer-side.webp"))


DEAD = "# A page\n\n[away](nowhere.md) [and](#no-such-place)\n"


def test_the_site_shows_every_room_s_readme_and_every_part_of_the_first_one() -> None:
    """What is written later must not be left out of the site."""
    site = "".join(page.read_text() for page in (ROOT / "docs").rglob("*.md"))
    rooms = {
        str(path.relative_to(ROOT))
        for path in PAGES
        if path.name in ("README.md", "SAFETY.md", "SECURITY.md", "RESULTS.md") and path.parent != ROOT
    }
    assert {room for room in rooms if f"{{room {room}}}" not in site} == set()
    headings = re.findall(r"^## (.+)$", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert len(headings) > 10
    assert [heading for heading in headings if f"{{room README.md: {heading}}}" not in site] == []


@pytest.mark.parametrize(
    ("page", "said"),
    [
        pytest.param(DEAD, ("nowhere.md", "no-such-place"), id="dead links"),
        pytest.param("# A page\n\n{room README.md: None}\n", ("needed one heading 'None' in README.md",), id="no heading"),
    ],
)  # fmt: skip
def test_a_dead_link_ends_the_build(tmp_path: Path, page: str, said: tuple[str, ...]) -> None:
    """With the site's own settings, and one page alone, for it to be quick."""
    docs = tmp_path / "docs"
    docs.mkdir()
    (tmp_path / "README.md").write_text("# Something\n")
    for name in ("conf.py", "commands.py"):
        (docs / name).write_text((ROOT / "docs" / name).read_text())
    (docs / "static").mkdir()
    (docs / "static" / "site.css").touch()
    (docs / "reference").mkdir()
    (docs / "index.md").write_text(page + "\n```{toctree}\nreference/commands\n```\n")
    done = built(docs, tmp_path / "out")
    assert done.returncode != 0
    assert all(each in done.stderr for each in said)


def test_the_report_s_page_names_every_part_of_a_report_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "reports.md").read_text()
    named = set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))
    assert named == set(json.loads((ROOT / "bench" / "results" / "live.json").read_text()))
