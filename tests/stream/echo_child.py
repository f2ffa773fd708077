"""A child of the guard for the tests: says what it was told, then sends every packet back.

Run as `python -m echo_child DESCRIPTOR`, with this folder on PYTHONPATH.
"""

import os
import sys

from stream.control import ChildSocket, Kind, become_child, receive_ring, unpack_json


def main() -> None:
    """Echo until the guard is gone."""
    become_child()
    guard = ChildSocket(int(sys.argv[1]))
    packet, _ = guard.receive()
    config = unpack_json(packet)
    print(config.get("print", ""), file=sys.stderr)
    guard.send_json(Kind.OPENED, {"pid": os.getpid(), "config": config})
    while True:
        packet, descriptors = guard.receive()
        if not packet:
            return
        if packet[0] == Kind.RING:
            memory, number = receive_ring(packet, descriptors)
            packet = bytes((Kind.READY, number, len(memory.slots)))
        guard.send(packet)


if __name__ == "__main__":
    main()
