"""The command as a user meets it: exit status, and one line on stderr that says what to do.

What a process alone can show runs in one; the many refusals run in this one, since an interpreter's start would cost a hundred times
what they do.
"""

import os
import re
import subprocess
import sys
import sysconfig
import tomllib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from contrastream import main

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def contrastream(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command to its end, in a runtime folder of its own."""

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "contrastream", *arguments],
            cwd=ROOT,
            env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path), "COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=90,
        )

    return run


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Calls the command in this process, in a runtime folder of its own; answers as a process would."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.chdir(ROOT)

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        try:
            status = main(arguments)
        except SystemExit as ended:  # tyro's, for what is no command
            status = int(str(ended.code))
        return subprocess.CompletedProcess(arguments, status, *capsys.readouterr())

    return call


def one_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line of a refusal."""
    lines = done.stderr.splitlines()
    assert (done.returncode, done.stdout, len(lines)) == (2, "", 1), done
    assert lines[0].startswith("contrastream: ")
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param("run phantom --rate 0", "--rate must be a number of frames per second above 0, got 0.0", id="rate 0"),
        pytest.param("run phantom --rate -1", "above 0, got -1.0; for example 15", id="rate -1"),
        pytest.param("replay a.dcm --rate nan", "above 0, got nan", id="rate nan"),
        pytest.param("replay a.dcm --speed 0", "--speed must be max or a factor above 0, got '0'", id="speed 0"),
        pytest.param("replay a.dcm --speed fast", "got 'fast'; 1 is the loop's own pace", id="speed in words"),
        pytest.param("run phantom --frames 0", "--frames must be 1 or more, got 0", id="frames 0"),
        pytest.param("run phantom --slots 2", "--slots must be 12 to 256, got 2", id="slots"),
        pytest.param("run phantom --port 0", "--port must be 1 to 65535, got 0", id="port"),
        pytest.param("run phantom --threads 0", "--threads must be 1 or more, got 0", id="threads"),
        pytest.param("run v4l2:0 --crop 1,2,3", "--crop must be x,y,w,h in pixels, got '1,2,3'", id="crop"),
        pytest.param("run v4l2:0 --crop nonsense", "got 'nonsense'; for example", id="crop in words"),
        pytest.param("run phantom --out /nowhere/a.json", "--out needs an existing folder, got /nowhere; make it", id="out"),
        pytest.param("run phantom --endpoint tcp://0.0.0.0:5555 --key none_there", "needed the CURVE key pair none_there, got none", id="beyond this host"),
        pytest.param("synthesize phantom --out /tmp/x --frames 0", "--frames must be 1 or more, got 0", id="no frames"),
        pytest.param("synthesize phantom --out /tmp/x --threads 0", "--threads must be 1 or more", id="no threads"),
        pytest.param("synthesize phantom --out /nowhere/x", "phantom: it has no end of its own; give --frames", id="endless"),
        pytest.param("synthesize v4l2:0 --out /nowhere/x", "got a live device; use: contrastream run v4l2:0", id="live"),
        pytest.param("export /nowhere --out a.pt", "--out must end in .onnx, got a.pt; for example model.onnx", id="no ONNX"),
        pytest.param("export /nowhere --out /tmp/a.onnx", "needed the folder of a training run or its checkpoint", id="no run"),
        pytest.param("build", "needed a model, got none; for example: contrastream build compact", id="build nothing"),
        pytest.param("build --inspect", "needed a model, or the key of a plan, got none", id="inspect nothing"),
        pytest.param("build compact --list --clear", "give one of --list, --inspect and --clear", id="two at once"),
        pytest.param("build compact --size 20", "64 to 2048 pixels a side, got 20x20", id="build size"),
        pytest.param("build compact --rows 512", "go together, got only --rows", id="build rows"),
        pytest.param("evaluate /nowhere.onnx --out /tmp/e.json", "needed a model file, found none at /nowhere.onnx", id="no model"),
        pytest.param("replay a.dcm --endpoint a/b", "an endpoint is a name, ipc:///path or tcp://", id="endpoint"),
    ],
)  # fmt: skip
def test_bad_usage_is_one_line_and_status_2(called: Command, arguments: str, said: str) -> None:
    assert said in one_line(called(*arguments.split()))


def test_bad_usage_is_the_status_of_the_process(contrastream: Command) -> None:
    assert "above 0, got 0.0" in one_line(contrastream("run", "phantom", "--rate", "0"))
    assert contrastream("runn").returncode == 2


@pytest.mark.parametrize(
    "arguments",
    [
        "",
        "runn",
        "run",
        "run phantom --rate fast",
        "run phantom --no-such-flag",
        "synthesize phantom",
        "export a",
        "build compact --backend openvino",
        "build compact --precision int8",
    ],
)
def test_what_is_no_command_is_explained_with_status_2(called: Command, arguments: str) -> None:
    done = called(*arguments.split())
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert "contrastream" in done.stderr


@pytest.mark.parametrize("engine", ["off", "auto"])
def test_a_file_that_is_not_there_is_one_line_and_status_2(contrastream: Command, engine: str) -> None:
    line = one_line(contrastream("replay", "/nowhere/cine.dcm", "--engine", engine))
    assert "/nowhere/cine.dcm: needed phantom, v4l2:0, rtsp://host/path, " in line
    assert "No such file or directory" in line


