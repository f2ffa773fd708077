"""The command `view`: a running stream in a desktop window, or in a browser with --web."""

import sys

from stream.config import ViewConfig
from stream.display.browser import open_page
from stream.endpoint import choose_keys
from stream.record.keep_settings import keep_settings


def view(config: ViewConfig) -> int:
    """`contrastream view`.

    Raises:
        DisplayError: No display to open a window on.
        EndpointError: Not an endpoint, a port in use, or the publisher's public key is missing.
        KeyFileError: A CURVE key is not there or not as it must be.
        RecordError: What is to be kept cannot be.
    """
    keep = keep_settings(config.keep_last, config.keep_in, config.keep_memory)
    endpoint = choose_keys(config.endpoint, key=config.key, server=config.server_key)
    if not config.web:
        from stream.display import window

        window.show(endpoint, memory=config.memory, keep=keep)
        return 0
    from stream.display import web
    from stream.display.entrance import choose_tls
    from stream.display.secret_files import read_secrets

    opened = False

    def ready(address: str, watching: bool) -> None:
        nonlocal opened
        if watching:
            print(f"to watch only, without the key k: {address}", file=sys.stderr, flush=True)
            return
        if opened:
            print(f"for another browser: {address}", file=sys.stderr, flush=True)
            return
        opened = True
        print(f"viewer at {address}; Ctrl-C ends", file=sys.stderr, flush=True)
        if config.browser:
            open_page(address)

    web.serve(
        endpoint,
        memory=config.memory,
        host=config.host,
        port=config.port,
        allow_hosts=config.allow_host,
        tls=choose_tls(config.tls_cert, config.tls_key),
        kept=read_secrets(config.session_key, config.metrics_token),
        ready=ready,
        keep=keep,
        on_note=lambda words: print(words, file=sys.stderr, flush=True),
    )
    return 0
