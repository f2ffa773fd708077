"""The slot machine on a pretended GPU that does its work late: order, overlap, reuse, failures, and nothing left behind."""

import itertools
import logging
import mmap
import runpy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engines.cuda import Cuda
from engines.cuda_slots import MAPPINGS_KEPT, CudaSlots, tensor_bytes
from engines.engine import EngineSpec, Slot
from engines.errors import CudaLost, EngineError

FAKES = runpy.run_path(str(Path(__file__).with_name("fake_cuda.py")))
FakeRuntime: Any = FAKES["FakeRuntime"]
SPEC = EngineSpec(64, 80)
DEEP = EngineSpec(64, 80, 12)


class Machine:
    """Slots on a pretended GPU, and what is theirs."""

    def __init__(self, runtime: Any, spec: EngineSpec = SPEC, **more: Any) -> None:
        self.runtime = runtime
        self.networks: list[Any] = []
        self.spec = spec

        def open_network(addresses: Any) -> Any:
            network = FAKES["FakeNetwork"](runtime, addresses, tensor_bytes(spec))
            self.networks.append(network)
            return network

        self.slots = CudaSlots(Cuda(runtime), spec, open_network, **more)

    def pair(self) -> list[Any]:
        return list(self.slots.slots(self.spec.slots))


@pytest.fixture
def runtime() -> Any:
    return FakeRuntime()


@pytest.fixture
def machine(runtime: Any) -> Iterator[Machine]:
    made = Machine(runtime)
    yield made
    made.slots.close()
    assert runtime.count_alive() == {}


