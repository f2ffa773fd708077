"""Phantom vessels laid into real contrast-free pictures by Beer-Lambert: appearance to learn from, not anatomy.

    contrast-free picture + thickness of vessel at each pixel -> the picture darkened there, and the mask

**Where the tree lies on such a picture means nothing.** Nobody knows where that patient's heart or arteries are, so
the tree is put somewhere in the field at random. Such pairs teach how contrast medium looks on real chests, noise
and processing; a network taught on them to tell the vessels' place from the picture learns the average of
all places.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Bool, Float32

from calib.config import PhantomConfig
from calib.phantom import IODINE_PER_MM, Phantom
from calib.phantom_detector import noise_field
from calib.phantom_rendering import blur

MASK_ABOVE_MM = 0.12
"""Vessel thinner than this is in the picture but not in the mask."""
_PRIMARY_SHARE = 0.8
_TURN_DEG = 25.0
_SCALE = (0.8, 1.15)
_SHIFT = 0.18
"""How far a tree is moved at most, relative to the side of the picture."""
_LEAST_SHOWN = 0.4
"""At least this much of a tree lies in the field."""
_TRIES = 12


def inlay(
    background: np.ndarray,
    thickness_mm: Float32[np.ndarray, "h w"],
    max_value: int,
    spacing_mm: float,
    iodine_per_mm: float = IODINE_PER_MM,
    primary_share: float = _PRIMARY_SHARE,
    blur_mm: float = 0.30,
    rng: np.random.Generator | None = None,
) -> tuple[np.ndarray, Bool[np.ndarray, "h w"]]:
    """Lay vessels into a stored picture.

    Args:
        background: (h, w) uint8 or uint16 without contrast medium. Its values are taken as linear in the
            detector's signal from 0, black.
        thickness_mm: How much vessel each pixel's ray passes.
        max_value: Largest stored pixel value.
        spacing_mm: Size of a pixel at the heart.
        iodine_per_mm: Attenuation of blood with contrast medium.
        primary_share: Share of the signal that is not scatter, above 0 to 1: only this is weakened.
        blur_mm: Standard deviation of focal spot and detector blur at the heart.
        rng: Of the noise; None adds none.

    Returns:
        The angiogram, of the same type, and where vessel is. Beyond the reach of vessel and blur it is `background`,
        bit for bit.

    Raises:
        ValueError: The picture is not (h, w) uint8 or uint16, or a size or setting does not fit.

    Our choice, Beer-Lambert on the primary share p of the signal v, K the blur, t the thickness:
        v (1 - p K * (1 - exp(-mu t)))
    """
    if background.ndim != 2 or background.dtype not in (np.uint8, np.uint16):
        raise ValueError(
            f"a background must be (h, w) uint8 or uint16, got {background.shape} {background.dtype}; "
            "colour pictures must be made grey first"
        )
    if thickness_mm.shape != background.shape:
        raise ValueError(
            f"thickness must have the background's size, {background.shape}, got {thickness_mm.shape}; resize one of them"
        )
    grey = background.astype(np.float32) * np.float32(1.0 / max_value)
    darkened, mask = inlay_grey(grey, thickness_mm, spacing_mm, iodine_per_mm, primary_share, blur_mm, rng)
    stored = np.clip(darkened * np.float32(max_value) + np.float32(0.5), 0, max_value)
    touched = darkened != grey
    return np.where(touched, stored.astype(background.dtype), background), mask


def inlay_grey(
    grey: Float32[np.ndarray, "h w"],
    thickness_mm: Float32[np.ndarray, "h w"],
    spacing_mm: float,
    iodine_per_mm: float = IODINE_PER_MM,
    primary_share: float = _PRIMARY_SHARE,
    blur_mm: float = 0.30,
    rng: np.random.Generator | None = None,
) -> tuple[Float32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """`inlay` for grey levels 0 to 1; a new array.

    Fewer quanta come through a vessel, and their noise is relatively stronger. The background brings its own noise, of
    variance s^2 g at grey level g, weakened by the vessel's transmission T to T^2 s^2 g where a
    detector would see T s^2 g. What is missing, s^2 g T (1 - T), is added, with s^2 measured on the background.

    Raises:
        ValueError: A setting is out of range.
    """
    if not 0.0 < primary_share <= 1.0:
        raise ValueError(f"primary_share must be above 0 and at most 1, got {primary_share}")
    if not (spacing_mm > 0.0 and iodine_per_mm >= 0.0 and blur_mm >= 0.0):
        raise ValueError(
            f"spacing_mm must be above 0, iodine_per_mm and blur_mm 0 or above, got {spacing_mm}, "
            f"{iodine_per_mm} and {blur_mm}"
        )
    taken = cv2.exp(thickness_mm * np.float32(-iodine_per_mm))
    np.subtract(np.float32(primary_share), np.float32(primary_share) * taken, out=taken)
    if blur_mm:
        taken = blur(taken, max(0.45, blur_mm / spacing_mm))
    let_through = np.float32(1.0) - taken
    darkened: np.ndarray = grey * let_through
    if rng is not None:
        missing = np.float32(noise_per_grey(grey)) * np.maximum(grey, 0.0) * let_through * taken
        darkened += np.sqrt(np.maximum(missing, 0.0)) * noise_field(grey.shape, rng)
        np.clip(darkened, 0.0, 1.0, out=darkened)
    darkened = np.where(taken > 0.0, darkened, grey)
    return darkened, thickness_mm > MASK_ABOVE_MM


def noise_per_grey(grey: Float32[np.ndarray, "h w"]) -> float:
    """Variance of a picture's noise per grey level, for noise whose variance grows with the signal.

    Measured on what two crossed second differences leave, by its median, so that edges do not count. They are
    taken over three pixels, where a detector's noise is hardly correlated any more; its grain in the picture
    may still be another than that of the noise `inlay` adds.

    J. Immerkaer, Fast Noise Variance Estimation, 1996, for the kernel; the step of three, the median and the division
    by the grey level are our choice.
    """
    kernel = np.zeros((7, 7), np.float32)
    kernel[::3, ::3] = np.array([[1, -2, 1], [-2, 4, -2], [1, -2, 1]], np.float32) / np.float32(6.0)
    detail = cv2.filter2D(grey, -1, kernel, borderType=cv2.BORDER_REFLECT)
    lit = grey > 0.05
    if not lit.any():
        return 0.0
    sd = np.median(np.abs(detail[lit]) / np.sqrt(grey[lit])) / 0.6745
    return float(sd**2)


def inlaid_pairs(
    backgrounds: Sequence[np.ndarray],
    fields: Sequence[Bool[np.ndarray, "_ _"]],
    size: int,
    seeds: Iterable[int],
    frames_per_seed: int,
    config: PhantomConfig | None = None,
    max_value: int = 255,
) -> Iterator[
    tuple[
        Float32[np.ndarray, "size size"], Float32[np.ndarray, "size size"], Float32[np.ndarray, "size size"]
    ]
]:
    """Pairs as `training_pairs` yields them, on real backgrounds. Placement is random and means nothing: see above.

    Args:
        backgrounds: (h, w) uint8 or uint16, contrast-free; the centre square of each is used.
        fields: Where each background shows the patient, not blades or borders; one per background.
        size: Rows and columns, 64 to 2048.
        seeds: The patients whose trees are laid in.
        frames_per_seed: Pairs of each tree, each on a background, at a place and a phase of its own.
        config: Of the trees and of the spacing; seed, rows and columns are replaced.
        max_value: Largest stored pixel value of the backgrounds.

    Yields:
        (plain, angiogram, mask): grey levels 0 to 1, and 1 where vessel is. New arrays each time. The same arguments give the
        same pairs.

    Raises:
        ValueError: There is no background, fields do not match, or a setting is out of range.
    """
    _check(backgrounds, fields, frames_per_seed)
    template = PhantomConfig() if config is None else config
    squares = [_square(picture, size, 1.0 / max_value) for picture in backgrounds]
    open_fields = [_square(field.astype(np.uint8), size, 1.0) for field in fields]
    for seed in seeds:
        phantom = Phantom(replace(template, seed=seed, rows=size, columns=size, collimated=False))
        spacing_mm = phantom.config.spacing_mm
        rng = np.random.default_rng((seed, 0x1A1D))
        for _ in range(frames_per_seed):
            chosen = int(rng.integers(len(squares)))
            plain, field = squares[chosen], open_fields[chosen]
            index = int(rng.integers(phantom.loop.frames))
            vessels = phantom.vessels(phantom.pose(index), phantom.filling(index))
            thickness = np.zeros((size, size), np.float32)
            thickness[vessels.place] = vessels.thickness
            placed = _somewhere(thickness, field, rng) * np.float32(spacing_mm)
            iodine = IODINE_PER_MM * float(rng.uniform(0.7, 1.3))
            angiogram, mask = inlay_grey(
                plain, placed, spacing_mm, iodine, 1.0 / (1.0 + template.scatter), template.blur_mm, rng
            )
            yield plain.copy(), angiogram, (mask & (field > 0.5)).astype(np.float32)


def _check(backgrounds: Sequence[np.ndarray], fields: Sequence[np.ndarray], frames_per_seed: int) -> None:
    if frames_per_seed < 1:
        raise ValueError(f"frames_per_seed must be 1 or above, got {frames_per_seed}")
    if not backgrounds:
        raise ValueError("inlaid pairs need at least one contrast-free background, got none")
    if len(fields) != len(backgrounds):
        raise ValueError(
            f"each background needs its field, got {len(backgrounds)} backgrounds and {len(fields)} fields"
        )
    for number, (picture, field) in enumerate(zip(backgrounds, fields, strict=True)):
        if picture.ndim != 2 or picture.dtype not in (np.uint8, np.uint16) or picture.shape != field.shape:
            raise ValueError(
                f"background {number} must be (h, w) uint8 or uint16 with a field of its size, got "
                f"{picture.shape} {picture.dtype} and a field of {field.shape}"
            )
        if field.mean() < 0.1:
            raise ValueError(
                f"background {number} shows the patient on {field.mean():.0%} of its area, needed 10 % at least; "
                "leave it out"
            )


def _square(picture: np.ndarray, size: int, scale: float) -> Float32[np.ndarray, "size size"]:
    """The centre square, averaged down to `size`, times `scale`."""
    rows, columns = picture.shape
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    centre = picture[top : top + side, left : left + side].astype(np.float32)
    method = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
    resized: np.ndarray = cv2.resize(centre, (size, size), interpolation=method)
    resized *= np.float32(scale)
    return resized


def _somewhere(
    thickness: Float32[np.ndarray, "h w"], field: Float32[np.ndarray, "h w"], rng: np.random.Generator
) -> Float32[np.ndarray, "h w"]:
    """The tree turned, scaled and moved at random, and cut off at the field's edge.

    Tried again while most of it falls outside the field, and then taken as it is best.
    """
    rows, columns = thickness.shape
    whole = max(float(thickness.sum()), 1e-6)
    best, best_share = np.zeros_like(thickness), -1.0
    for _ in range(_TRIES):
        turn = float(rng.uniform(-_TURN_DEG, _TURN_DEG))
        scale = float(rng.uniform(*_SCALE))
        matrix = cv2.getRotationMatrix2D(((columns - 1) / 2, (rows - 1) / 2), turn, scale)
        matrix[:, 2] += rng.uniform(-_SHIFT, _SHIFT, 2) * (columns, rows)
        moved: np.ndarray = cv2.warpAffine(thickness, matrix, (columns, rows), flags=cv2.INTER_LINEAR)
        # A vessel that looks larger is thicker along the beam too.
        moved *= np.float32(scale)
        moved *= field
        share = float(moved.sum()) / (whole * scale**3)
        if share > best_share:
            best, best_share = moved, share
        if share >= _LEAST_SHOWN:
            break
    return best
