"""What only a GPU can show: CUDA's real calls under the slots, and TensorRT's plans drawn for real. Skips where there is none.

The slots are first run with a network of three torch kernels, so that they are tried on a GPU that has no TensorRT too.
"""

import mmap
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from casgan.presets import PresetConfig
from engines.cuda import Cuda, open_cuda, probe_cuda
from engines.cuda_slots import CudaSlots, tensor_bytes
from engines.engine import Engine, EngineSpec
from engines.model import STATISTICS, load_model
from engines.open import open_engine, probe
from engines.parity import measure_parity
from engines.reference import load_reference
from engines.tensorrt_engine import TensorRtEngine, open_tensorrt

pytestmark = pytest.mark.gpu

SPEC = EngineSpec(512, 512)
WORK = 4096
"""Side of the matrices whose product stands for the time of a network: some milliseconds, longer than this process takes to
submit a frame, without which two frames would never meet on the GPU."""


def percentiles(times_ns: list[int]) -> str:
    p50, p99 = np.percentile(np.array(times_ns) / 1e6, [50, 99])
    return f"p50 {p50:.3f} ms, p99 {p99:.3f} ms, max {max(times_ns) / 1e6:.3f} ms of {len(times_ns)} frames"


def ring_of(spec: EngineSpec, slots: int) -> tuple[mmap.mmap, list[list[np.ndarray]]]:
    pixels = spec.rows * spec.columns
    memory = mmap.mmap(-1, 3 * pixels * slots)
    planes = [
        [np.frombuffer(memory, np.uint8, pixels, (3 * index + kind) * pixels).reshape(spec.rows, spec.columns)
         for kind in range(3)]
        for index in range(slots)
    ]  # fmt: skip
    return memory, planes


@pytest.fixture
def cuda() -> Cuda:
    device, reason = probe_cuda()
    if device is None:
        pytest.skip(reason)
    return open_cuda()


class Kernels:
    """Inverts the picture, after a product of matrices that takes a network's time."""

    def __init__(self, at: Mapping[str, int], spec: EngineSpec) -> None:
        sizes = tensor_bytes(spec)

        def bytes_of(name: str) -> torch.Tensor:
            facts = {"shape": (sizes[name],), "typestr": "|u1", "data": (at[name], False), "version": 3}
            return torch.as_tensor(type("Buffer", (), {"__cuda_array_interface__": facts})(), device="cuda")

        self._live, self._synthetic = bytes_of("live"), bytes_of("synthetic")
        self._attention, self._field = bytes_of("attention"), bytes_of("field")
        self._statistics = bytes_of("statistics").view(torch.float32)
        self._factor, self._product = torch.ones(2, WORK, WORK, device="cuda").unbind()
        self._said = torch.zeros(STATISTICS, device="cuda")
        self._said[:5] = torch.tensor([1.0, 0.0, 1.0, 0.5, 0.5], device="cuda")
        torch.cuda.synchronize()

    def enqueue(self, stream: int) -> None:
        with torch.no_grad(), torch.cuda.stream(torch.cuda.ExternalStream(stream)):
            torch.matmul(self._factor, self._factor, out=self._product)
            torch.bitwise_not(self._live, out=self._synthetic)
            torch.bitwise_and(self._live, self._field, out=self._attention)
            self._statistics.copy_(self._said)

    def close(self) -> None:
        torch.cuda.synchronize()


@pytest.fixture
def open_slots(cuda: Cuda) -> Iterator[Callable[..., CudaSlots]]:
    if not torch.cuda.is_available():
        pytest.skip("this torch has no CUDA to make kernels with")
    opened: list[CudaSlots] = []

    def make(**more: Any) -> CudaSlots:
        with cuda.current():
            opened.append(CudaSlots(cuda, SPEC, lambda at: Kernels(at, SPEC), **more))
        return opened[-1]

    yield make
    for slots in opened:
        slots.close()


