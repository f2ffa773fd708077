"""`contrastream run --healthcheck`: does the stream of these settings still send its heartbeat? For supervisors."""

import time
from typing import Any

import zmq

from stream.admission import authenticate, client_keys
from stream.endpoint import client_here, parse_endpoint
from stream.errors import WireError
from stream.statusline import state_text
from stream.timing import NS_PER_MS
from stream.wire import unpack_status

HEARD_WITHIN_S = 2.0
LATE_MS = 1000.0
"""A heartbeat older than this when it comes is of a loop that hangs; they leave ten times a second."""


def heard(endpoint: str | None, within_s: float = HEARD_WITHIN_S) -> dict[str, Any] | None:
    """The first heartbeat of a stream; None where none came.

    Args:
        endpoint: As `parse_endpoint` takes it; of this user, on this host.
        within_s: How long to wait.

    Raises:
        EndpointError: It is no endpoint.
        KeyFileError: Its key pair is not there or not as it must be.
        WireError: What came is no heartbeat.
    """
    found = parse_endpoint(client_here(parse_endpoint(endpoint)))
    address, keys = found.status, client_keys(found.curve)
    with zmq.Context() as context, context.socket(zmq.SUB) as socket:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.CONFLATE, 1)
        socket.setsockopt(zmq.IPV6, address.startswith("tcp://["))
        socket.setsockopt(zmq.MAXMSGSIZE, 1 << 20)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        authenticate(socket, keys)
        socket.connect(address)
        return unpack_status(socket.recv()) if socket.poll(round(within_s * 1000)) else None


def healthcheck(endpoint: str | None) -> int:
    """Say on stdout how a stream is doing.

    Returns:
        0 where its loop lives, whatever the picture's state: a source that is off or an engine that is lost is shown and
        mended by the run itself. 1 where no heartbeat comes within 2 s, or only an old one: end it and start it again.
    """
    try:
        status = heard(endpoint)
    except WireError as error:
        print(f"not healthy: {error}")
        return 1
    if status is None:
        print(f"not healthy: no heartbeat within {HEARD_WITHIN_S:g} s; nothing runs there, or it hangs")
        return 1
    late_ms = (time.clock_gettime_ns(time.CLOCK_MONOTONIC) - int(status.get("stamp_ns", 0))) / NS_PER_MS
    if late_ms > LATE_MS or status.get("ended"):
        print(
            f"not healthy: {'it has ended' if status.get('ended') else f'its heartbeat is {late_ms:.0f} ms old'}"
        )
        return 1
    print(f"healthy: {state_text(status)}, {status['fps_out']:.1f} frames/s out, process {status['pid']}")
    return 0
