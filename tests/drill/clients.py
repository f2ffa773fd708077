"""The clients that judge: a plain subscriber, the page in headless Chromium, the desktop window under Xvfb; `drill/recorder.py`
is the fourth.

Each gives a timeline: when it began to show which state, in ns of CLOCK_MONOTONIC, as a person would see it. A person sees the
page's large words and the window's border, so these are what is read, not what the pipeline says.
"""

import contextlib
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

TESTS = Path(__file__).resolve().parents[1]
CHROMIUM = Path("/usr/bin/chromium")
CHROMIUM_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
LOOK_S = 0.05
STOP_S = 5.0
# Blue, green, red, as stream/display/marks.py has them: the border of each state.
BORDERS = {"UNCHANGED": (255, 177, 111), "STALE": (67, 159, 255), "NO_SIGNAL": (92, 92, 255)}
SYNTHETIC_COLOUR = (63, 210, 255)
BORDER_PIXELS = 3000


def now_ns() -> int:
    """The clock of the frame path."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


@dataclass(frozen=True)
class Seen:
    """A change of what a client shows."""

    at_ns: int
    state: str
    reason: str = ""
    """Of a PASSTHROUGH, where this client tells."""
    aged: bool = True
    """Whether the picture says its age, and the age goes on; True for states without."""


@runtime_checkable
class Client(Protocol):
    """One kind of client."""

    name: str

    def timeline(self) -> list[Seen]:
        """All it has shown so far."""

    def close(self) -> None:
        """End it, whatever became of it."""


def end(process: "subprocess.Popen[Any]") -> None:
    """End a process, even a stopped one."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


class Plain:
    """A `Subscriber` in a process of its own, which also writes down every frame (tests/stream/recording_client.py)."""

    name = "subscriber"

    def __init__(self, endpoint: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(TESTS / "stream" / "recording_client.py"), endpoint],
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: list[dict[str, Any]] = []
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with contextlib.suppress(json.JSONDecodeError):  # cut off when it was killed
                self.lines.append(json.loads(line))

    def of(self, what: str, since_ns: int = 0) -> list[dict[str, Any]]:
        """Frames or heartbeats from an instant on."""
        return [line for line in list(self.lines) if line["what"] == what and line["at_ns"] >= since_ns]

    def timeline(self) -> list[Seen]:
        seen: list[Seen] = []
        for line in list(self.lines):
            if line["what"] == "frame":
                reason = line["reason"] if line["state"] == "PASSTHROUGH" else ""
                now = Seen(line["at_ns"], line["state"], reason)
            elif line["what"] == "shown" and line["state"] in BORDERS:
                now = Seen(line["at_ns"], line["state"], aged=line["age_ms"] > 0)
            else:
                continue
            if not seen or (seen[-1].state, seen[-1].reason) != (now.state, now.reason):
                seen.append(now)
        return seen

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._thread.join(STOP_S)
        if self._process.stdout is not None:
            self._process.stdout.close()


WATCH = """() => {
  window.drillSeen = [];
  const note = () => {
    const veil = document.getElementById("veil");
    const words = veil.hidden ? "" : document.getElementById("veil-title").textContent;
    const {state, reason} = document.body.dataset;
    const last = drillSeen.at(-1);
    if (!last || last.state !== state || last.reason !== reason || last.words !== words) {
      drillSeen.push({at: Date.now(), state, reason, words});
    }
  };
  new MutationObserver(note).observe(document.body, {attributes: true, childList: true, subtree: true, characterData: true});
  note();
}"""


