"""The phantom's test of itself: passes on the phantom, and finds each of its parts when that is wrong."""

import math
from dataclasses import replace

import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Clean, Phantom
from calib.phantom_test import (
    MIN_SIDE,
    STEPS,
    chart_beam,
    edge_response,
    expected_mtf,
    gaussian_mtf,
    measure_phantom,
    mtf50,
)

CONFIG = PhantomConfig(rows=384, columns=384)


@pytest.mark.parametrize(("bits_stored", "dose"), [(8, 1.0), (12, 0.1)])
def test_the_phantom_passes_its_own_test(bits_stored: int, dose: float) -> None:
    result, chart = measure_phantom(PhantomConfig(rows=512, columns=512, bits_stored=bits_stored, dose=dose))
    assert result.passed, result.says
    assert result.wedge_slope == pytest.approx(1.0, abs=0.005)
    assert result.mtf50_per_px == pytest.approx(result.mtf50_expected_per_px, rel=0.04)
    assert chart.shape == (512, 512)
    assert chart.dtype == (np.uint8 if bits_stored == 8 else np.uint16)
    assert len(result.says) == 3


class Noisier(Phantom):
    """Draws 10 % more variance than its quanta have."""

    @property
    def quanta(self) -> float:
        return super().quanta

    def add_noise(self, clean: Clean, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        noisy, angiogram = super().add_noise(clean, rng)
        return clean.plain + (noisy - clean.plain) * np.float32(math.sqrt(1.1)), angiogram


class Blurrier(Phantom):
    """Blurs 15 % more than it says."""

    def expose(self, primary: np.ndarray, veil: np.ndarray) -> np.ndarray:
        wider = Phantom(replace(self.config, blur_mm=1.15 * self.blur_px * self.config.spacing_mm))
        exposed: np.ndarray = wider.expose(primary, veil)
        return exposed


class Bent(Phantom):
    """A detector whose dark end is 3 % too bright."""

    def expose(self, primary: np.ndarray, veil: np.ndarray) -> np.ndarray:
        exposed: np.ndarray = super().expose(primary, veil)
        return exposed * (1 + 0.03 * (1 - exposed))


@pytest.mark.parametrize(
    ("phantom", "part"),
    [
        pytest.param(Noisier, "noise", id="noise"),
        pytest.param(Blurrier, "mtf", id="blur"),
        pytest.param(Bent, "wedge", id="linearity"),
    ],
)
def test_a_phantom_that_is_wrong_in_one_thing_is_found_out_in_that(phantom: type[Phantom], part: str) -> None:
    result, _ = measure_phantom(CONFIG, phantom=phantom)
    beyond = {
        "noise": result.noise_departure > result.noise_limit,
        "mtf": result.mtf_departure > result.mtf_limit,
        "wedge": result.wedge_departure > result.wedge_limit,
    }
    assert beyond == {name: name == part for name in beyond}, result.says
    assert not result.passed
    assert result.residual > result.limit


def test_a_detector_that_saturates_is_not_straight_and_says_how_many_steps_are_clipped() -> None:
    result, _ = measure_phantom(PhantomConfig(rows=256, columns=256, saturation=0.5))
    assert not result.passed
    assert result.wedge_departure > 0.2
    assert f"2 of {STEPS} steps are clipped and not compared" in result.says[0]


def test_a_blur_below_a_pixel_is_judged_as_it_is_sampled_and_said_to_be_sharper() -> None:
    """The phantom samples its Gaussian at whole pixels, which at half a pixel's spread is no Gaussian any more."""
    small = PhantomConfig(rows=256, columns=256)
    result, _ = measure_phantom(small)
    assert result.passed, result.says
    assert result.mtf_departure < 0.02
    smooth = gaussian_mtf(np.linspace(0.0, 0.5, 501), Phantom(small).blur_px)
    assert result.mtf50_per_px > 1.05 * mtf50(np.linspace(0.0, 0.5, 501), smooth)
    assert (
        "a Gaussian that is not sampled would have 0.309: at 0.53 pixels the phantom is sharper"
        in result.says[1]
    )
    blurrier, _ = measure_phantom(small, phantom=Blurrier)
    assert not blurrier.passed
    assert blurrier.mtf_departure > blurrier.mtf_limit


def test_a_wide_blur_is_nearly_the_gaussian_that_it_samples() -> None:
    per_px = np.linspace(0.0, 0.5, 101)
    assert np.abs(expected_mtf(per_px, 2.0) - gaussian_mtf(per_px, 2.0)).max() < 0.02
    assert np.abs(expected_mtf(per_px, 0.0) - np.sinc(per_px)).max() < 0.01


@pytest.mark.parametrize("blur_px", [0.0, 1.0, 2.0])
def test_the_slanted_edge_gives_the_blur_that_was_put_in(blur_px: float) -> None:
    rows = 200
    beam = chart_beam(2 * rows, 300)[rows:].astype(np.float64)
    if blur_px:
        import cv2

        beam = cv2.GaussianBlur(beam, (31, 31), blur_px)
    found = edge_response(beam[20:], rows)
    assert np.abs(found.mtf - gaussian_mtf(found.per_px, blur_px)).max() < 0.02


def test_one_half_of_an_mtf_lies_between_two_frequencies() -> None:
    per_px = np.array([0.0, 0.1, 0.2])
    assert mtf50(per_px, np.array([1.0, 0.6, 0.4])) == pytest.approx(0.15)
    assert mtf50(per_px, np.array([1.0, 0.9, 0.8])) == 0.5


def test_the_same_settings_give_the_same_figures() -> None:
    small = PhantomConfig(rows=MIN_SIDE, columns=MIN_SIDE)
    assert measure_phantom(small, frames=4)[0] == measure_phantom(small, frames=4)[0]


@pytest.mark.parametrize(
    ("config", "frames"),
    [
        pytest.param(PhantomConfig(rows=128, columns=512), None, id="too small"),
        pytest.param(PhantomConfig(), 1, id="too few"),
    ],
)
def test_what_tells_nothing_is_refused(config: PhantomConfig, frames: int | None) -> None:
    with pytest.raises(ValueError, match=f"2 or more frames of at least {MIN_SIDE} pixels a side, got"):
        measure_phantom(config, frames)
