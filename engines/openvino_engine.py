"""The CPU engine: OpenVINO with asynchronous requests that read and write the caller's memory."""

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np

from engines.base import BaseEngine, BaseSlot
from engines.cache_folder import cache_folder
from engines.engine import BackendName, EngineSpec, Precision
from engines.errors import EngineError, ModelError
from engines.int8 import int8_key, read_int8
from engines.model import STATISTICS, ModelFile
from engines.planes import IoFacts, Settings, check_graph, domain_of, unlocked

LOST = "compiled models are not kept, so every start compiles anew"
DTYPES = {"u8": "uint8", "f32": "float32"}


def probe() -> tuple[bool, str]:
    """Whether this backend can run here, and why not."""
    if importlib.util.find_spec("openvino") is None:
        return False, "openvino is not installed; run: pip install openvino"
    return True, ""


def default_precision(cpuinfo: Path = Path("/proc/cpuinfo")) -> Precision:
    """bf16 where the CPU multiplies it in hardware, else f32.

    OpenVINO also takes the bf16 hint on CPUs that must emulate it, and is then slower than with f32.
    """
    try:
        flags = next((line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")), "")
    except OSError:
        return "f32"
    return "bf16" if {"amx_bf16", "avx512_bf16"} & set(flags.split()) else "f32"


def load_openvino() -> Any:
    """The openvino module, imported late and without its telemetry."""
    # Importing openvino reports its use to Google Analytics unless this package is absent; a hospital's
    # workstation reports nothing to anybody.
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def open_openvino(
    model: ModelFile,
    spec: EngineSpec,
    *,
    threads: int | None = None,
    precision: Precision | None = None,
    int8_frames_sha256: str = "",
) -> "OpenVinoEngine":
    """Open a model for one frame size.

    Args:
        model: The file and its card.
        spec: Frame size, bits and slots.
        threads: CPU threads; None for as many as there are cores.
        precision: What the convolutions are computed in; None for what suits this CPU. int8 is the model that
            `engines.quantize.obtain_int8` made of a site's frames; what is not quantised is computed in what suits the CPU.
        int8_frames_sha256: Which frames; needed for int8, and for nothing else.

    Raises:
        ModelError: Not an ONNX file, or another graph than ours.
        EngineError: OpenVINO cannot compile it, or there is no int8 model of those frames.
    """
    if (precision == "int8") != bool(int8_frames_sha256):
        raise EngineError(
            "int8 is calibrated on a site's own frames, so precision int8 and the hash of those frames go together, got "
            f"{precision or 'no precision'} and {int8_frames_sha256 or 'no hash'}; run: contrastream calib precision, and "
            "name its record with --site"
        )
    precision = precision or default_precision()
    return OpenVinoEngine(
        model, spec, threads=threads, precision=precision, int8_frames_sha256=int8_frames_sha256
    )


class OpenVinoEngine(BaseEngine["OpenVinoSlot"]):
    """One compiled graph, one asynchronous request per slot. Implements `engines.engine.Engine`."""

    backend: BackendName = "openvino"

    def __init__(
        self,
        model: ModelFile,
        spec: EngineSpec,
        *,
        threads: int | None,
        precision: Precision,
        int8_frames_sha256: str = "",
    ) -> None:
        ov = load_openvino()
        super().__init__(spec, Settings.default(spec, domain_of(model)))
        self.precision = precision
        self.model_sha256 = model.card.sha256
        self.taught = model.card.taught
        core = ov.Core()
        graph = read_graph(core, model)
        if precision == "int8":
            kept = read_int8(int8_key(model.card.sha256, ov.__version__, int8_frames_sha256))
            graph = core.read_model(kept.xml, kept.weights)
        properties: dict[str, Any] = {
            # One stream: requests queue and finish in the order of their submission.
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": default_precision() if precision == "int8" else precision,
            # Pinned threads were 1.13x slower on two shared cores.
            "ENABLE_CPU_PINNING": False,
        }
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        folder = cache_folder("openvino", LOST) if model.kept else model.cache
        if folder is not None:
            properties["CACHE_DIR"] = str(folder)
        try:
            graph.reshape(
                {"live": [spec.rows, spec.columns, spec.sample_bytes], "field": [spec.rows, spec.columns]}
            )
            self._compiled = core.compile_model(graph, "CPU", properties)
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO cannot compile {model.path.name} for {spec.rows}x{spec.columns}: "
                f"{_last_line(error)}; try backend onnxruntime"
            ) from error
        self._slots = [
            OpenVinoSlot(self, self._compiled.create_infer_request(), ov.Tensor) for _ in range(spec.slots)
        ]

    def close(self) -> None:
        for slot in self._slots:
            slot.close()
        self._slots = []
        self._compiled = None


class OpenVinoSlot(BaseSlot):
    """An asynchronous request whose tensors are the caller's arrays. Implements `engines.engine.Slot`."""

    def __init__(self, engine: OpenVinoEngine, request: Any, tensor: Any) -> None:
        super().__init__(engine.spec, lambda: engine.settings)
        self._request = request
        self._tensor = tensor
        self._settings: Settings | None = None
        self._statistics = np.zeros(STATISTICS, np.float32)
        self._set("statistics", self._statistics)

    def _set(self, name: str, array: np.ndarray) -> None:
        if array.flags.writeable:
            tensor = self._tensor(array, shared_memory=True)
        else:
            # Only a writable array may be shared as a tensor; the graph does not write its inputs.
            tensor = self._tensor(unlocked(array), shared_memory=True)
        self._request.set_tensor(name, tensor)

    def _attach(self, planes: dict[str, np.ndarray]) -> None:
        for name, array in planes.items():
            self._set(name, array)

    def _begin(self) -> None:
        settings = self._present()
        if settings is not self._settings:
            for name, array in settings.tensors.items():
                self._set(name, array)
            self._settings = settings
        self._request.start_async()

    def ready(self) -> bool:
        return not self._busy or bool(self._request.wait_for(0))

    def _end(self) -> np.ndarray:
        try:
            self._request.wait()
        except RuntimeError as error:
            raise EngineError(
                f"OpenVINO failed on a frame: {_last_line(error)}; open the engine anew"
            ) from error
        return self._statistics

    def close(self) -> None:
        if self._busy:
            self._request.wait()
            self._busy = False
        self._bound = {}
        self._request = None


def read_graph(core: Any, model: ModelFile) -> Any:
    """OpenVINO's form of the source, checked to be our graph.

    Raises:
        ModelError: Not an ONNX file, or another graph than ours.
    """
    try:
        graph = core.read_model(str(model.path))
    except RuntimeError as error:
        raise ModelError(
            f"{model.path.name} must be an ONNX file, but OpenVINO cannot read it: {_last_line(error)}; "
            f"export it again"
        ) from error

    def facts(ports: Any) -> IoFacts:
        return {
            port.get_any_name(): (
                DTYPES.get(port.get_element_type().get_type_name(), port.get_element_type().get_type_name()),
                port.get_partial_shape().rank.get_length(),
            )
            for port in ports
        }

    check_graph(facts(graph.inputs), facts(graph.outputs), model.path.name)
    return graph


def _last_line(error: Exception) -> str:
    """OpenVINO's messages span many lines and name its source files; the last line holds the reason."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
