"""What an engine asks of CUDA, whoever does it: `cuda.py` by cuda-bindings, `pycuda_calls.py` by pycuda.

Pointers are plain addresses; streams, events and graphs belong to whoever made them and are handed back as they came.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import UInt8

from engines.page_lock import PageLocks


@dataclass(frozen=True)
class Device:
    """A GPU as the runtime sees it."""

    index: int
    name: str
    compute_capability: tuple[int, int]
    """Major and minor: (9, 0) is SM 90."""
    driver: int
    """The newest CUDA version that the driver supports, as 1000 major + 10 minor."""
    bus_id: str = ""
    """Its place on the PCI bus, domain:bus:device.function, by which NVML finds the same GPU; empty where not told.
    NVML counts all GPUs, CUDA those of CUDA_VISIBLE_DEVICES, the fastest first."""

    @property
    def sm(self) -> int:
        """The compute capability as one number: 90."""
        return 10 * self.compute_capability[0] + self.compute_capability[1]

    @property
    def label(self) -> str:
        """What a plan that is tied to a GPU is tied to."""
        return f"{self.name} SM{self.sm}"


@runtime_checkable
class CudaCalls(Protocol):
    """What the slots ask of CUDA. Every method raises `CudaError` where its call fails."""

    graphs: bool
    """Whether work can be captured and launched as one."""
    page_locks: PageLocks
    """What is page-locked, for all engines on these calls."""

    def current(self) -> AbstractContextManager[None]:
        """The calling thread uses the GPU inside the block; every other method wants that."""
        ...

    def device(self) -> Device: ...

    def memory_info(self) -> tuple[int, int]:
        """Bytes free and bytes in all on the GPU, of all processes."""
        ...

    def create_stream(self) -> Any:
        """A stream that does not wait for the default one."""
        ...

    def stream_handle(self, stream: Any) -> int:
        """The `cudaStream_t` as a number, for libraries."""
        ...

    def synchronize_stream(self, stream: Any) -> None: ...

    def destroy_stream(self, stream: Any) -> None: ...

    def create_event(self, *, timing: bool = False) -> Any:
        """An event; waiting for it does not burn a core. Without timing it costs less."""
        ...

    def record_event(self, event: Any, stream: Any) -> None: ...

    def await_event(self, stream: Any, event: Any) -> None:
        """What is given to `stream` from now on starts after what `event` stands for; the host does not wait."""
        ...

    def is_done(self, event: Any) -> bool:
        """Whether all before the event's last record is done; never waits."""
        ...

    def synchronize_event(self, event: Any) -> None: ...

    def elapsed_ms(self, start: Any, end: Any) -> float:
        """Milliseconds between two timing events that are done."""
        ...

    def destroy_event(self, event: Any) -> None: ...

    def allocate(self, size: int) -> int:
        """Bytes on the GPU."""
        ...

    def free(self, address: int) -> None: ...

    def allocate_pinned(self, size: int) -> UInt8[np.ndarray, " n"]:
        """Page-locked bytes of the host; the caller gives them back with `free_pinned`."""
        ...

    def free_pinned(self, array: np.ndarray) -> None: ...

    def register(self, address: int, size: int) -> None:
        """Page-lock a mapping that exists already, so that copies read and write it in place."""
        ...

    def unregister(self, address: int) -> None: ...

    def copy_in(self, device: int, host: int, size: int, stream: Any) -> None:
        """Host to GPU, in stream order; the host's bytes must stay until it is done."""
        ...

    def copy_out(self, host: int, device: int, size: int, stream: Any) -> None:
        """GPU to host, in stream order."""
        ...

    def begin_capture(self, stream: Any) -> None:
        """From now on this thread's work on `stream` is recorded, not run; other threads are not touched."""
        ...

    def end_capture(self, stream: Any) -> Any:
        """The recorded graph. Ends the capture also where it has failed."""
        ...

    def instantiate(self, graph: Any) -> Any: ...

    def launch(self, executable: Any, stream: Any) -> None: ...

    def destroy_graph(self, graph: Any) -> None: ...

    def destroy_executable(self, executable: Any) -> None: ...
