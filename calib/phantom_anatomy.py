"""Who the patient is, how heart and diaphragm lie at a time, and what they take from the beam.

Lengths are millimetres in the plane of the heart, from the centre of the frame, x to the right and y down.
Attenuations are natural logarithms of intensity. They and the grey levels are our choice, after real frames.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from calib.phantom_coronary import OSTIUM, grooves
from calib.phantom_rendering import draw_tubes, smooth_noise, soft_step, spline

COARSE_MM = 0.66
"""Everything but vessels, catheter and noise is drawn this fine at most, then interpolated."""
CATHETER_RADIUS_MM = 1.0
CATHETER_BORE_MM = 0.6


@dataclass(frozen=True)
class Patient:
    """One patient at rest: end of expiration, end of diastole. `dataclasses.replace` makes another."""

    seed: int
    """What texture and noise follow from."""
    heart_centre_mm: tuple[float, float]
    heart_axes_mm: tuple[float, float]
    """Half of the heart's length and half of its width."""
    heart_angle_rad: float
    """From the x axis down to the heart's long axis, base to apex."""
    stroke: float
    """Share of its half width that the heart loses in systole."""
    breath_mm: float
    """How far the diaphragm descends in inspiration."""
    dome_mm: tuple[float, float]
    """Top of the diaphragm's dome."""
    dome_radius_mm: float
    """Of its curvature at the top."""
    spine_mm: float
    """Where the spine crosses the middle row, x."""
    spine_tilt: float
    """Its x per y."""
    spine_half_mm: float
    rib_offset_mm: float
    catheter_entry_mm: float
    """Where the catheter enters the frame from above, x."""
    blades_mm: tuple[float, float, float, float]
    """How far the collimator's blades stand in the frame: left, top, right, bottom; negative is outside."""


def draw_patient(seed: int) -> Patient:
    """The patient of a seed. The spreads are what keeps a heart mostly in the field."""
    rng = np.random.default_rng((seed, 0xBD))
    around = rng.uniform

    def near(middle: float, spread: float) -> float:
        return float(around(middle - spread, middle + spread))

    return Patient(
        seed=seed,
        heart_centre_mm=(near(6.0, 7.0), near(8.0, 7.0)),
        heart_axes_mm=(near(63.0, 6.0), near(49.0, 5.0)),
        heart_angle_rad=np.deg2rad(near(40.0, 11.0)),
        stroke=near(0.13, 0.03),
        breath_mm=near(10.0, 4.0),
        dome_mm=(near(18.0, 14.0), near(32.0, 10.0)),
        dome_radius_mm=near(130.0, 30.0),
        spine_mm=near(-42.0, 9.0),
        spine_tilt=near(0.0, 0.06),
        spine_half_mm=near(18.0, 2.0),
        rib_offset_mm=near(0.0, 14.0),
        catheter_entry_mm=near(-32.0, 8.0),
        blades_mm=(near(2.0, 7.0), near(2.0, 7.0), near(2.0, 7.0), near(2.0, 7.0)),
    )


@dataclass(frozen=True)
class Pose:
    """How heart and diaphragm lie at one time; the tree is carried by it."""

    centre_mm: tuple[float, float]
    axes_mm: tuple[float, float]
    angle_rad: float
    twist_rad: float
    """Rotation of the heart's middle against its outline; none at the outline."""
    dome_mm: tuple[float, float]
    dome_radius_mm: float

    def to_mm(self, points: Float64[np.ndarray, "n 2"]) -> Float64[np.ndarray, "n 2"]:
        """Heart coordinates (s, q) to millimetres (x, y)."""
        inner = np.clip(1.0 - (points**2).sum(axis=1), 0.0, 1.0)
        turn = self.twist_rad * inner
        s = np.cos(turn) * points[:, 0] - np.sin(turn) * points[:, 1]
        q = np.sin(turn) * points[:, 0] + np.cos(turn) * points[:, 1]
        along = s * self.axes_mm[0]
        across = q * egg(s) * self.axes_mm[1]
        cosine, sine = np.cos(self.angle_rad), np.sin(self.angle_rad)
        return np.stack(
            [
                self.centre_mm[0] + cosine * along - sine * across,
                self.centre_mm[1] + sine * along + cosine * across,
            ],
            axis=1,
        )


