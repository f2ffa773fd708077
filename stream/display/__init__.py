"""Displays, each an ordinary client process: `web` serves the page in `static/`, `window` is a desktop window."""
