"""The notebooks of examples/, run from the first cell to the last in a kernel of their own, as a reader runs them."""

import os
import sys
from pathlib import Path

import nbclient
import nbformat
import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_its_first_cell_to_its_last(
    path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path_factory.mktemp("book")  # a short name: the address of an ipc socket has 107 bytes
    book = nbformat.read(path, as_version=4)
    for name, place in (
        ("XDG_RUNTIME_DIR", "run"),
        ("JUPYTER_RUNTIME_DIR", "jupyter"),
        ("IPYTHONDIR", "ipython"),
    ):
        (folder / place).mkdir(mode=0o700)
        monkeypatch.setenv(name, str(folder / place))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    client = nbclient.NotebookClient(book, timeout=110, resources={"metadata": {"path": str(folder)}})
    client.execute()
    assert all(cell.execution_count for cell in book.cells if cell.cell_type == "code")


def test_notebooks_are_kept_without_outputs_and_are_the_four_that_the_readme_names() -> None:
    """An output is of one machine and one day, and makes every change unreadable."""
    readme = (EXAMPLES.parent / "README.md").read_text()
    assert len(NOTEBOOKS) == 4
    for path in NOTEBOOKS:
        assert f"examples/{path.name}" in readme
        for cell in nbformat.read(path, as_version=4).cells:
            assert not cell.get("outputs"), path.name
            assert cell.get("execution_count") is None, path.name
