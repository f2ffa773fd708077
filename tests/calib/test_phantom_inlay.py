from pathlib import Path

import cv2
import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import IODINE_PER_MM, Phantom
from calib.phantom_detector import noise_field
from calib.phantom_inlay import inlaid_pairs, inlay, inlay_grey, noise_per_grey

RUN = Path(__file__).resolve().parents[3] / "shared/data/angiodata_cine/Patient_2/Coro_1"
"""`sequences.csv`: "enlarged: catheter only" on its first frame."""


def bar(thickness_mm: float, shape: tuple[int, int] = (64, 64)) -> np.ndarray:
    """A vessel as a bar of one thickness, wider than any blur reaches."""
    thickness = np.zeros(shape, np.float32)
    thickness[:, 20:44] = thickness_mm
    return thickness


def real_frame() -> np.ndarray:
    path = RUN / "frames/frame_00000.jpg"
    if not path.exists():
        pytest.skip(f"the real X-ray data is not here: {path}")
    frame = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    assert frame is not None
    return np.asarray(frame, np.uint8)


@pytest.mark.parametrize("thickness_mm", [0.5, 2.0, 5.0])
def test_darkening_follows_beer_and_lambert(thickness_mm: float) -> None:
    grey = np.full((64, 64), 0.6, np.float32)
    darkened, mask = inlay_grey(grey, bar(thickness_mm), 0.3, primary_share=1.0)
    assert darkened[32, 32] / 0.6 == pytest.approx(np.exp(-IODINE_PER_MM * thickness_mm), rel=1e-5)
    assert mask[32, 32]
    assert not mask[32, 5]


def test_scatter_is_not_weakened() -> None:
    grey = np.full((64, 64), 0.6, np.float32)
    darkened, _mask = inlay_grey(grey, bar(500.0), 0.3, primary_share=0.7)
    assert darkened[32, 32] == pytest.approx(0.6 * 0.3, rel=1e-4)


@pytest.mark.parametrize(
    ("dtype", "max_value"), [(np.uint8, 255), (np.uint16, 4095)], ids=["8 bits", "12 bits"]
)
def test_beyond_vessels_the_picture_is_unchanged_bit_for_bit(dtype: type, max_value: int) -> None:
    low, high = round(0.55 * max_value), round(0.62 * max_value)
    background = np.random.default_rng(1).integers(low, high, (64, 64)).astype(dtype)
    angiogram, mask = inlay(background, bar(3.0), max_value, spacing_mm=0.3, rng=np.random.default_rng(2))
    assert angiogram.dtype == dtype
    beyond = np.ones((64, 64), bool)
    beyond[:, 15:49] = False  # the bar, and five pixels of blur
    assert np.array_equal(angiogram[beyond], background[beyond])
    assert (angiogram[mask] < background[mask]).mean() > 0.95


def test_the_noise_in_a_vessel_is_that_of_a_detector() -> None:
    """A flat noisy picture: under the vessel the variance per grey level is what it is beside it."""
    quanta = 2000.0
    grey = np.full((512, 512), 0.6, np.float32)
    grey += np.sqrt(grey / quanta) * noise_field(grey.shape, np.random.default_rng(4))
    thickness = np.full(grey.shape, 6.0, np.float32)
    darkened, _mask = inlay_grey(grey, thickness, 0.3, primary_share=1.0, rng=np.random.default_rng(5))
    beside = grey.var() / grey.mean()
    assert darkened.var() / darkened.mean() == pytest.approx(beside, rel=0.2)
    quiet, _mask = inlay_grey(grey, thickness, 0.3, primary_share=1.0)
    assert quiet.var() / quiet.mean() == pytest.approx(beside * np.exp(-6.0 * IODINE_PER_MM), rel=0.05)


def test_noise_is_measured_beside_edges() -> None:
    deviate = noise_field((256, 256), np.random.default_rng(6))
    grey = np.full((256, 256), 0.5, np.float32)
    grey[:, 100:140] = 0.2
    noisy = grey + np.sqrt(grey * np.float32(1e-3)) * deviate
    assert noise_per_grey(noisy) == pytest.approx(1e-3, rel=0.1)
    assert noise_per_grey(np.zeros((32, 32), np.float32)) == 0.0


def test_an_edge_is_as_soft_as_the_blur_asked_for() -> None:
    grey = np.full((64, 64), 0.6, np.float32)
    sharp, _mask = inlay_grey(grey, bar(4.0), 0.3, blur_mm=0.0)
    soft, _mask = inlay_grey(grey, bar(4.0), 0.3, blur_mm=0.9)
    assert len(np.unique(sharp[32])) == 2
    assert np.abs(np.diff(soft[32])).max() < 0.3 * np.abs(np.diff(sharp[32])).max()


@pytest.mark.parametrize("seed", [0, 3])
def test_on_a_phantoms_plain_picture_it_is_the_phantoms_angiogram(seed: int) -> None:
    """Same tree, same blur, same scatter: what differs is that scatter is not the same share everywhere."""
    config = PhantomConfig(seed=seed, rows=256, columns=256, devices=False, collimated=False)
    phantom = Phantom(config)
    pose = phantom.pose(4)
    clean = phantom.clean(pose)
    vessels = phantom.vessels(pose)
    thickness = np.zeros((256, 256), np.float32)
    thickness[vessels.place] = vessels.thickness * config.spacing_mm
    darkened, _mask = inlay_grey(
        clean.plain, thickness, config.spacing_mm, primary_share=1 / 1.2, blur_mm=config.blur_mm
    )
    taken = clean.plain - clean.angiogram
    assert np.abs(darkened - clean.angiogram).max() < 0.25 * taken.max()
    assert np.corrcoef((clean.plain - darkened)[clean.mask], taken[clean.mask])[0, 1] > 0.97
    assert (
        np.array_equal(darkened == clean.plain, clean.angiogram == clean.plain)
        or ((darkened != clean.plain) ^ (clean.angiogram != clean.plain)).mean() < 0.01
    )