class MappedRing:
    """Planes in one shared mapping, laid out as in the ring of the frame path."""

    def __init__(self, spec: EngineSpec, slots: int = 4) -> None:
        pixels = spec.rows * spec.columns
        stride = -(-(2 * spec.sample_bytes + 1) * pixels // 64) * 64 + 64
        self.memory = mmap.mmap(-1, stride * slots)
        dtype = np.uint8 if spec.sample_bytes == 1 else np.dtype("<u2")
        self.slots = []
        for index in range(slots):
            offset = 64 + index * stride
            planes = []
            for kind in (dtype, dtype, np.dtype(np.uint8)):
                plane = np.frombuffer(self.memory, kind, pixels, offset).reshape(spec.rows, spec.columns)
                planes.append(plane)
                offset += plane.nbytes
            self.slots.append(tuple(planes))


def fill(plane: np.ndarray, seed: int) -> np.ndarray:
    plane[:] = np.random.default_rng(seed).integers(0, 200, plane.shape)
    return plane.copy()


def expected(live: np.ndarray) -> np.ndarray:
    return (255 - live.view(np.uint8)).view(live.dtype)


# What comes out ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spec", [SPEC, DEEP], ids=["8 bits", "12 bits"])
@pytest.mark.parametrize("graphs", [True, False], ids=["graph", "no graph"])
def test_frames_through_a_ring_of_more_slots_come_out_each_as_its_own(
    runtime: Any, spec: EngineSpec, graphs: bool
) -> None:
    machine = Machine(runtime, spec, graphs=graphs)
    ring, waiting = MappedRing(spec, 5), []
    for frame in range(23):
        slot = machine.pair()[frame % 2]
        if len(waiting) == 2:
            waiting.pop(0)()
        planes = ring.slots[frame % 5]
        live = fill(planes[0], frame)
        slot.bind(*planes)
        slot.submit()

        def check(slot: Any = slot, planes: Any = planes, live: np.ndarray = live) -> None:
            said = slot.wait()
            np.testing.assert_array_equal(planes[1], expected(live))
            np.testing.assert_array_equal(planes[0], live)
            assert planes[2].max() > 0
            assert said.mean == pytest.approx(live.view(np.uint8).mean() / 255, abs=1e-5)

        waiting.append(check)
    for check in waiting:
        check()
    machine.slots.close()
    assert runtime.count_alive() == {}
    assert ("cudaGraphLaunch" in runtime.calls) == graphs


def test_the_ring_is_page_locked_once_as_a_whole_and_nothing_is_staged(
    machine: Machine, runtime: Any
) -> None:
    ring = MappedRing(SPEC)
    pinned = runtime.count_alive()["pinned"]
    for planes in ring.slots:
        for slot in machine.pair():
            slot.bind(*planes)
    assert runtime.calls.count("cudaHostRegister") == 1
    (registered,) = [thing for kind, thing in runtime.alive.values() if kind == "registered"]
    assert registered[1] == -(-len(ring.memory) // mmap.PAGESIZE) * mmap.PAGESIZE
    assert runtime.count_alive()["pinned"] == pinned


def test_two_engines_share_a_page_locked_ring_and_the_last_one_unlocks_it(runtime: Any) -> None:
    calls, ring = Cuda(runtime), MappedRing(SPEC)

    def open_one() -> CudaSlots:
        return CudaSlots(calls, SPEC, lambda at: FAKES["FakeNetwork"](runtime, at, tensor_bytes(SPEC)))

    first, second = open_one(), open_one()
    for engine in (first, second):
        engine.slots(1)[0].bind(*ring.slots[0])
    first.close()
    assert runtime.calls.count("cudaHostRegister") == 1
    assert runtime.count_alive()["registered"] == 1
    live = fill(ring.slots[0][0], 1)
    (slot,) = second.slots(1)
    slot.submit()
    slot.wait()
    np.testing.assert_array_equal(ring.slots[0][1], expected(live))
    second.close()
    assert runtime.count_alive() == {}


def test_rings_that_are_gone_do_not_stay_page_locked_for_ever(machine: Machine, runtime: Any) -> None:
    slot, _ = machine.pair()
    for _ in range(3 * MAPPINGS_KEPT):
        slot.bind(*MappedRing(SPEC, 1).slots[0])
        slot.submit()
        slot.wait()
    assert runtime.count_alive()["registered"] == MAPPINGS_KEPT


def test_planes_of_the_heap_go_through_pinned_buffers(machine: Machine, runtime: Any) -> None:
    slot, _ = machine.pair()
    live, synthetic, attention = (np.zeros((64, 80), np.uint8) for _ in range(3))
    for seed in range(3):
        fill(live, seed)
        live.flags.writeable = False
        slot.bind(live, synthetic, attention)
        slot.submit()
        slot.wait()
        np.testing.assert_array_equal(synthetic, 255 - live)
        np.testing.assert_array_equal(attention, live)
        live.flags.writeable = True
    assert runtime.calls.count("cudaHostRegister") == 0


def test_a_ring_that_cannot_be_page_locked_is_staged_and_said_once(
    machine: Machine, runtime: Any, caplog: pytest.LogCaptureFixture
) -> None:
    runtime.fail("cudaHostRegister", "cudaErrorNotSupported", times=99)
    for seed in range(4):
        ring = MappedRing(SPEC)
        for slot in machine.pair():
            slot.bind(*ring.slots[seed])
            live = fill(ring.slots[seed][0], seed)
            slot.submit()
            slot.wait()
            np.testing.assert_array_equal(ring.slots[seed][1], expected(live))
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage()[:45] for record in said] == ["frames are copied once more on the host, thro"]
    assert "cudaHostRegister failed: cudaErrorNotSupported" in said[0].getMessage()


def test_grey_levels_and_field_change_between_frames_in_the_order_of_submission(
    machine: Machine, runtime: Any
) -> None:
    ring = MappedRing(SPEC)
    first, second = machine.pair()
    for slot, planes in zip((first, second), ring.slots, strict=False):
        fill(planes[0], 3)
        slot.bind(*planes)
    copies = runtime.calls.count("cudaMemcpyAsync")
    first.submit()
    assert runtime.calls.count("cudaMemcpyAsync") - copies == 4
    field = np.zeros((64, 80), np.uint8)
    field[10:20] = 255
    settings = machine.slots.settings.with_field(field)
    table = np.linspace(0.25, 1.0, 256, dtype=np.float32)
    machine.slots.settings = settings.with_tables(table, np.linspace(0, 77, 256, dtype=np.float32))
    second.submit()
    before, after = first.wait(), second.wait()
    assert (before.minimum, before.maximum, before.area) == (0.0, 255.0, 1.0)
    assert (after.minimum, after.maximum, after.area) == (0.25, 77.0, pytest.approx(10 / 64))
    assert ring.slots[1][2][:10].max() == 0
    assert ring.slots[0][2][:10].max() > 0


# Order and overlap --------------------------------------------------------------------------------------------------


def stream_saturated(machine: Machine, frames: int = 12) -> list[Any]:
    """Two frames in flight at all times; the times of each frame."""
    ring, slots, times = MappedRing(machine.spec), machine.pair(), []
    for frame in range(frames):
        slot = slots[frame % 2]
        if frame >= 2:
            slot.wait()
            times.append(slot.times())
        slot.bind(*ring.slots[frame % 4])
        slot.submit()
    for frame in range(frames, frames + 2):
        slots[frame % 2].wait()
        times.append(slots[frame % 2].times())
    return times


def test_copies_run_beside_the_inference_of_the_other_slot(runtime: Any) -> None:
    machine = Machine(runtime, timed=True)
    times = stream_saturated(machine)
    for before, now in itertools.pairwise(times[1:]):
        # Each inference follows the one before at once: neither copy stands between them.
        assert now.inference[0] == before.inference[1]
        assert now.copy_in[1] <= before.inference[1]
        assert now.inference[0] < before.copy_out[1] <= now.inference[1]
    machine.slots.close()
    assert runtime.count_alive() == {}


def test_inferences_never_overlap_and_frames_are_done_in_their_order(runtime: Any) -> None:
    FAKES["DURATION_MS"].update({"copy out": 9.0})
    try:
        machine = Machine(runtime, timed=True)
        times = stream_saturated(machine)
    finally:
        FAKES["DURATION_MS"].update({"copy out": 1.0})
    for before, now in itertools.pairwise(times):
        assert now.inference[0] >= before.inference[1]
        assert now.copy_out[1] > before.copy_out[1]
    machine.slots.close()


def test_ready_never_waits_and_becomes_true(machine: Machine, runtime: Any) -> None:
    slot, _ = machine.pair()
    assert slot.ready()
    slot.bind(*MappedRing(SPEC).slots[0])
    runtime.calls.clear()
    slot.submit()
    assert not slot.ready()
    assert not {"cudaStreamSynchronize", "cudaEventSynchronize"} & set(runtime.calls)
    while not slot.ready():
        pass
    slot.wait()
    assert slot.ready()


def test_nothing_waits_on_the_host_between_submit_and_wait(machine: Machine, runtime: Any) -> None:
    ring = MappedRing(SPEC)
    runtime.log.clear()
    for slot, planes in zip(machine.pair(), ring.slots, strict=False):
        slot.bind(*planes)
        slot.submit()
    assert runtime.log == []
    for slot in machine.pair():
        slot.wait()
    assert [kind for kind, *_ in runtime.log].count("kernel") == 2


def test_a_slot_out_of_turn_is_refused(machine: Machine) -> None:
    slot, _ = machine.pair()
    assert isinstance(slot, Slot)
    planes = MappedRing(SPEC).slots[0]
    with pytest.raises(ValueError, match="not bound; bind"):
        slot.submit()
    with pytest.raises(ValueError, match="this slot is idle"):
        slot.wait()
    with pytest.raises(ValueError, match="timed=True"):
        slot.times()
    slot.bind(*planes)
    slot.submit()
    with pytest.raises(ValueError, match="in flight"):
        slot.submit()
    with pytest.raises(ValueError, match="only when it is idle"):
        slot.bind(*planes)
    with pytest.raises(ValueError, match="opened with 2 slots, got a request for 3"):
        machine.slots.slots(3)
    slot.wait()


# Graphs -------------------------------------------------------------------------------------------------------------


def test_a_graph_holds_the_inference_alone(machine: Machine, runtime: Any) -> None:
    graphs = [thing for kind, thing in runtime.alive.values() if kind == "executable"]
    assert [[work.engine for work in graph.work] for graph in graphs] == [["kernel"], ["kernel"]]
    assert "graph" not in runtime.count_alive()


@pytest.mark.parametrize(
    ("call", "code"),
    [
        pytest.param("cudaStreamBeginCapture", "cudaErrorNotSupported", id="begin"),
        pytest.param("cudaStreamEndCapture", "cudaErrorStreamCaptureInvalidated", id="end"),
        pytest.param("cudaGraphInstantiate", "cudaErrorMemoryAllocation", id="instantiate"),
        pytest.param("cudaGraphLaunch", "cudaErrorInvalidValue", id="launch"),
    ],
)
def test_a_capture_that_fails_is_said_once_and_the_slots_run_without(
    runtime: Any, caplog: pytest.LogCaptureFixture, call: str, code: str
) -> None:
    runtime.fail(call, code, times=2)
    machine = Machine(runtime)
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1
    assert said[0].startswith("inferences run without a CUDA graph, so each frame takes longer: ")
    assert f"{call} failed: {code}" in said[0]
    launched = runtime.calls.count("cudaGraphLaunch")
    ring = MappedRing(SPEC)
    for slot, planes in zip(machine.pair(), ring.slots, strict=False):
        live = fill(planes[0], 5)
        slot.bind(*planes)
        slot.submit()
        slot.wait()
        np.testing.assert_array_equal(planes[1], expected(live))
    assert runtime.calls.count("cudaGraphLaunch") == launched
    machine.slots.close()
    assert runtime.count_alive() == {}


def test_a_network_that_refuses_to_be_captured_leaves_no_capture_open(
    runtime: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def open_network(addresses: Any) -> Any:
        network = FAKES["FakeNetwork"](runtime, addresses, tensor_bytes(SPEC))
        enqueue = network.enqueue

        def refuse_when_captured(stream: int) -> None:
            if runtime._streams[stream].capture is not None:
                raise EngineError("the network synchronises")
            enqueue(stream)

        network.enqueue = refuse_when_captured
        return network

    slots = CudaSlots(Cuda(runtime), SPEC, open_network)
    assert "the network synchronises" in caplog.text
    planes = MappedRing(SPEC).slots[0]
    (slot,) = slots.slots(1)
    slot.bind(*planes)
    slot.submit()
    slot.wait()
    slots.close()
    assert runtime.count_alive() == {}


# Failures -----------------------------------------------------------------------------------------------------------

OPENING = [
    pytest.param(call, after, id=f"{call} {after}")
    for call, calls in (
        ("cudaSetDevice", (0,)),
        ("cudaMalloc", (0, 7, 8, 15)),
        ("cudaHostAlloc", (0, 4, 9)),
        ("cudaStreamCreateWithFlags", (0, 1)),
        ("cudaEventCreateWithFlags", (0, 3)),
        ("cudaMemcpyAsync", (0, 3, 7)),
        ("cudaStreamSynchronize", (0, 1, 3)),
    )
    for after in calls
]


@pytest.mark.parametrize(("call", "after"), OPENING)
def test_a_call_that_fails_while_opening_leaves_nothing_behind(runtime: Any, call: str, after: int) -> None:
    runtime.fail(call, "cudaErrorMemoryAllocation", after=after)
    with pytest.raises(EngineError, match=f"{call} failed: cudaErrorMemoryAllocation"):
        Machine(runtime)
    assert runtime.count_alive() == {}


def test_a_network_that_cannot_be_opened_leaves_nothing_behind(runtime: Any) -> None:
    opened: list[Any] = []

    def second_fails(addresses: Any) -> Any:
        if opened:
            raise EngineError("no memory for a second context")
        opened.append(FAKES["FakeNetwork"](runtime, addresses, tensor_bytes(SPEC)))
        return opened[0]

    with pytest.raises(EngineError, match="no memory for a second context"):
        CudaSlots(Cuda(runtime), SPEC, second_fails)
    assert runtime.count_alive() == {}


RUNNING = [
    pytest.param("cudaMemcpyAsync", 0, id="copy in"),
    pytest.param("cudaMemcpyAsync", 1, id="copy out of synthetic"),
    pytest.param("cudaMemcpyAsync", 2, id="copy out of attention"),
    pytest.param("cudaMemcpyAsync", 3, id="copy out of statistics"),
    pytest.param("cudaGraphLaunch", 0, id="launch"),
    pytest.param("cudaEventRecord", 0, id="inferred"),
    pytest.param("cudaEventRecord", 1, id="done"),
    pytest.param("cudaStreamWaitEvent", 0, id="wait for the inference before"),
    pytest.param("cudaStreamWaitEvent", 1, id="wait for the frame before"),
    pytest.param("cudaEventSynchronize", 0, id="wait"),
]


@pytest.mark.parametrize(("call", "after"), RUNNING)
def test_a_call_that_fails_on_a_frame_is_told_by_wait_and_the_next_frame_is_fine(
    machine: Machine, runtime: Any, call: str, after: int
) -> None:
    ring = MappedRing(SPEC)
    first, second = machine.pair()
    first.bind(*ring.slots[0])
    first.submit()
    first.wait()
    second.bind(*ring.slots[1])
    runtime.fail(call, "cudaErrorMemoryAllocation", after=after)
    second.submit()  # never raises: the frame path hears of it where it waits
    if call != "cudaEventSynchronize":
        assert second.ready()
    with pytest.raises(EngineError, match=f"{call} failed: cudaErrorMemoryAllocation .* is full"):
        second.wait()
    for slot, planes in zip((first, second, first, second), ring.slots, strict=True):
        live = fill(planes[0], 9)
        slot.bind(*planes)
        slot.submit()
        slot.wait()
        np.testing.assert_array_equal(planes[1], expected(live))


def test_nothing_writes_into_the_planes_of_a_frame_that_failed_once_wait_has_told(
    machine: Machine, runtime: Any
) -> None:
    ring = MappedRing(SPEC)
    slot, other = machine.pair()
    slot.bind(*ring.slots[0])
    runtime.fail("cudaMemcpyAsync", "cudaErrorInvalidValue", after=2)
    slot.submit()
    with pytest.raises(EngineError, match="cudaMemcpyAsync failed"):
        slot.wait()
    ring.slots[0][1][:] = 7  # the ring slot is somebody else's now
    other.bind(*ring.slots[1])
    other.submit()
    other.wait()
    assert (ring.slots[0][1] == 7).all()


def test_pinned_memory_that_is_full_while_binding_is_told_by_wait(machine: Machine, runtime: Any) -> None:
    slot, _ = machine.pair()
    planes = [np.zeros((64, 80), np.uint8) for _ in range(3)]
    runtime.fail("cudaHostAlloc", "cudaErrorMemoryAllocation")
    slot.bind(*planes)
    slot.submit()
    with pytest.raises(EngineError, match="cudaHostAlloc failed"):
        slot.wait()
    slot.bind(*planes)
    slot.submit()
    slot.wait()
    assert planes[1].min() == 255


def test_a_gpu_that_is_lost_is_told_apart_and_closing_still_works(
    runtime: Any, caplog: pytest.LogCaptureFixture
) -> None:
    machine = Machine(runtime)
    slot, other = machine.pair()
    ring = MappedRing(SPEC)
    slot.bind(*ring.slots[0])
    other.bind(*ring.slots[1])
    other.submit()
    slot.submit()
    for call in ("cudaEventSynchronize", "cudaStreamSynchronize", "cudaFree", "cudaGraphExecDestroy"):
        runtime.fail(call, "cudaErrorIllegalAddress", times=99)
    with pytest.raises(CudaLost, match=r"cudaErrorIllegalAddress.*start the engine anew"):
        slot.wait()
    runtime._finish(slot._stream)  # what the driver throws away when a context dies
    runtime._finish(other._stream)
    machine.slots.close()
    assert set(runtime.count_alive()) == {"device", "executable"}
    assert "things on closing; they go with this process" in caplog.text


@pytest.mark.parametrize("flight", [0, 1, 2])
def test_closing_waits_for_what_is_in_flight(runtime: Any, flight: int) -> None:
    machine = Machine(runtime)
    ring = MappedRing(SPEC)
    lives = []
    for slot, planes in list(zip(machine.pair(), ring.slots, strict=False))[:flight]:
        lives.append((fill(planes[0], 4), planes))
        slot.bind(*planes)
        slot.submit()
    machine.slots.close()
    machine.slots.close()
    for live, planes in lives:
        np.testing.assert_array_equal(planes[1], expected(live))
    assert runtime.count_alive() == {}


def test_hundreds_of_frames_leave_as_much_alive_as_one(machine: Machine, runtime: Any) -> None:
    ring = MappedRing(SPEC)
    slot, _ = machine.pair()
    counts: Callable[[], Any] = runtime.count_alive
    alive = None
    for frame in range(300):
        slot.bind(*ring.slots[frame % 4])
        slot.submit()
        slot.wait()
        alive = alive or counts()
    assert counts() == alive
