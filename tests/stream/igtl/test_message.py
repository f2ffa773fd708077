"""OpenIGTLink's messages against another implementation of them, and against bytes that are none."""

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pyigtl = pytest.importorskip("pyigtl")

from pyigtl.messages import MessageBase  # noqa: E402

from stream.errors import WireError  # noqa: E402
from stream.igtl.message import (  # noqa: E402
    HEADER,
    IMAGE,
    MAX_BODY,
    OK,
    Head,
    check_body,
    image_body,
    pack,
    read_image,
    status_body,
    unpack_head,
)


def picture(rows: int, columns: int, dtype: str) -> np.ndarray:
    return np.random.default_rng(rows).integers(0, np.iinfo(dtype).max, (rows, columns), dtype=dtype)


@pytest.mark.parametrize(
    ("rows", "columns", "dtype"), [(64, 96, "uint8"), (65, 67, "uint8"), (70, 64, "uint16")]
)
def test_the_peer_reads_our_images(rows: int, columns: int, dtype: str) -> None:
    plane = picture(rows, columns, dtype)
    data = pack("IMAGE", "Live", 1234.5, image_body(plane, (0.3, 0.2)))
    fields = MessageBase.parse_header(data[: HEADER.size])
    assert fields["device_name"] == "Live"
    assert fields["timestamp"] == pytest.approx(1234.5)
    message = MessageBase.create_message("IMAGE")
    message.unpack(fields, data[HEADER.size :])
    np.testing.assert_array_equal(message.image[0], plane)
    # i runs along the columns, j along the rows.
    assert np.linalg.norm(message.ijk_to_world_matrix[:3, 0]) == pytest.approx(0.2)
    assert np.linalg.norm(message.ijk_to_world_matrix[:3, 1]) == pytest.approx(0.3)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("dtype", ["uint8", "<u2"])
def test_we_read_the_peer_s_images_and_its_crc(dtype: str, version: int) -> None:
    plane = picture(66, 80, "uint8").astype(dtype)
    message = pyigtl.ImageMessage(
        plane[None], ijk_to_world_matrix=np.diag([0.2, 0.3, 1, 1]), timestamp=99.25, device_name="Probe"
    )
    message.header_version = version
    message.metadata = {"a": "b"} if version == 2 else {}
    data = message.pack()
    head = unpack_head(data[: HEADER.size])
    assert (head.kind, head.device, head.version) == ("IMAGE", "Probe", version)
    assert head.seconds == pytest.approx(99.25)
    body = data[HEADER.size :]
    check_body(head, body)
    read, spacing = read_image(head, body)
    np.testing.assert_array_equal(read, plane)
    assert spacing == pytest.approx((0.3, 0.2), rel=1e-6)
    with pytest.raises(WireError, match="damaged on its way"):
        check_body(head, body[:-1] + bytes([body[-1] ^ 1]))


def test_big_endian_pixels_are_turned() -> None:
    plane = picture(66, 80, "uint16")
    body = bytearray(image_body(plane, None))
    body[4] = 1  # endian
    body[IMAGE.size :] = plane.astype(">u2").tobytes()
    read, _ = read_image(Head("IMAGE", "x", 0.0, len(body), 0), bytes(body))
    np.testing.assert_array_equal(read, plane)


def test_our_status_lies_as_the_standard_s_table_has_it() -> None:
    """This peer has no STATUS, so the bytes are held against v2_status.html."""
    data = pack("STATUS", "Status", 1.0, status_body(OK, "SYNTHETIC", "SYNTHETIC, age 0.0 s."))
    body = data[HEADER.size :]
    assert body[:2] == b"\x00\x01"
    assert body[2:10] == bytes(8)
    assert body[10:30] == b"SYNTHETIC".ljust(20, b"\0")
    assert body[30:] == b"SYNTHETIC, age 0.0 s.\0"


def image(**changed: int) -> bytes:
    """An image's body with some of its fields changed."""
    fields = list(IMAGE.unpack_from(image_body(np.zeros((64, 64), np.uint8), None)))
    names = {"components": 1, "scalar": 2, "columns": 5, "rows": 6, "slices": 7, "part": 23}
    for name, value in changed.items():
        fields[names[name]] = value
    return IMAGE.pack(*fields) + bytes(64 * 64)


@pytest.mark.parametrize(
    ("body", "said"),
    [
        pytest.param(image(components=3), "one unsigned component", id="colour"),
        pytest.param(image(scalar=11), "one unsigned component", id="floats"),
        pytest.param(image(slices=2), "one slice", id="a volume"),
        pytest.param(image(part=10), "whole images", id="a part"),
        pytest.param(image(rows=65, part=64), "whole images", id="another part"),
        pytest.param(b"x", "at least 72 bytes", id="short"),
        pytest.param(image()[:-1], "needed 4096 bytes", id="cut off"),
    ],
)
def test_other_images_are_refused(body: bytes, said: str) -> None:
    with pytest.raises(WireError, match=said):
        read_image(Head("IMAGE", "x", 0.0, len(body), 0), body)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"version": 9}, "version 1 to 3, got version 9", id="version"),
        pytest.param({"kind": b"\xff\xfe"}, "names are no ASCII", id="names"),
        pytest.param({"kind": b"GET / HTTP"}, "needed an OpenIGTLink header", id="another protocol"),
        pytest.param({"length": MAX_BODY + 1}, "at most", id="too long"),
    ],
)
def test_other_headers_are_refused(changes: dict[str, int | bytes], said: str) -> None:
    fields = {
        "version": 1,
        "kind": b"IMAGE",
        "device": b"x",
        "s": 0,
        "f": 0,
        "length": 10,
        "crc": 0,
    } | changes
    with pytest.raises(WireError, match=said):
        unpack_head(HEADER.pack(*fields.values()))


@settings(deadline=None)
@given(head=st.binary(min_size=58, max_size=58), body=st.binary(max_size=200), version=st.integers(1, 3))
def test_hostile_bytes_are_refused_or_read(head: bytes, body: bytes, version: int) -> None:
    # Anything but a WireError is a fault.
    with contextlib.suppress(WireError):
        unpack_head(head)
    with contextlib.suppress(WireError):
        read_image(Head("IMAGE", "x", 0.0, len(body), 0, version), body)
