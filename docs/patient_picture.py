"""Makes docs/pictures/viewer-patient.webp, the web viewer through a swap to a patient's adaptation and back, from a real run.

    python docs/patient_picture.py RUN patient.safetensors

RUN is a recording of a phantom patient, a folder of frames, that begins at the projection the adaptation was taught at and ends at another.
Needs Chromium and the extra `test`.
"""

import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright
from screenshots import ARGUMENTS, CHROMIUM, PICTURES, WAIT_MS, process, viewer, wait_for

EVERY_S = 0.5
SHOWN_MS = 600
WIDTH = 960
SAYS = "words => document.getElementById('adaptation').textContent.includes(words)"


def shots(page: Page, seconds: float) -> list[Image.Image]:
    """The page, twice a second."""
    taken, over = [], time.monotonic() + seconds
    while time.monotonic() < over:
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
        taken.append(
            picture.resize((WIDTH, WIDTH * picture.height // picture.width), Image.Resampling.LANCZOS)
        )
        time.sleep(EVERY_S)
    return taken


def main() -> None:
    """Run it and write the animation."""
    run_path, patient = sys.argv[1:]
    taken: list[Image.Image] = []
    with tempfile.TemporaryDirectory(prefix="cs-") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        endpoint = f"ipc://{folder}/shots"
        run = ("contrastream", "run", run_path, "--rate", "10", "--loop", "--no-domain", "--no-audit")
        command = [sys.executable, "-m", "contrastream", "patient"]
        with process(*run, "--endpoint", endpoint), viewer(browser, endpoint, "side") as page:
            wait_for(page, "SYNTHETIC")
            taken += shots(page, 1.5)
            taking = subprocess.Popen([*command, patient, "--endpoint", endpoint])
            page.wait_for_function(SAYS, arg="being made ready", timeout=WAIT_MS)
            taken += shots(page, 1.5)
            taking.wait()
            # From the beginning of the loop, where the projection is the taught one.
            for words, seconds in (("run of", 3.0), ("unlike", 3.0), ("run of", 2.0)):
                page.wait_for_function(SAYS, arg=words, timeout=WAIT_MS)
                taken += shots(page, seconds)
            subprocess.run([*command, "off", "--endpoint", endpoint], check=True)
            taken += shots(page, 1.5)
        browser.close()
    out = PICTURES / "viewer-patient.webp"
    taken[0].save(
        out, save_all=True, append_images=taken[1:], duration=SHOWN_MS, loop=0, quality=70, method=6
    )
    print(f"written {out}, {len(taken)} pictures, {out.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    main()
