"""A client of shared memory in a process of its own: checks every frame it gets against the number in its header.

`python memory_reader_child.py ENDPOINT FRAMES PAUSE_MS` reads until frame FRAMES - 1 or the publisher's end, waits PAUSE_MS
between two, and prints what it saw as JSON. Frame n of the test's stream has live n % 4000, synthetic (n + 1) % 4000 and
attention n % 251 in every pixel.
"""

import json
import sys
import time

from stream.subscribe import Subscriber


def main() -> None:
    """Entry point."""
    endpoint, frames, pause_ms = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
    subscriber = Subscriber(endpoint, memory=True, newest_only=False)
    mixed = 0
    over = time.monotonic() + 60.0
    last = -1
    while last < frames - 1 and time.monotonic() < over:
        message = subscriber.poll(100)
        if message is None:
            if not subscriber.has_more() and (subscriber.status or {}).get("ended"):
                break
            continue
        last = message.header.sequence
        right = bool((message.live == last % 4000).all())
        if message.synthetic is not None and message.attention is not None:
            right &= bool((message.synthetic == (last + 1) % 4000).all())
            right &= bool((message.attention == last % 251).all())
        mixed += not right
        time.sleep(pause_ms / 1000.0)
    print(json.dumps({**subscriber.statistics(), "mixed": mixed, "last": last}))
    subscriber.close()


if __name__ == "__main__":
    main()
