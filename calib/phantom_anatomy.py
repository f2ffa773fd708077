"""The chest as layers of attenuation: what stands still, what moves, the catheter's course, the collimator.

Lengths are millimetres at the isocentre's depth, x to the right and y down from the middle of the frame.
Attenuations are natural logarithms of intensity. They and the grey levels are our choice, after real frames.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from jaxtyping import Float32, Float64

from calib.phantom_coronary import OSTIUM, grooves
from calib.phantom_heart import Pose, egg, silhouette
from calib.phantom_patient import Patient
from calib.phantom_rendering import draw_tubes, smooth_noise, soft_step, spline
from calib.phantom_view import SOURCE_MM, View

COARSE_MM = 0.66
"""Everything but vessels, catheter and noise is drawn this fine at most, then interpolated."""
SOFT_MM = 1.0
"""Bones and lung vessels, which have no sharp edges, are drawn this fine at most."""
CATHETER_RADIUS_MM = 1.0
CATHETER_BORE_MM = 0.6


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
    patient: Patient, view: View, grid: Grid
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """What does not move: chest wall, spine, ribs and sternum; and the lung's texture, which the heart hides in part.

    Returns:
        Attenuation of the one and of the other.
    """
    rng = np.random.default_rng((patient.seed, 0x57111))
    fine = grid.column_mm
    soft = grid.coarser(SOFT_MM / fine)
    x, y = soft.x, soft.y
    spine_x = np.float32(_spine_place(patient, view)[0])
    bones = 0.05 * smooth_noise(soft.shape, 70 / soft.column_mm, rng)
    bones += 0.0008 * np.minimum(np.abs(x - spine_x), 120.0) + 0.0005 * np.clip(y, -120.0, 120.0)
    bones += _spine(patient, view, x, y)
    bones += _ribs(patient, view, x, y)
    markings = _lung_markings(patient, view, soft, rng)
    markings += 0.026 * smooth_noise(soft.shape, 11 / soft.column_mm, rng)
    wall, lung = (
        cv2.resize(layer, grid.shape[::-1], interpolation=cv2.INTER_LINEAR) for layer in (bones, markings)
    )
    wall += 0.008 * smooth_noise(grid.shape, 2.2 / fine, rng)
    lung += 0.016 * smooth_noise(grid.shape, 4.5 / fine, rng)
    return wall, lung


def _seen(view: View, x: float, y: float, z: float) -> tuple[float, float, float]:
    """A place of the patient in the picture, and the magnification there."""
    right, down, depth = view.project(np.array([[x, y, z]]))[0]
    return float(right), float(down), SOURCE_MM / (SOURCE_MM + float(depth))


def _spine_place(patient: Patient, view: View, behind_mm: float = 0.0) -> tuple[float, float, float]:
    x, z = patient.spine_mm
    return _seen(view, x, 0.0, z + behind_mm)


def _spine(
    patient: Patient, view: View, x: Float32[np.ndarray, "1 w"], y: Float32[np.ndarray, "h 1"]
) -> Float32[np.ndarray, "h w"]:
    """A soft column of vertebrae with discs, pedicles and spinous processes, these further behind."""
    spine_x, spine_y, magnified = _spine_place(patient, view)
    across = x - np.float32(spine_x) - np.float32(patient.spine_tilt) * y
    half_mm = patient.spine_half_mm * magnified
    pitch_mm = 27.0 * magnified * float(np.cos(np.deg2rad(view.secondary_deg)))
    level = (y - np.float32(spine_y - patient.rib_offset_mm)) / pitch_mm
    beat = np.cos(2 * np.pi * level).astype(np.float32)  # 1 in a vertebra's middle, -1 in a disc
    waist = np.float32(half_mm) * (1.0 - 0.07 * beat)
    away = np.abs(across)
    column = np.float32(0.20) * soft_step(waist - away, 4.0)
    inside = soft_step(waist - np.float32(2.0) - away, 3.0)
    column -= np.float32(0.04) * inside * soft_step(-beat - np.float32(0.80), 0.12)  # discs
    plate = np.exp(-(((np.abs(beat + 0.62)) / 0.10) ** 2)).astype(np.float32)
    column += np.float32(0.05) * inside * plate  # end plates
    from_middle = (level - np.round(level)) * pitch_mm
    aside = across - np.float32(_spine_place(patient, view, 20.0)[0] - spine_x)
    for centre in (-0.52, 0.52):
        pedicle = ((aside - centre * half_mm) / 3.6) ** 2 + ((from_middle + 3) / 5.2) ** 2
        column += np.float32(0.05) * np.exp(-((pedicle - 1) ** 2) * 4).astype(np.float32)
    aside = across - np.float32(_spine_place(patient, view, 38.0)[0] - spine_x)
    process = (aside / 3.0) ** 2 + ((from_middle - 5) / 6.5) ** 2
    column += np.float32(0.05) * soft_step(1 - process, 0.6)
    return column


def _ribs(
    patient: Patient, view: View, x: Float32[np.ndarray, "1 w"], y: Float32[np.ndarray, "h 1"]
) -> Float32[np.ndarray, "h w"]:
    """Posterior ribs falling away from the spine, anterior ones rising away from the sternum, as hollow bands."""
    spine_x, spine_y, _magnified = _spine_place(patient, view)
    breast_x, breast_y, _magnified = _seen(view, patient.spine_mm[0], 0.0, -patient.sternum_mm)
    ribs = np.zeros((y.shape[0], x.shape[1]), np.float32)
    courses = (
        # middle, where they begin, softly, pitch, offset, fall per mm, curve, half width, strength
        (spine_x, patient.spine_half_mm, 6.0, 30.0, spine_y, 0.12, 0.0022, 4.2, 0.065),
        (breast_x, 38.0, 12.0, 33.0, breast_y + 17, -0.55, 0.0012, 5.0, 0.042),
    )
    for middle, begin, softly, pitch, offset, fall, curve, half, strength in courses:
        lateral = np.abs(x - np.float32(middle))
        out = soft_step(lateral - np.float32(begin), softly)
        course = (fall + curve * lateral) * lateral
        from_rib = (y - np.float32(offset + patient.rib_offset_mm) - course) / np.float32(pitch)
        from_rib -= np.round(from_rib)
        from_rib *= np.float32(pitch)
        away = np.abs(from_rib)
        band = soft_step(half - away, 1.6)
        rim = np.exp(-(((away - (half - 0.6)) / 1.1) ** 2))
        ribs += np.float32(strength) * out * (0.55 * band + 0.6 * rim)
    ribs += np.float32(0.05) * soft_step(np.float32(15.0) - np.abs(x - np.float32(breast_x)), 4.0)  # sternum
    return ribs


def _lung_markings(
    patient: Patient, view: View, grid: Grid, rng: np.random.Generator
) -> Float32[np.ndarray, "h w"]:
    """Lung vessels as soft lines that fan out from the hilum."""
    hilum = np.array(_seen(view, patient.spine_mm[0] + 34.0, -38.0, 22.0)[:2])
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


def moving_layers(
    pose: Pose, view: View, grid: Grid
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """Heart with its great vessels, and diaphragm.

    Returns:
        Attenuation, and how much of the lung's texture shows (0 to 1).
    """
    outline = silhouette(pose, view)
    # s runs towards the apex as it is seen, q across it, in the unit circle of the outline.
    shown = float(np.hypot(*outline.apex))
    turn = np.arctan2(outline.apex[1], outline.apex[0]) if shown > 0.0 else 0.0
    cosine, sine = np.cos(outline.angle_rad), np.sin(outline.angle_rad)
    long_mm, short_mm = outline.axes_mm
    to_circle = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]]) @ np.array(
        [[cosine / long_mm, sine / long_mm], [-sine / short_mm, cosine / short_mm]]
    )
    (s_x, s_y), (q_x, q_y) = to_circle.astype(np.float32)
    x, y = grid.x, grid.y
    right, down = x - np.float32(outline.centre_mm[0]), y - np.float32(outline.centre_mm[1])
    s = right * s_x + down * s_y
    q = right * q_x + down * q_y
    # Foreshortened, the body shows less of its egg's shape.
    bulge = egg(s)
    bulge *= np.float32(shown)
    bulge += np.float32(1.0 - shown)
    np.maximum(bulge, np.float32(0.3), out=bulge)
    q /= bulge
    q *= q
    s *= s
    s += q
    np.subtract(np.float32(1.0), s, out=s)
    np.maximum(s, 0.0, out=s)
    bulk = np.sqrt(s, out=s)  # the chord of a round body: steep at its outline
    trunk, fat = (
        cv2.resize(layer, grid.shape[::-1], interpolation=cv2.INTER_LINEAR)
        for layer in _soft_layers(pose, view, grid.coarser(3.0))
    )
    attenuation = bulk * np.float32(0.50 * outline.depth_mm / 46.0)
    np.maximum(attenuation, trunk, out=attenuation)
    # The dome is a paraboloid; its outline seen from above or below is the same parabola, moved.
    dome_x, dome_y, _magnified = _seen(view, *pose.dome_mm)
    tilt = np.deg2rad(view.secondary_deg)
    dome_y -= 0.5 * pose.dome_radius_mm * float(np.sin(tilt) ** 2 / np.cos(tilt))
    away = x - np.float32(dome_x)
    below = y - (np.float32(dome_y) + away * away * np.float32(0.5 / pose.dome_radius_mm))
    np.maximum(below, 0.0, out=below)
    below /= below + np.float32(9.0)
    liver = np.sqrt(below, out=below)
    attenuation += np.float32(0.40) * liver
    attenuation -= fat
    bulk *= np.float32(-0.6)
    bulk += np.float32(1.0)
    liver *= np.float32(-0.6)
    liver += np.float32(1.0)
    bulk *= liver
    return attenuation, bulk


def _soft_layers(
    pose: Pose, view: View, grid: Grid
) -> tuple[Float32[np.ndarray, "h w"], Float32[np.ndarray, "h w"]]:
    """What has no sharp edge, as attenuation: the great vessels' trunk, and the fat in the heart's grooves, which is
    faintly brighter than muscle."""
    # The trunk rises from the base to the upper border of the frame.
    root_x, root_y, _magnified = _seen(view, *pose.to_patient(np.array([(-0.55, -0.25, 0.15)]))[0])
    arch_x, arch_y, _magnified = _seen(
        view, pose.centre_mm[0] - 32.0, pose.centre_mm[1] - 85.0, pose.centre_mm[2] + 5.0
    )
    slope = (arch_x - root_x) / (arch_y - root_y)
    aside = grid.x - (np.float32(root_x - slope * root_y) + np.float32(slope) * grid.y)
    trunk = np.float32(0.31) * soft_step(np.float32(22.0) - np.abs(aside), 9.0)
    trunk *= soft_step(np.float32(root_y + 10.0) - grid.y, 25.0)
    lines = np.zeros(grid.shape, np.uint8)
    points, cuts, shares = grooves()
    places = np.round(grid.pixels(view.project(pose.to_patient(points))[:, :2]) * 16.0).astype(np.int32)
    width = max(1, round(6.5 / grid.column_mm))
    for course, share in zip(np.split(places, cuts), shares, strict=True):
        cv2.polylines(lines, [course[:, None]], False, 255.0 * share, width, cv2.LINE_AA, 4)
    fat = cv2.GaussianBlur(lines.astype(np.float32), (0, 0), 1.6 / grid.column_mm)
    fat *= np.float32(0.066 / 255)
    return trunk, fat


def catheter_course(patient: Patient, pose: Pose, view: View) -> Float64[np.ndarray, "n 2"]:
    """The catheter from above down the ascending aorta and up into the left main's ostium, in the picture, mm."""
    ostium = pose.to_patient(np.array([OSTIUM]))[0]
    entry = np.array([patient.catheter_entry_mm, 0.0, 12.0])
    arch = entry + np.array([(-3.0, -280.0, 0.0), (0.0, -140.0, 0.0)])
    halfway = 0.5 * (entry + ostium + np.array([-17.0, 0.0, 0.0]))
    halfway[1] = ostium[1] - 36.0
    sinus = ostium + np.array([(-17.0, -12.0, 4.0), (-13.0, 1.5, 3.0), (-6.0, 4.0, 1.0), (0.0, 0.0, 0.0)])
    knots = np.vstack([arch, halfway, sinus])
    return view.project(spline(knots, 3.0))[:, :2]


def blades(patient: Patient, grid: Grid) -> Float32[np.ndarray, "h w"]:
    """How much of the beam the collimator lets through, 0 to 1, with the penumbra of its blades."""
    left, top, right, bottom = patient.blades_mm
    half_width = grid.columns * grid.column_mm / 2
    half_height = grid.rows * grid.row_mm / 2
    across = np.minimum(grid.x + half_width - left, half_width - right - grid.x)
    down = np.minimum(grid.y + half_height - top, half_height - bottom - grid.y)
    let_through: np.ndarray = soft_step(across, 2.6) * soft_step(down, 2.6)
    return let_through