def saturate(slots: Any, ring: list[list[np.ndarray]], frames: int, see: Callable[[Any], None]) -> list[int]:
    """Keep two frames in flight; returns the time between one frame done and the next in ns."""
    pair, stamps = slots.slots(2), []
    for frame in range(frames):
        slot = pair[frame % 2]
        if frame >= 2:
            slot.wait()
            stamps.append(time.monotonic_ns())
            see(slot)
        slot.bind(*ring[frame % len(ring)])
        slot.submit()
    for slot in (pair[frames % 2], pair[(frames + 1) % 2]):
        slot.wait()
    return [int(step) for step in np.diff(stamps)]


def test_frames_go_through_a_page_locked_ring_and_a_captured_graph(
    open_slots: Callable[..., CudaSlots], caplog: pytest.LogCaptureFixture
) -> None:
    slots = open_slots()
    memory, ring = ring_of(SPEC, 5)
    for frame in range(50):
        slot, (live, synthetic, attention) = slots.slots(2)[frame % 2], ring[frame % 5]
        live[:] = np.random.default_rng(frame).integers(0, 256, live.shape)
        slot.bind(live, synthetic, attention)
        slot.submit()
        assert slot.wait().finite
        np.testing.assert_array_equal(synthetic, 255 - live)
        np.testing.assert_array_equal(attention, live)
    assert caplog.text == "", "the ring must have been page-locked and the inference captured"
    assert len(memory) == 3 * 5 * 512 * 512


def test_a_capture_stands_beside_a_busy_second_thread(
    open_slots: Callable[..., CudaSlots], caplog: pytest.LogCaptureFixture
) -> None:
    stop = threading.Event()

    def be_busy() -> None:
        while not stop.is_set():
            torch.ones(64, device="cuda").sum().item()  # on the legacy stream

    busy = threading.Thread(target=be_busy)
    busy.start()
    try:
        for _ in range(5):
            open_slots()
    finally:
        stop.set()
        busy.join()
    assert "without a CUDA graph" not in caplog.text


def test_copies_overlap_inference_in_event_times(open_slots: Callable[..., CudaSlots]) -> None:
    slots = open_slots(timed=True)
    _memory, ring = ring_of(SPEC, 4)
    times: list[Any] = []
    saturate(slots, ring, 200, lambda slot: times.append(slot.times()))
    beside = sum(
        now.copy_in[0] < before.inference[1]
        for before, now in zip(times[20:], times[21:], strict=False)  # noqa: RUF007
    )
    ordered = all(
        now.inference[0] >= before.inference[1] - 0.01 and now.copy_out[1] >= before.copy_out[1]
        for before, now in zip(times, times[1:], strict=False)  # noqa: RUF007
    )
    print(f"\ncopy-in began beside the inference before it in {beside} of {len(times) - 21} frames")
    assert ordered
    assert beside > 0.8 * (len(times) - 21)


def test_10_000_frames_take_no_more_memory_than_a_hundred(
    open_slots: Callable[..., CudaSlots], cuda: Cuda
) -> None:
    slots = open_slots()
    _memory, ring = ring_of(SPEC, 6)
    saturate(slots, ring, 100, lambda slot: None)
    free, _ = cuda.memory_info()
    steps = saturate(slots, ring, 10_000, lambda slot: None)
    after, _ = cuda.memory_info()
    print(f"\nthree kernels, saturated: {percentiles(steps)}")
    assert abs(free - after) < 2**20


# TensorRT -----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["tensorrt", "tensorrt_rtx"])
def library(request: pytest.FixtureRequest) -> str:
    usable, reason = probe(request.param)
    if not usable:
        pytest.skip(reason)
    return str(request.param)


@pytest.fixture
def open_on_gpu(library: str, tiny_model: Path) -> Iterator[Callable[..., TensorRtEngine]]:
    opened: list[TensorRtEngine] = []

    def make(spec: EngineSpec, model: Path | str = tiny_model, **more: Any) -> TensorRtEngine:
        opened.append(open_tensorrt(load_model(model), spec, module=library, **more))  # type: ignore[arg-type]
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


