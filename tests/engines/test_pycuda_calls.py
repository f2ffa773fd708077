"""The pycuda adapter against a pretended pycuda; its names are those of pycuda 2026.1.

pycuda cannot be imported without a driver. The names were read in its source: src/wrapper/wrap_cudadrv.cpp.
"""

import inspect
import re
import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines import pycuda_calls
from engines.cuda import Cuda
from engines.cuda_calls import CudaCalls
from engines.cuda_slots import CudaSlots, tensor_bytes
from engines.engine import EngineSpec
from engines.errors import CudaError, CudaLost, CudaOutOfMemory, EngineError
from engines.page_lock import address_of
from engines.pycuda_calls import PyCuda

FAKES = runpy.run_path(str(Path(__file__).with_name("fake_cuda.py")))
SPEC = EngineSpec(64, 80)

PYCUDA_2026_1 = {
    "": "Context Device Error Event LaunchError LogicError MemoryError RuntimeError Stream event_flags "
    "get_driver_version mem_alloc mem_get_info memcpy_dtoh_async memcpy_htod_async pagelocked_empty",
    "Context": "get_current get_device pop push",
    "Device": "compute_capability count name pci_bus_id",
    "DeviceAllocation": "free",
    "Event": "query record synchronize time_since time_till",
    "PagelockedHostAllocation": "free",
    "Stream": "handle is_done synchronize wait_for_event",
    "event_flags": "BLOCKING_SYNC DEFAULT DISABLE_TIMING INTERPROCESS",
}
"""What the adapter may use, by class; the rest of pycuda is left out."""


class PretendedPyCuda:
    """`pycuda.driver` over the pretended GPU.

    Args:
        gpu: The pretended runtime.
    """

    def __init__(self, gpu: Any) -> None:
        calls = Cuda(gpu)
        driver = self

        class Error(Exception):
            pass

        self.Error = Error
        self.MemoryError = type("MemoryError", (Error,), {})
        self.LaunchError = type("LaunchError", (Error,), {})
        self.LogicError = type("LogicError", (Error,), {})
        self.RuntimeError = type("RuntimeError", (Error,), {})

        def told(call: Any, *arguments: Any) -> Any:
            try:
                return call(*arguments)
            except CudaOutOfMemory as error:
                raise driver.MemoryError(f"cuMemAlloc failed: out of memory ({error.code})") from None
            except CudaLost as error:
                raise driver.LaunchError(f"cuEventSynchronize failed: {error.code}") from None
            except CudaError as error:
                raise driver.LogicError(f"{error.call} failed: {error.code}") from None

        self.stacks = threading.local()

        class Context:
            @staticmethod
            def get_current() -> Any:
                stack = getattr(driver.stacks, "stack", [])
                return stack[-1] if stack else None

            def push(self) -> None:
                driver.stacks.stack = [*getattr(driver.stacks, "stack", []), self]

            @staticmethod
            def pop() -> None:
                driver.stacks.stack.pop()

            @staticmethod
            def get_device() -> Any:
                return driver.Device(0)

        class Device:
            def __init__(self, number: int) -> None:
                self.number = number

            def __eq__(self, other: object) -> bool:
                return isinstance(other, Device) and other.number == self.number

            __hash__ = None  # type: ignore[assignment]

            @staticmethod
            def count() -> int:
                return 1

            def name(self) -> str:
                return "NVIDIA Pretended"

            def compute_capability(self) -> tuple[int, int]:
                return (8, 9)

            def pci_bus_id(self) -> str:
                return "0000:3B:00.0"

        class Stream:
            def __init__(self, flags: int = 0) -> None:
                assert flags == 1
                self.inner = told(calls.create_stream)
                self.handle = int(self.inner)

            def synchronize(self) -> None:
                told(calls.synchronize_stream, self.inner)

            def is_done(self) -> bool:
                return not self.inner.queue

            def wait_for_event(self, event: Any) -> None:
                told(calls.await_event, self.inner, event.inner)

            def __del__(self) -> None:
                if hasattr(self, "inner"):
                    calls.destroy_stream(self.inner)

        class Event:
            def __init__(self, flags: int = 0) -> None:
                self.inner = told(lambda: calls.create_event(timing=not flags & 2))

            def record(self, stream: Any = None) -> Any:
                told(calls.record_event, self.inner, stream.inner)
                return self

            def query(self) -> bool:
                return bool(told(calls.is_done, self.inner))

            def synchronize(self) -> Any:
                told(calls.synchronize_event, self.inner)
                return self

            def time_since(self, start: Any) -> float:
                return float(told(calls.elapsed_ms, start.inner, self.inner))

            def time_till(self, end: Any) -> float:
                return float(told(calls.elapsed_ms, self.inner, end.inner))

            def __del__(self) -> None:
                if hasattr(self, "inner"):
                    calls.destroy_event(self.inner)

        class DeviceAllocation:
            def __init__(self, size: int) -> None:
                self.address = told(calls.allocate, size)

            def __int__(self) -> int:
                return int(self.address)

            def free(self) -> None:
                told(calls.free, self.address)

        class PagelockedHostAllocation:
            def __init__(self, size: int) -> None:
                self.array = told(calls.allocate_pinned, size)
                self.__array_interface__ = self.array.__array_interface__

            def free(self) -> None:
                told(calls.free_pinned, self.array)

        class event_flags:
            DEFAULT, BLOCKING_SYNC, DISABLE_TIMING, INTERPROCESS = 0, 1, 2, 4

        self.Context, self.Device, self.Stream, self.Event = Context, Device, Stream, Event
        self.DeviceAllocation, self.PagelockedHostAllocation = DeviceAllocation, PagelockedHostAllocation
        self.event_flags = event_flags
        self.mem_alloc = DeviceAllocation
        self.pagelocked_empty = lambda shape, dtype: np.asarray(PagelockedHostAllocation(shape))
        self.get_driver_version = lambda: 13000
        self.mem_get_info = lambda: told(calls.memory_info)

        def address(buffer: Any) -> tuple[int, int]:
            array = np.frombuffer(buffer, np.uint8)
            return address_of(array), array.nbytes

        def memcpy_htod_async(dest: int, src: Any, stream: Any = None) -> None:
            told(calls.copy_in, dest, *address(src), stream.inner)

        def memcpy_dtoh_async(dest: Any, src: int, stream: Any = None) -> None:
            host, size = address(dest)
            told(calls.copy_out, host, src, size, stream.inner)

        self.memcpy_htod_async, self.memcpy_dtoh_async = memcpy_htod_async, memcpy_dtoh_async


