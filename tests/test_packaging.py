"""What a wheel holds: five packages, the front door, their data, and nothing else. And what goes with an installation."""

import fnmatch
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path, PurePosixPath

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = {"stream", "engines", "calib", "bench", "casgan"}
OFFLINE = (
    "No matching distribution",
    "Could not find a version",
    "Connection",
    "NewConnectionError",
    "Temporary failure",
)


UDEV_RULES = ROOT / "docs" / "udev" / "70-contrastream.rules"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[PurePosixPath]:
    """The names in the wheel, which is built as a user's pip would."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", str(ROOT), "--no-deps", "--quiet", "-w", str(folder)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=110)
    if built.returncode and any(sign in built.stderr for sign in OFFLINE):
        pytest.skip("building the wheel needs hatchling from a package index, which cannot be reached")
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("contrastream-*.whl")
    with zipfile.ZipFile(path) as archive:
        return [PurePosixPath(name) for name in archive.namelist()]


@pytest.mark.slow
def test_a_wheel_holds_five_packages_and_the_front_door(wheel: list[PurePosixPath]) -> None:
    tops = {name.parts[0] for name in wheel}
    metadata = {top for top in tops if top.endswith(".dist-info")}
    assert len(metadata) == 1
    assert tops - metadata == PACKAGES | {"contrastream.py"}


@pytest.mark.slow
def test_a_wheel_holds_every_module_and_marks_the_packages_as_typed(wheel: list[PurePosixPath]) -> None:
    modules = {
        PurePosixPath(path.relative_to(ROOT))
        for package in PACKAGES
        for path in (ROOT / package).rglob("*.py")
    }
    assert modules <= set(wheel)
    assert {PurePosixPath(package, "py.typed") for package in PACKAGES} <= set(wheel)


@pytest.mark.slow
def test_a_wheel_holds_the_viewers_page_and_the_models(wheel: list[PurePosixPath]) -> None:
    page = {PurePosixPath(path.relative_to(ROOT)) for path in (ROOT / "stream/display/static").iterdir()}
    assert PurePosixPath("stream/display/static/index.html") in page
    assert page <= set(wheel)
    models = {
        PurePosixPath(path.relative_to(ROOT))
        for path in (ROOT / "engines/models").iterdir()
        if path.is_file()
    }
    judge = {PurePosixPath("casgan/segmenters") / name for name in ("judge.safetensors", "judge.json")}
    assert models | judge <= set(wheel)


@pytest.mark.slow
def test_a_wheel_holds_the_licence_and_no_tests_caches_or_plans(wheel: list[PurePosixPath]) -> None:
    assert any(name.name == "LICENSE" for name in wheel)
    unwanted = [
        name
        for name in wheel
        if "tests" in name.parts or "__pycache__" in name.parts or name.suffix in (".pyc", ".plan", ".blob")
    ]
    assert unwanted == []


def test_an_image_is_made_of_what_a_wheel_is_made_of_and_the_locks() -> None:
    """Docker would otherwise take the whole folder, data and git included; what a stage copies must be let through."""
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    locks = {"requirements.lock", "requirements-test.lock"}
    assert allowed == PACKAGES | {"contrastream.py", "pyproject.toml", "README.md", "LICENSE"} | locks
    for dockerfile in ("Dockerfile", "Dockerfile.cuda"):
        copied = re.findall(r"^COPY (?!--from)(\S+) ", (ROOT / dockerfile).read_text(), re.MULTILINE)
        assert copied
        assert all(any(fnmatch.fnmatch(name, each) for name in allowed | {"."}) for each in copied)


def test_an_image_starts_with_commands_of_ours() -> None:
    import contrastream as door

    text = (ROOT / "Dockerfile").read_text()
    commands = re.findall(r"^(?:HEALTHCHECK .*)?CMD \[(.+)\]$", text, re.MULTILINE)
    assert len(commands) == 2
    for command in commands:
        words = [word for word in re.findall(r'"([^"]+)"', command) if word != "contrastream"]
        assert type(door.parse(words)).__name__ == "RunConfig"


def test_hadolint_finds_nothing_in_the_dockerfiles() -> None:
    command = [str(Path(sys.executable).parent / "hadolint"), "Dockerfile", "Dockerfile.cuda"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def knows_verify() -> bool:
    """Whether this udevadm can judge rules: systemd 254 and later."""
    if shutil.which("udevadm") is None:
        return False
    said = subprocess.run(["udevadm", "--version"], capture_output=True, text=True, timeout=30).stdout
    return int(re.sub(r"\D.*", "", said) or 0) >= 254


@pytest.mark.skipif(not knows_verify(), reason="udevadm verify, of systemd 254 and later, is not here")
def test_udev_finds_nothing_wrong_with_the_rules() -> None:
    done = subprocess.run(["udevadm", "verify", str(UDEV_RULES)], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done.stderr


def test_the_names_the_udev_rules_give_are_the_sources_they_name() -> None:
    from stream.sources.v4l2 import device_path

    text = UDEV_RULES.read_text()
    links = re.findall(r'SYMLINK\+="([^"]+)"', text)
    sources = re.findall(r"contrastream run v4l2:(\S+)", text)
    assert len(links) == 3
    assert [device_path(source) for source in sources] == [f"/dev/{link}" for link in links]
