"""What becomes of a lost engine: the live picture waits neither for its death nor for its slots."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from stream.adaptation import PatientSide
from stream.engine_side import EngineSide
from stream.frame import FrameFormat, Reason, State
from stream.guard import Guard
from stream.outgoing import Grabbed, Outgoing
from stream.ring import Ring
from stream.timing import FakeClock


class SlowToDie:
    """An engine's link whose process goes on for a while after it was killed."""

    def __init__(self) -> None:
        self.socket, self._other = socket.socketpair()
        self.pidfd = -1
        self.at_end = False
        self.dead = self.asked = False

    def send(self, packet: bytes) -> bool:
        return True

    def receive(self) -> bytes | None:
        return None

    def has_ended(self) -> bool:
        return self.dead

    def end_soon(self) -> None:
        self.asked = True

    def kill(self) -> int:
        assert self.dead, "the guard waited for a process that is not dead"
        self.close()
        return -9

    def close(self) -> None:
        self.socket.close()
        self._other.close()


class OneEngine:
    """Gives the engine that it holds, and notes when it is told of a loss."""

    restarts = 0

    def __init__(self, link: SlowToDie) -> None:
        self.next: SlowToDie | None = link
        self.lost_with: list[int | None] = []

    def descriptor(self) -> int | None:
        return None

    def hear(self) -> None: ...

    def due(self) -> Any:
        link, self.next = self.next, None
        return link

    def healthy(self) -> None: ...

    def lost(self, link: Any, status: int | None, *, said: bool) -> None:
        self.lost_with.append(status)

    def replace(self, link: Any) -> bool:
        link.end_soon()
        return True

    def refused(self) -> None: ...

    def end(self, link: Any) -> None:
        link.close()

    def watch_gpu(self, backend: str, bus_id: str | None) -> Any:
        raise AssertionError


@pytest.fixture
def ring() -> Iterator[Ring]:
    made = Ring(FrameFormat(64, 64), 4)
    yield made
    made.close()


@pytest.mark.parametrize("given_up", ["lost", "replaced for another format"])
def test_frames_go_on_at_once_and_the_slot_waits_for_the_death(ring: Ring, given_up: str) -> None:
    lost = given_up == "lost"
    clock, link, out = FakeClock(), SlowToDie(), []
    supply = OneEngine(link)
    side = EngineSide(
        supply,
        wanted=True,
        domain=False,
        may_wait=True,
        note=lambda _: None,
        patient=PatientSide(clock, lambda *_: None),
    )

    def publish(frame: Outgoing) -> None:
        out.append((frame.state, frame.reason))

    side.guard = Guard(ring, clock, publish, side.submit, rate_hz=10.0)
    side.ask(ring.memory, 1)
    side.ready = {"backend": "of a test"}
    side.guard.engine_ready(taught=True, inference_ns=1)
    slot = ring.grant()
    assert slot is not None
    ring.fill(slot)
    side.guard.frame_grabbed(Grabbed(slot, 0, clock.now_ns(), clock.now_ns()))
    assert out == []
    free = ring.free()

    side.lose() if lost else side.replace()
    assert link.asked
    assert out == [(State.PASSTHROUGH, Reason.ENGINE_LOST if lost else Reason.STARTING)]
    assert ring.free() == free, "a slot was free while its engine could still write"
    assert side.guard.hung_since_ns() is None
    supply.next = SlowToDie()
    side.ask(ring.memory, 1)
    assert side.link is None, "another engine was taken while the first could still write"
    side.see_death(set())
    assert supply.lost_with == []

    link.dead = True
    side.see_death(set())
    assert supply.lost_with == ([-9] if lost else [])
    assert ring.free() == free + 1
    second = supply.next
    side.ask(ring.memory, 1)
    assert side.link is second
    side.end()
