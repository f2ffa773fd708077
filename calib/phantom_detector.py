"""The detector after the clean picture: lag, quantum and electronic noise, saturation.

    clean pictures of this frame and the two before -> lag -> noise -> saturation -> grey levels

Grey levels run from 0 to 1, white. Nothing here keeps state, so a frame never depends on which was asked for
before it.
"""

from collections.abc import Sequence
from dataclasses import replace

import cv2
import numpy as np
from jaxtyping import Float32

from calib.config import PhantomConfig
from calib.phantom_rendering import blur_reach

NOISE_BLUR_PX = 0.65
LAG_FRAMES = 2
"""How many frames back lag reaches."""
ELECTRONIC_PIXEL_MM = 0.3
"""Size at the heart of the pixel that `PhantomConfig.electronic_noise` speaks of."""
FLUORO_DOSE = 0.08
FLUORO_LAG = 0.12
"""Fluoroscopy is shown with some averaging over time, which looks as lag does."""


def fluoroscopy(config: PhantomConfig) -> PhantomConfig:
    """The same patient under pulsed fluoroscopy: a twelfth of the dose, so electronic noise counts, and more lag.

    The pulse rate is the frame rate asked for. A pulse is taken as an instant: within its 4 to 10 ms nothing blurs.
    """
    return replace(config, dose=config.dose * FLUORO_DOSE, lag=max(config.lag, FLUORO_LAG))


def lag_weights(lag: float) -> tuple[float, float, float]:
    """What this frame and the two before it give to the picture; they sum to 1.

    A detector of which the share a remains from one frame to the next shows s[k] = (1 - a) c[k] + a s[k-1].
    Written out, and the rest beyond two frames given to the last of them, as if nothing had moved before:
        s[k] = (1 - a) c[k] + a (1 - a) c[k-1] + a^2 c[k-2]
    """
    return 1.0 - lag, lag * (1.0 - lag), lag * lag


def lagged(pictures: Sequence[Float32[np.ndarray, "h w"]], lag: float) -> Float32[np.ndarray, "h w"]:
    """This frame's picture with what the two before it left behind. A new array.

    Args:
        pictures: Clean pictures of this frame, the one before and the one before that.
        lag: The share that remains from one frame to the next, 0 to below 1.

    Raises:
        ValueError: There are not three pictures.
    """
    if len(pictures) != LAG_FRAMES + 1:
        raise ValueError(
            f"lag needs the pictures of {LAG_FRAMES + 1} frames, newest first, got {len(pictures)}"
        )
    now, before, earlier = lag_weights(lag)
    shown: np.ndarray = cv2.addWeighted(pictures[0], now, pictures[1], before, 0.0)
    shown += np.float32(earlier) * pictures[2]
    return shown


def electronic_sd(config: PhantomConfig) -> float:
    """Standard deviation of the electronic noise, in grey levels.

    The detector's electronics do not know the dose: with less of it the signal is amplified more, and that noise
    with it. A larger pixel is the mean of more of the detector's own, so its noise falls as that of the quanta does.
    """
    return config.electronic_noise / config.dose * ELECTRONIC_PIXEL_MM / config.spacing_mm


def noise_field(shape: tuple[int, int], rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """Normal deviates of standard deviation 1, a little correlated as a detector's are."""
    deviate = rng.standard_normal(shape, dtype=np.float32)
    side = 2 * blur_reach(NOISE_BLUR_PX) + 1
    kernel = cv2.getGaussianKernel(side, NOISE_BLUR_PX, cv2.CV_32F)
    # Scaled so that the blurred deviate keeps the standard deviation of 1.
    kernel /= np.sqrt((kernel**2).sum())
    smooth: np.ndarray = cv2.sepFilter2D(deviate, -1, kernel, kernel, borderType=cv2.BORDER_REFLECT)
    return smooth


def noisy(
    grey: Float32[np.ndarray, "h w"],
    deviate: Float32[np.ndarray, "h w"],
    quanta: float,
    electronic: float = 0.0,
) -> Float32[np.ndarray, "h w"]:
    """A picture with quantum and electronic noise. A new array.

    A grey level g stands for N g quanta, N in a white pixel; their Poisson spread is sqrt(N g), in grey levels
    sqrt(g / N), and is drawn as a normal deviate, which it is within the eye's reach above 20 quanta. The
    electronic noise is normal too and independent of it, so the variances add and one deviate serves both:
        g + sqrt(g / N + e^2) n

    Args:
        grey: Clean grey levels.
        deviate: n, of `noise_field`.
        quanta: N.
        electronic: e, in grey levels.
    """
    spread: np.ndarray = np.maximum(grey, 0.0)
    spread *= np.float32(1.0 / quanta)
    spread += np.float32(electronic**2)
    np.sqrt(spread, out=spread)
    spread *= deviate
    spread += grey
    return spread
