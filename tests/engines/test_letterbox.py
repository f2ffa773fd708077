"""Resizing to the network's size keeps the aspect: a circle stays one."""

import numpy as np
import pytest
import torch

from engines.reference import _letterbox


@pytest.mark.parametrize(("rows", "columns"), [(464, 512), (300, 500), (512, 256)])
def test_a_circle_stays_a_circle(rows: int, columns: int) -> None:
    y, x = np.mgrid[:rows, :columns]
    radius = 0.4 * min(rows, columns)
    disc = np.hypot(y + 0.5 - rows / 2, x + 0.5 - columns / 2) < radius
    boxed, (inner_rows, inner_columns) = _letterbox(
        torch.from_numpy(2.0 * disc.astype(np.float32) - 1.0)[None, None], 256
    )
    seen = boxed[0, 0].numpy() > 0
    assert (inner_rows.stop - inner_rows.start) / (inner_columns.stop - inner_columns.start) == pytest.approx(
        rows / columns, rel=0.01
    )
    height, width = seen.any(axis=1).sum(), seen.any(axis=0).sum()
    assert abs(int(height) - int(width)) <= 2  # a pixel of the network at either edge
    assert height == pytest.approx(2 * radius * 256 / max(rows, columns), abs=1.5)
