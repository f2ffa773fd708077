"""Commands to a running pipeline, from its own user on its own host: a UNIX socket beside its endpoint.

SOCK_SEQPACKET, each packet whole, JSON:

    client                                                                      publisher, <endpoint>.control
    {"command": "patient", "do": "on"}, the file's descriptor beside it     ->
    {"command": "patient", "do": "off"}                                     ->
    {"done": true or false, "message": a sentence}                              <- once, when it is done or cannot be

A file comes as a descriptor: its name may be a patient's, and the publisher may not be able to reach it. The socket is of mode
0600, and whoever connects must be of the same user.
"""

import contextlib
import json
import os
import socket
import struct
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from stream.errors import EndpointError

MAX_CLIENTS = 8
MAX_BYTES = 4096
_CREDENTIALS = struct.Struct("3i")
"""Process, user and group, as SO_PEERCRED gives them."""

Answer = Callable[[bool, str], object]
Handler = Callable[[dict[str, Any], list[int], Answer], object]
"""Takes a command, the descriptors beside it (its own from here on) and who is to hear what became of it.

Raises:
    ValueError, KeyError, TypeError: It is no command; the descriptors are closed by the door.
"""


class CommandDoor:
    """Takes commands; nothing in here waits.

    Args:
        path: Of the socket.
        handle: What does them.

    Raises:
        EndpointError: It cannot be bound.
    """

    def __init__(self, path: Path, handle: Handler) -> None:
        self._path, self._handle = path, handle
        self._clients: list[socket.socket] = []
        self._waiting: list[socket.socket] = []
        """Clients whose command is being done."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        before = os.umask(0o077)
        try:
            # The endpoint's lock, or its port, is held: what lies here is of a publisher that was killed.
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
            self._socket.bind(str(path))
            self._socket.listen(MAX_CLIENTS)
        except OSError as error:
            self._socket.close()
            raise EndpointError(
                f"needed a socket for commands on this host, got {path}: {error.strerror}; choose another --endpoint"
            ) from error
        finally:
            os.umask(before)

    def see_clients(self) -> None:
        """Take in who came and what they want. Call it every 100 ms or so."""
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _address = self._socket.accept()
                client.setblocking(False)
                theirs = _CREDENTIALS.unpack(
                    client.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
                )[1]
                if theirs == os.geteuid() and len(self._clients) + len(self._waiting) < MAX_CLIENTS:
                    self._clients.append(client)
                else:
                    client.close()
        for client in list(self._clients):
            self._hear(client)

    def _hear(self, client: socket.socket) -> None:
        descriptors: list[int] = []
        try:
            data, descriptors, _flags, _address = socket.recv_fds(
                client, MAX_BYTES, 2, socket.MSG_CMSG_CLOEXEC
            )
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._clients.remove(client)
        if not data:
            client.close()
            return
        self._waiting.append(client)
        answer = partial(self._answer, client)
        try:
            said = json.loads(data)
            if not isinstance(said, dict):
                raise TypeError
            self._handle(said, descriptors, answer)
        except (ValueError, KeyError, TypeError, RecursionError):
            for descriptor in descriptors:
                os.close(descriptor)
            answer(False, "needed a command of this version, got another; update the older side")

    def _answer(self, client: socket.socket, done: bool, message: str) -> None:
        if client not in self._waiting:
            return
        self._waiting.remove(client)
        with contextlib.suppress(OSError):  # it did not wait
            client.send(json.dumps({"done": done, "message": message[:2000]}).encode())
        client.close()

    def close(self) -> None:
        """Close the socket and remove it."""
        for client in (*self._clients, *self._waiting):
            client.close()
        self._clients.clear()
        self._waiting.clear()
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()


def command(
    path: Path, said: dict[str, Any], descriptors: tuple[int, ...] = (), wait_s: float = 600.0
) -> tuple[bool, str]:
    """Have a running pipeline of this user, on this host, do something; waits until it is done.

    Args:
        path: Its socket.
        said: The command.
        descriptors: What it is about.
        wait_s: A plan for a GPU may take minutes.

    Returns:
        Whether it was done, and a sentence.

    Raises:
        EndpointError: No pipeline is there, or it does not answer.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
        sock.settimeout(wait_s)
        try:
            sock.connect(str(path))
            socket.send_fds(sock, [json.dumps(said).encode()], descriptors)
            data = sock.recv(MAX_BYTES)
        except TimeoutError:
            raise EndpointError(
                f"needed an answer within {wait_s:.0f} s, got none; look at the run's own log"
            ) from None
        except OSError as error:
            raise EndpointError(
                f"needed a running pipeline of yours on this host, got {path.name}: {error.strerror}; start contrastream run, "
                "or name its --endpoint"
            ) from None
    if not data:
        raise EndpointError("the pipeline ended before it answered; look at its own log")
    answer = json.loads(data)
    return bool(answer["done"]), str(answer["message"])
