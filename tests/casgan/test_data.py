"""Paired pictures stay pairs under augmentation."""

import torch

from casgan.data import Pairs, augmented_batch


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
