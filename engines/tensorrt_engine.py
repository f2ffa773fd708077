"""TensorRT and TensorRT-RTX: one engine for both, since their modules share nearly all names.

What differs: TensorRT-RTX makes its CUDA graphs by itself and compiles kernels on the GPU at the first start, which
its runtime cache keeps; it runs on the GPUs that it lists and on no other. TensorRT's plans are of one GPU.
"""

import importlib
import importlib.util
import logging
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, get_args

import numpy as np

from calib.domain import Domain
from engines.cuda import open_cuda, probe_cuda
from engines.cuda_calls import CudaCalls, Device
from engines.cuda_slots import CudaSlot, CudaSlots
from engines.engine import BackendName, EngineSpec, Precision
from engines.errors import EngineError, ModelError
from engines.model import INPUTS, OUTPUTS, ModelFile
from engines.obtain import obtain_plan, target_of
from engines.plan_cache import CachedPlan, forget_plan, read_blob, write_blob
from engines.plan_facts import PlanPrecision
from engines.planes import IoFacts, check_graph, domain_of
from engines.tensorrt_log import (
    LogLine,
    failure_of,
    gather_lines,
    is_out_of_memory,
    reason_of,
    tensorrt_logger,
)

log = logging.getLogger(__name__)

Library = Literal["tensorrt", "tensorrt_rtx"]
CudaName = Literal["cuda", "pycuda"]
EXTRAS: dict[Library, str] = {"tensorrt": "trt", "tensorrt_rtx": "trtrtx"}
OLDEST: dict[Library, tuple[int, int]] = {"tensorrt": (10, 16), "tensorrt_rtx": (1, 7)}
DTYPES = {"UINT8": "uint8", "FLOAT": "float32"}
PRECISIONS: tuple[PlanPrecision, ...] = get_args(PlanPrecision)


def probe_tensorrt() -> tuple[bool, str]:
    """Whether TensorRT can run here, and why not."""
    return _probe("tensorrt")


def probe_tensorrt_rtx() -> tuple[bool, str]:
    """Whether TensorRT-RTX can run here, and why not."""
    return _probe("tensorrt_rtx")


def _probe(library: Library) -> tuple[bool, str]:
    if importlib.util.find_spec(library) is None:
        return False, f'{library} is not installed; run: pip install -e ".[{EXTRAS[library]}]"'
    device, reason = probe_cuda()
    if device is None:
        return False, reason
    try:
        trt = load_tensorrt(library)
    except EngineError as error:
        return False, str(error)
    reason = refusal(trt, device)
    return not reason, reason


def load_tensorrt(library: Library) -> ModuleType:
    """Import a library.

    Raises:
        EngineError: It is missing, broken, or too old.
    """
    extra = f'run: pip install -e ".[{EXTRAS[library]}]"'
    try:
        trt = importlib.import_module(library)
    except (ImportError, OSError, RuntimeError) as error:
        raise EngineError(f"{library} cannot be imported: {error}; {extra}") from error
    major, minor = OLDEST[library]
    found = tuple(int(part) for part in str(trt.__version__).split(".")[:2])
    if found < (major, minor):
        raise EngineError(f"needed {library} {major}.{minor} or later, got {trt.__version__}; {extra}")
    return trt


def refusal(trt: ModuleType, device: Device) -> str:
    """Why a library does not run on a GPU; empty where it may.

    Args:
        trt: The module.
        device: The GPU.
    """
    # TensorRT's own list is long and nowhere to be asked for; it says so itself when a plan is built.
    listed = [name for name in getattr(trt, "ComputeCapability", EveryGpu).__members__ if name[:2] == "SM"]
    if not listed or f"SM{device.sm}" in listed:
        return ""
    known = ", ".join(name.removeprefix("SM") for name in listed)
    return (
        f"{trt.__name__} runs on the compute capabilities {known}, this GPU is a {device.name} of {device.sm}; "
        f'use full TensorRT (pip install -e ".[trt]") or the backend torch'
    )


