"""Makes docs/phantom.webp, the README's moving picture, from a real run: `make picture`.

It starts `contrastream run phantom`, subscribes as any client does, draws every synthetic frame as the desktop
window draws it, and writes one loop of the phantom as an animation.
"""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import cv2
import numpy as np

from stream.display.compose import Composer, View
from stream.frame import State
from stream.subscribe import Subscriber

FRAMES = 64
"""One breath of the phantom at 15 frames per second."""
RATE_HZ = 15.0
QUALITY = 88
START_WITHIN_S = 30.0


def synthetic_pictures(endpoint: str) -> list[np.ndarray]:
    """What a desktop window shows of the next synthetic frames."""
    subscriber = Subscriber(endpoint, newest_only=False)
    composer, view = Composer(), View(opacity=60)
    pictures: list[np.ndarray] = []
    over = time.monotonic() + START_WITHIN_S
    while len(pictures) < FRAMES:
        message = subscriber.poll(100)
        shown = subscriber.shown_state()
        if message is not None and shown.state is State.SYNTHETIC:
            drawn = composer.draw(message, view, shown, f"frame {message.header.sequence}", None)
            pictures.append(cv2.resize(drawn, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA))
        elif time.monotonic() > over:
            sys.exit("needed synthetic frames, and none came; run: contrastream doctor")
    subscriber.close()
    return pictures


def main() -> None:
    """Run the phantom, write the animation."""
    out = Path(__file__).with_name("phantom.webp")
    with tempfile.TemporaryDirectory() as folder:
        endpoint = f"ipc://{folder}/picture"
        run = [
            sys.executable,
            "-m",
            "contrastream",
            "run",
            "phantom",
            "--size",
            "384",
            "--endpoint",
            endpoint,
        ]
        with subprocess.Popen(run, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as pipeline:
            try:
                pictures = synthetic_pictures(endpoint)
            finally:
                pipeline.terminate()
    animation = cv2.Animation()
    animation.frames = pictures
    animation.durations = np.full(len(pictures), round(1000 / RATE_HZ), np.int32)
    if not cv2.imwriteanimation(str(out), animation, [cv2.IMWRITE_WEBP_QUALITY, QUALITY]):
        sys.exit(f"{out} could not be written")
    print(f"{out}: {len(pictures)} frames, {out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