@pytest.mark.parametrize("bits_stored", [8, 12])
@pytest.mark.parametrize(("precision", "largest", "mean"), [("f32", 1.0, 0.01), ("f16", 8.0, 0.1)])
def test_a_plan_draws_what_torch_draws(
    open_on_gpu: Callable[..., TensorRtEngine],
    tiny_model: Path,
    tiny_preset: PresetConfig,
    random_frame: Callable[..., np.ndarray],
    bits_stored: int,
    precision: str,
    largest: float,
    mean: float,
) -> None:
    spec = EngineSpec(465, 511, bits_stored)
    engine = open_on_gpu(spec, precision=precision)
    flat = random_frame(465, 511, bits_stored)
    frames = [random_frame(465, 511, bits_stored, seed) for seed in range(4)]
    frames += [np.zeros_like(flat), np.full_like(flat, (1 << bits_stored) - 1)]
    said = measure_parity(engine, load_reference(load_model(tiny_model), tiny_preset), frames)
    print(f"\n{engine.backend} {precision} {bits_stored} bits: {said}")
    assert said.background_exact
    assert max(said.synthetic_max, said.attention_max) <= largest
    assert max(said.synthetic_mean, said.attention_mean) <= mean


def test_the_shipped_model_draws_the_phantom_as_torch_does(
    open_on_gpu: Callable[..., TensorRtEngine],
) -> None:
    from calib.config import PhantomConfig
    from calib.phantom import Phantom

    spec = EngineSpec(512, 512)
    phantom = Phantom(PhantomConfig(rows=512, columns=512))
    frames = [phantom.frame(index).live for index in range(0, 40, 10)]
    said = measure_parity(open_on_gpu(spec, "compact"), load_reference(load_model("compact")), frames)
    print(f"\n{said}")
    assert said.background_exact
    assert said.synthetic_mean <= 0.2


def test_a_plan_runs_saturated_for_10_000_frames_without_growth(
    open_on_gpu: Callable[..., TensorRtEngine], cuda: Cuda, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_on_gpu(SPEC, "compact")
    _memory, ring = ring_of(SPEC, 6)
    saturate(engine, ring, 100, lambda slot: None)
    free, _ = cuda.memory_info()
    steps = saturate(engine, ring, 10_000, lambda slot: None)
    after, _ = cuda.memory_info()
    print(
        f"\n{engine.backend} compact 512x512 saturated: {percentiles(steps)}, {1e9 / np.mean(steps):.0f} a second"
    )
    assert abs(free - after) < 2**20
    assert "without a CUDA graph" not in caplog.text


def test_copies_of_a_plan_overlap_its_inference(open_on_gpu: Callable[..., TensorRtEngine]) -> None:
    engine = open_on_gpu(SPEC, "compact", timed=True)
    _memory, ring = ring_of(SPEC, 4)
    times: list[Any] = []
    saturate(engine, ring, 200, lambda slot: times.append(slot.times()))
    spans = [span.inference[1] - span.inference[0] for span in times[20:]]
    beside = sum(
        now.copy_in[0] < before.inference[1]
        for before, now in zip(times[20:], times[21:], strict=False)  # noqa: RUF007
    )
    print(f"\n{engine.backend}: inference {np.median(spans):.3f} ms, {beside} of {len(spans) - 1} overlapped")
    assert beside > 0.8 * (len(spans) - 1)


def test_auto_takes_the_gpu(cuda: Cuda, tiny_model: Path) -> None:
    usable = [name for name in ("tensorrt", "tensorrt_rtx", "torch") if probe(name)[0]]
    if not usable:
        pytest.skip("no GPU backend is usable here")
    opened = open_engine("compact", EngineSpec(128, 128))
    engine: Engine = opened.engine
    assert engine.backend == usable[0]
    engine.close()
