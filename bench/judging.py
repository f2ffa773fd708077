"""Figures of many frames at once: what was drawn in each, how it is judged, and means with intervals by patient."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, UInt8

from bench.stats import mean_interval
from casgan.frechet import Distances, Projection, distances, halves, median_bandwidth
from casgan.segmenter import load_segmenter, read_card, softened, to_levels, vessel_probability
from casgan.vessel_metrics import (
    DRAWN,
    LEAST_PX,
    border_share,
    centreline_dice,
    centreline_distance_px,
    connectivity,
    dice,
)

JUDGED_PX = 256
"""Rows and columns at which the segmenter looks: what it was taught at."""
LEAST_AT_PX = 128
"""The side at which `LEAST_PX` is meant; components of other sizes are scaled."""
BORDER_SHARE = 0.02
"""Of the frame's side: how near to the field's border a vessel counts as lying on it."""

Picture = UInt8[np.ndarray, "h w"]
Mask = Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Case:
    """One frame and what was drawn in it."""

    patient: str
    live: Picture
    """x."""
    synthetic: Picture
    """y_g."""
    attention: Picture
    """A8."""
    field: Mask
    """Inside the collimator's blades."""
    angiogram: Picture | None = None
    """y, where there is a truth."""
    mask: Mask | None = None
    """Its vessels."""

    @property
    def drawn(self) -> Mask:
        """Where the model says that it draws a vessel: A above 0.3."""
        marked: np.ndarray = self.attention > 255.0 * DRAWN
        return marked


class Judge:
    """An independent segmenter: masks and features of pictures of any size.

    Raises:
        CheckpointError: The file or its card is missing or broken.
    """

    def __init__(self, path: Path) -> None:
        self.segmenter = load_segmenter(path)
        self.card = read_card(path)

    def masks(self, pictures: Sequence[Picture]) -> list[Mask]:
        """The vessels it sees in each, at the pictures' own size."""
        sure = vessel_probability(self.segmenter, _small(pictures)).numpy()
        found = []
        for picture, plane in zip(pictures, sure, strict=True):
            whole = cv2.resize(plane, picture.shape[::-1], interpolation=cv2.INTER_LINEAR)
            found.append(whole > 0.5)
        return found

    def features(self, pictures: Sequence[Picture]) -> Float64[np.ndarray, "n d"]:
        """What each looks like, softened as before every verdict."""
        rng = torch.Generator().manual_seed(0)
        with torch.no_grad():
            parts = [
                self.segmenter.features(softened(to_levels(some[:, None]), rng))
                for some in _small(pictures).split(4)
            ]
        features: np.ndarray = torch.cat(parts).double().numpy()
        return features

    @property
    def name(self) -> str:
        """For reports: what the features are."""
        return (
            f"bottleneck mean and deviation of the vessel U-Net {self.card['sha256'][:8]} at {JUDGED_PX} px, "
            f"softened, main components of the reference; not the FID or MMD of publications"
        )


def _small(pictures: Sequence[Picture]) -> torch.Tensor:
    side = (JUDGED_PX, JUDGED_PX)
    return torch.from_numpy(
        np.stack([cv2.resize(picture, side, interpolation=cv2.INTER_AREA) for picture in pictures])
    )


