"""The torch backend: what it draws, on the CPU, and the order of its work, on a stand-in for torch.cuda.

What only a GPU can show is marked `gpu`.
"""

import contextlib
import gc
import logging
import mmap
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from casgan.networks import Generator
from casgan.presets import PresetConfig
from engines.engine import Engine, EngineSpec, Precision, Slot
from engines.errors import CudaError, CudaLost, CudaOutOfMemory, EngineError, ModelError
from engines.model import load_model
from engines.open import probe
from engines.parity import measure_parity
from engines.planes import Settings
from engines.reference import Reference, load_reference, run_reference
from engines.torch_engine import TorchEngine
from engines.torch_slots import MAPPINGS_KEPT, WARM_UP, CudaSlot

Opener = Callable[..., TorchEngine]
Frames = Callable[..., np.ndarray]


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def open_torch(tiny_model: Path, tiny_preset: PresetConfig) -> Iterator[Opener]:
    """Opens the tiny model on the CPU, or with a stand-in for torch.cuda; closes what it opened."""
    opened: list[TorchEngine] = []

    def make(
        rows: int = 96,
        columns: int = 128,
        bits_stored: int = 8,
        *,
        slots: int = 2,
        precision: Precision = "f32",
        model: Path = tiny_model,
        **more: Any,
    ) -> TorchEngine:
        spec = EngineSpec(rows, columns, bits_stored, slots)
        engine = TorchEngine(
            load_model(model), spec, precision=precision, device="cpu", preset=tiny_preset, **more
        )
        opened.append(engine)
        return engine

    yield make
    for engine in opened:
        engine.close()


@pytest.fixture(scope="module")
def reference(tiny_model: Path, tiny_preset: PresetConfig) -> Reference:
    return load_reference(load_model(tiny_model), tiny_preset)


def infer(engine: Engine, live: np.ndarray) -> tuple[np.ndarray, np.ndarray, Any]:
    synthetic, attention = np.full_like(live, 7), np.full(live.shape, 7, np.uint8)
    slot = engine.slots(1)[0]
    slot.bind(live, synthetic, attention)
    slot.submit()
    return synthetic, attention, slot.wait()


def grey_difference(a: np.ndarray, b: np.ndarray, bits_stored: int = 8) -> float:
    return float(np.abs(a.astype(float) - b.astype(float)).max() * 255.0 / ((1 << bits_stored) - 1))


