"""Burned-in regions made black."""

import numpy as np
import pytest

from stream.blank import Blank
from stream.frame import FrameFormat, Photometric

BLANK = Blank(64, 96, ((0, 0, 3, 5), (60, 90, 64, 96)))


@pytest.mark.parametrize(
    ("photometric", "bits", "black"),
    [(Photometric.MONOCHROME2, 8, 0), (Photometric.MONOCHROME1, 8, 255), (Photometric.MONOCHROME1, 10, 1023)],
)
def test_regions_become_what_is_shown_black(photometric: Photometric, bits: int, black: int) -> None:
    frame_format = FrameFormat(64, 96, bits, photometric)
    live = np.full((64, 96), 100, frame_format.dtype)
    BLANK.write(live, frame_format)
    assert (live == black).sum() == 3 * 5 + 4 * 6
    assert (live[:3, :5] == black).all()
    assert (live[60:, 90:] == black).all()
    assert (live[3:60] == 100).all()


def test_regions_travel_as_json_and_fit_their_own_size_only() -> None:
    assert Blank.from_json(BLANK.as_json()) == BLANK
    assert BLANK.fits(FrameFormat(64, 96))
    assert not BLANK.fits(FrameFormat(96, 64))


@pytest.mark.parametrize("box", [(-1, 0, 4, 4), (0, 0, 65, 4), (4, 4, 4, 8), (0, 90, 4, 97)])
def test_a_region_outside_the_frame_is_refused(box: tuple[int, int, int, int]) -> None:
    with pytest.raises(ValueError, match="must lie in frames of 64 x 96"):
        Blank(64, 96, (box,))
