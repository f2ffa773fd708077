"""The vessel segmenter: it learns, it is what its card says, and what stands before it hides what no eye sees."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from casgan.errors import CheckpointError
from casgan.lessons import HELD_SEEDS, LEARNT_SEEDS
from casgan.masked_pictures import MaskedPictures, phantom_pictures, read_pictures
from casgan.phantom_moments import COMPANY, phantom_moments
from casgan.segmenter import (
    JUDGE,
    JUDGE_SEEDS,
    MOMENT_SEEDS,
    MOMENTS,
    VesselSegmenter,
    load_segmenter,
    mean_dice,
    read_card,
    save_segmenter,
    softened,
    vessel_area,
)
from casgan.segmenter_teaching import augmented, teach_segmenter

MASKS = Path(__file__).resolve().parents[3] / "shared" / "data" / "angios40_masks"


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def small_segmenter() -> VesselSegmenter:
    torch.manual_seed(0)
    return VesselSegmenter(2).eval()


def dark_lines(count: int, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    """Grey pictures with one dark line each, and where it lies."""
    rng = np.random.default_rng(0)
    pictures = np.full((count, size, size), 150, np.uint8)
    masks = np.zeros_like(pictures)
    for picture, mask in zip(pictures, masks, strict=True):
        start, end = (tuple(int(v) for v in rng.integers(8, size - 8, 2)) for _ in range(2))
        cv2.line(mask, start, end, 1, 4)
        picture[mask > 0] = 60
    return torch.from_numpy(pictures)[:, None], torch.from_numpy(masks)[:, None]


def test_a_segmenter_learns_dark_lines_it_has_not_seen() -> None:
    pictures, masks = dark_lines(24)
    lines: list[str] = []
    segmenter = teach_segmenter(
        pictures[:16], masks[:16], steps=60, size=64, batch=4, base=8, report=lines.append
    )
    assert not segmenter.training
    assert mean_dice(segmenter, pictures[16:], masks[16:]) > 0.6
    assert "step 60/60" in lines[-1]
    blank = torch.full((1, 64, 64), 150, dtype=torch.uint8)
    areas = vessel_area(segmenter, torch.cat([blank, pictures[16:, 0]]))
    assert areas[0] < 0.5 * areas[1:].mean()


def test_the_same_seed_teaches_the_same_segmenter_and_leaves_others_chance_alone() -> None:
    pictures, masks = dark_lines(4)
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    first, second, other = (
        teach_segmenter(pictures, masks, steps=2, size=64, batch=2, base=2, seed=seed) for seed in (3, 3, 4)
    )
    assert torch.equal(torch.rand(1), expected)
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, second.state_dict()[name]), name
    assert not torch.equal(first.unet.final_conv.weight, other.unet.final_conv.weight)


def test_features_are_mean_and_deviation_of_the_bottleneck() -> None:
    segmenter = small_segmenter()
    kept: list[torch.Tensor] = []
    segmenter.unet.down_4.register_forward_hook(lambda _module, _inputs, output: kept.append(output))
    picture = torch.rand(2, 1, 64, 48) * 2.0 - 1.0
    segmenter(picture)
    bottleneck = kept[0].flatten(2)
    expected = torch.cat([bottleneck.mean(2), bottleneck.std(2, correction=0)], dim=1)
    torch.testing.assert_close(segmenter.features(picture), expected)


def test_what_was_written_is_read_back_to_half_precision(tmp_path: Path) -> None:
    segmenter = small_segmenter()
    path = tmp_path / "judge.safetensors"
    card = save_segmenter(segmenter, path, {"data": "lines", "seed": 3})
    assert read_card(path) == card
    assert card["seed"] == 3
    read = load_segmenter(path)
    assert not read.training
    assert not any(weight.requires_grad for weight in read.parameters())
    picture = torch.rand(1, 1, 64, 64)
    torch.testing.assert_close(read(picture), segmenter(picture), atol=0.02, rtol=0.02)


def broken_card(path: Path, **changes: object) -> None:
    card = json.loads(path.with_suffix(".json").read_text())
    path.with_suffix(".json").write_text(json.dumps(card | changes))


def test_a_segmenter_that_is_not_what_its_card_says_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "judge.safetensors"
    with pytest.raises(CheckpointError, match=r"found no judge\.safetensors; copy both, or teach one"):
        load_segmenter(path)
    save_segmenter(small_segmenter(), path, {})
    broken_card(path, base=3)
    with pytest.raises(CheckpointError, match="must hold a segmenter of base 3, got: "):
        load_segmenter(path)
    broken_card(path, base="wide")
    with pytest.raises(CheckpointError, match="needs base from 1 to 256, got 'wide'"):
        load_segmenter(path)
    broken_card(path, format="other")
    with pytest.raises(CheckpointError, match=r"must have the format contrastream\.segmenter/1"):
        load_segmenter(path)
    save_segmenter(small_segmenter(), path, {})
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(
        CheckpointError, match=r"must have the SHA-256 .* of its card, got .* cut off or changed"
    ):
        load_segmenter(path)
    path.with_suffix(".json").write_text("{")
    with pytest.raises(CheckpointError, match="must be JSON, got"):
        load_segmenter(path)
    path.with_suffix(".json").unlink()
    with pytest.raises(CheckpointError, match=r"found no judge\.json"):
        load_segmenter(path)


def test_softening_hides_a_one_pixel_stripe_and_keeps_a_vessel() -> None:
    rng = torch.Generator().manual_seed(1)
    stripes = torch.zeros(1, 1, 64, 64)
    stripes[..., ::2] = 0.5
    vessel = torch.zeros(1, 1, 64, 64)
    vessel[..., 28:34] = 0.5
    left = softened(torch.cat([stripes, vessel]).repeat(8, 1, 1, 1), rng)

    def contrast(picture: torch.Tensor, dark: torch.Tensor) -> float:
        return float(picture[:, 0][dark].mean() - picture[:, 0][~dark].mean())

    marked = torch.stack([stripes[0, 0] > 0, vessel[0, 0] > 0]).repeat(8, 1, 1)
    assert contrast(left[0::2], marked[0::2]) < 0.25
    assert contrast(left[1::2], marked[1::2]) > 0.35
    assert abs(float(left[1::2].mean() - vessel.mean())) < 0.01


def test_softening_differs_each_time_repeats_from_its_seed_and_passes_gradients() -> None:
    picture = torch.rand(2, 1, 32, 32, requires_grad=True)
    rng = torch.Generator().manual_seed(1)
    first, second = softened(picture, rng), softened(picture, rng)
    assert not torch.equal(first, second)
    assert torch.equal(first, softened(picture, torch.Generator().manual_seed(1)))
    first.sum().backward()
    assert picture.grad is not None
    assert picture.grad.abs().min() > 0.1


def test_augmentation_moves_picture_and_mask_together() -> None:
    pictures, masks = dark_lines(16)
    grey, marked = augmented(pictures, masks, 48, torch.Generator().manual_seed(0))
    assert grey.shape == marked.shape == (16, 1, 48, 48)
    assert set(marked.unique().tolist()) == {0.0, 1.0}
    darker = 0
    for picture, mask in zip(grey, marked > 0.5, strict=True):
        if mask.any():
            # Against what is near, since the grey levels drift over the picture.
            near = torch.nn.functional.max_pool2d(mask.float(), 9, stride=1, padding=4) > 0
            darker += bool(picture[mask].mean() < picture[near & ~mask].mean())
    assert darker >= 0.8 * int((marked > 0.5).flatten(1).any(dim=1).sum())


def test_phantom_pictures_repeat_and_every_fourth_shows_no_vessel() -> None:
    some = phantom_pictures(range(4000, 4004), 64, 2)
    again = phantom_pictures(range(4000, 4004), 64, 2)
    assert torch.equal(some.pictures, again.pictures)
    empty = [index for index in range(8) if not some.masks[index].any()]
    assert empty == [0, 4]
    assert some.groups[:3] == ("phantom 4000", "phantom 4000", "phantom 4001")


def write_pair(picture: Path, mask: Path, grey: int, rows: int = 40) -> None:
    for path in (picture, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    plane = np.full((rows, 50), grey, np.uint8)
    cv2.imwrite(str(picture), plane)
    marked = np.zeros_like(plane)
    marked[10:20, 10:40] = 200
    cv2.imwrite(str(mask), marked)


@pytest.mark.parametrize(
    ("pairs", "groups"),
    [
        pytest.param(
            [("training/1.png", "training/1_gt.png"), ("testing/2.png", "testing/2_gt.png")],
            ("testing", "training"),
            id="beside each other",
        ),
        pytest.param(
            [("images/a.png", "masks/a.png"), ("images/b.png", "masks/b.png")], ("a", "b"), id="two folders"
        ),
        pytest.param(
            [
                ("P1/run/frames/f0.png", "P1/run/segmentedFrames/f0_gt.png"),
                ("P2/run/frames/f0.png", "P2/run/segmentedFrames/f0_gt.png"),
            ],
            ("P1", "P2"),
            id="runs",
        ),
    ],
)
def test_three_layouts_of_pairs_are_read(
    tmp_path: Path, pairs: list[tuple[str, str]], groups: tuple[str, ...]
) -> None:
    for number, (picture, mask) in enumerate(pairs):
        write_pair(tmp_path / picture, tmp_path / mask, 100 + number)
    (tmp_path / pairs[0][0]).with_name("alone.png").write_bytes((tmp_path / pairs[0][0]).read_bytes())
    read = read_pictures(tmp_path, 32)
    assert read.groups == groups
    assert read.pictures.shape == (2, 1, 32, 32)
    assert sorted(int(picture.float().mean()) for picture in read.pictures) == [100, 101]
    assert set(read.masks.unique().tolist()) == {0, 1}


def test_a_test_set_is_held_out_and_else_the_last_fifth_of_the_patients() -> None:
    plane = torch.zeros(10, 1, 4, 4, dtype=torch.uint8)
    named = MaskedPictures(plane[:2], plane[:2], ("testing", "training"))
    learn, held = named.parted()
    assert (learn.groups, held.groups) == (("training",), ("testing",))
    patients = MaskedPictures(plane, plane, tuple(f"patient {index // 2}" for index in range(10)))
    learn, held = patients.parted()
    assert set(held.groups) == {"patient 4"}
    assert not set(held.groups) & set(learn.groups)
    with pytest.raises(CheckpointError, match="at least two patients, got only 'patient 0'"):
        MaskedPictures(plane, plane, ("patient 0",) * 10).parted()


def test_a_folder_without_usable_pairs_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"needed pictures with masks in .*, found none; lay them out"):
        read_pictures(tmp_path, 32)
    write_pair(tmp_path / "1.png", tmp_path / "1_gt.png", 90)
    cv2.imwrite(str(tmp_path / "1_gt.png"), np.zeros((8, 50), np.uint8))
    with pytest.raises(CheckpointError, match="must be as large as its picture, 40x50 pixels, got 8x50"):
        read_pictures(tmp_path, 32)
    (tmp_path / "1_gt.png").write_bytes(b"no picture")
    with pytest.raises(
        CheckpointError, match=r"1_gt\.png must be a picture, got a file that cannot be decoded"
    ):
        read_pictures(tmp_path, 32)


@pytest.mark.real
def test_the_annotated_angiograms_are_read_with_their_masks() -> None:
    if not MASKS.is_dir():
        pytest.skip(f"no real angiograms at {MASKS}")
    read = read_pictures(MASKS, 128)
    assert len(read) == 70
    learn, held = read.parted()
    assert (len(learn), len(held)) == (40, 30)
    assert 0.03 < float(read.masks.float().mean()) < 0.2


def test_a_moment_is_a_filled_frame_in_its_company(tmp_path: Path) -> None:
    told = phantom_moments(range(3990, 3993), 64)
    assert told.pictures.shape == (9, COMPANY, 64, 64)
    assert told.masks.shape == (9, 1, 64, 64)
    filled = (told.masks > 0).flatten(1).any(dim=1)
    assert 5 <= int(filled.sum()) <= 9
    grey, vessels = told.pictures[filled].float(), told.masks[filled, 0] > 0
    now, free = grey[:, 1], grey[:, -1]
    # Where vessels are the filled frame is darker than the contrast-free one; elsewhere they are alike.
    assert float((free - now)[vessels].mean()) > 5.0
    assert abs(float((free - now)[~vessels].mean())) < 2.0
    # One that looks at the four learns, is written and read back as such, and is not taken where a picture stands alone.
    segmenter = teach_segmenter(told.pictures, told.masks, steps=2, size=32, batch=2, base=2)
    path = tmp_path / "moments.safetensors"
    assert save_segmenter(segmenter, path, {})["pictures"] == COMPANY
    assert load_segmenter(path, (1, COMPANY)).pictures == COMPANY
    with pytest.raises(
        CheckpointError, match=r"looks at 1 picture, got moments\.safetensors, which looks at 4 together"
    ):
        load_segmenter(path)


def test_the_shipped_one_for_a_patient_finds_the_vessels_of_patients_it_has_not_seen() -> None:
    card = read_card(MOMENTS)
    assert MOMENTS.stat().st_size < 2.5e6
    assert (card["data"], card["pictures"]) == ("moments", COMPANY)
    assert card["first_seed"] in MOMENT_SEEDS
    assert card["first_seed"] + 1.1 * card["patients"] <= MOMENT_SEEDS.stop
    kept = [LEARNT_SEEDS, HELD_SEEDS, MOMENT_SEEDS, JUDGE_SEEDS]
    assert sum(len(seeds) for seeds in kept) == len(set().union(*kept))
    unseen = phantom_moments(range(JUDGE_SEEDS.start - 4, JUDGE_SEEDS.start), 256)
    assert mean_dice(load_segmenter(MOMENTS, (COMPANY,)), unseen.pictures, unseen.masks) > 0.7


def test_the_shipped_judge_is_small_was_taught_on_its_own_patients_and_sees_vessels() -> None:
    card = read_card(JUDGE)
    assert JUDGE.stat().st_size < 2.5e6
    assert card["data"] == "phantom"
    assert card["first_seed"] in JUDGE_SEEDS
    # Its own and those held out beside them, a tenth more.
    assert card["first_seed"] + 1.1 * card["patients"] <= JUDGE_SEEDS.stop
    unseen = phantom_pictures(range(JUDGE_SEEDS.stop - 4, JUDGE_SEEDS.stop), 256)
    assert mean_dice(load_segmenter(), unseen.pictures, unseen.masks) > 0.5
