"""`contrastream build` with real builds of TensorRT-RTX: what is made, said, kept, listed, inspected, cleared."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

import pytest

from casgan.networks import Generator
from casgan.presets import PRESETS, PresetConfig
from engines.build import build
from engines.cache_folder import locked
from engines.config import BuildConfig
from engines.cuda_calls import Device
from engines.elapsed import elapsed
from engines.engine import EngineSpec
from engines.errors import EngineError, ModelError
from engines.model import ModelCard, load_model
from engines.obtain import obtain_plan, plan_key, target_of
from engines.plan_table import ago, megabytes

trt = pytest.importorskip("tensorrt_rtx", reason="plans are built by TensorRT-RTX; extra trtrtx")
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plans' folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "contrastream" / "plans"


@pytest.fixture(scope="session")
def built_once(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with one real plan of the tiny model for 96x64 frames."""
    cache = tmp_path_factory.mktemp("built")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(cache))
        obtain_plan(trt, load_model(tiny_model), EngineSpec(96, 64), "f16")
    return cache


@pytest.fixture
def plan(built_once: Path, folder: Path) -> Path:
    """That plan in this test's own cache; its file."""
    shutil.copytree(built_once, folder.parents[1], dirs_exist_ok=True)
    (path,) = folder.glob("*.plan")
    return path


