"""A pipeline in processes of its own, started by the command as a user would; and what it leaves behind."""

import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

BROKEN = Path(__file__).with_name("broken_engine")
MEMORY = re.compile(r"/memfd:contrastream")


class Unready(Exception):
    """The stream or a client did not come to the state from which a case begins."""


class Running:
    """A run of `contrastream run`.

    Args:
        endpoint: Where it publishes.
        more: More arguments.
        engine_fault: As `broken_engine/sitecustomize.py` takes it.
        mark: The file that says when the engine's fault began.
    """

    def __init__(self, endpoint: str, *more: str, engine_fault: str = "", mark: Path | None = None) -> None:
        environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
        if engine_fault:
            environment["PYTHONPATH"] = os.pathsep.join([str(BROKEN), os.environ.get("PYTHONPATH", "")])
            environment["CONTRASTREAM_ENGINE_FAULT"] = engine_fault
            environment["CONTRASTREAM_ENGINE_BROKEN"] = str(mark)
        self._said = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in `close`
        self.process = subprocess.Popen(
            [sys.executable, "-m", "contrastream", "run", "phantom", "--endpoint", endpoint, *more],
            stdout=self._said,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        self.memories: set[int] = set()
        """Inodes of its anonymous memories."""
        self.pids: set[int] = {self.process.pid}

    def children(self) -> dict[int, str]:
        """Its children by process id, with their state (R, S, Z, ...)."""
        pid = self.process.pid
        found = {}
        for task in Path(f"/proc/{pid}/task").glob("*/children"):
            for child in task.read_text().split():
                try:
                    found[int(child)] = Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0]
                except OSError:
                    continue
        return found

    def child(self, module: str) -> int:
        """The child that runs `module`.

        Raises:
            Unready: There is none.
        """
        for pid in self.children():
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                return pid
        raise Unready(f"the pipeline has no child that runs {module}")

    def look(self) -> None:
        """Remember its processes and memories, to look for what is left of them."""
        self.pids |= set(self.children())
        self.memories |= memories_of(self.process.pid)

    def end(self) -> tuple[int, str]:
        """Ctrl-C, to a stopped one too; its exit status and what it printed."""
        self.look()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            self.process.send_signal(signal.SIGINT)
        return self.finish()

    def finish(self) -> tuple[int, str]:
        """Wait for it; its exit status and what it printed."""
        try:
            self.process.wait(10.0)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._said.seek(0)
        return self.process.returncode, self._said.read()

    def left_behind(self, within_s: float = 3.0) -> list[str]:
        """What is left of it: processes, and anonymous memory in any process. It has ended or was killed.

        Its orphans are the init process's to reap: one that has ended and waits for that is not left.
        """
        over = time.monotonic() + within_s
        while True:
            left = [
                f"process {pid} ({state})"
                for pid in sorted(self.pids)
                if (state := state_of(pid)) not in "ZX"
            ]
            left += [f"memory in process {pid}" for pid in holders(self.memories)]
            if not left or time.monotonic() > over:
                return left
            time.sleep(0.1)

    def close(self) -> None:
        """Make sure that nothing of it runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self._said.close()


def state_of(pid: int) -> str:
    """A process's state (R, S, D, Z, ...); X where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return "X"


def memories_of(pid: int) -> set[int]:
    """Inodes of the anonymous memories that a process holds, open or mapped."""
    found = set()
    try:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            if MEMORY.match(os.readlink(descriptor)):
                found.add(descriptor.stat().st_ino)
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            if "/memfd:contrastream" in line:
                found.add(int(line.split()[4]))
    except OSError:
        pass
    return found


def holders(memories: set[int]) -> list[int]:
    """The processes that hold any of these memories."""
    pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in pids if memories & memories_of(pid)] if memories else []


PROXY = """
import selectors, socket, sys
to, at, count = int(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
chosen = selectors.DefaultSelector()
for place in range(count):
    chosen.register(socket.create_server(("127.0.0.1", at + place)), selectors.EVENT_READ, to + place)
print("ready", flush=True)
while True:
    for key, _ in chosen.select():
        if isinstance(key.data, int):
            near, _ = key.fileobj.accept()
            try:
                far = socket.create_connection(("127.0.0.1", key.data))
            except OSError:
                near.close()
                continue
            chosen.register(near, selectors.EVENT_READ, far)
            chosen.register(far, selectors.EVENT_READ, near)
            continue
        try:
            data = key.fileobj.recv(1 << 18)
            if data:
                key.data.sendall(data)
                continue
        except OSError:
            pass
        for end in (key.fileobj, key.data):
            try:
                chosen.unregister(end)
            except (KeyError, ValueError):
                pass
            end.close()
"""


class Proxy:
    """A network between a publisher and its clients on TCP, which can be cut.

    Args:
        to: The publisher's first port.
        at: Its own.
        count: How many ports.
    """

    def __init__(self, to: int, at: int, count: int = 4) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROXY, str(to), str(at), str(count)], stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        if not self.process.stdout.readline():
            raise Unready(f"ports {at} to {at + count - 1} of this host are not free")

    def close(self) -> None:
        """End it, stopped or not."""
        self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()


def free_port() -> int:
    """A port with 30 others after it that are likely free."""
    with socket.create_server(("127.0.0.1", 0)) as one:
        return min(int(one.getsockname()[1]), 65000)
