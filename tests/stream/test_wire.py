"""The message, byte by byte. The offsets below are read off the table in stream/wire.py, not off its struct."""

import struct
import tracemalloc
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stream import extensions
from stream.errors import WireError
from stream.extensions import Adaptation
from stream.frame import FrameFormat, Photometric, Plane, Reason, Spacing, SpacingPlace, State
from stream.timing import Stage
from stream.wire import (
    Header,
    Layout,
    pack_header,
    pack_status,
    plane_crcs,
    unpack,
    unpack_status,
)

ALL = Plane.LIVE | Plane.SYNTHETIC | Plane.ATTENTION
SMALL = FrameFormat(64, 80)
STREAM = bytes(range(16))
KNOWN = 1 << 10  # bytes of heap that reading a message may take per plane, whatever its size


def message_of(
    frame_format: FrameFormat = SMALL, planes: Plane = ALL, *, crc: bool = False, **fields: Any
) -> tuple[bytes, dict[Plane, np.ndarray]]:
    """A message as the publisher makes it, and the planes that are in it."""
    layout = Layout.of(frame_format)
    slot = memoryview(bytearray(layout.size))
    random = np.random.default_rng(7)
    arrays = {}
    for plane in (Plane.LIVE, Plane.SYNTHETIC, Plane.ATTENTION):
        dtype, top = (
            (np.dtype(np.uint8), 255)
            if plane is Plane.ATTENTION
            else (frame_format.dtype, frame_format.max_value)
        )
        array = random.integers(0, top + 1, (frame_format.rows, frame_format.columns)).astype(dtype)
        at = layout.offset(plane)
        slot[at : at + array.nbytes] = array.tobytes()
        if plane in planes:
            arrays[plane] = array
    crcs = plane_crcs(slot, frame_format, planes, layout) if crc else None
    said: dict[str, Any] = {
        "stream": STREAM,
        "sequence": 7,
        "publication": 5,
        "frame_format": frame_format,
        "state": State.SYNTHETIC if planes == ALL else State.PASSTHROUGH,
        "reason": Reason.NONE if planes == ALL else Reason.DEADLINE,
        "planes": planes,
        "crc": crcs,
    }
    length = pack_header(slot, Header(**(said | fields)), layout)
    return bytes(slot[:length]), arrays


def patched(message: bytes, offset: int, form: str, value: int) -> bytes:
    """A message with one field of its header overwritten."""
    changed = bytearray(message)
    struct.pack_into("<" + form, changed, offset, value)
    return bytes(changed)


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize(("rows", "columns"), [(64, 64), (65, 67), (464, 512)], ids=["smallest", "odd", "rf"])
def test_a_frame_comes_back_as_it_was_sent(rows: int, columns: int, bits: int) -> None:
    frame_format = FrameFormat(rows, columns, bits)
    data, planes = message_of(frame_format, crc=True)
    message = unpack(data)
    assert message.header.frame_format == frame_format
    assert message.planes.keys() == planes.keys()
    for plane, array in planes.items():
        np.testing.assert_array_equal(message.planes[plane], array)
        assert message.planes[plane].dtype == array.dtype


@pytest.mark.parametrize(
    "planes",
    [Plane.LIVE, Plane.LIVE | Plane.SYNTHETIC, Plane.LIVE | Plane.ATTENTION, ALL],
    ids=["live", "live+synthetic", "live+attention", "all"],
)
def test_only_the_planes_of_the_mask_travel(planes: Plane) -> None:
    data, arrays = message_of(planes=planes, state=State.PASSTHROUGH)
    message = unpack(data)
    assert message.header.planes == planes
    assert message.planes.keys() == arrays.keys()


def test_a_live_frame_carries_no_bytes_of_the_other_planes() -> None:
    live, _ = message_of(planes=Plane.LIVE)
    whole, _ = message_of()
    assert len(live) == 512 + 64 * 80
    assert len(whole) == 512 + 3 * 64 * 80


def test_every_field_of_the_header_comes_back() -> None:
    frame_format = FrameFormat(70, 90, 12, Photometric.MONOCHROME1, 2047.5, 4096.0)
    header = Header(
        stream=b"0123456789abcdef",
        sequence=2**63,
        publication=2**40,
        frame_format=frame_format,
        state=State.UNCHANGED,
        planes=Plane.LIVE,
        generation=12,
        stamps_ns=(1, 2, 3, 4, 2**62),
        age_ms=2500,
        unmasked_text=False,
        discontinuity=True,
        faults_injected=True,
        rate_hz=7.5,
        publisher_pid=4321,
        crc=(1, 0, 0),
        spacing=Spacing(0.3, 0.31, SpacingPlace.ISOCENTRE),
    )
    layout = Layout.of(frame_format)
    slot = memoryview(bytearray(layout.size))
    length = pack_header(slot, header, layout)
    assert unpack(slot[:length], check_crc=False).header == header
    assert header.stamp_ns(Stage.PUBLISHED) == 2**62


