"""Distances, thresholds with their confidence, and a site's own frames; the features are made here, without a network."""

import dataclasses
import math
from collections.abc import Callable

import numpy as np
import pytest
from jaxtyping import Float32

from calib.domain import (
    FEATURES,
    LATENT,
    Domain,
    TaughtDomain,
    described,
    frames_needed,
    measure_axes,
    mixtures,
    threshold_at,
)
from calib.domain_changes import PlacedFrames, centre_and_spread, learned_changes
from calib.domain_site import (
    changed_frames,
    held_out_scores,
    learned_domain,
    measure_domain,
    site_domain,
    unseen_loops,
)
from calib.errors import DomainError
from calib.record_text import from_plain, to_plain
from calib.results import DomainResult

FIRST_SIGNS = [-1, 1, -1, -1, 1, -1, -1, 1]
MIXING = np.random.default_rng(1).normal(size=(LATENT, LATENT)).astype(np.float32)


def made(count: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Float32[np.ndarray, "n 71"]:
    """Features of frames as a network might tell them: correlated, the picture's in their ranges."""
    rng = np.random.default_rng(seed)
    latent = (rng.normal(size=(count, LATENT)) * scale + shift) @ MIXING
    mean = rng.normal(0.0, 0.05, (count, 1))
    steps = np.exp(rng.normal(-4.0, 0.1, (count, 3)))
    shares = np.zeros((count, 2))
    picture = np.concatenate([mean, mean**2 + 0.05, steps, shares], axis=1)
    return np.concatenate([latent, picture], axis=1).astype(np.float32)


@pytest.fixture(scope="module")
def taught() -> TaughtDomain:
    return measure_axes(made(4000, 0))


def test_frames_like_the_taught_ones_score_near_one_and_others_higher(taught: TaughtDomain) -> None:
    domain = Domain.of_model(taught)
    like = domain.scores(made(500, 2))
    assert np.median(like) == pytest.approx(1.0, abs=0.1)
    assert domain.scores(made(500, 3, shift=2.0)).min() > like.max()
    assert domain.scores(made(500, 4, scale=3.0)).min() > np.median(like)


def test_a_shift_along_an_axis_that_hardly_varies_counts_most(taught: TaughtDomain) -> None:
    features = made(1, 5)
    weak = np.linalg.svd(MIXING)[2][-1]  # the direction in which the latent varies least
    strong = np.linalg.svd(MIXING)[2][0]
    scores = []
    for direction in (weak, strong):
        moved = features.copy()
        moved[0, :LATENT] += 20.0 * direction
        scores.append(Domain.of_model(taught).score(moved[0]))
    assert scores[0] > 2.0 * scores[1]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_feature_that_is_not_finite_is_infinitely_strange(taught: TaughtDomain, value: float) -> None:
    features = made(1, 6)
    features[0, 3] = value
    assert Domain.of_model(taught).score(features[0]) == math.inf


def test_features_of_nothing_are_strange_but_a_number(taught: TaughtDomain) -> None:
    score = Domain.of_model(taught).score(np.zeros(FEATURES, np.float32))
    assert math.isfinite(score)
    assert score > 2.0


def test_a_card_keeps_the_statistics(taught: TaughtDomain) -> None:
    whole = dataclasses.replace(taught, threshold=1.5, false_alarm_rate=0.01, facts={"patients": 4})
    again = TaughtDomain.of_card(whole.card())
    assert (again.threshold, again.false_alarm_rate, again.facts) == (1.5, 0.01, {"patients": 4})
    features = made(50, 7)
    np.testing.assert_allclose(
        Domain.of_model(again).scores(features), Domain.of_model(whole).scores(features), rtol=1e-4
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"centre": "AAAA"}, "ValueError"),
        ({"whitening": "not base64!"}, "got: "),
        ({"threshold": None}, "TypeError"),
        ({"threshold": "high"}, "ValueError"),
    ],
)
def test_a_broken_card_is_refused(taught: TaughtDomain, change: dict[str, object], reason: str) -> None:
    with pytest.raises(DomainError, match=reason):
        TaughtDomain.of_card({**taught.card(), **change})
    with pytest.raises(DomainError, match="KeyError 'centre'"):
        TaughtDomain.of_card({"threshold": 1.0})


