"""The CUDA calls: every name is the real runtime's, every failure a sentence, and what is true here is that there is no driver."""

import inspect
import re
import runpy
from pathlib import Path
from typing import Any

import pytest
from cuda.bindings import runtime as real

from engines import cuda, page_lock
from engines.cuda import ADVICE, LOST, Cuda, probe_cuda
from engines.errors import CudaError, CudaLost, CudaOutOfMemory

FakeRuntime: Any = runpy.run_path(str(Path(__file__).with_name("fake_cuda.py")))["FakeRuntime"]
OK = real.cudaError_t.cudaSuccess


def test_every_call_that_is_used_is_in_the_real_runtime() -> None:
    source = Path(cuda.__file__).read_text()
    used = set(re.findall(r'_call\(\s*"(cuda\w+)"|_rt\.(cuda\w+)', source))
    names = {first or second for first, second in used}
    assert len(names) > 30
    assert [name for name in names if not hasattr(real, name)] == []


def test_every_failure_that_has_advice_is_one_of_the_runtime() -> None:
    known = real.cudaError_t.__members__
    assert [name for name in [*ADVICE, *LOST] if name not in known] == []


def test_the_pretended_runtime_has_the_real_ones_names_and_arguments() -> None:
    for name, call in inspect.getmembers(FakeRuntime, inspect.isfunction):
        if not name.startswith("cuda"):
            continue
        documented = getattr(real, name).__doc__.splitlines()[0]
        inside = documented[documented.index("(") + 1 : documented.rindex(")")]
        expected = len([part for part in inside.split(",") if part.strip()])
        assert len(inspect.signature(call).parameters) - 1 == expected, documented


def test_here_there_is_no_driver_and_the_real_runtime_says_so() -> None:
    if real.cudaGetDeviceCount()[0] == real.cudaError_t.cudaSuccess:
        pytest.skip("this machine has a GPU")
    device, reason = probe_cuda()
    assert device is None
    assert re.search(r"no NVIDIA driver is loaded|no NVIDIA GPU is visible|driver for CUDA", reason)


@pytest.mark.parametrize(
    ("runtime", "reason"),
    [
        pytest.param(
            {"driver": 0},
            r"no NVIDIA driver is loaded \(cudaGetDeviceCount: cudaErrorInsufficientDriver\); with an NVIDIA GPU, install its driver",
            id="no driver",
        ),
        pytest.param(
            {"driver": 12040},
            r"needed an NVIDIA driver for CUDA 13\.0, found one for CUDA 12\.4 .*; update the driver",
            id="old driver",
        ),
        pytest.param({"count": 0}, r"cudaErrorNoDevice.*CUDA_VISIBLE_DEVICES", id="no GPU"),
    ],
)
def test_a_gpu_that_cannot_be_used_is_a_reason(runtime: dict[str, int], reason: str) -> None:
    device, said = probe_cuda(FakeRuntime(**runtime))
    assert device is None
    assert re.search(reason, said)


def test_a_gpu_is_named_with_its_compute_capability() -> None:
    device, reason = probe_cuda(FakeRuntime(capability=(9, 0)))
    assert reason == ""
    assert device is not None
    assert (device.name, device.sm, device.label) == ("NVIDIA Pretended", 90, "NVIDIA Pretended SM90")
    assert device.bus_id == "0000:3B:00.0"


def test_a_gpu_whose_place_on_the_bus_is_not_told_is_used_all_the_same() -> None:
    runtime = FakeRuntime()
    runtime.fail("cudaDeviceGetPCIBusId", "cudaErrorInvalidDevice")
    device, reason = probe_cuda(runtime)
    assert reason == ""
    assert device is not None
    assert device.bus_id == ""


def test_a_gpu_that_is_not_there_is_refused() -> None:
    with pytest.raises(CudaError, match="needed the GPU 3, found 1; choose a GPU that nvidia-smi lists"):
        Cuda(FakeRuntime(), 3)


@pytest.mark.parametrize(
    ("code", "kind", "sentence"),
    [
        pytest.param(
            "cudaErrorMemoryAllocation",
            CudaOutOfMemory,
            r"cudaMalloc failed: cudaErrorMemoryAllocation \(2\): out of memory for [\d.]+ MB, "
            r"1000 of 8000 MB are free; "
            r"the memory of the GPU is full: .* smaller model",
            id="memory",
        ),
        pytest.param(
            "cudaErrorIllegalAddress",
            CudaLost,
            "the GPU is lost to this process: start the engine",
            id="lost",
        ),
        pytest.param("cudaErrorNotSupported", CudaError, "does not offer it", id="not supported"),
        pytest.param(
            "cudaErrorInvalidValue", CudaError, "see nvidia-smi and contrastream doctor", id="other"
        ),
    ],
)
def test_a_failed_call_says_which_why_and_what_to_do(code: str, kind: type[CudaError], sentence: str) -> None:
    runtime = FakeRuntime()
    calls = Cuda(runtime)
    runtime.fail("cudaMalloc", code)
    with pytest.raises(CudaError, match=sentence) as raised:
        calls.allocate(64)
    assert type(raised.value) is kind
    assert (raised.value.call, raised.value.code) == ("cudaMalloc", code)


def test_two_gpus_in_one_thread_are_each_chosen_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime, chosen = FakeRuntime(count=2), []
    monkeypatch.setattr(runtime, "cudaSetDevice", lambda device: chosen.append(device) or (OK,))
    first, second = Cuda(runtime, 0), Cuda(runtime, 1)
    for calls in (first, second, first):
        with calls.current():
            pass
    assert chosen == [0, 1, 0]


def test_an_event_that_is_not_done_is_no_failure() -> None:
    calls = Cuda(FakeRuntime())
    stream, event = calls.create_stream(), calls.create_event()
    assert calls.is_done(event)
    calls.record_event(event, stream)
    assert not calls.is_done(event)
    assert calls.is_done(event)


def test_memory_of_the_heap_is_not_taken_for_a_mapping() -> None:
    import mmap

    import numpy as np

    memory = mmap.mmap(-1, 3 * mmap.PAGESIZE)
    plane = np.frombuffer(memoryview(memory)[100:], np.uint8)[64:164].reshape(10, 10)
    whole = page_lock.whole_mapping(plane)
    assert whole is not None
    assert whole.nbytes == 3 * mmap.PAGESIZE
    assert page_lock.address_of(whole) + 164 == page_lock.address_of(plane)
    assert page_lock.whole_mapping(np.zeros((10, 10), np.uint8)) is None
    assert page_lock.whole_mapping(np.frombuffer(bytes(100), np.uint8)) is None