def test_inlaid_pairs_are_pairs_on_the_backgrounds_given() -> None:
    phantom = Phantom(PhantomConfig(rows=160, columns=200, collimated=False, devices=False))
    background = phantom.frame(0).plain
    field = np.ones(background.shape, bool)
    field[:40] = False
    pairs = list(inlaid_pairs([background], [field], 128, range(3), 2))
    assert len(pairs) == 6
    for plain, angiogram, mask in pairs:
        for picture in (plain, angiogram, mask):
            assert picture.shape == (128, 128)
            assert picture.dtype == np.float32
            assert picture.min() >= 0
            assert picture.max() <= 1
        assert 0.005 < mask.mean() < 0.2
        assert not mask[:30].any()  # outside the field
        assert np.array_equal(plain[:28], angiogram[:28])
        assert (plain - angiogram)[mask > 0].mean() > 0.02
        beyond = cv2.dilate(mask, np.ones((11, 11), np.uint8)) == 0
        assert np.array_equal(plain[beyond], angiogram[beyond])
    places = {tuple(np.argwhere(mask > 0).mean(axis=0).round(1)) for _plain, _angiogram, mask in pairs}
    assert len(places) == 6


def test_inlaid_pairs_repeat_with_their_arguments() -> None:
    background = np.full((96, 96), 150, np.uint8)
    field = np.ones((96, 96), bool)
    for one, other in zip(
        inlaid_pairs([background], [field], 64, range(2, 4), 2),
        inlaid_pairs([background], [field], 64, range(2, 4), 2),
        strict=True,
    ):
        for left, right in zip(one, other, strict=True):
            assert np.array_equal(left, right)


@pytest.mark.real
def test_on_a_real_contrast_free_frame_only_the_vessels_change() -> None:
    frame = real_frame()
    config = PhantomConfig(seed=1, rows=512, columns=512, devices=False)
    phantom = Phantom(config)
    vessels = phantom.vessels(phantom.pose(0))
    thickness = np.zeros(frame.shape, np.float32)
    thickness[vessels.place] = vessels.thickness * config.spacing_mm
    angiogram, mask = inlay(frame, thickness, 255, config.spacing_mm, rng=np.random.default_rng(1))
    beyond = cv2.dilate((thickness > 0).astype(np.uint8), np.ones((9, 9), np.uint8)) == 0
    assert beyond.mean() > 0.3
    assert np.array_equal(angiogram[beyond], frame[beyond])
    lit = mask & (frame > 40)
    ratio = angiogram[lit].astype(float).mean() / frame[lit].mean()
    assert 0.65 < ratio < 0.92


@pytest.mark.real
def test_pairs_on_real_frames_have_their_noise() -> None:
    """The noise under a vessel is that of the frame: no smooth vessels, no grain that is not the frame's."""
    frame = real_frame()
    grey = frame.astype(np.float32) / 255
    thickness = np.full(frame.shape, 3.0, np.float32)
    darkened, _mask = inlay_grey(grey, thickness, 0.28, rng=np.random.default_rng(3))
    assert noise_per_grey(darkened) == pytest.approx(noise_per_grey(grey), rel=0.25)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"background": np.zeros((64, 64, 3), np.uint8)},
            r"must be \(h, w\) uint8 or uint16, got \(64, 64, 3\)",
        ),
        ({"background": np.zeros((64, 64), np.int32)}, r"got \(64, 64\) int32"),
        ({"background": np.zeros((32, 64), np.uint8)}, r"background's size, \(32, 64\), got \(64, 64\)"),
        ({"primary_share": 0.0}, r"primary_share must be above 0 and at most 1, got 0.0"),
        ({"spacing_mm": 0.0}, r"spacing_mm must be above 0, .*, got 0.0"),
    ],
    ids=["colour", "signed", "size", "share", "spacing"],
)
def test_what_cannot_be_inlaid_is_refused(arguments: dict, message: str) -> None:
    given: dict = {
        "background": np.zeros((64, 64), np.uint8),
        "thickness_mm": bar(1.0),
        "max_value": 255,
        "spacing_mm": 0.3,
    }
    with pytest.raises(ValueError, match=message):
        inlay(**(given | arguments))


@pytest.mark.parametrize(
    ("backgrounds", "fields", "frames", "message"),
    [
        ([], [], 1, "at least one contrast-free background, got none"),
        (
            [np.zeros((64, 64), np.uint8)],
            [],
            1,
            "each background needs its field, got 1 backgrounds and 0 fields",
        ),
        (
            [np.zeros((64, 64), np.uint8)],
            [np.zeros((64, 64), bool)],
            1,
            "background 0 shows the patient on 0%",
        ),
        (
            [np.zeros((64, 64), np.float32)],
            [np.ones((64, 64), bool)],
            1,
            r"background 0 must be .* got \(64, 64\) float32",
        ),
        (
            [np.zeros((64, 64), np.uint8)],
            [np.ones((64, 64), bool)],
            0,
            "frames_per_seed must be 1 or above, got 0",
        ),
    ],
    ids=["none", "no field", "empty field", "type", "no frames"],
)
def test_backgrounds_that_do_not_do_are_refused(
    backgrounds: list, fields: list, frames: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        next(inlaid_pairs(backgrounds, fields, 64, range(1), frames))
