"""The private folder of what is derived: whose it is, one writer at a time, whole files."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from engines.cache_folder import cache_folder, locked, write_whole

ROOT = Path(__file__).resolve().parents[2]

COUNTING = """
import sys
from pathlib import Path
from engines.cache_folder import locked
counter = Path(sys.argv[1])
for _ in range(int(sys.argv[2])):
    with locked(counter):
        counter.write_text(str(int(counter.read_text()) + 1))
"""
HOLDING = """
import sys
from pathlib import Path
from engines.cache_folder import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def child(code: str, *arguments: str) -> subprocess.Popen[str]:
    """A Python process of the same user."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_the_folder_is_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "contrastream").mkdir(mode=0o755)
    folder = cache_folder("plans", "lost")
    assert folder == tmp_path / "contrastream" / "plans"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert stat.S_IMODE(folder.parent.stat().st_mode) == 0o700


def test_a_folder_that_cannot_be_made_is_said_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    assert [cache_folder("plans", "plans are not kept") for _ in range(3)] == [None, None, None]
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("plans are not kept: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another user")
@pytest.mark.parametrize("folder", ["contrastream", "contrastream/plans"])
def test_another_users_folder_is_not_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, folder: str
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "contrastream" / "plans").mkdir(parents=True)
    os.chown(tmp_path / folder, 12345, 12345)
    assert cache_folder("plans", "plans are not kept") is None
    assert caplog.messages == [f"plans are not kept: {tmp_path / folder} belongs to another user"]


def test_no_two_processes_hold_a_lock_and_it_leaves_no_file(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    counter.write_text("0")
    children = [child(COUNTING, str(counter), "200") for _ in range(3)]
    for each in children:
        _, said = each.communicate(timeout=60)
        assert each.returncode == 0, said
    assert counter.read_text() == "600"
    assert [path.name for path in tmp_path.iterdir()] == ["counter"]


def test_a_held_lock_names_its_holder_and_is_free_when_that_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    holder = child(HOLDING, str(path))
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(BlockingIOError), locked(path, wait=False):
        pass
    waiter = child(HOLDING, str(path))
    assert waiter.stderr is not None
    assert waiter.stderr.readline() == f"waiting for process {holder.pid}, which is making thing\n"
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=30)
    waiter.communicate("", timeout=30)
    assert waiter.returncode == 0
    assert list(tmp_path.iterdir()) == []


def test_a_lock_is_given_back_whatever_happens_inside(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), locked(tmp_path / "thing"):
        raise KeyboardInterrupt
    with locked(tmp_path / "thing", wait=False):
        assert [path.name for path in tmp_path.iterdir()] == ["thing.lock"]
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "thing"
    write_whole(path, b"before")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    code = (
        "import resource, sys; from pathlib import Path; from engines.cache_folder import write_whole\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))\n"
        "write_whole(Path(sys.argv[1]), bytes(9000))"
    )
    _, said = child(code, str(path)).communicate(timeout=30)
    assert "File too large" in said
    assert path.read_bytes() == b"before"
    assert [path.name for path in tmp_path.iterdir()] == ["thing"]