# What it draws ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits_stored", [8, 10, 12, 16])
@pytest.mark.parametrize("size", [(64, 64), (97, 131), (465, 511)], ids=lambda size: f"{size[0]}x{size[1]}")
def test_f32_draws_what_the_reference_draws(
    open_torch: Opener,
    reference: Reference,
    random_frame: Frames,
    size: tuple[int, int],
    bits_stored: int,
) -> None:
    live = random_frame(*size, bits_stored)
    engine = open_torch(*size, bits_stored)
    synthetic, attention, statistics = infer(engine, live)
    expected = run_reference(reference, engine.spec, live)
    assert grey_difference(attention, expected.attention) <= 1.0
    assert grey_difference(synthetic, expected.synthetic, bits_stored) <= 1.0
    untouched = attention == 0
    assert 0.05 < untouched.mean() < 0.95
    np.testing.assert_array_equal(synthetic[untouched], live[untouched])
    assert statistics.finite
    assert statistics.area == pytest.approx(np.count_nonzero(attention) / attention.size, abs=1e-6)
    assert statistics.mean == pytest.approx(expected.statistics.mean, abs=1 / 255)
    np.testing.assert_allclose(statistics.features, expected.statistics.features, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("bits_stored", [8, 12])
@pytest.mark.parametrize(
    ("precision", "largest", "mean"),
    [
        pytest.param("f32", 1.0, 0.001, id="f32"),
        pytest.param("bf16", 4.0, 0.05, id="bf16"),
        pytest.param("f16", 2.0, 0.005, id="f16"),
    ],
)
def test_the_shipped_model_stays_within_its_precision(
    precision: Precision, largest: float, mean: float, bits_stored: int
) -> None:
    model = load_model("compact")
    spec = EngineSpec(255, 321, bits_stored)
    engine = TorchEngine(model, spec, precision=precision, device="cpu")
    rng = np.random.default_rng(0)
    dtype = np.uint8 if bits_stored == 8 else np.dtype("<u2")
    end = (1 << bits_stored) - 1
    ramp = np.tile(np.linspace(0, end, 321).astype(dtype), (255, 1))
    noise = rng.integers(0, end + 1, ramp.shape).astype(dtype)
    parity = measure_parity(
        engine, load_reference(model), [ramp, noise, np.zeros_like(ramp), np.full_like(ramp, end)]
    )
    engine.close()
    assert parity.background_exact
    assert parity.attention_max <= 2 * largest
    assert parity.synthetic_max <= largest
    assert parity.synthetic_mean <= mean


def test_inverted_tables_and_a_field_are_taken_without_another_engine(
    open_torch: Opener, reference: Reference, random_frame: Frames
) -> None:
    live = random_frame(96, 128, 12)
    engine = open_torch(96, 128, 12)
    before, whole, _ = infer(engine, live)
    table = np.linspace(1.0, 0.0, 256, dtype=np.float32)
    inverse = np.linspace(4095.0, 0.0, 256, dtype=np.float32)
    field = np.zeros((96, 128), np.uint8)
    field[20:80, 30:90] = 255
    engine.set_grey_table(table, inverse)
    engine.set_field(field)
    after, attention, _ = infer(engine, live)
    settings = Settings.default(engine.spec).with_tables(table, inverse).with_field(field)
    expected = run_reference(reference, engine.spec, live, settings)
    assert whole[field == 0].max() > 0
    assert attention[field == 0].max() == 0
    assert attention.max() > 0
    assert not np.array_equal(before, after)
    assert grey_difference(after, expected.synthetic, 12) <= 1.0
    np.testing.assert_array_equal(after[attention == 0], live[attention == 0])


@pytest.mark.parametrize("head", ["attention", "context"])
@pytest.mark.parametrize("precision", ["f32", "f16"])
def test_a_network_that_overflows_is_told_and_ends_nothing(
    open_torch: Opener,
    tiny_network: Generator,
    export_tiny: Callable[..., Path],
    random_frame: Frames,
    head: str,
    precision: Precision,
) -> None:
    with torch.no_grad():
        weight = getattr(tiny_network, head).conv.weight
        weight[0::2], weight[1::2] = 3e38, -3e38
    engine = open_torch(model=export_tiny(tiny_network), precision=precision)
    assert not infer(engine, random_frame(96, 128))[2].finite


def test_a_precision_that_torch_has_not_is_refused(open_torch: Opener) -> None:
    with pytest.raises(EngineError, match="torch computes in f32, bf16, f16 here, got a request for int8"):
        open_torch(precision="int8")


def test_weights_of_another_network_are_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="needed one of the presets compact"):
        TorchEngine(load_model(tiny_model), EngineSpec(64, 64), precision="f32", device="cpu")


# The order of its work, on a stand-in ----------------------------------------------------------------------------


