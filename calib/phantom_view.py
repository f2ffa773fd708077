"""Where things lie in the patient, and how a C-arm sees them.

Patient coordinates are millimetres from the isocentre, which is near the middle of the heart: x to the patient's
left, y towards the feet, z towards the back. The picture is shown in the usual way: the patient's left on its
right, the head up.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64

SOURCE_MM = 750.0
"""From the focal spot to the isocentre; what lies nearer to the focal spot is magnified against it. Our choice,
near the usual geometry of a C-arm."""


@dataclass(frozen=True)
class View:
    """The direction a C-arm looks in, by DICOM's two positioner angles.

    At 0 and 0 the detector is in front of the chest and the focal spot behind the back.
    """

    primary_deg: float
    """Positioner Primary Angle (0018,1510): the detector's turn to the patient's left (LAO positive, RAO negative)."""
    secondary_deg: float
    """Positioner Secondary Angle (0018,1511): its tilt to the head (cranial positive, caudal negative)."""

    @cached_property
    def axes(self) -> Float64[np.ndarray, "3 3"]:
        """The picture's right, its down and the way to the detector as unit vectors in patient coordinates, row by row."""
        turn, tilt = np.deg2rad(self.primary_deg), np.deg2rad(self.secondary_deg)
        return np.array(
            [
                (np.cos(turn), 0.0, np.sin(turn)),
                (np.sin(turn) * np.sin(tilt), np.cos(tilt), -np.cos(turn) * np.sin(tilt)),
                (np.sin(turn) * np.cos(tilt), -np.sin(tilt), -np.cos(turn) * np.cos(tilt)),
            ]
        )

    def project(self, points: Float64[np.ndarray, "n 3"]) -> Float64[np.ndarray, "n 3"]:
        """Patient coordinates to the picture.

        Args:
            points: (x, y, z) in patient coordinates, mm, far from the focal spot.

        Returns:
            (x, y, depth) in mm: x to the right and y down from the isocentre, as long as things at the
            isocentre's depth are; depth from the isocentre towards the detector. With the point at depth t,
            and f the distance from focal spot to isocentre, x and y are magnified by f / (f + t).
        """
        seen: Float64[np.ndarray, "n 3"] = points @ self.axes.T
        seen[:, :2] *= (SOURCE_MM / (SOURCE_MM + seen[:, 2]))[:, None]
        return seen