@pytest.fixture
def said(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command in this process; what it printed on stdout."""

    def run(model: str | Path | None = None, **settings: object) -> str:
        capsys.readouterr()
        assert build(BuildConfig(None if model is None else str(model), **settings)) == 0  # type: ignore[arg-type]
        return capsys.readouterr().out

    return run


Said = Callable[..., str]


def identity(plan: Path) -> str:
    return plan.stem.rpartition("-")[2]


def test_a_plan_is_built_said_kept_and_found_again(
    tiny_model: Path, folder: Path, tmp_path: Path, said: Said
) -> None:
    out = tmp_path / "build.json"
    first = said(tiny_model, rows=64, columns=96, bits=12, precision="f32", out=out)
    (plan,) = folder.glob("*.plan")
    assert f"plan       {identity(plan)}: built in " in first
    assert f"runs on    tensorrt_rtx {trt.__version__}, on its default GPUs: of those it lists" in first
    assert "frames     64 x 96, 9 to 16 bits stored\n" in first
    assert "precision  convolutions f32, norms and the final blend f32\n" in first
    assert f"memory     plan {plan.stat().st_size / 1e6:.1f} MB; on the GPU weights " in first
    assert " convolution float, the rest around them\n" in first
    report = json.loads(out.read_text())
    assert report["schema"] == "contrastream.build/1"
    assert (report["kind"], report["from_cache"], report["kept"]) == ("build", False, True)
    assert report["plan"]["plan_bytes"] == plan.stat().st_size
    assert report["plan"]["activation_bytes"] > 0
    assert report["plan"]["census"]["CONVOLUTION FLOAT"] > 5
    assert str(tmp_path) not in out.read_text(), "a folder may be named after a person"
    second = said(tiny_model, rows=64, columns=96, bits=16, precision="f32", out=out)
    assert f"plan       {identity(plan)}: was in the cache, built " in second
    assert json.loads(out.read_text())["from_cache"] is True
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".plan"]


def test_the_command_finds_what_an_engine_built(plan: Path, tiny_model: Path, said: Said) -> None:
    assert f"plan       {identity(plan)}: was in the cache, built " in said(tiny_model, rows=96, columns=64)


def test_half_precision_is_what_is_built_unless_asked(plan: Path, said: Said) -> None:
    page = said(identity(plan), inspect=True)
    layers = dict(line.split(None, 1) for line in page.partition("\nlayers")[2].splitlines()[1:-1])
    assert layers["convolution"].endswith(" HALF")
    assert "FLOAT" not in layers["convolution"]


def test_a_spoilt_plan_is_built_anew_and_stderr_says_why(
    tiny_model: Path, plan: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan.write_bytes(plan.read_bytes()[:-1])
    build(BuildConfig(str(tiny_model), rows=96, columns=64))
    shown = capsys.readouterr()
    assert shown.err.startswith(
        f"contrastream: building the plan {identity(plan)}: the one in the cache was cut off"
    )
    assert ": built in " in shown.out


def test_a_list_has_a_line_for_each_plan(plan: Path, tiny_model: Path, tmp_path: Path, said: Said) -> None:
    out = tmp_path / "list.json"
    lines = said(list=True, out=out).splitlines()
    assert lines[0].split("  ")[0] == "key"
    assert " ".join(lines[0].split()) == "key model frames precision MB GPU MB built used runs on"
    sha256 = load_model(tiny_model).card.sha256
    for part in (
        identity(plan),
        f"tiny {sha256[:8]}",
        f"tensorrt_rtx {trt.__version__}",
        "96x64, 8 bits",
        "f16",
    ):
        assert part in lines[1]
    assert lines[3].startswith(f"1 plan, {megabytes(plan.stat().st_size)} MB in ")
    (entry,) = json.loads(out.read_text())["plans"]
    assert (entry["identity"], entry["key"]["preset"], entry["spoilt"]) == (identity(plan), "tiny", "")
    assert str(tmp_path) not in out.read_text()


def test_a_plan_whose_sidecar_cannot_be_read_is_listed_as_such(plan: Path, said: Said) -> None:
    plan.with_suffix(".json").write_text("{}")
    (line,) = [line for line in said(list=True).splitlines() if line.startswith(identity(plan))]
    assert "cannot be read" in line
    assert "spoilt     the sidecar of the one in the cache cannot be read" in said(
        identity(plan), inspect=True
    )


def test_an_empty_cache_says_how_to_fill_it(said: Said) -> None:
    assert said(list=True).rstrip().endswith("build one: contrastream build compact")
    assert "nothing to remove" in said(clear=True)


@pytest.mark.parametrize(
    "name", ["key", "first digits", "file's name", "preset", "model's file", "model's hash"]
)
def test_a_plan_is_inspected_by_any_of_its_names(
    plan: Path, tiny_model: Path, tmp_path: Path, said: Said, name: str
) -> None:
    names = {
        "key": identity(plan),
        "first digits": identity(plan)[:4],
        "file's name": plan.stem,
        "preset": "tiny",
        "model's file": str(tiny_model),
        "model's hash": load_model(tiny_model).card.sha256[:10],
    }
    page = said(names[name], inspect=True, out=tmp_path / "inspect.json")
    assert page.startswith(f"plan       {identity(plan)}\nmodel      tiny ")
    assert "input      live uint8 96x64x1, field uint8 96x64, table float32 256," in page
    assert "output     synthetic uint8 96x64x1, attention uint8 96x64, statistics float32 76" in page
    assert "state      whole: its bytes have the hash of those that were written" in page
    assert f"/{plan.name}\n" in page
    (entry,) = json.loads((tmp_path / "inspect.json").read_text())["plans"]
    assert entry["spoilt"] == ""


def test_inspection_sees_what_is_spoilt_or_old(plan: Path, said: Said) -> None:
    sidecar = plan.with_suffix(".json")
    whole = sidecar.read_text()
    facts = json.loads(whole)
    facts["key"]["recipe"] = "another"
    sidecar.write_text(json.dumps(facts))
    assert "state      built by another version of contrastream; the next start builds it anew" in said(
        "tiny", inspect=True
    )
    sidecar.write_text(whole)
    plan.write_bytes(bytes(plan.stat().st_size))
    assert "state      the one in the cache was changed: its bytes do not have the hash" in said(
        "tiny", inspect=True
    )


def test_clear_removes_one_or_all(plan: Path, folder: Path, said: Said) -> None:
    other = plan.with_name(f"{plan.stem[:-12]}{'0' * 12}.plan")
    for suffix in (".plan", ".json"):
        shutil.copy(plan.with_suffix(suffix), other.with_suffix(suffix))
    assert said(identity(plan), clear=True).startswith("removed 1 plan, ")
    assert list(folder.glob("*.plan")) == [other]
    (folder / "tensorrt-0123456789ab.timing").write_bytes(b"timings")
    (folder / "x.json").write_text("a sidecar without a plan")
    (folder / "y.plan.lock").write_text("1")
    (folder / "y.plan.new").write_text("half")
    assert said(clear=True).startswith("removed 1 plan, ")
    assert list(folder.iterdir()) == []


def test_clear_leaves_a_plan_that_is_being_made(plan: Path, said: Said) -> None:
    with locked(plan):
        assert f"left    {identity(plan)}: another process is making it" in said(clear=True)
    assert plan.exists()


@pytest.mark.parametrize("flag", ["list", "inspect", "clear"])
def test_a_model_without_a_plan_is_said(plan: Path, flag: str) -> None:
    with pytest.raises(
        EngineError, match=r"needed a kept plan of the model or key compact, found none of 1; see"
    ):
        build(BuildConfig("compact", **{flag: True}))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        pytest.param({}, "needed a model, got none; for example: contrastream build compact", id="nothing"),
        pytest.param({"inspect": True}, "a model, or the key of a plan, got none", id="inspect nothing"),
        pytest.param(
            {"list": True, "clear": True}, "give one of .*, got --list and --clear", id="two at once"
        ),
        pytest.param({"model": "compact", "rows": 64}, "go together, got only --rows", id="rows alone"),
        pytest.param({"model": "compact", "columns": 64}, "got only --columns", id="columns alone"),
        pytest.param(
            {"model": "compact", "size": 64, "rows": 64, "columns": 64}, "not both", id="size twice"
        ),
        pytest.param({"model": "compact", "size": 63}, "64 to 2048 pixels a side, got 63x63", id="too small"),
        pytest.param({"model": "compact", "bits": 17}, "8 to 16 bits stored, got 17", id="too many bits"),
        pytest.param(
            {"list": True, "out": Path("/nowhere/a")}, "existing folder, got /nowhere", id="no folder"
        ),
        pytest.param({"list": True, "out": Path("/tmp")}, "a file name, got the folder /tmp", id="a folder"),
        pytest.param({"clear": True, "out": Path("/tmp/a")}, "--clear has nothing to write", id="clear, out"),
    ],
)
def test_what_cannot_be_meant_is_refused(settings: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        build(BuildConfig(**settings))  # type: ignore[arg-type]


def test_a_cache_that_cannot_be_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(EngineError, match="needed a folder for plans, found none"):
        build(BuildConfig(list=True))


def test_an_out_that_cannot_be_written_is_said(plan: Path) -> None:
    with pytest.raises(EngineError, match=r"--out /dev/full could not be written: No space left"):
        build(BuildConfig(list=True, out=Path("/dev/full")))


def test_a_preset_without_a_model_is_built_with_random_weights_only_when_asked(
    tiny_preset: PresetConfig, folder: Path, said: Said, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRESETS, "tiny", tiny_preset)
    with pytest.raises(ModelError, match=r"none of the preset tiny is shipped: .*--untaught"):
        build(BuildConfig("tiny"))
    assert not list(folder.glob("*"))
    first = said("tiny", size=64, untaught=True)
    assert "note       UNTAUGHT: its weights are random" in first
    assert "\nnext " not in first
    assert ": was in the cache" in said("tiny", size=64, untaught=True), "other weights than the first time"


def test_an_untaught_file_is_built_only_when_asked(
    tiny_network: Generator, export_tiny: Callable[..., Path]
) -> None:
    path = export_tiny(tiny_network, ModelCard("tiny", 64, 0.1, taught=False))
    with pytest.raises(
        ModelError, match=r"needed a taught model, got changed\.onnx, .* --untaught to measure it"
    ):
        build(BuildConfig(str(path)))


def test_a_backend_asked_for_by_name_is_never_replaced(tiny_model: Path) -> None:
    try:
        import tensorrt  # noqa: F401
    except ImportError:
        with pytest.raises(
            EngineError, match=r"needed the backend tensorrt .* not installed; run: .*\[trt\]"
        ):
            build(BuildConfig(str(tiny_model), backend="tensorrt"))
    else:
        pytest.skip("TensorRT is installed here")


def test_a_plan_is_of_the_gpu_or_of_compute_capabilities_never_both(tiny_model: Path) -> None:
    model, spec = load_model(tiny_model), EngineSpec(64, 64)
    with pytest.raises(ValueError, match="is of compute capabilities, got the device NVIDIA H200 SM90"):
        plan_key(trt, model, spec, "f16", "NVIDIA H200 SM90")
    full = ModuleType("tensorrt")
    with pytest.raises(
        ValueError, match="is of one GPU: its name and compute capability are needed, got none"
    ):
        plan_key(full, model, spec, "f16")
    of_two = plan_key(trt, model, spec, "f16", (89, 86))
    assert of_two.device == "SM86 SM89"
    assert of_two != plan_key(trt, model, spec, "f16")
    turing, ada = Device(0, "NVIDIA T4", (7, 5), 13000), Device(0, "NVIDIA L4", (8, 9), 13000)
    assert (target_of(trt, turing), target_of(trt, ada), target_of(trt, None)) == ((75,), (), ())
    assert target_of(full, ada) == "NVIDIA L4 SM89"


def command(model: Path, *more: str) -> subprocess.Popen[str]:
    """The command as a user starts it."""
    return subprocess.Popen(
        [sys.executable, "-m", "contrastream", "build", str(model), "--size", "64", *more],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what runs in its background with Ctrl-C ignored, and so would this test's own child be.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def test_two_commands_at_once_build_one_plan(tiny_model: Path, folder: Path) -> None:
    both = [command(tiny_model) for _ in range(2)]
    said = [each.communicate(timeout=60) for each in both]
    assert [each.returncode for each in both] == [0, 0], said
    assert sorted(": built in " in out for out, _ in said) == [False, True], said
    assert sorted(path.suffix for path in folder.iterdir()) == [".json", ".plan"]


def test_ctrl_c_while_waiting_for_another_builder_leaves_nothing(tiny_model: Path, folder: Path) -> None:
    key = plan_key(trt, load_model(tiny_model), EngineSpec(64, 64), "f16")
    folder.mkdir(parents=True, mode=0o700)
    with locked(folder / f"{key.name}.plan"):
        waiting = command(tiny_model)
        assert waiting.stderr is not None
        assert f"waiting for process {os.getpid()}, which is making" in waiting.stderr.readline()
        waiting.send_signal(signal.SIGINT)
        out, said = waiting.communicate(timeout=30)
    assert (waiting.returncode, out, said) == (130, "", "")
    assert list(folder.iterdir()) == []


def test_a_terminal_shows_what_is_waited_for_and_keeps_nothing_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, keyboard = pty.openpty()
    with open(keyboard, "w") as stderr:
        monkeypatch.setattr(sys, "stderr", stderr)
        with pytest.raises(KeyboardInterrupt), elapsed("building tiny"):
            raise KeyboardInterrupt
    shown = b""
    with suppress(OSError), open(screen, "rb", buffering=0) as reading:  # EIO is the end of a terminal
        while True:
            shown += reading.read(1000)
    assert shown.startswith(b"\r\x1b[Kbuilding tiny ... 0 s")
    assert shown.endswith(b"\r\x1b[K")


def test_a_file_holds_no_progress(capsys: pytest.CaptureFixture[str]) -> None:
    with elapsed("building tiny"):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("since_s", "said"),
    [
        (0.0, "just now"),
        (59.0, "59 s ago"),
        (60.0, "1 minute ago"),
        (7300.0, "2 hours ago"),
        (2e5, "2 days ago"),
    ],
    ids=["now", "seconds", "a minute", "hours", "days"],
)
def test_an_age_is_told_in_its_largest_unit(since_s: float, said: str) -> None:
    assert ago(since_s) == said
