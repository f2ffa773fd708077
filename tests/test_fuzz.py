"""`make fuzz`: its seeds are taken for what they are, and its command line; the long run itself is no part of `make test`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SEEDS = """
from fuzz.targets import TARGETS
for target in TARGETS:
    take = target.make()
    seeds = target.seeds()
    for seed in seeds:
        take(seed)
        for place in range(0, len(seed), max(1, len(seed) // 40)):
            take(seed[:place])
            take(seed[:place] + bytes((seed[place] ^ 0xFF,)) + seed[place + 1:])
    print(target.name, len(seeds))
"""


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Python as `make fuzz` starts it, but for the fuzzer itself."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=110,
    )


@pytest.mark.timeout(120)
def test_real_messages_cut_off_or_changed_anywhere_raise_nothing_else() -> None:
    done = run("-c", SEEDS)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()][:2] == ["wire", "status"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        pytest.param(("--only", "frieze"), "fuzz: --only needed one of wire, status, packets", id="only"),
        pytest.param(("--seconds", "0"), "fuzz: --seconds must be 1 or more, got 0", id="seconds"),
    ],
)
def test_what_it_cannot_do_is_one_sentence(arguments: tuple[str, ...], said: str) -> None:
    done = run("-m", "fuzz", *arguments)
    assert done.returncode == 2
    assert done.stderr.startswith(said)
    assert len(done.stderr.strip().splitlines()) == 1