def summary(values: Sequence[float], patients: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Mean over frames, its 95 % interval by patient, and of how many frames the figure exists."""
    array = np.asarray(values, np.float64)
    mean, low, high = mean_interval(array, patients, seed=seed)
    return {"value": mean, "low": low, "high": high, "n": int((~np.isnan(array)).sum())}


def agreement(
    drawn: Sequence[Mask], truth: Sequence[Mask], patients: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Drawn vessels against true ones: Dice, clDice and the centrelines' distance, with their intervals."""
    pairs = list(zip(drawn, truth, strict=True))
    figures = {
        "dice": [dice(p, t) for p, t in pairs],
        "cldice": [centreline_dice(p, t) for p, t in pairs],
        "centreline_px": [centreline_distance_px(p, t) for p, t in pairs],
    }
    return flat(figures, patients, seed) | {"nothing_drawn": float(np.mean([not p.any() for p in drawn]))}


def shape_figures(
    drawn: Sequence[Mask], fields: Sequence[Mask], patients: Sequence[str], seed: int = 0
) -> dict[str, Any]:
    """Do they look like a tree: connectivity, area, share on the border."""
    side = min(fields[0].shape)
    least = max(1, round(LEAST_PX * (side / LEAST_AT_PX) ** 2))
    reach = max(2, round(BORDER_SHARE * side))
    figures = {
        "connectivity": [connectivity(mask, least) for mask in drawn],
        "area": [
            float((mask & field).sum() / field.sum()) for mask, field in zip(drawn, fields, strict=True)
        ],
        "border": [border_share(mask, field, reach) for mask, field in zip(drawn, fields, strict=True)],
    }
    return flat(figures, patients, seed)


def flat(figures: dict[str, list[float]], patients: Sequence[str], seed: int = 0) -> dict[str, Any]:
    """Each figure's mean under its own name, and all intervals under `interval`."""
    found = {name: summary(values, patients, seed) for name, values in figures.items()}
    return {name: one["value"] for name, one in found.items()} | {
        "interval": {name: [one["low"], one["high"]] for name, one in found.items()}
    }


@dataclass(frozen=True)
class Yardstick:
    """A reference set of real pictures: what other sets are held against."""

    project: Projection
    reference: Float64[np.ndarray, "n d"]
    bandwidth: float
    patients: tuple[str, ...]

    @classmethod
    def of(cls, features: Float64[np.ndarray, "n d"], patients: Sequence[str]) -> "Yardstick":
        """From the features of real angiograms and whose they are."""
        project = Projection.of(features)
        reference = project(features)
        return cls(project, reference, median_bandwidth(reference), tuple(patients))

    def distance(self, features: Float64[np.ndarray, "n d"]) -> Distances:
        """From the reference."""
        return distances(self.project(features), self.reference, self.bandwidth)

    def halves(self, seed: int) -> list[Distances]:
        """Real against real, by patient."""
        return halves(self.reference, self.patients, self.bandwidth, seed=seed)


def distance_figures(
    yardstick: Yardstick, sets: dict[str, Float64[np.ndarray, "_ d"]], features: str, seed: int
) -> dict[str, Any]:
    """`frechet` and `mmd` of the report: of the model, and beside it of every other set.

    Args:
        yardstick: Real angiograms of other patients.
        sets: Features by name; `model` is what is judged.
        features: What they are.
        seed: Of the halves.
    """
    found = {name: yardstick.distance(values) for name, values in sets.items()}
    parts = yardstick.halves(seed)

    def of_halves(name: str) -> dict[str, Any]:
        values = [getattr(part, name) for part in parts]
        return {
            "mean": float(np.mean(values)) if values else None,
            "sd": float(np.std(values)) if values else None,
            "splits": len(values),
            "n": list(parts[0].n) if parts else None,
        }

    def others(name: str) -> dict[str, float]:
        return {key: getattr(one, name) for key, one in found.items() if key != "model"}

    model = found["model"]
    return {
        "frechet": {
            "features": features,
            "n": list(model.n),
            "value": model.frechet,
            **others("frechet"),
            "real_halves": of_halves("frechet"),
        },
        "mmd": {
            "features": features,
            "n": list(model.n),
            "rbf": model.mmd_rbf,
            "polynomial": model.mmd_polynomial,
            "bandwidth": yardstick.bandwidth,
            "others_rbf": others("mmd_rbf"),
            "others_polynomial": others("mmd_polynomial"),
            "real_halves_rbf": of_halves("mmd_rbf"),
            "real_halves_polynomial": of_halves("mmd_polynomial"),
        },
    }


def layer(live: Picture, synthetic: Picture) -> Float32[np.ndarray, "h w"]:
    """What was added: y_g - x, in grey levels of 255."""
    added: np.ndarray = synthetic.astype(np.float32) - live
    return added
