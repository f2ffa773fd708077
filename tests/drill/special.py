"""Cases that need more than one stream and its clients: the network, a tab in the background, the guard's death, 100,000 frames."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from drill.cases import RATE_HZ, SHOWN_WITHIN_S, to_child
from drill.clients import Client, Page, Plain, Seen, end, now_ns
from drill.judge import NS, SIZE, Row, wait_for, wait_for_silence, wait_for_synthetic
from drill.running import Proxy, Running, Unready, free_port

from stream.endpoint import parse_endpoint
from stream.frame import FrameFormat, Plane, State
from stream.outgoing import Grabbed, Inferred, Outgoing
from stream.publish import Publisher
from stream.ring import Ring
from stream.timing import MonotonicClock

CUT_S = 30.0
TAB_S = 4.0
FRAMES = 100_000
FORMAT = FrameFormat(128, 160, 12)
ALL = Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION


def _row(
    name: str,
    what: str,
    client: str,
    expected: str,
    seen: str,
    detect_s: float | None,
    recover_s: float | None,
) -> Row:
    faults: tuple[str, ...] = ()
    if detect_s is None or detect_s > SHOWN_WITHIN_S:
        faults += (f"{client}: " + ("never shown" if detect_s is None else f"after {detect_s:.2f} s"),)
    if recover_s is None:
        faults += (f"{client}: not back",)
    return Row(name, what, client, expected, seen, detect_s, SHOWN_WITHIN_S, recover_s, faults=faults)


def first(timeline: Sequence[Seen], state: str, since_ns: int) -> Seen | None:
    """The first time from an instant on that a client began to show a state."""
    return next((seen for seen in timeline if seen.state == state and seen.at_ns >= since_ns), None)


def run_room(endpoint: str) -> Running:
    """A room with nothing wrong."""
    return Running(endpoint, "--size", str(SIZE), "--rate", f"{RATE_HZ:g}", "--no-domain")


def network_cut(make: Callable[[str], list[Client]]) -> list[Row]:
    """Over TCP: the network (a small proxy) is stopped for half a minute, so that nothing arrives and nothing is refused."""
    port = free_port()
    running = run_room(f"tcp://127.0.0.1:{port}")
    clients: list[Client] = []
    proxy = None
    try:
        proxy = Proxy(port, port + 10)
        clients = make(f"tcp://127.0.0.1:{port + 10}")
        wait_for_synthetic(clients, now_ns())
        begin_ns = now_ns()
        os.kill(proxy.process.pid, signal.SIGSTOP)
        time.sleep(CUT_S)
        os.kill(proxy.process.pid, signal.SIGCONT)
        end_ns = now_ns()
        wait_for_synthetic(clients, end_ns)
        rows = []
        for client in clients:
            found = first(client.timeline(), "NO_SIGNAL", begin_ns)
            back = first(client.timeline(), "SYNTHETIC", end_ns)
            rows.append(
                _row(
                    "network cut",
                    f"TCP, nothing passes for {CUT_S:.0f} s",
                    client.name,
                    "NO_SIGNAL",
                    " > ".join(seen.state for seen in client.timeline() if seen.at_ns >= begin_ns)[:80],
                    None if found is None else (found.at_ns - begin_ns) / NS,
                    None if back is None else (back.at_ns - end_ns) / NS,
                )
            )
        return rows
    finally:
        for client in clients:
            client.close()
        if proxy is not None:
            proxy.close()
        running.close()


def tab_in_background(page: Page, plain: Plain, endpoint: str) -> list[Row]:
    """The page's tab is frozen, as a browser does in the background; when it is back it must not show what was."""
    rows = []
    wait_for_silence([page, plain])
    running = run_room(endpoint)
    try:
        wait_for_synthetic([page, plain], now_ns())
        page.freeze(True)
        time.sleep(TAB_S)
        page.freeze(False)
        back_ns = now_ns()

        def is_new() -> bool:
            shown = int(page.page.evaluate("Number(document.body.dataset.sequence)"))
            newest = plain.of("frame")[-1]["sequence"]
            return newest - shown <= 0.5 * RATE_HZ

        wait_for(is_new, "a new frame on the page", 10.0)
        passed_s = (now_ns() - back_ns) / NS
        rows.append(
            _row("tab in the background", f"frozen for {TAB_S:.0f} s, the stream goes on", page.name, "the newest frame",
                 "the newest frame", passed_s, passed_s)
        )  # fmt: skip
        page.freeze(True)
        to_stop = running.process.pid
        os.kill(to_stop, signal.SIGSTOP)
        time.sleep(TAB_S)
        page.freeze(False)
        back_ns = now_ns()
        gone = wait_for(
            lambda: page.page.evaluate("document.body.dataset.state") in ("NO_SIGNAL", "STALE"),
            "no live picture",
            10.0,
        )
        passed_s = (now_ns() - back_ns) / NS
        os.kill(to_stop, signal.SIGCONT)
        end_ns = now_ns()
        wait_for_synthetic([page], end_ns)
        rows.append(
            _row("tab in the background, stream dies", "the publisher is stopped meanwhile", page.name, "NO_SIGNAL",
                 "NO_SIGNAL" if gone else "-", passed_s, (now_ns() - end_ns) / NS)
        )  # fmt: skip
        return rows
    finally:
        page.freeze(False)
        running.close()


