"""Processes that a measurement starts beside the pipeline: one JSON line asks, one JSON line answers."""

import json
import os
import select
import subprocess
import sys
from collections.abc import Callable, Iterable
from typing import IO, Any

from bench.errors import BenchError

ANSWER_S = 120.0
STOP_S = 5.0

Handlers = dict[str, Callable[..., dict[str, Any]]]


class Worker:
    """A process that answers.

    Start it from the main thread: the process dies with the thread that started it.

    Args:
        module: What it runs, as `python -m module ARGUMENTS`.
        arguments: Its arguments.
        pass_fds: Descriptors it inherits.
    """

    def __init__(self, module: str, *arguments: str, pass_fds: Iterable[int] = ()) -> None:
        self._module = module
        self._process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            pass_fds=tuple(pass_fds),
            # A group of its own, so that Ctrl-C in a terminal reaches the measurement alone.
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def tell(self, request: str, **arguments: Any) -> None:
        """Send a request without waiting for its answer; each answer must be heard once.

        Raises:
            BenchError: The process is gone.
        """
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps([request, arguments]) + "\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            raise BenchError(f"the {self._module} process ended before it was asked to {request}") from None

    def hear(self, timeout_s: float = ANSWER_S) -> dict[str, Any]:
        """Wait for the answer to a request.

        Raises:
            BenchError: The process says that it cannot, has ended, or does not answer.
        """
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            raise BenchError(f"the {self._module} process did not answer within {timeout_s:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise BenchError(f"the {self._module} process ended without an answer")
        answer = json.loads(line)
        if "error" in answer:
            raise BenchError(str(answer["error"]))
        return dict(answer)

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """Send a request and wait for its answer."""
        self.tell(request, **arguments)
        return self.hear()

    def close(self) -> None:
        """End it; may be called twice."""
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def answers() -> IO[str]:
    """A worker's way to answer: its standard output, which nothing else may print into from now on."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    return out


def answer_one(line: str, handlers: Handlers, out: IO[str], expected: tuple[type[Exception], ...]) -> None:
    """Answer one request line; an `expected` error becomes the answer, any other ends the worker."""
    request, arguments = json.loads(line)
    try:
        answer = handlers[request](**arguments)
    except expected as error:
        answer = {"error": str(error)}
    out.write(json.dumps(answer) + "\n")


def serve(handlers: Handlers, *, expected: tuple[type[Exception], ...] = ()) -> None:
    """Answer requests until standard input ends."""
    out = answers()
    for line in sys.stdin:
        answer_one(line, handlers, out, expected)
