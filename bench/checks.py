"""The checks behind `contrastream doctor`, one function per thing that can be missing; each tries what it speaks of."""

import importlib.util
import os
import re
import resource
import secrets
import shutil
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Literal

from bench.machine import memory_bytes, steal_ms

Verdict = Literal["ok", "MISSING", "absent", "note"]
PACKAGES = ("stream", "engines", "calib", "bench", "casgan")
IMPORT_NAMES = {
    "opencv-python": "cv2",
    "pyzmq": "zmq",
    "pylibjpeg-libjpeg": "libjpeg",
    "pylibjpeg-openjpeg": "openjpeg",
}
"""What a distribution is imported as, where that is not its name."""
OPTIONAL = (
    ("onnxruntime", "onnxruntime", "ort", "a second CPU engine"),
    ("torch", "torch", "train", "training and export; as a runtime: extra torch"),
    ("onnx", "onnx", "train", "export"),
    ("tensorrt", "tensorrt", "trt", "TensorRT on NVIDIA GPUs; the package is on NVIDIA's index"),
    ("tensorrt_rtx", "tensorrt-rtx-cu13", "trtrtx", "TensorRT-RTX on RTX cards"),
    ("cuda.bindings", "cuda-bindings", "cuda", "CUDA calls"),
    ("pynvml", "nvidia-ml-py", "cuda", "GPU telemetry"),
    ("pycuda", "pycuda", "pycuda", "an adapter for pycuda's streams and buffers"),
)
"""Import name, distribution, extra, what for."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "xdg-open")
DEFAULT_RING = (512, 512, 16)
TRY_S = 60.0
ENDPOINT_MS = 3000
WEB_PORT = 8765

_IMPORT = """
import importlib, sys
sys.modules.setdefault("openvino_telemetry", None)
importlib.import_module(sys.argv[1])
"""
_INFER = """
import sys
import numpy as np
from engines.engine import EngineSpec
from engines.open import open_engine
opened = open_engine("compact", EngineSpec(64, 64, slots=1), backend=sys.argv[1], untaught=True)
live = np.full((64, 64), 128, np.uint8)
planes = np.zeros_like(live), np.zeros_like(live)
slot = opened.engine.slots(1)[0]
slot.bind(live, *planes)
slot.submit()
said = slot.wait()
same = bool((planes[0][planes[1] == 0] == 128).all())
taught = "taught" if opened.engine.taught else "UNTAUGHT, never shown as synthetic"
opened.engine.close()
print(opened.engine.precision, "model", opened.engine.model_sha256[:8], taught)
sys.exit(0 if said.finite and same else "the inference gave a wrong output")
"""


@dataclass(frozen=True)
class Row:
    """One line of the doctor's table."""

    group: str
    name: str
    verdict: Verdict
    """ok; MISSING: the default path needs it; absent: something optional; note: to know."""
    found: str
    mend: str = ""
    """What to do, for everything that is not ok."""


