"""Distances between two sets of pictures, on features that need no download.

The features are the judge's bottleneck (`casgan/segmenter.py`), so these figures compare methods under this
protocol and with nothing else: above all not with the FID and MMD of publications, which use other features.
Neither distance proves a picture good: in a trial, lines that were no trees scored as well as real vessels.
They stand beside the unchanged picture's and beside real against real, at the level of patients.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from casgan.errors import CheckpointError

COMPONENTS = 24
"""Of the features, as many as a few dozen pictures can tell apart; our choice."""

Features = Float[np.ndarray, "_ d"]


@dataclass(frozen=True)
class Projection:
    """Features seen along the reference's main directions, scaled so that the reference's variance adds up to 1.

    Each feature counts as much as another: it is divided by its own standard deviation over the reference first.
    """

    centre: Float[np.ndarray, " d"]
    axes: Float[np.ndarray, "d k"]

    @classmethod
    def of(cls, reference: Features, components: int = COMPONENTS) -> "Projection":
        """The reference's principal components; fewer where it has fewer pictures.

        Raises:
            ValueError: Fewer than two pictures, or all alike.
        """
        if len(reference) < 2:
            raise ValueError(f"a reference needs at least 2 pictures, got {len(reference)}")
        centre = reference.mean(axis=0)
        deviation = reference.std(axis=0, ddof=1)
        varies = deviation > 1e-6 * max(float(deviation.max()), 1e-12)
        if not deviation.max() > 0.0:
            raise ValueError("a reference needs pictures that differ, got equal ones")
        # A channel that is the same in every picture says nothing, and must not be blown up.
        weight = np.where(varies, 1.0 / np.where(varies, deviation, 1.0), 0.0) / np.sqrt(varies.sum())
        _, _, directions = np.linalg.svd((reference - centre) * weight, full_matrices=False)
        kept = min(components, len(reference) - 1)
        return cls(centre, weight[:, None] * directions[:kept].T)

    def __call__(self, features: Features) -> Float[np.ndarray, "_ k"]:
        """Features of any set, projected."""
        projected: np.ndarray = (features - self.centre) @ self.axes
        return projected


def frechet_distance(first: Features, second: Features) -> float:
    """Frechet distance of two normal distributions, squared as in FID.

    d^2 = |m1 - m2|^2 + tr(S1 + S2 - 2 (S1^1/2 S2 S1^1/2)^1/2), covariances with n - 1; biased upwards for few
    pictures, so only sets of about the same size compare.
    """
    gap = first.mean(axis=0) - second.mean(axis=0)
    spread, other = (np.atleast_2d(np.cov(features, rowvar=False)) for features in (first, second))
    root = _root(spread)
    cross = np.sqrt(np.clip(np.linalg.eigvalsh(root @ other @ root), 0.0, None)).sum()
    return float(gap @ gap + np.trace(spread) + np.trace(other) - 2.0 * cross)


def _root(spread: Float[np.ndarray, "k k"]) -> Float[np.ndarray, "k k"]:
    values, vectors = np.linalg.eigh(spread)
    root: np.ndarray = (vectors * np.sqrt(np.clip(values, 0.0, None))) @ vectors.T
    return root


def median_bandwidth(reference: Features) -> float:
    """The median distance between two pictures of the reference."""
    distances = np.sqrt(_squared_distances(reference, reference))
    return float(np.median(distances[np.triu_indices(len(reference), 1)]))


def mmd_rbf(first: Features, second: Features, bandwidth: float) -> float:
    """Unbiased squared MMD with k(a, b) = exp(-|a - b|^2 / (2 h^2)); may be a little below 0."""

    def kernel(a: Features, b: Features) -> np.ndarray:
        values: np.ndarray = np.exp(_squared_distances(a, b) / (-2.0 * bandwidth**2))
        return values

    return _unbiased(kernel(first, first), kernel(second, second), kernel(first, second))


def mmd_polynomial(first: Features, second: Features) -> float:
    """Unbiased squared MMD with k(a, b) = (a . b / d + 1)^3, d the number of features."""

    def kernel(a: Features, b: Features) -> np.ndarray:
        values: np.ndarray = (a @ b.T / a.shape[1] + 1.0) ** 3
        return values

    return _unbiased(kernel(first, first), kernel(second, second), kernel(first, second))


def _squared_distances(a: Features, b: Features) -> np.ndarray:
    products = (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1) - 2.0 * a @ b.T
    return np.asarray(np.clip(products, 0.0, None))


def _unbiased(first: np.ndarray, second: np.ndarray, cross: np.ndarray) -> float:
    """Means over different pairs: a picture is not compared with itself."""
    n, m = len(first), len(second)
    within = (first.sum() - np.trace(first)) / (n * (n - 1)) + (second.sum() - np.trace(second)) / (
        m * (m - 1)
    )
    return float(within - 2.0 * cross.mean())


@dataclass(frozen=True)
class Distances:
    """How far one set of pictures is from another."""

    frechet: float
    mmd_rbf: float
    mmd_polynomial: float
    n: tuple[int, int]
    """Pictures in either set."""


def distances(first: Features, second: Features, bandwidth: float) -> Distances:
    """All three between two sets of projected features.

    Raises:
        ValueError: A set has fewer than two pictures.
    """
    if min(len(first), len(second)) < 2:
        raise ValueError(f"both sets need at least 2 pictures, got {len(first)} and {len(second)}")
    return Distances(
        frechet_distance(first, second),
        mmd_rbf(first, second, bandwidth),
        mmd_polynomial(first, second),
        (len(first), len(second)),
    )


def halves(
    features: Features, patients: Sequence[str], bandwidth: float, splits: int = 20, seed: int = 0
) -> list[Distances]:
    """Real against real: halves of one set, no patient in both. Empty for fewer than four patients.

    Args:
        features: Projected.
        patients: Whose picture each one is.
        bandwidth: Of the RBF kernel.
        splits: How many random halves.
        seed: Of the halves.
    """
    names = np.unique(np.asarray(patients))
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(splits if len(names) >= 4 else 0):
        chosen = rng.permutation(names)[: len(names) // 2]
        one = np.isin(np.asarray(patients), chosen)
        if min(one.sum(), (~one).sum()) >= 2:
            found.append(distances(features[one], features[~one], bandwidth))
    return found


INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
"""Of torch-fidelity's own file weights-inception-2015-12-05-6726825d.pth."""


