"""Browsers: opening a page in the user's own, and a Chromium with a profile of its own for measurements."""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
import webbrowser

from stream.errors import DisplayError

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
"""Names under which systems install it, in the order they are looked for."""
STOP_S = 5.0
QUIET = (
    "--no-first-run",
    "--no-default-browser-check",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--disable-quic",
    "--password-store=basic",
)
"""So that it does nothing but show its page."""


def open_page(address: str) -> None:
    """Open `address` in the user's browser, from a thread of its own, since some browsers keep the caller waiting."""
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(address,), name="browser", daemon=True).start()


def find_chromium() -> str | None:
    """The system's Chromium or Chrome; None where there is none."""
    return next((path for name in CHROMIUMS if (path := shutil.which(name)) is not None), None)


def chromium_version(path: str) -> str:
    """What a Chromium calls itself, for a report.

    Raises:
        DisplayError: It does not start.
    """
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError) as error:
        raise DisplayError(
            f"needed a Chromium that starts, got {path}: {type(error).__name__}; run it by hand and see what it says"
        ) from error
    return done.stdout.partition(" built on")[0].strip()


class OwnChromium:
    """A Chromium of our own that shows one page, with a profile that is thrown away at the end.

    Args:
        path: The program, as `find_chromium` gives it.
        address: The page.
        headless: Draw without a display. Otherwise it opens a window without a frame of buttons on DISPLAY.
    """

    def __init__(self, path: str, address: str, *, headless: bool) -> None:
        self._profile = tempfile.mkdtemp(prefix="contrastream-chromium-")
        command = [path, *QUIET, f"--user-data-dir={self._profile}", "--window-size=1280,800"]
        if os.geteuid() == 0:
            command.append("--no-sandbox")  # root gets no other; the page is our own server's
        command += ["--headless=new", address] if headless else ["--window-position=0,0", f"--app={address}"]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def has_ended(self) -> bool:
        """Whether it is over, closed by a person or by a fault of its own."""
        return self._process.poll() is not None

    def close(self) -> None:
        """End it with everything it started, and remove its profile; may be called twice."""
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(STOP_S)
        shutil.rmtree(self._profile, ignore_errors=True)
