"""A picture of how far a run is: a row per frame with x, A, C, y_g and an angiogram beside them."""

from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from casgan.networks import LivePath, blend, clamp_attention

TITLES = ("x", "A", "C", "y_g", "y")
GAP = 4
HEADER = 18

Picture = Float[Tensor, "b 1 h w"]


def sample_grid(
    generator: LivePath, x: Picture, field: Picture, y: Picture, threshold: float
) -> UInt8[np.ndarray, "rows columns"]:
    """The live path on some frames.

    Args:
        generator: In evaluation mode.
        x: Contrast-free frames, -1 to 1.
        field: 1 inside the field of x.
        y: Angiograms; of the same patients only in the paired stages.
        threshold: t of the attention's clamp.
    """
    with torch.no_grad():
        attention, context = generator(x)
    attention = clamp_attention(attention, threshold) * field
    columns = [x, 2.0 * attention - 1.0, context, blend(x, attention, context), y]
    tiles = [
        ((column[:, 0].float().cpu().clamp(-1.0, 1.0) + 1.0) * 127.5).round().to(torch.uint8).numpy()
        for column in columns
    ]
    count, rows, width = tiles[0].shape
    sheet = np.full((HEADER + count * (rows + GAP), len(tiles) * (width + GAP)), 255, np.uint8)
    for index, (title, column) in enumerate(zip(TITLES, tiles, strict=True)):
        left = index * (width + GAP)
        cv2.putText(sheet, title, (left + 2, 13), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (0,), 1, cv2.LINE_AA)
        for frame, tile in enumerate(column):
            top = HEADER + frame * (rows + GAP)
            sheet[top : top + rows, left : left + width] = tile
    return sheet


def write_png(path: Path, sheet: UInt8[np.ndarray, "rows columns"]) -> None:
    """Write a picture.

    Raises:
        OSError: The disk does not take it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    made, content = cv2.imencode(".png", sheet)
    assert made
    path.write_bytes(content.tobytes())
