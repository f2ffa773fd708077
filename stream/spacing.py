"""How large a pixel of the live picture is: what the source's header says, or the site's record. Imports no OpenCV."""

from collections.abc import Mapping
from typing import Any

from calib.results import PixelSpacing
from calib.spacing import HeaderGeometry, header_spacing
from stream.frame import FrameFormat, Spacing, SpacingPlace

PLACES = {
    "detector": SpacingPlace.DETECTOR,
    "isocentre": SpacingPlace.ISOCENTRE,
    "calibrated object": SpacingPlace.OBJECT,
}
"""By the words of `calib.results.PixelSpacing.at`."""


def live_spacing(
    sizes: Mapping[str, Any], frame_format: FrameFormat, recorded: PixelSpacing | None
) -> Spacing | None:
    """How large a pixel is, for the message.

    A header speaks of this very run, so it comes first where it says more than the detector's own pixel; then the site's record,
    whose distances are those of its day; then the detector's pixel.

    Args:
        sizes: What the source's header says of sizes and distances, by the names of `calib.spacing.HeaderGeometry`.
        frame_format: Of the frames.
        recorded: What the site's geometry holds; None without a record or where it does not know.

    Returns:
        None where nobody knows.
    """
    said: dict[str, Any] = {
        name: tuple(size) if isinstance(size, list) else size for name, size in sizes.items()
    }
    header, _ = header_spacing(HeaderGeometry(**said), frame_format.rows, frame_format.columns)
    found = header if recorded is None or (header is not None and header.at != "detector") else recorded
    if found is None or found.at not in PLACES:
        return None
    return Spacing(found.row_mm, found.column_mm, PLACES[found.at])
