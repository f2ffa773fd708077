"""The plan cache's whole life: kept, found, spoilt, killed, contended, full, cleared."""

import ast
import dataclasses
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from engines.cache_folder import locked
from engines.plan import LayerCount
from engines.plan_cache import cached_plan, forget_plan, read_blob, write_blob
from engines.plan_facts import DERIVING, PlanKey, recipe
from engines.plan_room import clear_folder, kept_plans, make_room, remove_plan, sweep

ROOT = Path(__file__).resolve().parents[2]
KEY = PlanKey(
    model_sha256="ab" * 32,
    backend="tensorrt",
    version="10.16.1",
    device="NVIDIA H200 SM90",
    rows=512,
    columns=512,
    sample_bytes=1,
    precision="f16",
    recipe="0123456789ab",
    preset="compact",
)


@dataclass(frozen=True)
class Made:
    """What a build hands over, without a build."""

    plan: bytes = bytes(range(256)) * 400
    layers: tuple[LayerCount, ...] = (LayerCount("CONVOLUTION", "HALF", 31), LayerCount("CAST", "FLOAT", 2))
    activation_bytes: int | None = 13_000_000
    weights_bytes: int | None = None
    warnings: tuple[str, ...] = ("slow",)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The plans' folder of this test."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "contrastream" / "plans"


def files(folder: Path) -> list[str]:
    """The endings of what lies there."""
    return sorted(path.name.partition(".")[2] for path in folder.iterdir())


def never() -> Made:
    raise AssertionError("a plan was built that is in the cache")


def test_a_plan_is_built_once_and_found_again(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    made = cached_plan(KEY, Made)
    assert (made.plan, made.why_built) == (Made().plan, "there is none in the cache")
    found = cached_plan(KEY, never)
    assert (found.plan, found.facts, found.path, found.why_built) == (made.plan, made.facts, made.path, "")
    assert caplog.messages == []
    assert files(folder) == ["json", "plan"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()} == {0o600}


def test_the_sidecar_holds_everything_it_was_built_for(folder: Path) -> None:
    cached_plan(KEY, Made)
    said = json.loads((folder / f"{KEY.name}.json").read_text())
    assert said["format"] == "contrastream.plan/1"
    assert said["key"] == dataclasses.asdict(KEY)
    assert (said["plan_bytes"], said["activation_bytes"], said["weights_bytes"]) == (
        102_400,
        13_000_000,
        None,
    )
    assert said["census"] == {"CONVOLUTION HALF": 31, "CAST FLOAT": 2}
    assert said["warnings"] == ["slow"]
    assert said["seconds"] >= 0
    assert said["built"].endswith("+00:00")


@pytest.mark.parametrize(
    "change",
    [
        {"model_sha256": "cd" * 32},
        {"backend": "tensorrt_rtx"},
        {"version": "10.16.2"},
        {"device": "NVIDIA A40 SM86"},
        {"rows": 256},
        {"columns": 256},
        {"sample_bytes": 2},
        {"precision": "f32"},
        {"recipe": "another"},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_plan_of_anything_else_is_another_plan(folder: Path, change: dict[str, object]) -> None:
    cached_plan(KEY, Made)
    other = dataclasses.replace(KEY, **change)
    made = cached_plan(other, lambda: Made(b"other"))
    assert made.plan == b"other"
    assert cached_plan(KEY, never).plan == Made().plan
    assert cached_plan(other, never).plan == b"other"
    assert len(list(folder.glob("*.plan"))) == 2


def test_the_presets_name_is_only_to_be_read() -> None:
    assert dataclasses.replace(KEY, preset="mine").name == KEY.name


@pytest.mark.parametrize(
    ("change", "said"),
    [
        pytest.param({"model_sha256": "../../x"}, "a SHA-256 of 64 hexadecimal digits", id="a path as hash"),
        pytest.param({"version": ""}, "of a version, a device and a recipe", id="no version"),
        pytest.param({"rows": 0}, "got 0x512 of 1", id="no rows"),
        pytest.param({"sample_bytes": 3}, "got 512x512 of 3", id="three bytes"),
    ],
)
def test_a_key_that_names_nothing_is_refused(change: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        dataclasses.replace(KEY, **change)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"version": "11.0.0"}, "was built for tensorrt 10.16.1, here it is 11.0.0"),
        ({"device": "NVIDIA A40 SM86"}, "was built for device NVIDIA H200 SM90, here it is NVIDIA A40 SM86"),
        ({"recipe": "ba9876543210"}, "was built by another version of contrastream"),
    ],
    ids=["version", "device", "recipe"],
)
def test_a_plan_of_another_version_or_device_is_named_when_it_is_built_anew(
    caplog: pytest.LogCaptureFixture, change: dict[str, object], said: str
) -> None:
    cached_plan(KEY, Made)
    other = dataclasses.replace(KEY, **change)
    assert said in cached_plan(other, Made).why_built
    assert caplog.messages == [f"building the plan {other.identity}: the one in the cache {said}"]


