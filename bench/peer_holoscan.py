"""Contestant: a Holoscan application of Python operators: frames -> the engine -> raw pyzmq to a client.

As its documentation recommends: the greedy scheduler (the quickest of its three for a line of operators), a tuple
emitted by reference, no data-flow tracking, a stack of 32 MiB. It sends with pyzmq, since its own way to another process
needs a second Holoscan application there.

`python -m bench.peer_holoscan sender CONFIG`; its client is that of bench/peer_pyzmq.py.
"""

import json
import os
import queue
import resource
import sys
import threading
from typing import IO, Any

from bench.errors import BenchError
from bench.peer import BUFFERS, Taken, Work, due_ns, role_and_config, versions
from bench.peer_pyzmq import PyzmqSender
from bench.worker import answers
from engines.errors import EngineError
from stream.control import become_child
from stream.errors import StreamError

STACK_BYTES = 32768 * 1024
SETTINGS = "GreedyScheduler, tuples emitted by reference, stack of 32 MiB; the sink sends with pyzmq PUB/SUB over ipc, copy=False"


def with_its_stack() -> None:
    """Start this process again with the stack that Holoscan asks for (`ulimit -s 32768`), where it is smaller.

    Raises:
        BenchError: The machine's hard limit is lower.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_STACK)
    if soft == resource.RLIM_INFINITY or soft >= STACK_BYTES:
        return
    if hard != resource.RLIM_INFINITY and hard < STACK_BYTES:
        raise BenchError(
            f"Holoscan wants a stack of {STACK_BYTES} bytes, but the hard limit is {hard}; raise it (ulimit -Hs 32768)"
        )
    resource.setrlimit(resource.RLIMIT_STACK, (STACK_BYTES, hard))
    os.execv(sys.executable, [sys.executable, "-m", "bench.peer_holoscan", *sys.argv[1:]])


def make_application(
    work: Work, sender: PyzmqSender, blocks: "queue.SimpleQueue[dict[str, Any]]", out: IO[str]
) -> Any:
    """The application: three operators in a line.

    Args:
        work: Frames and engine.
        sender: To the client.
        blocks: What it is asked to run; the source waits for it between blocks.
        out: Where it says that a block is over.
    """
    from holoscan.core import Application, Operator
    from holoscan.schedulers import GreedyScheduler

    class Frames(Operator):  # type: ignore[misc]
        def __init__(self, fragment: Any, *args: Any, **kwargs: Any) -> None:
            self.sequence = self.step = self.left = 0
            self.block: dict[str, Any] = {}
            super().__init__(fragment, *args, **kwargs)

        def setup(self, spec: Any) -> None:
            spec.output("frame")

        def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
            if not self.left:
                self.block = blocks.get()
                self.step, self.left = 0, int(self.block["frames"])
            due = due_ns(self.block["start_ns"], self.block["period_ns"], self.step)
            sender.wait(self.sequence % BUFFERS)
            taken = work.take(self.sequence, due)
            self.sequence, self.step, self.left = self.sequence + 1, self.step + 1, self.left - 1
            op_output.emit((taken, self.left == 0), "frame")

    class Engine(Operator):  # type: ignore[misc]
        def setup(self, spec: Any) -> None:
            spec.input("frame")
            spec.output("planes")

        def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
            taken, last = op_input.receive("frame")
            op_output.emit((taken, work.infer(taken[0]), last), "planes")

    class Client(Operator):  # type: ignore[misc]
        def setup(self, spec: Any) -> None:
            spec.input("planes")

        def compute(self, op_input: Any, op_output: Any, context: Any) -> None:
            received: tuple[Taken, tuple[int, int], bool] = op_input.receive("planes")
            taken, inferred, last = received
            work.send(taken, inferred, sender)
            if last:
                out.write("{}\n")

    class Peers(Application):  # type: ignore[misc]
        def compose(self) -> None:
            frames, engine = Frames(self, name="frames"), Engine(self, name="engine")
            client = Client(self, name="client")
            self.add_flow(frames, engine, {("frame", "frame")})
            self.add_flow(engine, client, {("planes", "planes")})

    application = Peers()
    application.scheduler(GreedyScheduler(application, name="greedy"))
    return application


def listen(blocks: "queue.SimpleQueue[dict[str, Any]]") -> None:
    """Pass requests on to the application; its process ends with them."""
    for line in sys.stdin:
        _request, arguments = json.loads(line)
        blocks.put(arguments)
    os._exit(0)  # the application waits in an operator, and nothing of it is worth keeping


def main() -> int:
    """Entry point."""
    become_child()
    os.environ.setdefault("HOLOSCAN_LOG_LEVEL", "ERROR")
    _role, config = role_and_config()
    failure = ""
    try:
        with_its_stack()
    except BenchError as error:
        failure = str(error)
    out = answers()
    sys.stdin.readline()  # the request to open
    blocks: queue.SimpleQueue[dict[str, Any]] = queue.SimpleQueue()
    try:
        if failure:
            raise BenchError(failure)
        import holoscan

        work, sender = Work(config), PyzmqSender(config["address"])
        application = make_application(work, sender, blocks, out)
    except (ImportError, OSError, StreamError, EngineError, BenchError, ValueError) as error:
        out.write(json.dumps({"error": f"Holoscan cannot be used: {error}"}) + "\n")
        return 1
    said = {"holoscan": holoscan.__version__, **versions("holoscan-cu13", "holoscan", "pyzmq")}
    out.write(json.dumps({"engine": work.engine, "versions": said, "settings": SETTINGS}) + "\n")
    threading.Thread(target=listen, args=(blocks,), name="listen", daemon=True).start()
    application.run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
