"""The small parts of a frame's way, one at a time: `make micro`. Measured by pytest-benchmark, never judged by `make test`.

Before each round of a part the floor runs once: a plain copy of one frame and a bare Python loop. Its times are kept with the
part's, and `contrastream bench compare` divides by them when it compares two of these files, so that the machine's mood in
that very second cancels. A round repeats a part that is shorter than its clock.

Grey table and letterbox have no part of their own on the CPU: they are inside the network's graph, so the engine's step
holds them. The web viewer encodes no picture (the browser gets the message itself); what it encodes is its state message.
"""

import json
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

from stream.display.compose import Composer, View
from stream.display.relay import heartbeat_figures
from stream.frame import FrameFormat, Plane, Reason, State
from stream.infer import open_for
from stream.repeats import RepeatDetector
from stream.ring import Ring
from stream.subscribe import Shown
from stream.wire import Header, Layout, pack_header, plane_crcs, unpack

FORMAT = FrameFormat(512, 512)
PLANES = Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION
STATUS: dict[str, Any] = {
    "engine": {"backend": "openvino", "precision": "f32", "model_sha256": "ab" * 32, "inference_ms": 12.3},
    "source": {"kind": "phantom", "notes": ["digital phantom"]},
    "counters": {
        "dropped": {"late": 3},
        "passthrough": {"deadline": 2},
        "synthetic": 1000,
        "published": 1002,
    },
    "fps_in": 30.0,
    "fps_out": 30.0,
}


@pytest.fixture(scope="module")
def frames() -> np.ndarray:
    """(2, 512, 512) uint8 of noise: no two alike, nothing to compress."""
    return np.random.default_rng(1).integers(0, 256, (2, 512, 512)).astype(np.uint8)


@pytest.fixture
def ring() -> Iterator[Ring]:
    ring = Ring(FORMAT, 8)
    yield ring
    ring.close()


def _header(crc: tuple[int, int, int] | None = None) -> Header:
    return Header(bytes(16), 7, 5, FORMAT, State.SYNTHETIC, Reason.NONE, PLANES, rate_hz=30.0, crc=crc)


def _slot() -> tuple[memoryview, Layout]:
    layout = Layout.of(FORMAT)
    return memoryview(bytearray(np.random.default_rng(2).bytes(layout.size))), layout


ROUNDS = 400
Measure = Callable[..., None]


@pytest.fixture
def measure(benchmark: Any, frames: np.ndarray) -> Measure:
    """`measure(part, repeats)` times a part, the floor before each round of it."""
    # Not at the source's own place in a page: there memcpy was seen to take ten times as long (glibc bug 30994).
    held = np.zeros(frames[0].size + 1024, np.uint8)[1024:].reshape(frames[0].shape)
    floor_s: list[float] = []

    def floor() -> None:
        start = time.perf_counter()
        np.copyto(held, frames[0])
        for _ in range(500):
            pass
        floor_s.append(time.perf_counter() - start)

    def timed(part: Callable[[], object], repeats: int = 1) -> None:
        def several() -> None:
            for _ in range(repeats):
                part()

        for _ in range(20):
            part()
        benchmark.pedantic(several, setup=floor, rounds=ROUNDS)
        benchmark.extra_info["repeats"] = repeats
        benchmark.extra_info["floor_s"] = floor_s

    return timed


def test_ring_write(measure: Measure, ring: Ring, frames: np.ndarray) -> None:
    def write() -> None:
        slot = ring.grant()
        assert slot is not None
        np.copyto(ring.slots[slot].live, frames[0])
        ring.fill(slot)
        ring.release(slot)

    measure(write, 5)


def test_ring_read(measure: Measure, ring: Ring, frames: np.ndarray) -> None:
    slot = ring.grant()
    assert slot is not None
    view, held = ring.slots[slot].live, np.zeros_like(frames[0])
    view[:] = frames[0]
    measure(lambda: np.copyto(held, view), 5)
    assert (held == frames[0]).all()


def test_ring_lease_and_return(measure: Measure, ring: Ring) -> None:
    def lease() -> None:
        slot = ring.grant()
        assert slot is not None
        ring.fill(slot)
        ring.lease(slot, 1)
        ring.return_lease(slot, 1)
        ring.release(slot)

    measure(lease, 50)


def test_wire_pack(measure: Measure) -> None:
    slot, layout = _slot()
    header = _header()
    measure(lambda: pack_header(slot, header, layout), 10)
    assert unpack(bytes(slot[: layout.message_bytes(FORMAT, PLANES)])).header.sequence == 7


def test_wire_crc_of_three_planes(measure: Measure) -> None:
    slot, layout = _slot()
    measure(lambda: plane_crcs(slot, FORMAT, PLANES, layout))


@pytest.mark.parametrize("crc", [False, True], ids=["plain", "with CRC"])
def test_wire_unpack(measure: Measure, crc: bool) -> None:
    slot, layout = _slot()
    length = pack_header(slot, _header(plane_crcs(slot, FORMAT, PLANES, layout) if crc else None), layout)
    data = bytes(slot[:length])
    measure(lambda: unpack(data), 5)


def test_repeat_detector(measure: Measure, frames: np.ndarray) -> None:
    detector = RepeatDetector(FORMAT, noise=True)
    detector.is_repeat(frames[0])
    order = iter(range(1 << 60))
    measure(lambda: detector.is_repeat(frames[next(order) & 1]))


def test_web_viewer_state_message(measure: Measure) -> None:
    measure(lambda: json.dumps(heartbeat_figures(STATUS)), 5)


def test_window_compose_side_by_side(measure: Measure) -> None:
    slot, layout = _slot()
    length = pack_header(slot, _header(), layout)
    message, composer = unpack(bytes(slot[:length])), Composer()
    measure(lambda: composer.draw(message, View("side"), Shown(State.SYNTHETIC), "12 ms", None))


def test_engine_step(measure: Measure, frames: np.ndarray) -> None:
    config = {"model": "compact", "backend": "openvino", "untaught": False, "threads": None, "slots": 1}
    engine = open_for(FORMAT, config).engine
    (slot,) = engine.slots(1)
    slot.bind(frames[0], np.zeros_like(frames[0]), np.zeros_like(frames[0]))

    def step() -> None:
        slot.submit()
        slot.wait()

    try:
        measure(step)
    finally:
        engine.close()
