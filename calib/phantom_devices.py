"""What else is in the beam: sternal wires, a pacemaker with its leads, ECG cables and a guidewire.

    seed -> which devices -> wires and bodies in the patient -> view -> attenuation -> share of the beam let through

Places are millimetres in the patient as `phantom_view` has them. What does not move is drawn once per patient;
only leads in the heart and the guidewire are drawn for each frame. Shapes, shares of patients and attenuations
are our choice, after what cine frames of a catheter laboratory show; attenuations are effective values at the
beam's own hardness, so metal is weaker than in a table for one energy.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from calib.phantom_anatomy import Grid
from calib.phantom_heart import Pose
from calib.phantom_patient import Patient, pose_at
from calib.phantom_rendering import draw_tubes, spline
from calib.phantom_view import View

STERNAL_WIRES_SHARE = 0.15
PACEMAKER_SHARE = 0.10
ECG_SHARE = 0.40
GUIDEWIRE_SHARE = 0.20

STEEL_PER_MM = 0.85
LEAD_PER_MM = 0.42
ELECTRODE_PER_MM = 0.60
CABLE_PER_MM = 0.38
SNAP_PER_MM = 0.11
CAN_PER_MM = 0.20
BATTERY_PER_MM = 0.17
"""On top of the can's own."""
GUIDEWIRE_PER_MM = 1.6
"""Steel or nitinol with a platinum coil."""

STERNAL_WIRE_RADIUS_MM = 0.42
LEAD_RADIUS_MM = 0.65
ELECTRODE_RADIUS_MM = 1.05
CABLE_RADIUS_MM = 0.45
SNAP_RADIUS_MM = 4.2
GUIDEWIRE_RADIUS_MM = 0.20
CAN_HALF_MM = (24.0, 21.0, 3.6)
"""Half of the can's width, height and depth."""

SKIN_MM = 18.0
"""From the middle of the sternum to the skin."""
_ATRIUM = (-0.62, 0.35, 0.55)
"""Middle of the right atrium in heart coordinates, our choice."""
_APEX = (0.72, 0.42, 0.45)
"""Apex of the right ventricle, likewise."""
_ASIDE = np.array([2.6, 0.8, 1.0])
"""Of the second lead from the first where they run together, mm."""
_STEP_MM = 2.5
_LEAD_STEP_MM = 4.5


@dataclass(frozen=True)
class Wire:
    """A round wire in the patient."""

    course_mm: Float64[np.ndarray, "n 3"]
    radius_mm: float
    per_mm: float
    """Attenuation per millimetre of metal."""


@dataclass(frozen=True)
class Slab:
    """A flat body with rounded corners, as a pacemaker's can."""

    centre_mm: Float64[np.ndarray, " 3"]
    axes: Float64[np.ndarray, "3 3"]
    """Unit vectors along width, height and depth, one per row."""
    half_mm: tuple[float, float, float]
    per_mm: float


@dataclass(frozen=True)
class Devices:
    """Which devices a patient has."""

    sternal_wires: bool = False
    pacemaker: bool = False
    ecg: bool = False
    guidewire: bool = False


@dataclass(frozen=True)
class Shadow:
    """The part of a picture that devices shade."""

    place: tuple[slice, slice]
    transmission: Float32[np.ndarray, "h w"]
    """Share of the beam let through, 0 to 1."""

    def cast_on(self, primary: Float32[np.ndarray, "h w"]) -> None:
        """Weaken the primary beam, in place."""
        primary[self.place] *= self.transmission


def draw_devices(seed: int) -> Devices:
    """The devices of a seed's patient, each with its own probability and independent of the others."""
    draws = np.random.default_rng((seed, 0xDE71)).random(4)
    shares = (STERNAL_WIRES_SHARE, PACEMAKER_SHARE, ECG_SHARE, GUIDEWIRE_SHARE)
    return Devices(*(bool(draw < share) for draw, share in zip(draws, shares, strict=True)))


def still_shadow(devices: Devices, patient: Patient, view: View, grid: Grid) -> Shadow | None:
    """What the devices that do not move take from the beam.

    Args:
        devices: Which ones.
        patient: In whom; their places follow from the seed and from where spine and sternum are.
        view: Of the C-arm.
        grid: Of the picture.

    Returns:
        The shadow, or None where nothing falls into the picture.
    """
    attenuation = np.zeros(grid.shape, np.float32)
    if devices.sternal_wires:
        for wire in sternal_wires(patient):  # one by one: they lie behind each other and add
            _add_wires(attenuation, [wire], view, grid)
    if devices.ecg:
        _add_wires(attenuation, ecg_cables(patient), view, grid)
    if devices.pacemaker:
        _add_wires(attenuation, _upper_leads(patient), view, grid)
        for slab in pacemaker_can(patient):
            _add_slab(attenuation, slab, view, grid)
    return _cropped(attenuation)


