"""A client in a process of its own that writes down what it received: the judge of the end-to-end tests.

Run as a script: ENDPOINT. Every frame, heartbeat and change of the shown state is a line of JSON on stdout.
"""

import dataclasses
import json
import sys
import time
import zlib

import numpy as np

from stream.frame import State
from stream.subscribe import Subscriber


def main(endpoint: str) -> None:
    """Receive until killed."""
    subscriber = Subscriber(endpoint, newest_only=False, queue=200)
    shown = None
    heartbeat = None
    while True:
        message = subscriber.poll(20)
        now_ns = time.clock_gettime_ns(time.CLOCK_MONOTONIC)
        lines = []
        if message is not None:
            header = message.header
            line = {
                "what": "frame",
                "at_ns": now_ns,
                "stream": header.stream.hex(),
                "sequence": header.sequence,
                "publication": header.publication,
                "state": header.state.name,
                "reason": header.reason.name.lower(),
                "planes": int(header.planes),
                "rows": header.frame_format.rows,
                "columns": header.frame_format.columns,
                "due_ns": header.stamps_ns[0],
                "grabbed_ns": header.stamps_ns[1],
                "published_ns": header.stamps_ns[4],
                "live_crc": zlib.crc32(message.live.data),
                "unmasked_text": header.unmasked_text,
                "faults_injected": header.faults_injected,
                "adaptation": None if header.adaptation is None else header.adaptation.key,
                "spacing": None if header.spacing is None else dataclasses.astuple(header.spacing),
            }
            if message.synthetic is not None and message.attention is not None:
                untouched = message.attention == 0
                line["synthetic_crc"] = zlib.crc32(message.synthetic.data)
                line["background_exact"] = bool(
                    np.array_equal(message.live[untouched], message.synthetic[untouched])
                )
                line["drawn"] = float(1.0 - untouched.mean())
            lines.append(line)
        if subscriber.status is not None and subscriber.status is not heartbeat:
            heartbeat = subscriber.status
            lines.append({"what": "heartbeat", "at_ns": now_ns, **heartbeat})
        now = subscriber.shown_state(now_ns)
        if now.state is not shown:
            shown = now.state
            lines.append({"what": "shown", "at_ns": now_ns, "state": State(shown).name, "age_ms": now.age_ms})
        for line in lines:
            sys.stdout.write(json.dumps(line) + "\n")
        if lines:
            sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1])
