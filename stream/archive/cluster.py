"""The loops of an archive over a Ray cluster: its driver is a process of its own (stream/archive/ray_driver.py).

Ray prints, waits for minutes where no cluster answers and ends its process with what it takes for fatal, so it is held at
arm's length: this side writes the work to the driver's stdin as JSON, reads JSON lines, and kills it when it must.
"""

import contextlib
import dataclasses
import importlib.util
import json
import os
import secrets
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from stream.archive.loop import Result, Task
from stream.config import SynthesizeConfig
from stream.errors import ClusterError

LOCAL = "local:"
CONNECT_S = 3.0
"""How long an address may take to accept a connection."""
READY_S = 30.0
"""How long a cluster that runs may take to answer `ray status`, which is 2 s where its machine is idle."""
STARTING_S = 180.0
"""How long a cluster may take to start on this machine or to let the driver in, which is 5 s where it is idle."""
LOOK_S = 0.2
MAX_LOCAL = 64
NO_TOKEN = b"InvalidAuthToken"
"""What Ray writes where a cluster wants a token that it is not given."""
WANTS_TOKEN = "it wants its token: put it into RAY_AUTH_TOKEN or ~/.ray/auth_token"
MAX_TEMP_PATH = 30
"""Ray puts sockets below its folder, and a socket's path has at most 107 bytes."""