def test_the_recipe_holds_every_file_that_makes_a_plan() -> None:
    harmless = {"engine", "errors", "model", "tensorrt_log"}
    for name in DERIVING:
        tree = ast.parse((ROOT / "engines" / name).read_text())
        used = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        ours = {
            module.removeprefix("engines.") for module in used if module and module.startswith("engines.")
        }
        assert {f"{module}.py" for module in ours - harmless} <= {*DERIVING}
    assert len(recipe()) == 12


def cut_off(plan: Path) -> None:
    plan.write_bytes(plan.read_bytes()[:1000])


def change_a_byte(plan: Path) -> None:
    content = bytearray(plan.read_bytes())
    content[5000] ^= 1
    plan.write_bytes(content)


def lose_sidecar(plan: Path) -> None:
    plan.with_suffix(".json").unlink()


def sidecar(text: str) -> Callable[[Path], None]:
    return lambda plan: plan.with_suffix(".json").write_text(text) and None


def claim(name: str, value: object, inside: str = "key") -> Callable[[Path], None]:
    def change(plan: Path) -> None:
        path = plan.with_suffix(".json")
        said = json.loads(path.read_text())
        (said[inside] if inside else said)[name] = value
        path.write_text(json.dumps(said))

    return change


SPOILT = [
    pytest.param(cut_off, "cut off or changed: 102400 bytes were written, found 1000", id="cut off"),
    pytest.param(change_a_byte, "do not have the hash of those that were written", id="a changed byte"),
    pytest.param(lose_sidecar, "has no sidecar: writing it was cut off", id="no sidecar"),
    pytest.param(sidecar(""), "the sidecar .* cannot be read", id="empty sidecar"),
    pytest.param(sidecar("[1]"), "the sidecar .* cannot be read", id="a list"),
    pytest.param(sidecar("[" * 100_000), "the sidecar .* cannot be read", id="a deep list"),
    pytest.param(sidecar(" " * 2_000_000), "the sidecar .* too large", id="a huge sidecar"),
    pytest.param(claim("format", "x/9", ""), "cannot be read: another format", id="another format"),
    pytest.param(claim("version", "10.3.0"), "built for tensorrt 10.3.0, here it is 10.16.1", id="version"),
    pytest.param(claim("device", "GTX"), "built for device GTX, here it is NVIDIA H200 SM90", id="device"),
    pytest.param(claim("rows", "512"), "cannot be read|built for rows 512", id="rows as text"),
    pytest.param(claim("seconds", -1.0, ""), "a size or a time that is none", id="negative time"),
    pytest.param(claim("plan_sha256", "00" * 32, ""), "do not have the hash", id="another hash"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILT)
def test_a_spoilt_plan_is_never_trusted_but_built_anew_with_a_line_that_says_why(
    folder: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[Path], None], said: str
) -> None:
    path = cached_plan(KEY, Made).path
    assert path is not None
    spoil(path)
    made = cached_plan(KEY, lambda: Made(b"anew"))
    assert made.plan == b"anew"
    (line,) = caplog.records
    assert line.getMessage() == f"building the plan {KEY.identity}: {made.why_built}"
    with pytest.raises(ValueError, match=said):
        raise ValueError(made.why_built)
    assert cached_plan(KEY, never).plan == b"anew"
    assert files(folder) == ["json", "plan"]


@pytest.mark.parametrize("error", [RuntimeError("no"), KeyboardInterrupt()], ids=["error", "Ctrl-C"])
def test_a_build_that_fails_or_is_interrupted_leaves_nothing(folder: Path, error: BaseException) -> None:
    def fail() -> Made:
        raise error

    with pytest.raises(type(error)):
        cached_plan(KEY, fail)
    assert list(folder.iterdir()) == []


def test_a_plan_that_its_library_refuses_can_be_forgotten(caplog: pytest.LogCaptureFixture) -> None:
    cached_plan(KEY, Made)
    forget_plan(KEY, "deserialize gave None")
    assert caplog.messages == [f"the plan {KEY.identity} is removed from the cache: deserialize gave None"]
    assert cached_plan(KEY, lambda: Made(b"anew")).plan == b"anew"


CHILD = f"""
import json, logging, os, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from engines.plan_cache import cached_plan
from engines.plan_facts import PlanKey
logging.basicConfig(format="%(message)s")
class Made:
    layers, activation_bytes, weights_bytes, warnings = (), None, None, ()
    def __init__(self, plan):
        self.plan = plan
key = PlanKey(**json.loads(sys.argv[1]))
"""


