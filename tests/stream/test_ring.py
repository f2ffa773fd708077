import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from stream.control import Kind, receive_ring, send_ring
from stream.frame import FrameFormat, Plane
from stream.ring import Ring, RingMemory
from stream.wire import Layout

FORMAT = FrameFormat(64, 80, 12)


class Send:
    """A send whose end the test decides."""

    done = False


@pytest.fixture
def ring() -> Iterator[Ring]:
    ring = Ring(FORMAT, 4)
    yield ring
    ring.close()


def filled(ring: Ring) -> int:
    """A slot that the source has written."""
    slot = ring.grant()
    assert slot is not None
    ring.fill(slot)
    return slot


def others_taken(ring: Ring, free: int) -> None:
    """Grant every free slot but `free`, so that only that one can be granted next."""
    while (slot := ring.grant()) is not None and slot != free:
        pass


def test_a_slot_lives_from_grant_to_the_end_of_its_send(ring: Ring) -> None:
    slot = ring.grant()
    assert slot == 0
    ring.fill(slot)
    ring.lease(slot, 1)
    assert ring.return_lease(slot, 1)
    send = Send()
    ring.sent(slot, send)
    ring.release(slot)
    assert ring.free() == 3
    send.done = True
    assert ring.free() == 4
    assert ring.idle()


def test_slots_are_given_out_in_turn_the_oldest_first(ring: Ring) -> None:
    assert [ring.grant() for _ in range(4)] == [0, 1, 2, 3]
    for slot in (2, 0):
        ring.fill(slot)
        ring.release(slot)
    assert [ring.grant(), ring.grant()] == [0, 2]


def test_a_full_ring_grants_nothing_and_counts_it(ring: Ring) -> None:
    for _ in range(4):
        assert ring.grant() is not None
    assert ring.grant() is None
    assert ring.grant() is None
    assert ring.statistics()["refused"] == 2


@pytest.mark.parametrize("holder", ["grant", "wait", "lease", "first send", "second send"])
def test_each_holder_alone_keeps_a_slot(ring: Ring, holder: str) -> None:
    slot = ring.grant()
    assert slot is not None
    sends = [Send(), Send()]
    if holder != "grant":
        ring.fill(slot)
        ring.lease(slot, 5)
        for send in sends:
            ring.sent(slot, send)
        if holder != "wait":
            ring.release(slot)
        if holder != "lease":
            ring.return_lease(slot, 5)
        sends[0].done = holder != "first send"
        sends[1].done = holder != "second send"
    for _ in range(3):
        assert ring.grant() not in (slot, None)
    assert ring.grant() is None
    assert not ring.idle()


def test_a_slot_whose_every_holder_let_go_is_granted_again(ring: Ring) -> None:
    slot = filled(ring)
    ring.lease(slot, 9)
    ring.release(slot)
    others_taken(ring, slot)
    assert ring.grant() is None
    assert ring.return_lease(slot, 9)
    assert ring.grant() == slot
    assert ring.generation(slot) == 2


def test_a_lease_of_another_epoch_changes_nothing(ring: Ring) -> None:
    slot = filled(ring)
    ring.lease(slot, 3)
    assert not ring.return_lease(slot, 2)
    assert ring.statistics()["leased"] == 1
    assert ring.return_lease(slot, 3)
    assert not ring.return_lease(slot, 3)


@pytest.mark.parametrize("state", ["free", "granted", "leased"])
def test_only_a_waiting_slot_can_be_leased_and_only_once(ring: Ring, state: str) -> None:
    slot = 0
    if state == "granted":
        slot = ring.grant() or 0
    elif state == "leased":
        slot = filled(ring)
        ring.lease(slot, 1)
    with pytest.raises(ValueError, match=f"slot {slot} cannot be leased"):
        ring.lease(slot, 2)


def test_only_a_granted_slot_can_be_filled(ring: Ring) -> None:
    with pytest.raises(ValueError, match="slot 2 was filled without a grant"):
        ring.fill(2)
    slot = filled(ring)
    with pytest.raises(ValueError, match="without a grant"):
        ring.fill(slot)


def test_revoking_takes_back_every_lease_or_every_grant_and_nothing_else(ring: Ring) -> None:
    leased, waiting = filled(ring), filled(ring)
    ring.lease(leased, 1)
    ring.grant()
    ring.revoke_leases()
    assert ring.statistics() | {"refused": 0} == {
        "slots": 4, "free": 1, "granted": 1, "waiting": 2, "leased": 0, "sending": 0, "refused": 0,
    }  # fmt: skip
    assert not ring.return_lease(leased, 1)
    ring.revoke_grants()
    assert ring.free() == 2
    ring.release(waiting)
    ring.release(leased)
    assert ring.idle()


