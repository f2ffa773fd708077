"""The same CUDA calls through pycuda, for labs whose code lives in a pycuda context: the engine runs in it.

pycuda has streams, events and pinned memory, but no graphs. Its `register_host_memory` is not used: it sets a numpy
array's base a second time, which numpy refuses. The runtime of cuda-bindings page-locks the ring instead, since its
calls act in whichever context is current; without it the ring goes through pinned buffers.

pycuda keeps a stack of contexts for every thread and aborts the process where one is left on it, so a context is
pushed for a block and popped again. It frees only in the thread that made the context: open and close the engine
there; frames may be submitted and waited for in any thread.
"""

import contextlib
import ctypes
import importlib
import importlib.util
from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import UInt8

from engines.cuda import ADVICE, INSTALL, bytes_at
from engines.cuda_calls import Device
from engines.errors import CudaError, CudaLost, CudaOutOfMemory, EngineError
from engines.page_lock import PageLocks, Registrar, address_of

NON_BLOCKING = 1
"""CU_STREAM_NON_BLOCKING; pycuda has no name for it."""


def load_driver() -> Any:
    """The module `pycuda.driver`, imported late: its import needs a driver.

    Raises:
        EngineError: It is not installed, or there is no driver.
    """
    if importlib.util.find_spec("pycuda") is None:
        raise EngineError(
            'pycuda is not installed; run: pip install -e ".[pycuda]" (it is compiled on this machine)'
        )
    try:
        return importlib.import_module("pycuda.driver")
    except ImportError as error:
        raise EngineError(
            f"pycuda.driver cannot be imported: {error}; it needs an NVIDIA driver, see nvidia-smi"
        ) from error


