"""The other side of OpenIGTLink, by another implementation (pyigtl), in a process of its own.

`receive PORT COUNT OUT.npz`: connects as 3D Slicer does and keeps COUNT images of Live, every other message's text.
`send PORT`: a server as PLUS is; sends ramps of 96 x 128, 8 bits, numbered in pixel (0, 0), as Probe, and others as Other.
"""

import sys
import time

import numpy as np
import pyigtl


def receive(port: int, count: int, out: str) -> None:
    """Keep what comes."""
    client = pyigtl.OpenIGTLinkClient("127.0.0.1", port)
    live, synthetic, stamps, drawn_at, words = [], [], [], [], []
    matrix = np.zeros((4, 4))
    over = time.monotonic() + 60.0
    while len(live) < count and time.monotonic() < over:
        for message in client.get_latest_messages():
            if message.device_name == "Live":
                live.append(message.image[0].copy())
                stamps.append(message.timestamp)
                matrix = message.ijk_to_world_matrix
            elif message.device_name == "SyntheticResearch":
                synthetic.append(message.image[0].copy())
                drawn_at.append(message.timestamp)
            else:
                words.append(str(message.status_message if hasattr(message, "status_message") else message))
        time.sleep(0.002)
    client.stop()
    np.savez(
        out, live=live, synthetic=synthetic, stamps=stamps, drawn_at=drawn_at, matrix=matrix, words=words
    )


def send(port: int) -> None:
    """Send until the standard input ends."""
    server = pyigtl.OpenIGTLinkServer(port=port, local_server=True)
    print("ready", flush=True)
    number = 0
    while True:
        ramp = (np.arange(96 * 128, dtype=np.uint32).reshape(1, 96, 128) % 251).astype(np.uint8)
        ramp[0, 0, 0] = number % 256
        server.send_message(pyigtl.ImageMessage(ramp[:, :64], device_name="Other"), wait=False)
        server.send_message(pyigtl.ImageMessage(ramp, device_name="Probe"), wait=True)
        number += 1
        time.sleep(0.02)


if __name__ == "__main__":
    if sys.argv[1] == "receive":
        receive(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
    else:
        send(int(sys.argv[2]))
