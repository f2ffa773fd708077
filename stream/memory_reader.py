"""Shared memory for clients on this host: the client's side. What is said on the socket: stream/memory_door.py."""

import fcntl
import mmap
import os
import platform
import socket
import struct
import sys

import numpy as np

from stream.control import format_from_json, unpack_json
from stream.errors import WireError
from stream.memory_door import FLAG_MEASURING, HELLO, MAGIC, NOTE, NOTE_KIND, RING
from stream.timing import NS_PER_MS, Clock
from stream.wire import HEADER_ROOM, SLOT_GENERATION_AT, Layout

MAX_PACKET = 4096
AGAIN_NS = 50 * NS_PER_MS
"""How long after a failed connection the next is tried."""
KEPT = 4
"""Buffers that are kept for later frames; a client that holds more messages at once gets new ones."""
IN_ORDER = platform.machine() in ("x86_64", "AMD64")
"""Whether this processor keeps loads in order, so that the generation alone finds a torn read."""


class MemoryReader:
    """Reads a publisher's frames out of its ring. Connects, and connects again, by itself.

    Args:
        path: Of the publisher's socket.
        clock: For the pause between two attempts.
        newest_only: Pass over notes of frames that have a newer one behind them.
        measuring: Tell the publisher that this is its measuring client.
    """

    def __init__(self, path: str, clock: Clock, *, newest_only: bool, measuring: bool) -> None:
        self._path = path
        self._clock = clock
        self._newest_only = newest_only
        self._hello = HELLO.pack(MAGIC, FLAG_MEASURING if measuring else 0)
        self._socket: socket.socket | None = None
        self._tried_ns: int | None = None
        self._ring: np.ndarray | None = None
        """(bytes,) uint8, all slots; read-only."""
        self._generations: np.ndarray | None = None
        """(slots,) uint64, within the ring."""
        self._slot_bytes = 0
        self._buffers: list[np.ndarray] = []
        self.overtaken = 0
        """Frames that were written over before they were read."""

    def fileno(self) -> int | None:
        """The socket's descriptor, to wait on; None where there is no connection. Tries to make one, now and then."""
        if self._socket is None:
            self._connect()
        return None if self._socket is None else self._socket.fileno()

    def _connect(self) -> None:
        now_ns = self._clock.now_ns()
        if self._tried_ns is not None and now_ns - self._tried_ns < AGAIN_NS:
            return
        self._tried_ns = now_ns
        made = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        try:
            made.connect(self._path)
            made.send(self._hello)
        except OSError:
            made.close()
            return
        self._socket = made

    def has_more(self) -> bool:
        """Whether something lies unread."""
        if self._socket is None:
            return False
        try:
            return bool(self._socket.recv(1, socket.MSG_PEEK))
        except OSError:
            return False

    def receive(self) -> memoryview | None:
        """Take in what has come.

        Returns:
            A frame's message, in memory of this process; None where no frame came or it was written over.

        Raises:
            WireError: The publisher said what it must not; the connection is then gone.
        """
        try:
            note = self._next_note()
            return None if note is None else self._copy(*note)
        except (ValueError, KeyError, TypeError, OverflowError, OSError, struct.error) as error:
            self._disconnect()
            raise WireError(f"needed a ring and notes of its slots, got {error}") from error

    def _next_note(self) -> tuple[int, int, int] | None:
        """Slot, generation and length: of the oldest unread frame, or of the newest."""
        note: tuple[int, int, int] | None = None
        while self._socket is not None:
            try:
                packet, descriptors, _flags, _address = socket.recv_fds(self._socket, MAX_PACKET, 1)
            except BlockingIOError:
                return note
            except OSError:
                packet, descriptors = b"", []
            if packet and packet[0] == RING:
                self._map(packet, list(descriptors))
                note = None  # of the ring before
                continue
            for descriptor in descriptors:  # of somebody who is no publisher of ours
                os.close(descriptor)
            if not packet:
                self._disconnect()
            elif packet[0] == NOTE_KIND:
                _kind, slot, generation, length = NOTE.unpack(packet)
                note = slot, generation, length
                if not self._newest_only:
                    return note
        return note

    def _map(self, packet: bytes, descriptors: list[int]) -> None:
        if len(descriptors) != 1:
            raise ValueError(f"{len(descriptors)} descriptors beside a ring")
        try:
            said = unpack_json(packet)
            self._slot_bytes = Layout.of(format_from_json(said["format"])).size
            slots = int(said["slots"])
            needed = self._slot_bytes * slots
            # Were it cut off under this process, reading it would end this process.
            sealed = fcntl.fcntl(descriptors[0], fcntl.F_GET_SEALS) & fcntl.F_SEAL_SHRINK
            if not sealed or (got := os.fstat(descriptors[0]).st_size) != needed:
                raise ValueError(
                    f"a ring that is not {needed} sealed bytes" if sealed else "a ring without a seal"
                )
            mapped = mmap.mmap(descriptors[0], got, mmap.MAP_SHARED, mmap.PROT_READ)
        finally:
            os.close(descriptors[0])
        self._ring = np.frombuffer(mapped, np.uint8)
        self._generations = np.ndarray((slots,), "<u8", mapped, SLOT_GENERATION_AT, (self._slot_bytes,))
        self._buffers.clear()

    def _copy(self, slot: int, generation: int, length: int) -> memoryview | None:
        if self._ring is None or self._generations is None:
            raise ValueError("a note before any ring")
        if slot >= self._generations.size or not HEADER_ROOM < length <= self._slot_bytes:
            raise ValueError(f"a note of {length} bytes in slot {slot}")
        start = slot * self._slot_bytes
        buffer = self._free_buffer()
        if self._generations[slot] == generation:
            np.copyto(buffer[:length], self._ring[start : start + length])
            if self._generations[slot] == generation:
                return buffer[:length].data
        self.overtaken += 1
        return None

    def _free_buffer(self) -> np.ndarray:
        """A buffer into which no message looks any more."""
        for buffer in self._buffers:
            # The list, this loop and the call itself; a message's planes would be one more.
            if sys.getrefcount(buffer) <= 3:
                return buffer
        made = np.empty(self._slot_bytes, np.uint8)
        if len(self._buffers) < KEPT:
            self._buffers.append(made)
        return made

    def _disconnect(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket = None
        self._ring = self._generations = None

    def close(self) -> None:
        """Close the socket; may be called twice."""
        self._disconnect()
        self._buffers.clear()