def guard_killed(endpoint: str) -> list[Row]:
    """SIGKILL of each process of a room in turn, the guard last: nothing is left, in no process."""
    rows = []
    for module in ("stream.infer", "stream.grab", "guard"):
        running = run_room(endpoint)
        try:
            wait_for(lambda running=running: _has_engine(running), "the engine process", 30.0)
            time.sleep(3.0)
            running.look()
            begin_ns = now_ns()
            if module == "guard":
                running.process.kill()
                running.process.wait()
            else:
                to_child(module, signal.SIGKILL)(running)
                time.sleep(3.0)
                running.end()
            # At a load of 84 a killed engine took the kernel 3 to 4 s; how long it was is in the row.
            left = running.left_behind(10.0)
            memories = len(running.memories)
            row = Row(
                f"SIGKILL of {module}", "what is left of a room's processes and shared memory", "/proc", "nothing",
                ", ".join(left) or f"nothing of {len(running.pids)} processes and {memories} memories",
                (now_ns() - begin_ns) / NS, 10.0, 0.0,
            )  # fmt: skip
            if left or not memories:
                row.faults = (
                    "left behind: " + ", ".join(left) if left else "no memory was found to look for",
                )
            rows.append(row)
        finally:
            running.close()
    return rows


def _has_engine(running: Running) -> bool:
    try:
        return bool(running.child("stream.infer"))
    except (Unready, OSError):
        return False


