import socket
from typing import Any

import pytest

from stream.control import (
    DONE,
    LEASE,
    MAX_PACKET,
    SLOT,
    ChildSocket,
    Kind,
    SourceDrops,
    format_from_json,
    format_to_json,
    pack_frame,
    pack_json,
    unpack_frame,
    unpack_json,
)
from stream.frame import FrameFormat, Photometric
from stream.outgoing import Grabbed

PLAIN = FrameFormat(64, 65)
WINDOWED = FrameFormat(2048, 512, 12, Photometric.MONOCHROME1, -50.5, 4096.0)


@pytest.mark.parametrize("frame_format", [PLAIN, WINDOWED], ids=["plain", "windowed"])
def test_a_format_comes_back_as_it_was(frame_format: FrameFormat) -> None:
    packet = pack_json(Kind.FORMAT, format_to_json(frame_format))
    assert packet[0] == Kind.FORMAT
    assert format_from_json(unpack_json(packet)) == frame_format


@pytest.mark.parametrize(
    ("name", "value", "error", "said"),
    [
        ("rows", 100_000, ValueError, "64 to 2048"),
        ("rows", "many", ValueError, "invalid literal"),
        ("columns", None, TypeError, "NoneType"),
        ("bits_stored", 32, ValueError, "8 to 16 bits"),
        ("photometric", 9, ValueError, "not a valid Photometric"),
        ("window_center", "x", ValueError, "could not convert"),
    ],
)
def test_a_hostile_format_is_refused(name: str, value: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        format_from_json({**format_to_json(PLAIN), name: value})


def test_a_format_without_a_field_is_refused() -> None:
    body = format_to_json(PLAIN)
    del body["rows"]
    with pytest.raises(KeyError, match="rows"):
        format_from_json(body)


@pytest.mark.parametrize("repeated", [False, True], ids=["new", "repeat"])
@pytest.mark.parametrize("discontinuity", [False, True], ids=["on", "gap"])
def test_a_frame_packet_comes_back_as_it_was(repeated: bool, discontinuity: bool) -> None:
    grabbed = Grabbed(2**32 - 1, 2**63, 2**62, 2**62 + 5, repeated, discontinuity)
    drops = SourceDrops(2**40, 7, 2**33, 2**34)
    packet = pack_frame(grabbed, 3, drops)
    assert packet[0] == Kind.FRAME
    assert unpack_frame(packet) == (grabbed, 3, drops)


def test_the_packets_of_every_frame_have_no_padding() -> None:
    assert [each.size for each in (SLOT, LEASE, DONE)] == [5, 17, 58]


def test_kinds_of_a_child_and_of_the_guard_cannot_be_taken_for_each_other() -> None:
    to_children = {Kind.CONFIG, Kind.RING, Kind.GRANT, Kind.LEASE, Kind.PATIENT, Kind.PATIENT_OFF}
    to_host_and_rooms = {Kind.ROOM, Kind.ENGINE, Kind.STOP, Kind.GPU_SEEN}
    assert {kind for kind in Kind if kind < 64} == to_children | to_host_and_rooms


def close(child: ChildSocket) -> None:
    """Close a child's end, which lives as long as its process where it is used."""
    child._socket.close()


def test_the_end_of_the_guard_is_an_empty_packet() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = ChildSocket(theirs.detach())
    with ours:
        ours.send(b"\x03abc")
        child.send_json(Kind.NOTE, {"message": "a sentence"})
        assert unpack_json(ours.recv(MAX_PACKET)) == {"message": "a sentence"}
    assert child.receive() == (b"\x03abc", [])
    assert child.receive() == (b"", [])
    with pytest.raises(BrokenPipeError, match="Broken pipe"):
        child.send(b"\x45")
    close(child)


def test_a_guard_that_left_packets_unread_is_gone_all_the_same() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    child = ChildSocket(theirs.detach())
    with ours:
        child.send(b"\x43unread")
    assert child.receive() == (b"", [])
    close(child)
