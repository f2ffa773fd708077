"""What a method draws, as one sheet: x, y_g, what it changed, the truth; for a person to look at."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np

from bench.judging import Picture

ROWS = 4
SIDE_PX = 224
GAIN = 4.0
GAP = 4
TITLES = ("x, live", "y_g, synthetic", f"y_g - x, {GAIN:.0f} times", "y, the truth", "y, filled, same run")


def write_sheet(path: Path, test: Any, drawn: list[Picture]) -> None:
    """A row for each of some frames, evenly over the test's.

    Args:
        path: A PNG.
        test: The test's frames.
        drawn: y_g of each.
    """
    chosen = np.linspace(0, len(drawn) - 1, ROWS).round().astype(int)
    titles = TITLES[:3] + (TITLES[4:] if test.filled else TITLES[3:4])
    width = len(titles) * (SIDE_PX + GAP)
    sheet = np.full((20 + ROWS * (SIDE_PX + GAP), width), 20, np.uint8)
    for column, title in enumerate(titles):
        place = (column * (SIDE_PX + GAP) + 4, 14)
        cv2.putText(sheet, title, place, cv2.FONT_HERSHEY_SIMPLEX, 0.42, 220, 1, cv2.LINE_AA)
    for row, index in enumerate(chosen):
        frame, picture = test.frames[index], drawn[index]
        low, high = np.percentile(frame.live[frame.field], (1, 99))
        change = picture.astype(np.float32) - frame.live
        tiles = [_stretched(each, low, high) for each in (frame.live, picture)]
        tiles.append(np.clip(128.0 + GAIN * change, 0, 255).astype(np.uint8))
        tiles.append(_stretched(test.angiogram_of(frame), low, high))
        for column, tile in enumerate(tiles):
            top, left = 20 + row * (SIDE_PX + GAP), column * (SIDE_PX + GAP)
            small = cv2.resize(tile, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
            sheet[top : top + SIDE_PX, left : left + SIDE_PX] = small
    cv2.imwrite(str(path), sheet)


def _stretched(picture: Picture, low: float, high: float) -> Picture:
    scale = 225.0 / max(1.0, high - low)
    shown: np.ndarray = np.clip((picture.astype(np.float32) - low) * scale + 15.0, 0, 255).astype(np.uint8)
    return shown