def egg(s: np.ndarray) -> np.ndarray:
    """Width of the heart at s relative to an ellipse's: the base is broad and the apex narrow."""
    width: np.ndarray = 1.0 - 0.17 * s - 0.05 * s * s
    return width


def pose_at(patient: Patient, heart_phase: float, breath_phase: float) -> Pose:
    """The pose at a phase of the heartbeat and of the breath.

    Args:
        patient: Who.
        heart_phase: 0 to 1 from the start of systole; the heart is smallest near 0.35.
        breath_phase: 0 to 1 from the end of expiration; inspiration peaks at 0.5.
    """
    squeeze = contraction(heart_phase)
    breath = np.sin(np.pi * breath_phase) ** 4  # a longer rest at the end of expiration
    long_mm, short_mm = patient.heart_axes_mm
    descent = patient.breath_mm * breath
    cosine, sine = np.cos(patient.heart_angle_rad), np.sin(patient.heart_angle_rad)
    toward_apex = 3.0 * squeeze  # the base comes down while the apex stays
    return Pose(
        centre_mm=(
            patient.heart_centre_mm[0] + cosine * toward_apex - 0.15 * descent,
            patient.heart_centre_mm[1] + sine * toward_apex + 0.6 * descent,
        ),
        axes_mm=(
            long_mm * (1.0 - 0.55 * patient.stroke * squeeze),
            short_mm * (1.0 - patient.stroke * squeeze),
        ),
        angle_rad=patient.heart_angle_rad + 0.004 * descent,
        twist_rad=-0.10 * squeeze,
        dome_mm=(patient.dome_mm[0], patient.dome_mm[1] + descent - 1.5 * squeeze),
        dome_radius_mm=patient.dome_radius_mm,
    )


def contraction(heart_phase: float) -> float:
    """How far the heart is contracted, 0 to 1: a quick systole, relaxation, then rest. Smooth and periodic."""
    phase = heart_phase % 1.0
    if phase < 0.35:
        return float(0.5 - 0.5 * np.cos(np.pi * phase / 0.35))
    if phase < 0.72:
        return float(0.5 + 0.5 * np.cos(np.pi * (phase - 0.35) / 0.37))
    return 0.0


@dataclass(frozen=True)
class Grid:
    """Pixel centres of a picture in millimetres."""

    rows: int
    columns: int
    row_mm: float
    column_mm: float

    def coarser(self, factor: float) -> "Grid":
        """The grid over the same area with pixels `factor` times as large; the same grid for 1 and below."""
        if factor <= 1.0:
            return self
        rows, columns = max(8, round(self.rows / factor)), max(8, round(self.columns / factor))
        return Grid(rows, columns, self.row_mm * self.rows / rows, self.column_mm * self.columns / columns)

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    @property
    def x(self) -> Float32[np.ndarray, "1 w"]:
        return (((np.arange(self.columns) + 0.5) - self.columns / 2) * self.column_mm).astype(np.float32)[
            None
        ]

    @property
    def y(self) -> Float32[np.ndarray, "h 1"]:
        return (((np.arange(self.rows) + 0.5) - self.rows / 2) * self.row_mm).astype(np.float32)[:, None]

    def pixels(self, points_mm: Float64[np.ndarray, "n 2"]) -> Float32[np.ndarray, "n 2"]:
        """Millimetres to (x, y) in pixels, whole numbers at pixel centres."""
        scale = np.array([1 / self.column_mm, 1 / self.row_mm])
        middle = np.array([(self.columns - 1) / 2, (self.rows - 1) / 2])
        places: np.ndarray = (points_mm * scale + middle).astype(np.float32)
        return places


