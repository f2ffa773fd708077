"""A server beside a stream: the web viewer's or OpenIGTLink's, an ordinary client in a process of its own, which ends with it."""

import subprocess
import sys
import threading
from collections.abc import Callable, Sequence

from stream.endpoint import parse_endpoint

STOP_S = 2.0


class ServerBeside:
    """Runs `python -m MODULE ENDPOINT --port PORT` until it is closed. On the publisher's host it reads shared memory.

    Args:
        module: The server.
        endpoint: The stream it serves.
        port: Its port on this host.
        stop: Called when it cannot serve; it has said why.
        more: More arguments of the module.
        on_line: Called, in a thread of this one, with each line it prints.
    """

    def __init__(
        self,
        module: str,
        endpoint: str,
        port: int,
        *,
        stop: Callable[[], None],
        more: Sequence[str] = (),
        on_line: Callable[[str], None] = lambda line: print(line, end="", flush=True),
    ) -> None:
        self._stop, self._on_line = stop, on_line
        self._closing = False
        self.failed = False
        command = [sys.executable, "-m", module, endpoint, "--port", str(port), "--die-with-parent", *more]
        if parse_endpoint(endpoint).memory is not None:
            command.append("--memory")
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, start_new_session=True
        )
        threading.Thread(target=self._watch, name="server-beside", daemon=True).start()

    def _watch(self) -> None:
        """Pass on what it prints, and notice when it cannot serve."""
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                self._on_line(line)
        if self._process.wait() and not self._closing:
            self.failed = True
            self._stop()

    def close(self) -> None:
        """End it."""
        self._closing = True
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
