"""A target whose bar code carries frame number and time, for glass-to-glass latency with a camera or a photodiode.

    +--------+----------------------------+--------+
    | marker | odd frames    even frames  | marker |   two patches for a photodiode: one is white, the other black
    +--------+----------------------------+--------+
    | 3 rows of 32 cells: 24 bits frame number, 40 bits time in us, 32 bits CRC, a black bar at either end
    +--------+----------------------------+--------+
    | marker |   frame number to be read  | marker |
    +--------+----------------------------+--------+

Why not a QR code: it corrects errors, and a picture that a rolling shutter or a display's scan-out tore is made of two
codes; what is wanted of it is a refusal, never a guess. So the code has no correction: any cell that is neither clearly
black nor clearly white refuses it, and a CRC-32 finds rows of two frames. Where the target lies is found by ArUco
markers (OpenCV's own), whose corners give the perspective. Two frames that one exposure mixes leave grey cells and are
refused, unless one of them filled most of it, and then it is that one.
"""

import binascii
import itertools
import struct
import zlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float32, Float64, UInt8

from calib.errors import CalibrationError

UNITS = (36, 20)
"""Width and height of the target in units; a cell is one unit wide and two high."""
MARKER = 5
"""Side of a marker in units."""
MARKERS = ((1, 1), (30, 1), (30, 14), (1, 14))
"""Upper left corner (x, y) of each marker in units, by its number in the dictionary."""
CELLS = 32
ROWS = 3
FIRST_CELL = (2, 7)
"""Upper left corner of the first cell in units."""
FRAME_BITS, TIME_BITS = 24, 40
CLEAR = 0.3
"""A cell must be this near to black or to white, of the way between the two."""
MIN_CONTRAST = 24.0
"""Between the bars and what is beside them, in levels of 255: less may be noise."""
MIN_UNIT_PX = 3.0
MIN_TARGET_PX = round(MIN_UNIT_PX * UNITS[0])
"""Width of a target whose cells are just wide enough, in pixels of the camera."""
MAX_TARGETS = 4
"""In one picture; more are passed over."""
MAX_MISFIT = 0.5
"""Of a cell: how far the corners of the markers may lie off one plane, root mean square. Markers of two targets lie units off."""
SAMPLES = np.array([(dx, dy) for dy in (-0.7, -0.35, 0.0, 0.35, 0.7) for dx in (-0.2, 0.0, 0.2)])
"""Where a cell is sampled, in units from its middle: over its whole height, so that a tear within a row shows as grey."""
MM_PER_INCH = 25.4
_MARKER_CORNERS = ((0, 0), (MARKER, 0), (MARKER, MARKER), (0, MARKER))