class Cluster:
    """A Ray cluster with workers for the loops of one run.

    Args:
        address: `local:N`, `HOST:PORT` or `auto`.
        config: The run's.
        stopped: Once it is set no cluster is waited for, and no result comes.

    Raises:
        ClusterError: Not an address, or nobody is there.
        ModuleNotFoundError: Ray is not installed.
    """

    def __init__(self, address: str, config: SynthesizeConfig, stopped: threading.Event) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ModuleNotFoundError("ray is not installed", name="ray")
        self.workers, self.where = 0, ""
        self._local = _local_workers(address)
        if self._local is not None and config.workers is not None:
            raise ClusterError(
                f"--workers is for a cluster beyond this machine, got it with --ray {address}; leave it out"
            )
        if self._local is None and address != "auto":
            _check_reached(address)
        self._address = address
        self._config = config
        self._stopped = stopped
        self._process: subprocess.Popen[bytes] | None = None
        self._folder: Path | None = None
        self._log: IO[bytes] | None = None
        self._unread = b""

    def __enter__(self) -> "Cluster":
        """Start the driver and wait until the cluster has answered, or the run is stopped.

        Raises:
            ClusterError: It does not, or has too few CPUs.
        """
        env = {**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "PYTHONUNBUFFERED": "1"}
        if self._local is None:
            env |= self._token_mode(env)
        else:
            self._folder = _short_folder()
            # Who may use the cluster that is started here: this run alone.
            env |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
            env.pop("RAY_ADDRESS", None)
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "stream.archive.ray_driver"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=env,
            start_new_session=True,  # Ctrl-C in a terminal reaches this process alone
        )
        try:
            self._tell(
                {
                    "address": self._address,
                    "local": self._local,
                    "folder": None if self._folder is None else str(self._folder),
                    "config": json.loads(json.dumps(dataclasses.asdict(self._config), default=os.fspath)),
                }
            )
            self._answer(STARTING_S)  # it has Ray loaded, which no cluster has a part in
            said = self._answer(STARTING_S)  # also one that answers is slow where its machine is busy
            if said is not None:
                self.workers = int(said["workers"])
                self.where = f"a Ray cluster of {said['nodes']} machine{'s' if said['nodes'] > 1 else ''}"
        except BaseException:
            self.close()
            raise
        return self

    def _token_mode(self, env: dict[str, str]) -> dict[str, str]:
        """Ask whether a cluster is there, and what Ray must be told to give it its token, where it wants one.

        `ray start` takes a token by itself where the user has one; a program that joins must be told by RAY_AUTH_MODE, and with a
        token that a cluster does not want its workers never begin.

        Raises:
            ClusterError: It does not answer; or it wants a token, and there is none or another.
        """
        address = [] if self._address == "auto" else ["--address", self._address]
        command = [sys.executable, "-m", "ray.scripts.scripts", "status", *address]
        if NO_TOKEN not in self._said_by(command, env):
            return {}
        has_token = (
            env.get("RAY_AUTH_TOKEN")
            or env.get("RAY_AUTH_TOKEN_PATH")
            or (Path.home() / ".ray" / "auth_token").exists()
        )
        if "RAY_AUTH_MODE" in env or not has_token:
            raise ClusterError(f"--ray {self._address}: {WANTS_TOKEN}")
        return {"RAY_AUTH_MODE": "token"}

    def _said_by(self, command: list[str], env: dict[str, str]) -> bytes:
        """All that a command prints; nothing where the run is stopped meanwhile.

        Raises:
            ClusterError: It does not end.
        """
        over = time.monotonic() + READY_S
        with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as asked:
            try:
                while not self._stopped.is_set():
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        return asked.communicate(timeout=LOOK_S)[0]
                    if time.monotonic() > over:
                        raise self._no_answer(READY_S)
            finally:
                asked.kill()
        return b""

    def _tell(self, said: dict[str, Any]) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it has ended, which the next answer tells
            self._process.stdin.write(json.dumps(said).encode() + b"\n")
            self._process.stdin.flush()

    def _answer(self, within_s: float) -> dict[str, Any] | None:
        """The driver's next line; None once the run is stopped."""
        over = time.monotonic() + within_s
        while not self._stopped.is_set():
            if (said := self._line()) is not None:
                return said
            if time.monotonic() > over:
                break
        else:
            return None
        raise self._no_answer(within_s)

    def _no_answer(self, within_s: float) -> ClusterError:
        return ClusterError(
            f"--ray {self._address}: needed a Ray cluster, and none answered within {within_s:.0f} s; is it Ray's own port, and "
            "is Ray of this version there? See: ray status"
        )

    def _line(self) -> dict[str, Any] | None:
        """The driver's next line; None where there is none yet.

        Raises:
            ClusterError: It says that something is wrong, or has ended.
        """
        assert self._process is not None
        assert self._process.stdout is not None
        pipe = self._process.stdout.fileno()
        # Not a buffered reader's: what it holds `select` does not know of.
        if b"\n" not in self._unread:
            if not select.select([pipe], [], [], LOOK_S)[0]:
                return None
            if not (more := os.read(pipe, 1 << 16)):
                mode = os.environ.get("RAY_AUTH_MODE")
                token = f"; RAY_AUTH_MODE is {mode} here, is it on the cluster?" if mode else ""
                words = self._last_words().rstrip(".")
                raise ClusterError(f"--ray {self._address}: Ray's driver ended: {words}{token}")
            self._unread += more
        line, found, rest = self._unread.partition(b"\n")
        if not found:
            return None
        self._unread = rest
        said: dict[str, Any] = json.loads(line)
        if "error" in said:
            raise ClusterError(
                f"--ray {self._address}: {WANTS_TOKEN if self._token_refused() else said['error']}"
            )
        return said

    def _token_refused(self) -> bool:
        """Whether the cluster wants another token, which Ray says in its log alone."""
        assert self._log is not None
        self._log.seek(0)
        return NO_TOKEN in self._log.read()

    def _last_words(self) -> str:
        assert self._log is not None
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:300] if lines else "it said nothing"

    def synthesize(self, tasks: list[Task]) -> Generator[Result, None, None]:
        """Have loops made; yields what became of each, as they are done.

        Args:
            tasks: The loops.

        Raises:
            ClusterError: The cluster is lost.
        """
        waiting = {task.sha256: task for task in tasks}
        self._tell({"tasks": [dataclasses.asdict(task) for task in tasks]})
        while not self._stopped.is_set():
            said = self._line()
            if said is None:
                continue
            if "end" in said:
                break
            result = Result(**said["result"])
            if waiting.pop(result.sha256, None) is not None:
                yield result
        else:
            return
        for task in waiting.values():
            yield Result(
                task.sha256,
                "failed",
                f"{Path(task.path).name}: each worker that began it was lost; is there memory for its frames?",
            )

    def close(self) -> None:
        """End the driver, and with it a cluster that was started for this run."""
        if self._process is not None:
            assert self._process.stdin is not None
            with contextlib.suppress(OSError):
                self._process.stdin.close()  # it ends its cluster and itself
            if not self.workers:  # it waits for Ray and for nothing else
                self._process.kill()
            try:
                self._process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
            self._process = None
        if self._log is not None:
            self._log.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _local_workers(address: str) -> int | None:
    """N of `local:N`; None for another address."""
    if not address.startswith("local"):
        return None
    number = address.removeprefix(LOCAL)
    if not number.isdecimal() or not 1 <= int(number) <= MAX_LOCAL:
        raise ClusterError(
            f"--ray needs local:N with 1 to {MAX_LOCAL} workers, HOST:PORT or auto, got {address}; for example local:2"
        )
    return int(number)


def _check_reached(address: str) -> None:
    """Refuse an address where nobody listens, before Ray waits for it."""
    host, _, port = address.rpartition(":")
    if "/" in address or not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ClusterError(
            f"--ray needs local:N, HOST:PORT or auto, got {address}; for example 192.0.2.7:6379, from a machine of the cluster"
        )
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S).close()
    except OSError as error:
        raise ClusterError(
            f"--ray {address}: needed a Ray cluster, got: {error.strerror or error}; start one (ray start --head), or use "
            "local:2 for this machine alone"
        ) from None


def _short_folder() -> Path:
    above = tempfile.gettempdir()
    return Path(tempfile.mkdtemp(prefix="csr-", dir=above if len(above) <= MAX_TEMP_PATH else "/tmp"))