def lead_shadow(patient: Patient, pose: Pose, view: View, grid: Grid) -> Shadow | None:
    """What the part of a pacemaker's leads that the heart moves takes from the beam, and the electrodes at their ends."""
    tubes = draw_tubes(grid.shape, *_segments(_lower_leads(patient, pose), view, grid))
    if not tubes.thickness.size:
        return None
    return Shadow(tubes.place, cv2.exp(-tubes.thickness))


def guidewire_shadow(course_mm: Float64[np.ndarray, "n 2"], grid: Grid) -> Shadow | None:
    """What a guidewire in the catheter takes from the beam; the catheter's course in the picture plane."""
    places = grid.pixels(course_mm)
    radii = np.full((len(places) - 1, 2), GUIDEWIRE_RADIUS_MM / grid.column_mm, np.float32)
    tube = draw_tubes(grid.shape, places[:-1], places[1:], radii)
    if not tube.thickness.size:
        return None
    return Shadow(tube.place, cv2.exp(tube.thickness * np.float32(-GUIDEWIRE_PER_MM * grid.column_mm)))


def sternal_wires(patient: Patient) -> list[Wire]:
    """Three to six steel loops around the sternum, each twisted shut in front."""
    rng = np.random.default_rng((patient.seed, 0x57E2))
    midline_mm = patient.spine_mm[0]
    wires: list[Wire] = []
    top_mm = rng.uniform(-78.0, -56.0)
    pitch_mm = rng.uniform(19.0, 27.0)
    for number in range(int(rng.integers(3, 7))):
        height = top_mm + number * pitch_mm + rng.uniform(-3.0, 3.0)
        half_wide, half_deep = rng.uniform(9.0, 14.0), rng.uniform(5.0, 7.5)
        tilt, sag = rng.uniform(-0.22, 0.22), rng.uniform(-2.5, 2.5)
        angle = np.linspace(0.0, 2 * np.pi, 33) + np.pi / 2
        across, out = half_wide * np.cos(angle), half_deep * np.sin(angle)
        loop = np.stack(
            [
                midline_mm + across + rng.uniform(-2.5, 2.5),
                # The loop's back lies a little lower or higher than its front, so it is open to the view.
                height + tilt * across + sag * out / half_deep,
                np.full_like(angle, 0.0),
            ],
            axis=1,
        )
        loop[:, 2] = -patient.sternum_mm - out
        wires.append(Wire(loop, STERNAL_WIRE_RADIUS_MM, STEEL_PER_MM))
        wires.append(_twist(loop[0], rng))
    return wires


def _twist(start_mm: Float64[np.ndarray, " 3"], rng: np.random.Generator) -> Wire:
    """The two ends of a loop twisted together: a short stub, bent aside."""
    turns = np.linspace(0.0, 1.0, 13)
    heading = rng.uniform(-np.pi, np.pi)
    length_mm = rng.uniform(6.0, 9.0)
    swing = 0.35 * np.sin(turns * 9.0 * np.pi)
    stub = np.stack(
        [
            length_mm * turns * np.cos(heading) - swing * np.sin(heading),
            length_mm * turns * np.sin(heading) + swing * np.cos(heading),
            -1.5 * turns,
        ],
        axis=1,
    )
    return Wire(start_mm + stub, 1.35 * STERNAL_WIRE_RADIUS_MM, STEEL_PER_MM)


def ecg_cables(patient: Patient) -> list[Wire]:
    """One to three cables across the chest's skin, some of them ending in an electrode's snap."""
    rng = np.random.default_rng((patient.seed, 0xEC6))
    front_mm = -patient.sternum_mm - SKIN_MM
    wires: list[Wire] = []
    for _ in range(int(rng.integers(1, 4))):
        side = rng.choice([-1.0, 1.0])
        start = np.array([side * 190.0, rng.uniform(-40.0, 110.0)])
        middle = np.array([side * rng.uniform(20.0, 70.0), rng.uniform(-60.0, 60.0)])
        ends_here = rng.random() < 0.6
        if ends_here:
            end = middle + np.array([-side * rng.uniform(8.0, 24.0), rng.uniform(-24.0, 24.0)])
        else:
            end = np.array([side * rng.uniform(-30.0, 60.0), rng.choice([-150.0, 150.0])])
        loose = 0.5 * (start + middle) + np.array([0.0, rng.uniform(-25.0, 25.0)])
        eased = 0.5 * middle + 0.25 * (loose + end)  # cables bend, they do not fold
        knots = np.array([start, loose, eased, end])
        # The skin falls away from the sternum to both sides.
        depth = front_mm + 0.0028 * knots[:, 0] ** 2
        course = spline(np.column_stack([knots, depth]), 2 * _STEP_MM)
        wires.append(Wire(course, CABLE_RADIUS_MM, CABLE_PER_MM))
        if ends_here:
            snap = np.stack([course[-1], course[-1] + np.array([0.05, 0.0, 0.0])])
            wires.append(Wire(snap, SNAP_RADIUS_MM, SNAP_PER_MM))
            wires.append(Wire(snap, 0.45 * SNAP_RADIUS_MM, 4.0 * SNAP_PER_MM))
    return wires


