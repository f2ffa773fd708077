"""The SOUP list holds every locked package, each with its hashes."""

import importlib.util
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_soup_list_has_every_locked_package_with_hashes() -> None:
    spec = importlib.util.spec_from_file_location("soup", ROOT / "docs" / "soup.py")
    assert spec is not None
    assert spec.loader is not None
    soup = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(soup)
    lock = (ROOT / "requirements.lock").read_text()
    listed = soup.locked(lock)
    assert len(listed) == len(re.findall(r"^[a-zA-Z0-9]", lock, re.MULTILINE))
    assert [name for name, _version, _condition, hashes in listed if hashes == 0] == []
    page = soup.table(lock)
    numpy = re.search(r"^\| numpy \| ([^ ]+) \| \d+ \| ([^|]+) \|", page, re.MULTILINE)
    assert numpy is not None
    assert "BSD" in numpy[2]
