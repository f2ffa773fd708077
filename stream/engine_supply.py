"""Where a pipeline's engine comes from: a process of its own, or a host that serves several rooms.

Either way the guard talks to it by the packets of `stream/control.py`, sees its death, and can kill it when it hangs.
"""

import contextlib
import logging
import select
import signal
import socket
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

from stream.children import Backoff, Child, Peer, exit_words
from stream.control import MAX_PACKET, Kind, pack_json, unpack_json
from stream.gpu import GpuWatch
from stream.timing import NS_PER_S, Clock

log = logging.getLogger("contrastream.pipeline")


@runtime_checkable
class EngineLink(Protocol):
    """An engine as the guard sees it."""

    socket: socket.socket
    pidfd: int
    at_end: bool

    def send(self, packet: bytes) -> bool: ...

    def receive(self) -> bytes | None: ...

    def has_ended(self) -> bool:
        """Whether it will never answer again; never waits."""
        ...

    def end_soon(self) -> None:
        """Have it killed without waiting for its end; until `has_ended` it may still write."""
        ...

    def kill(self) -> int | None:
        """End it, so that it writes nothing any more; its exit status where that is known. The link is over then."""
        ...


@runtime_checkable
class GpuReport(Protocol):
    """What is known of the engine's GPU; `stream.gpu.GpuWatch` says what each gives."""

    def look(self) -> tuple[dict[str, Any] | None, str]: ...

    def report(self) -> dict[str, Any]: ...

    def close(self) -> None: ...


@runtime_checkable
class EngineSupply(Protocol):
    """Gives a pipeline an engine, and another when that one is lost."""

    @property
    def restarts(self) -> int:
        """How often an engine was lost."""
        ...

    def descriptor(self) -> int | None:
        """What to wait for beside the engine itself; `hear` is called when it has something."""
        ...

    def hear(self) -> None: ...

    def due(self) -> EngineLink | None:
        """An engine, if the pipeline has none and the time for one has come; never waits for it."""
        ...

    def healthy(self) -> None:
        """The engine works."""
        ...

    def lost(self, link: EngineLink, status: int | None, *, said: bool) -> None:
        """The engine was killed or had died; plan another.

        Args:
            link: The engine, over now.
            status: Its exit status where that is known.
            said: It has said itself why it ended.
        """
        ...

    def replace(self, link: EngineLink) -> bool:
        """Give this engine up and have another as soon as that can be, for frames of another format; waits for nothing.

        Returns:
            Whether it has yet to die, and is to be buried then.
        """
        ...

    def refused(self) -> None:
        """No engine can be had for this model and format, so none is tried again."""
        ...

    def end(self, link: EngineLink) -> None:
        """The pipeline is over."""
        ...

    def watch_gpu(self, backend: str, bus_id: str | None) -> GpuReport:
        """Have the GPU watched that the engine runs on."""
        ...


class OwnEngine:
    """An engine process of the pipeline's own, started again with back-off.

    Args:
        clock: The clock of the frame path.
        config: The engine process's first packet.
    """

    def __init__(self, clock: Clock, config: dict[str, Any]) -> None:
        self._clock = clock
        self._config = config
        self._backoff = Backoff(clock)
        self._at_ns: int | None = 0

    @property
    def restarts(self) -> int:
        return self._backoff.restarts

    def descriptor(self) -> int | None:
        return None

    def hear(self) -> None:
        """Nothing is told beside the engine itself."""

    def due(self) -> EngineLink | None:
        if self._at_ns is None or self._clock.now_ns() < self._at_ns:
            return None
        self._at_ns = None
        try:
            return Child("stream.infer", self._config)
        except OSError as error:  # too many descriptors or processes now: the live picture goes on
            self._at_ns = self._backoff.died()
            wait_s = (self._at_ns - self._clock.now_ns()) / NS_PER_S
            log.warning(
                "the engine process cannot be started (%s); trying again in %.2f s", error.strerror, wait_s
            )
            return None

    def healthy(self) -> None:
        self._backoff.healthy()

    def lost(self, link: EngineLink, status: int | None, *, said: bool) -> None:
        self._at_ns = self._backoff.died()
        wait_s = (self._at_ns - self._clock.now_ns()) / NS_PER_S
        if not said:
            words = "gone" if status is None else exit_words(status)
            log.warning("the engine process ended (%s); starting it again in %.2f s", words, wait_s)

    def replace(self, link: EngineLink) -> bool:
        link.end_soon()
        self._at_ns = 0
        return True

    def refused(self) -> None:
        self._at_ns = None

    def end(self, link: EngineLink) -> None:
        link.kill()

    def watch_gpu(self, backend: str, bus_id: str | None) -> GpuReport:
        return GpuWatch(self._clock, backend, bus_id)


class HostLink(Peer):
    """One room's way to the engine host, which is no child of this process.

    Args:
        sock: A socket to the host.
        pidfd: The host.
    """

    def __init__(self, sock: socket.socket, pidfd: int) -> None:
        super().__init__(sock, pidfd)
        self.let_go = False
        """Whether the host serves this room no more, and lives on."""

    def receive(self) -> bytes | None:
        packet = super().receive()
        if packet and packet[0] == Kind.LET_GO:
            self.let_go = True
            return super().receive()
        return packet

    def has_ended(self) -> bool:
        return self.let_go or _is_over(self.pidfd, 0.0)

    def end_soon(self) -> None:
        if not self.let_go:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.pidfd, signal.SIGKILL)

    def kill(self) -> int | None:
        """Kill the host, unless it let this room go by itself: then it writes nothing here and others need it."""
        self.end_soon()
        if not self.let_go:
            # Until the kernel has taken it down it could still write, and so could a copy from its GPU.
            _is_over(self.pidfd, None)
        self.close()
        return None


