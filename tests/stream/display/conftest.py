"""A publisher and a viewer's server, each a real process; a browser and a virtual screen."""

import json
import os
import select
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[3]
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def wait_until(condition: Callable[[], Any], what: str, limit_s: float = 10.0) -> Any:
    """Wait for something that another process does; fails with its name."""
    end = time.monotonic() + limit_s
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.02)
    pytest.fail(f"waited {limit_s} s for {what}")


class Process:
    """A child process that says something on its first line, and is always ended."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None, first_line: bool = True):
        self.child = subprocess.Popen(
            [sys.executable, *arguments],
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert self.child.stdout is not None
        self.first_line = self.child.stdout.readline().strip() if first_line else ""
        if first_line and not self.first_line:
            pytest.fail(f"{arguments} said nothing; stderr: {self.end()[1]}")

    def end(self, number: signal.Signals = signal.SIGKILL) -> tuple[int, str]:
        """Send a signal and wait; the exit status and what it wrote to stderr."""
        if self.child.poll() is None:
            self.child.send_signal(number)
        _, stderr = self.child.communicate(timeout=20)
        return self.child.returncode, stderr


class Publisher:
    """The test publisher, whose script can be changed while it runs, and which can be killed and started."""

    def __init__(self, folder: Path, **values: Any) -> None:
        self.endpoint = f"ipc://{folder}/stream"
        self._script = folder / "script.json"
        self.process: Process | None = None
        self.change(**values)
        self.start()

    def change(self, **values: Any) -> None:
        """Publish something else from the next frame on; what is not named is as by default."""
        draft = self._script.with_suffix(".new")
        draft.write_text(json.dumps(values))
        draft.replace(self._script)

    def start(self) -> None:
        """Start it, again after `kill`."""
        self.process = Process(
            str(Path(__file__).with_name("publisher.py")),
            self.endpoint,
            str(self._script),
            environment={"PYTHONPATH": str(ROOT)},
        )

    def kill(self) -> None:
        """SIGKILL."""
        if self.process is not None:
            self.process.end()
            self.process = None


class Server:
    """`python -m stream.display.web`."""

    def __init__(self, endpoint: str, *more: str, port: int = 0) -> None:
        self.process = Process("-m", "stream.display.web", endpoint, "--port", str(port), *more)
        self.first_entry = self.process.first_line.split()[-1]
        self.url = self.first_entry.partition("/?")[0]
        self.port = int(self.url.rsplit(":", 1)[1])
        self._opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(jar := CookieJar()))
        if self.url.startswith("http:"):
            with self._opener.open(self.first_entry, timeout=5):
                self.cookie = "; ".join(f"{found.name}={found.value}" for found in jar)

    def entry(self) -> str:
        """An address that opens the page once; the caller uses it, since only then the server prints the next."""
        assert self.process.child.stdout is not None
        if not select.select([self.process.child.stdout], [], [], 10)[0]:
            pytest.fail("the server printed no next address: the one before it was not used")
        return self.process.child.stdout.readline().split()[-1]

    def health(self) -> dict[str, Any]:
        """What /healthz says."""
        with self._opener.open(f"{self.url}/healthz", timeout=5) as answer:
            return json.load(answer)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    made = Path(tempfile.mkdtemp(prefix="cs-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def publisher(folder: Path) -> Iterator[Publisher]:
    """One publisher for the tests of a module."""
    made = Publisher(folder)
    yield made
    made.kill()


@pytest.fixture(scope="module")
def server(publisher: Publisher) -> Iterator[Server]:
    """One viewer's server for the tests of a module."""
    made = Server(publisher.endpoint)
    yield made
    made.process.end(signal.SIGTERM)


@pytest.fixture
def make_server() -> Iterator[Callable[..., Server]]:
    """Servers of a test's own."""
    made: list[Server] = []

    def make(*arguments: str, **more: Any) -> Server:
        made.append(Server(*arguments, **more))
        return made[-1]

    yield make
    for server in made:
        server.process.end()


@pytest.fixture
def make_publisher() -> Iterator[Callable[..., Publisher]]:
    """Publishers of a test's own."""
    made: list[tuple[Publisher, Path]] = []

    def make(**values: Any) -> Publisher:
        folder = Path(tempfile.mkdtemp(prefix="cs-"))
        made.append((Publisher(folder, **values), folder))
        return made[-1][0]

    yield make
    for publisher, folder in made:
        publisher.kill()
        shutil.rmtree(folder)


@pytest.fixture
def make_process() -> Iterator[Callable[..., Process]]:
    """Child processes of a test's own."""
    made: list[Process] = []

    def make(*arguments: str, **more: Any) -> Process:
        made.append(Process(*arguments, **more))
        return made[-1]

    yield make
    for process in made:
        process.end()


@pytest.fixture
def wait() -> Callable[..., Any]:
    """`wait_until`."""
    return wait_until


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Headless Chromium. Playwright keeps an event loop running in this thread for as long as this lives."""
    if not CHROMIUM.exists():
        pytest.skip(f"needs Chromium at {CHROMIUM}; install the chromium package")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=str(CHROMIUM), args=CHROMIUM_ARGUMENTS)
        yield made
        made.close()


class Screen:
    """A virtual X screen that is a file, so that its pixels can be read."""

    def __init__(self, folder: Path, columns: int = 1000, rows: int = 700) -> None:
        reader, writer = os.pipe()
        self._child = subprocess.Popen(
            f"Xvfb -displayfd {writer} -screen 0 {columns}x{rows}x24 -nolisten tcp -noreset -fbdir {folder}".split(),
            pass_fds=[writer],
            stderr=subprocess.DEVNULL,
        )
        os.close(writer)
        with os.fdopen(reader) as numbers:
            self.display = f":{numbers.readline().strip()}"
        self._file = folder / "Xvfb_screen0"

    def pixels(self) -> np.ndarray:
        """(rows, columns, 3) blue, green, red: what is on the screen now (X11's XWD format, version 7)."""
        raw = self._file.read_bytes()
        head = struct.unpack(">25I", raw[:100])
        header_bytes, columns, rows, line_bytes, colours = head[0], head[4], head[5], head[12], head[19]
        lines = np.frombuffer(raw, np.uint8, line_bytes * rows, header_bytes + colours * 12)
        return lines.reshape(rows, line_bytes)[:, : columns * 4].reshape(rows, columns, 4)[:, :, :3].copy()

    def press(self, *keys: str) -> None:
        """Press keys, with time between them."""
        for key in keys:
            subprocess.run(
                ["xdotool", "key", key], env={**os.environ, "DISPLAY": self.display}, check=True, timeout=10
            )
            time.sleep(0.15)

    def close(self) -> None:
        """End the X server."""
        self._child.terminate()
        self._child.wait(10)


@pytest.fixture(scope="module")
def screen(folder: Path) -> Iterator[Screen]:
    """A virtual screen."""
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"needs {program}; install the {program.lower()} package")
    made = Screen(folder)
    yield made
    made.close()
