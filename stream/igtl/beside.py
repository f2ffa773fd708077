"""The OpenIGTLink server of a `run`: an ordinary client in a process of its own, which ends with it."""

import subprocess
import sys
import threading
from collections.abc import Callable

from stream.endpoint import parse_endpoint

STOP_S = 2.0


class IgtlServer:
    """Runs the server beside a stream.

    Args:
        endpoint: The stream it serves.
        stop: Called when it cannot serve.
        port: Its port on this host.
    """

    def __init__(self, endpoint: str, stop: Callable[[], None], port: int) -> None:
        self._stop = stop
        self._closing = False
        self.failed = False
        command = [sys.executable, "-m", "stream.igtl.server", endpoint, "--port", str(port)]
        if parse_endpoint(endpoint).memory is not None:
            command.append("--memory")
        self._process = subprocess.Popen(
            [*command, "--die-with-parent"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            start_new_session=True,
        )
        threading.Thread(target=self._watch, name="igtl-server", daemon=True).start()

    def _watch(self) -> None:
        if self._process.wait() and not self._closing:
            self.failed = True
            self._stop()

    def close(self) -> None:
        """End the server."""
        self._closing = True
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