@pytest.fixture
def gpu() -> Any:
    return FAKES["FakeRuntime"]()


@pytest.fixture
def driver(gpu: Any) -> Iterator[Any]:
    """A pretended pycuda with a context that is current, as a lab's code has it."""
    made = PretendedPyCuda(gpu)
    made.Context().push()
    yield made
    assert len(made.stacks.stack) == 1, (
        "pycuda aborts the process where a context is left on a thread's stack"
    )


def open_slots(gpu: Any, calls: PyCuda, **more: Any) -> CudaSlots:
    return CudaSlots(calls, SPEC, lambda at: FAKES["FakeNetwork"](gpu, at, tensor_bytes(SPEC)), **more)


def test_the_adapter_uses_only_names_that_pycuda_has() -> None:
    source = inspect.getsource(pycuda_calls)
    used = re.findall(r"_drv\.(\w+)(?:\.(\w+))?", source)
    assert len(used) > 12
    for name, inner in used:
        assert name in PYCUDA_2026_1[""].split()
        if inner:
            assert inner in PYCUDA_2026_1[name].split()
    flags = re.findall(r"flags\.(\w+)", source)
    assert set(flags) <= set(PYCUDA_2026_1["event_flags"].split())
    for variable, kind in (
        ("stream", "Stream"),
        ("event", "Event"),
        ("start", "Event"),
        ("device", "Device"),
        ("owner", "PagelockedHostAllocation"),
    ):
        called = set(re.findall(rf"\b{variable}\.(\w+)\b", source))
        assert called <= set(PYCUDA_2026_1[kind].split()), variable


def test_the_pretended_pycuda_has_only_names_that_pycuda_has(driver: Any) -> None:
    for kind, names in PYCUDA_2026_1.items():
        if not kind:
            continue
        mine = {name for name in vars(getattr(driver, kind)) if name[0] != "_"}
        assert mine <= set(names.split()), kind
    assert set(PYCUDA_2026_1[""].split()) <= set(vars(driver))


