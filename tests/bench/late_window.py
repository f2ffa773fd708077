"""The desktop window, DELAY_MS late with every new frame, for the tests: `python -m late_window ENDPOINT`."""

import os
import sys
import time
from typing import Any

from stream.display import window

draw = window.DesktopWindow._draw


def late(self: window.DesktopWindow, now_ns: int, fresh: bool) -> Any:
    """Draw, but a new frame only after a while."""
    if fresh:
        time.sleep(float(os.environ["DELAY_MS"]) / 1e3)
    return draw(self, now_ns, fresh)


if __name__ == "__main__":
    window.DesktopWindow._draw = late  # type: ignore[method-assign]
    sys.exit(window.main())
