"""Shared memory for clients on this host: the publisher's side.

A client that may map the ring reads a frame where it lies, instead of having it sent: one copy of its own in place of
ZeroMQ's two, and no thread in between. What is said beside the memory goes over a UNIX socket, SOCK_SEQPACKET, little-
endian, each packet whole:

    client                                                                 publisher, <endpoint>.memory
    HELLO   8 bytes CSMEMRY1, u8 flags: 1 a measuring client       9 bytes ->
    RING    u8 1, JSON {"format", "slots"}, the ring's descriptor           <- the first frame, and after a change of format
    NOTE    u8 2, u32 slot, u64 generation, u64 length             21 bytes <- each frame, when it is published

A slot holds what a message holds (stream/wire.py): the first `length` bytes. Its generation stands a second time at byte
504 and is raised before anybody may write the slot again. So a reader compares that with the note, copies, and compares
once more; where it differs, another frame has been written over this one, and the copy is worth nothing. That is sound on
x86-64, whose loads and stores stay in order; elsewhere the CRC of the planes must say it.

Nothing here waits for a client, and no slot is held for one: who is too slow finds its frames overwritten, and loses
them. The descriptor is open for reading only. That keeps a client's mistakes out of the ring, not an attacker who runs as
the same user; others cannot reach the socket.
"""

import contextlib
import json
import os
import socket
import struct
from dataclasses import dataclass

from stream.control import format_to_json
from stream.errors import EndpointError
from stream.ring import Ring, RingMemory

MAGIC = b"CSMEMRY1"
HELLO = struct.Struct("<8sB")
FLAG_MEASURING = 1
RING = 1
NOTE = struct.Struct("<BIQQ")
NOTE_KIND = 2
MAX_CLIENTS = 32


@dataclass
class DoorClient:
    """A client at the door."""

    socket: socket.socket
    measuring: bool | None = None
    """None until it has said hello."""
    has_ring: bool = False


class MemoryDoor:
    """Tells clients on this host where in the ring the frames lie.

    Args:
        path: Of the UNIX socket; for this user alone.

    Raises:
        EndpointError: It cannot be bound.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._clients: list[DoorClient] = []
        self._memory: RingMemory | None = None
        self._readable = -1
        """The present ring's descriptor, open for reading only."""
        self.missed = 0
        """Notes that a client had no room for, since it does not read."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        before = os.umask(0o077)
        try:
            # The endpoint's lock is held: what lies here is of a publisher that was killed.
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            self._socket.bind(path)
            self._socket.listen(MAX_CLIENTS)
        except OSError as error:
            self._socket.close()
            raise EndpointError(
                f"needed a socket for clients on this host, got {path}: {error.strerror}; choose another --endpoint"
            ) from error
        finally:
            os.umask(before)

    @property
    def clients(self) -> int:
        """Clients that have said hello."""
        return sum(client.measuring is not None for client in self._clients)

    @property
    def measuring(self) -> int:
        """Of these, those that measure."""
        return sum(client.measuring is True for client in self._clients)

    def see_clients(self) -> None:
        """Take in who came, said hello and went. Call it every 100 ms or so."""
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _address = self._socket.accept()
                client.setblocking(False)
                if len(self._clients) < MAX_CLIENTS:
                    self._clients.append(DoorClient(client))
                else:
                    client.close()
        for entry in list(self._clients):
            self._hear(entry)

    def _hear(self, client: DoorClient) -> None:
        try:
            packet = client.socket.recv(64)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if client.measuring is None and len(packet) == HELLO.size:
            magic, flags = HELLO.unpack(packet)
            if magic == MAGIC:
                client.measuring = bool(flags & FLAG_MEASURING)
                self._give_ring(client)
                return
        self._drop(client)  # it has gone, or is none of ours

    def tell(self, ring: Ring, index: int, length: int) -> None:
        """Tell every client that a frame is published.

        Args:
            ring: The ring it lies in.
            index: Its slot.
            length: Bytes from the slot's start that are the message.
        """
        if ring.memory is not self._memory:
            self._use(ring.memory)
        if not self._clients:
            return
        note = NOTE.pack(NOTE_KIND, index, ring.generation(index), length)
        for client in list(self._clients):
            if client.has_ring:
                self._send(client, note)

    def _use(self, memory: RingMemory) -> None:
        """The frames lie in another ring from here on."""
        if self._readable >= 0:
            os.close(self._readable)
        self._memory = memory
        self._readable = os.open(f"/proc/self/fd/{memory.descriptor}", os.O_RDONLY | os.O_CLOEXEC)
        for client in list(self._clients):
            client.has_ring = False
            if client.measuring is not None:
                self._give_ring(client)

    def _give_ring(self, client: DoorClient) -> None:
        if self._memory is None:
            return
        said = {"format": format_to_json(self._memory.frame_format), "slots": len(self._memory.slots)}
        try:
            socket.send_fds(client.socket, [bytes((RING,)) + json.dumps(said).encode()], [self._readable])
            client.has_ring = True
        except OSError:
            # Without the ring it could understand no note. It comes back by itself once it reads again.
            self._drop(client)

    def _send(self, client: DoorClient, note: bytes) -> None:
        try:
            client.socket.send(note)
        except BlockingIOError:
            self.missed += 1
        except OSError:
            self._drop(client)

    def _drop(self, client: DoorClient) -> None:
        client.socket.close()
        self._clients.remove(client)

    def close(self) -> None:
        """Close the socket and remove it."""
        for client in self._clients:
            client.socket.close()
        self._clients.clear()
        self._socket.close()
        if self._readable >= 0:
            os.close(self._readable)
            self._readable = -1
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)
