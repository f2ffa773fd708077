from dataclasses import replace

import cv2
import numpy as np
import pytest

from calib.config import PhantomConfig
from calib.phantom import Loop, Phantom, training_pairs
from calib.phantom_coronary import CoronaryTree, grow_tree
from calib.phantom_heart import contraction, silhouette
from calib.phantom_patient import choose_view, draw_patient, pose_at
from calib.phantom_view import View

SMALL = PhantomConfig(rows=192, columns=192)


def grown(mask: np.ndarray, reach: int) -> np.ndarray:
    """`mask` and everything within `reach` pixels, rows and columns apart."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > 0


def beyond_vessels(phantom: Phantom, mask: np.ndarray) -> np.ndarray:
    """Where neither a vessel nor its blur comes: a pixel for the part of a vessel that is under the mask's threshold."""
    return ~grown(mask, phantom.blur_reach_px + 2)


def largest_piece(mask: np.ndarray) -> int:
    _count, _labels, statistics, _centres = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    return int(statistics[1:, cv2.CC_STAT_AREA].max(initial=0))


def test_the_same_seed_gives_the_same_frame() -> None:
    one, other = Phantom(replace(SMALL, seed=5)).frame(9), Phantom(replace(SMALL, seed=5)).frame(9)
    assert np.array_equal(one.plain, other.plain)
    assert np.array_equal(one.angiogram, other.angiogram)
    assert np.array_equal(one.mask, other.mask)


def test_a_frame_does_not_depend_on_those_asked_for_before() -> None:
    phantom = Phantom(SMALL)
    phantom.frame(3)
    assert np.array_equal(phantom.frame(9).live, Phantom(SMALL).frame(9).live)


def test_other_seeds_are_other_patients() -> None:
    one, other = (Phantom(replace(SMALL, seed=seed)) for seed in (1, 2))
    assert one.patient != other.patient
    assert (one.frame(0).mask != other.frame(0).mask).mean() > 0.01


@pytest.mark.parametrize("contrast", [False, True], ids=["plain", "contrast"])
def test_the_live_picture_is_the_one_asked_for(contrast: bool) -> None:
    frame = Phantom(replace(SMALL, contrast=contrast)).frame(4)
    assert np.array_equal(frame.live, frame.angiogram if contrast else frame.plain)
    assert not np.array_equal(frame.plain, frame.angiogram)


@pytest.mark.parametrize("seed", [0, 7, 23])
@pytest.mark.parametrize("bits", [8, 12])
def test_with_shared_noise_the_pair_differs_in_the_vessels_alone(seed: int, bits: int) -> None:
    phantom = Phantom(PhantomConfig(seed=seed, rows=256, columns=256, bits_stored=bits))
    frame = phantom.frame(11)
    outside = beyond_vessels(phantom, frame.mask)
    assert outside.mean() > 0.3
    assert np.array_equal(frame.plain[outside], frame.angiogram[outside])
    assert (frame.angiogram <= frame.plain).mean() > 0.999


def test_with_independent_noise_the_background_differs_too() -> None:
    phantom = Phantom(replace(SMALL, noise="independent"))
    frame = phantom.frame(11)
    outside = beyond_vessels(phantom, frame.mask)
    assert (frame.plain[outside] != frame.angiogram[outside]).mean() > 0.5


