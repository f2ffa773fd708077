"""The roadmaps that an adapted model is measured against: vessels of a filled frame laid over another one.

Rooms lay the last filled frame over the live picture. Motion compensation moves it as the background has moved; a phase
oracle takes the filled frame of the nearest moment of a heartbeat, or, knowing the truth, the best of all.
"""

import cv2
import numpy as np
from jaxtyping import Bool, UInt8

from casgan.vessel_metrics import dice

SIDE = 128
"""Rows and columns at which motion is looked at."""
LINE_PX = 9
"""Lines up to this width are filled up first: vessels must not be matched with nothing."""
SMOOTH_PX = 8.0
"""Of the flow; of 0, 4 and 8 the best on the phantom."""


def moved_along(
    mask: Bool[np.ndarray, "s s"], filled: UInt8[np.ndarray, "s s"], live: UInt8[np.ndarray, "s s"]
) -> Bool[np.ndarray, "s s"]:
    """A filled frame's vessels where the background says that they have gone: dense optical flow (DIS).

    Args:
        mask: Vessels of `filled`.
        filled: The roadmap's own frame, grey levels 0 to 255.
        live: Where they are to be laid.
    """
    rows, columns = _whence(filled, live)
    return np.asarray(cv2.remap(mask.astype(np.uint8), columns, rows, cv2.INTER_NEAREST) > 0)


def brought(frame: UInt8[np.ndarray, "s s"], live: UInt8[np.ndarray, "s s"]) -> UInt8[np.ndarray, "s s"]:
    """A frame moved by the same optical flow to where another one's background lies."""
    rows, columns = _whence(frame, live)
    laid = cv2.remap(frame, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return np.asarray(laid, np.uint8)


def _whence(frame: np.ndarray, live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of `frame` from which each pixel of `live` has come."""
    flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    found = cv2.GaussianBlur(flow.calc(_background(live), _background(frame), None), (0, 0), SMOOTH_PX)
    side = frame.shape[0]
    found = cv2.resize(found, (side, side)) * (side / SIDE)
    rows, columns = np.mgrid[:side, :side].astype(np.float32)
    return rows + found[..., 1], columns + found[..., 0]


def _background(frame: np.ndarray) -> np.ndarray:
    small = cv2.resize(frame, (SIDE, SIDE), interpolation=cv2.INTER_AREA)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (LINE_PX, LINE_PX))
    calm = cv2.GaussianBlur(cv2.morphologyEx(small, cv2.MORPH_CLOSE, kernel), (0, 0), 1.0).astype(np.float32)
    wide = cv2.GaussianBlur(calm, (0, 0), 10.0)
    return np.asarray(np.clip(128.0 + 5.0 * (calm - wide), 0.0, 255.0).astype(np.uint8))


def nearest_phase(phase: float, of_filled: np.ndarray) -> int:
    """Which filled frame is nearest in phase; both 0 to 1."""
    apart = np.abs(of_filled - phase)
    return int(np.minimum(apart, 1.0 - apart).argmin())


def best_of_all(masks: Bool[np.ndarray, "n s s"], truth: Bool[np.ndarray, "s s"]) -> int:
    """The filled frame whose vessels fit the truth best by Dice: what choosing a frame can give at most."""
    return int(np.nanargmax([dice(mask, truth) for mask in masks]))
