"""The engine process' loop, with engine slots that fail as a GPU does."""

import socket
import threading
from collections.abc import Callable

import numpy as np
import pytest

from engines.engine import FrameStatistics
from engines.errors import CudaError, CudaLost
from stream.control import DONE, LEASE, ChildSocket, Kind, unpack_json
from stream.drawer import Drawer
from stream.frame import FrameFormat
from stream.infer import Inferrer, Told, finish
from stream.ring import RingMemory


class FailingSlot:
    """An engine slot whose every frame ends as told."""

    def __init__(self, fail: Callable[[], FrameStatistics]) -> None:
        self._fail = fail

    def bind(self, live: np.ndarray, synthetic: np.ndarray, attention: np.ndarray) -> None: ...

    def submit(self) -> None: ...

    def ready(self) -> bool:
        return True

    def wait(self) -> FrameStatistics:
        return self._fail()


def lost() -> FrameStatistics:
    raise CudaLost("the GPU is lost", call="cudaEventSynchronize", code="cudaErrorUnknown")


def failed() -> FrameStatistics:
    raise CudaError("one frame failed", call="cudaGraphLaunch", code="cudaErrorLaunchTimeout")


@pytest.mark.parametrize(
    ("fail", "ends"), [pytest.param(lost, [1], id="lost"), pytest.param(failed, [], id="one frame")]
)
def test_only_a_gpu_that_is_lost_ends_the_engine_process(
    fail: Callable[[], FrameStatistics], ends: list[int]
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(30.0)
    memory = RingMemory.create(FrameFormat(64, 64, 8), 4)
    ended: list[int] = []
    guard = ChildSocket(theirs.detach())
    inferrer = Inferrer(guard, Drawer([FailingSlot(fail)], memory), end=ended.append)
    runner = threading.Thread(target=inferrer.run)
    runner.start()
    ours.send(LEASE.pack(Kind.LEASE, 2, 7, 0))
    note = ours.recv(1 << 16)
    assert note[0] == Kind.NOTE
    assert unpack_json(note)["message"] in ("the GPU is lost", "one frame failed")
    if not ends:
        kind, slot, epoch, _, _, valid, *_ = DONE.unpack(ours.recv(1 << 16))
        assert (kind, slot, epoch, valid) == (Kind.DONE, 2, 7, 0)
    ours.close()
    runner.join(30.0)
    assert not runner.is_alive()
    assert ended == ends
    guard._socket.close()
    memory.close()


@pytest.mark.parametrize(
    ("minimum", "maximum", "finite", "valid"),
    [
        pytest.param(0.0, 0.8, True, True, id="a map"),
        pytest.param(0.0, 0.0, True, True, id="no vessels"),
        pytest.param(0.5, 0.5, True, False, id="one value everywhere"),
        pytest.param(1.0, 1.0, True, False, id="wholly synthetic"),
        pytest.param(0.0, 0.8, False, False, id="not finite"),
    ],
)
def test_an_output_that_can_be_no_attention_map_is_not_valid(
    minimum: float, maximum: float, finite: bool, valid: bool
) -> None:
    said = FrameStatistics(finite, minimum, maximum, minimum, 1.0, 0.5, np.zeros(71, np.float32))
    done, failure = finish(FailingSlot(lambda: said), 2, 7, 0)
    assert failure is None
    assert bool(DONE.unpack(done)[5]) is valid


def test_a_failure_is_said_once_whatever_its_figures() -> None:
    told = Told()
    assert told.is_new(CudaError("no room, 812 of 8000 MB are free", call="a", code="b"))
    assert not told.is_new(CudaError("no room, 7 of 8000 MB are free", call="a", code="b"))
    assert told.is_new(CudaError("the network refuses", call="a", code="b"))
