"""The digital phantom's test of itself: is its noise Poisson's, its edge as sharp as asked, its step wedge straight?

A chart goes through the phantom's own way, `Phantom.expose` -> `add_noise` -> `store`, as a patient does:

    steps of attenuation 0 to 2    -> mean and variance of each step
    an edge five degrees off       -> its modulation transfer function, by the slanted edge of ISO 12233

Collimator, scatter, devices and lag are switched off, since each would change what is measured here.
"""

import itertools
import math
from dataclasses import dataclass, replace

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from calib.config import PhantomConfig
from calib.phantom import WHITE, Clean, Phantom
from calib.phantom_detector import electronic_sd
from calib.phantom_rendering import blur_reach, store
from calib.results import PhantomResult

STEPS = 11
DEEPEST = 2.0
"""Attenuation of the last step; blood vessels with contrast medium take away up to about 0.5."""
WEDGE_SHARE = 0.5
"""Of the rows."""
EDGE_ATTENUATION = 1.0
EDGE_DEG = 5.0
MIN_SIDE = 192
FRAMES = 24
MAX_FRAMES = 240
NOISE_SHARE = 0.01
"""The standard error of a step's variance that is wanted of the pictures together; small steps need more of them."""
CORRELATED_PX = 5.3
"""4 pi s^2 of the detector's noise, s its blur of 0.65 pixels: so many neighbours tell as much as one alone."""
NOISE_LIMIT = 0.05
"""Of variance: five standard errors."""
MTF_LIMIT = 0.04
SHARPER = 1.02
"""A sampled blur whose MTF reaches one half so many times further than the Gaussian's is told."""
WEDGE_LIMIT = 0.01
"""In natural logarithms: one part in a hundred of the beam."""
OVERSAMPLED = 4
CLEAR_SD = 4.0
"""A step nearer than this to black or to saturation is clipped, and its variance is not compared."""


@dataclass(frozen=True)
class EdgeResponse:
    """A modulation transfer function."""

    per_px: Float64[np.ndarray, " n"]
    """Spatial frequencies across the edge, cycles per pixel, 0 to 0.5."""
    mtf: Float64[np.ndarray, " n"]