def test_the_great_vessels_are_darker_by_15_to_35_per_cent() -> None:
    phantom = Phantom(PhantomConfig(collimated=False))
    clean = phantom.clean(phantom.pose(0))
    darker = 1 - clean.angiogram / clean.plain
    lines = dict(zip(phantom.tree.branch_names, phantom.centrelines(phantom.pose(0)), strict=True))
    for name in ("LM", "LAD", "LCX"):
        near = lines[name][: len(lines[name]) // 2]
        rows, columns = np.round(near[:, :2]).astype(int).T
        assert 0.15 < np.median(darker[rows, columns]) < 0.36, name


@pytest.mark.parametrize("seed", range(6))
def test_the_mask_is_one_tree_inside_the_field(seed: int) -> None:
    phantom = Phantom(replace(SMALL, seed=seed))
    mask = phantom.frame(seed * 3).mask
    assert 0.02 < mask.mean() < 0.2
    assert largest_piece(mask) > 0.9 * mask.sum()
    assert not (mask & (phantom.field <= 0.5)).any()


def test_the_catheter_is_in_both_pictures_and_not_in_the_mask() -> None:
    phantom = Phantom(replace(SMALL, collimated=False, dose=100.0))
    clean = phantom.clean(phantom.pose(0))
    bare = Phantom(
        phantom.config, replace(phantom.patient, catheter_entry_mm=phantom.patient.catheter_entry_mm + 30)
    )
    moved = np.abs(bare.clean(bare.pose(0)).plain - clean.plain)[:40]
    assert moved.max() > 0.03
    assert not clean.mask[:40].any()


def test_the_mask_lies_on_the_centrelines() -> None:
    phantom = Phantom(replace(SMALL, collimated=False))
    frame = phantom.frame(20)
    assert len(frame.centrelines) == len(phantom.tree.branch_names)
    line = np.vstack(frame.centrelines)
    rows, columns = np.round(line[:, :2]).astype(int).T
    inside = (rows >= 0) & (rows < 192) & (columns >= 0) & (columns < 192)
    assert inside.mean() > 0.8
    assert frame.mask[rows[inside], columns[inside]].mean() > 0.97
    near = np.zeros_like(frame.mask)
    near[rows[inside], columns[inside]] = True
    assert (frame.mask & ~grown(near, int(line[:, 2].max()) + 2)).sum() == 0


def test_a_shifted_heart_shifts_its_tree() -> None:
    config = replace(SMALL, collimated=False)
    right, down, _toward = choose_view(config).axes
    shift = config.spacing_mm * (8 * right - 5 * down)
    patient = replace(draw_patient(0), heart_centre_mm=(0.0, 0.0, 0.0))
    x, y, z = (float(part) for part in shift)
    here = np.vstack(Phantom(config, patient).frame(0).centrelines)
    there = np.vstack(Phantom(config, replace(patient, heart_centre_mm=(x, y, z))).frame(0).centrelines)
    moved = (there - here)[:, :2]
    assert moved.mean(axis=0) == pytest.approx([-5.0, 8.0], rel=0.02)
    assert np.abs(moved - moved.mean(axis=0)).max() < 0.08 * 8  # nearer to the focal spot a little more
    assert there[:, 3] == pytest.approx(here[:, 3], abs=1e-3)
    assert (there[:, 2] == here[:, 2]).all()


def test_a_larger_heart_has_a_larger_tree() -> None:
    patient = draw_patient(0)
    long_mm, wide_mm, deep_mm = patient.heart_axes_mm
    larger = replace(patient, heart_axes_mm=(1.2 * long_mm, 1.2 * wide_mm, 1.2 * deep_mm))
    spread = [
        np.ptp(np.vstack(Phantom(SMALL, who).frame(0).centrelines)[:, :2], axis=0)
        for who in (patient, larger)
    ]
    assert spread[1] == pytest.approx(1.2 * spread[0], rel=0.02)  # but for the cone of the beam


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("angles", [(None, None), (-30.0, 30.0), (45.0, 0.0), (45.0, -30.0)], ids=str)
def test_the_hearts_outline_encloses_its_tree(seed: int, angles: tuple[float | None, float | None]) -> None:
    config = replace(SMALL, seed=seed, primary_angle_deg=angles[0], secondary_angle_deg=angles[1])
    frame = Phantom(config).frame(3)
    line = np.vstack(frame.centrelines)
    right, down = (line[:, 1] - frame.outline.centre_px[0], line[:, 0] - frame.outline.centre_px[1])
    cosine, sine = np.cos(frame.outline.angle_rad), np.sin(frame.outline.angle_rad)
    along = (cosine * right + sine * down) / frame.outline.axes_px[0]
    across = (cosine * down - sine * right) / frame.outline.axes_px[1]
    out = np.hypot(along, across)
    assert out.max() < 1.2  # the base is broader than the ellipse
    assert (out < 1.03).mean() > 0.9
    assert frame.outline.axes_px[0] >= frame.outline.axes_px[1]


def test_depth_is_the_tree_s_distance_towards_the_detector() -> None:
    """The marginal branches lie on the far wall in a right anterior oblique view and are magnified; the septum is near."""
    phantom = Phantom(replace(SMALL, variation=0.0, primary_angle_deg=-30.0, secondary_angle_deg=0.0))
    frame = phantom.frame(0)
    depth_mm = {
        name: line[:, 3].mean()
        for name, line in zip(phantom.tree.branch_names, frame.centrelines, strict=True)
    }
    assert depth_mm["LAD"] > depth_mm["D1"] > depth_mm["OM1"] > depth_mm["OM2"]
    assert 30 < depth_mm["LAD"] - depth_mm["OM2"] < 110


def test_another_angle_shows_another_picture_of_the_same_patient() -> None:
    phantoms = [Phantom(replace(SMALL, seed=2, primary_angle_deg=angle)) for angle in (-30.0, -20.0, 45.0)]
    assert len({phantom.patient for phantom in phantoms}) == 1
    masks = [phantom.frame(0).mask for phantom in phantoms]
    near, far = ((masks[0] & other).sum() / masks[0].sum() for other in masks[1:])
    assert far < near < 0.8


def test_the_angles_drawn_lie_around_a_standard_view() -> None:
    views = [choose_view(PhantomConfig(seed=seed)) for seed in range(40)]
    assert all(-40 <= view.primary_deg <= -20 and -20 <= view.secondary_deg <= 0 for view in views)
    assert len({view.primary_deg for view in views}) == 40
    assert choose_view(PhantomConfig(secondary_angle_deg=25.0)).secondary_deg == 25.0


@pytest.mark.parametrize("seed", range(5))
def test_the_spine_is_left_of_the_heart_in_rao_and_right_of_it_in_lao(seed: int) -> None:
    patient = draw_patient(seed)
    x, z = patient.spine_mm
    for primary_deg, side in ((-30.0, -1), (45.0, 1)):
        view = View(primary_deg, 0.0)
        heart_x = silhouette(pose_at(patient, 0.0, 0.0), view).centre_mm[0]
        assert side * (view.project(np.array([[x, 0.0, z]]))[0, 0] - heart_x) > 15


def test_without_variation_all_patients_share_one_tree_in_heart_coordinates() -> None:
    one, other = (Phantom(replace(SMALL, seed=seed, variation=0.0)).tree for seed in (3, 4))
    assert np.array_equal(one.points, other.points)
    assert np.array_equal(one.radii_mm, other.radii_mm)


def course(tree: CoronaryTree, name: str, count: int = 40) -> np.ndarray:
    """Places at equal shares along one branch."""
    points = tree.points[tree.branch(tree.branch_names.index(name))]
    at = np.linspace(0, len(points) - 1, count)
    return np.stack([np.interp(at, np.arange(len(points)), column) for column in points.T], axis=1)


def test_more_variation_bends_the_tree_further_and_keeps_its_origin() -> None:
    trees = [Phantom(replace(SMALL, seed=3, variation=variation)).tree for variation in (0.0, 0.2, 0.6, 1.0)]
    bends = [
        np.mean(
            [np.linalg.norm(course(tree, name) - course(trees[0], name)) for name in ("LAD", "OM1", "D1")]
        )
        for tree in trees
    ]
    assert bends == sorted(bends)
    for tree in trees:
        assert tree.points[0] == pytest.approx(trees[0].points[0])


def test_variation_of_a_fifth_moves_the_great_vessels_by_about_a_millimetre() -> None:
    moved_mm = []
    for seed in range(12):
        one, other = (Phantom(replace(SMALL, seed=seed, variation=variation)) for variation in (0.0, 0.2))
        places = [
            one.pose(0).to_patient(
                np.vstack([course(phantom.tree, name) for name in ("LAD", "LCX", "D1", "OM1")])
            )
            for phantom in (one, other)
        ]
        moved_mm.append(np.linalg.norm(places[1] - places[0], axis=1).mean())
    assert 0.7 < np.mean(moved_mm) < 2.0


def test_variation_changes_which_branches_there_are() -> None:
    def otherwise(variation: float) -> float:
        usual = set(grow_tree(0, 0.0).branch_names)
        return float(
            np.mean([len(usual ^ set(grow_tree(seed, variation).branch_names)) for seed in range(30)])
        )

    few, many = otherwise(0.2), otherwise(1.0)
    assert 1 < few < 8
    assert 3 * few < many
    assert any("PDA" in grow_tree(seed, 1.0).branch_names for seed in range(30))


@pytest.mark.parametrize(
    ("variation", "least", "most"), [(0.2, 0.65, 0.78), (1.0, 0.3, 0.5)], ids=["0.2", "1"]
)
def test_the_mask_follows_from_the_heart_to_the_degree_asked_for(
    variation: float, least: float, most: float
) -> None:
    dice = []
    for seed in range(12):
        config = PhantomConfig(seed=seed, rows=256, columns=256, variation=0.0)
        canonical, varied = Phantom(config), Phantom(replace(config, variation=variation))
        one, other = (phantom.clean(canonical.pose(10)).mask for phantom in (canonical, varied))
        dice.append(2 * (one & other).sum() / (one.sum() + other.sum()))
        assert 0.03 < other.mean() < 0.1
    assert least < np.mean(dice) < most


def test_the_motion_loop_closes() -> None:
    phantom = Phantom(SMALL)
    frames = phantom.loop.frames
    assert phantom.pose(frames) == phantom.pose(0)
    assert np.array_equal(phantom.frame(frames).mask, phantom.frame(0).mask)
    assert not np.array_equal(phantom.frame(frames).live, phantom.frame(0).live)  # the noise is new
    steps = [
        np.abs(
            phantom.pose(index + 1).to_patient(phantom.tree.points)
            - phantom.pose(index).to_patient(phantom.tree.points)
        ).max()
        for index in range(frames)
    ]
    assert steps[-1] < 1.2 * max(steps[:-1])


def test_the_loop_is_near_the_rates_asked_for() -> None:
    config = PhantomConfig(rate_hz=30.0, heart_rate_bpm=72.0, breaths_per_min=14.0)
    loop = Loop.of(config)
    assert 60 * config.rate_hz / loop.frames == pytest.approx(14.0, rel=0.02)
    assert 60 * config.rate_hz * loop.beats / loop.frames == pytest.approx(72.0, rel=0.05)


def test_the_heart_contracts_twists_and_follows_the_breath() -> None:
    patient = draw_patient(0)
    rest, systole, inspired = (pose_at(patient, *phases) for phases in ((0.0, 0.0), (0.35, 0.0), (0.0, 0.5)))
    assert systole.axes_mm[1] < 0.92 * rest.axes_mm[1]
    assert systole.twist_rad != rest.twist_rad
    assert inspired.dome_mm[1] - rest.dome_mm[1] == pytest.approx(patient.breath_mm)
    assert 0.4 * patient.breath_mm < inspired.centre_mm[1] - rest.centre_mm[1] < 0.8 * patient.breath_mm


def test_contraction_is_smooth_and_periodic() -> None:
    values = np.array([contraction(phase) for phase in np.linspace(0, 2, 2001)])
    assert np.abs(np.diff(values)).max() < 0.006
    assert values[0] == values[1000] == 0
    assert values.max() == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("rows", "columns", "bits", "dtype"),
    [
        (64, 64, 8, np.uint8),
        (465, 511, 8, np.uint8),
        (64, 300, 10, np.uint16),
        (300, 64, 12, np.uint16),
        (256, 256, 16, np.uint16),
        (1100, 900, 8, np.uint8),
    ],
    ids=["64x64", "465x511", "64x300-10", "300x64-12", "256x256-16", "1100x900"],
)
def test_any_size_and_depth(rows: int, columns: int, bits: int, dtype: type) -> None:
    frame = Phantom(PhantomConfig(rows=rows, columns=columns, bits_stored=bits, contrast=True)).frame(1)
    for picture in (frame.live, frame.plain, frame.angiogram):
        assert picture.shape == (rows, columns)
        assert picture.dtype == dtype
        assert picture.max() < 1 << bits
        assert picture.max() > 0.5 * (1 << bits)
        assert 0.3 < picture.mean() / (1 << bits) < 0.65
    assert frame.mask.any()