class Page:
    """The web viewer's server, and its page in headless Chromium. Only to be used in the thread that made it.

    Args:
        endpoint: The stream.
        browser: Of Playwright.
    """

    name = "web viewer"

    def __init__(self, endpoint: str, browser: Any) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", "stream.display.web", endpoint, "--port", "0"],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._server.stdout is not None
        line = self._server.stdout.readline().strip()
        if not line:
            self._server.wait(STOP_S)
            raise RuntimeError("the web viewer's server did not start; see the line above")
        # Once: a look that found another offset would give the same change another time.
        self._wall_ns = now_ns() - time.time_ns()
        self.page = browser.new_page(viewport={"width": 1280, "height": 800})
        self.page.goto(line.split()[-1])
        self.page.evaluate(WATCH)

    def timeline(self) -> list[Seen]:
        seen: list[Seen] = []
        words_of: list[set[str]] = []
        for line in self.page.evaluate("drillSeen"):
            reason = line["reason"] if line["state"] == "PASSTHROUGH" else ""
            if not seen or (seen[-1].state, seen[-1].reason) != (line["state"], reason):
                seen.append(Seen(int(line["at"] * 1e6) + self._wall_ns, line["state"], reason))
                words_of.append(set())
            words_of[-1].add(line["words"])
        # The age is in the large words, which therefore change while the state lasts.
        return [
            Seen(each.at_ns, each.state, each.reason, each.state not in BORDERS or len(words - {""}) > 1)
            for each, words in zip(seen, words_of, strict=True)
        ]

    def freeze(self, frozen: bool) -> None:
        """Do to the page what a browser does to a tab in the background."""
        session = self.page.context.new_cdp_session(self.page)
        session.send("Page.setWebLifecycleState", {"state": "frozen" if frozen else "active"})
        session.detach()

    def close(self) -> None:
        with contextlib.suppress(Exception):  # the browser may have gone on Ctrl-C
            self.page.close()
        end(self._server)
        if self._server.stdout is not None:
            self._server.stdout.close()


class Window:
    """The desktop window on a virtual screen, read off the screen's pixels twenty times a second."""

    name = "window"

    def __init__(self, endpoint: str) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="drill-screen-"))
        reader, writer = os.pipe()
        self._screen = subprocess.Popen(
            f"Xvfb -displayfd {writer} -screen 0 1000x560x24 -nolisten tcp -noreset -fbdir {self._folder}".split(),
            pass_fds=[writer],
            stderr=subprocess.DEVNULL,
        )
        os.close(writer)
        with os.fdopen(reader) as numbers:
            self._display = f":{numbers.readline().strip()}"
        self._endpoint = endpoint
        self._window = self._open()
        self._seen: list[Seen] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _open(self) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "stream.display.window", self._endpoint],
            env={**os.environ, "DISPLAY": self._display},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def again(self) -> None:
        """Open the window anew: on a bare X server OpenCV's sometimes stays black."""
        end(self._window)
        self._window = self._open()

    def _pixels(self) -> np.ndarray:
        """(rows, columns, 3) blue, green, red (X11's XWD format, version 7)."""
        raw = (self._folder / "Xvfb_screen0").read_bytes()
        head = struct.unpack(">25I", raw[:100])
        start, columns, rows, line_bytes, colours = head[0], head[4], head[5], head[12], head[19]
        lines = np.frombuffer(raw, np.uint8, line_bytes * rows, start + colours * 12)
        return lines.reshape(rows, line_bytes)[:, : columns * 4].reshape(rows, columns, 4)[:, :, :3]

    def _watch(self) -> None:
        before: np.ndarray | None = None
        while not self._over.wait(LOOK_S):
            at_ns = now_ns()
            with contextlib.suppress(OSError, ValueError, struct.error):
                pixels = self._pixels()
                state = self._state(pixels)
                if not self._seen or self._seen[-1].state != state:
                    self._seen.append(Seen(at_ns, state, aged=state not in BORDERS))
                elif not self._seen[-1].aged and before is not None and (before != pixels).any():
                    # The picture stands still but for its age.
                    last = self._seen[-1]
                    self._seen[-1] = Seen(last.at_ns, last.state, aged=True)
                before = pixels.copy()

    @staticmethod
    def _state(pixels: np.ndarray) -> str:
        words = pixels.reshape(-1, 3).astype(np.uint32) @ np.array([1, 256, 65536], np.uint32)

        def count(colour: tuple[int, int, int]) -> int:
            return int((words == colour[0] + 256 * colour[1] + 65536 * colour[2]).sum())

        for state, colour in BORDERS.items():
            if count(colour) > BORDER_PIXELS:
                return state
        return "SYNTHETIC" if count(SYNTHETIC_COLOUR) > 20 else "PASSTHROUGH" if words.any() else "BLACK"

    def timeline(self) -> list[Seen]:
        return list(self._seen)

    def close(self) -> None:
        self._over.set()
        self._thread.join(STOP_S)
        end(self._window)
        end(self._screen)
        shutil.rmtree(self._folder, ignore_errors=True)