class EveryGpu:
    """Stands for the list of GPUs of a library that has none."""

    __members__: Mapping[str, int] = {}


def choose_cuda(cuda: CudaCalls | CudaName | None) -> CudaCalls:
    """CUDA calls by name.

    Args:
        cuda: `cuda` or None for cuda-bindings on the first GPU, `pycuda` for the pycuda context that is current in
            this thread, or calls that are open already, such as `PyCuda(pycuda.driver, context)`.

    Raises:
        EngineError: The package is missing, there is no driver, or no context.
    """
    if cuda is None or cuda == "cuda":
        return open_cuda()
    if cuda != "pycuda":
        return cuda
    from engines.pycuda_calls import PyCuda, load_driver

    driver = load_driver()
    # pycuda does all but page-lock the ring; cuda-bindings does that where it is installed.
    registrar = open_cuda() if importlib.util.find_spec("cuda") is not None else None
    return PyCuda(driver, registrar=registrar)


def open_tensorrt(
    model: ModelFile,
    spec: EngineSpec,
    *,
    module: ModuleType | Library = "tensorrt",
    threads: int | None = None,
    precision: Precision | None = None,
    cuda: CudaCalls | CudaName | None = None,
    timed: bool = False,
) -> "TensorRtEngine":
    """Open a model for one frame size; builds its plan where none is kept, which takes seconds to minutes.

    Args:
        model: The source and its card.
        spec: Frame size, bits and slots.
        module: `tensorrt` or `tensorrt_rtx`, by name or imported.
        threads: Of no use on a GPU.
        precision: f16 or f32; None for f16.
        cuda: As `choose_cuda` takes it.
        timed: As `engines.cuda_slots.CudaSlots` takes it.

    Raises:
        ModelError: The model is not our graph, or a weight does not fit the precision.
        EngineError: The GPU, its memory or the library refuses.
    """
    if precision not in (None, *PRECISIONS):
        raise EngineError(
            f"TensorRT computes in {' or '.join(PRECISIONS)} here, got a request for {precision}; leave it out"
        )
    trt = load_tensorrt(module) if isinstance(module, str) else module
    calls = choose_cuda(cuda)
    with calls.current():
        return TensorRtEngine(trt, calls, model, spec, "f32" if precision == "f32" else "f16", timed)


class TensorRtEngine:
    """One plan, one execution context per slot. Implements `engines.engine.Engine`.

    Args:
        trt: The module `tensorrt` or `tensorrt_rtx`.
        calls: CUDA.
        model: The source and its card.
        spec: Frame size, bits and slots.
        precision: Of the network's convolutions.
        timed: As `engines.cuda_slots.CudaSlots` takes it.
    """

    def __init__(
        self,
        trt: ModuleType,
        calls: CudaCalls,
        model: ModelFile,
        spec: EngineSpec,
        precision: PlanPrecision,
        timed: bool,
    ) -> None:
        self.spec = spec
        self.backend: BackendName = "tensorrt_rtx" if is_rtx(trt) else "tensorrt"
        self.precision: Precision = precision
        self.model_sha256 = model.card.sha256
        self.taught = model.card.taught
        domain = domain_of(model)
        device = calls.device()
        self.gpu_bus_id: str | None = device.bus_id or None
        """Which GPU it runs on, for telemetry: its place on the PCI bus."""
        self._runtime = make_runtime(trt)
        self._engine, kept = load_plan(trt, self._runtime, model, spec, precision, device)
        check_engine(self._engine, spec, model.path.name)
        contexts = Contexts(trt, self._engine, kept, device)
        free_before, _ = calls.memory_info()
        self._machine = CudaSlots(calls, spec, contexts.open, graphs=not is_rtx(trt), timed=timed)
        self.set_domain(domain)
        free, total = calls.memory_info()
        if model.kept:
            contexts.keep_runtime_cache()
        log.info(
            "%s on %s: %d slots take %.0f MB, %.0f of %.0f MB are free",
            trt.__name__,
            device.name,
            spec.slots,
            (free_before - free) / 1e6,
            free / 1e6,
            total / 1e6,
        )

    def slots(self, count: int) -> Sequence[CudaSlot]:
        return self._machine.slots(count)

    def set_grey_table(self, table: np.ndarray, inverse: np.ndarray) -> None:
        self._machine.set_grey_table(table, inverse)

    def set_field(self, field: np.ndarray | None) -> None:
        self._machine.set_field(field)

    @property
    def domain(self) -> Domain | None:
        return self._machine.domain

    def set_domain(self, domain: Domain | None) -> None:
        self._machine.set_domain(domain)

    def close(self) -> None:
        self._machine.close()
        # The contexts went with the slots; only then the engine, and the runtime last.
        self._engine = None
        self._runtime = None


