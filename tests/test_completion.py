"""The completion scripts in the shells themselves: what a user types before TAB, and what the command then gets."""

import os
import pty
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GENEROUS_S = 60.0
TYPED = {
    "contrastream ben": "bench",
    "contrastream run phantom --engine openv": "run phantom --engine openvino",
    "contrastream calib pha": "calib phantom",
    "contrastream run --fault-": "run --fault-seed",
    "contrastream run one-l": "run one-loop.dcm",
    "contrastream replay one-loop.dcm --out rep": "replay one-loop.dcm --out report.json",
}
"""What is typed before TAB: the command's arguments then. The last two complete the names of files that are there."""


def script(shell: str) -> str:
    command = [sys.executable, "-m", "contrastream", "completion", shell]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=90).stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the user is: two files."""
    for name in ("one-loop.dcm", "report.json"):
        (tmp_path / name).touch()
    return tmp_path


def typed_into(command: list[str], folder: Path) -> list[str]:
    """What `contrastream` was called with in an interactive shell, one for each line of TYPED."""
    process, terminal = pty.fork()
    if process == 0:  # pragma: no cover - the child
        os.chdir(folder)
        os.execve(command[0], command, {**os.environ, "TERM": "dumb", "ZDOTDIR": str(folder), "PS1": "$ "})

    def until(end: bytes) -> str:
        seen = b""
        while end not in seen:
            assert select.select([terminal], [], [], GENEROUS_S)[0], f"no {end!r} after {seen!r}"
            seen += os.read(terminal, 65536)
        return seen.decode(errors="replace")

    try:
        until(b"READY")
        called = []
        for line in TYPED:
            os.write(terminal, line.encode() + b"\t\r")
            called.append(until(b":END").partition("CALLED:")[2].partition(":END")[0].strip())
        return called
    finally:
        os.close(terminal)
        os.waitpid(process, 0)


# What stands in for the command says what it was called with.
STAND_IN = 'contrastream() { echo "CALLED:$*:END"; }\n'


def test_bash_completes_commands_options_values_and_files(folder: Path) -> None:
    (folder / "rc").write_text(script("bash") + STAND_IN + "echo READY\n")
    called = typed_into(["/bin/bash", "--noprofile", "--rcfile", str(folder / "rc"), "-i"], folder)
    assert called == list(TYPED.values())


def test_zsh_completes_commands_options_values_and_files(folder: Path) -> None:
    zsh = shutil.which("zsh") or pytest.skip("zsh is not installed")
    functions = folder / "functions"
    functions.mkdir()
    (functions / "_contrastream").write_text(script("zsh"))
    (folder / ".zshrc").write_text(
        f"fpath=({functions} $fpath); autoload -U compinit; compinit -u -D\n{STAND_IN}echo READY\n"
    )
    called = typed_into([zsh, "-d", "-i"], folder)
    assert called == list(TYPED.values())


def test_fish_completes_commands_options_values_and_files(folder: Path) -> None:
    fish = shutil.which("fish") or pytest.skip("fish is not installed")
    (folder / "contrastream.fish").write_text(script("fish"))
    for line, called in TYPED.items():
        ask = ["--no-config", "-c", f"source contrastream.fish; complete -C {line!r}"]
        offered = subprocess.run(
            [fish, *ask], cwd=folder, env={**os.environ, "HOME": str(folder)}, capture_output=True, timeout=60
        ).stdout.decode()
        assert [choice.partition("\t")[0] for choice in offered.splitlines()] == [called.split()[-1]], line


def test_no_help_text_becomes_a_choice_of_its_own() -> None:
    (table,) = (line for line in script("bash").splitlines() if line.startswith("COMPLETION_SPEC = "))
    assert "Items with commas between" in table
    assert "\\n" not in table
