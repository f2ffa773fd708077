"""A pixel's size: carried from a header's figures, and never guessed in silence."""

import pytest

from calib.spacing import HeaderGeometry, header_spacing


def test_a_pixel_at_the_isocentre_is_the_detectors_over_the_magnification() -> None:
    # Figures of a real run of a phantom.
    spacing, says = header_spacing(HeaderGeometry((0.390625, 0.390625), 931.0, 720.0, 1.29306), 512, 512)
    assert spacing is not None
    assert spacing.at == "isocentre"
    assert spacing.row_mm == pytest.approx(0.390625 * 720 / 931)
    assert spacing.magnification == pytest.approx(931 / 720)
    assert "0.3021 x 0.3021 mm at the isocentre" in says[0]
    assert len(says) == 1


def test_without_distances_the_size_holds_at_the_detector() -> None:
    spacing, says = header_spacing(HeaderGeometry((0.2, 0.3)), 512, 512)
    assert spacing is not None
    assert (spacing.row_mm, spacing.column_mm, spacing.at, spacing.magnification) == (
        0.2,
        0.3,
        "detector",
        None,
    )
    assert any("distances are unknown" in said for said in says)


def test_a_field_of_view_gives_the_detectors_pixel() -> None:
    header = HeaderGeometry(
        source_to_detector_mm=860.0, source_to_patient_mm=720.0, field_of_view_mm=(200.0, 100.0)
    )
    spacing, says = header_spacing(header, 256, 512)
    assert spacing is not None
    assert spacing.row_mm == pytest.approx(100 / 256 * 720 / 860)
    assert spacing.column_mm == pytest.approx(200 / 512 * 720 / 860)
    assert any("as if it filled the frame" in said for said in says)


def test_a_calibrated_size_is_said_to_hold_at_its_object() -> None:
    spacing, _ = header_spacing(HeaderGeometry(pixel_spacing_mm=(0.25, 0.25)), 512, 512)
    assert spacing is not None
    assert spacing.at == "calibrated object"


def test_what_the_header_leaves_out_is_unknown() -> None:
    spacing, says = header_spacing(HeaderGeometry(source_to_detector_mm=900.0), 512, 512)
    assert spacing is None
    assert says[-1] == "A pixel's size is unknown: the header does not say it."


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        (HeaderGeometry((0.4, 0.4), 700.0, 720.0), "distances are not believed: 720 mm to the patient"),
        (HeaderGeometry((0.4, 0.4), magnification=0.2), "magnification 0.2 is not believed"),
        (HeaderGeometry((0.4, 0.4), 900.0, 600.0, 1.2), "1.200 and its distances, 1.500, differ"),
        (HeaderGeometry((float("nan"), 0.4)), "is not believed; 0.01 to 5 mm are"),
    ],
)
def test_figures_that_cannot_be_are_named(header: HeaderGeometry, sentence: str) -> None:
    _, says = header_spacing(header, 512, 512)
    assert any(sentence in said for said in says)