def test_the_header_lies_at_the_documented_offsets() -> None:
    frame_format = FrameFormat(64, 72, 10, Photometric.MONOCHROME1, 511.5, 1024.0)
    data, planes = message_of(
        frame_format,
        crc=True,
        sequence=11,
        publication=12,
        generation=13,
        stamps_ns=(21, 22, 23, 24, 25),
        age_ms=31,
        discontinuity=True,
        rate_hz=15.0,
        publisher_pid=41,
        spacing=Spacing(0.25, 0.5, SpacingPlace.OBJECT),
    )
    live, synthetic, attention = (planes[p] for p in (Plane.LIVE, Plane.SYNTHETIC, Plane.ATTENTION))

    def at(offset: int, form: str) -> Any:
        values = struct.unpack_from("<" + form, data, offset)
        return values[0] if len(values) == 1 else values

    assert data[0:8] == b"CNTRSTRM"
    assert at(8, "H") == 1  # major
    assert at(10, "H") == 2  # minor
    assert at(12, "H") == 192
    header_bytes = at(14, "H")
    assert header_bytes == 192 + (8 + 16) + (8 + 8) + (8 + 24)
    assert data[16:32] == STREAM
    assert (at(32, "Q"), at(40, "Q"), at(48, "Q")) == (11, 12, 13)
    assert at(56, "5Q") == (21, 22, 23, 24, 25)
    assert (at(96, "I"), at(100, "I")) == (64, 72)
    assert (at(104, "B"), at(105, "B")) == (10, 1)
    assert (at(106, "B"), at(107, "B")) == (1, 0)
    assert at(108, "B") == 7
    assert at(109, "B") == 1 + 2 + 4
    assert at(110, "H") == 3
    assert at(112, "I") == 31
    assert at(116, "3I") == tuple(zlib.crc32(plane.tobytes()) for plane in (live, synthetic, attention))
    table = at(128, "6Q")
    for plane, (offset, length) in zip(
        (live, synthetic, attention), (table[0:2], table[2:4], table[4:6]), strict=True
    ):
        assert offset % 64 == 0
        assert data[offset : offset + length] == plane.tobytes()
    assert at(176, "Q") == 41
    assert data[184:192] == bytes(8)
    assert at(192, "HHI") == (1, 0, 16)
    assert at(200, "2d") == (511.5, 1024.0)
    assert at(216, "HHI") == (2, 0, 8)
    assert at(224, "d") == 15.0
    assert at(232, "HHI") == (3, 0, 20)
    assert at(240, "2dI") == (0.25, 0.5, 3)
    assert data[260:264] == bytes(4)


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.SYNTHETIC, 1), (State.PASSTHROUGH, 2), (State.UNCHANGED, 3), (State.STALE, 4)],
    ids=lambda value: str(value),
)
def test_states_have_the_documented_numbers(state: State, code: int) -> None:
    data, _ = message_of(state=state)
    assert data[106] == code


@pytest.mark.parametrize(
    ("reason", "code"),
    list(
        zip(
            (
                "NONE",
                "STARTING",
                "DEADLINE",
                "ENGINE_LOST",
                "OUT_OF_DOMAIN",
                "OUTPUT_INVALID",
                "UNTAUGHT",
                "OFF",
            ),
            range(8),
            strict=True,
        )
    ),
)
def test_reasons_have_the_documented_numbers(reason: str, code: int) -> None:
    data, _ = message_of(planes=Plane.LIVE, reason=Reason[reason])
    assert data[107] == code


def test_an_absent_plane_has_a_zero_in_its_place_and_its_crc() -> None:
    data, _ = message_of(planes=Plane.LIVE, crc=True)
    assert struct.unpack_from("<2I", data, 120) == (0, 0)
    assert struct.unpack_from("<4Q", data, 144) == (0, 0, 0, 0)


def test_a_slot_that_held_a_whole_message_can_hold_a_live_one() -> None:
    layout = Layout.of(SMALL)
    slot = memoryview(bytearray(layout.size))
    whole = Header(STREAM, 1, 1, SMALL, State.SYNTHETIC, planes=ALL, crc=(1, 2, 3))
    pack_header(slot, whole, layout)
    live = Header(STREAM, 2, 2, SMALL, State.PASSTHROUGH, Reason.DEADLINE, Plane.LIVE)
    length = pack_header(slot, live, layout)
    assert unpack(slot[:length]).header == live


