"""The web viewer in a headless Chromium, for `bench live --shown`: an ordinary viewer that is asked when it drew each frame."""

import json
import select
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from urllib.parse import urljoin

from bench.errors import BenchError
from stream.display.browser import OwnChromium, chromium_version, find_chromium
from stream.display.shown import ShownFrames, read_shown
from stream.endpoint import parse_endpoint
from stream.errors import DisplayError

SERVER_MODULE = "stream.display.web"
START_S = 30.0
STOP_S = 5.0
POLL_S = 0.1


def find_browser() -> tuple[str, str]:
    """The system's Chromium: its path, and what it calls itself.

    Raises:
        DisplayError: There is none, or it does not start.
    """
    if (path := find_chromium()) is None:
        raise DisplayError(
            "--shown needs Chromium or Chrome, got none in PATH; install the chromium package, or measure without --shown"
        )
    return path, chromium_version(path)


class ViewerServer:
    """The web viewer's server in a process of its own, on any free port.

    Args:
        endpoint: The stream.
        more: More arguments of `python -m stream.display.web`.

    Raises:
        BenchError: It does not start.
    """

    def __init__(self, endpoint: str, *more: str) -> None:
        command = [sys.executable, "-m", SERVER_MODULE, endpoint, "--port", "0", "--die-with-parent", *more]
        if parse_endpoint(endpoint).memory is not None:
            command.append("--memory")  # as `contrastream run --web` does
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        self._visitor = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        """Has let itself in, to ask how many pages are connected."""
        with self._visitor.open(self._next_address(), timeout=START_S):
            self.address = self._next_address()
            """Opens the page, once."""

    def _next_address(self) -> str:
        assert self._process.stdout is not None
        ready = select.select([self._process.stdout], [], [], START_S)[0]
        line = self._process.stdout.readline() if ready else ""
        if not line:
            self.close()
            raise BenchError(
                f"the web viewer's server needed to start within {START_S:.0f} s, and did not; see the line above, if any"
            )
        return line.split()[-1]

    def why_ended(self) -> str | None:
        """The sentence for a server that has ended by itself; None while it serves."""
        status = self._process.poll()
        return None if status is None else f"the web viewer's server ended by itself (exit status {status})"

    def viewers(self) -> int:
        """How many pages are connected."""
        with self._visitor.open(urljoin(self.address, "/healthz"), timeout=STOP_S) as answer:
            return int(json.load(answer)["viewers"])

    def close(self) -> None:
        """End it and wait, so that whatever it writes is written; may be called twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


class ShownBrowser:
    """Opens the viewer's page and waits until it is connected.

    Args:
        endpoint: The stream.
        out: Where the server writes what the page says; read by `finish`.

    Raises:
        BenchError: The page does not come up.
        DisplayError: There is no Chromium.
    """

    def __init__(self, endpoint: str, out: Path) -> None:
        path, self.name = find_browser()
        self._out = out
        self._server = ViewerServer(endpoint, "--shown", str(out))
        self._browser = OwnChromium(path, self._server.address, headless=True)
        try:
            self._wait_for_page()
        except BaseException:
            self.close()
            raise

    def _wait_for_page(self) -> None:
        end_s = time.monotonic() + START_S
        while not self._server.viewers():
            if (why := self._server.why_ended()) is not None:
                raise BenchError(why)
            if self._browser.has_ended() or time.monotonic() > end_s:
                raise BenchError(
                    f"needed the viewer's page in {self.name} within {START_S:.0f} s, got none; open {self._server.address} in it "
                    "by hand and see what it says"
                )
            time.sleep(POLL_S)

    def finish(self) -> ShownFrames:
        """End server and browser; when each frame was drawn.

        Raises:
            DisplayError: The page drew nothing, or its clock is not known.
        """
        self.close()
        return read_shown(self._out)

    def close(self) -> None:
        """End both; may be called twice."""
        self._server.close()
        self._browser.close()