class FakeCuda:
    """torch.cuda's calls as the engine makes them, each written down; the work itself runs on the CPU at once.

    Args:
        breaks: Calls that fail with a CUDA error.
    """

    NAMES = ("Stream", "Event", "CUDAGraph", "graph", "stream", "synchronize", "cudart", "mem_get_info")

    def __init__(self, *breaks: str) -> None:
        self.breaks = set(breaks)
        self.said: list[str] = []
        self.ready = True
        self._made = {"stream": 0, "event": 0}

    def say(self, call: str) -> None:
        self.said.append(call)
        if call.partition(" ")[0] in self.breaks:
            raise RuntimeError(f"CUDA error: {call} broke\nadvice for torch's developers")

    def _number(self, kind: str) -> str:
        self._made[kind] += 1
        return f"{kind}{self._made[kind]}"

    def Stream(self) -> Any:
        name = self._number("stream")
        return SimpleNamespace(
            name=name,
            wait_event=lambda event: self.say(f"wait_event {name} {event.name}"),
            synchronize=lambda: self.say(f"stream_synchronize {name}"),
        )

    def Event(self, blocking: bool = False) -> Any:
        name = self._number("event")
        return SimpleNamespace(
            name=name,
            record=lambda stream: self.say(f"record {name} {stream.name}"),
            query=lambda: self.say(f"query {name}") or self.ready,
            synchronize=lambda: self.say(f"event_synchronize {name}"),
        )

    def CUDAGraph(self) -> Any:
        graph = SimpleNamespace(reset=lambda: self.say("reset"))
        graph.replay = lambda: self.say("replay")
        return graph

    @contextlib.contextmanager
    def graph(self, graph: Any, stream: Any, capture_error_mode: str) -> Iterator[None]:
        self.say(f"capture {stream.name} {capture_error_mode}")
        yield
        self.say(f"capture_end {stream.name}")

    @contextlib.contextmanager
    def stream(self, stream: Any) -> Iterator[None]:
        self.said.append(f"on {stream.name}")
        yield
        self.said.append(f"off {stream.name}")

    def synchronize(self) -> None:
        self.say("synchronize")

    def mem_get_info(self) -> tuple[int, int]:
        return 2**30, 4 * 2**30

    def cudart(self) -> Any:
        def register(address: int, size: int, flags: int) -> int:
            self.said.append(f"register {size} {flags}")
            return 712 if "register" in self.breaks else 0

        return SimpleNamespace(
            cudaHostRegister=register,
            cudaHostUnregister=lambda address: self.said.append("unregister") or 0,
            cudaGetErrorString=lambda status: f"error {status}",
        )

    def take(self) -> list[str]:
        """What was said since the last time."""
        said, self.said = self.said, []
        return said