def chart_attenuation(rows: int, columns: int) -> Float32[np.ndarray, "h w"]:
    """The chart: natural logarithms of attenuation. The wedge above, the edge below, each pixel the mean over its area."""
    attenuation = np.zeros((rows, columns), np.float32)
    split = round(rows * WEDGE_SHARE)
    step = np.minimum(np.arange(columns) * STEPS // columns, STEPS - 1)
    attenuation[:split] = (step * (DEEPEST / (STEPS - 1))).astype(np.float32)
    return attenuation


def _edge_beam(rows: int, columns: int) -> Float32[np.ndarray, "h w"]:
    """The beam behind a sharp edge, averaged over each pixel's area by 16 x 16 points."""
    points = (np.arange(16) + 0.5) / 16 - 0.5
    row = (np.arange(rows)[:, None] + points).ravel()
    beam = np.empty((rows, columns), np.float32)
    low = WHITE * math.exp(-EDGE_ATTENUATION)
    for column in range(columns):
        away = edge_distance(row[:, None], column + points[None, :], rows, columns)
        behind = (away > 0).reshape(rows, 16 * 16).mean(axis=1)
        beam[:, column] = WHITE + (low - WHITE) * behind
    return beam


def edge_distance(
    row: Float64[np.ndarray, "*rows"], column: Float64[np.ndarray, "*columns"], rows: int, columns: int
) -> Float64[np.ndarray, "*pixels"]:
    """How far a place lies behind the edge, in pixels across it; the edge runs through the middle, nearly along the rows' axis."""
    tilt = math.radians(EDGE_DEG)
    away: Float64[np.ndarray, "*pixels"] = (column - (columns - 1) / 2) * math.cos(tilt) + (
        row - (rows - 1) / 2
    ) * math.sin(tilt)
    return away


def chart_beam(rows: int, columns: int) -> Float32[np.ndarray, "h w"]:
    """The beam behind the chart, in grey levels before the detector."""
    split = round(rows * WEDGE_SHARE)
    beam: Float32[np.ndarray, "h w"] = (WHITE * np.exp(-chart_attenuation(rows, columns))).astype(np.float32)
    beam[split:] = _edge_beam(rows - split, columns)
    return beam


def measure_phantom(
    config: PhantomConfig | None = None, frames: int | None = None, phantom: type[Phantom] = Phantom
) -> tuple[PhantomResult, np.ndarray]:
    """Put the chart before the phantom's detector and measure it.

    Args:
        config: Dose, blur, noise, saturation, bits and size to test with; contrast, collimator, scatter, devices and lag are
            of no account.
        frames: Pictures of the chart, 2 or more; None for as many as tell the noise.
        phantom: The phantom under test.

    Returns:
        The result, and the first picture of the chart, in stored pixel values.

    Raises:
        ValueError: Frames smaller than 192 pixels a side, or too few of them.
    """
    config = replace(
        config or PhantomConfig(),
        contrast=False,
        bolus=False,
        collimated=False,
        scatter=0.0,
        devices=False,
        lag=0.0,
    )
    tested = phantom(config)
    frames = _frames_needed(tested) if frames is None else frames
    if min(config.rows, config.columns) < MIN_SIDE or frames < 2:
        raise ValueError(
            f"the phantom's test needs 2 or more frames of at least {MIN_SIDE} pixels a side, got {frames} of "
            f"{config.rows}x{config.columns}"
        )
    shape = (config.rows, config.columns)
    clean = tested.expose(chart_beam(*shape), np.zeros(shape, np.float32))
    pair = Clean(clean, clean, np.zeros(shape, bool))
    pictures = []
    for index in range(frames):
        plain, _ = tested.add_noise(pair, np.random.default_rng((config.seed, 0x7E57, index)))
        pictures.append(store(plain, config.max_value))
    grey = np.stack(pictures).astype(np.float64) / config.max_value
    noise, clipped = _noise_departure(tested, grey)
    slope, bend = _wedge_departure(tested, grey)
    split = round(config.rows * WEDGE_SHARE)
    response = edge_response(grey.mean(axis=0)[split + tested.blur_reach_px + 2 :], config.rows - split)
    expected = expected_mtf(response.per_px, tested.blur_px)
    mtf = float(np.abs(response.mtf - expected).max())
    smooth = mtf50(response.per_px, gaussian_mtf(response.per_px, tested.blur_px))
    parts = {"noise": noise / NOISE_LIMIT, "mtf": mtf / MTF_LIMIT, "wedge": bend / WEDGE_LIMIT}
    residual = max(parts.values())
    measured, asked = mtf50(response.per_px, response.mtf), mtf50(response.per_px, expected)
    says = [
        f"noise: variance within {100 * noise:.1f} % of Poisson's and the electronics' ({100 * NOISE_LIMIT:g} % allowed)"
        + (f"; {clipped} of {STEPS} steps are clipped and not compared" if clipped else ""),
        f"edge: MTF within {mtf:.3f} of the blur asked for, sampled at whole pixels ({MTF_LIMIT:g} allowed); one half at "
        f"{measured:.3f} cycles per pixel, expected {asked:.3f}"
        + (
            f"; a Gaussian that is not sampled would have {smooth:.3f}: at {tested.blur_px:.2f} pixels the phantom is sharper"
            if asked > SHARPER * smooth
            else ""
        ),
        f"wedge: slope {slope:.4f}, straight within {bend:.4f} ({WEDGE_LIMIT:g} allowed)",
    ]
    result = PhantomResult(
        passed=residual <= 1.0,
        frames=frames,
        residual=residual,
        limit=1.0,
        unit="of the limits",
        says=tuple(says),
        noise_departure=noise,
        noise_limit=NOISE_LIMIT,
        mtf50_per_px=measured,
        mtf50_expected_per_px=asked,
        mtf_departure=mtf,
        mtf_limit=MTF_LIMIT,
        wedge_steps=STEPS,
        wedge_slope=slope,
        wedge_departure=bend,
        wedge_limit=WEDGE_LIMIT,
    )
    return result, pictures[0]


def _steps(phantom: Phantom, grey: Float64[np.ndarray, "n h w"]) -> list[Float64[np.ndarray, "n h2 w2"]]:
    """The middle of each step, where the blur of its neighbours does not reach."""
    rows, columns = grey.shape[1:]
    reach = phantom.blur_reach_px + 2
    bottom = round(rows * WEDGE_SHARE) - reach
    edges = [math.ceil(step * columns / STEPS) for step in range(STEPS + 1)]
    return [grey[:, reach:bottom, left + reach : right - reach] for left, right in itertools.pairwise(edges)]


def _frames_needed(phantom: Phantom) -> int:
    """Pictures whose variance has a relative standard error, sqrt(2 / n), of `NOISE_SHARE`; n counts independent values."""
    nothing = np.zeros((1, phantom.config.rows, phantom.config.columns))
    smallest = max(1, min(part[0].size for part in _steps(phantom, nothing)))
    needed = math.ceil(2.0 / NOISE_SHARE**2 * CORRELATED_PX / smallest) + 1
    return int(min(max(FRAMES, needed), MAX_FRAMES))


def _noise_departure(phantom: Phantom, grey: Float64[np.ndarray, "n h w"]) -> tuple[float, int]:
    """Largest |measured / expected variance - 1| over the steps that are not clipped, and how many are.

    Expected: g / N quanta and the electronics, as `noisy` says, and 1/12 of a stored step squared for rounding.
    """
    electronic, quanta = electronic_sd(phantom.config), phantom.quanta
    largest, clipped = 0.0, 0
    for step, part in enumerate(_steps(phantom, grey)):
        true = WHITE * math.exp(-step * DEEPEST / (STEPS - 1))
        expected = true / quanta + electronic**2 + (1.0 / phantom.config.max_value) ** 2 / 12.0
        clear = CLEAR_SD * math.sqrt(expected)
        if true < clear or true > phantom.config.saturation - clear:
            clipped += 1
            continue
        largest = max(largest, abs(float(part.var(axis=0, ddof=1).mean()) / expected - 1.0))
    return (largest if clipped < STEPS else math.inf), clipped


def _wedge_departure(phantom: Phantom, grey: Float64[np.ndarray, "n h w"]) -> tuple[float, float]:
    """-d ln(grey) / d(attenuation) by least squares, and how far a step lies from ln(white) - attenuation.

    From the true line, not the fitted one: a wrong slope is a departure too.
    """
    attenuation = np.arange(STEPS) * (DEEPEST / (STEPS - 1))
    level = np.log([max(float(part.mean()), 1e-9) for part in _steps(phantom, grey)])
    slope = -float(np.polyfit(attenuation, level, 1)[0])
    return slope, float(np.abs(level - (math.log(WHITE) - attenuation)).max())


def edge_response(picture: Float64[np.ndarray, "h w"], whole: int) -> EdgeResponse:
    """The MTF of the slanted edge in the chart's lower part.

    ISO 12233's slanted edge: pixels are binned by their distance across the edge, four bins a pixel; the edge's
    derivative is windowed and transformed, and divided by what binning and differencing take away.

    Args:
        picture: The lowest of the chart's rows below the wedge, grey levels, noise averaged out.
        whole: How many rows there are below the wedge.
    """
    rows, columns = picture.shape
    row, column = np.mgrid[whole - rows : whole, :columns].astype(np.float64)
    away = edge_distance(row, column, whole, columns)
    reach = min(16.0, 0.3 * columns)
    bins = np.round(away * OVERSAMPLED).astype(np.int64)
    half = int(reach * OVERSAMPLED)
    inside = np.abs(bins) <= half
    index = bins[inside] + half
    counts = np.bincount(index, minlength=2 * half + 1)
    spread = np.bincount(index, weights=picture[inside], minlength=2 * half + 1) / counts
    line = np.diff(spread)
    # Flat over the inner half, so that a wide blur is not cut; raised cosines to either end (Tukey).
    end = np.minimum(1.0, 2.0 - 2.0 * np.abs(np.linspace(-1.0, 1.0, len(line))))
    line *= 0.5 - 0.5 * np.cos(np.pi * end)
    padded = 16 * OVERSAMPLED * half
    amplitude = np.abs(np.fft.rfft(line, padded))
    per_px = np.fft.rfftfreq(padded, 1.0 / OVERSAMPLED)
    amplitude /= amplitude[0]
    kept = per_px <= 0.5
    per_px, amplitude = per_px[kept], amplitude[kept]
    amplitude /= np.sinc(per_px / OVERSAMPLED) ** 2
    return EdgeResponse(per_px, amplitude)


def expected_mtf(per_px: Float64[np.ndarray, " n"], blur_px: float) -> Float64[np.ndarray, " n"]:
    """The MTF across the chart's edge of the phantom's own blur: its kernel h of whole pixels, and the pixel's aperture.

        MTF(f) = H(f cos t) H(f sin t) sinc(f cos t) sinc(f sin t),  H(f) = sum over k of h[k] cos(2 pi k f)

    t is the edge's tilt. Below 0.7 pixels the samples of a Gaussian are no Gaussian any more: at 0.53 pixels their H(0.5)
    is 0.50 where exp(-2 pi^2 s^2 f^2) is 0.25.

    Args:
        per_px: Spatial frequencies, cycles per pixel.
        blur_px: Standard deviation that the blur was asked for, in pixels; 0 for none.
    """
    tilt = math.radians(EDGE_DEG)
    reach = blur_reach(blur_px)
    kernel = cv2.getGaussianKernel(2 * reach + 1, blur_px)[:, 0] if blur_px else np.ones(1)
    place = np.arange(len(kernel)) - len(kernel) // 2
    mtf = np.ones_like(per_px)
    for share in (math.cos(tilt), math.sin(tilt)):
        mtf *= np.cos(2.0 * np.pi * share * per_px[:, None] * place) @ kernel * np.sinc(share * per_px)
    return mtf


def gaussian_mtf(per_px: Float64[np.ndarray, " n"], blur_px: float) -> Float64[np.ndarray, " n"]:
    """A Gaussian blur's exp(-2 pi^2 s^2 f^2) times the pixel's own aperture, sinc(f)."""
    mtf: Float64[np.ndarray, " n"] = np.exp(-2.0 * (math.pi * blur_px * per_px) ** 2) * np.sinc(per_px)
    return mtf


def mtf50(per_px: Float64[np.ndarray, " n"], mtf: Float64[np.ndarray, " n"]) -> float:
    """Where an MTF first falls to one half, in cycles per pixel; 0.5 where it does not."""
    below = np.flatnonzero(mtf < 0.5)
    if not len(below):
        return 0.5
    at = int(below[0])
    share = (mtf[at - 1] - 0.5) / (mtf[at - 1] - mtf[at])
    return float(per_px[at - 1] + share * (per_px[at] - per_px[at - 1]))