def still_layers(
    patient: Patient, grid: Grid
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """What does not move: chest wall, spine and ribs; and the lung's texture, which the heart hides in part.

    Returns:
        Attenuation of the one and of the other.
    """
    rng = np.random.default_rng((patient.seed, 0x57111))
    x, y = grid.x, grid.y
    fine = grid.column_mm
    wall = 0.05 * smooth_noise(grid.shape, 70 / fine, rng)
    wall += 0.0008 * np.minimum(np.abs(x - patient.spine_mm), 120.0) + 0.0005 * np.clip(y, -120.0, 120.0)
    wall += 0.008 * smooth_noise(grid.shape, 2.2 / fine, rng)
    wall += _spine(patient, x, y)
    wall += _ribs(patient, x, y)
    lung = 0.026 * smooth_noise(grid.shape, 11 / fine, rng)
    lung += 0.016 * smooth_noise(grid.shape, 4.5 / fine, rng)
    lung += _lung_markings(patient, grid, rng)
    return wall, lung


def _spine(
    patient: Patient, x: Float32[np.ndarray, "1 w"], y: Float32[np.ndarray, "h 1"]
) -> Float32[np.ndarray, "h w"]:
    """A soft column of vertebrae with discs, pedicles and spinous processes."""
    across = x - np.float32(patient.spine_mm) - np.float32(patient.spine_tilt) * y
    pitch_mm = 27.0
    level = (y + np.float32(patient.rib_offset_mm)) / pitch_mm
    beat = np.cos(2 * np.pi * level).astype(np.float32)  # 1 in a vertebra's middle, -1 in a disc
    waist = np.float32(patient.spine_half_mm) * (1.0 - 0.07 * beat)
    away = np.abs(across)
    column = np.float32(0.20) * soft_step(waist - away, 4.0)
    inside = soft_step(waist - np.float32(2.0) - away, 3.0)
    column -= np.float32(0.04) * inside * soft_step(-beat - np.float32(0.80), 0.12)  # discs
    plate = np.exp(-(((np.abs(beat + 0.62)) / 0.10) ** 2)).astype(np.float32)
    column += np.float32(0.05) * inside * plate  # end plates
    from_middle = (level - np.round(level)) * pitch_mm
    for centre in (-0.52, 0.52):
        pedicle = ((across - centre * patient.spine_half_mm) / 3.6) ** 2 + ((from_middle + 3) / 5.2) ** 2
        column += np.float32(0.05) * np.exp(-((pedicle - 1) ** 2) * 4).astype(np.float32)
    process = (across / 3.0) ** 2 + ((from_middle - 5) / 6.5) ** 2
    column += np.float32(0.05) * soft_step(1 - process, 0.6)
    return column


def _ribs(
    patient: Patient, x: Float32[np.ndarray, "1 w"], y: Float32[np.ndarray, "h 1"]
) -> Float32[np.ndarray, "h w"]:
    """Posterior ribs falling away from the spine and anterior ones rising towards it, as hollow bands."""
    lateral = np.abs(x - np.float32(patient.spine_mm))
    out = soft_step(lateral - np.float32(patient.spine_half_mm), 6.0)
    ribs = np.zeros((y.shape[0], x.shape[1]), np.float32)
    courses = (
        # pitch, offset, fall per mm, curve, half width, strength
        (30.0, patient.rib_offset_mm, 0.12, 0.0022, 4.2, 0.065),
        (33.0, patient.rib_offset_mm + 17, 0.62, -0.0012, 5.0, 0.042),
    )
    for pitch, offset, fall, curve, half, strength in courses:
        course = (fall + curve * lateral) * lateral
        from_rib = (y - np.float32(offset) - course) / np.float32(pitch)
        from_rib -= np.round(from_rib)
        from_rib *= np.float32(pitch)
        away = np.abs(from_rib)
        band = soft_step(half - away, 1.6)
        rim = np.exp(-(((away - (half - 0.6)) / 1.1) ** 2))
        ribs += np.float32(strength) * out * (0.55 * band + 0.6 * rim)
    return ribs


def _lung_markings(patient: Patient, grid: Grid, rng: np.random.Generator) -> Float32[np.ndarray, "h w"]:
    """Lung vessels as soft lines that fan out from the hilum."""
    hilum = np.array([patient.spine_mm + 38.0, -38.0])
    starts, ends, radii = [], [], []
    for _ in range(26):
        heading = rng.uniform(-np.pi, np.pi)
        bend = rng.uniform(-0.010, 0.010)
        thick = rng.uniform(0.8, 1.9)
        point = hilum + rng.normal(0, 6, 2)
        for number in range(8):
            heading += bend * 12
            there = point + 12 * np.array([np.cos(heading), np.sin(heading)])
            starts.append(point)
            ends.append(there)
            radii.append((thick * (1 - number / 9), thick * (1 - (number + 1) / 9)))
            point = there
    lines = draw_tubes(
        grid.shape,
        grid.pixels(np.array(starts)),
        grid.pixels(np.array(ends)),
        (np.array(radii) / grid.column_mm).astype(np.float32),
    )
    markings: np.ndarray = np.zeros(grid.shape, np.float32)
    markings[lines.place] = lines.thickness
    markings = cv2.GaussianBlur(markings, (0, 0), 1.2 / grid.column_mm)
    markings *= np.float32(0.028 * grid.column_mm)
    return markings


def moving_layers(pose: Pose, grid: Grid) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Heart with its great vessels, and diaphragm.

    Returns:
        Attenuation, and how much of the lung's texture shows (0 to 1).
    """
    x, y = grid.x, grid.y
    cosine, sine = np.float32(np.cos(pose.angle_rad)), np.float32(np.sin(pose.angle_rad))
    right = x - np.float32(pose.centre_mm[0])
    down = y - np.float32(pose.centre_mm[1])
    s = (right * cosine + down * sine) / np.float32(pose.axes_mm[0])
    q = (down * cosine - right * sine) / np.float32(pose.axes_mm[1])
    q /= np.maximum(egg(s), 0.3)
    inner = np.float32(1.0) - s * s - q * q
    np.maximum(inner, 0.0, out=inner)
    bulk = np.sqrt(inner)  # the chord of a round body: steep at its outline
    # Great vessels rise from the base to the upper border of the frame.
    trunk_x = np.float32(pose.centre_mm[0] - 22.0) + np.float32(0.22) * (y - np.float32(pose.centre_mm[1]))
    trunk = soft_step(np.float32(24.0) - np.abs(x - trunk_x), 9.0)
    trunk *= soft_step(np.float32(pose.centre_mm[1] + 5.0) - y, 25.0)
    attenuation = np.float32(0.50) * np.maximum(bulk, np.float32(0.62) * trunk)
    away = x - np.float32(pose.dome_mm[0])
    dome = y - np.float32(pose.dome_mm[1]) - away * away * np.float32(0.5 / pose.dome_radius_mm)
    below = np.maximum(dome, 0.0)
    depth = np.sqrt(below / (below + np.float32(9.0)))
    attenuation += np.float32(0.40) * depth
    attenuation -= _groove_fat(pose, grid)
    texture = np.float32(1.0) - np.float32(0.6) * bulk
    texture *= np.float32(1.0) - np.float32(0.6) * depth
    return attenuation, texture


_GROOVES = grooves()


def _groove_fat(pose: Pose, grid: Grid) -> Float32[np.ndarray, "h w"]:
    """The fat in the heart's grooves, faintly brighter than muscle, along the great vessels' canonical course."""
    third = grid.coarser(3.0)
    starts, ends = (third.pixels(pose.to_mm(points)) for points in _GROOVES)
    radii = np.full((len(starts), 2), 4.5 / third.column_mm, np.float32)
    tubes = draw_tubes(third.shape, starts, ends, radii)
    small = np.zeros(third.shape, np.float32)
    small[tubes.place] = tubes.thickness
    fat: np.ndarray = cv2.resize(small, (grid.columns, grid.rows), interpolation=cv2.INTER_LINEAR)
    fat *= np.float32(0.006 * third.column_mm)
    return fat


def catheter_course(patient: Patient, pose: Pose) -> Float64[np.ndarray, "n 2"]:
    """The catheter from the frame's upper border, down the aorta and up into the left main's ostium, in mm."""
    ostium = pose.to_mm(np.array([OSTIUM]))[0]
    entry = patient.catheter_entry_mm
    knots = np.array(
        [
            (entry - 3.0, -260.0),
            (entry, -130.0),
            (0.5 * (entry + ostium[0] - 17.0), ostium[1] - 34.0),
            (ostium[0] - 17.0, ostium[1] - 12.0),
            (ostium[0] - 13.0, ostium[1] + 1.5),
            (ostium[0] - 6.0, ostium[1] + 4.0),
            ostium,
        ]
    )
    return spline(knots, 3.0)


def blades(patient: Patient, grid: Grid) -> Float32[np.ndarray, "h w"]:
    """How much of the beam the collimator lets through, 0 to 1, with the penumbra of its blades."""
    left, top, right, bottom = patient.blades_mm
    half_width = grid.columns * grid.column_mm / 2
    half_height = grid.rows * grid.row_mm / 2
    across = np.minimum(grid.x + half_width - left, half_width - right - grid.x)
    down = np.minimum(grid.y + half_height - top, half_height - bottom - grid.y)
    let_through: np.ndarray = soft_step(across, 2.6) * soft_step(down, 2.6)
    return let_through
