"""`make test` without ARGS: the tests that run the live path, one at a time, and beside them all others, three at a time.

The others run at the lowest priority, in a session of their own: the live path waits more than it computes, and they take what it
leaves of the cores. What they print goes to a file and is shown after the live path's. A live test that fails has a second try, since
the host may take the cores away, and the summary names it (RERUN).
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO

PYTEST = (sys.executable, "-m", "pytest", "--reruns", "1", "-r", "aR")
LOWEST = 19
PATIENCE_S = 600
"""How long a test may take that gets only what others leave of the cores."""
BESIDE = ("-n", "3", "--dist", "worksteal", f"--timeout={PATIENCE_S}")
"""How the others run: one more at once than this project's machines have cores, since each waits now and then; each worker begins
with a stretch of its own, so that a module's fixtures are made once, and takes from the others at the end."""
GRACE_S = 60.0
ENDINGS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Half:
    """One pytest in a session of its own, so that a signal reaches it once, from here.

    Args:
        arguments: Pytest's.
        low: Whether it gives way to everything else on this machine.
        into: Where it prints; None for this process's own output.
    """

    def __init__(self, *arguments: str, low: bool = False, into: IO[bytes] | None = None) -> None:
        self.process = subprocess.Popen(
            [*(("nice", "-n", str(LOWEST)) if low else ()), *PYTEST, *arguments],
            stdout=into,
            stderr=subprocess.STDOUT if into else None,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        # Where there is such a file, sessions share the cores evenly, whatever the priorities of their processes.
        group = Path(f"/proc/{self.process.pid}/autogroup")
        if low and group.exists():
            group.write_text(str(LOWEST))

    def interrupt(self) -> None:
        """What Ctrl-C in a terminal of its own would do."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGINT)

    def close(self) -> None:
        """Wait until it has tidied up, then make sure that nothing of its session is left."""
        try:
            self.process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def _stop(*_signal: object) -> None:
    for number in ENDINGS:
        signal.signal(number, signal.SIG_IGN)
    raise KeyboardInterrupt


def run(live: Sequence[str]) -> int:
    """Both halves; 0 where both pass, 1 where one does not, 130 after Ctrl-C, SIGTERM or a closed terminal."""
    for number in ENDINGS:
        signal.signal(number, _stop)
    with tempfile.TemporaryFile() as said:
        halves: list[Half] = []
        try:
            ignored = [f"--ignore={path}" for path in live]
            halves.append(Half(*BESIDE, *ignored, low=True, into=said))
            print("the live path's tests; the others run beside them and are shown after them", flush=True)
            halves.append(Half(*live))
            status = max(half.process.wait() != 0 for half in reversed(halves))
        except KeyboardInterrupt:
            status = 130
            for half in halves:
                half.interrupt()
        finally:
            for half in halves:
                half.close()
            said.seek(0)
            sys.stdout.buffer.write(said.read())
            sys.stdout.flush()
    return int(status)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("live", nargs="+", help="files and folders whose tests run the live path")
    sys.exit(run(parser.parse_args().live))
