"""Several rooms on one engine: starts a pipeline per source and the engine host that serves them all.

The supervisor moves no frame. It gives each room a link to the host, starts the host again when it dies, and gathers
the rooms' heartbeats. A room that ends or dies leaves the others as they are.
"""

import contextlib
import logging
import os
import selectors
import threading
from collections.abc import Sequence
from typing import Any

from stream.children import Backoff, Child, exit_words
from stream.control import Kind, pack_json, unpack_json
from stream.engine_supply import connect
from stream.errors import PipelineError, StreamError
from stream.gpu import GpuWatch
from stream.pipeline_config import PipelineConfig
from stream.room import room_to_json
from stream.timing import NS_PER_MS, NS_PER_S, MonotonicClock

log = logging.getLogger("contrastream.rooms")

STOP_NS = 2 * NS_PER_S
"""How long rooms may take to end when they are told to."""
TICK_NS = 100 * NS_PER_MS
GPU_NS = NS_PER_S


class Room:
    """A room as the supervisor sees it.

    Args:
        number: From 1.
        config: Its pipeline.
    """

    def __init__(self, number: int, config: PipelineConfig) -> None:
        self.number = number
        self.child: Child | None = Child("stream.room", room_to_json(config, number))
        self.status: dict[str, Any] | None = None
        """Its last heartbeat."""
        self.ended = False
        """Whether it has said that it is over."""
        self.failure: str | None = None
        self.input_failed = False
        """Whether the user can mend what it failed of."""
        self.source_gone = False
        """Whether it failed of a device or sender that is not there, which another time it may be."""

    @property
    def published(self) -> bool:
        """Whether any frame of it ever went out."""
        return self.status is not None and bool(self.status["counters"].get("published"))


