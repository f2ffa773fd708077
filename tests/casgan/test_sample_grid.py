"""The picture of how far a run is shows what it says it shows."""

from pathlib import Path

import cv2
import numpy as np
import torch

from casgan.networks import Generator
from casgan.presets import PresetConfig
from casgan.sample_grid import GAP, HEADER, sample_grid, write_png


def test_a_row_shows_frame_attention_context_result_and_angiogram(tmp_path: Path) -> None:
    torch.manual_seed(0)
    generator = Generator(PresetConfig("t", 64, 4, (8, 16), 1, 1, 1)).eval()
    x, y = 2.0 * torch.rand(2, 2, 1, 64, 64) - 1.0
    field = torch.zeros_like(x)
    write_png(tmp_path / "samples" / "a.png", sample_grid(generator, x, field, y, 0.1))
    sheet = cv2.imread(str(tmp_path / "samples" / "a.png"), cv2.IMREAD_GRAYSCALE)
    assert sheet.shape == (HEADER + 2 * (64 + GAP), 5 * (64 + GAP))

    def tile(row: int, column: int) -> np.ndarray:
        top, left = HEADER + row * (64 + GAP), column * (64 + GAP)
        return sheet[top : top + 64, left : left + 64]

    expected = ((x[1, 0] + 1.0) * 127.5).round().numpy()
    assert (tile(1, 0) == expected).all()
    assert (tile(1, 1) == 0).all()  # nothing is drawn outside the field
    assert (tile(1, 3) == expected).all()
    assert (tile(0, 4) == ((y[0, 0] + 1.0) * 127.5).round().numpy()).all()
