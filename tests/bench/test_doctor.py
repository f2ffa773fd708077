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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert groups == {"install", "sources", "engines", "extras", "display", "transport", "timing"}
    unmended = [row["name"] for row in report["checks"] if row["verdict"] != "ok" and not row["mend"]]
    assert unmended == []
