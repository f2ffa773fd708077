"""The display client that `bench glass` looks at: the desktop window, or the web viewer in a browser."""

import os
import subprocess
import sys
from typing import Any, Protocol, runtime_checkable

from bench.live import say
from bench.shown import ViewerServer
from stream.display.browser import OwnChromium, chromium_version, find_chromium
from stream.errors import DisplayError

WINDOW_MODULE = "stream.display.window"
STOP_S = 3.0
VIEW = "live"
"""The live picture alone: over the others a mark is burned in, which would hide a corner of the target."""


@runtime_checkable
class Display(Protocol):
    """A display client in processes of its own."""

    facts: dict[str, Any]
    """What a report says of it."""

    def why_ended(self) -> str | None:
        """The sentence for a client that has ended by itself; None while it shows."""

    def again(self) -> bool:
        """Open it anew, where that may help a target that is not seen; False where it is left alone."""

    def close(self) -> None:
        """End it; may be called twice."""


def open_display(kind: str, endpoint: str) -> Display:
    """Open a display client for a stream.

    Args:
        kind: `window` or `web`.
        endpoint: The stream.

    Raises:
        BenchError: The web viewer's server does not start.
        DisplayError: There is no display for a window, or it does not answer.
    """
    return WindowDisplay(endpoint) if kind == "window" else WebDisplay(endpoint)


class WindowDisplay:
    """The desktop window on this host's display; `check_display` has found it."""

    def __init__(self, endpoint: str) -> None:
        self._endpoint = endpoint
        self.facts: dict[str, Any] = {
            "kind": "window",
            "name": f"desktop window, {VIEW} picture",
            "starts": 0,
        }
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self.facts["starts"] += 1
        command = [sys.executable, "-m", WINDOW_MODULE, self._endpoint, "--mode", VIEW, "--die-with-parent"]
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True
        )

    def why_ended(self) -> str | None:
        status = self._process.poll()
        if status is None:
            return None
        return f"needed the desktop window until the end, but it was closed (exit status {status}); leave it open"

    def again(self) -> bool:
        say(
            "the desktop window shows no target, as on a bare X server it sometimes does not; opening it again"
        )
        self.close()
        self._process = self._start()
        return True

    def close(self) -> None:
        _end(self._process)


class WebDisplay:
    """The web viewer, in a Chromium of our own where there is one and a display for it; else in a browser that a person opens."""

    def __init__(self, endpoint: str) -> None:
        self._server = ViewerServer(endpoint)
        self._browser: OwnChromium | None = None
        try:
            address = f"{self._server.address}#{VIEW}"
            path = find_chromium()
            if path is None or not os.environ.get("DISPLAY"):
                missing = "no Chromium was found" if path is None else "there is no DISPLAY"
                say(f"{missing}; open {address} on the screen that the camera sees")
                name = "web viewer in a browser that a person opened"
            else:
                name = f"web viewer in {chromium_version(path)}"
                self._browser = OwnChromium(path, address, headless=False)
        except BaseException:
            self.close()
            raise
        self.facts = {"kind": "web", "name": f"{name}, {VIEW} picture", "starts": 1}

    def why_ended(self) -> str | None:
        if self._browser is not None and self._browser.has_ended():
            return "needed the browser until the end, but it was closed; leave it open"
        return self._server.why_ended()

    def again(self) -> bool:
        return False

    def close(self) -> None:
        if self._browser is not None:
            self._browser.close()
        self._server.close()


def _end(process: "subprocess.Popen[Any]") -> None:
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()


def check_display_for(kind: str) -> None:
    """Find out before a run that its display client could not be opened.

    Raises:
        DisplayError: There is no display for a window, or it does not answer.
    """
    if kind != "window":
        return
    from stream.display.window import check_display

    try:
        check_display()
    except DisplayError as error:
        # The window's own advice names another command.
        said = str(error).partition(";")[0]
        raise DisplayError(
            f"{said}; start it in a desktop session, or show the target in a browser: --display web"
        ) from error