def test_frames_run_in_the_labs_context_from_any_thread_and_nothing_is_left(gpu: Any, driver: Any) -> None:
    calls = PyCuda(driver)
    assert isinstance(calls, CudaCalls)
    slots = open_slots(gpu, calls, timed=True)
    planes = [[np.zeros((64, 80), np.uint8) for _ in range(3)] for _ in range(2)]
    failures: list[BaseException] = []

    def run(seed: int) -> None:
        try:
            for slot, (live, synthetic, attention) in zip(slots.slots(2), planes, strict=True):
                live[:] = seed
                slot.bind(live, synthetic, attention)
                slot.submit()
            for slot, (live, synthetic, _) in zip(slots.slots(2), planes, strict=True):
                slot.wait()
                assert slot.times().copy_out[1] > slot.times().inference[1]
                np.testing.assert_array_equal(synthetic, 255 - live)
            assert getattr(driver.stacks, "stack", []) in ([], [calls._context])
        except BaseException as error:
            failures.append(error)

    run(1)
    other = threading.Thread(target=run, args=(2,))
    other.start()
    other.join()
    assert failures == []
    assert "cudaGraphLaunch" not in gpu.calls
    slots.close()
    assert gpu.count_alive() == {}


def test_a_ring_is_page_locked_by_the_runtime_in_the_labs_context(gpu: Any, driver: Any) -> None:
    import mmap

    slots = open_slots(gpu, PyCuda(driver, registrar=Cuda(gpu)))
    memory = mmap.mmap(-1, 4 * 64 * 80)
    planes = [np.frombuffer(memory, np.uint8, 64 * 80, k * 64 * 80).reshape(64, 80) for k in range(3)]
    planes[0][:] = 5
    (slot,) = slots.slots(1)
    slot.bind(*planes)
    assert gpu.count_alive()["registered"] == 1
    slot.submit()
    slot.wait()
    assert planes[1].min() == planes[1].max() == 250
    slots.close()
    assert gpu.count_alive() == {}


def test_without_cuda_bindings_a_ring_is_staged_and_said(
    gpu: Any, driver: Any, caplog: pytest.LogCaptureFixture
) -> None:
    import mmap

    slots = open_slots(gpu, PyCuda(driver))
    memory = mmap.mmap(-1, 4 * 64 * 80)
    planes = [np.frombuffer(memory, np.uint8, 64 * 80, k * 64 * 80).reshape(64, 80) for k in range(3)]
    (slot,) = slots.slots(1)
    slot.bind(*planes)
    slot.submit()
    slot.wait()
    assert planes[1].min() == 255
    assert "pycuda cannot page-lock the ring by itself; run: pip install" in caplog.text
    slots.close()
    assert gpu.count_alive() == {}


@pytest.mark.parametrize(
    ("call", "code", "kind", "sentence"),
    [
        pytest.param(
            "cudaMalloc", "cudaErrorMemoryAllocation", CudaOutOfMemory, "mem_alloc failed", id="full"
        ),
        pytest.param(
            "cudaHostAlloc", "cudaErrorMemoryAllocation", CudaOutOfMemory, "pagelocked_empty", id="pinned"
        ),
        pytest.param(
            "cudaEventCreateWithFlags", "cudaErrorInvalidValue", CudaError, "Event failed", id="other"
        ),
        pytest.param(
            "cudaStreamSynchronize", "cudaErrorLaunchFailure", CudaLost, "start the engine", id="lost"
        ),
    ],
)
def test_pycudas_failures_are_sentences_and_leave_nothing_behind(
    gpu: Any, driver: Any, call: str, code: str, kind: type[CudaError], sentence: str
) -> None:
    gpu.fail(call, code, after=1)
    with pytest.raises(kind, match=sentence) as raised:
        open_slots(gpu, PyCuda(driver))
    assert raised.value.code in ("MemoryError", "LogicError", "LaunchError")
    raised.value.__traceback__ = None
    del raised
    assert gpu.count_alive() == {}


def test_graphs_are_refused(driver: Any) -> None:
    calls = PyCuda(driver)
    assert not calls.graphs
    with pytest.raises(CudaError, match="needed CUDA graphs, pycuda has none"):
        calls.begin_capture(None)


def test_without_a_current_context_it_says_what_to_do(gpu: Any) -> None:
    with pytest.raises(EngineError, match="needed a pycuda context, none is current in this thread"):
        PyCuda(PretendedPyCuda(gpu))


def test_the_device_is_the_contexts(driver: Any) -> None:
    assert PyCuda(driver).device().label == "NVIDIA Pretended SM89"