def inception_distances(first: Path, second: Path, weights: Path) -> dict[str, float]:
    """FID and KID of two folders of pictures by torch-fidelity, with Inception weights that the caller brings.

    Nothing is downloaded. This was never run here: torch-fidelity needs torchvision, which this project's test
    machine does not have. Grey pictures must have been written with three equal channels.

    Args:
        first: Folder of PNG files.
        second: Folder of PNG files.
        weights: torch-fidelity's weights-inception-2015-12-05-6726825d.pth.

    Raises:
        CheckpointError: torch-fidelity or the file is missing, or it is another file: it is unpickled, so its
            hash is checked first.
    """
    if not weights.is_file():
        raise CheckpointError(f"needed the Inception weights, found none at {weights}; nothing is downloaded")
    with weights.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != INCEPTION_SHA256:
        raise CheckpointError(
            f"{weights.name} must have the SHA-256 {INCEPTION_SHA256[:16]}..., got {found[:16]}...; use "
            f"torch-fidelity's own weights-inception-2015-12-05-6726825d.pth"
        )
    try:
        import torch_fidelity  # type: ignore[import-not-found]
    except ImportError as error:
        raise CheckpointError(
            f"the Inception protocol needs torch-fidelity ({error}); run: pip install -e '.[fid]'"
        ) from error
    count = min(len(list(folder.glob("*.png"))) for folder in (first, second))
    facts = torch_fidelity.calculate_metrics(
        input1=str(first),
        input2=str(second),
        fid=True,
        kid=True,
        kid_subset_size=min(1000, count),
        feature_extractor_weights_path=str(weights),
        cuda=False,
        verbose=False,
    )
    return {name: float(value) for name, value in facts.items()}
