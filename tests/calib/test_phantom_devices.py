from dataclasses import replace

import cv2
import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Phantom
from calib.phantom_anatomy import Grid
from calib.phantom_devices import (
    CAN_HALF_MM,
    CAN_PER_MM,
    Devices,
    draw_devices,
    guidewire_shadow,
    lead_shadow,
    pacemaker_can,
    sternal_wires,
    still_shadow,
)
from calib.phantom_patient import draw_patient
from calib.phantom_view import View

WIDE = PhantomConfig(rows=256, columns=256, field_mm=200.0, collimated=False, dose=100.0)
FRONTAL = View(0.0, 0.0)
GRID = Grid(400, 400, 0.75, 0.75)
ALL = ("sternal_wires", "pacemaker", "ecg", "guidewire")


def with_only(name: str, config: PhantomConfig = WIDE) -> Phantom:
    """The patient of the settings, with one device and no other."""
    return Phantom(config, devices=Devices(**{name: True}))


def test_the_shares_of_patients_are_as_stated() -> None:
    drawn = [draw_devices(seed) for seed in range(4000)]
    shares = [np.mean([getattr(devices, name) for devices in drawn]) for name in ALL]
    assert shares == pytest.approx([0.15, 0.10, 0.40, 0.20], abs=0.02)
    # Independent of one another.
    both = np.mean([devices.ecg and devices.sternal_wires for devices in drawn])
    assert both == pytest.approx(0.06, abs=0.015)


def test_the_same_seed_has_the_same_devices() -> None:
    patient = draw_patient(3)
    everything = Devices(True, True, True, True)
    one, other = (still_shadow(everything, patient, FRONTAL, GRID) for _ in range(2))
    assert one is not None
    assert other is not None
    assert one.place == other.place
    assert np.array_equal(one.transmission, other.transmission)
    assert draw_devices(3) == draw_devices(3)


@pytest.mark.parametrize("name", ALL)
def test_a_device_is_in_both_pictures_and_not_in_the_mask(name: str) -> None:
    bare, fitted = Phantom(WIDE, devices=Devices()), with_only(name)
    pose = bare.pose(5)
    without, with_it = bare.clean(pose), fitted.clean(pose)
    darker = without.plain - with_it.plain
    assert darker.max() > 0.05
    assert darker.min() > -1e-5
    assert (darker[without.mask] >= -1e-5).all()
    assert np.array_equal(without.mask, with_it.mask)
    beyond = ~without.mask
    shown = beyond & (darker > 0.03)
    assert shown.any()
    assert ((without.angiogram - with_it.angiogram)[shown] > 0.02).all()


@pytest.mark.parametrize("name", ALL)
def test_the_pair_still_differs_in_the_vessels_alone(name: str) -> None:
    phantom = with_only(name)
    clean = phantom.clean(phantom.pose(5))
    vessels = np.zeros(clean.mask.shape, np.uint8)
    patch = phantom.vessels(phantom.pose(5))
    vessels[patch.place] = patch.thickness > 0
    side = 2 * phantom.blur_reach_px + 1
    beyond = cv2.dilate(vessels, np.ones((side, side), np.uint8)) == 0
    assert beyond.mean() > 0.5
    assert np.array_equal(clean.plain[beyond], clean.angiogram[beyond])


def test_devices_can_be_left_out() -> None:
    seed = next(seed for seed in range(50) if draw_devices(seed).ecg)
    config = replace(WIDE, seed=seed, devices=False)
    without = Phantom(config)
    assert without.devices == Devices()
    pose = without.pose(0)
    bare = Phantom(replace(config, devices=True), devices=Devices())
    assert np.array_equal(without.clean(pose).plain, bare.clean(pose).plain)
    assert not np.array_equal(
        without.clean(pose).plain, Phantom(replace(config, devices=True)).clean(pose).plain
    )


@pytest.mark.parametrize("seed", range(8))
def test_there_are_three_to_six_sternal_loops_in_front_of_the_heart(seed: int) -> None:
    patient = draw_patient(seed)
    wires = sternal_wires(patient)
    loops = [wire for wire in wires if np.allclose(wire.course_mm[0, :2], wire.course_mm[-1, :2])]
    assert 3 <= len(loops) <= 6
    assert len(wires) == 2 * len(loops)  # each with its twist
    for loop in loops:
        assert loop.course_mm[:, 2].max() < 0.0  # z runs to the back
        assert np.ptp(loop.course_mm[:, 0]) > 15.0
        assert abs(loop.course_mm[:, 0].mean() - patient.spine_mm[0]) < 5.0


