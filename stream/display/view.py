"""The command `view`: a running stream in a desktop window, or in a browser with --web."""

from stream.config import ViewConfig


def view(config: ViewConfig) -> int:
    """`contrastream view`.

    Raises:
        DisplayError: No display to open a window on, or a port in use.
        EndpointError: Not an endpoint.
    """
    if config.web:
        from stream.display import web

        return web.serve(config.endpoint, port=config.port, browser=config.browser)
    from stream.display import window

    return window.show(config.endpoint)
