"""The docs site: `make docs`. Most pages are the rooms' own READMEs, put in here so that nothing is written twice.

A line `{room FILE}` in a page stands for a whole Markdown file of the repository, `{room FILE: HEADING}` for what stands under one of its
headings, `{words FILE.py}` for a Python file's docstring. Their links are made to fit: to the page that shows the file, else to a copy of it.
A file, heading or link that is not there ends the build. The page of commands is made from the parser.
"""

import ast
import re
import sys
from pathlib import Path

from sphinx.application import Sphinx
from sphinx.errors import SphinxError

HERE = Path(__file__).parent
ROOT = HERE.parent
sys.path.insert(0, str(HERE))

project = "Contrastream"
author = "the Contrastream authors"
extensions = ["myst_parser"]
exclude_patterns = ["udev", "systemd", "prometheus"]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
nitpicky = True
highlight_language = "text"
html_theme = "furo"
html_show_sourcelink = False
html_copy_source = False
html_title = "Contrastream"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_theme_options = {
    "top_of_page_buttons": [],
    "announcement": "Research tool, not a medical device.",
}

ROOM = re.compile(r"^\{room (?P<file>[^:}]+)(?:: (?P<heading>[^}]+))?\}$", re.MULTILINE)
WORDS = re.compile(r"^\{words (?P<file>[^}]+)\}$", re.MULTILINE)
LINK = re.compile(r"(?P<picture>!?)\[(?P<text>[^\]]*)\]\((?P<target>[^)\s]+)\)")
FENCE = re.compile(r"^(```.*?^```$)", re.MULTILINE | re.DOTALL)


def pages() -> dict[str, str]:
    """The page that shows a whole file, by the file."""
    found = {"README.md": "index"}
    for page in HERE.rglob("*.md"):
        for room in ROOM.finditer(page.read_text(encoding="utf-8")):
            if room["heading"] is None:
                found[room["file"]] = str(page.relative_to(HERE).with_suffix(""))
    return found


def section(text: str, heading: str, file: str) -> str:
    """What stands under a heading, to the next one of its level or above."""
    lines = text.splitlines()
    starts = [number for number, line in enumerate(lines) if re.fullmatch(rf"#+ {re.escape(heading)}", line)]
    if len(starts) != 1:
        raise SphinxError(
            f"needed one heading {heading!r} in {file}, found {len(starts)}; mend the page that names it"
        )
    level = lines[starts[0]].partition(" ")[0]
    body, fenced = [], False
    for line in lines[starts[0] + 1 :]:
        fenced ^= line.startswith("```")
        if not fenced and re.match(rf"#{{1,{len(level)}}} ", line):
            break
        body.append(line)
    return "\n".join(body)


def lowered(text: str) -> str:
    """Every heading one level down; code blocks stay as they are."""
    parts = FENCE.split(text)
    return "".join(
        part if part.startswith("```") else re.sub(r"^#", "##", part, flags=re.MULTILINE) for part in parts
    )


def fit_links(text: str, file: str, page: str) -> str:
    """Links of a file of the repository, as the page needs them; code blocks stay as they are."""
    shown = pages()
    up = "../" * page.count("/")

    def fit(link: re.Match[str]) -> str:
        target, _, anchor = link["target"].partition("#")
        if not target or re.match(r"[a-z]+:", target):
            return link[0]
        path = ((ROOT / file).parent / target).resolve()
        if not path.exists():
            raise SphinxError(f"{file} links to {target}, which is not there; mend the link")
        inside = str(path.relative_to(ROOT))
        if inside in shown:
            return f"[{link['text']}]({up}{shown[inside]}.md{'#' + anchor if anchor else ''})"
        if link["picture"]:
            return f"![{link['text']}]({up}../{inside})"
        if path.is_dir():
            return f"{link['text']} (`{inside}`)"
        return f"{{download}}`{link['text']} <{up}../{inside}>`"

    parts = FENCE.split(text)
    return "".join(part if part.startswith("```") else LINK.sub(fit, part) for part in parts)


def put_in(app: Sphinx, page: str, source: list[str]) -> None:
    """Rooms and docstrings into a page."""

    def room(asked: re.Match[str]) -> str:
        path = ROOT / asked["file"]
        if not path.is_file():
            raise SphinxError(f"{page} shows {asked['file']}, which is not there; mend the page")
        app.env.note_dependency(str(path))
        text = path.read_text(encoding="utf-8")
        if asked["heading"] is not None:
            text = section(text, asked["heading"], asked["file"])
        elif asked.start() > 0:  # below the page's own title
            text = lowered(text)
        return fit_links(text, asked["file"], page)

    def words(asked: re.Match[str]) -> str:
        path = ROOT / asked["file"]
        app.env.note_dependency(str(path))
        said = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
        if not said:
            raise SphinxError(f"{page} shows the docstring of {asked['file']}, which has none")
        return f"```text\n{said}\n```"

    source[0] = WORDS.sub(words, ROOM.sub(room, source[0]))


def write_commands(app: Sphinx) -> None:
    """The page of commands, made anew where it has changed."""
    from commands import OUT, reference

    text = reference()
    if not OUT.exists() or OUT.read_text(encoding="utf-8") != text:
        OUT.write_text(text, encoding="utf-8")


def setup(app: Sphinx) -> dict[str, bool]:
    app.connect("builder-inited", write_commands)
    app.connect("source-read", put_in)
    return {"parallel_read_safe": True}
