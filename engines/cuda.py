"""The few CUDA calls that an engine needs, through the runtime of cuda-bindings; each result becomes a value or a sentence.

`pycuda_calls.py` does the same for code that lives in a pycuda context; what both offer is `cuda_calls.CudaCalls`.
"""

import contextlib
import ctypes
import importlib
import importlib.util
import logging
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
from jaxtyping import UInt8

from engines.cuda_calls import Device
from engines.errors import CudaError, CudaLost, CudaOutOfMemory, EngineError
from engines.page_lock import PageLocks, address_of

log = logging.getLogger(__name__)

INSTALL = 'run: pip install -e ".[cuda]"'
SEE_DOCTOR = "see nvidia-smi and contrastream doctor"

ADVICE = {
    "cudaErrorMemoryAllocation": "the memory of the GPU is full: close what else runs on it, or use a smaller model",
    "cudaErrorInsufficientDriver": "install or update the NVIDIA driver",
    "cudaErrorSystemDriverMismatch": "the driver was updated while it ran: restart this machine",
    "cudaErrorNoDevice": "no NVIDIA GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES",
    "cudaErrorInvalidDevice": "choose a GPU that nvidia-smi lists",
    "cudaErrorDevicesUnavailable": "another process has the GPU for itself: see nvidia-smi",
    "cudaErrorHostMemoryAlreadyRegistered": "unregister it where it was registered",
    "cudaErrorNotPermitted": "the process may not do that: see ulimit -l for page-locked memory",
    "cudaErrorNotSupported": "this driver or GPU does not offer it",
    "cudaErrorSystemNotReady": "a service of the driver does not run: see nvidia-smi",
}
"""What to do about a failure, by the runtime's own name of it."""

ALLOCATIONS = ("cudaMalloc", "cudaHostAlloc")
"""Calls whose first argument is a size in bytes."""

BUS_ID_BYTES = 32
"""Room for domain:bus:device.function and the NUL behind it; 13 are promised to do."""

LOST = frozenset(
    {
        "cudaErrorAssert",
        "cudaErrorContextIsDestroyed",
        "cudaErrorCudartUnloading",
        "cudaErrorECCUncorrectable",
        "cudaErrorHardwareStackError",
        "cudaErrorIllegalAddress",
        "cudaErrorIllegalInstruction",
        "cudaErrorInvalidAddressSpace",
        "cudaErrorInvalidPc",
        "cudaErrorLaunchFailure",
        "cudaErrorLaunchTimeout",
        "cudaErrorMisalignedAddress",
        "cudaErrorMpsClientTerminated",
        "cudaErrorNvlinkUncorrectable",
        "cudaErrorUnknown",
    }
)
"""Failures after which every call of this process fails: only a new process can use the GPU again."""


def probe_cuda(runtime: Any = None) -> tuple[Device | None, str]:
    """The first GPU, or why there is none to use.

    Args:
        runtime: The module `cuda.bindings.runtime` or what stands in for it; None to import it.
    """
    try:
        calls = Cuda(load_runtime() if runtime is None else runtime)
        return calls.device(), ""
    except EngineError as error:
        return None, str(error)


def load_runtime() -> Any:
    """The module `cuda.bindings.runtime`, imported late.

    Raises:
        EngineError: It is not installed, or broken.
    """
    try:
        found = importlib.util.find_spec("cuda.bindings.runtime")
    except ModuleNotFoundError:
        found = None
    if found is None:
        raise EngineError(f"cuda-bindings is not installed; {INSTALL}")
    try:
        return importlib.import_module("cuda.bindings.runtime")
    except (ImportError, RuntimeError, OSError) as error:
        raise EngineError(f"cuda-bindings cannot be imported: {error}; install it anew") from error


@cache
def open_cuda(device: int = 0) -> "Cuda":
    """This process's one `Cuda` of a GPU, so that its engines share what is page-locked.

    Raises:
        EngineError: cuda-bindings is missing, or there is no such GPU.
    """
    return Cuda(load_runtime(), device)


