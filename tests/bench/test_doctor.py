"""What the doctor finds, on this machine and on one that was broken on purpose."""

import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from bench import checks, checks_host, doctor
from bench.checks import Row


def test_a_socket_folder_open_to_others_is_found_with_how_to_mend_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "contrastream"
    folder.mkdir()
    folder.chmod(0o755)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    rows = {row.name: row for row in checks_host.check_transport()}
    assert rows["socket folder"].verdict == "MISSING"
    assert "mode 0755" in rows["socket folder"].found
    assert rows["socket folder"].mend == f"run: chmod 700 {folder} (or remove it)"
    assert rows["shared memory"].verdict == "ok"


def test_a_socket_folder_of_its_own_carries_a_message(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Not tmp_path, which holds this test's name: a socket's path may have 107 bytes.
    tmp_path = tmp_path_factory.mktemp("own")
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    rows = {row.name: row for row in checks_host.check_transport()}
    assert {row.verdict for row in rows.values()} == {"ok"}
    assert "a message came through" in rows["ipc sockets"].found
    folder = tmp_path / "contrastream"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert list(folder.iterdir()) == []


def test_a_path_too_long_for_a_socket_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / ("long" * 25)))
    rows = {row.name: row for row in checks_host.check_transport()}
    assert rows["socket folder"].verdict == "MISSING"
    assert "an ipc path must be at most" in rows["socket folder"].found
    assert "XDG_RUNTIME_DIR" in rows["socket folder"].mend


def test_every_default_dependency_is_tried_and_no_extra_is_among_them() -> None:
    names = checks.default_requirements()
    assert {"numpy", "pyzmq", "openvino", "pydicom", "starlette"} <= set(names)
    assert not {"torch", "onnxruntime", "tensorrt-cu13", "pycuda", "nvidia-ml-py"} & set(names)


def test_dependencies_are_imported_together_and_one_that_ends_the_process_is_told_from_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in {
        "whole": "",
        "broken": "raise RuntimeError('no such thing\\nmore')",
        "ends": "import os; os._exit(3)",
    }.items():
        (tmp_path / f"{name}.py").write_text(f"print('noise')\n{text}\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert checks._imported(["whole", "broken"]) == {"whole": "", "broken": "RuntimeError: no such thing"}
    assert checks._imported(["whole", "ends", "json"]) == {"whole": "", "ends": "exit status 3", "json": ""}


def test_code_that_fails_in_its_own_process_is_told_by_its_last_line() -> None:
    assert checks._tried("print('fine')") == (True, "fine")
    assert checks._tried("import no_such_module")[1].startswith("ModuleNotFoundError")
    works, said = checks._tried("import os; os.abort()")
    assert not works
    assert said


def test_a_check_that_fails_hides_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Row]:
        yield Row("group", "before", "ok", "fine")
        raise OSError("the disk is gone")

    monkeypatch.setattr(doctor, "CHECKS", (broken, checks.check_python))
    rows = doctor.examine()
    assert any("OSError: the disk is gone" in row.found for row in rows)
    assert any(row.name == "five packages" and row.verdict == "ok" for row in rows)
    assert not doctor.works(rows)


def test_what_is_absent_but_optional_leaves_the_default_path_working() -> None:
    assert doctor.works(
        [Row("a", "b", "ok", "c"), Row("a", "d", "absent", "e", "f"), Row("a", "g", "note", "h")]
    )


def test_a_backend_that_cannot_run_says_why_and_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from engines import open as opening

    monkeypatch.setattr(
        opening,
        "probe",
        lambda name: (False, f"{name} is not installed; run: pip install {name}; then again"),
    )
    monkeypatch.setattr(checks, "_driver", lambda: {"cuda": "13.0", "gpus": ["one"]})
    rows = list(checks.check_engines())
    assert [row.name for row in rows] == [
        "tensorrt", "tensorrt_rtx", "torch", "openvino", "onnxruntime", "plans", "any engine",
    ]  # fmt: skip
    assert rows[0] == Row(
        "engines", "tensorrt", "absent", "tensorrt is not installed", "run: pip install tensorrt; then again"
    )
    assert rows[-1].verdict == "MISSING"
    assert rows[-1].found.startswith("0 of 5 work")
    monkeypatch.setattr(checks, "_driver", lambda: {"why": "no driver"})
    mends = {row.name: row.mend for row in checks.check_engines()}
    assert mends["tensorrt"] == "with an NVIDIA GPU: pip install tensorrt; then again"
    assert mends["onnxruntime"] == "run: pip install onnxruntime; then again"


