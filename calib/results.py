"""What each calibration step found, as a site's record keeps it. Standard library only.

Fields are floats, ints, strings, booleans, tuples of them, None and dataclasses of the same, so that `calib/record.py` can
write and check them by their annotations alone. Units end the names.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class StepResult:
    """What every step says beside its own figures."""

    passed: bool
    """Whether the residual is within the limit and nothing else forbids to use the result."""
    frames: int
    """Frames that were measured."""
    residual: float
    """How far the result is from what it should be, in `unit`."""
    limit: float
    """The residual above which the step does not pass."""
    unit: str
    """Unit of residual and limit."""
    says: tuple[str, ...]
    """Sentences for a person: what was found, what was refused and why. No patient data."""


@dataclass(frozen=True)
class IntensityResult(StepResult):
    """Stored pixel values to the grey levels the network was taught on (`calib/intensity_site.py`).

    The residual is how far the tables of two halves of the frames are apart.
    """

    bits_stored: int
    """Bits stored per sample that the table is for."""
    table: tuple[float, ...]
    """Grey level, 0 black to 1 white, at 256 stored values from 0 to the largest."""
    inverse: tuple[float, ...]
    """Stored value at 256 grey levels from 0 to 1."""
    percents: tuple[float, ...]
    """The percentiles inside the field that serve as landmarks, of the picture with vessels dark."""
    landmarks: tuple[float, ...]
    """Stored values at those percentiles."""
    reference: tuple[float, ...]
    """Grey levels that the landmarks were brought to."""
    reference_from: str
    """Where those come from: "model" (its card), or "fallback" where its card has none."""
    inverted: bool
    """Whether the table inverts: the lowest stored value is white."""
    polarity_said: str
    """What the source says: "MONOCHROME1", "MONOCHROME2" or "nothing"."""
    polarity_seen: str
    """What the frames show: "dark" where thin structures are darker than their surroundings, "bright", or "cannot tell"."""
    polarity_score: float
    """-1 to 1: how much more of the thin structures is dark (above 0) than bright."""
    response: str
    """The detector's response by its noise: "linear", "logarithmic" or "cannot tell"."""
    response_slope: float | None
    """d ln(noise variance) / d ln(stored value), which is 1 for quantum noise of a linear response; None where unknown."""
    clipped_low: float
    """Share of the field's pixels at the lowest stored value."""
    clipped_high: float
    """Share at the largest."""
    plateau_low: float | None
    """Stored value above 0 at which dark pixels pile up; None where they do not."""
    plateau_high: float | None
    """Stored value below the largest at which bright pixels pile up, as of a saturated detector."""
    filled_frames: tuple[int, ...]
    """Frames that look filled with contrast medium and were left out, counted from 0."""
    moved_frames: tuple[int, ...]
    """Frames left out because the table had moved since their run's first frame."""
    shift_percent: float
    """Largest global shift of a used frame against its run's first one, % of the picture's shorter side."""


@dataclass(frozen=True)
class Box:
    """Whole pixels from the left and top ones up to, without, the right and bottom ones."""

    left: int
    top: int
    right: int
    bottom: int


@dataclass(frozen=True)
class FieldCircle:
    """In pixels; (0, 0) is the outer corner of the first pixel, whose middle is at (0.5, 0.5)."""

    column: float
    row: float
    radius: float


@dataclass(frozen=True)
class PixelSpacing:
    """How large a pixel is."""

    row_mm: float
    """From one row's middle to the next one's."""
    column_mm: float
    at: str
    """Where it holds: "isocentre", "detector", or "calibrated object"."""
    source: str
    """What it follows from, in words."""
    magnification: float | None
    """How much larger the detector shows what lies at the isocentre; None where no distances are known."""
    uncertainty: float
    """Its relative standard uncertainty where it was measured; 0 where a header says it."""


@dataclass(frozen=True)
class GeometryResult(StepResult):
    """Where the X-rays came through, what is burned in, and how large a pixel is (`calib/geometry.py`).

    The field is what lies inside the corners and, where there is one, inside the circle too; its mask is made by
    `calib.field.field_mask`. The residual is how far its edges lie apart in the first and the last half of the frames.
    """

    rows: int
    columns: int
    shape: str
    """"whole" (no edge in the picture), "rectangle", "polygon", "circle" or "circle and blades"."""
    corners: tuple[tuple[float, float], ...]
    """(column, row) of the straight edges' corners in pixels, clockwise as seen, convex; the picture's own where there is
    no straight edge. (0, 0) is the outer corner of the first pixel."""
    circle: FieldCircle | None
    """The round edge, as of an image intensifier."""
    field_share: float
    """Share of the picture that is field, burned-in regions counted as field."""
    letterbox: Box
    """The part of the frame that holds picture at all; the whole frame where no bars are around it."""
    burned_in: tuple[Box, ...]
    """Regions that do not change over the frames: text and logos."""
    table_shift_px: float
    """How far the whole picture moved between the frames, as when the table does."""
    spacing: PixelSpacing | None
    """How large a pixel is; None where it is unknown."""
    spacing_says: tuple[str, ...] = ()
    """Those of the sentences that speak of it."""


