"""Strangers at a stream's TCP ports while frames flow: floods of connects, half-open sessions, whole sessions, subscriptions, giant messages.

What it costs the live picture is judged as in every other case: no frame later than its deadline and the longest gap of the
witness in the same run. The strangers take cores as well, and the witness feels that too.
"""

import itertools
import json
import subprocess
import sys
import time
from dataclasses import dataclass

from drill.cases import RATE_HZ
from drill.clients import Plain, end, now_ns
from drill.judge import DEADLINE_NS, NS, SIZE, Row, wait_for_synthetic
from drill.running import Running, free_port

from bench.witness import Witness, sample_process

LASTS_S = 10.0
GROWTH_MIB = 16
"""Resident memory that the guard may take more while a flood lasts."""
PORTS = 4
"""Of a stream: frames, heartbeats, clock and credit."""
STRANGERS = """
import json, os, socket, struct, sys, time
os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))  # strangers have no priority, whatever the drill was given
kind, port, ports, lasts_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
HALF = b"\\xff" + bytes(7) + b"\\x01\\x7f\\x03\\x00NULL" + bytes(16)
GREETING = HALF + bytes(32)
READY = b"\\x05READY\\x0bSocket-Type\\x00\\x00\\x00\\x03SUB"
READY = b"\\x04" + bytes((len(READY),)) + READY
over, made, sent, held, turn = time.monotonic() + lasts_s, 0, 0, [], 0
while time.monotonic() < over:
    turn += 1
    stranger = socket.socket()
    stranger.settimeout(1.0)
    try:
        stranger.connect(("127.0.0.1", port + turn % ports))
        made += 1
        if kind == "connects":
            stranger.close()
            continue
        if kind == "half-open sessions":
            stranger.sendall(HALF)
            held.append(stranger)
            if len(held) > 400:
                held.pop(0).close()
            continue
        stranger.sendall(GREETING + READY)
        heard = b""
        while len(heard) < 64 + 27:  # its greeting and its READY: what comes before them is hung up on for that alone
            got = stranger.recv(4096)
            if not got:
                raise OSError
            heard += got
        if kind == "whole sessions":
            stranger.sendall(b"\\x00\\x01\\x01")
            held.append(stranger)
            if len(held) > 400:
                held.pop(0).close()
            continue
        if kind == "subscriptions":
            while time.monotonic() < over:
                stranger.sendall(b"".join(b"\\x00\\x3d\\x01" + os.urandom(60) for _ in range(256)))
                sent += 256 * 63
        stranger.sendall(b"\\x02" + struct.pack(">Q", 1 << (28 + turn % 16)))
        for _ in range(256):
            stranger.sendall(bytes(1 << 18))
            sent += 1 << 18
            if time.monotonic() > over:
                break
    except OSError:
        pass
    if stranger not in held:
        stranger.close()
print(json.dumps({"made": made, "sent_mib": sent >> 20}))
"""


@dataclass(frozen=True)
class Flood:
    """One kind of stranger."""

    kind: str
    what: str


FLOODS = (
    Flood("connects", "as many TCP connects as one process makes, each closed at once"),
    Flood("half-open sessions", "handshakes begun and left, 400 held at a time"),
    Flood(
        "whole sessions",
        "handshakes to their end and a subscription to all frames, 400 held at a time, none read",
    ),
    Flood("subscriptions", "to 60 random bytes each, as many as one process sends"),
    Flood("giant messages", "messages of 256 MiB to 8 TiB announced and sent"),
)


def floods(witness: Witness) -> list[Row]:
    """A row for each kind; the stream and its one client are the same for all."""
    port = free_port()
    endpoint = f"tcp://127.0.0.1:{port}"
    running = Running(endpoint, "--size", str(SIZE), "--rate", f"{RATE_HZ:g}", "--no-domain")
    plain = Plain(endpoint)
    try:
        wait_for_synthetic([plain], now_ns())
        return [_flood(flood, port, running, plain, witness) for flood in FLOODS]
    finally:
        plain.close()
        running.close()


def _flood(flood: Flood, port: int, running: Running, plain: Plain, witness: Witness) -> Row:
    before = sample_process(running.process.pid)
    begin_ns = now_ns()
    strangers = subprocess.Popen(
        [sys.executable, "-c", STRANGERS, flood.kind, str(port), str(PORTS), str(LASTS_S)],
        stdout=subprocess.PIPE,
        text=True,
    )
    most = 0
    try:
        while strangers.poll() is None:
            if (now := sample_process(running.process.pid)) is not None:
                most = max(most, now.resident_bytes)
            time.sleep(0.1)
        said = json.loads(strangers.stdout.read()) if strangers.stdout is not None else {}
    finally:
        end(strangers)
        if strangers.stdout is not None:
            strangers.stdout.close()
    end_ns = now_ns()
    time.sleep(1.0)
    row = Row(
        f"flood of {flood.kind}", flood.what, plain.name, "live frames in time, none lost", "-", None, 0.0, 0.0
    )  # fmt: skip
    frames = [frame for frame in plain.of("frame", begin_ns) if begin_ns <= frame["due_ns"] <= end_ns]
    if before is None or not frames or running.process.poll() is not None:
        row.faults = ("the stream did not live through it",)
        return row
    grown_mib = (most - before.resident_bytes) / (1 << 20)
    row.seen = (
        f"{said['made']} connections, {said['sent_mib']} MiB sent; {len(frames)} frames of "
        f"{(end_ns - begin_ns) / NS * RATE_HZ:.0f} due; guard {grown_mib:+.1f} MiB"
    )
    _judge(row, frames, grown_mib, witness.record().window(begin_ns, now_ns(), len(frames)).longest_gap_ms)
    return row


def _judge(row: Row, frames: list[dict[str, int]], grown_mib: float, gap_ms: float) -> None:
    late_ms = [(frame["published_ns"] - frame["due_ns"] - DEADLINE_NS) / 1e6 for frame in frames]
    way_ms = sorted((frame["at_ns"] - frame["published_ns"]) / 1e6 for frame in frames)
    gaps = sum(after["publication"] - one["publication"] - 1 for one, after in itertools.pairwise(frames))
    row.lost = f"{gaps} on the way"
    row.late = (
        f"latest {max(late_ms):+.0f} ms of its deadline, witness {gap_ms:.0f} ms; from the publisher to the client median "
        f"{way_ms[len(way_ms) // 2]:.1f}, at most {way_ms[-1]:.1f} ms"
    )
    faults = []
    if excess := [late for late in late_ms if late > gap_ms]:
        faults.append(
            f"{len(excess)} frames later than deadline + witness ({max(excess):.0f} ms over the deadline)"
        )
    if gaps:
        faults.append(f"{gaps} messages lost on the way")
    if grown_mib > GROWTH_MIB:
        faults.append(f"the guard took {grown_mib:.0f} MiB more")
    row.faults = tuple(faults)
