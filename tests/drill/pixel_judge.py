"""A client in a process of its own that checks every plane of every frame against the number in its header.

`python pixel_judge.py ENDPOINT PAUSE_MS [--memory]` reads until the publisher says that it has ended, waits PAUSE_MS between two
frames, and prints what it saw as JSON.
"""

import argparse
import json
import time

from stream.subscribe import Subscriber


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("endpoint")
    parser.add_argument("pause_ms", type=float)
    parser.add_argument("--memory", action="store_true")
    options = parser.parse_args()
    subscriber = Subscriber(options.endpoint, memory=options.memory, newest_only=False, queue=16)
    mixed = 0
    first = last = None
    while True:
        message = subscriber.poll(100)
        if message is None:
            if not subscriber.has_more() and (subscriber.status or {}).get("ended"):
                break
            continue
        number = message.header.sequence
        right = message.synthetic is not None and message.attention is not None
        right = right and bool((message.live == number % 4000).all())
        right = right and bool((message.synthetic == (number + 1) % 4000).all())
        right = right and bool((message.attention == number % 251).all())
        # Once more after a while, since a slot that is written while it is read shows late.
        if options.pause_ms:
            time.sleep(options.pause_ms / 1000.0)
            right = right and bool((message.live == number % 4000).all())
        mixed += not right
        first = message.header.publication if first is None else first
        last = message.header.publication
    span = 0 if first is None or last is None else last - first + 1
    print(json.dumps({**subscriber.statistics(), "mixed": mixed, "span": span}))
    subscriber.close()


if __name__ == "__main__":
    main()
