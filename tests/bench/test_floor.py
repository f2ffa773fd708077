"""The floor: real processes, the pipeline's bytes and planes."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
import zmq

from bench.floor import Block, Floor, FloorSamples
from stream.frame import FrameFormat, Plane
from stream.timing import NS_PER_S
from stream.wire import HEADER_ROOM, Layout

ALL = Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION
PERIOD_NS = NS_PER_S / 100


def _children() -> set[int]:
    pid = os.getpid()
    tasks = Path(f"/proc/{pid}/task").glob("*/children")
    return {int(child) for task in tasks for child in task.read_text().split()}


def test_every_frame_of_every_block_arrives_with_its_stamps_in_order() -> None:
    before = _children()
    with Floor(FrameFormat(96, 128), ALL) as floor:
        start_ns = time.monotonic_ns() + NS_PER_S // 10
        later_ns = start_ns + NS_PER_S // 5
        floor.begin([Block(start_ns, 8), Block(later_ns, 4)], PERIOD_NS)
        samples = floor.finish(30.0)
        assert floor.take().stamps_ns.shape == (0, 6)
    expected = [start_ns + i * PERIOD_NS for i in range(8)] + [later_ns + i * PERIOD_NS for i in range(4)]
    assert samples.stamps_ns[:, 0].tolist() == [round(due) for due in expected]
    assert (np.diff(samples.stamps_ns, axis=1) >= 0).all()
    assert _children() == before


def test_without_an_engine_frames_go_from_the_publisher_straight_to_the_client() -> None:
    before = _children()
    with Floor(FrameFormat(96, 128), Plane.LIVE, engine=False) as floor:
        assert len(_children() - before) == 3
        floor.begin([Block(time.monotonic_ns() + NS_PER_S // 10, 8)], PERIOD_NS)
        samples = floor.finish(30.0)
    assert samples.stamps_ns.shape == (8, 6)
    assert not samples.stamps_ns[:, 2:4].any()
    assert samples.overhead_ms().tolist() == samples.total_ms().tolist()
    assert set(samples.stages_ms()) == {"grab", "guard", "transport"}
    assert all((times >= 0).all() for times in samples.stages_ms().values())


@pytest.mark.parametrize(
    ("frame_format", "planes"),
    [
        pytest.param(FrameFormat(96, 128), ALL, id="8 bits, three planes"),
        pytest.param(FrameFormat(96, 128, 12), ALL, id="12 bits, three planes"),
        pytest.param(FrameFormat(96, 128), Plane.LIVE, id="live plane only"),
    ],
)
def test_a_message_has_the_bytes_of_the_pipelines_own(frame_format: FrameFormat, planes: Plane) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    layout = Layout.of(frame_format)
    try:
        with Floor(frame_format, planes) as floor:
            client = context.socket(zmq.SUB)
            client.setsockopt(zmq.SUBSCRIBE, b"")
            client.connect(floor.address)
            floor.begin([Block(time.monotonic_ns() + NS_PER_S // 5, 30)], PERIOD_NS)
            floor.finish(30.0)
            assert client.poll(0)
            message = client.recv()
        assert len(message) == layout.message_bytes(frame_format, planes)
        live = np.frombuffer(message, frame_format.dtype, frame_format.pixels, HEADER_ROOM)
        assert live.max() > frame_format.max_value // 2
        if planes == ALL:
            attention = np.frombuffer(message, np.uint8, frame_format.pixels, layout.attention)
            assert (attention == 1).all()
    finally:
        context.destroy(linger=0)


def test_overhead_is_all_but_the_stand_in_for_the_engine() -> None:
    ms = 1_000_000
    samples = FloorSamples(np.array([[0, 1, 2, 7, 8, 10]], np.int64) * ms)
    assert samples.total_ms().tolist() == [10.0]
    assert samples.overhead_ms().tolist() == [5.0]
    assert {name: times.tolist() for name, times in samples.stages_ms().items()} == {
        "grab": [1.0],
        "submit": [1.0],
        "engine": [5.0],
        "guard": [1.0],
        "transport": [2.0],
    }
