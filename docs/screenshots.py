"""Makes docs/pictures/viewer-*.webp from real runs of the digital phantom: `make screenshots`. Needs Chromium and the extra `test`."""

import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-sync",
]
PICTURES = Path(__file__).with_name("pictures")
WIDTH, HEIGHT = 1280, 640
QUALITY = 82
WAIT_MS = 120_000
DRAWN_FRAMES = 40
"""So many frames in the state that is wanted, and the figures on the page have settled."""


@contextlib.contextmanager
def process(*arguments: str, out: int | None = None) -> Iterator["subprocess.Popen[str]"]:
    """A command that ends with this."""
    child = subprocess.Popen([sys.executable, "-m", *arguments], stdout=out, text=True)
    try:
        yield child
    finally:
        child.terminate()
        child.wait()


def keep(page: Page, name: str) -> None:
    """What the page shows, as WebP."""
    picture = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    cv2.imwrite(str(PICTURES / f"{name}.webp"), picture, [cv2.IMWRITE_WEBP_QUALITY, QUALITY])
    print(f"written {PICTURES / name}.webp")


def wait_for(page: Page, state: str, frames: int = DRAWN_FRAMES) -> None:
    """Until the page has said `state` in so many animation frames, and says it now."""
    page.wait_for_function(
        """([state, frames]) => {
            const said = document.getElementById("state").textContent.includes(state);
            window.counted ??= {};
            if (said) window.counted[state] = (window.counted[state] ?? 0) + 1;
            return said && window.counted[state] >= frames;
        }""",
        arg=[state, frames],
        timeout=WAIT_MS,
    )


@contextlib.contextmanager
def viewer(browser: Browser, endpoint: str, view: str, *more: str) -> Iterator[Page]:
    """The web viewer's page of a stream."""
    with process("stream.display.web", endpoint, "--port", "0", *more, out=subprocess.PIPE) as server:
        assert server.stdout is not None
        page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
        page.goto(f"{server.stdout.readline().split()[-1]}#{view}")
        yield page
        page.close()


def main() -> None:
    """Run the phantom with and without an engine, and take the pictures."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cs-") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        run = (
            "contrastream",
            "run",
            "phantom",
            "--rate",
            "15",
            "--no-audit",
            "--endpoint",
            f"ipc://{folder}/shots",
        )
        with viewer(browser, f"ipc://{folder}/shots", "side") as page:
            with process(*run):
                wait_for(page, "SYNTHETIC")
                keep(page, "viewer-side")
                keeping = ("--keep-last", "60", "--keep-in", folder)
                with viewer(browser, f"ipc://{folder}/shots", "side", *keeping) as other:
                    wait_for(other, "SYNTHETIC")
                    other.keyboard.press("?")
                    keep(other, "viewer-keys")
            wait_for(page, "NO SIGNAL")
            keep(page, "viewer-gone")
        with process(*run, "--engine", "off"), viewer(browser, f"ipc://{folder}/shots", "overlay") as page:
            wait_for(page, "AI OFF")
            keep(page, "viewer-passthrough")
        browser.close()


if __name__ == "__main__":
    main()
