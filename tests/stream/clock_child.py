"""A publisher's clock in a process of its own: offset, drifting, and behind a network whose two ways are unlike.

`python clock_child.py ADDRESS OFFSET_NS DRIFT_PPM THERE_MS BACK_MS SEED`: prints a line when it is ready, and ends with its
standard input. Times of the ways are exponential with those means.
"""

import sys
import threading
import time

import numpy as np
import zmq

from stream.clock_exchange import ClockResponder


class SkewedClock:
    """CLOCK_MONOTONIC, shifted and running at another rate from its start on."""

    def __init__(self, offset_ns: int, drift_ppm: float) -> None:
        self._offset_ns = offset_ns
        self._rate = drift_ppm * 1e-6
        self._start_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)

    def now_ns(self) -> int:
        now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        return now_ns + self._offset_ns + round((now_ns - self._start_ns) * self._rate)


def network(address: str, inner: str, there_ms: float, back_ms: float, seed: int) -> None:
    """Carries one exchange after the other, each way late."""
    rng = np.random.default_rng(seed)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    front, back = context.socket(zmq.ROUTER), context.socket(zmq.DEALER)
    front.bind(address)
    back.connect(inner)
    while True:
        client, request = front.recv_multipart()
        time.sleep(rng.exponential(there_ms) / 1e3)
        back.send(request)
        reply = back.recv()
        time.sleep(rng.exponential(back_ms) / 1e3)
        front.send_multipart([client, reply])


def main() -> None:
    address, offset, drift, there, back, seed = sys.argv[1:]
    inner = f"{address}-inner"
    responder = ClockResponder(inner, SkewedClock(int(offset), float(drift)))
    threading.Thread(
        target=network, args=(address, inner, float(there), float(back), int(seed)), daemon=True
    ).start()
    print(time.clock_gettime_ns(time.CLOCK_MONOTONIC), flush=True)
    sys.stdin.read()
    responder.close()


if __name__ == "__main__":
    main()
    # The network's thread waits in ZeroMQ for ever; its sockets go with the process.
    import os

    os._exit(0)