class SharedEngine:
    """A share of the engine host that `stream/rooms.py` runs.

    Args:
        supervisor: This room's socket to it.
        config: What the host opens for this room: its first packet on each link.
        stop: Ends this room's pipeline.
        clock: The clock of the frame path.
    """

    def __init__(
        self, supervisor: socket.socket, config: dict[str, Any], stop: Callable[[], None], clock: Clock
    ) -> None:
        self._supervisor = supervisor
        self._config = config
        self._stop = stop
        self._next: HostLink | None = None
        self._wanted = True
        self._gpu = ToldGpu()
        self._lost = 0
        self._clock = clock
        self._backoff = Backoff(clock)
        self._ask_ns: int | None = None
        """When to ask for another link to a host that let this room go."""

    @property
    def restarts(self) -> int:
        return self._lost

    def descriptor(self) -> int | None:
        return self._supervisor.fileno()

    def hear(self) -> None:
        """Take in what the supervisor says."""
        try:
            packet, descriptors, _, _ = socket.recv_fds(self._supervisor, MAX_PACKET, 2, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionError:
            packet = b""
        if not packet or packet[0] == Kind.STOP:
            self._stop()
        elif packet[0] == Kind.ENGINE and len(descriptors) == 2:
            self._drop_next()
            self._next = HostLink(socket.socket(fileno=descriptors[0]), descriptors[1])
        elif packet[0] == Kind.GPU_SEEN:
            with contextlib.suppress(ValueError):  # what cannot be read is told again within the second
                self._gpu.take(unpack_json(packet))

    def due(self) -> EngineLink | None:
        if self._ask_ns is not None and self._clock.now_ns() >= self._ask_ns:
            self._ask()
        link, self._next = (self._next, None) if self._wanted else (None, self._next)
        if link is not None:
            link.send(pack_json(Kind.CONFIG, self._config))
        return link

    def healthy(self) -> None:
        self._backoff.healthy()

    def lost(self, link: EngineLink, status: int | None, *, said: bool) -> None:
        assert isinstance(link, HostLink)
        self._lost += 1
        if link.let_go:
            self._ask_ns = self._backoff.died()
        else:
            log.warning("the engine host is gone; waiting for the next")

    def replace(self, link: EngineLink) -> bool:
        assert isinstance(link, HostLink)
        link.close()
        self._ask()
        return False

    def _ask(self) -> None:
        self._ask_ns = None
        with contextlib.suppress(OSError):
            self._supervisor.send(bytes((Kind.WANT_ENGINE,)), socket.MSG_DONTWAIT)

    def refused(self) -> None:
        self._wanted = False
        self._drop_next()

    def end(self, link: EngineLink) -> None:
        assert isinstance(link, HostLink)
        link.close()
        self._drop_next()

    def watch_gpu(self, backend: str, bus_id: str | None) -> GpuReport:
        return self._gpu

    def _drop_next(self) -> None:
        if self._next is not None:
            self._next.close()
            self._next = None


class ToldGpu:
    """What the supervisor tells of the GPU, which it watches once for all rooms."""

    def __init__(self) -> None:
        self._said: dict[str, Any] = {"gpu": None, "why": "the GPU has not been asked yet"}

    def take(self, said: dict[str, Any]) -> None:
        """Take in a packet's words.

        Raises:
            ValueError: They do not say what is needed.
        """
        if not isinstance(said.get("gpu"), dict | None) or not isinstance(said.get("why"), str):
            raise ValueError("a GPU packet holds what the GPU does, or why that is not known")
        self._said = {"gpu": said.get("gpu"), "why": said["why"]}

    def look(self) -> tuple[dict[str, Any] | None, str]:
        return self._said["gpu"], str(self._said["why"])

    def report(self) -> dict[str, Any]:
        """The summary over the run is the supervisor's."""
        return dict(self._said)

    def close(self) -> None:
        """Nothing was started."""


def pass_on(link: socket.socket, packet: bytes, descriptors: list[int]) -> None:
    """Hand descriptors to another process of ours; one that is dead gets nothing."""
    with contextlib.suppress(OSError):
        socket.send_fds(link, [packet], descriptors)


def _is_over(pidfd: int, within_s: float | None) -> bool:
    """Whether a process has ended; waits so long for it, None for as long as it takes."""
    return bool(select.select([pidfd], [], [], within_s)[0])


def connect(room: socket.socket, host: Peer, number: int) -> None:
    """Give a room a link to the engine host, by the supervisor that knows both.

    Args:
        room: The supervisor's socket to the room.
        host: The host.
        number: The room's number.
    """
    for_room, for_host = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with for_room, for_host:
        pass_on(host.socket, pack_json(Kind.ROOM, {"number": number}), [for_host.fileno()])
        pass_on(room, bytes((Kind.ENGINE,)), [for_room.fileno(), host.pidfd])