@dataclass(frozen=True)
class TargetCode:
    """What the bar code says.

    Raises:
        ValueError: A number that does not fit.
    """

    frame: int
    """Number of the frame, modulo 2^24: 77 hours at 60 per second."""
    time_us: int
    """When it was due or drawn, in microseconds of CLOCK_MONOTONIC modulo 2^40: 12.7 days."""

    def __post_init__(self) -> None:
        for name, value, bits in (("frame", self.frame, FRAME_BITS), ("time_us", self.time_us, TIME_BITS)):
            if not 0 <= value < 1 << bits:
                raise ValueError(f"{name} must be 0 to below 2^{bits}, got {value}; take it modulo that")

    @classmethod
    def of(cls, frame: int, time_ns: int) -> "TargetCode":
        """The code of a frame and a stamp, each modulo what it holds."""
        return cls(frame % (1 << FRAME_BITS), time_ns // 1000 % (1 << TIME_BITS))

    def age_ms(self, seen_ns: int) -> float:
        """From the code's time until a stamp of the same clock: glass to glass, if that is when the camera saw it."""
        return (seen_ns // 1000 - self.time_us) % (1 << TIME_BITS) / 1e3


class TargetUnreadable(CalibrationError):
    """A picture without a code that can be believed; the sentence says what is wrong."""


def _bits(code: TargetCode) -> np.ndarray:
    """(ROWS, CELLS) bool, True is black."""
    payload = code.frame.to_bytes(3, "big") + code.time_us.to_bytes(5, "big")
    # Inverted, so that neither an all white nor an all black field is a code.
    whole = payload + (binascii.crc32(payload) ^ 0xFFFFFFFF).to_bytes(4, "big")
    return np.unpackbits(np.frombuffer(whole, np.uint8)).reshape(ROWS, CELLS).astype(bool)


def draw_target(code: TargetCode, width_px: int = 1152) -> UInt8[np.ndarray, "h w"]:
    """The target in black and white.

    Args:
        code: What it says.
        width_px: Of the picture, 216 or more; cut to whole units of a 36th.

    Raises:
        ValueError: Too small for its cells.
    """
    unit = width_px // UNITS[0]
    if unit < 6:
        raise ValueError(f"a target is at least {6 * UNITS[0]} pixels wide, got {width_px}; draw it larger")
    picture = np.full((UNITS[1] * unit, UNITS[0] * unit), 255, np.uint8)

    def fill(x: int, y: int, width: int, height: int) -> None:
        picture[y * unit : (y + height) * unit, x * unit : (x + width) * unit] = 0

    dictionary = _dictionary()
    for number, (x, y) in enumerate(MARKERS):
        picture[y * unit : (y + MARKER) * unit, x * unit : (x + MARKER) * unit] = (
            cv2.aruco.generateImageMarker(dictionary, number, MARKER * unit)
        )
    x0, y0 = FIRST_CELL
    for x in (x0 - 1, x0 + CELLS):
        fill(x, y0, 1, 2 * ROWS)
    for row, bits in enumerate(_bits(code)):
        for cell in np.flatnonzero(bits).tolist():
            fill(x0 + cell, y0 + 2 * row, 1, 2)
    # For a photodiode: each patch changes with every frame, and one is always the other's opposite.
    fill(19 if code.frame % 2 else 8, 1, 9, MARKER)
    _write(picture, f"{code.frame}", unit)
    return picture


def _write(picture: UInt8[np.ndarray, "h w"], text: str, unit: int) -> None:
    scale = 3.0 * unit / cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 1)[0][1]
    wide = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, scale, 1)[0][0]
    scale *= min(1.0, 20.0 * unit / wide)
    place = (8 * unit, 18 * unit)
    cv2.putText(picture, text, place, cv2.FONT_HERSHEY_SIMPLEX, scale, 0, max(1, unit // 4), cv2.LINE_AA)


def read_target(picture: UInt8[np.ndarray, "h w"]) -> TargetCode:
    """Read the code in a camera's picture.

    Args:
        picture: Grey levels; the target anywhere in it, seen at an angle if need be, and sharp enough that a cell is
            wider than its blur.

    Raises:
        TargetUnreadable: No target, several, or one that is blurred, too dark, torn or mixed of two frames.
        ValueError: Not a grey picture.
    """
    places = find_targets(picture)
    if len(places) != 1:
        raise TargetUnreadable(
            f"needed one target with its {len(MARKERS)} markers once each, found {len(places)}; hide the others"
        )
    return read_code(picture, places[0])


@dataclass(frozen=True)
class TargetPlace:
    """Where a target lies in a camera's picture. It holds for every picture of a camera and a screen that do not move."""

    to_picture: Float64[np.ndarray, "3 3"]
    """From units of the target to pixels of the picture, as a homography."""

    @cached_property
    def samples(self) -> Float32[np.ndarray, "rows places samples 2"]:
        """Where the code is sampled, x and y in pixels: by row the cells from the left, the two black bars, the white beside."""
        x0, y0 = FIRST_CELL
        across = [*range(CELLS), -1, CELLS, -2, CELLS + 1]
        centres = np.array([[(x0 + x + 0.5, y0 + 2 * row + 1.0) for x in across] for row in range(ROWS)])
        units = centres[:, :, None, :] + SAMPLES
        return _places(self.to_picture, units.reshape(-1, 2)).reshape(units.shape).astype(np.float32)

    @property
    def cell_px(self) -> float:
        """Width of the narrowest cell, in pixels of the picture."""
        ends = np.array([[2.0, 10.0], [3.0, 10.0], [33.0, 10.0], [34.0, 10.0]])
        seen = _places(self.to_picture, ends)
        return float(min(np.hypot(*(seen[1] - seen[0])), np.hypot(*(seen[3] - seen[2]))))

    @property
    def corners(self) -> Float64[np.ndarray, "4 2"]:
        """The target's corners, x and y in pixels, clockwise from its upper left."""
        wide, high = UNITS
        return _places(self.to_picture, np.array([(0, 0), (wide, 0), (wide, high), (0, high)], np.float64))

    def moved(self, left: float, top: float) -> "TargetPlace":
        """The same place in a picture that begins so many pixels further to the right and further down."""
        shift = np.array([[1.0, 0.0, -left], [0.0, 1.0, -top], [0.0, 0.0, 1.0]])
        return TargetPlace(shift @ self.to_picture)


def read_code(picture: UInt8[np.ndarray, "h w"], place: TargetPlace) -> TargetCode:
    """Read the code of a target whose place is known.

    Args:
        picture: Grey levels.
        place: Of the target in this picture. One that is not quite right is refused, not misread.

    Raises:
        TargetUnreadable: Blurred, too dark, torn or mixed of two frames.
    """
    where = place.samples
    flat = where.reshape(1, -1, 2)
    levels = cv2.remap(picture, flat[..., 0], flat[..., 1], cv2.INTER_LINEAR).reshape(where.shape[:3])
    mean = levels.astype(np.float64).mean(axis=2)  # (row, place)
    share = np.arange(CELLS) / (CELLS - 1)
    dark = mean[:, CELLS, None] + (mean[:, CELLS + 1] - mean[:, CELLS])[:, None] * share
    bright = mean[:, CELLS + 2, None] + (mean[:, CELLS + 3] - mean[:, CELLS + 2])[:, None] * share
    contrast = float((bright - dark).min())
    if contrast < MIN_CONTRAST:
        raise TargetUnreadable(
            f"a bar code needs {MIN_CONTRAST:g} levels of 255 between black and white, got {contrast:.0f}; more light, a "
            "longer exposure or another angle"
        )
    level = (mean[:, :CELLS] - dark) / (bright - dark)
    unclear = ((level > CLEAR) & (level < 1.0 - CLEAR)).sum(axis=1)
    if unclear.any():
        row = int(np.argmax(unclear > 0))
        raise TargetUnreadable(
            f"every cell of the bar code must be black or white, {unclear[row]} of row {row + 1} are neither; the picture is "
            "blurred, or two frames are mixed in it"
        )
    whole = np.packbits(level < 0.5).tobytes()
    payload, crc = whole[:8], int.from_bytes(whole[8:], "big")
    if binascii.crc32(payload) ^ 0xFFFFFFFF != crc:
        raise TargetUnreadable("the bar code's sum does not fit: the picture is torn between two frames")
    return TargetCode(int.from_bytes(payload[:3], "big"), int.from_bytes(payload[3:], "big"))


def _dictionary() -> "cv2.aruco.Dictionary":
    return cv2.aruco.getPredefinedDictionary(cv2.aruco.DICT_4X4_50)


def find_targets(picture: UInt8[np.ndarray, "h w"]) -> list[TargetPlace]:
    """Find every whole target in a camera's picture by its four markers.

    Args:
        picture: Grey levels.

    Returns:
        Where they lie, from the left to the right; one at least.

    Raises:
        TargetUnreadable: None is whole, or one is too small or too oblique to be read.
        ValueError: Not a grey picture.
    """
    if picture.ndim != 2 or picture.dtype != np.uint8:
        raise ValueError(
            f"a camera's picture must be (h, w) uint8, got {picture.shape} {picture.dtype}; convert it to grey"
        )
    parameters = cv2.aruco.DetectorParameters()
    parameters.cornerRefinementMethod = cv2.aruco.CORNER_REFINE_SUBPIX
    corners, numbers, _ = cv2.aruco.ArucoDetector(_dictionary(), parameters).detectMarkers(picture)
    seen: dict[int, list[np.ndarray]] = {number: [] for number in range(len(MARKERS))}
    for number, found in zip([] if numbers is None else np.ravel(numbers).tolist(), corners, strict=True):
        if number in seen:
            seen[number].append(np.asarray(found, np.float64).reshape(4, 2))
    places = _whole_targets(seen)
    if not places:
        listed = [number for number, found in seen.items() for _ in found]
        raise TargetUnreadable(
            f"needed the target's {len(MARKERS)} markers once each, found {listed or 'none'}; bring the whole target "
            f"into the picture, {MIN_TARGET_PX} pixels wide or more, sharp and with a white border"
        )
    for place in places:
        if place.cell_px < MIN_UNIT_PX:
            raise TargetUnreadable(
                f"a cell of the bar code must be {MIN_UNIT_PX:g} pixels wide or more, so the target {MIN_TARGET_PX}, got a "
                f"cell of {place.cell_px:.1f}; move the camera nearer, or look at the target from the front"
            )
    return sorted(places, key=lambda place: float(place.corners[:, 0].mean()))


def _whole_targets(seen: dict[int, list[np.ndarray]]) -> list[TargetPlace]:
    """Which markers belong together: those that one plane explains best, each marker used once.

    Args:
        seen: By number, the corners (4, 2) of each marker of that number, in pixels.
    """
    units = np.array([(x + dx, y + dy) for x, y in MARKERS for dx, dy in _MARKER_CORNERS], np.float64)
    fits: list[tuple[float, tuple[int, ...], TargetPlace]] = []
    kept = [found[:MAX_TARGETS] for found in seen.values()]
    for chosen in itertools.product(*(range(len(found)) for found in kept)):
        pixels = np.concatenate([found[index] for found, index in zip(kept, chosen, strict=True)])
        # Corners are edges between pixels in units, and pixel centres in the picture.
        to_picture, _ = cv2.findHomography(units, pixels)
        if to_picture is None:
            continue
        place = TargetPlace(np.asarray(to_picture, np.float64))
        off = float(np.sqrt(((_places(place.to_picture, units) - pixels) ** 2).sum(axis=1).mean()))
        if off <= MAX_MISFIT * place.cell_px:
            fits.append((off, chosen, place))
    places: list[TargetPlace] = []
    used: set[tuple[int, int]] = set()
    for _, chosen, place in sorted(fits, key=lambda fit: fit[0]):
        markers = set(enumerate(chosen))
        if not used & markers:
            used |= markers
            places.append(place)
    return places


def _places(to_picture: Float64[np.ndarray, "3 3"], units: Float64[np.ndarray, "n 2"]) -> np.ndarray:
    seen = np.column_stack([units, np.ones(len(units))]) @ to_picture.T
    places: np.ndarray = seen[:, :2] / seen[:, 2:]
    return places


def write_print(path: Path, code: TargetCode, width_mm: float = 180.0, dpi: int = 300) -> tuple[int, int]:
    """Write the target as a PNG that prints at its true size.

    Args:
        path: Where to.
        code: What it says; paper shows one frame for ever, which tests the camera and its distance.
        width_mm: Of the target.
        dpi: Pixels per inch, written into the file.

    Returns:
        Rows and columns.

    Raises:
        ValueError: Too small for its cells.
    """
    picture = draw_target(code, round(width_mm / MM_PER_INCH * dpi))
    done, encoded = cv2.imencode(".png", picture)
    if not done:
        raise CalibrationError(f"the target of {picture.shape} pixels could not be written as PNG")
    png = encoded.tobytes()
    # pHYs (PNG, 11.3.5.3): pixels per metre both ways, after IHDR, whose 25 bytes follow the 8 of the signature.
    exact_dpi = picture.shape[1] / (width_mm / MM_PER_INCH)
    density = struct.pack(">IIB", *(round(exact_dpi / MM_PER_INCH * 1000.0),) * 2, 1)
    chunk = struct.pack(">I", len(density)) + b"pHYs" + density
    chunk += struct.pack(">I", zlib.crc32(b"pHYs" + density))
    path.write_bytes(png[:33] + chunk + png[33:])
    return picture.shape[0], picture.shape[1]
