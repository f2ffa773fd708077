"""`make install-check`: the sdist and the wheel made from it, in a clean environment of every supported Python that is here.

Not part of `make test`: each environment takes half a minute and 0.6 GB for a while. Needs a package index.
"""

import json
import os
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PYTHONS = ("3.11", "3.12", "3.13")

pytestmark = pytest.mark.timeout(900)


def interpreter(version: str) -> str | None:
    """This Python, one on the PATH, or pyenv's; None where there is none of that version."""
    installed = Path.home() / ".pyenv" / "versions"
    candidates = [sys.executable, f"python{version}", *map(str, sorted(installed.glob(f"{version}.*/bin/python3")))]  # fmt: skip
    say = "import sys; print('%d.%d' % sys.version_info[:2])"
    for candidate in candidates:
        try:
            said = subprocess.run([candidate, "-c", say], capture_output=True, text=True, timeout=60)
        except FileNotFoundError:
            continue
        if said.stdout.strip() == version:
            return candidate
    return None


def environment(python: str, folder: Path) -> Path:
    """A new environment with nothing in it, not even pip; its bin folder."""
    subprocess.run([python, "-m", "venv", "--without-pip", str(folder)], check=True, timeout=300)
    return folder / "bin"


def pip(bin_folder: Path, *arguments: str) -> None:
    """This environment's pip, working in another."""
    into = str(bin_folder / "python")
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--python", into, *arguments]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """The sdist, the wheel of the checkout, and the wheel made from the sdist alone."""
    folder = tmp_path_factory.mktemp("built")
    bin_folder = environment(sys.executable, folder / "builder")
    pip(bin_folder, "install", "hatchling==1.33.0")
    build = [str(bin_folder / "python"), "-m", "hatchling", "build", "--directory", str(folder / "dist")]
    subprocess.run(build, cwd=ROOT, check=True, timeout=300)
    (sdist,), (wheel,) = (folder / "dist").glob("*.tar.gz"), (folder / "dist").glob("*.whl")
    pip(bin_folder, "wheel", "--no-deps", "--wheel-dir", str(folder / "again"), str(sdist))
    return sdist, wheel, folder / "again" / wheel.name


def test_the_wheel_made_from_the_sdist_holds_the_same_files(built: tuple[Path, Path, Path]) -> None:
    _sdist, wheel, again = built
    with zipfile.ZipFile(wheel) as first, zipfile.ZipFile(again) as second:
        assert {each.filename: each.CRC for each in first.infolist()} == {
            each.filename: each.CRC for each in second.infolist()
        }


def test_an_sdist_holds_what_is_in_git_and_nothing_else(built: tuple[Path, Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()} - {"PKG-INFO"}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    ).stdout.splitlines()
    assert names == {name for name in listed if not name.startswith(".ci/")}


@pytest.fixture
def socket_folder() -> Iterator[str]:
    """A short path: a socket's may have 107 bytes."""
    with tempfile.TemporaryDirectory(prefix="contrastream-") as folder:
        yield folder


@pytest.fixture(params=PYTHONS)
def installed(
    request: pytest.FixtureRequest, built: tuple[Path, Path, Path], tmp_path: Path
) -> tuple[str, Path]:
    """A Python's version and the bin folder of a clean environment: the locked packages and the wheel."""
    python = interpreter(request.param)
    if python is None:
        pytest.skip(f"no Python {request.param} was found here")
    bin_folder = environment(python, tmp_path / "clean")
    pip(
        bin_folder,
        "install",
        "--require-hashes",
        "--only-binary",
        ":all:",
        "-r",
        str(ROOT / "requirements.lock"),
    )
    pip(bin_folder, "install", "--no-deps", "--no-index", str(built[2]))
    return request.param, bin_folder


def test_the_installed_wheel_synthesizes_and_finds_itself_whole(
    installed: tuple[str, Path], tmp_path: Path, socket_folder: str
) -> None:
    version, bin_folder = installed
    empty = tmp_path / "empty"
    empty.mkdir()
    clean = {"HOME": str(empty), "PATH": os.environ["PATH"], "XDG_RUNTIME_DIR": socket_folder}

    def contrastream(*arguments: str) -> str:
        done = subprocess.run(
            [str(bin_folder / "contrastream"), *arguments],
            cwd=empty,
            env=clean,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, done
        return done.stdout

    contrastream("doctor", "--out", "doctor.json")
    doctor = json.loads((empty / "doctor.json").read_text())
    assert version in json.dumps(doctor)
    contrastream("synthesize", "phantom", "--frames", "2", "--size", "64", "--out", "pictures")
    assert len(list((empty / "pictures" / "synthetic").iterdir())) == 2
    contrastream("run", "phantom", "--size", "64", "--rate", "15", "--frames", "30", "--out", "run.json")
    assert json.loads((empty / "run.json").read_text())["counters"]["published"] > 0