def is_rtx(trt: ModuleType) -> bool:
    """Whether a module is TensorRT-RTX; known by what it alone has."""
    return hasattr(trt, "CudaGraphStrategy")


def make_runtime(trt: ModuleType) -> Any:
    """The library's `Runtime`, which reads plans.

    Raises:
        EngineError: The library refuses.
    """
    with gather_lines() as lines:
        try:
            return trt.Runtime(tensorrt_logger(trt))
        except (TypeError, RuntimeError) as error:  # the factory returned null
            raise failure_of(
                lines, f"{trt.__name__} cannot start", call="Runtime", advice="see contrastream doctor"
            ) from error


def load_plan(
    trt: ModuleType,
    runtime: Any,
    model: ModelFile,
    spec: EngineSpec,
    precision: PlanPrecision,
    device: Device,
) -> tuple[Any, CachedPlan]:
    """The model's plan as an `ICudaEngine`; one from the cache that the library refuses is built anew, once.

    Raises:
        CudaOutOfMemory: The GPU is full; the plan is kept for the next try.
        EngineError: It cannot be built, or the library refuses what it has built.
    """
    target = target_of(trt, device)
    kept = obtain_plan(trt, model, spec, precision, target)
    engine, lines = deserialize(runtime, kept.plan)
    if engine is None and not kept.why_built and not is_out_of_memory(lines):
        forget_plan(kept.facts.key, reason_of(lines))
        kept = obtain_plan(trt, model, spec, precision, target)
        engine, lines = deserialize(runtime, kept.plan)
    if engine is None:
        raise failure_of(
            lines,
            f"{trt.__name__} {trt.__version__} refuses the plan of {model.path.name} for "
            f"{spec.rows}x{spec.columns} on {device.name}",
            call="deserialize_cuda_engine",
            advice="use another backend, see contrastream doctor",
        )
    return engine, kept


def deserialize(runtime: Any, plan: bytes) -> tuple[Any, list[LogLine]]:
    """A plan as an `ICudaEngine`, None where the library refuses; and what it logged."""
    with gather_lines() as lines:
        engine = runtime.deserialize_cuda_engine(plan)
    return engine, lines


