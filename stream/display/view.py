"""The command `view`: a running stream in a desktop window, or in a browser with --web."""

import sys

from stream.config import ViewConfig
from stream.display.browser import open_page


def view(config: ViewConfig) -> int:
    """`contrastream view`.

    Raises:
        DisplayError: No display to open a window on.
        EndpointError: Not an endpoint, or a port in use.
    """
    if not config.web:
        from stream.display import window

        window.show(config.endpoint, memory=config.memory)
        return 0
    from stream.display import web

    def ready(address: str) -> None:
        print(f"viewer at {address}; Ctrl-C ends", file=sys.stderr, flush=True)
        if config.browser:
            open_page(address)

    web.serve(config.endpoint, memory=config.memory, port=config.port, ready=ready)
    return 0
