"""Where the X-rays came through, what is burned into the picture, and how large a pixel is: one site's geometry."""

import numpy as np
from jaxtyping import Float32, UInt8, UInt16

from calib.burned_in import LEAST_FRAMES, burned_in, mean_and_spread
from calib.errors import CalibrationError
from calib.field import inside_field, outline_of, whole_box
from calib.field_finder import Field, find_field
from calib.results import Box, GeometryResult, PixelSpacing
from calib.table_motion import MOVED_PERCENT, shifts_percent

EDGE_LIMIT_PX = 4.0
"""The field's edges in the first and the last half of the frames may lie this far apart at a picture of 512 x 512; more
at a larger one. Our choice: the distance within which a finder and a person agree on an edge."""
SATURATED_SHARE = 0.5
"""Frames of which more than this is at the largest stored value show no field."""
MOST_TABLE_FRAMES = 32
"""Frames, evenly over the run, from which the table's motion is told."""


def measure_geometry(
    frames: UInt8[np.ndarray, "n h w"] | UInt16[np.ndarray, "n h w"],
    bits_stored: int,
    *,
    inverted: bool = False,
    spacing: PixelSpacing | None = None,
    spacing_says: tuple[str, ...] = (),
) -> GeometryResult:
    """Measure the geometry of one source.

    Args:
        frames: Some frames of one run, stored pixel values, in order; at least eight.
        bits_stored: Of a pixel.
        inverted: Whether larger stored values are darker (MONOCHROME1, or a grabber that inverts).
        spacing: How large a pixel is, from `calib.spacing` or `calib.grid`; None where that is unknown.
        spacing_says: What was said of it there.

    Returns:
        The geometry. It passes when first and last half of the frames show the field's edges at the same place.

    Raises:
        CalibrationError: Too few, constant or saturated frames.
        ValueError: Not frames.
    """
    largest = _checked(frames, bits_stored)
    rows, columns = frames.shape[1:]
    mean, spread = mean_and_spread(frames)
    _check_shows_something(frames, mean, largest)
    upright = largest - mean if inverted else mean
    says: list[str] = []
    letterbox = find_letterbox(upright, spread)
    field = find_field(upright, letterbox)
    half = len(frames) // 2
    halves = [
        find_field(largest - part if inverted else part, letterbox)
        for part, _ in (mean_and_spread(frames[:half]), mean_and_spread(frames[-half:]))
    ]
    apart = edges_apart_px(halves[0], halves[1])
    limit = EDGE_LIMIT_PX * max(1.0, min(rows, columns) / 512)
    if apart > limit:
        says.append(
            f"The field's edges moved by {apart:.1f} px between the first and the last half of the frames; hold "
            "collimator and table still and measure again, or give loops of one collimation."
        )
    marks, cannot = burned_in(frames)
    if cannot is not None:
        says.append(cannot)
    says.extend(_field_says(field, letterbox, marks))
    every = frames[np.linspace(0, len(frames) - 1, min(len(frames), MOST_TABLE_FRAMES)).round().astype(int)]
    shift = max(shifts_percent(every, field.mask))
    if shift > MOVED_PERCENT:
        says.append(
            f"The table moved by {shift:.0f} % of the picture. Field and burned-in text are not affected; measure a pixel's "
            "size on a phantom that lies still."
        )
    if not spacing_says:
        spacing_says = (
            "A pixel's size is unknown."
            if spacing is None
            else f"A pixel is {spacing.row_mm:.4f} x {spacing.column_mm:.4f} mm at the {spacing.at}, from {spacing.source}.",
        )
    says.extend(spacing_says)
    return GeometryResult(
        passed=apart <= limit,
        frames=len(frames),
        residual=apart,
        limit=limit,
        unit="px",
        says=tuple(says),
        rows=rows,
        columns=columns,
        shape=shape_of(field),
        corners=field.corners,
        circle=field.circle,
        field_share=float(field.mask.mean()),
        letterbox=letterbox,
        burned_in=marks,
        table_shift_px=shift / 100.0 * min(rows, columns),
        spacing=spacing,
        spacing_says=spacing_says,
    )


