"""Distances between sets of pictures, against closed forms."""

from pathlib import Path

import numpy as np
import pytest

from casgan.errors import CheckpointError
from casgan.frechet import (
    Projection,
    distances,
    frechet_distance,
    halves,
    inception_distances,
    median_bandwidth,
    mmd_polynomial,
    mmd_rbf,
)


def normal(count: int, seed: int, mean: float = 0.0, spread: float = 1.0, width: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).normal(mean, spread, (count, width))


def test_frechet_distance_of_normals_is_the_closed_form() -> None:
    # Per axis (m1 - m2)^2 + (s1 - s2)^2, three axes.
    found = frechet_distance(normal(40_000, 0), normal(40_000, 1, mean=2.0, spread=3.0))
    assert found == pytest.approx(3 * (4.0 + 4.0), rel=0.02)


def test_frechet_distance_does_not_mind_correlated_axes() -> None:
    rng = np.random.default_rng(0)
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    first, second = normal(4000, 0) * [1.0, 2.0, 0.1], normal(4000, 1, mean=1.0) * [3.0, 1.0, 1.0]
    assert frechet_distance(first @ turn, second @ turn) == pytest.approx(frechet_distance(first, second))
    assert frechet_distance(first, first) == pytest.approx(0.0, abs=1e-9)
    assert frechet_distance(first, second) == pytest.approx(frechet_distance(second, first))


def test_mmd_rbf_of_shifted_normals_is_the_closed_form() -> None:
    # For N(0, 1) and N(d, 1) in one dimension and bandwidth h: 2 h / sqrt(h^2 + 2) (1 - exp(-d^2 / (2 (h^2 + 2)))).
    h, d = 1.5, 2.0
    found = mmd_rbf(normal(3000, 0, width=1), normal(3000, 1, mean=d, width=1), h)
    expected = 2 * h / np.sqrt(h**2 + 2) * (1 - np.exp(-(d**2) / (2 * (h**2 + 2))))
    assert found == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("kind", ["rbf", "polynomial"])
def test_mmd_of_sets_from_one_population_is_zero_on_average(kind: str) -> None:
    values = []
    for seed in range(60):
        first, second = normal(20, 2 * seed), normal(20, 2 * seed + 1)
        values.append(mmd_rbf(first, second, 1.5) if kind == "rbf" else mmd_polynomial(first, second))
    # Unbiased, so of either sign.
    assert min(values) < 0 < max(values)
    assert abs(np.mean(values)) < 3 * np.std(values) / np.sqrt(60)


def test_mmd_polynomial_of_two_points_each_by_hand() -> None:
    first, second = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    # k(0,1) = 1, k(1,2) = 27; across: k(0,1) = k(0,2) = 1, k(1,1) = 8, k(1,2) = 27.
    assert mmd_polynomial(first, second) == pytest.approx(1.0 + 27.0 - 2.0 * (1 + 1 + 8 + 27) / 4)


def test_a_projection_weighs_every_feature_alike_and_sums_to_one() -> None:
    reference = normal(200, 0, width=40) * np.linspace(5.0, 0.01, 40)
    project = Projection.of(reference, 6)
    seen = project(reference)
    assert seen.shape == (200, 6)
    np.testing.assert_allclose(seen.mean(axis=0), 0.0, atol=1e-9)
    assert Projection.of(reference, 40)(reference).var(axis=0, ddof=1).sum() == pytest.approx(1.0)
    # The unit of a feature does not matter, and one that never changes is left out.
    scaled = reference * np.linspace(1.0, 300.0, 40)
    np.testing.assert_allclose(np.abs(Projection.of(scaled, 6)(scaled)), np.abs(seen), atol=1e-9)
    dead = np.hstack([reference, np.ones((200, 1))])
    other = np.hstack([reference, np.full((200, 1), 50.0)])
    np.testing.assert_allclose(np.abs(Projection.of(dead, 6)(other)), np.abs(seen), atol=1e-9)
    assert Projection.of(reference[:4], 24)(reference).shape == (200, 3)
    with pytest.raises(ValueError, match="needs at least 2 pictures, got 1"):
        Projection.of(reference[:1])
    with pytest.raises(ValueError, match="needs pictures that differ"):
        Projection.of(np.ones((5, 3)))


def test_halves_never_share_a_patient() -> None:
    # Each patient's pictures are all alike and far from the next patient's, so sharing one would pull halves together.
    features = np.repeat(normal(8, 0, spread=10.0), 3, axis=0)
    patients = [f"p{index // 3}" for index in range(24)]
    bandwidth = median_bandwidth(features)
    apart = halves(features, patients, bandwidth)
    assert len(apart) == 20
    assert all(half.n == (12, 12) for half in apart)
    assert apart == halves(features, patients, bandwidth)
    by_frame = distances(features[0::3], features[1::3], bandwidth)
    assert min(half.frechet for half in apart) > by_frame.frechet + 1.0
    assert halves(features[:9], patients[:9], bandwidth) == []
    with pytest.raises(ValueError, match="both sets need at least 2 pictures, got 1 and 24"):
        distances(features[:1], features, bandwidth)


def test_the_inception_protocol_asks_for_its_file_and_checks_it(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"needed the Inception weights, found none at .*nothing is downloaded"
    ):
        inception_distances(tmp_path, tmp_path, tmp_path / "weights.pth")
    (tmp_path / "weights.pth").write_bytes(b"other")
    with pytest.raises(CheckpointError, match=r"must have the SHA-256 6726825d.*, got d9298a10d1b07358"):
        inception_distances(tmp_path, tmp_path, tmp_path / "weights.pth")
