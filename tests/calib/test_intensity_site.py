"""A site's own table: from phantom frames of known grey levels, from frames that cannot serve, and from real ones."""

import functools
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from calib.config import PhantomConfig
from calib.errors import CalibrationError
from calib.intensity import LANDMARK_GREYS, STEEPEST, matched_table
from calib.intensity_site import measure_intensity
from calib.phantom import Phantom
from calib.results import IntensityResult

REAL = Path(__file__).resolve().parents[2].parent / "shared" / "data"
REFERENCE = (
    (1.0, 0.341), (5.0, 0.377), (10.0, 0.398), (25.0, 0.437), (50.0, 0.499), (75.0, 0.585), (90.0, 0.643), (95.0, 0.671),
    (99.0, 0.717),
)  # fmt: skip
SIDE = 192
FRAMES = 8
LARGEST = 4095


@functools.cache
def patient(seed: int = 3, contrast: bool = False, first: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Eight 12-bit frames of a phantom patient and the field inside the blades."""
    phantom = Phantom(PhantomConfig(seed=seed, rows=SIDE, columns=SIDE, bits_stored=12))
    found = [phantom.frame(first + index) for index in range(FRAMES)]
    frames = np.stack([frame.angiogram if contrast else frame.plain for frame in found])
    frames.setflags(write=False)
    return frames, phantom.field > 0.99


@functools.cache
def measured(seed: int = 3) -> IntensityResult:
    frames, field = patient(seed)
    return measure_intensity(frames, field, 12, reference=REFERENCE)


def grey_of(found: IntensityResult, stored: np.ndarray) -> np.ndarray:
    largest = (1 << found.bits_stored) - 1
    return np.interp(stored, np.linspace(0.0, largest, 256), found.table)


def apart_percent(one: IntensityResult, other: IntensityResult) -> float:
    """Largest difference of two tables of the same stored values between the landmarks."""
    stored = np.linspace(min(one.landmarks), max(one.landmarks), 500)
    return 100.0 * float(np.abs(grey_of(one, stored) - grey_of(other, stored)).max())


def said(found: IntensityResult) -> str:
    return "\n".join(found.says)


# The table through landmarks


@st.composite
def landmarks_and_greys(draw: st.DrawFn) -> tuple[np.ndarray, tuple[float, ...], int]:
    bits = draw(st.integers(8, 16))
    count = draw(st.integers(2, 9))
    largest = (1 << bits) - 1
    shares = sorted(draw(st.lists(st.floats(0.0, 1.0), min_size=count, max_size=count)))
    shares[-1] = max(shares[-1], min(1.0, shares[0] + 0.05))
    if shares[-1] < shares[0] + 0.05:
        shares[0] = shares[-1] - 0.05
    steps = draw(st.lists(st.floats(0.005, 1.0), min_size=count - 1, max_size=count - 1))
    greys = 0.2 + 0.6 * np.concatenate([[0.0], np.cumsum(steps)]) / sum(steps)
    return np.maximum.accumulate(np.array(shares)) * largest, tuple(map(float, greys)), bits


@settings(deadline=None, max_examples=150)
@given(landmarks_and_greys(), st.booleans())
def test_a_table_through_any_landmarks_is_monotone_and_goes_back(
    given_: tuple[np.ndarray, tuple[float, ...], int], inverted: bool
) -> None:
    landmarks, greys, bits = given_
    table, inverse = matched_table(landmarks, greys, bits, inverted)
    largest = (1 << bits) - 1
    sign = -1.0 if inverted else 1.0
    assert (sign * np.diff(table) > 0.0).all()
    assert (sign * np.diff(inverse) >= 0.0).all()
    assert 0.0 <= table.min() < table.max() <= 1.0
    low, high = landmarks[0], landmarks[-1]
    inside = np.linspace(low, high, 200)
    stored = largest - inside if inverted else inside
    grey = np.interp(stored, np.linspace(0.0, largest, 256), table)
    back = np.interp(grey, np.linspace(0.0, 1.0, 256), inverse)
    # One knot of either table: 1/255 of the stored range, or of the grey levels where the table is flattest.
    flattest = (greys[-1] - greys[0]) / (high - low) / STEEPEST
    assert np.abs(back - stored).max() <= max(largest, 1.0 / flattest) / 255.0


def test_landmarks_get_their_grey_levels_where_slopes_are_ordinary() -> None:
    landmarks = np.array([900.0, 1100.0, 1500.0, 2100.0, 2400.0])
    greys = (0.34, 0.40, 0.50, 0.64, 0.72)
    table, _ = matched_table(landmarks, greys, 16)
    seen = np.interp(landmarks, np.linspace(0.0, 65535.0, 256), table)
    assert np.abs(seen - greys).max() < 0.08  # five landmarks within six knots of 257 stored values
    table, _ = matched_table(landmarks, greys, 12)
    np.testing.assert_allclose(np.interp(landmarks, np.linspace(0.0, 4095.0, 256), table), greys, atol=0.003)


def test_a_narrow_peak_of_the_histogram_is_not_stretched_without_end() -> None:
    landmarks = np.array([60.0, 100.0, 100.0, 101.0, 200.0])
    table, _ = matched_table(landmarks, (0.3, 0.4, 0.5, 0.6, 0.7), 8)
    mean = 0.4 / 140.0
    steps = np.diff(table[60:201])
    assert steps.max() <= 1.001 * STEEPEST * mean
    assert steps.min() >= 0.999 * mean / STEEPEST
    assert table[200] == pytest.approx(0.7, abs=1e-6)


@pytest.mark.parametrize(
    "landmarks",
    [[90.0, 80.0], [80.0, 80.0], [-1.0, 80.0], [80.0, 256.0], [80.0, float("nan")], [80.0]],
    ids=["falling", "equal", "below", "beyond", "nan", "one"],
)
def test_landmarks_that_no_table_goes_through_are_refused(landmarks: list[float]) -> None:
    with pytest.raises(ValueError, match="2 landmarks must rise within 0 to 255"):
        matched_table(np.array(landmarks), (0.3, 0.7), 8)


# A site


def test_frames_come_out_at_the_reference_grey_levels() -> None:
    frames, field = patient()
    found = measured()
    assert found.passed
    assert (found.frames, found.filled_frames, found.moved_frames) == (FRAMES, (), ())
    percents, expected = zip(*REFERENCE, strict=True)
    seen = np.median([np.percentile(grey_of(found, frame[field]), percents) for frame in frames], axis=0)
    np.testing.assert_allclose(seen, expected, atol=0.005)
    assert found.reference_from == "model"
    assert "unlike" not in said(found)


@pytest.mark.parametrize("seed", [0, 3])
def test_the_same_site_twice_gives_the_same_within_one_percent(seed: int) -> None:
    phantom = Phantom(PhantomConfig(seed=seed, rows=SIDE, columns=SIDE, bits_stored=12))
    # A loop later: the same breath and beat with new noise.
    frames, field = patient(seed, first=phantom.loop.frames)
    again = measure_intensity(frames, field, 12, reference=REFERENCE)
    assert not np.array_equal(frames, patient(seed)[0])
    assert apart_percent(measured(seed), again) < 1.0
    assert again.residual < 1.0


@settings(deadline=None, max_examples=8)
@given(
    gamma=st.floats(0.5, 2.0), gain=st.floats(0.3, 1.0), offset=st.floats(0.0, 0.3), inverted=st.booleans()
)
def test_another_detector_gives_the_same_grey_levels(
    gamma: float, gain: float, offset: float, inverted: bool
) -> None:
    frames, field = patient()
    level = gain * (1.0 - offset) * (frames / LARGEST) ** gamma + offset
    other = np.rint(LARGEST * (1.0 - level if inverted else level)).astype(np.uint16)
    found = measure_intensity(other, field, 12, reference=REFERENCE)
    assert found.inverted == inverted
    seen, expected = grey_of(found, other[0][field]), grey_of(measured(), frames[0][field])
    # Between landmarks a bent line is followed by straight ones.
    assert np.abs(seen - expected).mean() < 0.01


@settings(deadline=None, max_examples=6)
@given(st.integers(0, LARGEST), st.integers(0, 40), st.integers(0, 40))
def test_what_lies_outside_the_field_does_not_matter(blade: int, rows: int, columns: int) -> None:
    frames, field = patient()
    shut = np.where(field, frames, np.uint16(blade))
    boxed = np.pad(shut, ((0, 0), (rows, rows), (columns, columns)), constant_values=LARGEST - blade)
    framed = np.pad(field, ((rows, rows), (columns, columns)))
    found = measure_intensity(boxed, framed, 12, reference=REFERENCE)
    assert (found.table, found.inverse) == (measured().table, measured().inverse)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_blades_drawn_in_by_a_tenth_move_the_grey_levels_little(seed: int) -> None:
    frames, field = patient(seed)
    tight = np.zeros_like(field)
    tight[SIDE // 10 : -SIDE // 10, SIDE // 10 : -SIDE // 10] = True
    # Other anatomy is left, so it cannot be nothing: 0.8 to 3.8 % were measured.
    found = measure_intensity(frames, field & tight, 12, reference=REFERENCE)
    assert apart_percent(measured(seed), found) < 5.0


def test_without_a_reference_the_fallback_is_said() -> None:
    frames, field = patient()
    found = measure_intensity(frames, field, 12)
    assert (found.reference_from, found.reference) == ("fallback", LANDMARK_GREYS)
    assert "the model's card has no reference_greys" in said(found)


def test_a_histogram_unlike_the_taught_one_is_said() -> None:
    frames, field = patient()
    covered = frames.copy()
    covered[:, 60:120, 60:120] //= 8
    found = measure_intensity(covered, field, 12, reference=REFERENCE, looks_filled=[False] * FRAMES)
    assert "the histogram is unlike the taught frames': with no slope beyond 3 times the mean" in said(found)


def test_runs_weigh_the_same_however_long_they_are() -> None:
    (one, field), (two, other) = patient(0), patient(2)
    frames, fields = np.concatenate([one, two[:4]]), np.stack([field] * FRAMES + [other] * 4)
    found = measure_intensity(frames, fields, 12, reference=REFERENCE, runs=[0] * FRAMES + [7] * 4)
    single = measure_intensity(two[:4], other, 12, reference=REFERENCE)
    expected = (np.array(measured(0).landmarks) + np.array(single.landmarks)) / 2.0
    np.testing.assert_allclose(found.landmarks, expected)
    assert re.search(r"a single run's own table is up to \d+\.\d % of the grey levels", said(found))


# Polarity


@pytest.mark.parametrize(
    ("inverted", "source", "words"),
    [
        (False, None, "thin structures are dark .*, so the table does not invert"),
        (True, None, "thin structures are bright .*, so the table inverts"),
        (True, True, "thin structures are bright .*, as MONOCHROME1 says"),
        (True, False, "but the source says MONOCHROME2: the table follows the frames"),
        (False, True, "but the source says MONOCHROME1: the table follows the frames"),
    ],
)
def test_the_table_follows_what_is_seen_and_says_what_the_source_said(
    inverted: bool, source: bool | None, words: str
) -> None:
    frames, field = patient()
    frames = LARGEST - frames if inverted else frames
    found = measure_intensity(frames, field, 12, reference=REFERENCE, photometric_inverted=source)
    assert found.inverted == inverted
    assert re.search(words, said(found))
    assert found.table == (measured().table[::-1] if inverted else measured().table)


@pytest.mark.parametrize(("source", "inverted"), [(True, True), (False, False), (None, False)])
def test_where_nothing_thin_is_seen_the_source_is_believed(source: bool | None, inverted: bool) -> None:
    rng = np.random.default_rng(0)
    chest = cv2.resize(rng.uniform(60, 190, (4, 4)), (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)
    frames = np.rint(chest + rng.normal(0, 2, (6, SIDE, SIDE))).clip(0, 255).astype(np.uint8)
    found = measure_intensity(
        frames, np.ones((SIDE, SIDE), np.uint8), 8, reference=REFERENCE, photometric_inverted=source
    )
    assert (found.polarity_seen, found.inverted) == ("cannot tell", inverted)
    assert "thin structures do not tell the polarity" in said(found)


# Response, and what is cut off


def test_the_noise_tells_a_linear_from_a_logarithmic_response() -> None:
    frames, field = patient()
    assert measured().response == "linear"
    assert measured().response_slope == pytest.approx(1.0, abs=0.25)
    logarithm = np.rint(LARGEST * np.log1p(frames / LARGEST * 63.0) / np.log(64.0)).astype(np.uint16)
    assert measure_intensity(logarithm, field, 12, reference=REFERENCE).response == "logarithmic"
    assert measure_intensity(LARGEST - logarithm, field, 12, reference=REFERENCE).response == "logarithmic"
    root = np.rint(LARGEST * np.sqrt(frames / LARGEST)).astype(np.uint16)
    found = measure_intensity(root, field, 12, reference=REFERENCE)
    assert (found.response, found.response_slope) == ("cannot tell", pytest.approx(0.0, abs=0.6))
    still = np.repeat(frames[:1], FRAMES, axis=0)
    found = measure_intensity(still, field, 12, reference=REFERENCE)
    assert (found.response, found.response_slope) == ("cannot tell", None)
    assert "cannot be told from the noise" in said(found)


def test_what_is_cut_off_is_reported_and_too_much_of_it_does_not_pass() -> None:
    frames, field = patient()
    high = int(np.percentile(frames[:, field], 94.0))
    saturated = np.minimum(frames, np.uint16(high))
    found = measure_intensity(saturated, field, 12, reference=REFERENCE)
    assert (found.plateau_high, found.plateau_low, found.clipped_high) == (float(high), None, 0.0)
    assert f"values pile up at {high}" in said(found)
    assert found.passed
    stretched = np.minimum(frames.astype(float) * LARGEST / np.percentile(frames[:, field], 80.0), LARGEST)
    found = measure_intensity(stretched.astype(np.uint16), field, 12, reference=REFERENCE)
    assert found.clipped_high == pytest.approx(0.2, abs=0.01)
    assert not found.passed
    assert "% of the field is at 4095" in said(found)
    assert (measured().clipped_low, measured().clipped_high) == (0.0, 0.0)
    assert (measured().plateau_low, measured().plateau_high) == (None, None)


# Frames that cannot serve


def test_a_filled_run_is_left_out_beside_one_without_contrast() -> None:
    (plain, field), (filled, _) = patient(), patient(contrast=True)
    frames = np.concatenate([plain, filled])
    found = measure_intensity(frames, field, 12, reference=REFERENCE, runs=[0] * FRAMES + [1] * FRAMES)
    assert found.filled_frames == tuple(range(FRAMES, 2 * FRAMES))
    assert found.table == measured().table
    assert "8 frames look filled with contrast medium and were left out" in said(found)


def test_a_run_that_fills_serves_until_it_does() -> None:
    (plain, field), (filled, _) = patient(2), patient(2, contrast=True)
    still = np.repeat(plain[:1], 10, axis=0)
    found = measure_intensity(np.concatenate([still, filled]), field, 12, reference=REFERENCE)
    assert set(found.filled_frames) <= set(range(10, 18))
    assert len(found.filled_frames) >= 6
    assert found.frames == 7  # the last of them come too near to the first filled one


def test_only_filled_frames_are_refused_and_named() -> None:
    frames, field = patient(contrast=True)
    with pytest.raises(CalibrationError, match="got 0 of 8: all 8 frames look filled with contrast medium"):
        measure_intensity(frames, field, 12, reference=REFERENCE)
    # A person knows better.
    found = measure_intensity(frames, field, 12, reference=REFERENCE, looks_filled=[False] * FRAMES)
    assert (found.filled_frames, found.passed) == ((), True)


def test_a_table_that_moves_is_said_and_its_frames_left_out() -> None:
    frames, field = patient()
    moving = np.stack([np.roll(frame, 6 * index, axis=1) for index, frame in enumerate(frames)])
    inner = np.zeros_like(field)
    inner[30:-30, 60:-30] = True
    with pytest.raises(CalibrationError, match="were taken after the table had moved; hold the table still"):
        measure_intensity(moving, inner, 12, reference=REFERENCE, looks_filled=[False] * FRAMES)
    at_last = np.concatenate([frames[:6], np.roll(frames[6:], 20, axis=1)])
    found = measure_intensity(at_last, inner, 12, reference=REFERENCE, looks_filled=[False] * FRAMES)
    assert found.moved_frames == (6, 7)
    assert "the table moved: 2 frames are shifted by more than 5 % of the picture" in said(found)


def test_halves_that_disagree_do_not_pass() -> None:
    frames, field = patient()
    flickering = frames.copy()
    flickering[1::2] = (flickering[1::2] * 0.9).astype(np.uint16)
    found = measure_intensity(flickering, field, 12, reference=REFERENCE, looks_filled=[False] * FRAMES)
    assert not found.passed
    assert found.residual > 5.0
    assert "two halves of the frames give grey levels" in said(found)


def test_frames_that_show_nothing_are_refused() -> None:
    frames, field = patient()
    constant = frames.copy()
    constant[2] = 700
    with pytest.raises(CalibrationError, match=r"differ by less than 8 all over 1 of 8 frames \(2\)"):
        measure_intensity(constant, field, 12, reference=REFERENCE)
    white = np.full_like(frames, LARGEST)
    with pytest.raises(CalibrationError, match="between 0 and 4095, but is at one of them in all 8 frames"):
        measure_intensity(white, field, 12, reference=REFERENCE)
    with pytest.raises(CalibrationError, match="need 4 frames or more, got 3; record a longer loop"):
        measure_intensity(frames[:3], field, 12, reference=REFERENCE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frames": np.zeros((8, 64, 64), np.uint8)}, r"must be \(n, rows, columns\) uint16 for 12 bits"),
        ({"frames": np.zeros((8, 64, 64, 3), np.uint16)}, r"got \(8, 64, 64, 3\) uint16; convert"),
        ({"frames": np.zeros((8, 32, 64), np.uint16)}, r"64 x 64 pixels or above, got \(32, 64\)"),
        ({"frames": np.full((8, SIDE, SIDE), 5000, np.uint16)}, "12 bits hold values to 4095, got 5000"),
        ({"field": np.ones((8, 8), bool)}, r"field must be \(192, 192\) as the frames are"),
        ({"field": np.zeros((SIDE, SIDE), bool)}, "field must have pixels inside, got none"),
        ({"bits_stored": 7}, "bits_stored must be 8 to 16, got 7"),
        ({"runs": [0, 1]}, "runs must name each of 8 frames, got 2"),
        ({"looks_filled": [True]}, "looks_filled must name each of 8 frames, got 1"),
        ({"reference": [(1.0, 0.5), (99.0, 0.4)]}, "two or more rising percentiles"),
    ],
    ids=["dtype", "colour", "small", "bits", "field shape", "empty field", "bits stored", "runs", "filled", "reference"],
)  # fmt: skip
def test_arguments_that_do_not_fit_are_refused(change: dict[str, object], message: str) -> None:
    frames, field = patient()
    arguments: dict[str, object] = {
        "frames": frames,
        "field": field,
        "bits_stored": 12,
        "reference": REFERENCE,
    }
    with pytest.raises(ValueError, match=message):
        measure_intensity(**{**arguments, **change})  # type: ignore[arg-type]


# Real frames


@functools.cache
def real_run(place: str) -> np.ndarray:
    files = sorted((REAL / "angiodata_cine" / place / "frames").glob("*.jpg"))
    if not files:
        pytest.skip(f"no real X-ray data at {REAL}")
    return np.stack([cv2.imread(str(file), cv2.IMREAD_GRAYSCALE) for file in files])


def inner_field(frames: np.ndarray) -> np.ndarray:
    """Well inside any blade."""
    field = np.zeros(frames.shape[1:], bool)
    field[70:-70, 70:-70] = True
    return field


@pytest.mark.real
@pytest.mark.parametrize("inverted", [False, True], ids=["as it is", "inverted"])
@pytest.mark.parametrize("place", ["Patient_2/Coro_1", "Patient_5/Coro_1"])
def test_a_real_run_gives_a_table_of_the_right_polarity_from_its_first_frames(
    place: str, inverted: bool
) -> None:
    frames = real_run(place)
    frames = 255 - frames if inverted else frames
    found = measure_intensity(frames, inner_field(frames), 8, reference=REFERENCE)
    assert found.inverted == inverted
    assert found.polarity_seen == ("bright" if inverted else "dark")
    assert found.filled_frames
    assert min(found.filled_frames) > 4
    assert found.frames >= 4
    assert found.residual < 2.0


@pytest.mark.real
def test_real_frames_that_are_filled_throughout_are_refused() -> None:
    pydicom = pytest.importorskip("pydicom")
    path = REAL / "xa_phantom_cine" / "IM5.dcm"
    if not path.is_file():
        pytest.skip(f"no real X-ray data at {REAL}")
    frames = pydicom.dcmread(path).pixel_array
    with pytest.raises(CalibrationError, match="all 16 frames look filled with contrast medium"):
        measure_intensity(frames, inner_field(frames), 8, reference=REFERENCE)
    found = measure_intensity(
        frames, inner_field(frames), 8, reference=REFERENCE, looks_filled=[False] * len(frames)
    )
    assert (found.polarity_seen, found.passed, found.shift_percent < 0.2) == ("dark", True, True)