def test_the_anatomy_is_the_same_at_every_size() -> None:
    """The smaller picture is the larger one, averaged; what remains is interpolation."""
    large, small = (
        Phantom(PhantomConfig(rows=side, columns=side)).clean(Phantom(PhantomConfig()).pose(6))
        for side in (512, 128)
    )
    averaged = cv2.resize(large.angiogram, (128, 128), interpolation=cv2.INTER_AREA)
    assert np.abs(averaged - small.angiogram).mean() < 0.012
    assert np.abs(averaged - small.angiogram).max() < 0.15


def test_noise_follows_the_dose() -> None:
    spreads = []
    for dose in (0.25, 1.0, 4.0):
        phantom = Phantom(replace(SMALL, dose=dose, bits_stored=16, electronic_noise=0.0))
        clean = phantom.clean(phantom.pose(0))
        noisy, _angiogram = phantom.add_noise(clean, np.random.default_rng(1))
        spreads.append(float(np.std((noisy - clean.plain) / np.sqrt(clean.plain))))
    assert spreads[0] == pytest.approx(2 * spreads[1], rel=0.01)
    assert spreads[1] == pytest.approx(2 * spreads[2], rel=0.01)
    assert spreads[1] == pytest.approx(1 / np.sqrt(Phantom(SMALL).quanta), rel=0.05)