def test_statistics_name_the_holders(ring: Ring) -> None:
    sending, leased = filled(ring), filled(ring)
    ring.sent(sending, Send())
    ring.release(sending)
    ring.lease(leased, 1)
    ring.grant()
    assert ring.statistics() == {
        "slots": 4, "free": 1, "granted": 1, "waiting": 1, "leased": 1, "sending": 1, "refused": 0,
    }  # fmt: skip


# The memory ---------------------------------------------------------------------------------------------------


def test_planes_lie_where_the_message_has_them(ring: Ring) -> None:
    layout = Layout.of(FORMAT)
    slot = ring.slots[2]
    slot.live[:] = 1000
    slot.synthetic[:] = 2000
    slot.attention[:] = 30
    for plane, value, dtype in (
        (Plane.LIVE, 1000, "<u2"),
        (Plane.SYNTHETIC, 2000, "<u2"),
        (Plane.ATTENTION, 30, "u1"),
    ):
        at = layout.offset(plane)
        stored = np.frombuffer(slot.bytes[at : at + FORMAT.plane_bytes(plane)], dtype)
        assert (stored == value).all()


def test_no_slot_reaches_into_another(ring: Ring) -> None:
    for index, slot in enumerate(ring.slots):
        slot.bytes[:] = bytes((index,)) * len(slot.bytes)
    for index, slot in enumerate(ring.slots):
        assert {*slot.live.tobytes(), *slot.synthetic.tobytes(), *slot.attention.tobytes()} == {index}


CHILD = """
import sys
from stream.control import ChildSocket, Kind, receive_ring
guard = ChildSocket(int(sys.argv[1]))
memory, number = receive_ring(*guard.receive())
value = int(memory.slots[1].live[3, 4])
memory.slots[1].synthetic[5, 6] = value + number
guard.send_json(Kind.READY, {"slots": len(memory.slots)})
"""


def test_another_process_reads_and_writes_the_same_memory(ring: Ring) -> None:
    ring.slots[1].live[3, 4] = 1234
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        ours.settimeout(30.0)
        child = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(theirs.fileno())], pass_fds=(theirs.fileno(),)
        )
        theirs.close()
        send_ring(ours, ring.memory, 42)
        answer = ours.recv(1000)
        assert child.wait(timeout=30) == 0
    assert answer == bytes((Kind.READY,)) + b'{"slots": 4}'
    assert ring.slots[1].synthetic[5, 6] == 1234 + 42


def test_a_ring_has_no_name_in_the_file_system() -> None:
    before = set(os.listdir("/dev/shm"))
    ring = Ring(FORMAT, 4)
    try:
        assert set(os.listdir("/dev/shm")) <= before
        assert "memfd:contrastream" in os.readlink(f"/proc/self/fd/{ring.memory.descriptor}")
        assert os.fstat(ring.memory.descriptor).st_nlink == 0
    finally:
        ring.close()


def test_every_page_of_a_new_ring_is_there(ring: Ring) -> None:
    status = os.fstat(ring.memory.descriptor)
    assert status.st_blocks * 512 >= status.st_size == 4 * Layout.of(FORMAT).size


@pytest.mark.parametrize("change", [-1, 1], ids=["a byte short", "a byte long"])
def test_a_descriptor_of_another_size_is_refused(change: int) -> None:
    size = 2 * Layout.of(FORMAT).size + change
    descriptor = os.memfd_create("test")
    try:
        os.ftruncate(descriptor, size)
        with pytest.raises(ValueError, match=f"a ring of 2 slots must be {size - change} bytes, got {size}"):
            RingMemory(descriptor, FORMAT, 2)
    finally:
        os.close(descriptor)


def test_no_process_can_shrink_a_ring_under_the_others(ring: Ring) -> None:
    for size in (0, 1 << 24):
        with pytest.raises(PermissionError):
            os.ftruncate(ring.memory.descriptor, size)


def test_a_closed_ring_leaves_no_descriptor_and_may_be_closed_twice() -> None:
    ring = Ring(FORMAT, 2)
    link = Path(f"/proc/self/fd/{ring.memory.descriptor}")
    assert link.exists()
    ring.close()
    ring.close()
    assert not link.exists()


def test_a_ring_comes_out_of_a_packet_as_it_went_in(ring: Ring) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        send_ring(ours, ring.memory, 7)
        packet, descriptors, _, _ = socket.recv_fds(theirs, 1000, 1)
    memory, number = receive_ring(packet, descriptors)
    try:
        assert (number, memory.frame_format, len(memory.slots)) == (7, FORMAT, 4)
        memory.slots[3].attention[0, 0] = 77
        assert ring.slots[3].attention[0, 0] == 77
    finally:
        memory.close()