def check_engine(engine: Any, spec: EngineSpec, name: str) -> None:
    """Refuse a plan that is not of our graph at this frame size.

    Args:
        engine: An `ICudaEngine`.
        spec: What it must be for.
        name: The model's file, for the message.

    Raises:
        ModelError: Other inputs or outputs.
        EngineError: Another size.
    """
    inputs: IoFacts = {}
    outputs: IoFacts = {}
    for index in range(engine.num_io_tensors):
        tensor = engine.get_tensor_name(index)
        dtype = engine.get_tensor_dtype(tensor).name
        facts = DTYPES.get(dtype, dtype), len(tuple(engine.get_tensor_shape(tensor)))
        (inputs if engine.get_tensor_mode(tensor).name == "INPUT" else outputs)[tensor] = facts
    in_order = {key: inputs[key] for key in [*INPUTS, *inputs] if key in inputs}
    check_graph(in_order, {key: outputs[key] for key in [*OUTPUTS, *outputs] if key in outputs}, name)
    told = tuple(engine.get_tensor_shape("statistics"))
    if told != OUTPUTS["statistics"][1]:
        raise ModelError(
            f"{name} must tell {OUTPUTS['statistics'][1]} statistics of a frame, got {told}; export it again"
        )
    needed, found = (spec.rows, spec.columns, spec.sample_bytes), tuple(engine.get_tensor_shape("live"))
    if found != needed:
        raise EngineError(
            f"needed a plan of {name} for frames of {needed}, got one for {found}; "
            "run: contrastream build --clear"
        )


class Contexts:
    """Opens the execution contexts of one plan, one for each slot.

    Args:
        trt: The module.
        engine: The `ICudaEngine`.
        kept: The plan, for the name of its runtime cache.
        device: The GPU at hand.
    """

    def __init__(self, trt: ModuleType, engine: Any, kept: CachedPlan, device: Device) -> None:
        self._trt = trt
        self._engine = engine
        self._kept = kept
        self._device = device
        self._cache: Any = None
        self._seen: bytes | None = None
        self._config: Any = self._configure() if is_rtx(trt) else None

    def _configure(self) -> Any:
        """TensorRT-RTX: graphs of its own making, and the kernels that an earlier start has compiled."""
        config = self._engine.create_runtime_config()
        config.cuda_graph_strategy = self._trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        self._cache = config.create_runtime_cache()
        self._seen = read_blob(self._kept.facts.key, "runtime", self._device.label)
        if self._seen is not None and not self._cache.deserialize(self._seen):
            log.info("the kernels kept for %s are of another driver or version", self._device.name)
            self._seen = None
        config.set_runtime_cache(self._cache)
        return config

    def open(self, device: Mapping[str, int]) -> "TensorRtInference":
        """A context that reads and writes the buffers at these addresses.

        Raises:
            CudaOutOfMemory: The GPU is full.
            EngineError: The library refuses.
        """
        needed = self._kept.facts.activation_bytes
        size = "" if needed is None else f" of {needed / 1e6:.0f} MB"
        with gather_lines() as lines:
            if self._config is None:
                context = self._engine.create_execution_context()
            else:
                context = self._engine.create_execution_context(self._config)
            if context is None:
                raise failure_of(
                    lines,
                    f"{self._trt.__name__} cannot make an execution context{size}",
                    call="create_execution_context",
                    advice="see nvidia-smi and contrastream doctor",
                )
            for name, address in device.items():
                if not context.set_tensor_address(name, address):
                    raise EngineError(
                        f"{self._trt.__name__} refuses the buffer of {name}: {reason_of(lines)}; "
                        "this is a fault of ours: please report it"
                    )
        return TensorRtInference(self._trt.__name__, context)

    def keep_runtime_cache(self) -> None:
        """Keep what TensorRT-RTX has compiled since it was opened, for the next start."""
        if self._cache is None:
            return
        serialized = self._cache.serialize()
        if serialized is not None and (content := bytes(memoryview(serialized))) != self._seen:
            write_blob(self._kept.facts.key, "runtime", content, self._device.label)


class TensorRtInference:
    """An `IExecutionContext` on one slot's buffers. Implements `engines.cuda_slots.Inference`."""

    def __init__(self, library: str, context: Any) -> None:
        self._library = library
        self._context = context

    def enqueue(self, stream: int) -> None:
        with gather_lines() as lines:
            if not self._context.execute_async_v3(stream):
                raise failure_of(
                    lines,
                    f"{self._library} cannot start an inference",
                    call="execute_async_v3",
                    advice="the next frame is tried again",
                )

    def close(self) -> None:
        self._context = None
