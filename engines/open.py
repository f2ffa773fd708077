"""`open_engine`: a model on the first runtime that is usable here, with the reasons for every one passed over."""

import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Literal

from engines import onnxruntime_engine, openvino_engine, tensorrt_engine, torch_probe
from engines.cuda_calls import CudaCalls
from engines.engine import AUTO_ORDER, BackendName, Engine, EngineSpec, Opened, Precision
from engines.errors import EngineError
from engines.model import OWN, ModelFile
from engines.untaught import find_model

IN_A_CONTEXT: tuple[BackendName, ...] = ("tensorrt", "tensorrt_rtx")
"""The backends that can run in a CUDA context of somebody else's."""


def _open_torch(*arguments: Any, **settings: Any) -> Engine:
    from engines.torch_engine import open_torch  # imports torch

    return open_torch(*arguments, **settings)


PROBES: dict[BackendName, Callable[[], tuple[bool, str]]] = {
    "tensorrt": tensorrt_engine.probe_tensorrt,
    "tensorrt_rtx": tensorrt_engine.probe_tensorrt_rtx,
    "torch": torch_probe.probe_torch,
    "openvino": openvino_engine.probe,
    "onnxruntime": onnxruntime_engine.probe,
}
LOADERS: dict[BackendName, Callable[[], object]] = {
    "tensorrt": lambda: tensorrt_engine.load_tensorrt("tensorrt"),
    "tensorrt_rtx": lambda: tensorrt_engine.load_tensorrt("tensorrt_rtx"),
    "torch": lambda: importlib.import_module("engines.torch_engine"),
    "openvino": openvino_engine.load_openvino,
    "onnxruntime": lambda: importlib.import_module("onnxruntime"),
}
OPENERS: dict[BackendName, Callable[..., Engine]] = {
    "tensorrt": partial(tensorrt_engine.open_tensorrt, module="tensorrt"),
    "tensorrt_rtx": partial(tensorrt_engine.open_tensorrt, module="tensorrt_rtx"),
    "torch": _open_torch,
    "openvino": openvino_engine.open_openvino,
    "onnxruntime": onnxruntime_engine.open_onnxruntime,
}


def probe(backend: BackendName) -> tuple[bool, str]:
    """Whether a backend can run here; the reason where it cannot."""
    return PROBES[backend]()


def load_runtime(backend: BackendName | Literal["auto"]) -> None:
    """Import the runtime that `open_engine` will take, which is most of the time a start takes."""
    for name in AUTO_ORDER:
        if backend in ("auto", name) and probe(name)[0]:
            LOADERS[name]()
            return


def open_engine(
    model: str | Path | ModelFile,
    spec: EngineSpec,
    backend: BackendName | Literal["auto"] | str = "auto",  # checked here: it comes from the command line
    *,
    untaught: bool = False,
    threads: int | None = None,
    precision: Precision | None = None,
    cuda: CudaCalls | tensorrt_engine.CudaName | None = None,
    int8_frames_sha256: str = "",
) -> Opened:
    """Open a model.

    Args:
        model: A shipped model's name, the path of an ONNX file with its sidecar beside it, or, with `untaught`, a
            preset's name; or a model that was found and checked before.
        spec: Frame size, bits and slots.
        backend: `auto` takes the first usable of `AUTO_ORDER`; a name is taken at its word, never replaced.
        untaught: Take a model with random weights too; it never streams as SYNTHETIC.
        threads: CPU threads; None for as many as there are cores.
        precision: What the convolutions are computed in; None for what suits this machine.
        cuda: `pycuda` to run in the pycuda context that is current, or calls on a context of the caller's, as
            `engines.tensorrt_engine.choose_cuda` takes them; only for TensorRT. None where that is all the same.
        int8_frames_sha256: For precision int8, which only OpenVINO has: the hash of the frames it was calibrated on.

    Raises:
        ModelError: The model is missing, broken, of another kind, or untaught.
        EngineError: No backend can run here, or the named one cannot.
        ValueError: No such backend.
    """
    if backend != "auto" and backend not in AUTO_ORDER:
        raise ValueError(f"backend must be auto or one of {', '.join(AUTO_ORDER)}, got {backend!r}")
    file = model if isinstance(model, ModelFile) else find_model(model, untaught=untaught)
    skipped: list[tuple[BackendName, str]] = []
    for name in AUTO_ORDER if backend == "auto" else [known for known in AUTO_ORDER if known == backend]:
        if (precision == "int8" or int8_frames_sha256) and name != "openvino":
            usable, reason = False, "it has no int8 of a site's own frames; only openvino has"
        elif name == "torch" and file.card.preset == OWN:
            usable, reason = False, "it builds the network from its preset, and this is a network of your own"
        elif cuda is not None and name not in IN_A_CONTEXT:
            usable, reason = False, "it does not run in a given CUDA context; leave cuda out"
        else:
            usable, reason = probe(name)
        if usable:
            given: dict[str, Any] = {} if cuda is None else {"cuda": cuda}
            if int8_frames_sha256:
                given["int8_frames_sha256"] = int8_frames_sha256
            engine = OPENERS[name](file, spec, threads=threads, precision=precision, **given)
            return Opened(engine, tuple(skipped))
        skipped.append((name, reason))
    if backend != "auto":
        raise EngineError(f"needed the backend {backend}: {skipped[0][1]}")
    reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped)
    raise EngineError(f"needed one usable backend, found none: {reasons}")
