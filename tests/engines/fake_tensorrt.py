"""A TensorRT whose plans are real and whose GPU is pretended (`fake_cuda.py`): `tensorrt_rtx`, or as full `tensorrt`."""

import runpy
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import tensorrt_rtx as trt

from engines.cuda_slots import tensor_bytes
from engines.engine import EngineSpec
from engines.model import INPUTS, OUTPUTS

FAKES = runpy.run_path(str(Path(__file__).with_name("fake_cuda.py")))
SPEC = EngineSpec(64, 80)
KINDS = {"uint8": "UINT8", "float32": "FLOAT"}


class Context:
    """An `IExecutionContext` over the pretended GPU."""

    def __init__(self, library: "Library") -> None:
        self._library = library
        self._at: dict[str, int] = {}
        self._network: Any = None

    def set_tensor_address(self, name: str, memory: int) -> bool:
        self._at[name] = memory
        return not self._library.refuses_buffers

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._network is None:
            assert set(self._at) == {*INPUTS, *OUTPUTS}
            self._network = FAKES["FakeNetwork"](
                self._library.gpu, self._at, tensor_bytes(self._library.spec)
            )
        if self._library.refuses_frames:
            self._library.refuses_frames -= 1
            self._library.say(
                "ERROR", "IExecutionContext::enqueueV3: Error Code 2: OutOfMemory (no memory left)"
            )
            return False
        return bool(self._network.execute_async_v3(stream_handle))

    def __del__(self) -> None:
        if self._network is not None:
            self._network.close()


class CudaEngine:
    """An `ICudaEngine` of our graph."""

    def __init__(self, library: "Library") -> None:
        self._library = library
        self.num_io_tensors = len(INPUTS) + len(OUTPUTS)

    def get_tensor_name(self, index: int) -> str:
        return [*reversed(INPUTS), *OUTPUTS][index]

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=KINDS[{**INPUTS, **OUTPUTS}[name][0]])

    def get_tensor_mode(self, name: str) -> Any:
        return trt.TensorIOMode.INPUT if name in INPUTS else trt.TensorIOMode.OUTPUT

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        spec = self._library.plan_is_of
        sides = {"rows": spec.rows, "columns": spec.columns, "bytes": spec.sample_bytes}
        shape = {**INPUTS, **OUTPUTS}[name][1]
        return tuple(sides[side] if isinstance(side, str) else side for side in shape)

    def create_runtime_config(self) -> Any:
        self._library.config = RuntimeConfig(self._library)
        return self._library.config

    def create_execution_context(self, runtime_config: Any = None) -> Any:
        assert (runtime_config is None) == (not hasattr(self._library, "CudaGraphStrategy"))
        if self._library.contexts == 0:
            self._library.say("ERROR", "Error Code 2: OutOfMemory (Requested size was 2147483648 bytes.)")
            return None
        self._library.contexts -= 1
        return Context(self._library)


class RuntimeConfig:
    """An `IRuntimeConfig`."""

    def __init__(self, library: "Library") -> None:
        self.cuda_graph_strategy = trt.CudaGraphStrategy.DISABLED
        self.cache = RuntimeCache(library)

    def create_runtime_cache(self) -> Any:
        return self.cache

    def set_runtime_cache(self, cache: Any) -> None:
        self.set = cache


class RuntimeCache:
    """An `IRuntimeCache`."""

    def __init__(self, library: "Library") -> None:
        self._library = library

    def deserialize(self, blob: bytes) -> bool:
        self._library.kernels_seen.append(bytes(blob))
        return True

    def serialize(self) -> bytes:
        return b"kernels for this GPU"


class Runtime:
    """A `Runtime`."""

    def __init__(self, library: "Library") -> None:
        self._library = library

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        self._library.plans.append(serialized_engine)
        if self._library.refuses_plans:
            self._library.refuses_plans -= 1
            self._library.say("ERROR", self._library.says)
            return None
        return CudaEngine(self._library)


class Library(ModuleType):
    """The real `tensorrt_rtx` with a runtime that runs on the pretended GPU.

    Args:
        gpu: The pretended GPU.
        spec: What it will be opened for.
    """

    def __init__(self, gpu: Any, spec: EngineSpec = SPEC) -> None:
        super().__init__("tensorrt_rtx")
        self.gpu, self.spec, self.plan_is_of = gpu, spec, spec
        self.contexts = 99
        self.refuses_plans = self.refuses_frames = 0
        self.refuses_buffers = False
        self.says = "IRuntime::deserializeCudaEngine: Error Code 1: Serialization (wrong magic)"
        self.plans: list[bytes] = []
        self.kernels_seen: list[bytes] = []
        self.config: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(trt, name)

    def Runtime(self, logger: Any) -> Any:
        self._logger = logger
        return Runtime(self)

    def say(self, severity: str, text: str) -> None:
        self._logger.log(getattr(trt.ILogger, severity), text)


class FullLibrary(Library):
    """As full TensorRT: without what TensorRT-RTX alone has."""

    def __init__(self, gpu: Any, spec: EngineSpec = SPEC) -> None:
        super().__init__(gpu, spec)
        self.__name__ = "tensorrt"
        self.__version__ = "11.0.0"

    def __getattr__(self, name: str) -> Any:
        if name in ("CudaGraphStrategy", "ComputeCapability"):
            raise AttributeError(name)
        return getattr(trt, name)
