from dataclasses import replace

import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Phantom
from calib.phantom_detector import (
    FLUORO_DOSE,
    electronic_sd,
    fluoroscopy,
    lag_weights,
    lagged,
    noise_field,
    noisy,
)

SMALL = PhantomConfig(rows=128, columns=128, devices=False)


def edge(at: int) -> np.ndarray:
    """A dark half plane up to a column, before a bright one."""
    picture = np.full((8, 32), 0.8, np.float32)
    picture[:, :at] = 0.2
    return picture


@pytest.mark.parametrize("lag", [0.0, 0.02, 0.3])
def test_lag_weights_sum_to_one(lag: float) -> None:
    assert sum(lag_weights(lag)) == pytest.approx(1.0)
    assert lag_weights(lag)[1] == pytest.approx(lag * (1 - lag))


def test_lag_follows_the_formula_on_a_moving_edge() -> None:
    shown = lagged([edge(20), edge(16), edge(12)], 0.25)
    step = 0.6
    assert shown[0, 5] == pytest.approx(0.2)
    # Bright in both frames before, then in the last but one only.
    assert shown[0, 18] == pytest.approx(0.2 + step * 0.25)
    assert shown[0, 14] == pytest.approx(0.2 + step * 0.25**2)
    assert shown[0, 25] == pytest.approx(0.8)


def test_without_lag_the_picture_is_the_old_one() -> None:
    assert np.array_equal(lagged([edge(20), edge(16), edge(12)], 0.0), edge(20))
    phantom = Phantom(replace(SMALL, lag=0.0))
    seen, clean = phantom.seen(7), phantom.clean(phantom.pose(7))
    assert np.array_equal(seen.plain, clean.plain)
    assert np.array_equal(seen.angiogram, clean.angiogram)


def test_lag_needs_three_pictures() -> None:
    with pytest.raises(ValueError, match="lag needs the pictures of 3 frames, newest first, got 2"):
        lagged([edge(20), edge(16)], 0.1)


@pytest.mark.parametrize("index", [0, 1, 9], ids=["first", "second", "later"])
def test_a_frame_shows_what_those_before_it_left(index: int) -> None:
    phantom = Phantom(replace(SMALL, lag=0.2))
    frames = phantom.loop.frames
    cleans = [phantom.clean(phantom.pose((index - back) % frames)) for back in range(3)]
    expected = 0.8 * cleans[0].angiogram + 0.16 * cleans[1].angiogram + 0.04 * cleans[2].angiogram
    seen = phantom.seen(index)
    assert seen.angiogram == pytest.approx(expected, abs=1e-5)
    assert not np.array_equal(seen.angiogram, cleans[0].angiogram)
    assert np.array_equal(seen.mask, cleans[0].mask)


def test_lag_does_not_depend_on_the_order_of_requests() -> None:
    config = replace(SMALL, lag=0.2)
    forwards, backwards = Phantom(config), Phantom(config)
    straight = [forwards.frame(index).angiogram for index in range(5)]
    for index in (3, 0, 4, 4, 2, 1):
        assert np.array_equal(backwards.frame(index).angiogram, straight[index])


def test_a_caller_may_write_into_a_picture_with_lag() -> None:
    phantom = Phantom(replace(SMALL, lag=0.2))
    first = phantom.seen(4)
    kept = first.plain.copy()
    first.plain[:] = 0
    first.mask[:] = True
    again = phantom.seen(4)
    assert np.array_equal(again.plain, kept)
    assert not again.mask.all()


@pytest.mark.parametrize("dose", [1.0, 0.1])
def test_the_electronic_noise_is_as_set(dose: float) -> None:
    config = PhantomConfig(electronic_noise=0.004, dose=dose, field_mm=0.3 * 512)
    assert electronic_sd(config) == pytest.approx(0.004 / dose)
    deviate = noise_field((256, 256), np.random.default_rng(3))
    dark = np.zeros((256, 256), np.float32)  # without quanta there is no other noise
    assert noisy(dark, deviate, 1000.0, electronic_sd(config)).std() == pytest.approx(0.004 / dose, rel=0.02)


def test_quantum_and_electronic_noise_add_as_variances() -> None:
    deviate = noise_field((256, 256), np.random.default_rng(3))
    grey = np.full((256, 256), 0.5, np.float32)
    spread = noisy(grey, deviate, 2000.0, 0.02).std()
    assert spread == pytest.approx(np.sqrt(0.5 / 2000.0 + 0.02**2), rel=0.02)


def test_a_phantoms_frame_has_the_electronic_noise_asked_for() -> None:
    spreads = []
    for electronic in (0.0, 0.03):
        phantom = Phantom(
            replace(SMALL, electronic_noise=electronic, field_mm=0.3 * 512, rows=512, columns=512)
        )
        clean = phantom.clean(phantom.pose(0))
        noise = phantom.add_noise(clean, np.random.default_rng(1))[0] - clean.plain
        spreads.append(noise.var())
    assert spreads[1] - spreads[0] == pytest.approx(0.03**2, rel=0.05)


def test_a_saturated_detector_shows_nothing_brighter() -> None:
    frame = Phantom(replace(SMALL, saturation=0.5)).frame(2)
    open_ended = Phantom(SMALL).frame(2)
    assert frame.plain.max() == round(0.5 * 255)
    dark = open_ended.plain < 127
    assert dark.any()
    assert np.array_equal(frame.plain[dark], open_ended.plain[dark])


def test_a_larger_blur_softens_the_vessels() -> None:
    def steepest(blur_mm: float) -> float:
        phantom = Phantom(replace(SMALL, blur_mm=blur_mm, rows=256, columns=256))
        clean = phantom.clean(phantom.pose(0))
        return float(np.abs(np.diff(clean.angiogram - clean.plain, axis=1)).max())

    assert steepest(1.2) < 0.7 * steepest(0.3)


def test_fluoroscopy_has_less_dose_more_lag_and_the_same_patient() -> None:
    cine = PhantomConfig(seed=9)
    fluoro = fluoroscopy(cine)
    assert fluoro.dose == pytest.approx(cine.dose * FLUORO_DOSE)
    assert fluoro.lag > cine.lag
    assert electronic_sd(fluoro) > 10 * electronic_sd(cine)
    assert replace(fluoro, dose=cine.dose, lag=cine.lag) == cine


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"lag": 0.95}, r"lag must be 0 to 0.9 .*, got 0.95"),
        ({"electronic_noise": -0.1}, r"electronic_noise must be 0 to 0.2 .*, got -0.1"),
        ({"saturation": 0.1}, r"saturation must be 0.3 to 1 .*, got 0.1"),
        ({"blur_mm": 9.0}, r"blur_mm must be 0 to 3 .*, got 9.0"),
    ],
    ids=["lag", "electronic", "saturation", "blur"],
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhantomConfig(**settings)
