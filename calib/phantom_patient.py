"""Who the patient is, and how heart and diaphragm lie at a phase of heartbeat and breath.

Lengths are millimetres, places in patient coordinates (`calib.phantom_view`).
"""

from dataclasses import dataclass

import numpy as np

from calib.config import PhantomConfig
from calib.phantom_heart import Pose, contraction
from calib.phantom_view import View


@dataclass(frozen=True)
class Patient:
    """One patient at rest: end of expiration, end of diastole. `dataclasses.replace` makes another."""

    seed: int
    """What texture and noise follow from."""
    heart_centre_mm: tuple[float, float, float]
    heart_axes_mm: tuple[float, float, float]
    """Half of the heart's length and of its two widths."""
    heart_azimuth_rad: float
    """The heart's long axis, base to apex: its turn from the patient's left towards the front."""
    heart_elevation_rad: float
    """And its slope towards the feet."""
    heart_roll_rad: float
    """The heart's turn about its long axis."""
    stroke: float
    """Share of its half width that the heart loses in systole."""
    breath_mm: float
    """How far the diaphragm descends in inspiration."""
    dome_mm: tuple[float, float, float]
    """Top of the diaphragm's dome."""
    dome_radius_mm: float
    """Of its curvature at the top."""
    spine_mm: tuple[float, float]
    """Where the spine lies, (x, z)."""
    spine_tilt: float
    """Its x per y."""
    spine_half_mm: float
    rib_offset_mm: float
    sternum_mm: float
    """How far in front of the isocentre the sternum lies."""
    catheter_entry_mm: float
    """Where the catheter comes down from the arch, x."""
    blades_mm: tuple[float, float, float, float]
    """How far the collimator's blades stand in the frame: left, top, right, bottom; negative is outside."""


def draw_patient(seed: int) -> Patient:
    """The patient of a seed. The spreads are what keeps a heart mostly in the field, and its pose readable."""
    rng = np.random.default_rng((seed, 0xBD))

    def near(middle: float, spread: float) -> float:
        return float(rng.uniform(middle - spread, middle + spread))

    return Patient(
        seed=seed,
        heart_centre_mm=(near(5.0, 6.0), near(8.0, 7.0), near(0.0, 6.0)),
        heart_axes_mm=(near(63.0, 6.0), near(48.0, 5.0), near(46.0, 4.0)),
        heart_azimuth_rad=float(np.deg2rad(near(44.0, 7.0))),
        heart_elevation_rad=float(np.deg2rad(near(36.0, 9.0))),
        heart_roll_rad=float(np.deg2rad(near(0.0, 6.0))),
        stroke=near(0.13, 0.03),
        breath_mm=near(10.0, 4.0),
        dome_mm=(near(20.0, 14.0), near(34.0, 9.0), near(0.0, 10.0)),
        dome_radius_mm=near(130.0, 30.0),
        spine_mm=(near(-20.0, 5.0), near(62.0, 5.0)),
        spine_tilt=near(0.0, 0.05),
        spine_half_mm=near(18.0, 2.0),
        rib_offset_mm=near(0.0, 14.0),
        sternum_mm=near(72.0, 6.0),
        catheter_entry_mm=near(-34.0, 7.0),
        blades_mm=(near(2.0, 7.0), near(2.0, 7.0), near(2.0, 7.0), near(2.0, 7.0)),
    )


def choose_view(config: PhantomConfig) -> View:
    """The C-arm's angles as set, else the patient's own near a standard right anterior oblique view."""
    rng = np.random.default_rng((config.seed, 0xCA2))
    primary, secondary = rng.uniform(-40.0, -20.0), rng.uniform(-20.0, 0.0)
    return View(
        float(primary) if config.primary_angle_deg is None else config.primary_angle_deg,
        float(secondary) if config.secondary_angle_deg is None else config.secondary_angle_deg,
    )


def pose_at(patient: Patient, heart_phase: float, breath_phase: float) -> Pose:
    """The pose at a phase of the heartbeat and of the breath.

    Args:
        patient: Who.
        heart_phase: 0 to 1 from the start of systole; the heart is smallest near 0.35.
        breath_phase: 0 to 1 from the end of expiration; inspiration peaks at 0.5.
    """
    squeeze = contraction(heart_phase)
    breath = float(np.sin(np.pi * breath_phase) ** 4)  # a longer rest at the end of expiration
    long_mm, wide_mm, deep_mm = patient.heart_axes_mm
    descent = patient.breath_mm * breath
    turn, slope = patient.heart_azimuth_rad, patient.heart_elevation_rad
    toward_apex = 3.0 * squeeze  # the base comes down while the apex stays
    x, y, z = patient.heart_centre_mm
    dome_x, dome_y, dome_z = patient.dome_mm
    return Pose(
        centre_mm=(
            x + toward_apex * float(np.cos(slope) * np.cos(turn)) - 0.15 * descent,
            y + toward_apex * float(np.sin(slope)) + 0.6 * descent,
            z - toward_apex * float(np.cos(slope) * np.sin(turn)) - 0.1 * descent,
        ),
        axes_mm=(
            long_mm * (1.0 - 0.55 * patient.stroke * squeeze),
            wide_mm * (1.0 - patient.stroke * squeeze),
            deep_mm * (1.0 - patient.stroke * squeeze),
        ),
        azimuth_rad=turn,
        elevation_rad=slope + 0.005 * descent,  # an inspiring heart stands more upright
        roll_rad=patient.heart_roll_rad,
        twist_rad=-0.10 * squeeze,
        dome_mm=(dome_x, dome_y + descent - 1.5 * squeeze, dome_z),
        dome_radius_mm=patient.dome_radius_mm,
    )