@dataclass(frozen=True)
class LearnedChange:
    """What tells frames that were changed in one way from the site's own (`calib/domain_changes.py`)."""

    name: str
    """What was done to them: "inverted", or "zoomed", the middle enlarged three times."""
    weights: tuple[float, ...]
    """(frame - centre) / spread along the model's 71 axes times these is 0 on average of the site's frames; above 1 a frame
    counts as changed so."""


@dataclass(frozen=True)
class DomainResult(StepResult):
    """How unlike the site's frames a frame may be before nothing is drawn on it (`calib/domain_site.py`).

    The residual is the share of frames above the threshold in loops that had no part in it.
    """

    loops: int
    """Loops that the frames come from."""
    threshold: float
    """Score above which a frame is strange."""
    false_alarm_rate: float
    """Share of frames like the calibration's that is above the threshold, at most."""
    confidence: float
    """With which that holds, for independent frames."""
    strange: int
    """So many strange frames ..."""
    of: int
    """... of the last so many end the synthesis."""
    centre: tuple[float, ...]
    """Mean of the site's frames along the model's 71 axes, in taught standard deviations."""
    spread: tuple[float, ...]
    """Standard deviation of the site's frames along them."""
    shift: float
    """How far the centre is from the taught frames', in taught standard deviations (root mean square over the axes)."""
    score_percentiles: tuple[float, ...]
    """Percentiles 0 to 100 of the frames' scores, each by the other loops' centre and spread; for a picture of them."""
    caught_black: float
    """Share of black frames that count as strange, each loop by what the others taught; so are the next three."""
    caught_flat: float
    """Share of frames of one grey level."""
    caught_inverted: float
    """Share of the site's own frames, inverted."""
    caught_zoomed: float
    """Share of the site's own frames, their middle enlarged three times."""
    changes: tuple[LearnedChange, ...] = ()
    """Beside the distance: a frame is strange that counts as one of these, too. Empty in records of former versions."""


@dataclass(frozen=True)
class EngineDifference:
    """One engine against the fp32 reference, over all pixels of all frames. Levels are of 255 whatever the bits stored."""

    backend: str
    precision: str
    """What its convolutions are computed in."""
    passed: bool
    grey_mean: float
    grey_p99: float
    grey_max: float
    attention_mean: float
    attention_p99: float
    attention_max: float
    dice: float | None
    """Vessels drawn by the engine against those drawn by the reference; None where neither draws any."""
    truth_dice: float | None
    """Vessels drawn by the engine against the true ones; None without truth (the phantom's frames have one)."""
    reference_truth_dice: float | None
    """Vessels drawn by the reference against the true ones."""
    background_exact: bool
    """Where the engine's attention is 0, its picture is the live one bit for bit."""
    worst_frame: int
    """Which of the frames differs most, from 0."""
    median_ms: float | None
    """Median time of an inference, measured in turn with the other engines; None where it was not."""


@dataclass(frozen=True)
class PrecisionResult(StepResult):
    """How far an engine is from the fp32 reference on the site's own frames (`calib/precision.py`).

    The residual is the 99th percentile of the chosen engine's differences in grey levels of 255.
    """

    reference: str
    """What the engines were compared with."""
    chosen: str
    """The precision to run in: int8 where it was accepted, else what suits the machine, or f32 where that is not close enough."""
    engines: tuple[EngineDifference, ...]
    int8_frames_sha256: str
    """Hash of the frames that int8 was calibrated on, by which the engine finds its model; empty where it is not chosen."""


@dataclass(frozen=True)
class ClockResult(StepResult):
    """Offset and drift between two hosts' clocks (`calib/clock.py`).

    The residual is the offset's uncertainty, in ms. Where it does not pass, offset and drift are None: there is no number.
    """

    offset_ms: float | None
    """The publisher's clock minus this host's, at `reference_ns`."""
    uncertainty_ms: float
    """The true offset is no further away than this, if the clocks keep their rate and no packet travels back in time."""
    drift_ppm: float | None
    """How much faster the publisher's clock runs, in millionths."""
    drift_uncertainty_ppm: float
    reference_ns: int
    """This host's clock at the middle of the measurement."""
    span_s: float
    """From the first exchange to the last."""
    exchanges: int
    """Answered ones."""
    lost: int
    """Unanswered ones."""
    round_trip_min_ms: float
    round_trip_median_ms: float
    round_trip_max_ms: float


@dataclass(frozen=True)
class PhantomResult(StepResult):
    """What the digital phantom's own self-test found (`calib/phantom_test.py`).

    The residual is the largest of the three departures, each as a share of its own limit; the limit is 1.
    """

    noise_departure: float
    """Largest |measured variance / expected variance - 1| over the wedge's steps; Poisson's and the electronics' together."""
    noise_limit: float
    mtf50_per_px: float
    """Spatial frequency at which the slanted edge's MTF falls to one half, in cycles per pixel."""
    mtf50_expected_per_px: float
    """That of the blur that was asked for, as the phantom samples it at whole pixels."""
    mtf_departure: float
    """Largest difference between the measured and the expected MTF up to 0.5 cycles per pixel."""
    mtf_limit: float
    wedge_steps: int
    wedge_slope: float
    """-d ln(grey) / d(attenuation): 1 for a linear detector."""
    wedge_departure: float
    """Largest departure of a step's ln(grey) from the straight line, in natural logarithms."""
    wedge_limit: float
