"""The doctor's checks of the host: display, sockets and memory, clock and cores. Each tries what it speaks of."""

import os
import resource
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

from bench.checks import Row
from bench.machine import memory_bytes, steal_ms

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "xdg-open")
DEFAULT_RING = (512, 512, 16)
ENDPOINT_MS = 3000
WEB_PORT = 8765


def check_display() -> Iterator[Row]:
    """A window and a browser."""
    from stream.display.window import check_display as try_window
    from stream.errors import DisplayError

    try:
        try_window()
        yield Row("display", "desktop window", "ok", f"DISPLAY {os.environ.get('DISPLAY', '')} answers")
    except DisplayError as error:
        yield Row(
            "display",
            "desktop window",
            "absent",
            str(error).partition(";")[0],
            "use the web viewer (contrastream view --web), or start it in a desktop session",
        )
    browsers = [name for name in BROWSERS if shutil.which(name)]
    yield Row(
        "display",
        "browser",
        "ok" if browsers else "absent",
        ", ".join(browsers) or f"none of {', '.join(BROWSERS)} on the PATH",
        "" if browsers else "install one, or open the viewer's address from one on this host",
    )
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", WEB_PORT))
            yield Row("display", f"port {WEB_PORT}", "ok", "free for the web viewer")
        except OSError as error:
            yield Row(
                "display",
                f"port {WEB_PORT}",
                "note",
                f"{error.strerror}",
                "a viewer may be running already; choose another with --port",
            )


def check_transport() -> Iterator[Row]:
    """The socket folder, an address in it with a message through it, and room for the ring."""
    from stream.endpoint import MAX_IPC_PATH, parse_endpoint, runtime_folder
    from stream.errors import EndpointError
    from stream.frame import FrameFormat
    from stream.ring import RingMemory

    try:
        folder = runtime_folder()
        mode = stat.S_IMODE(folder.lstat().st_mode)
        yield Row("transport", "socket folder", "ok", f"{folder}, mode {mode:04o}")
        endpoint = parse_endpoint(f"doctor-{os.getpid()}-{secrets.token_hex(4)}")
    except (EndpointError, OSError) as error:
        said, _, mend = str(error).partition("; ")
        yield Row(
            "transport",
            "socket folder",
            "MISSING",
            said,
            mend or "name another with XDG_RUNTIME_DIR, a short path that is yours",
        )
    else:
        length = len(os.fsencode(endpoint.text.removeprefix("ipc://")))
        works, said = _through(endpoint.frames)
        yield Row(
            "transport",
            "ipc sockets",
            "ok" if works else "MISSING",
            f"{said}; a path of {length} bytes of at most {MAX_IPC_PATH}",
            ""
            if works
            else "check that the socket folder is on a local file system, or use tcp://127.0.0.1:5555",
        )
    rows, columns, slots = DEFAULT_RING
    _, available = memory_bytes()
    try:
        memory = RingMemory.create(FrameFormat(rows, columns, 16), slots)
        size = memory.layout.size * slots
        memory.close()
        yield Row(
            "transport",
            "shared memory",
            "ok",
            f"a ring of {size / 2**20:.0f} MiB was made; {available / 2**30:.1f} GiB of memory left",
        )
    except OSError as error:
        yield Row(
            "transport",
            "shared memory",
            "MISSING",
            f"a ring for {rows}x{columns} cannot be made: {error.strerror}",
            "free some memory, or raise the container's memory limit",
        )


def _through(address: str) -> tuple[bool, str]:
    """Send one message through a PUB and a SUB socket at an address."""
    import zmq

    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    try:
        sender, receiver = context.socket(zmq.XPUB), context.socket(zmq.SUB)
        sender.bind(address)
        receiver.setsockopt(zmq.SUBSCRIBE, b"")
        receiver.connect(address)
        if not sender.poll(ENDPOINT_MS):
            return False, "a subscriber could not connect"
        sender.recv()
        sender.send(b"hello")
        return (True, "a message came through") if receiver.poll(ENDPOINT_MS) else (False, "no message came")
    except zmq.ZMQError as error:
        return False, f"{address}: {error.strerror}"
    finally:
        context.destroy(linger=0)
        Path(address.removeprefix("ipc://")).unlink(missing_ok=True)


def check_timing() -> Iterator[Row]:
    """The clock, how punctual this machine wakes, and what its host takes away."""
    resolution_ns = time.clock_getres(time.CLOCK_MONOTONIC) * 1e9
    yield Row(
        "timing",
        "clock",
        "ok" if resolution_ns <= 1e6 else "note",
        f"CLOCK_MONOTONIC in steps of {resolution_ns:g} ns",
        ""
        if resolution_ns <= 1e6
        else "latencies are no finer than that; use a kernel with high-resolution timers",
    )
    stolen_before, start_ns = steal_ms(), time.monotonic_ns()
    late_ms = []
    while time.monotonic_ns() - start_ns < 1e9:
        before_ns = time.monotonic_ns()
        time.sleep(0.002)
        late_ms.append((time.monotonic_ns() - before_ns) / 1e6 - 2.0)
    steal_after = steal_ms()
    typical, worst = median(late_ms), max(late_ms)
    yield Row(
        "timing",
        "wake-ups",
        "ok" if worst < 5.0 else "note",
        f"{len(late_ms)} sleeps of 2 ms in 1 s: late by {typical:.2f} ms typically, {worst:.1f} ms at worst",
        "" if worst < 5.0 else "something else uses the cores, or the host stalls; stop what need not run",
    )
    if stolen_before is None or steal_after is None:
        yield Row("timing", "steal", "note", "the kernel does not count it", "compare within one run only")
    else:
        share = (steal_after - stolen_before) / (1000.0 * (os.cpu_count() or 1))
        yield Row(
            "timing",
            "steal",
            "ok" if share < 0.02 else "note",
            f"the host took {100 * share:.1f} % of the cores in 1 s",
            ""
            if share < 0.02
            else "this is a shared virtual machine: expect stalls, measure on dedicated cores",
        )
    soft, _hard = resource.getrlimit(resource.RLIMIT_RTPRIO)
    allowed = soft > 0 or os.geteuid() == 0
    yield Row(
        "timing",
        "real-time priority",
        "ok" if allowed else "note",
        "allowed; this version does not use it"
        if allowed
        else "not allowed (ulimit -r is 0); this version does not use it",
        "" if allowed else "nothing to do now; later: rtprio in /etc/security/limits.conf",
    )
    cores = len(os.sched_getaffinity(0))
    yield Row(
        "timing",
        "cores",
        "ok" if cores >= 2 else "note",
        f"{cores} for this process",
        "" if cores >= 2 else "the engine and the display share one core; give it two",
    )
