"""The list of software of unknown provenance (SOUP): every locked package of the default install. Run by `make sbom`.

    python docs/soup.py requirements.lock > build/SOUP.md

Version and hashes are the lock's; licence and purpose are what the installed package says of itself, and `?` where it is
not installed here or says nothing. Whether a licence fits and which anomalies matter is for a person to judge.
"""

import importlib.metadata
import re
import sys
from pathlib import Path

PACKAGE = re.compile(r"^([A-Za-z0-9._-]+)==([^ ;\\]+)(?: ; ([^\\]+))?", re.MULTILINE)


def locked(text: str) -> list[tuple[str, str, str, int]]:
    """Name, version, condition and number of hashes of each package in a lock file of `uv pip compile`."""
    found = list(PACKAGE.finditer(text))
    ends = [each.start() for each in found[1:]] + [len(text)]
    return [
        (each[1], each[2], (each[3] or "").strip(), text.count("--hash=sha256:", each.start(), end))
        for each, end in zip(found, ends, strict=True)
    ]


def said(name: str) -> tuple[str, str]:
    """Licence and summary, as the installed package has them."""
    try:
        facts = importlib.metadata.metadata(name)
    except importlib.metadata.PackageNotFoundError:
        return "?", "?"
    classified = [
        each.rpartition(" :: ")[2]
        for each in facts.get_all("Classifier") or ()
        if each.startswith("License ::")
    ]
    licence = (
        facts.get("License-Expression")
        or ", ".join(classified)
        or (facts.get("License") or "").partition("\n")[0]
    )
    return licence.strip()[:60] or "?", (facts.get("Summary") or "?").strip()


def table(text: str) -> str:
    """The list as Markdown."""
    rows = ["# SOUP", "", "From requirements.lock, the default install; installed by hash, wheels only.", "",
            "| package | version | hashes | licence | what it says it is | only where |", "|---|---|---|---|---|---|"]  # fmt: skip
    for name, version, condition, hashes in locked(text):
        licence, summary = (cell.replace("|", "/") for cell in said(name))
        rows.append(
            f"| {name} | {version} | {hashes} | {licence} | {summary} | {condition or 'everywhere'} |"
        )
    return "\n".join(rows)


if __name__ == "__main__":
    print(table(Path(sys.argv[1]).read_text()))