# What a later version may send --------------------------------------------------------------------------------


def test_an_unknown_extension_is_skipped() -> None:
    data, _ = message_of(FrameFormat(64, 80, 8, Photometric.MONOCHROME2, 100.0, 50.0), rate_hz=30.0)
    changed = bytearray(data)
    unknown = struct.pack("<HHI", 777, 0, 5) + b"hello" + bytes(3)
    first_two = data[192:232]
    changed[192 : 192 + len(unknown)] = unknown
    changed[192 + len(unknown) : 192 + len(unknown) + len(first_two)] = first_two
    struct.pack_into("<H", changed, 14, 192 + len(unknown) + len(first_two))
    struct.pack_into("<H", changed, 110, 3)
    header = unpack(bytes(changed)).header
    assert (header.frame_format.window_center, header.frame_format.window_width) == (100.0, 50.0)
    assert header.rate_hz == 30.0


def test_a_message_without_a_pixels_size_is_as_it_was_before_there_was_one() -> None:
    data, _ = message_of(rate_hz=30.0)
    assert struct.unpack_from("<H", data, 14) == (192 + 16,)
    assert unpack(data).header.spacing is None


def test_a_place_of_a_later_minor_version_makes_the_pixels_size_unknown() -> None:
    data, _ = message_of(rate_hz=30.0, spacing=Spacing(0.2, 0.2, SpacingPlace.DETECTOR))
    assert unpack(data).header.spacing == Spacing(0.2, 0.2, SpacingPlace.DETECTOR)
    later = unpack(patched(data, 192 + 16 + 8 + 16, "I", 9)).header
    assert (later.spacing, later.rate_hz) == (None, 30.0)


@pytest.mark.parametrize("size", [0.0, -0.3, float("nan"), float("inf")])
def test_a_pixel_that_has_no_size_is_refused(size: float) -> None:
    data, _ = message_of(spacing=Spacing(0.2, 0.2, SpacingPlace.DETECTOR))
    changed = bytearray(data)
    struct.pack_into("<d", changed, 192 + 16 + 8, size)
    with pytest.raises(WireError, match="a pixel's spacing must be above 0 mm"):
        unpack(bytes(changed))
    with pytest.raises(ValueError, match="a pixel's spacing must be above 0 mm"):
        Spacing(0.2, size, SpacingPlace.DETECTOR)


def test_the_extensions_bytes_are_built_once_for_a_format() -> None:
    spacing = Spacing(0.2, 0.2, SpacingPlace.DETECTOR)
    first = extensions.packed(FrameFormat(64, 80), 15.0, spacing, None)
    assert (
        extensions.packed(FrameFormat(64, 80), 15.0, Spacing(0.2, 0.2, SpacingPlace.DETECTOR), None) is first
    )
    assert extensions.packed(FrameFormat(64, 80), 30.0, spacing, None) is not first


def test_which_adaptation_drew_comes_back_and_what_is_none_is_refused() -> None:
    for name in (Adaptation("0f" * 16, 615, -30.0, 20.5), Adaptation("f0" * 16, 0)):
        data, _ = message_of(rate_hz=30.0, adaptation=name)
        assert unpack(data).header.adaptation == name
    for at, form, value in ((32, "I", 1440), (16, "d", 361.0), (24, "d", float("inf"))):
        changed = bytearray(data)
        struct.pack_into("<" + form, changed, 192 + 16 + 8 + at, value)
        with pytest.raises(WireError, match="at a minute of the day, at angles within a turn"):
            unpack(bytes(changed))


