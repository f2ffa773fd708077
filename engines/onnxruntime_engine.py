"""The second CPU engine: onnxruntime, whose calls block, behind one worker thread."""

import importlib.util
import queue
import threading
from typing import Any

import numpy as np

from engines.base import BaseEngine, BaseSlot
from engines.engine import BackendName, EngineSpec, Precision
from engines.errors import EngineError, ModelError
from engines.model import STATISTICS, ModelFile
from engines.planes import IoFacts, Settings, check_graph, domain_of

DTYPES = {"tensor(uint8)": "uint8", "tensor(float)": "float32"}


def probe() -> tuple[bool, str]:
    """Whether this backend can run here, and why not."""
    if importlib.util.find_spec("onnxruntime") is None:
        return False, 'onnxruntime is not installed; run: pip install -e ".[ort]"'
    return True, ""


def open_onnxruntime(
    model: ModelFile, spec: EngineSpec, *, threads: int | None = None, precision: Precision | None = None
) -> "OnnxRuntimeEngine":
    """Open a model for one frame size.

    Args:
        model: The file and its card.
        spec: Frame size, bits and slots.
        threads: CPU threads; None for as many as there are cores.
        precision: f32 or None: this backend computes in nothing else.

    Raises:
        ModelError: Not an ONNX file, or another graph than ours.
        EngineError: Another precision was asked for.
    """
    if precision not in (None, "f32"):
        raise EngineError(f"onnxruntime computes in f32 here, got a request for {precision}; use openvino")
    return OnnxRuntimeEngine(model, spec, threads=threads)


class OnnxRuntimeEngine(BaseEngine["OnnxRuntimeSlot"]):
    """One session, one worker, one binding per slot. Implements `engines.engine.Engine`."""

    backend: BackendName = "onnxruntime"
    precision: Precision = "f32"

    def __init__(self, model: ModelFile, spec: EngineSpec, *, threads: int | None) -> None:
        super().__init__(spec, Settings.default(spec, domain_of(model)))
        self.model_sha256 = model.card.sha256
        self.taught = model.card.taught
        self._session = _open_session(model, spec, threads)
        self._slots = [OnnxRuntimeSlot(self, self._session.io_binding()) for _ in range(spec.slots)]
        self._submitted: queue.SimpleQueue[OnnxRuntimeSlot | None] = queue.SimpleQueue()
        self._worker = threading.Thread(target=self._work, name="onnxruntime", daemon=True)
        self._worker.start()

    def _work(self) -> None:
        while (slot := self._submitted.get()) is not None:
            slot.run(self._session)

    def enqueue(self, slot: "OnnxRuntimeSlot") -> None:
        """Run a slot after those submitted before it."""
        self._submitted.put(slot)

    def close(self) -> None:
        self._submitted.put(None)
        self._worker.join()
        self._slots = []
        self._session = None


class OnnxRuntimeSlot(BaseSlot):
    """A binding to the caller's arrays. Implements `engines.engine.Slot`."""

    def __init__(self, engine: OnnxRuntimeEngine, binding: Any) -> None:
        super().__init__(engine.spec, lambda: engine.settings)
        self._engine = engine
        self._binding = binding
        self._settings: Settings | None = None
        self._done = threading.Event()
        self._failure: Exception | None = None
        self._statistics = np.zeros(STATISTICS, np.float32)
        self._set("statistics", self._statistics)

    def _set(self, name: str, array: np.ndarray) -> None:
        bind = (
            self._binding.bind_output
            if name in ("synthetic", "attention", "statistics")
            else self._binding.bind_input
        )
        bind(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _attach(self, planes: dict[str, np.ndarray]) -> None:
        for name, array in planes.items():
            self._set(name, array)

    def _begin(self) -> None:
        settings = self._present()
        if settings is not self._settings:
            for name, array in settings.tensors.items():
                self._set(name, array)
            self._settings = settings
        self._done.clear()
        self._engine.enqueue(self)

    def run(self, session: Any) -> None:
        """Called by the worker: one inference, its failure kept for `wait`."""
        try:
            session.run_with_iobinding(self._binding)
        except Exception as error:  # onnxruntime's errors share no base but Exception
            self._failure = error
        self._done.set()

    def ready(self) -> bool:
        return not self._busy or self._done.is_set()

    def _end(self) -> np.ndarray:
        self._done.wait()
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise EngineError(f"onnxruntime failed on a frame: {failure}; open the engine anew") from failure
        return self._statistics


def _open_session(model: ModelFile, spec: EngineSpec, threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads or 0
    options.inter_op_num_threads = 1
    # Idle workers would burn the core that the frame path needs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    for name, side in (("rows", spec.rows), ("columns", spec.columns), ("bytes", spec.sample_bytes)):
        options.add_free_dimension_override_by_name(name, side)
    try:
        session = onnxruntime.InferenceSession(
            str(model.path), sess_options=options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # onnxruntime's errors share no base but Exception
        reason = str(error).splitlines()[0][:200] if str(error) else type(error).__name__
        raise ModelError(
            f"{model.path.name} must be an ONNX file, but onnxruntime cannot read it: {reason}; export it again"
        ) from error

    def facts(ports: Any) -> IoFacts:
        return {port.name: (DTYPES.get(port.type, port.type), len(port.shape)) for port in ports}

    check_graph(facts(session.get_inputs()), facts(session.get_outputs()), model.path.name)
    return session
