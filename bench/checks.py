"""The doctor's checks of what is installed: packages, codecs, engines, extras. Each tries what it speaks of."""

import importlib.util
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

from stream.gpu import GPU_BACKENDS

Verdict = Literal["ok", "MISSING", "absent", "note"]
PACKAGES = ("stream", "engines", "calib", "bench", "casgan")
IMPORT_NAMES = {
    "opencv-python": "cv2",
    "pyzmq": "zmq",
    "pylibjpeg-libjpeg": "libjpeg",
    "pylibjpeg-openjpeg": "openjpeg",
}
"""What a distribution is imported as, where that is not its name with _ for -."""
OPTIONAL = (
    ("onnxruntime", "onnxruntime", "ort", "a second CPU engine"),
    ("torch", "torch", "torch", "the torch engine on NVIDIA GPUs; training and export, with extra train"),
    ("onnx", "onnx", "torch", "reads models for GPU engines; export"),
    ("tensorrt", "tensorrt", "trt", "TensorRT on NVIDIA GPUs; the package is on NVIDIA's index"),
    ("tensorrt_rtx", "tensorrt-rtx-cu13", "trtrtx", "TensorRT-RTX on RTX cards"),
    ("cuda.bindings", "cuda-bindings", "cuda", "CUDA calls"),
    ("pynvml", "nvidia-ml-py", "cuda", "GPU telemetry"),
    ("pycuda", "pycuda", "pycuda", "an adapter for pycuda's streams and buffers"),
)
"""Import name, distribution, extra, what for."""
TRY_S = 60.0
_IMPORT = """
import importlib, json, sys
sys.modules.setdefault("openvino_telemetry", None)
said = {}
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
        said[name] = ""
    except Exception as error:
        said[name] = f"{type(error).__name__}: {error}".splitlines()[0]
print(json.dumps(said))
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


_DRIVER = """
import json
from engines.driver import find_driver
driver, why = find_driver()
if driver is None:
    print(json.dumps({"why": why}))
else:
    print(json.dumps({"cuda": "%d.%d" % driver.cuda, "gpus": [str(gpu) for gpu in driver.gpus]}))
"""
_BUILDER = """
import json
from engines.build import load_builder
from engines.config import BuildConfig
from engines.errors import EngineError
try:
    trt, _, _ = load_builder(BuildConfig())
    print(json.dumps({"builder": f"{trt.__name__} {trt.__version__}"}))
except EngineError as error:
    print(json.dumps({"why": str(error)}))
"""
_TELEMETRY = """
import json
from stream.gpu import read_gpus
print(json.dumps(read_gpus()))
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


def _imported(modules: Sequence[str]) -> dict[str, str]:
    """What the import of each says, "" where it works.

    All are imported in one process. One that fails there is asked again in a process of its own, and so are all where
    that process dies, so that each answers for itself alone.
    """
    works, said = _tried(_IMPORT, *modules)
    answers: dict[str, str] = json.loads(said.splitlines()[-1]) if works else {}
    for module in modules:
        if answers.get(module) != "":
            works, said = _tried(_IMPORT, module)
            answers[module] = json.loads(said.splitlines()[-1])[module] if works else said
    return answers


def check_dependencies() -> Iterator[Row]:
    """Each default dependency, imported beside this process."""
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
    modules = {name: IMPORT_NAMES.get(name, name.replace("-", "_")) for name in names}
    said = _imported(list(modules.values()))
    for name, module in modules.items():
        why = said[module]
        yield Row(
            "install",
            name,
            "MISSING" if why else "ok",
            why or _version(name),
            "" if not why else "run: make demo (it installs the locked dependencies), or pip install -e .",
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
    has_gpu = "why" not in _driver()
    for name in AUTO_ORDER:
        usable, reason = probe(name)
        if not usable:
            said, _, mend = reason.partition("; ")
            if mend and name in GPU_BACKENDS and not has_gpu and not mend.startswith("with a"):
                mend = f"with an NVIDIA GPU: {mend.removeprefix('run: ')}"  # nobody without one should install for it
            rows.append(Row("engines", name, "absent", said, mend or "nothing that helps is known"))
            continue
        works, said = _tried(_INFER, name)
        working += works
        # A probe that says yes and an inference that fails is a fault, not a choice.
        rows.append(
            Row(
                "engines",
                name,
                "ok" if works else "note",
                f"one inference done: {said}" if works else f"usable, but an inference failed: {said}",
                ""
                if works
                else f"run: contrastream replay phantom --engine {name} --frames 30, for the whole reason",
            )
        )
    yield from rows
    found, said = _tried(_BUILDER)
    answer = json.loads(said) if found else {"why": f"the libraries failed: {said}; look at nvidia-smi"}
    why = answer.get("why", "")
    yield Row(
        "engines",
        "plans",
        "absent" if why else "ok",
        why or f"{answer['builder']} builds them here: contrastream build",
        'pip install -e ".[trtrtx]" builds them for RTX cards, and needs no GPU for it' if why else "",
    )
    yield Row(
        "engines",
        "any engine",
        "ok" if working else "MISSING",
        f"{working} of {len(AUTO_ORDER)} work; auto takes the first that does, in this order",
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


def _driver() -> dict[str, Any]:
    """What the driver says of itself: `cuda` and `gpus`, or `why` there is none."""
    found, said = _tried(_DRIVER)
    if not found:
        return {"why": f"the driver's library failed: {said}; look at nvidia-smi"}
    return dict(json.loads(said))


def check_gpu() -> Iterator[Row]:
    """The NVIDIA driver, its GPUs, and whether they tell what they do. Asked in a process of its own."""
    found, said = _tried(_DRIVER)
    answer = (
        json.loads(said) if found else {"why": f"the driver's library failed: {said}; look at nvidia-smi"}
    )
    if why := answer.get("why"):
        text, _, mend = why.partition("; ")
        yield Row("gpu", "NVIDIA driver", "absent", text, mend or "nothing to do: the CPU engines need none")
    else:
        yield Row("gpu", "NVIDIA driver", "ok", f"answers; runs CUDA up to {answer['cuda']}")
        for index, name in enumerate(answer["gpus"]):
            yield Row("gpu", f"GPU {index}", "ok", name)
    found, said = _tried(_TELEMETRY)
    readings, why = json.loads(said) if found else ([], f"NVML failed: {said}; look at nvidia-smi")
    if why:
        text, _, mend = why.partition("; ")
        yield Row("gpu", "telemetry", "absent", text, mend or "nothing that helps is known")
    for reading in readings:
        known = {name: value for name, value in reading.items() if value is not None}
        yield Row(
            "gpu",
            "telemetry",
            "ok",
            f"{known.get('name')}, driver {known.get('driver')}: {known.get('temperature_c', '?')} °C, "
            f"{known.get('power_w', '?')} W, {known.get('sm_mhz', '?')} MHz, {known.get('memory_used_mib', '?')} of "
            f"{known.get('memory_total_mib', '?')} MiB used, clocks held by {', '.join(known.get('throttle', ())) or 'nothing'}",
        )