def pacemaker_can(patient: Patient) -> list[Slab]:
    """The generator under the left collar bone: a titanium can, and the battery in its lower half."""
    centre, axes = _can_place(patient)
    wide, high, deep = CAN_HALF_MM
    battery = (0.86 * wide, 0.42 * high, 0.8 * deep)
    return [
        Slab(centre, axes, CAN_HALF_MM, CAN_PER_MM),
        Slab(centre + 0.45 * high * axes[1], axes, battery, BATTERY_PER_MM),
    ]


def _can_place(patient: Patient) -> tuple[Float64[np.ndarray, " 3"], Float64[np.ndarray, "3 3"]]:
    """The can's middle, and its axes: it lies on the ribs, turned in their plane and tipped a little."""
    rng = np.random.default_rng((patient.seed, 0xCA))
    centre = np.array([rng.uniform(58.0, 82.0), rng.uniform(-92.0, -66.0), 8.0 - patient.sternum_mm])
    turn, tip = rng.uniform(-0.5, 0.5), rng.uniform(-0.25, 0.25)
    wide = np.array([np.cos(turn), np.sin(turn), 0.0])
    deep = np.array([-np.sin(tip), 0.0, np.cos(tip)])
    deep -= (deep @ wide) * wide
    deep /= np.linalg.norm(deep)
    high = np.cross(deep, wide)
    return centre, np.stack([wide, high, deep])


def _vein_knots(patient: Patient) -> Float64[np.ndarray, "k 3"]:
    """The way of both leads from the can through the subclavian vein to the superior vena cava; the heart leaves it be."""
    centre, axes = _can_place(patient)
    header = centre - 0.95 * CAN_HALF_MM[1] * axes[1]
    cava_mm = patient.spine_mm[0] - 14.0
    return np.array(
        [
            header,
            header + np.array([-14.0, -12.0, 10.0]),
            [0.5 * (header[0] + cava_mm), -118.0, -20.0],
            [cava_mm + 8.0, -100.0, -5.0],
        ]
    )


def _heart_knots(patient: Patient, pose: Pose) -> list[Float64[np.ndarray, "k 3"]]:
    """The ways of the two leads from there on: to the right atrium's appendage, and to the right ventricle's apex."""
    cava_mm = patient.spine_mm[0] - 14.0
    cava = np.array([[cava_mm, -74.0, 0.0], [cava_mm - 2.0, -50.0, 0.0]])
    atrium, apex = pose.to_patient(np.array([_ATRIUM, _APEX]))
    # Down into the atrium, then up and forward into its appendage.
    hook = np.array([(-5.0, 6.0, 0.0), (2.0, 13.0, -6.0), (9.0, 4.0, -14.0), (9.0, -8.0, -18.0)])
    valve = atrium + np.array([(-7.0, 4.0, 0.0), (2.0, 24.0, -4.0)])
    ventricle = np.array([0.5 * (atrium + apex) + np.array([0.0, 14.0, -6.0]), apex])
    return [np.vstack([cava, atrium + hook]), np.vstack([cava + _ASIDE, valve, ventricle])]


def _upper_leads(patient: Patient) -> list[Wire]:
    wires: list[Wire] = []
    below = _heart_knots(patient, pose_at(patient, 0.0, 0.0))
    for number, knots in enumerate(below):
        vein = _vein_knots(patient) + number * _ASIDE
        course = spline(np.vstack([vein, knots[:1]]), _LEAD_STEP_MM)
        wires.append(Wire(course[: _nearest(course, vein[-1]) + 1], LEAD_RADIUS_MM, LEAD_PER_MM))
    return wires


def _lower_leads(patient: Patient, pose: Pose) -> list[Wire]:
    wires: list[Wire] = []
    for number, knots in enumerate(_heart_knots(patient, pose)):
        vein = _vein_knots(patient)[-2:] + number * _ASIDE
        course = spline(np.vstack([vein, knots]), _LEAD_STEP_MM)
        wires.append(Wire(course[_nearest(course, vein[-1]) :], LEAD_RADIUS_MM, LEAD_PER_MM))
        wires.append(Wire(course[-2:], ELECTRODE_RADIUS_MM, ELECTRODE_PER_MM))
        wires.append(Wire(course[-4:-2], ELECTRODE_RADIUS_MM, ELECTRODE_PER_MM))
    return wires