def ring_slots(rows: int, columns: int, count: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Planes of several slots in one mapping, as a ring has them."""
    pixels = rows * columns
    memory = mmap.mmap(-1, 3 * pixels * count)
    planes = [
        np.frombuffer(memory, np.uint8, pixels, index * pixels).reshape(rows, columns)
        for index in range(3 * count)
    ]
    return [(planes[3 * i], planes[3 * i + 1], planes[3 * i + 2]) for i in range(count)]


def test_the_stand_in_has_no_name_that_torch_cuda_has_not() -> None:
    assert all(hasattr(torch.cuda, name) for name in FakeCuda.NAMES)
    assert {name for name in vars(FakeCuda) if not name.startswith("_")} - {"NAMES", "say", "take"} == set(
        FakeCuda.NAMES
    )
    assert all(
        hasattr(kind, name)
        for kind, names in (
            (torch.cuda.Stream, ("wait_event", "synchronize")),
            (torch.cuda.Event, ("record", "query", "synchronize")),
            (torch.cuda.CUDAGraph, ("replay", "reset")),
        )
        for name in names
    )


def test_a_slot_warms_up_on_its_own_stream_and_captures_in_thread_local_mode(open_torch: Opener) -> None:
    cuda = FakeCuda()
    engine = open_torch(slots=2, cuda=cuda)
    for number in (1, 2):
        start = cuda.said.index(f"on stream{number}")
        assert cuda.said[start - 1] == "synchronize"
        assert cuda.said[start + 1 : start + 3] == [
            f"off stream{number}",
            f"stream_synchronize stream{number}",
        ]
        assert f"capture stream{number} thread_local" in cuda.said[start:]
    assert all(isinstance(slot, CudaSlot) and slot.captured for slot in engine.slots(2))
    assert WARM_UP >= 2


def test_a_slot_waits_for_the_one_before_it_and_nothing_else(
    open_torch: Opener, random_frame: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    cuda = FakeCuda()
    engine = open_torch(cuda=cuda)
    # Replaying the graph is what makes a picture; the stand-in has none, so its slot's own inference does.
    first, second = engine.slots(2)
    planes = ring_slots(96, 128, 2)
    for slot, (live, synthetic, attention) in zip((first, second), planes, strict=True):
        live[:] = random_frame(96, 128)
        slot.bind(live, synthetic, attention)
    cuda.take()
    first.submit()
    assert cuda.take() == [
        "on stream1",
        "replay",
        "record event1 stream1",
        "record event2 stream1",
        "off stream1",
    ]
    second.submit()
    assert cuda.take() == [
        "on stream2",
        "wait_event stream2 event1",
        "replay",
        "record event3 stream2",
        "wait_event stream2 event2",
        "record event4 stream2",
        "off stream2",
    ]
    assert first.ready()
    first.wait()
    assert cuda.take() == ["query event2", "event_synchronize event2"]
    cuda.ready = False
    assert not second.ready()


def test_a_rings_mapping_is_page_locked_once_and_unlocked_at_the_end(open_torch: Opener) -> None:
    cuda = FakeCuda()
    engine = open_torch(cuda=cuda)
    planes = ring_slots(96, 128, 4)
    for _ in range(3):
        for slot in engine.slots(2):
            for live, synthetic, attention in planes:
                slot.bind(live, synthetic, attention)
    assert [call for call in cuda.said if call.startswith("register")] == [f"register {96 * 128 * 12} 1"]
    assert "unregister" not in cuda.said
    engine.close()
    assert cuda.said.count("unregister") == 1
    assert cuda.said.index("unregister") > cuda.said.index("reset")


def test_of_many_rings_those_used_last_stay_page_locked_and_so_does_the_one_in_use(
    open_torch: Opener,
) -> None:
    cuda = FakeCuda()
    engine = open_torch(cuda=cuda)
    first, second = engine.slots(2)
    rings = [ring_slots(96, 128, 1)[0] for _ in range(MAPPINGS_KEPT + 3)]
    first.bind(*rings[0])
    for _ in range(2):
        for ring in rings[1 : MAPPINGS_KEPT + 1]:
            second.bind(*ring)
    # One more than are kept, but the first slot still holds the oldest.
    assert sum(call.startswith("register") for call in cuda.said) == MAPPINGS_KEPT + 1
    assert cuda.said.count("unregister") == 0
    for ring in rings[MAPPINGS_KEPT + 1 :]:
        second.bind(*ring)
    assert cuda.said.count("unregister") == 2
    engine.close()
    assert cuda.said.count("unregister") == len(rings)


def test_memory_that_cannot_be_page_locked_is_copied_and_said_once(
    open_torch: Opener, random_frame: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    live_frame = random_frame(96, 128)
    expected = infer(open_torch(capture=False), live_frame)
    with caplog.at_level(logging.WARNING):
        engine = open_torch(cuda=FakeCuda("register"), capture=False)
        for slot in (*engine.slots(2), *engine.slots(2)):
            for live, synthetic, attention in ring_slots(96, 128, 1) + ring_slots(96, 128, 1):
                live[:] = live_frame
                slot.bind(live, synthetic, attention)
                slot.submit()
                slot.wait()
                np.testing.assert_array_equal(synthetic, expected[0])
                np.testing.assert_array_equal(attention, expected[1])
    said = [record.message for record in caplog.records]
    assert len(said) == 1
    assert "cudaHostRegister failed: error 712" in said[0]


def test_ordinary_memory_goes_through_pinned_buffers_and_is_not_locked(
    open_torch: Opener, reference: Reference, random_frame: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    cuda = FakeCuda()
    engine = open_torch(97, 131, 12, cuda=cuda, capture=False)
    live = random_frame(97, 131, 12)
    synthetic, attention, statistics = infer(engine, live)
    expected = run_reference(reference, engine.spec, live)
    assert grey_difference(synthetic, expected.synthetic, 12) <= 1.0
    assert grey_difference(attention, expected.attention) <= 1.0
    assert statistics.finite
    assert not [call for call in cuda.said if call.startswith("register")]
    assert not caplog.records


@pytest.mark.parametrize("call", ["capture", "capture_end"])
def test_an_inference_that_cannot_be_captured_runs_without_and_says_so_once(
    open_torch: Opener,
    reference: Reference,
    random_frame: Frames,
    caplog: pytest.LogCaptureFixture,
    call: str,
) -> None:
    cuda = FakeCuda(call)
    with caplog.at_level(logging.WARNING):
        engine = open_torch(cuda=cuda)
        live = random_frame(96, 128)
        synthetic, _, _ = infer(engine, live)
    (record,) = caplog.records
    assert "runs without a CUDA graph, which is slower: CUDA error: capture" in record.message
    assert "advice" not in record.message
    assert not any(slot.captured for slot in engine.slots(2) if isinstance(slot, CudaSlot))
    expected = run_reference(reference, engine.spec, live)
    assert grey_difference(synthetic, expected.synthetic) <= 1.0
    assert "replay" not in cuda.said


@pytest.mark.parametrize("call", ["replay", "record", "wait_event", "event_synchronize"])
def test_a_device_that_fails_on_a_frame_is_told_by_wait_and_nothing_stays_in_flight(
    open_torch: Opener, random_frame: Frames, call: str
) -> None:
    cuda = FakeCuda()
    engine = open_torch(cuda=cuda)
    slots: list[Slot] = list(engine.slots(2))
    for slot, (live, synthetic, attention) in zip(slots, ring_slots(96, 128, 2), strict=True):
        live[:] = random_frame(96, 128)
        slot.bind(live, synthetic, attention)
    slots[0].submit()
    slots[0].wait()
    cuda.breaks.add(call)
    cuda.take()
    slots[1].submit()
    with pytest.raises(CudaError, match=r"torch failed on a frame: CUDA error: .* broke; the next frame is"):
        slots[1].wait()
    assert cuda.said[-1] == "stream_synchronize stream2"
    cuda.breaks.clear()
    for slot in slots:
        slot.submit()
        slot.wait()
    cuda.breaks |= {call, "stream_synchronize"}
    slots[0].submit()
    with pytest.raises(CudaLost, match=r"CUDA error: .* broke; start the engine process anew"):
        slots[0].wait()
    cuda.breaks.clear()


def test_a_failure_that_only_ready_sees_is_told_by_wait(open_torch: Opener, random_frame: Frames) -> None:
    cuda = FakeCuda()
    (slot,) = open_torch(slots=1, cuda=cuda).slots(1)
    live, synthetic, attention = ring_slots(96, 128, 1)[0]
    slot.bind(live, synthetic, attention)
    slot.submit()
    cuda.breaks.add("query")
    assert slot.ready()
    with pytest.raises(EngineError, match="query event2 broke"):
        slot.wait()


def test_a_gpu_without_room_says_how_much_was_free(open_torch: Opener, tiny_model: Path) -> None:
    class Full(FakeCuda):
        def Stream(self) -> Any:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nmore")

    with pytest.raises(
        CudaOutOfMemory,
        match=r"needed GPU memory for tiny\.onnx for 96x128 with 2 slots, got: CUDA out of memory\. Tried to "
        r"allocate 20\.00 MiB\.; 1\.0 of 4\.0 GiB are free; end what else uses the GPU",
    ):
        open_torch(cuda=Full())


def test_other_settings_reach_the_device_before_the_next_frame_and_only_then(
    open_torch: Opener, random_frame: Frames
) -> None:
    engine = open_torch(slots=1, cuda=FakeCuda(), capture=False)
    slot = engine.slots(1)[0]
    live = random_frame(96, 128)
    infer(engine, live)
    buffers = slot._picture.settings
    places = buffers.table.data_ptr(), buffers.inverse.data_ptr(), buffers.field.data_ptr()
    engine.set_field(np.zeros((96, 128), np.uint8))
    assert buffers.field.min() == 255
    _, attention, _ = infer(engine, live)
    assert attention.max() == 0
    # A graph holds the buffers' addresses, so they must stay.
    assert places == (buffers.table.data_ptr(), buffers.inverse.data_ptr(), buffers.field.data_ptr())


def test_a_slot_keeps_the_arrays_it_is_bound_to(open_torch: Opener, random_frame: Frames) -> None:
    for more in ({}, {"cuda": FakeCuda(), "capture": False}):
        slot = open_torch(slots=1, **more).slots(1)[0]
        planes = [random_frame(96, 128), np.zeros((96, 128), np.uint8), np.zeros((96, 128), np.uint8)]
        gone = [weakref.ref(plane) for plane in planes]
        slot.bind(*planes)
        planes.clear()
        gc.collect()
        assert all(plane() is not None for plane in gone)
        slot.submit()
        slot.wait()


def test_a_slot_out_of_turn_is_refused(open_torch: Opener, random_frame: Frames) -> None:
    live = random_frame(96, 128)
    engine = open_torch(slots=1, cuda=FakeCuda())
    with pytest.raises(ValueError, match="opened with 1 slots, got a request for 2"):
        engine.slots(2)
    (slot,) = engine.slots(1)
    with pytest.raises(ValueError, match="not bound; bind"):
        slot.submit()
    with pytest.raises(ValueError, match="this slot is idle"):
        slot.wait()
    slot.bind(live, np.zeros_like(live), np.zeros_like(live))
    slot.submit()
    with pytest.raises(ValueError, match="in flight"):
        slot.submit()
    with pytest.raises(ValueError, match="only when it is idle"):
        slot.bind(live, np.zeros_like(live), np.zeros_like(live))
    slot.wait()
    read_only = np.zeros_like(live)
    read_only.flags.writeable = False
    with pytest.raises(ValueError, match="synthetic is written by the engine, got a read-only array"):
        slot.bind(live, read_only, np.zeros_like(live))


# On a GPU --------------------------------------------------------------------------------------------------------


@pytest.fixture
def open_on_gpu(tiny_model: Path, tiny_preset: PresetConfig) -> Iterator[Opener]:
    usable, why = probe("torch")
    if not usable:
        pytest.skip(why)
    opened: list[TorchEngine] = []

    def make(rows: int, columns: int, bits_stored: int, precision: Precision) -> TorchEngine:
        spec = EngineSpec(rows, columns, bits_stored)
        opened.append(TorchEngine(load_model(tiny_model), spec, precision=precision, preset=tiny_preset))
        return opened[-1]

    yield make
    for engine in opened:
        engine.close()


@pytest.mark.gpu
@pytest.mark.parametrize("bits_stored", [8, 12])
@pytest.mark.parametrize(("precision", "largest"), [("f32", 1.0), ("f16", 4.0)], ids=["f32", "f16"])
def test_a_gpu_draws_what_the_reference_draws(
    open_on_gpu: Opener,
    reference: Reference,
    random_frame: Frames,
    precision: Precision,
    largest: float,
    bits_stored: int,
) -> None:
    engine = open_on_gpu(465, 511, bits_stored, precision)
    assert all(isinstance(slot, CudaSlot) and slot.captured for slot in engine.slots(2))
    live = random_frame(465, 511, bits_stored)
    synthetic, attention, statistics = infer(engine, live)
    expected = run_reference(reference, engine.spec, live)
    assert statistics.finite
    assert grey_difference(attention, expected.attention) <= largest
    assert grey_difference(synthetic, expected.synthetic, bits_stored) <= largest
    np.testing.assert_array_equal(synthetic[attention == 0], live[attention == 0])


@pytest.mark.gpu
def test_two_slots_of_a_page_locked_ring_finish_in_order_and_keep_apart(
    open_on_gpu: Opener, random_frame: Frames, caplog: pytest.LogCaptureFixture
) -> None:
    engine = open_on_gpu(96, 128, 8, "f16")
    frames = [random_frame(96, 128, seed=seed) for seed in range(6)]
    alone = [infer(engine, frame) for frame in frames]
    slots, ring = engine.slots(2), ring_slots(96, 128, 6)
    free = torch.cuda.mem_get_info()[0]
    for start in range(0, 600, 2):
        for offset, slot in enumerate(slots):
            live, synthetic, attention = ring[(start + offset) % 6]
            live[:] = frames[(start + offset) % 6]
            slot.bind(live, synthetic, attention)
            slot.submit()
        slots[1].wait()
        assert slots[0].ready(), "the first submitted slot must be done when the second is"
        slots[0].wait()
        for offset in range(2):
            index = (start + offset) % 6
            np.testing.assert_array_equal(ring[index][1], alone[index][0])
            np.testing.assert_array_equal(ring[index][2], alone[index][1])
    assert torch.cuda.mem_get_info()[0] == free
    assert not caplog.records, "the ring must have been page-locked"


@pytest.mark.gpu
def test_a_capture_stands_beside_a_thread_that_keeps_the_gpu_busy(open_on_gpu: Opener) -> None:
    over = threading.Event()

    def work() -> None:
        values = torch.ones(64, 64, device="cuda")
        while not over.is_set():
            values = (values @ values).clamp(max=1.0)
            values.sum().item()

    busy = threading.Thread(target=work)
    busy.start()
    try:
        engine = open_on_gpu(96, 128, 8, "f16")
    finally:
        over.set()
        busy.join()
    assert all(isinstance(slot, CudaSlot) and slot.captured for slot in engine.slots(2))
