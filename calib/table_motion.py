"""Whether the patient table moved: one shift of everything that is still, beyond what breathing gives."""

from collections.abc import Iterable

import cv2
import numpy as np
from jaxtyping import Bool, Float32

SIDE = 128
"""Pixels of the shorter side at which shifts are measured."""
TOLD = 0.3
"""Phase correlation's response from which a shift is believed."""
MOVED_PERCENT = 5.0
"""Of the picture's shorter side. Over their first six frames 30 of 35 loops of patients stay below this, and the digital
phantom's contrast-free frames below 0.6 %; what breathing gives and what a hand at the table cannot be told for certain."""


def shifts_percent(frames: Iterable[np.ndarray], field: Bool[np.ndarray, "h w"]) -> list[float]:
    """How far everything has shifted since the first frame, % of the picture's shorter side, of each frame.

    Phase correlation of the fine structure inside the field. Where a frame has become too unlike the first one
    (the heart, contrast medium), it is compared with the one before, and steps add up; a frame that is like
    neither adds no step.

    Args:
        frames: (rows, columns) each, stored values, in order.
        field: True inside the collimated field.
    """
    scale = SIDE / min(field.shape)
    size = (max(1, round(field.shape[1] * scale)), max(1, round(field.shape[0] * scale)))
    open_field = cv2.resize(field.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    window = cv2.erode((open_field > 0.99).astype(np.float32), np.ones((9, 9), np.uint8))
    window = cv2.GaussianBlur(window, (0, 0), 3.0)
    found: list[float] = []
    key = last = np.zeros(0, np.float32)
    key_place = place = np.zeros(2)
    for number, frame in enumerate(frames):
        fine = _fine(frame, window, size)
        if not number:
            key = fine
        else:
            shift, response = _shift(key, fine)
            if response < TOLD:
                key, key_place = last, place
                shift, response = _shift(key, fine)
            if response >= TOLD:
                place = key_place + shift
        last = fine
        found.append(float(np.hypot(*place)) / SIDE * 100.0)
    return found


def _fine(frame: np.ndarray, window: Float32[np.ndarray, "h w"], size: tuple[int, int]) -> np.ndarray:
    small = cv2.resize(frame.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    fine = cv2.GaussianBlur(small - cv2.GaussianBlur(small, (0, 0), 12.0), (0, 0), 1.0)
    spread = float(fine[window > 0.5].std()) if (window > 0.5).any() else 0.0
    # A wire must not outweigh all else.
    return np.asarray(np.clip(fine / spread, -3.0, 3.0) * window if spread else np.zeros_like(fine))


def _shift(one: np.ndarray, two: np.ndarray) -> tuple[np.ndarray, float]:
    shift, response = cv2.phaseCorrelate(one.astype(np.float32), two.astype(np.float32))
    return np.array(shift), float(response)