class JudgeChild:
    """A client in a process of its own that checks every pixel against the number in the header (`pixel_judge.py`)."""

    def __init__(
        self, address: str, name: str, *, memory: bool, pause_ms: float, stops: bool = False
    ) -> None:
        self.name, self.stops = name, stops
        self.process = subprocess.Popen(
            [
                sys.executable,
                str(Path(__file__).with_name("pixel_judge.py")),
                address,
                str(pause_ms),
                *(["--memory"] if memory else []),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )

    def toggle(self, stopped: bool) -> None:
        """Stop it, or let it go on."""
        if self.stops:
            os.kill(self.process.pid, signal.SIGSTOP if stopped else signal.SIGCONT)


class Writer:
    """An unthrottled publisher of frames whose pixels tell their number: live n, synthetic n + 1, attention n."""

    def __init__(self, address: str) -> None:
        self.clock = MonotonicClock()
        self.publisher = Publisher(parse_endpoint(address), self.clock, crc=False)
        self.ring = Ring(FORMAT, 16)
        self.sequence = 0
        self.full = 0

    def send(self) -> None:
        """The next frame, as the guard sends it; one for which there is no slot is counted."""
        slot = self.ring.grant()
        if slot is None:
            self.full += 1
            self.publisher.see_clients()
            time.sleep(0.0005)
            return
        view = self.ring.slots[slot]
        view.live[:] = self.sequence % 4000
        view.synthetic[:] = (self.sequence + 1) % 4000
        view.attention[:] = self.sequence % 251
        self.ring.fill(slot)
        at_ns = self.clock.now_ns()
        out = Outgoing(Grabbed(slot, self.sequence, at_ns, at_ns), None, planes=ALL)
        out.state, out.result = State.SYNTHETIC, Inferred(slot, 1, at_ns, at_ns, True)
        self.publisher.publish(self.ring, out)
        self.ring.release(slot)
        self.sequence += 1


def hundred_thousand(folder: Path, frames: int = FRAMES) -> list[Row]:
    """One picture, one frame: an unthrottled writer, fast, slow and stopped clients, over the wire and in memory."""
    address = f"ipc://{folder}/frames"
    writer = Writer(address)
    clients = [
        JudgeChild(
            address, f"{way}, {pace}", memory=way == "memory", pause_ms=pause_ms, stops=pace == "stopped"
        )
        for way in ("wire", "memory")
        for pace, pause_ms in (("fast", 0.0), ("slow", 20.0), ("stopped", 0.0))
    ]
    try:

        def all_there() -> bool:
            writer.publisher.see_clients()
            return writer.publisher.subscribers == len(clients)

        # On a loaded machine six interpreters take their time: at a load of 84 a minute was not enough.
        wait_for(all_there, "the six clients", 300.0)
        begin = time.monotonic()
        stopped = False
        while writer.sequence < frames:
            writer.send()
            if writer.sequence % 100 == 0:
                writer.publisher.see_clients()
            if (now := (writer.sequence // 2000) % 2 == 1) != stopped:
                stopped = now
                for client in clients:
                    client.toggle(stopped)
        took_s = time.monotonic() - begin
        for client in clients:
            client.toggle(False)
        over = time.monotonic() + 60.0
        while any(client.process.poll() is None for client in clients) and time.monotonic() < over:
            writer.publisher.heartbeat(
                {"state_code": int(State.PASSTHROUGH), "reason_code": 0, "ended": True}
            )
            writer.publisher.see_clients()
            time.sleep(0.02)
        return [_judged(client, frames, took_s, writer) for client in clients]
    finally:
        for client in clients:
            if client.process.poll() is None:
                os.kill(client.process.pid, signal.SIGCONT)
            end(client.process)
            if client.process.stdout is not None:
                client.process.stdout.close()
        writer.publisher.close()
        writer.ring.close()


def _judged(client: JudgeChild, frames: int, took_s: float, writer: Writer) -> Row:
    row = Row(
        f"{frames} frames", f"unthrottled, {frames / took_s:.0f} per second", client.name, "no mixed picture", "-", None, 0.0, None
    )  # fmt: skip
    text = client.process.stdout.read() if client.process.poll() == 0 and client.process.stdout else ""
    if not text:
        row.faults = (f"{client.name}: did not report",)
        return row
    said: dict[str, Any] = json.loads(text)
    row.seen = f"{said['received']} received, {said['mixed']} mixed, {said['overtaken']} overtaken while read"
    row.lost = f"{said['lost']} gaps, counted"
    row.recover_s = 0.0
    faults = []
    if said["mixed"]:
        faults.append(f"{client.name}: {said['mixed']} mixed pictures")
    if said["received"] + said["lost"] != said["span"] or said["refused"]:
        faults.append(
            f"{client.name}: {said['received']} received + {said['lost']} gaps are not {said['span']}"
        )
    if not said["received"]:
        faults.append(f"{client.name}: no frame came")
    row.faults = tuple(faults)
    return row
