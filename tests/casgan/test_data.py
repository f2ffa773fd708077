"""Paired pictures stay pairs under augmentation."""

import torch

from casgan.data import Pairs, augmented_batch, joined, real_background_pairs
from casgan.unpaired import Unpaired


def test_augmentation_keeps_pairs_equal_beyond_the_vessels_and_repeats_from_its_seed(pairs: Pairs) -> None:
    plain, angiogram, mask, line = augmented_batch(pairs, 8, torch.Generator().manual_seed(5))
    again = augmented_batch(pairs, 8, torch.Generator().manual_seed(5))
    assert torch.equal(plain, again[0])
    assert plain.min() >= -1
    assert plain.max() <= 1
    # The mask grown by four pixels covers focal blur and the augmentation's own.
    near = torch.nn.functional.max_pool2d(mask, 9, stride=1, padding=4) > 0
    assert torch.equal(plain[~near], angiogram[~near])
    assert (plain - angiogram)[mask > 0.5].mean() > 0.005
    assert 0 < line.sum() <= mask.sum()
    assert (mask[line > 0] > 0).all()


def test_vessels_are_laid_into_the_folder_s_frames_and_change_nothing_else(
    pairs: Pairs, unpaired: Unpaired
) -> None:
    frames = unpaired.plain
    laid = real_background_pairs(frames.grey, frames.field, range(7, 10), 2)
    assert len(laid) == 6
    assert laid.sha256() == real_background_pairs(frames.grey, frames.field, range(7, 10), 2).sha256()
    backgrounds = (frames.grey.float() / 255.0).half()
    assert all((plain == backgrounds).flatten(1).all(1).any() for plain in laid.plain)
    near = torch.nn.functional.max_pool2d(laid.mask, 9, stride=1, padding=4) > 0
    assert torch.equal(laid.plain[~near], laid.angiogram[~near])
    assert (laid.plain - laid.angiogram)[laid.mask > 0.5].mean() > 0.02
    both = joined(pairs, laid)
    assert len(both) == len(pairs) + 6
    assert torch.equal(both.mask[-6:], laid.mask)