def child(code: str, key: PlanKey = KEY, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
    """A real process that uses the same cache."""
    return subprocess.Popen(
        [*before, sys.executable, "-c", CHILD + code, json.dumps(dataclasses.asdict(key))],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


WAITING_BUILD = """
def build():
    print("building", flush=True)
    sys.stdin.readline()
    return Made(b"of process %d" % os.getpid())
made = cached_plan(key, build)
print(made.plan.decode(), "|", made.why_built)
"""


def test_of_two_processes_one_builds_and_the_other_takes_its_plan(folder: Path) -> None:
    first = child(WAITING_BUILD)
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    second = child(WAITING_BUILD)
    assert second.stderr is not None
    assert second.stderr.readline().startswith(f"waiting for process {first.pid}, which is making {KEY.name}")
    first_said = first.communicate("\n", timeout=30)[0]
    second_said = second.communicate("", timeout=30)[0]
    assert first_said == f"of process {first.pid} | there is none in the cache\n"
    assert second_said == f"of process {first.pid} | \n"
    assert files(folder) == ["json", "plan"]


def test_who_waits_for_a_builder_that_is_killed_builds_by_itself(folder: Path) -> None:
    first = child(WAITING_BUILD)
    assert first.stdout is not None
    assert first.stdout.readline() == "building\n"
    second = child(WAITING_BUILD)
    assert second.stderr is not None
    assert second.stderr.readline().startswith("waiting for process")
    first.send_signal(signal.SIGKILL)
    first.communicate(timeout=30)
    assert second.communicate("\n", timeout=30)[0].endswith(
        f"of process {second.pid} | there is none in the cache\n"
    )
    assert files(folder) == ["json", "plan"]


STOPPED = """
real, left = os.CALL, [COUNT]
def stop(*arguments, **named):
    left[0] -= 1
    if left[0] == 0:
        print("stopped", flush=True)
        sys.stdin.read()
    return real(*arguments, **named)
os.CALL = stop
cached_plan(key, lambda: Made(b"never whole" * 10_000))
"""


@pytest.mark.parametrize("earlier", [False, True], ids=["nothing before", "over a spoilt plan"])
@pytest.mark.parametrize(
    ("call", "count"),
    [
        pytest.param("fsync", 1, id="plan written, not named"),
        pytest.param("replace", 1, id="plan on disk, not named"),
        pytest.param("fsync", 3, id="plan named, sidecar written"),
        pytest.param("replace", 2, id="plan named, sidecar not"),
    ],
)
def test_a_process_killed_while_it_writes_leaves_nothing_that_is_believed(
    folder: Path, call: str, count: int, earlier: bool
) -> None:
    if earlier:
        path = cached_plan(KEY, Made).path
        assert path is not None
        cut_off(path)
    killed = child(STOPPED.replace("CALL", call).replace("COUNT", str(count)))
    assert killed.stdout is not None
    assert killed.stdout.readline() == "stopped\n"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    left = files(folder)
    assert "plan.lock" in left
    assert {"plan.new", "json.new"} & {*left}
    assert cached_plan(KEY, lambda: Made(b"whole")).plan == b"whole"
    assert cached_plan(KEY, never).plan == b"whole"
    assert files(folder) == ["json", "plan"]


def test_what_a_killed_process_left_of_another_plan_is_swept(folder: Path) -> None:
    killed = child(STOPPED.replace("CALL", "fsync").replace("COUNT", "1"))
    assert killed.stdout is not None
    assert killed.stdout.readline() == "stopped\n"
    sweep(folder)
    assert files(folder) == ["plan.lock", "plan.new"], "a living process lost its files"
    killed.send_signal(signal.SIGKILL)
    killed.communicate(timeout=30)
    cached_plan(dataclasses.replace(KEY, rows=64), Made)
    assert files(folder) == ["json", "plan"]


FULL = """
import resource
if LIMITED:
    resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
made = cached_plan(key, lambda: Made(bytes(200_000)))
print(len(made.plan), made.path)
"""


def full_device(folder: Path) -> tuple[str, ...]:
    """The command line that gives a process a device of 64 KiB as that folder; skips where that is not allowed."""
    mount = f'mount -t tmpfs -o size=64k none "{folder}" && exec "$@"'
    before = ("unshare", "--user", "--map-root-user", "--mount", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*before, "true"], capture_output=True).returncode:
        pytest.skip("a small device can be made only where user namespaces may mount")
    return before


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        pytest.param("limit", "File too large", id="limited file size"),
        pytest.param("device", "No space left on device", id="a full device"),
    ],
)
def test_a_full_disk_costs_the_cache_and_not_the_plan(folder: Path, kind: str, reason: str) -> None:
    folder.mkdir(parents=True)
    before = full_device(folder) if kind == "device" else ()
    full = child(FULL.replace("LIMITED", str(kind == "limit")), before=before)
    out, said = full.communicate(timeout=30)
    assert out == "200000 None\n", said
    assert f"the plan {KEY.identity} is used but not kept, so the next start builds it anew: 0.2 MB" in said
    assert (
        f"could not be written into {folder}: {reason}; make room, or run: contrastream build --clear" in said
    )
    assert list(folder.iterdir()) == []