@pytest.mark.parametrize("longer", [4, 8, 64], ids=["not a multiple of 8", "8", "64"])
def test_a_longer_core_of_a_later_minor_version_is_accepted(longer: int) -> None:
    data, planes = message_of(rate_hz=30.0)
    extension_at = -(-(192 + longer) // 8) * 8
    changed = bytearray(data)
    changed[192:extension_at] = b"\xaa" * (extension_at - 192)
    changed[extension_at : extension_at + 16] = data[192:208]
    struct.pack_into("<HHH", changed, 10, 9, 192 + longer, extension_at + 16)
    message = unpack(bytes(changed))
    assert message.header.rate_hz == 30.0
    np.testing.assert_array_equal(message.live, planes[Plane.LIVE])


@pytest.mark.parametrize("major", [0, 2, 65535])
def test_another_major_version_is_refused(major: int) -> None:
    data, _ = message_of()
    with pytest.raises(WireError, match=f"version 1.x, got {major}; update"):
        unpack(patched(data, 8, "H", major))


def test_the_planes_may_lie_anywhere_that_is_a_multiple_of_64() -> None:
    data, planes = message_of(planes=Plane.LIVE)
    moved = patched(data[:512] + bytes(128) + data[512:], 128, "Q", 640)
    np.testing.assert_array_equal(unpack(moved).live, planes[Plane.LIVE])


# Hostile bytes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", [0, 1, 7, 8, 191, 192, 199, 207, 208, 511, 512, 513, 5631])
def test_a_message_cut_off_is_refused(length: int) -> None:
    data, _ = message_of(planes=Plane.LIVE)
    assert len(data) == 5632
    with pytest.raises(WireError, match=r"bytes"):
        unpack(data[:length])


def test_other_bytes_are_refused() -> None:
    with pytest.raises(WireError, match="starts with b'CNTRSTRM', got b'\\\\x00"):
        unpack(bytes(4096))


@pytest.mark.parametrize(
    ("offset", "form", "value"),
    [
        pytest.param(128, "Q", 0, id="inside the core"),
        pytest.param(128, "Q", 192, id="inside the extensions"),
        pytest.param(128, "Q", 520, id="not a multiple of 64"),
        pytest.param(128, "Q", 576, id="runs over the end"),
        pytest.param(128, "Q", 1 << 20, id="beyond the end"),
        pytest.param(128, "Q", 2**64 - 64, id="near the end of 64 bits"),
        pytest.param(136, "Q", 0, id="no length"),
        pytest.param(136, "Q", 5119, id="a byte short"),
        pytest.param(136, "Q", 5121, id="a byte long"),
        pytest.param(136, "Q", 2**64 - 1, id="a length of 64 bits"),
        pytest.param(104, "B", 16, id="samples of two bytes"),
    ],
)
def test_a_plane_that_is_not_wholly_inside_is_refused(offset: int, form: str, value: int) -> None:
    data, _ = message_of(planes=Plane.LIVE)
    with pytest.raises(WireError, match=r"the LIVE plane of 64x80 must be \d+ bytes inside the message"):
        unpack(patched(data, offset, form, value))


@pytest.mark.parametrize(
    ("offset", "form", "value", "said"),
    [
        pytest.param(96, "I", 100_000, "got 100000 rows", id="rows"),
        pytest.param(96, "I", 0, "got 0 rows", id="no rows"),
        pytest.param(100, "I", 2**32 - 1, "4294967295 columns", id="columns"),
        pytest.param(104, "B", 7, "8 to 16 bits stored, got 7", id="bits too few"),
        pytest.param(104, "B", 17, "8 to 16 bits stored, got 17", id="bits too many"),
        pytest.param(105, "B", 0, "0 is not a valid Photometric", id="photometric"),
        pytest.param(106, "B", 0, "0 is not a valid State", id="state 0"),
        pytest.param(106, "B", 5, "NO_SIGNAL", id="a state that only a client finds"),
        pytest.param(106, "B", 200, "200 is not a valid State", id="state 200"),
        pytest.param(107, "B", 8, "8 is not a valid Reason", id="reason"),
        pytest.param(108, "B", 0, "plane mask", id="no plane"),
        pytest.param(108, "B", 6, "plane mask", id="no live plane"),
        pytest.param(108, "B", 9, "plane mask", id="a plane that does not exist"),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(offset: int, form: str, value: int, said: str) -> None:
    data, _ = message_of()
    with pytest.raises(WireError, match=f"value that is not allowed: .*{said}"):
        unpack(patched(data, offset, form, value))


@pytest.mark.parametrize(
    ("offset", "form", "value", "said"),
    [
        pytest.param(12, "H", 191, "header lengths do not fit: core 191", id="core too short"),
        pytest.param(12, "H", 60000, "header lengths do not fit: core 60000", id="core beyond the header"),
        pytest.param(14, "H", 65535, "header lengths do not fit", id="header beyond the message"),
        pytest.param(110, "H", 65535, "inside an extension", id="more extensions than bytes"),
        pytest.param(196, "I", 2**32 - 1, "but the header ends", id="an endless extension"),
    ],
)
def test_a_header_that_does_not_fit_is_refused(offset: int, form: str, value: int, said: str) -> None:
    data, _ = message_of(planes=Plane.LIVE)
    with pytest.raises(WireError, match=said):
        unpack(patched(data, offset, form, value))


def test_a_changed_pixel_is_found_by_the_crc_and_only_when_asked() -> None:
    data, _ = message_of(crc=True)
    changed = patched(data, 512 + 64 * 80 + 3, "B", data[512 + 64 * 80 + 3] ^ 1)
    with pytest.raises(WireError, match=r"frame 7: the SYNTHETIC plane's CRC-32 must be"):
        unpack(changed)
    assert unpack(changed, check_crc=False).header.crc is not None


def test_a_frame_of_ten_thousand_million_pixels_costs_no_memory() -> None:
    data, _ = message_of()
    hostile = patched(patched(data, 96, "I", 100_000), 100, "I", 100_000)
    tracemalloc.start()
    try:
        with pytest.raises(WireError, match="not allowed"):
            unpack(hostile)
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


# The planes ---------------------------------------------------------------------------------------------------


def test_planes_look_into_the_message_and_cannot_be_written() -> None:
    data, _ = message_of()
    buffer = bytearray(data)
    message = unpack(buffer)
    buffer[512] ^= 0xFF
    assert message.live[0, 0] == buffer[512]
    for array in message.planes.values():
        assert np.shares_memory(array, np.frombuffer(buffer, np.uint8))
        with pytest.raises(ValueError, match="read-only"):
            array[0, 0] = 1


def test_reading_a_message_allocates_nothing_of_frame_size() -> None:
    data, _ = message_of(FrameFormat(1024, 1024), crc=True)
    unpack(data)
    tracemalloc.start()
    try:
        message = unpack(data)
        assert tracemalloc.get_traced_memory()[1] < 64 * KNOWN
    finally:
        tracemalloc.stop()
    assert message.live.shape == (1024, 1024)


# Anything at all ----------------------------------------------------------------------------------------------

VALID, _ = message_of(FrameFormat(64, 64, 8, Photometric.MONOCHROME2, 1.0, 2.0), crc=True)
edits = st.lists(
    st.tuples(
        st.integers(0, 239),
        st.sampled_from(["B", "H", "I", "Q"]),
        st.integers(0, 2**64 - 1) | st.sampled_from([0, 1, 64, 192, 512, 65535, 2**32 - 1, 2**63]),
    ),
    min_size=1,
    max_size=6,
)


def read_or_refuse(data: bytes) -> None:
    """Reading either works or raises WireError, and takes no memory either way."""
    tracemalloc.start()
    try:
        message = unpack(data)
        assert all(array.shape == message.live.shape for array in message.planes.values())
    except WireError:
        pass
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 200_000


@settings(derandomize=True, deadline=None, max_examples=200)
@given(st.binary(max_size=600), st.booleans())
def test_arbitrary_bytes_are_read_or_refused(data: bytes, with_magic: bool) -> None:
    read_or_refuse(VALID[:12] + data if with_magic else data)


@settings(derandomize=True, deadline=None, max_examples=400)
@given(edits, st.integers(0, len(VALID)) | st.none())
def test_a_mutated_message_is_read_or_refused(
    changes: list[tuple[int, str, int]], length: int | None
) -> None:
    data = bytearray(VALID)
    for offset, form, value in changes:
        struct.pack_into("<" + form, data, offset, value % (1 << 8 * struct.calcsize(form)))
    read_or_refuse(bytes(data[:length]))


# The heartbeat ------------------------------------------------------------------------------------------------


def test_a_heartbeat_comes_back_with_its_schema() -> None:
    data = pack_status({"state": "STALE", "age_ms": 12.5})
    assert data.startswith(b"{")
    assert b"contrastream.status/1" in data
    assert unpack_status(data) == {"schema": "contrastream.status/1", "state": "STALE", "age_ms": 12.5}


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(b"", "is JSON", id="empty"),
        pytest.param(b"\xff\xfe{", "is JSON", id="not UTF-8"),
        pytest.param(b"[" * 100_000, "is JSON", id="nested without end"),
        pytest.param(b"[]", "has the schema", id="a list"),
        pytest.param(b'{"schema": "other/1"}', "has the schema", id="another schema"),
        pytest.param(pack_status({"state_code": 99}), "99 is not a valid State", id="a state that is none"),
        pytest.param(pack_status({"reason_code": "x"}), "not a valid Reason", id="a reason that is none"),
        pytest.param(
            pack_status({"age_ms": None}), "reason or age that is not allowed", id="an age that is no number"
        ),
        pytest.param(pack_status({"age_ms": 10**400}), "too large", id="an age beyond a float"),
    ],
)
def test_a_hostile_heartbeat_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(WireError, match=said):
        unpack_status(data)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_no_heartbeat(data: bytes) -> None:
    with pytest.raises(WireError, match="a status message"):
        unpack_status(data)
