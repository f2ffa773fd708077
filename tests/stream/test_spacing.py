"""Which pixel size a message carries: the header's of this run, the site's record, or none."""

import subprocess
import sys

import pytest

from calib.results import PixelSpacing
from stream.frame import FrameFormat, Spacing, SpacingPlace
from stream.spacing import live_spacing

FORMAT = FrameFormat(512, 512)
RECORDED = PixelSpacing(0.25, 0.26, "calibrated object", "a grid of 10 mm", None, 0.001)
WHOLE = {
    "imager_spacing_mm": [0.4, 0.4],
    "source_to_detector_mm": 1000.0,
    "source_to_patient_mm": 800.0,
}


def test_a_header_with_distances_speaks_of_this_run_and_comes_first() -> None:
    for recorded in (None, RECORDED):
        found = live_spacing(WHOLE, FORMAT, recorded)
        assert found is not None
        assert (found.row_mm, found.place) == (pytest.approx(0.32), SpacingPlace.ISOCENTRE)


def test_the_record_comes_before_a_detectors_pixel() -> None:
    detector = {"imager_spacing_mm": [0.4, 0.5]}
    assert live_spacing(detector, FORMAT, RECORDED) == Spacing(0.25, 0.26, SpacingPlace.OBJECT)
    assert live_spacing(detector, FORMAT, None) == Spacing(0.4, 0.5, SpacingPlace.DETECTOR)


def test_what_nobody_knows_is_not_said() -> None:
    assert live_spacing({}, FORMAT, None) is None
    assert live_spacing({}, FORMAT, RECORDED) == Spacing(0.25, 0.26, SpacingPlace.OBJECT)


def test_the_guards_side_needs_no_picture_library_for_it() -> None:
    code = "import sys, stream.spacing; sys.exit('cv2' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