def test_a_can_seen_from_in_front_takes_what_its_depth_tells() -> None:
    patient = draw_patient(2)
    can, _battery = pacemaker_can(patient)
    shadow = still_shadow(Devices(pacemaker=True), patient, FRONTAL, GRID)
    assert shadow is not None
    picture = np.ones(GRID.shape, np.float32)
    shadow.cast_on(picture)
    upper = can.centre_mm - 0.3 * CAN_HALF_MM[1] * can.axes[1]  # above the battery
    x, y = np.round(GRID.pixels(FRONTAL.project(upper[None])[:, :2])[0]).astype(int)
    slant = 1.0 / abs(can.axes[2][2])  # the can is tipped against the beam
    expected = 2 * CAN_HALF_MM[2] * CAN_PER_MM * slant
    assert -np.log(picture[y, x]) == pytest.approx(expected, rel=0.1)


def test_a_can_turned_edge_on_is_narrow_and_opaque() -> None:
    patient = draw_patient(2)
    grid = Grid(600, 600, 0.75, 0.75)
    widths, darkest = [], []
    for view in (FRONTAL, View(-60.0, 0.0)):
        picture = np.ones(grid.shape, np.float32)
        for number in (True, False):  # the shadow with the can, and that of the leads alone, divided out
            shadow = still_shadow(Devices(pacemaker=number), patient, view, grid)
            if shadow is not None:
                shadow.cast_on(picture)
        opaque = picture < 0.3
        widths.append(np.ptp(np.flatnonzero(opaque.any(axis=0))))
        darkest.append(picture.min())
    assert widths[1] < 0.8 * widths[0]
    assert darkest[1] < darkest[0]


def test_leads_end_in_the_heart_and_move_with_it() -> None:
    phantom = with_only("pacemaker")
    rest, inspired = phantom.pose(0), phantom.pose(phantom.loop.frames // 2)
    shadows = [lead_shadow(phantom.patient, pose, phantom.view, phantom.grid) for pose in (rest, inspired)]
    pictures = []
    for shadow in shadows:
        assert shadow is not None
        picture = np.ones(phantom.grid.shape, np.float32)
        shadow.cast_on(picture)
        pictures.append(picture)
    assert np.abs(pictures[0] - pictures[1]).max() > 0.2
    lowest = [np.flatnonzero((picture < 0.7).any(axis=1)).max() for picture in pictures]
    assert lowest[1] > lowest[0]  # down with the diaphragm
    apex = phantom.view.project(rest.to_patient(np.array([[0.72, 0.42, 0.45]])))[0, :2]
    x, y = np.round(phantom.grid.pixels(apex[None])[0]).astype(int)
    assert pictures[0][y - 2 : y + 3, x - 2 : x + 3].min() < 0.5


def test_a_guidewire_lies_in_the_catheter() -> None:
    course = np.array([[-20.0, -60.0], [-20.0, -30.0], [0.0, 0.0]])
    shadow = guidewire_shadow(course, GRID)
    assert shadow is not None
    picture = np.ones(GRID.shape, np.float32)
    shadow.cast_on(picture)
    x, y = np.round(GRID.pixels(course[1:2])[0]).astype(int)
    assert picture[y, x] < 0.8
    assert (picture < 1).sum() < 500


def test_what_lies_beside_the_picture_casts_no_shadow() -> None:
    assert guidewire_shadow(np.array([[500.0, 500.0], [510.0, 500.0]]), GRID) is None
    assert still_shadow(Devices(), draw_patient(0), FRONTAL, GRID) is None


@pytest.mark.parametrize("name", ["sternal_wires", "pacemaker", "ecg"])
def test_a_smaller_picture_shows_the_same_devices(name: str) -> None:
    patient = draw_patient(11)
    shadows = []
    for side in (512, 128):
        grid = Grid(side, side, 240.0 / side, 240.0 / side)
        attenuation = np.zeros(grid.shape, np.float32)
        shadow = still_shadow(Devices(**{name: True}), patient, FRONTAL, grid)
        assert shadow is not None
        attenuation[shadow.place] = -np.log(np.maximum(shadow.transmission, 1e-6))
        shadows.append(attenuation.mean())
    assert shadows[1] == pytest.approx(shadows[0], rel=0.06)