class Cuda:
    """CUDA through the runtime API. Implements `CudaCalls`.

    Args:
        runtime: The module `cuda.bindings.runtime`, or what stands in for it.
        index: Which GPU, as the runtime counts them.

    Raises:
        CudaError: No driver, a driver that is too old, no GPU, or not so many.
    """

    graphs = True

    def __init__(self, runtime: Any, index: int = 0) -> None:
        self._rt = runtime
        self.index = index
        self.page_locks = PageLocks(self)
        self._check_driver()
        count = self._call("cudaGetDeviceCount")
        if not 0 <= index < count:
            raise CudaError(
                f"needed the GPU {index}, found {count}; {ADVICE['cudaErrorInvalidDevice']}",
                call="cudaGetDeviceCount",
                code="cudaErrorInvalidDevice",
            )

    def _check_driver(self) -> None:
        """The runtime gives one code for no driver and for an old one; the driver's version tells them apart."""
        code, *_ = self._rt.cudaGetDeviceCount()
        if _name(code) != "cudaErrorInsufficientDriver":
            return
        driver, runtime = self._call("cudaDriverGetVersion"), self._call("cudaRuntimeGetVersion")
        if driver == 0:
            sentence = (
                f"no NVIDIA driver is loaded (cudaGetDeviceCount: {_name(code)}); "
                "with an NVIDIA GPU, install its driver"
            )
        else:
            sentence = (
                f"needed an NVIDIA driver for CUDA {version(runtime)}, found one for CUDA {version(driver)} "
                f"(cudaGetDeviceCount: {_name(code)}); update the driver"
            )
        raise CudaError(f"{sentence}, see nvidia-smi", call="cudaGetDeviceCount", code=_name(code))

    def _call(self, name: str, *arguments: Any) -> Any:
        """One call: its result, several as a tuple, or an error with the call's and the code's name."""
        code, *results = getattr(self._rt, name)(*arguments)
        if int(code) != 0:
            raise self._error(name, code, *arguments)
        return results[0] if len(results) == 1 else tuple(results)

    def _error(self, call: str, code: Any, *arguments: Any) -> CudaError:
        kind = _name(code)
        _, text = self._rt.cudaGetErrorString(code)
        said = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        failure = CudaError
        advice = ADVICE.get(kind, SEE_DOCTOR)
        if kind in LOST:
            failure, advice = CudaLost, "the GPU is lost to this process: start the engine anew"
        elif kind == "cudaErrorMemoryAllocation":
            failure = CudaOutOfMemory
            if call in ALLOCATIONS:
                said = f"{said} for {arguments[0] / 1e6:.1f} MB"
            if call.startswith("cudaHost"):
                advice = (
                    "the host has no page-locked memory left: close what else uses the GPU, see ulimit -l"
                )
            code_of_info, free, total = self._rt.cudaMemGetInfo()
            if int(code_of_info) == 0:
                said += f", {free / 1e6:.0f} of {total / 1e6:.0f} MB are free"
        # Else the next call that looks for the thread's last error reports this one.
        self._rt.cudaGetLastError()
        return failure(f"{call} failed: {kind} ({int(code)}): {said}; {advice}", call=call, code=kind)

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        # Each time, and not once a thread: another engine may have chosen another GPU in it since.
        self._call("cudaSetDevice", self.index)
        yield

    def device(self) -> Device:
        properties = self._call("cudaGetDeviceProperties", self.index)
        name = properties.name
        return Device(
            self.index,
            name.split(b"\0")[0].decode(errors="replace") if isinstance(name, bytes) else str(name),
            (int(properties.major), int(properties.minor)),
            int(self._call("cudaDriverGetVersion")),
            self._bus_id(),
        )

    def _bus_id(self) -> str:
        try:
            said = self._call("cudaDeviceGetPCIBusId", BUS_ID_BYTES, self.index)
        except CudaError as error:
            # It only tells the telemetry which GPU to look at.
            log.debug("the GPU's place on the bus is not known: %s", error)
            return ""
        return str(said.split(b"\0")[0].decode("ascii", "replace"))

    def memory_info(self) -> tuple[int, int]:
        free, total = self._call("cudaMemGetInfo")
        return int(free), int(total)

    def create_stream(self) -> Any:
        return self._call("cudaStreamCreateWithFlags", self._rt.cudaStreamNonBlocking)

    def stream_handle(self, stream: Any) -> int:
        return int(stream)

    def synchronize_stream(self, stream: Any) -> None:
        self._call("cudaStreamSynchronize", stream)

    def destroy_stream(self, stream: Any) -> None:
        self._call("cudaStreamDestroy", stream)

    def create_event(self, *, timing: bool = False) -> Any:
        flags = self._rt.cudaEventBlockingSync | (0 if timing else self._rt.cudaEventDisableTiming)
        return self._call("cudaEventCreateWithFlags", flags)

    def record_event(self, event: Any, stream: Any) -> None:
        self._call("cudaEventRecord", event, stream)

    def await_event(self, stream: Any, event: Any) -> None:
        self._call("cudaStreamWaitEvent", stream, event, 0)

    def is_done(self, event: Any) -> bool:
        (code,) = self._rt.cudaEventQuery(event)
        if _name(code) == "cudaErrorNotReady":
            self._rt.cudaGetLastError()  # else it passes for the failure of a later call
            return False
        if int(code) != 0:
            raise self._error("cudaEventQuery", code)
        return True

    def synchronize_event(self, event: Any) -> None:
        self._call("cudaEventSynchronize", event)

    def elapsed_ms(self, start: Any, end: Any) -> float:
        return float(self._call("cudaEventElapsedTime", start, end))

    def destroy_event(self, event: Any) -> None:
        self._call("cudaEventDestroy", event)

    def allocate(self, size: int) -> int:
        return int(self._call("cudaMalloc", size))

    def free(self, address: int) -> None:
        self._call("cudaFree", address)

    def allocate_pinned(self, size: int) -> UInt8[np.ndarray, " n"]:
        return bytes_at(int(self._call("cudaHostAlloc", size, self._rt.cudaHostAllocDefault)), size)

    def free_pinned(self, array: np.ndarray) -> None:
        self._call("cudaFreeHost", address_of(array))

    def register(self, address: int, size: int) -> None:
        self._call("cudaHostRegister", address, size, self._rt.cudaHostRegisterDefault)

    def unregister(self, address: int) -> None:
        self._call("cudaHostUnregister", address)

    def copy_in(self, device: int, host: int, size: int, stream: Any) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyHostToDevice
        self._call("cudaMemcpyAsync", device, host, size, kind, stream)

    def copy_out(self, host: int, device: int, size: int, stream: Any) -> None:
        kind = self._rt.cudaMemcpyKind.cudaMemcpyDeviceToHost
        self._call("cudaMemcpyAsync", host, device, size, kind, stream)

    def begin_capture(self, stream: Any) -> None:
        # In the global mode any other thread that touches the legacy stream breaks the capture (cudaError 906).
        mode = self._rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        self._call("cudaStreamBeginCapture", stream, mode)

    def end_capture(self, stream: Any) -> Any:
        return self._call("cudaStreamEndCapture", stream)

    def instantiate(self, graph: Any) -> Any:
        return self._call("cudaGraphInstantiate", graph, 0)

    def launch(self, executable: Any, stream: Any) -> None:
        self._call("cudaGraphLaunch", executable, stream)

    def destroy_graph(self, graph: Any) -> None:
        self._call("cudaGraphDestroy", graph)

    def destroy_executable(self, executable: Any) -> None:
        self._call("cudaGraphExecDestroy", executable)


def version(number: int) -> str:
    """CUDA's version number, 1000 major + 10 minor, as people write it."""
    return f"{number // 1000}.{number % 1000 // 10}"


def bytes_at(address: int, size: int) -> UInt8[np.ndarray, " n"]:
    """Memory that CUDA gave, as an array; it owns nothing."""
    view: np.ndarray = np.frombuffer(memoryview((ctypes.c_uint8 * size).from_address(address)), np.uint8)
    return view


def _name(code: Any) -> str:
    return str(getattr(code, "name", code))