@pytest.mark.parametrize(
    ("said", "verdict", "found"),
    [
        (
            '{"builder": "tensorrt_rtx 1.7.1"}',
            "ok",
            "tensorrt_rtx 1.7.1 builds them here: contrastream build",
        ),
        ('{"why": "needed tensorrt or tensorrt_rtx"}', "absent", "needed tensorrt or tensorrt_rtx"),
        (None, "absent", "the libraries failed: signal 11; look at nvidia-smi"),
    ],
    ids=["here", "none", "crash"],
)
def test_what_builds_plans_has_a_row(
    monkeypatch: pytest.MonkeyPatch, said: str | None, verdict: str, found: str
) -> None:
    from engines import open as opening

    monkeypatch.setattr(opening, "probe", lambda name: (False, "no; do nothing"))
    monkeypatch.setattr(checks, "_tried", lambda code: (said is not None, said or "signal 11"))
    monkeypatch.setattr(checks, "_driver", lambda: {"why": "no driver"})
    (row,) = [row for row in checks.check_engines() if row.name == "plans"]
    assert (row.verdict, row.found, bool(row.mend)) == (verdict, found, verdict != "ok")


def test_a_backend_whose_inference_fails_is_not_called_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    from engines import open as opening

    monkeypatch.setattr(opening, "probe", lambda name: (name == "torch", "no; do nothing"))
    monkeypatch.setattr(checks, "_tried", lambda code, *name: (False, "EngineError: CUDA out of memory"))
    (torch,) = [row for row in checks.check_engines() if row.name == "torch"]
    assert (torch.verdict, torch.found) == (
        "note",
        "usable, but an inference failed: EngineError: CUDA out of memory",
    )
    assert "--engine torch" in torch.mend


GPU_ANSWERS = {
    "no driver": ({"why": "no NVIDIA driver (libcuda.so.1 is not there); install it"}, ([], "no NVML; install it")),
    "two GPUs": (
        {"cuda": "13.0", "gpus": ["GPU of a test (compute capability 9.0)", "old GPU (compute capability 7.0)"]},
        ([{"name": "GPU of a test", "driver": "580", "temperature_c": 63, "power_w": None, "throttle": ["idle"]}], ""),
    ),
}  # fmt: skip


@pytest.mark.parametrize("machine", GPU_ANSWERS)
def test_the_driver_its_gpus_and_their_telemetry_have_rows(
    monkeypatch: pytest.MonkeyPatch, machine: str
) -> None:
    driver, telemetry = GPU_ANSWERS[machine]
    answers = {checks._DRIVER: driver, checks._TELEMETRY: telemetry}
    monkeypatch.setattr(checks, "_tried", lambda code: (True, json.dumps(answers[code])))
    rows = [(row.name, row.verdict, row.found, row.mend) for row in checks.check_gpu()]
    if machine == "no driver":
        assert rows == [
            ("NVIDIA driver", "absent", "no NVIDIA driver (libcuda.so.1 is not there)", "install it"),
            ("telemetry", "absent", "no NVML", "install it"),
        ]
        return
    assert [row[:2] for row in rows] == [
        ("NVIDIA driver", "ok"), ("GPU 0", "ok"), ("GPU 1", "ok"), ("telemetry", "ok"),
    ]  # fmt: skip
    assert rows[0][2] == "answers; runs CUDA up to 13.0"
    assert rows[3][2].startswith(
        "GPU of a test, driver 580: 63 °C, ? W, ? MHz, ? of ? MiB used, clocks held by idle"
    )


def test_a_drivers_library_that_crashes_is_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "_tried", lambda code: (False, "exit status -11"))
    rows = list(checks.check_gpu())
    assert [row.found for row in rows] == [
        "the driver's library failed: exit status -11",
        "NVML failed: exit status -11",
    ]
    assert all(row.verdict == "absent" and row.mend for row in rows)


@pytest.mark.slow
def test_the_command_ends_with_1_and_names_the_one_broken_thing(tmp_path: Path) -> None:
    folder = tmp_path / "contrastream"
    folder.mkdir()
    folder.chmod(0o777)
    out = tmp_path / "doctor.json"
    done = subprocess.run(
        [sys.executable, "-m", "contrastream", "doctor", "--out", str(out)],
        capture_output=True,
        text=True,
        env={**os.environ, "XDG_RUNTIME_DIR": str(tmp_path)},
    )
    assert done.returncode == 1, done.stderr
    report = json.loads(out.read_text())
    missing = [row["name"] for row in report["checks"] if row["verdict"] == "MISSING"]
    assert missing == ["socket folder"]
    assert report["works"] is False
    assert "to mend: socket folder" in done.stdout
    groups = {row["group"] for row in report["checks"]}
    assert groups == {"install", "sources", "engines", "gpu", "extras", "display", "transport", "timing"}
    unmended = [row["name"] for row in report["checks"] if row["verdict"] != "ok" and not row["mend"]]
    assert unmended == []
