"""Fuzz where bytes from outside are read, guided by coverage (atheris), each target for a while: `make fuzz`.

`make test` does the same for seconds with hypothesis; this is the longer run. What was learnt is kept in --corpus and begun from the
next time; an input that shows a fault is kept beside it. Exit status 0 when nothing was found, 1 when something was, 2 for what
the user can mend, 130 after Ctrl-C.
"""

import argparse
import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fuzz.targets import TARGETS, Target

HANG_S = 10
MEMORY_MIB = 1024
"""Of a whole process; one input may take half of it at once."""
LONGEST = 1 << 17
"""Bytes of an input."""
RUNS = re.compile(r"^Done (\d+) runs", re.MULTILINE)
COVERED = re.compile(r"cov: (\d+)")


@dataclass(frozen=True)
class Outcome:
    """What came of a target."""

    target: Target
    runs: int | None
    covered: int | None
    """Edges of the instrumented code that were reached."""
    kept: tuple[Path, ...]
    """Inputs that show a fault."""
    log: Path

    @property
    def sound(self) -> bool:
        return self.runs is not None and not self.kept


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make fuzz, or python -m fuzz", description=__doc__)
    parser.add_argument(
        "--only", action="append", default=[], metavar="NAME", help="one target; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="name the targets and end")
    parser.add_argument(
        "--seconds", type=int, default=120, metavar="N", help="for each (default: %(default)s)"
    )
    parser.add_argument(
        "--corpus", type=Path, default=Path("build/fuzz"), metavar="FOLDER", help="default: %(default)s"
    )
    return parser.parse_args(arguments)  # fmt: skip


def chosen(options: argparse.Namespace) -> list[Target]:
    """The targets that were asked for.

    Raises:
        ValueError: There is none of a name, or the time is none.
    """
    if options.seconds < 1:
        raise ValueError(f"--seconds must be 1 or more, got {options.seconds}")
    names = [target.name for target in TARGETS]
    for name in options.only:
        if name not in names:
            raise ValueError(f"--only needed one of {', '.join(names)}, got {name!r}")
    return [target for target in TARGETS if not options.only or target.name in options.only]


def fuzz(target: Target, seconds: int, folder: Path) -> Outcome:
    """Fuzz one target in a process of its own."""
    corpus = folder / target.name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(target.seeds()):
        (corpus / f"seed-{number}").write_bytes(seed)
    before = set(folder.glob(f"{target.name}-*"))
    log = folder / f"{target.name}.log"
    with log.open("w") as out:
        done = subprocess.run(
            [sys.executable, "-m", "fuzz.child", target.name, f"-max_total_time={seconds}", f"-timeout={HANG_S}",
             f"-rss_limit_mb={MEMORY_MIB}", f"-malloc_limit_mb={MEMORY_MIB // 2}", f"-max_len={LONGEST}",
             f"-artifact_prefix={folder / target.name}-", "-print_final_stats=1", str(corpus)],
            stdout=out, stderr=subprocess.STDOUT,
        )  # fmt: skip
    said = log.read_text(errors="replace")
    runs, covered = RUNS.search(said), COVERED.findall(said)
    return Outcome(
        target,
        int(runs[1]) if runs and done.returncode == 0 else None,
        int(covered[-1]) if covered else None,
        tuple(sorted(set(folder.glob(f"{target.name}-*")) - before)),
        log,
    )


def fault_of(outcome: Outcome) -> str:
    """The last line of the trace, or what libFuzzer says."""
    lines = outcome.log.read_text(errors="replace").splitlines()
    for place, line in enumerate(lines):
        if "Uncaught Python exception" in line:
            return lines[min(place + 1, len(lines) - 1)]
    return next(
        (line for line in lines if "ERROR: libFuzzer" in line), lines[-1] if lines else "it said nothing"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Fuzz."""
    options = parse(arguments)
    try:
        targets = chosen(options)
    except ValueError as error:
        print(f"fuzz: {error}", file=sys.stderr)
        return 2
    if options.list:
        print("\n".join(f"{target.name:12}{target.what}" for target in targets))
        return 0
    if importlib.util.find_spec("atheris") is None:
        print("fuzz: needed atheris, which is not here; run: make fuzz", file=sys.stderr)
        return 2
    options.corpus.mkdir(parents=True, exist_ok=True)
    os.environ["PYTHONHASHSEED"] = "0"
    sound = True
    try:
        for target in targets:
            outcome = fuzz(target, options.seconds, options.corpus)
            sound = sound and outcome.sound
            what = "nothing found" if outcome.sound else f"FOUND {fault_of(outcome)}"
            print(
                f"{target.name:12}{outcome.runs or 0:>10} inputs {outcome.covered or 0:>6} edges  {what}",
                flush=True,
            )
            for path in outcome.kept:
                print(f"{'':12}kept {path}, the trace is in {outcome.log}", flush=True)
    except KeyboardInterrupt:
        return 130
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
