import numpy as np
import pytest

from stream.frame import FrameFormat, Plane, aligned


@pytest.mark.parametrize(
    ("rows", "columns"), [(64, 64), (2048, 2048), (65, 2047)], ids=["smallest", "largest", "odd"]
)
def test_sides_from_64_to_2048_are_frames(rows: int, columns: int) -> None:
    assert FrameFormat(rows, columns).pixels == rows * columns


@pytest.mark.parametrize(
    ("rows", "columns", "which"),
    [(63, 64, "rows"), (64, 63, "columns"), (2049, 64, "rows"), (4096, 4096, "rows"), (-64, 64, "rows")],
)
def test_other_sides_are_refused_with_both_sizes(rows: int, columns: int, which: str) -> None:
    with pytest.raises(
        ValueError,
        match=rf"64 to 2048 pixels a side, got {rows} rows x {columns} columns.*\({which} is out of range",
    ):
        FrameFormat(rows, columns)


@pytest.mark.parametrize("bits", [7, 17, 0, 32])
def test_other_depths_are_refused(bits: int) -> None:
    with pytest.raises(ValueError, match=f"8 to 16 bits stored, got {bits}"):
        FrameFormat(64, 64, bits)


@pytest.mark.parametrize(
    ("bits", "sample_bytes", "dtype", "max_value"),
    [(8, 1, "|u1", 255), (9, 2, "<u2", 511), (12, 2, "<u2", 4095), (16, 2, "<u2", 65535)],
)
def test_a_depth_decides_the_samples(bits: int, sample_bytes: int, dtype: str, max_value: int) -> None:
    frame_format = FrameFormat(65, 70, bits)
    assert (frame_format.sample_bytes, frame_format.dtype, frame_format.max_value) == (
        sample_bytes,
        np.dtype(dtype),
        max_value,
    )
    assert frame_format.plane_bytes(Plane.LIVE) == 65 * 70 * sample_bytes
    assert frame_format.plane_bytes(Plane.SYNTHETIC) == 65 * 70 * sample_bytes
    assert frame_format.plane_bytes(Plane.ATTENTION) == 65 * 70


@pytest.mark.parametrize(("size", "expected"), [(0, 0), (1, 64), (64, 64), (65, 128), (4355, 4416)])
def test_planes_begin_at_cache_lines(size: int, expected: int) -> None:
    assert aligned(size) == expected
