"""Where frames lie in a file: fragments and offset tables."""

import os
import struct

import pytest

from stream.errors import SourceError
from stream.sources.cine_frames import encapsulated_index, native_index

END = bytes.fromhex("feffdde000000000")


def item(value: bytes) -> bytes:
    return struct.pack("<HHI", 0xFFFE, 0xE000, len(value)) + value


def image(size: int, last: bytes = b"\xff\xd9") -> bytes:
    return bytes(size - len(last)) + last


@pytest.fixture
def index_of(tmp_path):
    """Indexes pixel data that start at byte 10 of a file, and reads each frame's bytes back."""

    def index(pixel_data, frames, extended=None, before=b"header....", **changed):
        path = tmp_path / "pixels"
        path.write_bytes(before + pixel_data)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            found = encapsulated_index(
                "cine.dcm", descriptor, len(before), frames, path.stat().st_size, extended
            )
            data = path.read_bytes()
            return [data[start:end] for start, end in zip(found.starts, found.ends, strict=True)], list(
                found.fragments
            )
        finally:
            os.close(descriptor)

    return index


A, B, C, D = (image(20, bytes([letter]) + b"\xff\xd9\0") for letter in b"abcd")
HALF_A, HALF_B = image(12, b"x"), image(14, b"y")


def test_as_many_fragments_as_frames_are_one_each(index_of):
    frames, fragments = index_of(item(b"") + item(A) + item(B) + item(C) + END, 3)
    assert frames == [item(A), item(B), item(C)]
    assert fragments == [1, 1, 1]


def test_a_single_frame_takes_all_fragments(index_of):
    frames, fragments = index_of(item(b"") + item(HALF_A) + item(A) + END, 1)
    assert (frames, fragments) == ([item(HALF_A) + item(A)], [2])


def test_the_basic_offset_table_gives_fragments_to_frames(index_of):
    first = item(HALF_A) + item(A)
    table = struct.pack("<2I", 0, len(first))
    frames, fragments = index_of(item(table) + first + item(HALF_B) + item(B) + END, 2)
    assert frames == [first, item(HALF_B) + item(B)]
    assert fragments == [2, 2]


def test_the_extended_offset_table_gives_fragments_to_frames(index_of):
    first = item(HALF_A) + item(A)
    table = struct.pack("<2Q", 0, len(first))
    frames, _ = index_of(item(b"") + first + item(B) + END, 2, extended=table)
    assert frames == [first, item(B)]


@pytest.mark.parametrize(
    "table", [b"", struct.pack("<2I", 0, 17), struct.pack("<2I", 40, 0)], ids=["none", "wrong", "descending"]
)
def test_without_a_good_table_the_end_markers_tell(table, index_of):
    first = item(HALF_A) + item(A)
    frames, _ = index_of(item(table) + first + item(HALF_B) + item(B) + END, 2)
    assert frames == [first, item(HALF_B) + item(B)]


def test_fragments_that_cannot_be_given_to_frames_are_refused(index_of):
    with pytest.raises(SourceError, match="3 fragments cannot be given to 2 frames, since the offset table"):
        index_of(item(b"") + item(HALF_A) + item(HALF_B) + item(HALF_A) + END, 2)


def test_too_few_fragments_are_refused(index_of):
    with pytest.raises(SourceError, match="promises 4 frames, got 1 fragments"):
        index_of(item(b"") + item(A) + END, 4)


@pytest.mark.parametrize("lost", [1, 5, 15, 20, 27], ids=str)
def test_a_fragment_that_is_cut_off_is_refused(lost, index_of):
    whole = item(b"") + item(A) + item(B)
    with pytest.raises(SourceError, match="the file ends inside fragment 2; it is cut off"):
        index_of(whole[:-lost], 2)


def test_a_missing_closing_delimiter_costs_nothing(index_of):
    frames, _ = index_of(item(b"") + item(A) + item(B), 2)
    assert frames == [item(A), item(B)]


def test_something_else_between_items_is_refused(index_of):
    with pytest.raises(SourceError, match="must be a row of items, got something else after fragment 1"):
        index_of(item(b"") + item(A) + b"\x10\x00\x10\x00\x04\x00\x00\x00ABCD", 1)


def test_an_item_of_undefined_length_is_refused(index_of):
    with pytest.raises(SourceError, match="must be a row of items"):
        index_of(item(b"") + struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF) + A, 1)


def test_uncompressed_frames_lie_one_after_the_other():
    index = native_index("cine.dcm", 100, 35, 3, 205)
    assert list(index.starts) == [100, 135, 170]
    assert list(index.ends) == [135, 170, 205]
    assert len(index) == 3


def test_uncompressed_frames_that_do_not_fit_are_refused():
    with pytest.raises(SourceError, match="3 frames need 105 bytes of pixel data, got 104"):
        native_index("cine.dcm", 100, 35, 3, 204)