def test_too_few_taught_frames_are_refused() -> None:
    with pytest.raises(DomainError, match="needed 284 taught frames for 71 features, got 283"):
        measure_axes(made(283, 0))
    broken = made(300, 0)
    broken[7, 7] = np.nan
    with pytest.raises(DomainError, match="finite features of every taught frame"):
        measure_axes(broken)


def test_mixtures_are_the_same_on_every_machine() -> None:
    found = mixtures(96)
    assert found.shape == (64, 192)
    assert set(np.unique(found)) == {-np.float32(1 / math.sqrt(192)), np.float32(1 / math.sqrt(192))}
    # The first bits of SHAKE-256("contrastream domain 96"); another mixture would silently spoil every card.
    assert [int(sign) for sign in np.sign(found[0, :8])] == FIRST_SIGNS


def test_distances_between_frames_outlive_the_mixtures() -> None:
    channels = np.random.default_rng(0).normal(size=(30, 192))
    mixed = channels @ mixtures(96).T.astype(np.float64)

    def distances(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points[None], axis=2)[np.triu_indices(len(points), 1)]

    ratio = distances(mixed) / distances(channels) / math.sqrt(64 / 192)
    assert 0.6 < ratio.min() < ratio.max() < 1.4


def test_described_features_do_not_change_what_they_are_given() -> None:
    features = made(3, 8)
    before = features.copy()
    described(features)
    np.testing.assert_array_equal(features, before)


# Thresholds -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "confidence", "frames"), [(0.05, 0.95, 59), (0.01, 0.95, 299), (0.01, 0.99, 459), (0.1, 0.9, 22)]
)
def test_as_many_frames_are_needed_as_tables_of_tolerance_limits_say(
    rate: float, confidence: float, frames: int
) -> None:
    assert frames_needed(rate, confidence) == frames
    scores = np.random.default_rng(0).random(frames)
    assert threshold_at(scores, rate, confidence) == scores.max()
    with pytest.raises(DomainError, match=f"needs {frames} frames or more, got {frames - 1}"):
        threshold_at(scores[1:], rate, confidence)


def test_the_rank_is_the_one_that_tables_of_tolerance_limits_give() -> None:
    # 95 % content at 95 % confidence: 93 observations are the fewest whose second largest will do, 124 for the third.
    for count, back in ((92, 1), (93, 2), (123, 2), (124, 3)):
        scores = np.arange(count, dtype=np.float64)
        assert threshold_at(scores, 0.05) == count - back


def test_the_rate_is_kept_as_often_as_is_said() -> None:
    rng = np.random.default_rng(2)
    kept = [
        1.0 - threshold_at(rng.random(200), 0.05) <= 0.05 for _ in range(400)
    ]  # of uniform scores, 1 - threshold is the rate
    assert 0.92 <= np.mean(kept) <= 1.0


@pytest.mark.parametrize(("rate", "confidence"), [(0.0, 0.95), (1.0, 0.95), (0.05, 1.0), (0.05, 0.0)])
def test_a_rate_that_is_no_share_is_refused(rate: float, confidence: float) -> None:
    with pytest.raises(ValueError, match="must be above 0 and below 1"):
        threshold_at(np.ones(1000), rate, confidence)


def test_scores_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DomainError, match="finite scores"):
        threshold_at(np.array([1.0] * 100 + [np.inf]), 0.05)


# A site ---------------------------------------------------------------------------------------------------------

Frames = list[tuple[str, np.ndarray]]


def site_frames(loops: int = 6, each: int = 20, seed: int = 0) -> Frames:
    """Frames whose pixels say which features they have: the site's are shifted from the taught ones."""
    rng = np.random.default_rng(seed)
    return [
        (f"loop {loop}", rng.integers(90, 110, (64, 64)).astype(np.uint8))
        for loop in range(loops)
        for _ in range(each)
    ]


def engine_of(shift: float = 1.5) -> Callable[[np.ndarray], Float32[np.ndarray, "71"]]:
    """Features that follow from a frame alone: noise by its bytes, further away the less its mean is 100 and the smoother it
    is, as an enlarged one is."""

    def features(frame: np.ndarray) -> Float32[np.ndarray, "71"]:
        seed = int.from_bytes(frame.tobytes()[:8], "little")
        away = abs(float(frame.mean()) - 100.0) / 10.0 + (3.0 if frame.std() < 1.0 else 0.0)
        away += 2.0 if float(np.abs(np.diff(frame.astype(np.float64))).mean()) < 5.0 else 0.0
        return made(1, seed, shift + away, 0.7)[0]

    return features