def test_an_endpoint_in_use_names_the_process_that_has_it(contrastream: Command, tmp_path: Path) -> None:
    from stream.endpoint import EndpointLock, parse_endpoint

    lock = EndpointLock(parse_endpoint(f"ipc://{tmp_path}/busy"))
    try:
        done = contrastream("run", "phantom", "--engine", "off", "--endpoint", f"ipc://{tmp_path}/busy")
    finally:
        lock.close()
    assert f"in use by process {os.getpid()}; stop it or choose another" in one_line(done)


def test_help_is_status_0(contrastream: Command) -> None:
    done = contrastream("--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert "usage: contrastream" in done.stdout
    assert "not a medical device" in done.stdout


def test_a_run_without_an_engine_ends_by_itself_and_says_what_came(
    contrastream: Command, tmp_path: Path
) -> None:
    report = tmp_path / "report.json"
    done = contrastream(
        "run",
        "phantom",
        "--engine",
        "off",
        "--frames",
        "5",
        "--rate",
        "5",  # a frame that a busy machine makes late by a whole period is lost
        "--size",
        "64",
        "--out",
        str(report),
    )
    assert done.returncode == 0, done
    assert "5 grabbed, 5 published: 0 SYNTHETIC, 5 PASSTHROUGH (off 5)" in done.stdout
    assert "not a medical device" in done.stdout
    assert '"schema": "contrastream.run/1"' in report.read_text()


def test_a_reader_that_goes_away_is_no_traceback() -> None:
    command = f"{sys.executable} -m contrastream doctor | head -1"
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("machine")
    assert done.stderr == ""


@pytest.fixture
def without(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs the command where some packages are not installed: beside a folder of links to all the others."""

    def run(*arguments: str, packages: Sequence[str]) -> subprocess.CompletedProcess[str]:
        installed = Path(sysconfig.get_path("purelib"))
        links = tmp_path / "site-packages"
        links.mkdir()
        for entry in installed.iterdir():
            if entry.name not in packages:
                (links / entry.name).symlink_to(entry)
        code = (
            f"import sys; sys.path.append({str(links)!r}); import contrastream; sys.exit(contrastream.main())"
        )
        return subprocess.run(
            [sys.executable, "-S", "-c", code, *arguments],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=90,
        )

    return run


@pytest.mark.parametrize(
    ("command", "package"),
    [
        pytest.param("export {0} --out {0}/a.onnx", "torch", id="export, torch"),
        pytest.param("export {0} --out {0}/a.onnx", "onnx", id="export, onnx"),
        pytest.param("train --out {0}/run", "torch", id="train, torch"),
        pytest.param("train --out {0}/run", "lightning_fabric", id="train, Fabric"),
    ],
)
def test_a_command_without_its_extra_says_which_to_install(
    without: Command, tmp_path: Path, command: str, package: str
) -> None:
    done = without(*command.format(tmp_path).split(), packages=[package])
    assert f"needs the package {package}, which is not installed; run: pip install -e '.[train]'" in one_line(
        done
    )


@pytest.mark.parametrize("package", ["torch", "skimage"])
def test_evaluate_without_its_extra_says_which_to_install(
    without: Command, tmp_path: Path, package: str
) -> None:
    done = without("evaluate", "compact", "--out", str(tmp_path / "eval.json"), packages=[package])
    line = one_line(done)
    assert package in line
    assert "[train]" in line


def test_build_without_a_library_that_builds_names_the_extras(without: Command) -> None:
    line = one_line(without("build", "compact", packages=["tensorrt", "tensorrt_rtx"]))
    assert (
        "needed tensorrt or tensorrt_rtx to build a plan, found none: tensorrt: it is not installed" in line
    )
    assert (
        "pip install -e '.[trt]'; tensorrt_rtx: it is not installed; run: pip install -e '.[trtrtx]'" in line
    )


def test_build_without_onnx_says_what_to_install(
    without: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorrt_rtx", reason="plans are built by TensorRT-RTX; extra trtrtx")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    line = one_line(without("build", "compact", "--backend", "tensorrt_rtx", packages=["onnx"]))
    assert "needs the package onnx, and it is not installed; run: pip install onnx" in line
    assert list((tmp_path / "cache" / "contrastream" / "plans").iterdir()) == []


def test_synthesize_needs_no_extra(without: Command, tmp_path: Path) -> None:
    arguments = ("synthesize", "phantom", "--frames", "2", "--size", "64", "--out", str(tmp_path / "out"))
    extras = (
        "torch",
        "onnx",
        "onnxscript",
        "onnxruntime",
        "lightning_fabric",
        "skimage",
        "safetensors",
    )
    done = without(*arguments, packages=extras)
    assert done.returncode == 0, done
    assert "2 of 2: 2 SYNTHETIC" in done.stdout
    assert "not a medical device" in done.stdout


def test_every_package_that_may_be_missing_is_in_the_extra_that_is_named() -> None:
    import contrastream as door

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    listed = {extra: {re.split(r"[<>=~!;\[]", each)[0] for each in extras[extra]} for extra in door.EXTRAS}
    distributions = {"skimage": "scikit-image"}
    for extra, packages in door.EXTRAS.items():
        for package in packages:
            assert distributions.get(package, package.replace("_", "-")) in listed[extra], (extra, package)