def _nearest(course: Float64[np.ndarray, "n 3"], place: Float64[np.ndarray, " 3"]) -> int:
    return int(np.argmin(np.linalg.norm(course - place, axis=1)))


def _add_wires(
    attenuation: Float32[np.ndarray, "h w"], wires: Sequence[Wire], view: View, grid: Grid
) -> None:
    tubes = draw_tubes(grid.shape, *_segments(wires, view, grid))
    if tubes.thickness.size:
        attenuation[tubes.place] += tubes.thickness


def _segments(
    wires: Sequence[Wire], view: View, grid: Grid
) -> tuple[
    Float32[np.ndarray, "n 2"],
    Float32[np.ndarray, "n 2"],
    Float32[np.ndarray, "n 2"],
    Float32[np.ndarray, " n"],
]:
    """Starts, ends and radii in pixels, and attenuation per pixel of chord."""
    counts = np.array([len(wire.course_mm) for wire in wires])
    places = grid.pixels(view.project(np.concatenate([wire.course_mm for wire in wires]))[:, :2])
    inner = np.ones(len(places), bool)
    inner[np.cumsum(counts) - 1] = False
    first = np.flatnonzero(inner)
    radius = np.repeat([wire.radius_mm / grid.column_mm for wire in wires], counts - 1)
    weight = np.repeat([wire.per_mm * grid.column_mm for wire in wires], counts - 1)
    radii = np.stack([radius, radius], axis=1).astype(np.float32)
    return places[first], places[first + 1], radii, weight.astype(np.float32)


def _add_slab(attenuation: Float32[np.ndarray, "h w"], slab: Slab, view: View, grid: Grid) -> None:
    """Add a slab's attenuation: the length of each pixel's ray between the planes that bound it."""
    # The view is nearly the same all over the can, so it is taken as linear around its middle.
    around = view.project(np.vstack([slab.centre_mm, slab.centre_mm + slab.axes]))
    centre, columns = around[0], (around[1:] - around[0]).T  # slab coordinates to view coordinates
    to_slab = np.linalg.inv(columns)
    reach = float(np.abs(columns[:2] @ np.diag(slab.half_mm)).sum(axis=1).max()) + grid.column_mm
    right = np.flatnonzero(np.abs(grid.x[0] - centre[0]) < reach)
    down = np.flatnonzero(np.abs(grid.y[:, 0] - centre[1]) < reach)
    if not (len(right) and len(down)):
        return
    place = (slice(down[0], down[-1] + 1), slice(right[0], right[-1] + 1))
    x = grid.x[:, place[1]] - np.float32(centre[0])
    y = grid.y[place[0]] - np.float32(centre[1])
    enter = np.full((y.shape[0], x.shape[1]), -1e3, np.float32)
    leave = np.full_like(enter, 1e3)
    for normal, distance in _planes(slab.half_mm):
        # Inside is normal . (to_slab @ (x, y, depth)) <= distance.
        toward = normal @ to_slab
        rest = np.float32(distance) - np.float32(toward[0]) * x - np.float32(toward[1]) * y
        if abs(toward[2]) < 1e-6:
            leave[rest < 0] = -1e3
        elif toward[2] > 0:
            np.minimum(leave, rest / np.float32(toward[2]), out=leave)
        else:
            np.maximum(enter, rest / np.float32(toward[2]), out=enter)
    length = np.maximum(leave - enter, 0.0)
    attenuation[place] += np.float32(slab.per_mm) * length


def _planes(half_mm: tuple[float, float, float]) -> list[tuple[Float64[np.ndarray, " 3"], float]]:
    """The planes around a slab: front, back, and a rim whose corners are round (a superellipse of power 4)."""
    wide, high, deep = half_mm
    planes = [(np.array([0.0, 0.0, 1.0]), deep), (np.array([0.0, 0.0, -1.0]), deep)]
    for angle in np.linspace(0.0, 2 * np.pi, 40, endpoint=False):
        normal = np.array([np.cos(angle), np.sin(angle), 0.0])
        # The support function of |x/a|^4 + |y/b|^4 = 1 is the 4/3-norm of (a nx, b ny).
        support = float((abs(wide * normal[0]) ** (4 / 3) + abs(high * normal[1]) ** (4 / 3)) ** 0.75)
        planes.append((normal, support))
    return planes


def _cropped(attenuation: Float32[np.ndarray, "h w"]) -> Shadow | None:
    """The rows and columns that anything shades."""
    rows = np.flatnonzero(attenuation.any(axis=1))
    columns = np.flatnonzero(attenuation.any(axis=0))
    if not len(rows):
        return None
    place = (slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1))
    return Shadow(place, cv2.exp(-attenuation[place]))