def test_the_collimator_can_be_left_out() -> None:
    patient = replace(draw_patient(0), blades_mm=(6.0, 6.0, 6.0, 6.0))
    covered = Phantom(SMALL, patient).frame(0).plain
    open_field = Phantom(replace(SMALL, collimated=False), patient).frame(0).plain
    assert covered[:3].mean() < 0.7 * open_field[:3].mean()
    assert (Phantom(replace(SMALL, collimated=False)).field == 1).all()


def test_scatter_lowers_the_contrast_of_vessels() -> None:
    def depth(scatter: float) -> float:
        phantom = Phantom(replace(SMALL, scatter=scatter))
        clean = phantom.clean(phantom.pose(0))
        return float((1 - clean.angiogram / clean.plain)[clean.mask].mean())

    assert depth(1.0) < 0.7 * depth(0.0)


def test_a_bolus_fills_the_tree_from_its_origin_and_washes_out() -> None:
    phantom = Phantom(replace(SMALL, bolus=True, contrast=True))
    full = Phantom(SMALL)
    frames = phantom.loop.frames
    areas = [phantom.frame(index).mask.sum() for index in range(0, frames, frames // 16)]
    assert areas[0] == 0
    assert max(areas) > 0.95 * full.frame(0).mask.sum()
    assert areas[-1] < 0.3 * max(areas)
    filling = phantom.filling(round(0.1 * frames + 0.4 * phantom.config.rate_hz))
    assert filling is not None
    reach_mm = phantom.tree.reach_mm[phantom.tree.segments[0]]
    assert filling[reach_mm < 20].min() > 0.9
    assert filling[reach_mm > 90].max() < 0.1


def test_training_pairs_are_truth_in_grey_levels() -> None:
    pairs = list(training_pairs(128, range(2), 3))
    assert len(pairs) == 6
    for plain, angiogram, mask in pairs:
        for picture in (plain, angiogram, mask):
            assert picture.shape == (128, 128)
            assert picture.dtype == np.float32
            assert picture.min() >= 0
            assert picture.max() <= 1
        assert set(np.unique(mask)) == {0.0, 1.0}
        assert (plain - angiogram)[mask > 0].mean() > 0.02
        outside = ~grown(mask > 0, 4)
        assert np.array_equal(plain[outside], angiogram[outside])


def test_training_pairs_repeat_with_their_arguments() -> None:
    again = zip(training_pairs(64, range(3, 5), 2), training_pairs(64, range(3, 5), 2), strict=True)
    for one, other in again:
        for left, right in zip(one, other, strict=True):
            assert np.array_equal(left, right)


def test_training_pairs_of_one_patient_differ() -> None:
    one, other = training_pairs(64, range(1), 2)
    assert not np.array_equal(one[2], other[2])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"seed": -1}, r"seed must be 0 or above, got -1"),
        ({"rows": 63}, r"rows must be 64 to 2048 pixels, got 63"),
        ({"columns": 4096}, r"columns must be 64 to 2048 pixels, got 4096"),
        ({"bits_stored": 7}, r"bits_stored must be 8 to 16, got 7"),
        ({"rate_hz": 0.0}, r"rate_hz must be 0.1 to 120 frames per second, got 0.0"),
        ({"rate_hz": float("nan")}, r"rate_hz must be .*, got nan"),
        ({"heart_rate_bpm": 500.0}, r"heart_rate_bpm must be 20 to 240 beats per minute, got 500"),
        ({"breaths_per_min": 1.0}, r"breaths_per_min must be 4 to 60 breaths per minute, got 1"),
        ({"variation": 1.5}, r"variation must be 0 to 1 .*, got 1.5"),
        ({"dose": 0.0}, r"dose must be 0.01 to 100 times the dose of a cine frame, got 0"),
        ({"scatter": -0.1}, r"scatter must be 0 to 2 times the primary beam, got -0.1"),
        ({"field_mm": 20.0}, r"field_mm must be 100 to 400 mm, got 20"),
        ({"primary_angle_deg": 75.0}, r"primary_angle_deg must be -60 to 60 degrees \(RAO .* LAO .*, got 75"),
        (
            {"secondary_angle_deg": -41.0},
            r"secondary_angle_deg must be -40 to 40 degrees \(caudal .*, got -41",
        ),
        ({"noise": "none"}, r"noise must be 'shared' or 'independent', got 'none'"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_settings_out_of_range_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhantomConfig(**settings)


def test_a_negative_index_is_refused() -> None:
    with pytest.raises(ValueError, match="a frame's index must be 0 or above, got -1"):
        Phantom(SMALL).frame(-1)


def test_no_frames_per_seed_are_refused() -> None:
    with pytest.raises(ValueError, match="frames_per_seed must be 1 or above, got 0"):
        next(training_pairs(64, range(1), 0))
