"""What is measured between two engines, the limits, and who may run in int8; no runtime is involved."""

from collections.abc import Callable

import numpy as np
import pytest

from calib.errors import CalibrationError
from calib.precision import (
    DRAWN_LEVEL,
    LIMITS,
    MIN_FRAMES,
    Candidate,
    Differences,
    Draw,
    beyond,
    measure_precision,
)

SHAPE = (64, 80)
BAR = np.zeros(SHAPE, bool)
BAR[20:40, 10:70] = True


def frames(count: int = MIN_FRAMES, bits_stored: int = 8) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    largest = (1 << bits_stored) - 1
    dtype = np.uint8 if bits_stored == 8 else np.uint16
    return [rng.integers(largest // 3, 2 * largest // 3, SHAPE).astype(dtype) for _ in range(count)]


def drawing(darker: int = 30, mask: np.ndarray = BAR, spoil: bool = False) -> Draw:
    """A pretended engine: a dark bar where `mask` is."""

    def draw(live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        synthetic = live.copy()
        synthetic[mask] -= np.asarray(darker, live.dtype)
        if spoil:
            synthetic[0, 0] += 1
        return synthetic, np.where(mask, 200, 0).astype(np.uint8)

    return draw


REFERENCE = Candidate("torch", "f32", drawing())


def test_percentiles_are_those_of_numpy_over_all_pixels_of_all_frames() -> None:
    rng = np.random.default_rng(1)
    differences = Differences(12)
    apart, levels = [], []
    for live in frames(5, 12):
        planes = [
            (rng.integers(0, 4096, SHAPE).astype(np.uint16), rng.integers(0, 256, SHAPE).astype(np.uint8))
        ]
        planes.append(
            (rng.integers(0, 4096, SHAPE).astype(np.uint16), rng.integers(0, 256, SHAPE).astype(np.uint8))
        )
        differences.add(live, planes[0], planes[1])
        apart.append(np.abs(planes[0][0].astype(int) - planes[1][0]))
        levels.append(np.abs(planes[0][1].astype(int) - planes[1][1]))
    for got, expected, scale in (
        (differences.grey, np.stack(apart), 255 / 4095),
        (differences.attention, np.stack(levels), 1.0),
    ):
        p99 = np.percentile(expected, 99, method="inverted_cdf")
        assert got == pytest.approx((expected.mean() * scale, p99 * scale, expected.max() * scale))


def test_the_worst_frame_is_kept_with_its_place() -> None:
    differences = Differences(8)
    for index, live in enumerate(frames(4)):
        differences.add(live, drawing(30 + (9 if index == 2 else index))(live), drawing()(live))
    worst = differences.worst
    assert worst is not None
    assert (worst.index, worst.largest) == (2, 9.0)
    np.testing.assert_array_equal(worst.expected != worst.drawn, BAR)


def test_vessels_are_counted_over_all_frames_together() -> None:
    half = BAR.copy()
    half[:, 40:] = False
    differences = Differences(8)
    for live in frames(3):
        differences.add(live, drawing(mask=half)(live), drawing()(live), truth=BAR)
    found = differences.result(Candidate("pretended", "int8", drawing()))
    assert found.dice == pytest.approx(2 * half.sum() / (half.sum() + BAR.sum()))
    assert found.truth_dice == found.dice
    assert found.reference_truth_dice == 1.0
    assert not found.passed


def test_a_vessel_is_drawn_where_the_vessel_metrics_say_so() -> None:
    pytest.importorskip("skimage")
    from casgan.vessel_metrics import DRAWN

    assert DRAWN_LEVEL / 255 < DRAWN + 1e-9 < (DRAWN_LEVEL + 1) / 255


@pytest.mark.parametrize("bits_stored", [8, 12, 16])
def test_an_engine_that_draws_what_the_reference_draws_passes(bits_stored: int) -> None:
    result, worst = measure_precision(
        frames(bits_stored=bits_stored), bits_stored, REFERENCE, [Candidate("openvino", "f32", drawing())]
    )
    assert result.passed
    assert (result.residual, result.chosen, result.frames) == (0.0, "f32", MIN_FRAMES)
    assert set(worst) == {"openvino f32"}


@pytest.mark.parametrize(
    ("draw", "phrase"),
    [
        pytest.param(drawing(33), r"p99 3 grey levels of 255, 2 allowed", id="grey levels"),
        pytest.param(
            drawing(mask=np.roll(BAR, 4, axis=0)), "vessel Dice 0.8000 against the reference", id="moved"
        ),
        pytest.param(drawing(spoil=True), "changed where nothing is drawn", id="background"),
    ],
)
def test_int8_beyond_a_limit_is_refused_and_the_other_stays(draw: Draw, phrase: str) -> None:
    slow = slowed(drawing())
    result, _ = measure_precision(
        frames(),
        8,
        REFERENCE,
        [Candidate("openvino", "bf16", slow), Candidate("openvino", "int8", draw)],
        int8_frames_sha256="ab" * 32,
    )
    assert (result.chosen, result.int8_frames_sha256) == ("bf16", "")
    (said,) = [said for said in result.says if said.startswith("int8 is refused and bf16 stays")]
    assert phrase in said
    assert result.passed
    assert [each.passed for each in result.engines] == [True, False]


def slowed(draw: Draw) -> Draw:
    """Takes at least some milliseconds, by computing."""

    def slow(live: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        for _ in range(40):
            np.sort(live, axis=None)
        return draw(live)

    return slow


def chosen_of(bf16: Draw, int8: Draw, **more: object) -> tuple[str, str]:
    candidates = [Candidate("openvino", "bf16", bf16), Candidate("openvino", "int8", int8)]
    result, _ = measure_precision(
        frames(),
        8,
        REFERENCE,
        candidates,
        int8_frames_sha256="ab" * 32,
        **more,  # type: ignore[arg-type]
    )
    return result.chosen, " ".join(result.says)


def test_int8_that_holds_every_limit_and_is_faster_is_taken() -> None:
    chosen, said = chosen_of(slowed(drawing()), drawing())
    assert chosen == "int8"
    assert "int8 is accepted in place of bf16" in said


def test_int8_that_is_no_faster_is_refused() -> None:
    chosen, said = chosen_of(drawing(), slowed(drawing()))
    assert chosen == "bf16"
    assert "times as long as bf16, so nothing is won" in said


def test_int8_cannot_be_judged_where_no_vessel_is_drawn() -> None:
    nothing = drawing(0, np.zeros(SHAPE, bool))
    result, _ = measure_precision(
        frames(),
        8,
        Candidate("torch", "f32", nothing),
        [Candidate("openvino", "bf16", slowed(nothing)), Candidate("openvino", "int8", nothing)],
    )
    assert result.chosen == "bf16"
    assert "so it cannot be judged" in " ".join(result.says)


def test_f32_takes_the_place_of_a_precision_that_is_not_close_enough() -> None:
    moved = drawing(mask=np.roll(BAR, 4, axis=0))
    bf16, full = Candidate("openvino", "bf16", moved), Candidate("openvino", "f32", drawing())
    result, _ = measure_precision(frames(), 8, REFERENCE, [bf16, full])
    assert (result.passed, result.chosen, result.residual, result.limit) == (True, "f32", 0.0, 1.0)
    assert "bf16 is refused and f32 is run in its place: " in " ".join(result.says)
    for others in (
        [Candidate("openvino", "f32", moved)],
        [Candidate("onnxruntime", "f32", drawing())],  # a backend that was asked for is never left
    ):
        result, _ = measure_precision(frames(), 8, REFERENCE, [bf16, *others])
        assert (result.passed, result.chosen) == (False, "bf16")


def test_int8_of_another_backend_than_the_first_is_not_chosen() -> None:
    result, _ = measure_precision(
        frames(),
        8,
        REFERENCE,
        [Candidate("tensorrt", "f16", slowed(drawing())), Candidate("openvino", "int8", drawing())],
    )
    assert result.chosen == "f16"


def test_a_loss_against_the_truth_is_refused_although_the_engines_agree() -> None:
    # The reference finds all of a thin truth that the engine misses, and the rest of the picture hides it.
    thin = np.zeros(SHAPE, bool)
    thin[50:52, 30:60] = True
    both = BAR | thin
    differences = Differences(8)
    for live in frames(2):
        differences.add(live, drawing(mask=BAR)(live), drawing(mask=both)(live), truth=thin)
    found = differences.result(Candidate("openvino", "int8", drawing()))
    assert found.dice is not None
    assert found.dice > LIMITS["int8"].dice
    assert any("against the truth falls by" in phrase for phrase in beyond(found))


@pytest.mark.parametrize(
    ("call", "error", "sentence"),
    [
        pytest.param(
            lambda: measure_precision(frames(3), 8, REFERENCE, [REFERENCE]),
            CalibrationError,
            f"at least {MIN_FRAMES} frames to judge an engine on, got 3",
            id="too few frames",
        ),
        pytest.param(
            lambda: measure_precision(frames(), 8, REFERENCE, []),
            ValueError,
            "got 0 engines",
            id="no engine",
        ),
        pytest.param(
            lambda: measure_precision(frames(), 8, REFERENCE, [REFERENCE], truths=[BAR]),
            ValueError,
            f"{MIN_FRAMES} frames and 1 truths",
            id="too few truths",
        ),
        pytest.param(
            lambda: measure_precision(frames(), 8, REFERENCE, [Candidate("a", "f8", drawing())]),
            ValueError,
            "limits are known for f32, f16, bf16, int8, got the precision 'f8'",
            id="unknown precision",
        ),
        pytest.param(
            lambda: Differences(8).result(REFERENCE),
            ValueError,
            "at least one frame, got none",
            id="no frame",
        ),
    ],
)
def test_bad_input_is_a_sentence(call: Callable[[], object], error: type[Exception], sentence: str) -> None:
    with pytest.raises(error, match=sentence):
        call()
