"""A publisher of known pixels, in a process of its own: python publisher.py ENDPOINT SCRIPT.json

The script is JSON: {"rows", "columns", "bits", "photometric", "window", "rate_hz", "pattern", "state", "reason",
"age_ms", "planes", "frames", "heartbeat", "unmasked_text", "engine", "more"}; `more` is for the heartbeat. It is read again when it changes, so that a test can
change what is published while frames flow. Prints "ready" once both sockets are bound.
"""

import json
import os
import secrets
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import zmq

from stream.endpoint import parse_endpoint
from stream.frame import FrameFormat, Photometric, Plane, Reason, State
from stream.timing import MonotonicClock, sleep_until_ns
from stream.wire import Header, Layout, pack_header, pack_status

DEFAULTS: dict[str, Any] = {
    "rows": 96,
    "columns": 128,
    "bits": 8,
    "photometric": 2,
    "window": None,
    "rate_hz": 30.0,
    "pattern": "numbered",
    "state": "SYNTHETIC",
    "reason": "NONE",
    "age_ms": 0,
    "frames": True,
    "heartbeat": True,
    "status_state": None,
    "unmasked_text": False,
    "faults_injected": False,
    "engine": {"backend": "openvino", "precision": "bf16", "inference_ms": 5.2},
    "more": {},
}


def numbered(rows: int, columns: int, max_value: int, sequence: int) -> tuple[np.ndarray, np.ndarray]:
    """Live and synthetic pixels that both follow from the sequence number, so that a mixture shows."""
    row, column = np.ogrid[:rows, :columns]
    live = (row * 3 + column * 5 + sequence * 7) % (max_value + 1)
    synthetic = max_value - live
    return live, synthetic


class Real:
    """Real frames, with a synthetic plane that is only a darker version: for looking at the page."""

    def __init__(self, folder: str) -> None:
        self.frames = [
            cv2.imread(str(path), cv2.IMREAD_GRAYSCALE) for path in sorted(Path(folder).glob("*.jpg"))
        ]

    def __call__(self, sequence: int) -> tuple[np.ndarray, np.ndarray]:
        live = self.frames[sequence % len(self.frames)]
        dark = cv2.morphologyEx(live, cv2.MORPH_BLACKHAT, np.ones((15, 15), np.uint8))
        return live, cv2.subtract(live, cv2.multiply(dark, 1.5))


class Script:
    """What to publish, read from its file whenever that changes."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._changed = 0
        self.values = dict(DEFAULTS)
        self.refresh()

    def refresh(self) -> None:
        """Read the file again if it is another one."""
        changed = self._path.stat().st_mtime_ns
        if changed != self._changed:
            self._changed = changed
            self.values = {**DEFAULTS, **json.loads(self._path.read_text())}

    def frame_format(self) -> FrameFormat:
        """The format of the next frame."""
        center, width = self.values["window"] or (None, None)
        return FrameFormat(
            self.values["rows"],
            self.values["columns"],
            self.values["bits"],
            Photometric(self.values["photometric"]),
            center,
            width,
        )


def main() -> None:
    endpoint = parse_endpoint(sys.argv[1])
    script = Script(sys.argv[2])
    context = zmq.Context()
    frames, status = context.socket(zmq.PUB), context.socket(zmq.PUB)
    for socket, address in ((frames, endpoint.frames), (status, endpoint.status)):
        socket.linger = 0
        socket.bind(address)
    print("ready", flush=True)
    clock = MonotonicClock()
    stream = secrets.token_bytes(16)
    real: Real | None = None
    sequence = publication = 0
    due_ns = heartbeat_ns = clock.now_ns()
    while True:
        script.refresh()
        said = script.values
        state, reason = State[said["state"]], Reason[said["reason"]]
        due_ns += round(1e9 / said["rate_hz"])
        sleep_until_ns(due_ns, clock)
        sequence += 1
        if said["frames"]:
            if said["pattern"] == "numbered":
                frame_format = script.frame_format()
                live, synthetic = numbered(
                    frame_format.rows, frame_format.columns, frame_format.max_value, sequence
                )
            else:
                real = real or Real(said["pattern"])
                live, synthetic = real(sequence)
                frame_format = FrameFormat(*live.shape)
            planes = Plane.LIVE
            if state is not State.PASSTHROUGH:
                planes |= Plane.SYNTHETIC | Plane.ATTENTION
            layout = Layout.of(frame_format)
            slot = bytearray(layout.size)
            for plane, pixels in ((Plane.LIVE, live), (Plane.SYNTHETIC, synthetic)):
                data = pixels.astype(frame_format.dtype).tobytes()
                slot[layout.offset(plane) : layout.offset(plane) + len(data)] = data
            header = Header(
                stream,
                sequence,
                publication,
                frame_format,
                state,
                reason,
                planes,
                stamps_ns=(due_ns, clock.now_ns(), 0, 0, clock.now_ns()),
                age_ms=said["age_ms"],
                unmasked_text=said["unmasked_text"],
                faults_injected=said["faults_injected"],
                rate_hz=said["rate_hz"],
                publisher_pid=os.getpid(),
            )
            length = pack_header(memoryview(slot), header, layout)
            frames.send(bytes(slot[:length]))
            publication += 1
        if said["heartbeat"] and clock.now_ns() - heartbeat_ns > 100_000_000:
            heartbeat_ns = clock.now_ns()
            shown = State[said["status_state"] or said["state"]]
            status.send(
                pack_status(
                    {
                        "state": shown.name,
                        "state_code": int(shown),
                        "reason_code": int(reason),
                        "age_ms": said["age_ms"],
                        "engine": said["engine"],
                        "fps_in": said["rate_hz"],
                        "fps_out": said["rate_hz"],
                        "counters": {
                            "published": publication,
                            "synthetic": publication,
                            "passthrough": {},
                            "dropped": {"source_late": 2, "ring_full": 1},
                        },
                        "stamp_ns": time.clock_gettime_ns(time.CLOCK_MONOTONIC),
                        **said["more"],
                    }
                )
            )


if __name__ == "__main__":
    main()