def test_without_a_cache_plans_are_built_each_time_and_that_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    made = [cached_plan(KEY, lambda n=n: Made(b"%d" % n)) for n in range(2)]  # type: ignore[misc]
    assert [(each.plan, each.path) for each in made] == [(b"0", None), (b"1", None)]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("plans are not kept, so every start builds anew: ")
    assert read_blob(KEY, "timing") is None
    assert not write_blob(KEY, "timing", b"x")


def test_where_there_can_be_no_lock_a_plan_is_built_and_not_kept(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cached_plan(dataclasses.replace(KEY, rows=64), Made)
    (folder / f"{KEY.name}.plan.lock").mkdir()
    made = cached_plan(KEY, Made)
    assert (made.plan, made.path) == (Made().plan, None)
    assert caplog.messages == [f"plans are not kept, so every start builds anew: {folder}: Is a directory"]


def kept(folder: Path, *sides: int) -> list[Path]:
    """Plans of 102,400 bytes each, the first longest unused."""
    paths = []
    for index, side in enumerate(sides):
        path = cached_plan(dataclasses.replace(KEY, rows=side), Made).path
        assert path is not None
        os.utime(path, ns=(index * 10**9, index * 10**9))
        paths.append(path)
    return paths


def test_above_the_limit_the_longest_unused_go_first(folder: Path) -> None:
    oldest, middle, newest = kept(folder, 64, 128, 256)
    assert [plan.path for plan in kept_plans(folder)] == [newest, middle, oldest]
    cached_plan(dataclasses.replace(KEY, rows=64), never)  # used again
    assert make_room(folder, newest.stem, limit_bytes=250_000) == [middle.stem]
    assert files(folder) == ["json", "json", "plan", "plan"]


def test_the_plan_just_built_stays_however_large(folder: Path) -> None:
    (only,) = kept(folder, 64)
    assert make_room(folder, only.stem, limit_bytes=1) == []
    assert only.exists()


def test_a_plan_that_another_process_is_making_is_not_removed(folder: Path) -> None:
    first, second = kept(folder, 64, 128)
    with locked(first):
        assert make_room(folder, "", limit_bytes=1) == [second.stem]
        assert not remove_plan(first)
    assert remove_plan(first)
    assert list(folder.iterdir()) == []


def test_a_removed_plan_takes_its_own_blobs_along_and_no_others(folder: Path) -> None:
    paths = kept(folder, 64, 128)
    first, second = (dataclasses.replace(KEY, rows=side) for side in (64, 128))
    for key in (first, second):
        write_blob(key, "runtime", b"kernels")
        write_blob(key, "runtime", b"kernels of another", "NVIDIA A40 SM86")
    write_blob(first, "timing", b"timings")
    remove_plan(paths[0])
    assert read_blob(first, "runtime") is None
    assert read_blob(first, "runtime", "NVIDIA A40 SM86") is None
    assert read_blob(second, "runtime") == b"kernels"
    assert read_blob(second, "runtime", "NVIDIA A40 SM86") == b"kernels of another"
    assert read_blob(second, "timing") == b"timings"
    remove_plan(paths[1])
    clear_folder(folder)
    assert list(folder.iterdir()) == []


def test_timings_are_shared_by_the_plans_of_a_gpu_and_a_version() -> None:
    write_blob(KEY, "timing", b"timings")
    assert read_blob(dataclasses.replace(KEY, rows=64, model_sha256="cd" * 32), "timing") == b"timings"
    assert read_blob(dataclasses.replace(KEY, version="11.0"), "timing") is None
    assert read_blob(dataclasses.replace(KEY, device="NVIDIA A40 SM86"), "timing") is None


def test_a_blob_can_be_written_while_its_plan_is_built() -> None:
    def build() -> Made:
        assert write_blob(KEY, "runtime", b"kernels")
        return Made()

    cached_plan(KEY, build)
    assert read_blob(KEY, "runtime") == b"kernels"


@pytest.mark.parametrize("spoil", [lambda all: all[:-1], lambda all: b"", lambda all: all + b"x"])
def test_a_spoilt_blob_is_not_handed_out(
    folder: Path, caplog: pytest.LogCaptureFixture, spoil: Callable[[bytes], bytes]
) -> None:
    write_blob(KEY, "timing", b"timings")
    (path,) = folder.iterdir()
    path.write_bytes(spoil(path.read_bytes()))
    assert read_blob(KEY, "timing") is None
    assert caplog.messages == ["the timing cache is made anew: it was cut off or changed"]