def find_letterbox(upright: Float32[np.ndarray, "h w"], spread: Float32[np.ndarray, "h w"]) -> Box:
    """The part of the frame that holds picture: without bars of one steady grey along whole sides.

    Args:
        upright: Mean over the frames.
        spread: Standard deviation over the frames; 0 for a single picture.

    Returns:
        The whole frame where there are no bars, or nothing but bars.
    """
    rows, columns = upright.shape
    step = 0.01 * float(np.ptp(upright))
    steady = spread <= max(0.25 * float(np.median(spread)), 0.5 * step)
    bars = []
    for picture, still in (
        (upright.T, steady.T),
        (upright, steady),
        (upright.T[::-1], steady.T[::-1]),
        (upright[::-1], steady[::-1]),
    ):
        grey = float(np.median(picture[0]))
        # Text may stand in a bar.
        share = ((np.abs(picture - grey) <= step) & still).mean(axis=1)
        bars.append(int(np.argmin(share >= 0.9)) if not (share >= 0.9).all() else 0)
    left, top, right, bottom = bars
    if left + right > 0.8 * columns or top + bottom > 0.8 * rows:
        return whole_box(rows, columns)
    return Box(left, top, columns - right, rows - bottom)


def edges_apart_px(one: Field, other: Field) -> float:
    """Largest distance of a point of one field's outline from the other's, pixels; both of one size."""
    outlines = [outline_of(field.corners, field.circle, field.rows, field.columns) for field in (one, other)]
    farthest = 0.0
    for near, far in (outlines, outlines[::-1]):
        square = ((near[:, None] - far[None]) ** 2).sum(axis=-1)
        farthest = max(farthest, float(np.sqrt(square.min(axis=1).max())))
    return farthest


def shape_of(field: Field) -> str:
    """In words; see `calib.results.GeometryResult`."""
    edges = _own_edges(field)
    if field.circle is not None:
        return "circle and blades" if edges else "circle"
    if not edges:
        return "whole"
    return "rectangle" if len(field.corners) == 4 else "polygon"


def _own_edges(field: Field) -> int:
    """How many of the corners' sides are not the picture's border."""
    box = field.letterbox
    count = 0
    for (x0, y0), (x1, y1) in zip(field.corners, (*field.corners[1:], field.corners[0]), strict=True):
        on_border = any(
            abs(a - border) < 1e-6 and abs(b - border) < 1e-6
            for a, b, border in (
                (x0, x1, box.left),
                (x0, x1, box.right),
                (y0, y1, box.top),
                (y0, y1, box.bottom),
            )
        )
        count += not on_border
    return count


def _field_says(field: Field, letterbox: Box, marks: tuple[Box, ...]) -> list[str]:
    shape = shape_of(field)
    share = 100.0 * float(inside_field(field.corners, field.circle, field.rows, field.columns).mean())
    said = [
        "No edge of the field is in the picture; all of it is field."
        if shape == "whole"
        else f"The field is a {shape} over {share:.0f} % of the picture."
    ]
    if letterbox != whole_box(field.rows, field.columns):
        said.append(
            f"Bars around the picture: {letterbox.left} px left, {letterbox.top} px top, "
            f"{field.columns - letterbox.right} px right, {field.rows - letterbox.bottom} px bottom."
        )
    if marks:
        said.append(f"{len(marks)} burned-in {'mark' if len(marks) == 1 else 'marks'} kept free of vessels.")
    return said


def _checked(frames: np.ndarray, bits_stored: int) -> float:
    if frames.ndim != 3 or frames.dtype not in (np.uint8, np.uint16):
        raise ValueError(f"frames must be (n, h, w) uint8 or uint16, got {frames.shape} {frames.dtype}")
    if not 8 <= bits_stored <= 8 * frames.dtype.itemsize:
        raise ValueError(
            f"bits_stored must be 8 to {8 * frames.dtype.itemsize} for {frames.dtype}, got {bits_stored}"
        )
    if len(frames) < LEAST_FRAMES:
        raise CalibrationError(
            f"needed at least {LEAST_FRAMES} frames to measure the geometry, got {len(frames)}; record a longer loop"
        )
    return float((1 << bits_stored) - 1)


def _check_shows_something(frames: np.ndarray, mean: Float32[np.ndarray, "h w"], largest: float) -> None:
    if float(np.ptp(mean)) < 0.01 * largest:
        raise CalibrationError(
            f"needed frames that show something, got one grey level ({float(mean.mean()):.0f} of {largest:.0f}) all over; "
            "record with X-rays on"
        )
    for extreme, name in ((largest, "largest"), (0.0, "smallest")):
        share = float((frames[:: max(1, len(frames) // 8)] == extreme).mean())
        # Black bars and shutters may cover much; white only where the detector saturates.
        most = SATURATED_SHARE if extreme else 0.9
        if share > most:
            raise CalibrationError(
                f"needed frames with grey levels, got {100 * share:.0f} % of the pixels at the {name} stored value "
                f"({extreme:.0f}); record with less exposure or without the window that clips"
            )
