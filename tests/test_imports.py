"""Imports point one way, and nobody loads what is none of their business."""

import ast
import functools
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("bench", "stream", "engines", "casgan", "calib")
"""Each may import itself and those to its right; calib none of the others."""
AI_AND_CODECS = (
    "torch", "openvino", "onnx", "onnxruntime", "tensorrt", "cv2", "pydicom", "pylibjpeg", "openjpeg", "libjpeg",
    "engines", "casgan",
)  # fmt: skip
MODULES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))


@functools.cache
def tree(path: Path) -> ast.Module:
    """A file's syntax; each is parsed once."""
    return ast.parse(path.read_text(), str(path))


def imported(path: Path) -> set[str]:
    """Top-level names of everything that a file imports, wherever in it."""
    names: set[str] = set()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            names.add((node.module or "").partition(".")[0])
    return names


def loaded_by(code: str) -> set[str]:
    """Top-level names in sys.modules after `code` has run in a process of its own."""
    report = "import json, sys; print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\n{report}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_module_imports_only_what_lies_below_its_room(path: Path) -> None:
    room = path.relative_to(ROOT).parts[0]
    forbidden = {*PACKAGES[: PACKAGES.index(room)], "contrastream", "tests"}
    assert not imported(path) & forbidden


def test_the_front_door_alone_sees_every_room() -> None:
    assert set(PACKAGES) <= imported(ROOT / "contrastream.py")
    assert len(MODULES) > 30


def test_nothing_is_unpickled() -> None:
    for path in (*MODULES, ROOT / "contrastream.py"):
        assert not imported(path) & {"pickle", "marshal", "shelve", "dill", "cloudpickle", "joblib"}, path
        for call in ast.walk(tree(path)):
            if not isinstance(call, ast.Call):
                continue
            options = {option.arg: ast.unparse(option.value) for option in call.keywords}
            assert options.get("allow_pickle", "False") == "False", path
            if ast.unparse(call.func) == "torch.load":
                assert options.get("weights_only") == "True", path


def test_no_age_and_no_state_is_told_by_a_clock_that_can_be_set() -> None:
    # Where a wall clock only labels something, or dates it for other hosts: never to tell how old a picture is.
    labels = {
        "stream/archive/run.py", "stream/audit_log.py", "stream/calibrate.py", "stream/calibrate_patient.py",
        "stream/display/entrance.py", "stream/display/window.py", "stream/igtl/server.py", "stream/record/capture.py",
        "stream/record/keeper.py", "stream/record/kept.py",
    }  # fmt: skip
    wall = (
        "time.time",
        "time.time_ns",
        "time.strftime",
        "time.localtime",
        "datetime.now",
        "datetime.datetime.now",
    )
    found = {
        str(path.relative_to(ROOT))
        for path in MODULES
        if path.relative_to(ROOT).parts[0] == "stream"
        for call in ast.walk(tree(path))
        if isinstance(call, ast.Call) and ast.unparse(call.func) in wall
    }
    assert found == labels
    scripts = {path.name: path.read_text() for path in (ROOT / "stream/display/static").glob("*.js")}
    dated = {name for name, text in scripts.items() if "new Date" in text or "Date.now" in text}
    assert dated == {
        "snapshot.js",
        "viewer.js",
    }  # a picture's name, and since when by the clock on the wall it is frozen


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_is_only_its_map(package: str) -> None:
    init = tree(ROOT / package / "__init__.py")
    (statement,) = init.body
    assert isinstance(statement, ast.Expr)
    assert ast.get_docstring(init)
    assert (ROOT / package / "py.typed").exists()


@pytest.mark.parametrize("package", [p for p in PACKAGES if (ROOT / p / "config.py").exists()])
def test_settings_need_the_standard_library_only(package: str) -> None:
    allowed = {*sys.stdlib_module_names, "tyro", package}
    assert imported(ROOT / package / "config.py") <= allowed


def test_the_guard_holds_no_ai_library_and_no_codec() -> None:
    assert not loaded_by("import stream.pipeline") & set(AI_AND_CODECS)


def test_a_client_holds_no_ai_library_and_no_codec() -> None:
    assert not loaded_by("import stream.subscribe, stream.measure") & set(AI_AND_CODECS)


def test_help_imports_neither_torch_nor_numpy() -> None:
    commands = [
        "", "run", "replay", "view", "train", "evaluate", "synthesize", "export", "build", "bench", "bench live",
        "bench engine", "bench transport", "bench scale", "bench soak", "bench methods", "calib", "calib run", "calib show",
        "doctor", "audit verify", "keys", "keys new",
    ]  # fmt: skip
    # Of the rooms with an AI library inside, no more than the settings is loaded.
    heavy = {"torch", "numpy", "zmq", *AI_AND_CODECS} - {"engines", "casgan"}
    code = (
        "import contextlib, io, sys, contrastream\n"
        f"for command in {commands!r}:\n"
        "    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()) as out:\n"
        "        contrastream.main([*command.split(), '--help'])\n"
        "    assert 'usage: contrastream' in out.getvalue(), (command, out.getvalue())\n"
        f"    loaded = {{name.partition('.')[0] for name in sys.modules}} & {heavy!r}\n"
        "    assert not loaded, (command, loaded)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=90)
    assert done.returncode == 0, done.stderr
