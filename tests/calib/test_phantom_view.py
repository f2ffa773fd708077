import numpy as np
import pytest

from calib.phantom_view import SOURCE_MM, View

ANGLES = [(0.0, 0.0), (-30.0, -10.0), (45.0, 0.0), (-30.0, 30.0), (45.0, -30.0), (60.0, 40.0)]


def seen(view: View, x: float, y: float, z: float) -> np.ndarray:
    return view.project(np.array([[x, y, z]]))[0]


@pytest.mark.parametrize("angles", ANGLES, ids=str)
def test_the_isocentre_does_not_move_with_the_angle(angles: tuple[float, float]) -> None:
    assert seen(View(*angles), 0.0, 0.0, 0.0) == pytest.approx([0.0, 0.0, 0.0])


@pytest.mark.parametrize("angles", ANGLES, ids=str)
def test_the_picture_is_neither_stretched_nor_mirrored(angles: tuple[float, float]) -> None:
    axes = View(*angles).axes
    assert axes @ axes.T == pytest.approx(np.eye(3), abs=1e-12)
    # Seen from the detector: right, down, and away from the viewer are right-handed.
    assert np.cross(axes[0], axes[1]) == pytest.approx(-axes[2])


def test_the_patients_left_is_on_the_pictures_right_and_the_head_up() -> None:
    assert seen(View(0.0, 0.0), 10.0, 0.0, 0.0) == pytest.approx([10.0, 0.0, 0.0])
    assert seen(View(0.0, 0.0), 0.0, 10.0, 0.0) == pytest.approx([0.0, 10.0, 0.0])


def test_what_is_near_the_focal_spot_is_magnified() -> None:
    spine = seen(View(0.0, 0.0), 10.0, 0.0, 75.0)
    assert spine == pytest.approx([10.0 * SOURCE_MM / (SOURCE_MM - 75.0), 0.0, -75.0])


def test_the_primary_angle_turns_the_detector_to_the_patients_left() -> None:
    """LAO, positive: what lies to the patient's left comes near the detector, what lies behind goes to the right."""
    view = View(40.0, 0.0)
    assert seen(view, 10.0, 0.0, 0.0)[2] > 0
    assert seen(view, 0.0, 0.0, 60.0)[0] > 30
    assert seen(View(-40.0, 0.0), 0.0, 0.0, 60.0)[0] < -30


def test_the_secondary_angle_tilts_the_detector_to_the_head() -> None:
    """Cranial, positive: the head comes near the detector, what lies behind goes up in the picture."""
    view = View(0.0, 25.0)
    assert seen(view, 0.0, -10.0, 0.0)[2] > 0
    assert seen(view, 0.0, 0.0, 60.0)[1] < -20
    assert seen(View(0.0, -25.0), 0.0, 0.0, 60.0)[1] > 20
