"""The heart as a body in the patient: where it lies at a time, and the outline it shows.

Heart coordinates (s, q, w): s runs along the heart's long axis from the base (-1) to the apex (+1), q across it from
the anterior superior border (-1) to the inferior one (+1), w from the left ventricle's free wall (-1) to the right
ventricle's (+1). The heart's surface is the unit sphere. In the standard right anterior oblique view s and q lie
nearly in the picture, and w points nearly to the detector.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64

from calib.phantom_view import SOURCE_MM, View


def egg(s: np.ndarray) -> np.ndarray:
    """Width of the heart at s relative to an ellipsoid's: the base is broad and the apex narrow."""
    width: np.ndarray = 1.0 - 0.17 * s - 0.05 * s * s
    return width


def contraction(heart_phase: float) -> float:
    """How far the heart is contracted, 0 to 1: a quick systole, relaxation, then rest. Smooth and periodic."""
    phase = heart_phase % 1.0
    if phase < 0.35:
        return float(0.5 - 0.5 * np.cos(np.pi * phase / 0.35))
    if phase < 0.72:
        return float(0.5 + 0.5 * np.cos(np.pi * (phase - 0.35) / 0.37))
    return 0.0


@dataclass(frozen=True)
class Pose:
    """How heart and diaphragm lie in the patient at one time; the tree is carried by it."""

    centre_mm: tuple[float, float, float]
    axes_mm: tuple[float, float, float]
    """Half of the heart's length, and of its widths along q and w."""
    azimuth_rad: float
    """The long axis' turn from the patient's left towards the front."""
    elevation_rad: float
    """Its slope towards the feet."""
    roll_rad: float
    """The heart's turn about its long axis, from q towards w."""
    twist_rad: float
    """The apex' turn about the long axis in systole, against the base's."""
    dome_mm: tuple[float, float, float]
    """Top of the diaphragm's dome."""
    dome_radius_mm: float

    @cached_property
    def directions(self) -> Float64[np.ndarray, "3 3"]:
        """Unit vectors of s, q and w in patient coordinates, row by row."""
        turn, slope = self.azimuth_rad, self.elevation_rad
        along = np.array([np.cos(slope) * np.cos(turn), np.sin(slope), -np.cos(slope) * np.sin(turn)])
        level = np.array([-np.sin(turn), 0.0, -np.cos(turn)])
        a, b, c = along
        down = np.array([b * level[2], c * level[0] - a * level[2], -b * level[0]])  # along x level
        cosine, sine = np.cos(self.roll_rad), np.sin(self.roll_rad)
        return np.stack([along, cosine * down + sine * level, cosine * level - sine * down])

    def to_patient(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Heart coordinates (s, q, w) to patient coordinates in mm."""
        s = points[:, 0]
        turn = self.twist_rad * s
        cosine, sine = np.cos(turn), np.sin(turn)
        width = egg(s)
        body = np.empty_like(points)
        body[:, 0] = s
        body[:, 1] = (cosine * points[:, 1] - sine * points[:, 2]) * width
        body[:, 2] = (sine * points[:, 1] + cosine * points[:, 2]) * width
        placed: Float64[np.ndarray, "n 3"] = (body * self.axes_mm) @ self.directions
        placed += self.centre_mm
        return placed


@dataclass(frozen=True)
class Silhouette:
    """The heart's outline in the picture: an ellipse, drawn to an egg along `apex`."""

    centre_mm: tuple[float, float]
    """(x, y) from the isocentre."""
    axes_mm: tuple[float, float]
    """Half of its length and of its width."""
    angle_rad: float
    """From the picture's x axis down to the length, whose direction is the one nearer to the apex."""
    apex: tuple[float, float]
    """Where the apex is seen, in the ellipse's own unit circle; shorter than 1 where the heart is foreshortened."""
    depth_mm: float
    """Half of the heart's thickness along the beam."""


@dataclass(frozen=True)
class Outline:
    """The ellipse the heart's body shows in the picture, in pixels: what there is to go by without contrast medium."""

    centre_px: tuple[float, float]
    """(x, y), whole numbers at pixel centres."""
    axes_px: tuple[float, float]
    """Half of its length and of its width."""
    angle_rad: float
    """From the picture's x axis down to the length, whose direction is the one nearer to the apex."""


def silhouette(pose: Pose, view: View) -> Silhouette:
    """The outline of the heart in a view, as if all of it were magnified as its centre is."""
    centre = view.project(np.array([pose.centre_mm]))[0]
    magnified = SOURCE_MM / (SOURCE_MM + centre[2])
    spread = magnified * (
        view.axes[:2] @ (pose.directions.T * pose.axes_mm)
    )  # (2, 3), unit sphere to picture
    ways, axes, within = np.linalg.svd(spread, full_matrices=False)
    if within[0, 0] < 0.0:
        ways[:, 0], within[0] = -ways[:, 0], -within[0]
    if np.linalg.det(ways) < 0.0:
        ways[:, 1], within[1] = -ways[:, 1], -within[1]
    return Silhouette(
        centre_mm=(float(centre[0]), float(centre[1])),
        axes_mm=(float(axes[0]), float(axes[1])),
        angle_rad=float(np.arctan2(ways[1, 0], ways[0, 0])),
        apex=(float(within[0, 0]), float(within[1, 0])),
        depth_mm=float(np.prod(pose.axes_mm) * magnified**2 / (axes[0] * axes[1])),
    )
