"""Burned-in text is found by what does not change, and a picture that stands still is no text."""

import cv2
import numpy as np
import pytest

from calib.burned_in import burned_in
from calib.config import PhantomConfig
from calib.errors import CalibrationError
from calib.phantom import Phantom


def phantom_frames(count: int = 12, side: int = 256) -> np.ndarray:
    phantom = Phantom(PhantomConfig(seed=3, rows=side, columns=side))
    return np.stack([phantom.frame(index).plain for index in range(count)])


def noisy_still(count: int = 12, side: int = 256) -> np.ndarray:
    """A static phantom: the same picture with other noise in each frame."""
    rng = np.random.default_rng(3)
    still = cv2.resize(
        rng.uniform(60, 180, (8, 8)).astype(np.float32), (side, side), interpolation=cv2.INTER_CUBIC
    )
    cv2.circle(still, (120, 140), 30, 90.0, 5)
    return np.clip(still + rng.normal(0, 4, (count, side, side)), 0, 255).astype(np.uint8)


def with_text(frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Frames with two lines of text and a frame of a logo, and where they are."""
    marked = frames.copy()
    mask = np.zeros(frames.shape[1:], np.uint8)
    for picture in (*marked, mask):
        cv2.putText(picture, "RAO 30 CRA 20", (30, 40), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
        cv2.putText(picture, "15 fps", (150, 230), cv2.FONT_HERSHEY_SIMPLEX, 0.5, 255, 1)
        cv2.rectangle(picture, (200, 60), (225, 80), 255, 2)
    return marked, mask > 128


@pytest.mark.parametrize("make", [phantom_frames, noisy_still], ids=["moving", "still"])
def test_text_and_logo_are_boxed_and_little_else(make: object) -> None:
    assert callable(make)
    frames, truth = with_text(make())
    boxes, cannot = burned_in(frames)
    assert cannot is None
    covered = np.zeros(truth.shape, bool)
    for box in boxes:
        covered[box.top : box.bottom, box.left : box.right] = True
    assert covered[truth].mean() > 0.85
    assert covered.mean() < 0.08


@pytest.mark.parametrize("make", [phantom_frames, noisy_still], ids=["moving", "still"])
def test_without_text_nothing_is_boxed(make: object) -> None:
    assert callable(make)
    assert burned_in(make()) == ((), None)


def test_a_shutter_and_a_saturated_region_are_no_marks() -> None:
    frames = noisy_still()
    frames[:, :40] = 0
    rows, columns = np.mgrid[:256, :256]
    frames[:, np.hypot(rows - 128, columns - 128) > 120] = 0
    frames[:, 100:180, 20:90] = 255
    assert burned_in(frames)[0] == ()


def test_frames_that_repeat_tell_nothing() -> None:
    one, _ = with_text(noisy_still(1))
    boxes, cannot = burned_in(np.repeat(one, 10, axis=0))
    assert boxes == ()
    assert cannot is not None
    assert "do not change" in cannot


def test_text_is_found_in_16_bits() -> None:
    frames, _ = with_text(noisy_still())
    narrow, _ = burned_in(frames)
    wide, _ = burned_in(frames.astype(np.uint16) * 16)
    assert wide == narrow


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(CalibrationError, match=r"needed at least 8 frames .* got 5; record a longer loop"):
        burned_in(noisy_still(5))