class Rooms:
    """Runs several streams until all have ended or `stop` is called.

    Args:
        configs: A pipeline for each, with an endpoint of its own; model and engine are the same in all.
    """

    def __init__(self, configs: Sequence[PipelineConfig]) -> None:
        self._configs = list(configs)
        self._clock = MonotonicClock()
        self._selector = selectors.DefaultSelector()
        self._rooms: list[Room] = []
        self._host: Child | None = None
        self._host_at_ns: int | None = 0
        self._backoff = Backoff(self._clock)
        self._gpu: GpuWatch | None = None
        self._gpu_ns = 0
        self._stop = threading.Event()
        self._wake_reader, self._wake_writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._selector.register(self._wake_reader, selectors.EVENT_READ)
        self.gpu: dict[str, Any] = {"gpu": None, "why": "no engine has been opened"}
        """What the GPU did over the run, set at its end."""

    @property
    def statuses(self) -> list[dict[str, Any] | None]:
        """The last heartbeat of each room, for other threads."""
        return [room.status for room in self._rooms]

    @property
    def host_restarts(self) -> int:
        """How often the engine host died."""
        return self._backoff.restarts

    def run(self) -> None:
        """Run until every room has ended or `stop` is called. Leaves no process behind.

        Raises:
            StreamError: A room could not begin, so none goes on; or the device or sender of one is not there, and the
                others ran to their end.
            PipelineError: Rooms failed after they had begun, by a fault of ours; the others ran to their end.
        """
        try:
            for number, config in enumerate(self._configs, 1):
                self._rooms.append(room := Room(number, config))
                self._watch(room.child)
            while not self._stop.is_set() and any(room.child is not None for room in self._rooms):
                self._selector.select(TICK_NS / NS_PER_S)
                self._tick()
            self._end_rooms()
        finally:
            self._close()
        failed = [room for room in self._rooms if room.failure is not None]
        if failed:
            words = "; ".join(f"room {room.number}: {room.failure}" for room in failed)
            raise (StreamError if all(room.input_failed for room in failed) else PipelineError)(words)

    def stop(self) -> None:
        """End `run` soon; safe from a signal handler and from another thread."""
        self._stop.set()
        with contextlib.suppress(OSError):
            os.write(self._wake_writer, b"x")

    # What the loop does ---------------------------------------------------------------------------------------

    def _tick(self) -> None:
        for room in self._rooms:
            if room.child is not None:
                self._hear(room, room.child)
        if self._host is not None and self._host.has_ended():
            self._lose_host(self._host)
        now_ns = self._clock.now_ns()
        wanted = self._host is None and self._configs[0].engine != "off"
        if wanted and self._host_at_ns is not None and now_ns >= self._host_at_ns:
            self._start_host()
        if now_ns - self._gpu_ns >= GPU_NS:
            self._gpu_ns = now_ns
            self._tell_gpu()

    def _hear(self, room: Room, child: Child) -> None:
        over = child.has_ended()  # before the last packets are read, so that none comes after them
        while packet := child.receive():
            if packet[0] == Kind.STATUS:
                room.status = unpack_json(packet)
            elif packet[0] == Kind.WANT_ENGINE and self._host is not None:
                connect(child.socket, self._host, room.number)
            elif packet[0] == Kind.END:
                room.ended = True
            elif packet[0] == Kind.ERROR:
                said = unpack_json(packet)
                room.failure, room.input_failed = str(said["message"]), bool(said["input"])
                room.source_gone = bool(said["gone"])
        if over:
            self._lose_room(room, child)

    def _lose_room(self, room: Room, child: Child) -> None:
        self._selector.unregister(child.socket)
        status = child.kill()
        room.child = None
        if room.ended:
            log.info("room %d has ended", room.number)
            return
        if room.failure is None:
            room.failure = f"its process ended too early ({exit_words(status)})"
        if room.input_failed and not room.published and not room.source_gone:
            self._stop.set()  # what was typed cannot be run: say so at once, and run none of it
            return
        log.error("room %d: %s; the other rooms go on", room.number, room.failure)

    def _start_host(self) -> None:
        self._host_at_ns = None
        self._host = Child(
            "stream.engine_host", {"backend": self._configs[0].engine, "rooms": len(self._configs)}
        )
        self._backoff.healthy()  # from here on, until it dies
        self._selector.register(self._host.pidfd, selectors.EVENT_READ)
        for room in self._rooms:
            if room.child is not None:
                connect(room.child.socket, self._host, room.number)

    def _lose_host(self, host: Child) -> None:
        self._selector.unregister(host.pidfd)
        status = host.kill()
        self._host = None
        self._host_at_ns = self._backoff.died()
        wait_s = (self._host_at_ns - self._clock.now_ns()) / NS_PER_S
        log.warning("the engine host ended (%s); starting it again in %.2f s", exit_words(status), wait_s)

    def _tell_gpu(self) -> None:
        """Watch the card once for all rooms, as soon as one of them knows which it is."""
        engine = next(
            (room.status["engine"] for room in self._rooms if room.status and room.status["engine"]), None
        )
        if engine is None:
            return
        if self._gpu is None:
            self._gpu = GpuWatch(self._clock, str(engine["backend"]), engine.get("gpu_bus_id"))
        reading, why = self._gpu.look()
        for room in self._rooms:
            if room.child is not None:
                room.child.send(pack_json(Kind.GPU_SEEN, {"gpu": reading, "why": why}))

    # The end --------------------------------------------------------------------------------------------------

    def _end_rooms(self) -> None:
        """Have the rooms finish, and hear their last words."""
        for room in self._rooms:
            if room.child is not None:
                room.child.send(bytes((Kind.STOP,)))
        until_ns = self._clock.now_ns() + STOP_NS
        while any(room.child is not None for room in self._rooms) and self._clock.now_ns() < until_ns:
            self._selector.select(TICK_NS / NS_PER_S)
            for room in self._rooms:
                if room.child is not None:
                    self._hear(room, room.child)

    def _watch(self, child: Child | None) -> None:
        assert child is not None
        self._selector.register(child.socket, selectors.EVENT_READ)

    def _close(self) -> None:
        for room in self._rooms:
            if room.child is not None:
                room.child.kill()
                room.child = None
        if self._host is not None:
            self._host.kill()
            self._host = None
        if self._gpu is not None:
            self.gpu = self._gpu.report()
            self._gpu.close()
        self._selector.close()
        os.close(self._wake_reader)
        os.close(self._wake_writer)