def _tried(code: str, *arguments: str) -> tuple[bool, str]:
    """Run Python code in a process of its own, which may crash in our place: whether it worked, and what it said."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, timeout=TRY_S
        )
    except subprocess.TimeoutExpired:
        return False, f"no answer within {TRY_S:.0f} s"
    if done.returncode == 0:
        return True, done.stdout.strip()
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return False, lines[-1].strip() if lines else f"exit status {done.returncode}"


def _version(distribution: str) -> str:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return "version unknown"


def check_python() -> Iterator[Row]:
    """The interpreter and the five packages."""
    found = ".".join(map(str, sys.version_info[:3]))
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Row(
        "install",
        "Python",
        "ok" if fits else "MISSING",
        found,
        "" if fits else "use Python 3.11 to 3.13: make PYTHON=python3.12 demo",
    )
    places = {}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        places[name] = None if spec is None or spec.origin is None else Path(spec.origin).parents[1]
    home = Path(__file__).resolve().parents[1]
    strangers = [
        f"{name} from {place}" if place else f"{name} not found"
        for name, place in places.items()
        if place is None or place.resolve() != home
    ]
    yield Row(
        "install",
        "five packages",
        "MISSING" if strangers else "ok",
        "; ".join(strangers) or f"all of {home}",
        "other projects use these names too: install contrastream into an environment of its own"
        if strangers
        else "",
    )


def default_requirements() -> list[str]:
    """Distributions that the default install needs, as its own metadata lists them."""
    return [
        match[0]
        for line in metadata.requires("contrastream") or []
        if "extra ==" not in line and (match := re.match(r"[A-Za-z0-9_.-]+", line))
    ]


def check_dependencies() -> Iterator[Row]:
    """Each default dependency, imported in a process of its own."""
    try:
        names = default_requirements()
    except metadata.PackageNotFoundError:
        yield Row(
            "install",
            "contrastream",
            "MISSING",
            "not installed, only imported from a folder",
            "run: pip install -e .",
        )
        return
    for name in names:
        works, said = _tried(_IMPORT, IMPORT_NAMES.get(name, name))
        yield Row(
            "install",
            name,
            "ok" if works else "MISSING",
            _version(name) if works else said,
            "" if works else "run: make demo (it installs the locked dependencies), or pip install -e .",
        )


def check_codecs() -> Iterator[Row]:
    """The transfer syntaxes of XA cine loops that can be decoded here."""
    try:
        from pydicom.pixels import get_decoder
        from pydicom.uid import (
            JPEG2000,
            UID,
            JPEG2000Lossless,
            JPEGBaseline8Bit,
            JPEGExtended12Bit,
            JPEGLossless,
            JPEGLosslessSV1,
            JPEGLSLossless,
            RLELossless,
        )
    except ImportError as error:
        yield Row(
            "sources", "DICOM", "MISSING", f"pydicom cannot be imported: {error}", "run: pip install -e ."
        )
        return
    lacking = []
    syntaxes: tuple[UID, ...] = (
        JPEGBaseline8Bit,
        JPEGExtended12Bit,
        JPEGLossless,
        JPEGLosslessSV1,
        JPEGLSLossless,
        JPEG2000Lossless,
        JPEG2000,
        RLELossless,
    )
    for syntax in syntaxes:
        if not get_decoder(syntax).is_available:
            lacking.append(syntax.name)
    yield Row(
        "sources",
        "DICOM codecs",
        "MISSING" if lacking else "ok",
        f"no decoder for {'; '.join(lacking)}"
        if lacking
        else f"uncompressed and {len(syntaxes)} compressed transfer syntaxes",
        "run: pip install pylibjpeg pylibjpeg-libjpeg pylibjpeg-openjpeg" if lacking else "",
    )


def check_devices() -> Iterator[Row]:
    """Capture cards that are there and may be opened."""
    nodes = sorted(Path("/dev").glob("video*"))
    if not nodes:
        yield Row(
            "sources",
            "capture devices",
            "absent",
            "no /dev/video*",
            "plug in a V4L2 card and load its driver; recordings and the phantom need none",
        )
    for node in nodes:
        allowed = os.access(node, os.R_OK | os.W_OK)
        yield Row(
            "sources",
            str(node),
            "ok" if allowed else "absent",
            "may be opened (not tried)" if allowed else "there, but not readable and writable for this user",
            "" if allowed else "run: sudo usermod -aG video $USER, then log in again",
        )


def check_engines() -> Iterator[Row]:
    """One inference of the shipped model on each backend that is usable."""
    from engines.engine import AUTO_ORDER
    from engines.open import probe

    working = 0
    rows = []
    for name in AUTO_ORDER:
        usable, reason = probe(name)
        works, said = _tried(_INFER, name) if usable else (False, reason)
        working += works
        rows.append(
            Row(
                "engines",
                name,
                "ok" if works else "absent",
                f"one inference done: {said}" if works else said,
                "" if works else "nothing to do while another engine works; extras are below",
            )
        )
    yield from rows
    yield Row(
        "engines",
        "any engine",
        "ok" if working else "MISSING",
        f"{working} of {len(AUTO_ORDER)} work",
        ""
        if working
        else "run: pip install openvino; without an engine there is --engine off, live pictures only",
    )


def check_optional() -> Iterator[Row]:
    """What the extras hold. Found, not tried: importing torch alone takes seconds."""
    for module, distribution, extra, purpose in OPTIONAL:
        try:
            found = importlib.util.find_spec(module) is not None
        except ModuleNotFoundError:
            found = False
        yield Row(
            "extras",
            module,
            "ok" if found else "absent",
            f"{_version(distribution)}, installed (not tried): {purpose}" if found else purpose,
            "" if found else f'extra {extra}: pip install -e ".[{extra}]"',
        )
    driver = Path("/proc/driver/nvidia/version").exists()
    yield Row(
        "extras",
        "NVIDIA driver",
        "ok" if driver else "absent",
        "loaded" if driver else "no /proc/driver/nvidia/version",
        "" if driver else "a GPU and its driver; everything works on the CPU without",
    )


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
