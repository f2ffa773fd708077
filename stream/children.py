"""The guard's child processes: started with a socket of their own, watched by pidfd, killed and reaped, restarted."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
from typing import Any

from stream.control import MAX_PACKET, PARENT_VARIABLE, Kind, pack_json
from stream.timing import NS_PER_S, Clock

FIRST_BACKOFF_NS = NS_PER_S // 4
MAX_BACKOFF_NS = 8 * NS_PER_S
HEALTHY_NS = 30 * NS_PER_S


class Peer:
    """Another process of ours at the other end of a socket pair. Nothing in here waits.

    Args:
        sock: Our end.
        pidfd: The process, as `os.pidfd_open` gives it: readable once it has ended.
    """

    def __init__(self, sock: socket.socket, pidfd: int) -> None:
        self.socket = sock
        self.socket.setblocking(False)
        self.pidfd = pidfd
        self.at_end = False
        """Whether the other end is closed and all that was sent through it has been received."""

    def send(self, packet: bytes) -> bool:
        """Send a packet without waiting; False where the process is gone or has stopped reading."""
        try:
            self.socket.send(packet)
        except (BlockingIOError, BrokenPipeError, ConnectionError):
            return False
        return True

    def receive(self) -> bytes | None:
        """The next packet without waiting; None where there is none, empty where the other end is closed."""
        try:
            packet = self.socket.recv(MAX_PACKET)
        except BlockingIOError:
            return None
        except ConnectionError:
            packet = b""
        self.at_end = not packet
        return packet

    def close(self) -> None:
        """Close our end and the process's descriptor."""
        self.socket.close()
        os.close(self.pidfd)


class Child(Peer):
    """A running child process.

    Args:
        module: What it runs, as `python -m module DESCRIPTOR`.
        config: Its first packet.
        quiet: Throw away what it prints. Codecs print what they find in files, which may be a patient's name.

    Raises:
        OSError: There are too few descriptors, processes or memory for one more; nothing is left of it.
    """

    def __init__(self, module: str, config: dict[str, Any], *, quiet: bool = False) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs, contextlib.ExitStack() as undo:
            undo.callback(ours.close)
            self.process = subprocess.Popen(
                [sys.executable, "-m", module, str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                env={**os.environ, PARENT_VARIABLE: str(os.getpid())},
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL if quiet else None,
                # A group of its own, so that Ctrl-C in a terminal reaches the guard alone.
                start_new_session=True,
            )
            undo.callback(self.process.wait)
            undo.callback(self.process.kill)
            super().__init__(ours, os.pidfd_open(self.process.pid))
            undo.pop_all()
        self.send(pack_json(Kind.CONFIG, config))

    @property
    def pid(self) -> int:
        return self.process.pid

    def has_ended(self) -> bool:
        """Whether the process is over; never waits."""
        return self.process.poll() is not None

    def end_soon(self) -> None:
        """Send it SIGKILL and wait for nothing; until `has_ended` it may still write."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def kill(self) -> int:
        """Kill it (stopped or not), reap it, close what is left; returns its exit status, negative for a signal.

        After this it writes nothing any more, so its slots may be used again.
        """
        self.end_soon()
        status = self.process.wait()
        self.close()
        return status


class Backoff:
    """When to start a child again after it died: 0.25 s, doubling to 8 s; from the start again after 30 s of health.

    Args:
        clock: The clock of the frame path.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._wait_ns = FIRST_BACKOFF_NS
        self._healthy_ns: int | None = None
        self.restarts = 0

    def healthy(self) -> None:
        """The child works."""
        self._healthy_ns = self._clock.now_ns()

    def died(self) -> int:
        """The child died; returns when to start it again, in ns of the clock."""
        now_ns = self._clock.now_ns()
        if self._healthy_ns is not None and now_ns - self._healthy_ns > HEALTHY_NS:
            self._wait_ns = FIRST_BACKOFF_NS
        self._healthy_ns = None
        self.restarts += 1
        at_ns = now_ns + self._wait_ns
        self._wait_ns = min(2 * self._wait_ns, MAX_BACKOFF_NS)
        return at_ns


def exit_words(status: int) -> str:
    """An exit status in words."""
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"exit status {status}"