class PyCuda:
    """CUDA through pycuda. Implements `engines.cuda_calls.CudaCalls`.

    Args:
        driver: The module `pycuda.driver`, or what stands in for it.
        context: The context to run in; None for the calling thread's current one.
        registrar: What page-locks a mapping in the current context, an `engines.cuda.Cuda`; None for nothing.

    Raises:
        EngineError: No context was given and none is current.
    """

    graphs = False

    def __init__(self, driver: Any, context: Any = None, registrar: Registrar | None = None) -> None:
        self._drv = driver
        self._registrar = registrar
        self.page_locks = PageLocks(self)
        context = driver.Context.get_current() if context is None else context
        if context is None:
            raise EngineError(
                "needed a pycuda context, none is current in this thread; "
                "make one (import pycuda.autoinit) or give the engine yours"
            )
        self._context = context
        # pycuda frees what nobody refers to, so what was given out is kept here until it is given back.
        self._allocations: dict[int, Any] = {}
        self._pinned: dict[int, np.ndarray] = {}

    @contextlib.contextmanager
    def _checked(self, call: str) -> Iterator[None]:
        try:
            yield
        except self._drv.MemoryError as error:
            advice = ADVICE["cudaErrorMemoryAllocation"]
            raise CudaOutOfMemory(
                f"pycuda's {call} failed: {error}; {advice}", call=call, code="MemoryError"
            ) from error
        except self._drv.LaunchError as error:
            raise CudaLost(
                f"pycuda's {call} failed: {error}; the GPU is lost to this process: start the engine anew",
                call=call,
                code="LaunchError",
            ) from error
        except self._drv.Error as error:
            raise CudaError(
                f"pycuda's {call} failed: {error}; see nvidia-smi and contrastream doctor",
                call=call,
                code=type(error).__name__,
            ) from error

    @contextlib.contextmanager
    def current(self) -> Iterator[None]:
        if self._drv.Context.get_current() == self._context:
            yield
            return
        with self._checked("Context.push"):
            self._context.push()
        try:
            yield
        finally:
            self._drv.Context.pop()

    def device(self) -> Device:
        with self.current(), self._checked("Context.get_device"):
            device = self._drv.Context.get_device()
            index = next(
                number for number in range(self._drv.Device.count()) if self._drv.Device(number) == device
            )
            major, minor = device.compute_capability()
            return Device(
                index, device.name(), (major, minor), self._drv.get_driver_version(), device.pci_bus_id()
            )

    def memory_info(self) -> tuple[int, int]:
        with self._checked("mem_get_info"):
            free, total = self._drv.mem_get_info()
        return int(free), int(total)

    def create_stream(self) -> Any:
        with self._checked("Stream"):
            return self._drv.Stream(NON_BLOCKING)

    def stream_handle(self, stream: Any) -> int:
        return int(stream.handle)

    def synchronize_stream(self, stream: Any) -> None:
        with self._checked("Stream.synchronize"):
            stream.synchronize()

    def destroy_stream(self, stream: Any) -> None:
        """pycuda destroys a stream with its last reference, which the caller drops now."""

    def create_event(self, *, timing: bool = False) -> Any:
        flags = self._drv.event_flags
        with self._checked("Event"):
            return self._drv.Event(int(flags.BLOCKING_SYNC) | (0 if timing else int(flags.DISABLE_TIMING)))

    def record_event(self, event: Any, stream: Any) -> None:
        with self._checked("Event.record"):
            event.record(stream)

    def await_event(self, stream: Any, event: Any) -> None:
        with self._checked("Stream.wait_for_event"):
            stream.wait_for_event(event)

    def is_done(self, event: Any) -> bool:
        with self._checked("Event.query"):
            return bool(event.query())

    def synchronize_event(self, event: Any) -> None:
        with self._checked("Event.synchronize"):
            event.synchronize()

    def elapsed_ms(self, start: Any, end: Any) -> float:
        with self._checked("Event.time_till"):
            return float(start.time_till(end))

    def destroy_event(self, event: Any) -> None:
        """As with streams."""

    def allocate(self, size: int) -> int:
        with self._checked("mem_alloc"):
            allocation = self._drv.mem_alloc(size)
        self._allocations[int(allocation)] = allocation
        return int(allocation)

    def free(self, address: int) -> None:
        with self._checked("DeviceAllocation.free"):
            self._allocations.pop(address).free()

    def allocate_pinned(self, size: int) -> UInt8[np.ndarray, " n"]:
        with self._checked("pagelocked_empty"):
            array: np.ndarray = self._drv.pagelocked_empty(size, np.uint8)
        self._pinned[address_of(array)] = array
        # A view of its own: pycuda's array frees the memory when it goes.
        return bytes_at(address_of(array), size)

    def free_pinned(self, array: np.ndarray) -> None:
        owner: Any = self._pinned.pop(address_of(array)).base
        with self._checked("PagelockedHostAllocation.free"):
            owner.free()

    def register(self, address: int, size: int) -> None:
        if self._registrar is None:
            raise CudaError(
                f"pycuda cannot page-lock the ring by itself; {INSTALL}",
                call="register",
                code="NotSupported",
            )
        self._registrar.register(address, size)

    def unregister(self, address: int) -> None:
        assert self._registrar is not None
        self._registrar.unregister(address)

    def copy_in(self, device: int, host: int, size: int, stream: Any) -> None:
        with self._checked("memcpy_htod_async"):
            self._drv.memcpy_htod_async(device, _buffer(host, size), stream)

    def copy_out(self, host: int, device: int, size: int, stream: Any) -> None:
        with self._checked("memcpy_dtoh_async"):
            self._drv.memcpy_dtoh_async(_buffer(host, size), device, stream)

    def begin_capture(self, stream: Any) -> None:
        raise NO_GRAPHS

    def end_capture(self, stream: Any) -> Any:
        raise NO_GRAPHS

    def instantiate(self, graph: Any) -> Any:
        raise NO_GRAPHS

    def launch(self, executable: Any, stream: Any) -> None:
        raise NO_GRAPHS

    def destroy_graph(self, graph: Any) -> None:
        raise NO_GRAPHS

    def destroy_executable(self, executable: Any) -> None:
        raise NO_GRAPHS


NO_GRAPHS = CudaError(
    "needed CUDA graphs, pycuda has none; look at `graphs` first", call="graph", code="NotSupported"
)


def _buffer(address: int, size: int) -> Any:
    return (ctypes.c_uint8 * size).from_address(address)
