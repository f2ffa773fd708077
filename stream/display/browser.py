"""Opening a page for the user, where there is a display to open it on."""

import os
import threading
import webbrowser


def open_page(address: str) -> None:
    """Open `address` in the user's browser, from a thread of its own, since some browsers keep the caller waiting."""
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        threading.Thread(target=webbrowser.open, args=(address,), name="browser", daemon=True).start()