def test_a_site_is_judged_by_its_own_centre_and_spread(taught: TaughtDomain) -> None:
    result = measure_domain(site_frames(), engine_of(), taught, max_value=255)
    assert result.passed, result.says
    assert (result.frames, result.loops, result.false_alarm_rate) == (120, 6, 0.05)
    assert result.shift > 1.0
    assert "What it draws on them was never taught" in result.says[0]
    domain = site_domain(taught, result)
    assert domain.rule == {
        "threshold": result.threshold,
        "false_alarm_rate": 0.05,
        "strange": 3,
        "of": 10,
        "origin": "site",
    }
    features = engine_of()
    fresh = [domain.score(features(frame)) for _, frame in site_frames(seed=9)]
    assert np.mean(np.array(fresh) > result.threshold) < 0.1
    # By the model alone every one of the site's frames would be strange.
    alone = Domain.of_model(taught).scores(np.stack([features(frame) for _, frame in site_frames(seed=9)]))
    assert alone.min() > np.median(Domain.of_model(taught).scores(made(300, 11)))
    assert (result.caught_black, result.caught_flat) == (1.0, 1.0)
    assert (result.caught_inverted, result.caught_zoomed) == (1.0, 1.0)


def test_loops_that_are_unlike_each_other_do_not_pass(taught: TaughtDomain) -> None:
    frames = [
        (loop, (frame + np.uint8(30 * (index // 20))).astype(np.uint8))
        for index, (loop, frame) in enumerate(site_frames(4, 20))
    ]
    result = measure_domain(frames, engine_of(), taught, max_value=255)
    assert not result.passed
    assert any("the loops are too unlike each other for one threshold" in said for said in result.says)


def test_what_is_not_caught_is_named(taught: TaughtDomain) -> None:
    def blind(frame: np.ndarray) -> Float32[np.ndarray, "71"]:
        return made(1, int.from_bytes(frame.tobytes()[:8], "little"))[0]

    result = measure_domain(site_frames(), blind, taught, max_value=255)
    assert not result.passed
    assert any("Frames that must be caught are not" in said and "inverted" in said for said in result.says)


@pytest.mark.parametrize(
    ("loops", "each", "reason"),
    [
        (6, 9, "needs 59 frames or more, got 54; give more loops"),
        (2, 40, "needed frames of 3 loops or more"),
        (0, 0, "needs 59 frames or more, got 0"),
    ],
)
def test_too_few_frames_or_loops_are_refused(
    taught: TaughtDomain, loops: int, each: int, reason: str
) -> None:
    with pytest.raises(DomainError, match=reason):
        measure_domain(site_frames(loops, each), engine_of(), taught, max_value=255)


def test_an_engine_that_tells_nothing_is_refused(taught: TaughtDomain) -> None:
    def broken(frame: np.ndarray) -> Float32[np.ndarray, "71"]:
        return np.full(FEATURES, np.nan, np.float32)

    with pytest.raises(DomainError, match="engine can tell features of"):
        measure_domain(site_frames(), broken, taught, max_value=255)


@pytest.mark.parametrize(
    ("centre", "spread", "threshold"),
    [
        ((0.0,) * 70, (1.0,) * 71, 1.0),
        ((0.0,) * 71, (1.0,) * 70 + (0.0,), 1.0),
        ((math.nan,) * 71, (1.0,) * 71, 1.0),
        ((0.0,) * 71, (1.0,) * 71, 0.0),
    ],
)
def test_a_record_edited_by_hand_is_refused(
    taught: TaughtDomain, centre: tuple[float, ...], spread: tuple[float, ...], threshold: float
) -> None:
    with pytest.raises(DomainError, match="the site's domain"):
        Domain.of_site(taught, centre, spread, threshold, 0.05)


def test_a_learned_change_edited_by_hand_is_refused(taught: TaughtDomain) -> None:
    with pytest.raises(
        DomainError, match="the site's domain change must be 71 finite numbers, got \\(70,\\)"
    ):
        Domain.of_site(taught, (0.0,) * 71, (1.0,) * 71, 1.0, 0.05, changes=[(0.0,) * 70])


def test_a_record_without_learned_changes_is_read_as_one_that_judges_by_the_distance_alone(
    taught: TaughtDomain,
) -> None:
    result = measure_domain(site_frames(), engine_of(), taught, max_value=255)
    assert [change.name for change in result.changes] == ["inverted", "zoomed"]
    former = to_plain(result)
    del former["changes"]
    domain = site_domain(taught, from_plain(DomainResult, former))
    assert len(domain.changes) == 0
    assert len(site_domain(taught, from_plain(DomainResult, to_plain(result))).changes) == 2


def test_changed_frames_are_of_the_same_kind() -> None:
    frame = np.random.default_rng(0).integers(0, 1024, (64, 96)).astype(np.uint16)
    changed = dict(changed_frames(frame, 1023))
    assert list(changed) == ["black", "flat", "inverted", "zoomed"]
    assert all(each.shape == frame.shape and each.dtype == frame.dtype for each in changed.values())
    np.testing.assert_array_equal(changed["inverted"], 1023 - frame)
    assert changed["flat"].std() == 0.0


def test_a_loop_has_no_part_in_its_own_held_out_score() -> None:
    placed = np.random.default_rng(0).normal(size=(60, FEATURES))
    labels = np.repeat(["a", "b", "c"], 20)
    before = held_out_scores(placed, labels)
    placed[labels == "b"] += 5.0
    after = held_out_scores(placed, labels)
    assert after[labels == "b"].min() > before.max()
    frames = PlacedFrames(placed, labels, {}, labels[:0])
    assert unseen_loops(measure_axes(made(300, 0)), frames, 0.05)[0] > 0.3


def varied(seed: int = 0, loops: int = 5, each: int = 20) -> PlacedFrames:
    """Loops of which one lies far from the others along an axis, and frames changed by little, always to the same side."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=(loops * each, FEATURES))
    labels = np.repeat([f"loop {loop}" for loop in range(loops)], each)
    own[labels == "loop 0", 0] += 25.0
    change = np.zeros(FEATURES)
    change[1:6] = 3.0
    return PlacedFrames(
        own, labels, {"inverted": own + change, "zoomed": own - change, "flat": own[::-1].copy()}, labels
    )


def test_a_small_change_to_one_side_is_caught_where_the_distance_has_to_cover_a_strange_loop(
    taught: TaughtDomain,
) -> None:
    frames = varied()
    domain = learned_domain(taught, frames, 0.05)
    assert len(domain.changes) == 2
    fresh = varied(seed=1)
    calm = fresh.labels != "loop 0"
    alone = dataclasses.replace(domain, changes=np.zeros((0, FEATURES)))
    for name in ("inverted", "zoomed"):
        changed = fresh.changed[name][calm]
        assert np.mean(alone.scores_at(changed) > domain.threshold) < 0.1
        assert np.mean(domain.scores_at(changed) > domain.threshold) > 0.95
    assert np.mean(domain.scores_at(fresh.own[calm]) > domain.threshold) <= domain.false_alarm_rate


def test_no_frame_of_a_loop_that_was_left_out_crosses_the_bound_of_a_change() -> None:
    frames = varied()
    for name, weights in learned_changes(frames).items():
        centre, spread = centre_and_spread(frames.own)
        own = (frames.own - centre) / spread @ weights
        assert own.mean() == pytest.approx(0.0, abs=1e-9)
        assert own.max() < 1.0
        assert np.mean((frames.changed[name] - centre) / spread @ weights) > 1.0


def test_a_change_that_shows_in_nothing_is_not_learned() -> None:
    frames = varied()
    still = dataclasses.replace(frames, changed={"inverted": frames.own, "zoomed": frames.own[::-1].copy()})
    assert learned_changes(still) == {}
    rng = np.random.default_rng(5)
    noise = dataclasses.replace(frames, changed={"inverted": rng.normal(size=frames.own.shape)})
    assert learned_changes(noise) == {}


def test_frames_that_are_all_alike_still_have_a_direction() -> None:
    labels = np.repeat(["a", "b", "c"], 20)
    own = np.zeros((60, FEATURES))
    found = learned_changes(PlacedFrames(own, labels, {"inverted": own + 1.0}, labels))
    assert np.isfinite(found["inverted"]).all()
