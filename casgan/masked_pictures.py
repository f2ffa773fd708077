"""Pictures with vessel masks, to teach a segmenter on: phantom angiograms, or a folder of pairs."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from calib.intensity import field_landmarks, landmark_table
from calib.phantom import training_pairs
from casgan.data import patient_config
from casgan.errors import CheckpointError
from casgan.field import collimated_field

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
PLAIN_EVERY = 4
"""Every how many phantom pictures one shows no contrast medium, so that catheter and ribs are learnt as such."""


@dataclass(frozen=True)
class MaskedPictures:
    """Angiograms with their vessels marked; `groups` names the patient or set that each one is from."""

    pictures: UInt8[Tensor, "n c h w"]
    """One each, or several of one moment."""
    masks: UInt8[Tensor, "n 1 h w"]
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.pictures)

    def chosen(self, indices: list[int]) -> "MaskedPictures":
        """Some of them."""
        return MaskedPictures(
            self.pictures[indices], self.masks[indices], tuple(self.groups[index] for index in indices)
        )

    def parted(self) -> tuple["MaskedPictures", "MaskedPictures"]:
        """Those to learn from and those held out, by group: what calls itself a test set, else the last fifth."""
        names = sorted(set(self.groups))
        held = {name for name in names if name.lower().startswith("test")}
        if not held or len(held) == len(names):
            held = set(names[-max(1, len(names) // 5) :])
        learn = [index for index, name in enumerate(self.groups) if name not in held]
        if not learn:
            raise CheckpointError(
                f"a segmenter needs pictures of at least two patients, got only {names[0]!r}; "
                f"one part of them has to be held out"
            )
        return self.chosen(learn), self.chosen([i for i, name in enumerate(self.groups) if name in held])


def phantom_pictures(seeds: range, size: int, frames_per_seed: int = 2) -> MaskedPictures:
    """Phantom angiograms of a population, from all sides: every tree its own, faint to full; every fourth has none.

    Args:
        seeds: The patients. Keep those of training, of judging and of evaluation apart.
        size: Rows and columns.
        frames_per_seed: Pictures of each patient.
    """
    pictures: list[np.ndarray] = []
    masks: list[np.ndarray] = []
    groups: list[str] = []
    for seed in seeds:
        rng = np.random.default_rng((seed, 0x5E6))
        config = replace(
            patient_config(seed),
            variation=float(rng.uniform(0.0, 1.0)),
            primary_angle_deg=float(rng.uniform(-50.0, 50.0)),
            secondary_angle_deg=float(rng.uniform(-35.0, 35.0)),
        )
        for plain, angiogram, mask in training_pairs(size, [seed], frames_per_seed, config):
            filled = len(pictures) % PLAIN_EVERY != 0
            strength = rng.uniform(0.6, 1.4) if filled else 0.0
            grey = np.clip(plain + strength * (angiogram - plain), 0.0, 1.0)
            pictures.append((255.0 * grey + 0.5).astype(np.uint8))
            masks.append((mask * filled).astype(np.uint8))
            groups.append(f"phantom {seed}")
    return MaskedPictures(_stacked(pictures), _stacked(masks), tuple(groups))


def read_pictures(folder: Path, size: int) -> MaskedPictures:
    """Pictures and masks of a folder, as squares of one size.

    Three layouts are known: `N.png` beside `N_gt.png`; `images/` beside `masks/` with equal names; and runs with
    `frames/` beside `segmentedFrames/`, whose masks end in `_gt`. The first folder below `folder` names the
    patient or set; where there is none, each picture is a group of its own. Grey levels are brought to those of the
    frames that networks are taught on (`calib.intensity.landmark_table`), by the picture's own field.

    Args:
        folder: Where they lie, at any depth.
        size: Rows and columns to bring them to; what is not square loses its longer side's ends.

    Raises:
        CheckpointError: No pair is found, or a file is no picture or of another size than its mask.
    """
    pictures, masks, groups = [], [], []
    for picture_path, mask_path in sorted(_pairs(folder)):
        picture, mask = _read(picture_path), _read(mask_path)
        if picture.shape != mask.shape:
            raise CheckpointError(
                f"{mask_path} must be as large as its picture, {picture.shape[0]}x{picture.shape[1]} pixels, "
                f"got {mask.shape[0]}x{mask.shape[1]}"
            )
        marked = (mask >= 128).astype(np.uint8) * 255
        pictures.append(_levelled(_square(picture, size)))
        masks.append((_square(marked, size) >= 128).astype(np.uint8))
        parts = picture_path.relative_to(folder).parts
        flat = len(parts) < 2 or parts[0] in ("images", "frames")
        groups.append(picture_path.stem if flat else parts[0])
    if not pictures:
        raise CheckpointError(
            f"needed pictures with masks in {folder}, found none; lay them out as N.png beside N_gt.png, or as "
            f"images/ beside masks/ with equal names"
        )
    return MaskedPictures(_stacked(pictures), _stacked(masks), tuple(groups))


def _pairs(folder: Path) -> Iterator[tuple[Path, Path]]:
    files = [path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES]
    named = {(path.parent, path.stem): path for path in files}
    beside = {"masks": "images", "segmentedFrames": "frames"}
    for mask in files:
        home = mask.parent
        if home.name in beside:
            home = home.parent / beside[home.name]
        elif not mask.stem.endswith("_gt"):
            continue
        if (picture := named.get((home, mask.stem.removesuffix("_gt")))) is not None:
            yield picture, mask


def _read(path: Path) -> np.ndarray:
    picture = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    if picture is None:
        raise CheckpointError(f"{path} must be a picture, got a file that cannot be decoded; remove it")
    return np.asarray(picture, np.uint8)


def _square(picture: np.ndarray, size: int) -> np.ndarray:
    rows, columns = picture.shape
    side = min(rows, columns)
    top, left = (rows - side) // 2, (columns - side) // 2
    inner = picture[top : top + side, left : left + side]
    # The mean over each new pixel's area: anything else leaves thin vessels broken.
    way = cv2.INTER_AREA if side >= size else cv2.INTER_LINEAR
    resized: np.ndarray = cv2.resize(inner, (size, size), interpolation=way)
    return resized


def _levelled(picture: np.ndarray) -> np.ndarray:
    """At the contrast of frames; a picture of one grey level stays as it is."""
    low, high = field_landmarks(picture, collimated_field(picture[None].astype(np.float32)))
    if not low < high:
        return picture
    table, _ = landmark_table(low, high, 8)
    levelled: np.ndarray = np.rint(255.0 * table).astype(np.uint8)[picture]
    return levelled


def _stacked(planes: list[np.ndarray]) -> Tensor:
    return torch.from_numpy(np.stack(planes))[:, None]
