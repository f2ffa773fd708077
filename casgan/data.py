"""Training pictures: paired phantom frames in memory, and the augmentation of a batch."""

import dataclasses
import functools
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import cv2
import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional

from calib.config import PhantomConfig
from calib.intensity import mean_percentiles
from calib.phantom import Phantom, training_pairs
from calib.phantom_inlay import inlaid_pairs
from casgan.vessel_metrics import skeleton

Batch = tuple[
    Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"], Float[Tensor, "b 1 h w"]
]
"""Plain, angiogram (both -1 to 1), vessel mask (0 or 1), and the vessels' middle lines, 3 pixels wide (0 or 1)."""

REFERENCE_PATIENTS = 40
"""Patients whose pictures tell the grey levels of all."""
FIELD_OPEN = 0.99
"""Share of the beam that the blades let through, above which a pixel is inside the field."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of one set of patients. Grey levels 0 to 1 in half precision, to keep the pool small."""

    plain: Float[Tensor, "n 1 h w"]
    angiogram: Float[Tensor, "n 1 h w"]
    mask: Float[Tensor, "n 1 h w"]
    line: Float[Tensor, "n 1 h w"]

    def __len__(self) -> int:
        return len(self.plain)

    def sha256(self) -> str:
        """Hash of the data, for the model's card."""
        digest = hashlib.sha256()
        for part in (self.plain, self.angiogram, self.mask, self.line):
            digest.update(part.numpy().tobytes())
        return digest.hexdigest()


def patient_config(seed: int) -> PhantomConfig:
    """How the pictures of a training patient are taken: dose, scatter and field differ from one to the next."""
    rng = np.random.default_rng((seed, 0x7EAC))
    return PhantomConfig(
        seed=seed,
        dose=float(np.exp(rng.uniform(np.log(0.15), np.log(2.0)))),
        scatter=float(rng.uniform(0.1, 0.5)),
        field_mm=float(rng.uniform(125.0, 175.0)),
        collimated=bool(rng.random() < 0.6),
    )


def phantom_pairs(size: int, seeds: range, frames_per_patient: int) -> Pairs:
    """Render the pairs of some patients; the same arguments give the same bytes."""

    def render() -> Iterator[tuple[np.ndarray, ...]]:
        for seed in seeds:
            for pair in training_pairs(size, [seed], frames_per_patient, patient_config(seed)):
                yield *pair, middle_line(pair[2])

    return _pool(render(), len(seeds) * frames_per_patient, size)


@functools.cache
def phantom_reference(size: int, seeds: range) -> tuple[tuple[float, float], ...]:
    """(percentile, grey level) inside the field of contrast-free training pictures, mean over patients, one picture each.

    The phantom's pairs are taught with the grey levels that they have, so these are what a site's frames are
    brought to.

    Args:
        size: Rows and columns of the training pictures.
        seeds: Training patients; the first `REFERENCE_PATIENTS` of them are enough.
    """
    pictures, fields = [], []
    for seed in seeds[:REFERENCE_PATIENTS]:
        config = replace(patient_config(seed), rows=size, columns=size)
        pictures.append(next(training_pairs(size, [seed], 1, config))[0])
        # Of the blades' blurred edge nothing is to count.
        fields.append(Phantom(config).field > FIELD_OPEN)
    return mean_percentiles(np.stack(pictures), np.stack(fields))


def real_background_pairs(
    grey: UInt8[Tensor, "n 1 h w"], field: UInt8[Tensor, "n 1 h w"], seeds: range, frames_per_patient: int
) -> Pairs:
    """Pairs on real contrast-free frames, with vessels of phantom patients at places that mean nothing.

    Args:
        grey: Frames with their run's grey levels, 0 to 255.
        field: 1 inside the collimated field.
        seeds: Whose vessels are laid in; the same arguments give the same bytes.
        frames_per_patient: Pairs of each.

    Raises:
        ValueError: A frame has hardly any field.
    """
    size = grey.shape[-1]
    backgrounds, fields = list(grey[:, 0].numpy()), list(field[:, 0].numpy().astype(bool))
    pairs = inlaid_pairs(backgrounds, fields, size, seeds, frames_per_patient)
    lined = ((*pair, middle_line(pair[2])) for pair in pairs)
    return _pool(lined, len(seeds) * frames_per_patient, size)


def joined(first: Pairs, second: Pairs) -> Pairs:
    """The pairs of both."""
    names = [part.name for part in dataclasses.fields(Pairs)]
    return Pairs(*(torch.cat([getattr(first, name), getattr(second, name)]) for name in names))


def _pool(pairs: Iterator[tuple[np.ndarray, ...]], count: int, size: int) -> Pairs:
    parts = [torch.empty(count, 1, size, size, dtype=torch.float16) for _ in range(4)]
    for index, pair in enumerate(pairs):
        for part, picture in zip(parts, pair, strict=True):
            part[index, 0] = torch.from_numpy(picture)
    return Pairs(*parts)


def middle_line(mask: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "h w"]:
    """The skeleton of a vessel mask, widened by a pixel to each side but never beyond the mask."""
    line: np.ndarray = cv2.dilate(skeleton(mask > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8)) * mask
    return line.astype(np.float32)


def batch_of(pairs: Pairs, indices: Tensor) -> Batch:
    """Some pairs as the network takes them, without augmentation."""
    plain, angiogram, mask, line = _picked(pairs, indices)
    return 2.0 * plain - 1.0, 2.0 * angiogram - 1.0, mask, line


def _picked(pairs: Pairs, indices: Tensor) -> tuple[Tensor, ...]:
    return tuple(part[indices].float() for part in (pairs.plain, pairs.angiogram, pairs.mask, pairs.line))


def augmented_batch(pairs: Pairs, count: int, rng: torch.Generator) -> Batch:
    """A random batch whose pictures are shifted, blurred, noisy, of other grey levels and partly covered.

    Both pictures of a pair get the same treatment, so they still differ in the vessels alone. No mirror
    image and no rotation: where the vessels lie follows from the heart's pose.
    """
    indices = torch.randint(len(pairs), (count,), generator=rng)
    pictures = torch.cat(_picked(pairs, indices), dim=1)
    pictures = torch.stack([_shifted(picture, rng) for picture in pictures])
    grey, truth = pictures[:, :2], pictures[:, 2:]

    def uniform(low: float, high: float) -> Tensor:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=rng)

    softness = uniform(0.0, 1.0) * (uniform(0.0, 1.0) < 0.5)
    blurred = functional.avg_pool2d(functional.pad(grey, (1,) * 4, mode="replicate"), 3, stride=1)
    grey = torch.lerp(grey, blurred, softness)
    noise = torch.randn(count, 1, *grey.shape[-2:], generator=rng)
    grey = grey + noise * uniform(0.0, 0.03) * (uniform(0.0, 1.0) < 0.5)
    grey = uniform(0.75, 1.25) * grey.clamp(0.0, 1.0) ** uniform(0.7, 1.5) + uniform(-0.15, 0.15)
    grey = grey.clamp(0.0, 1.0)
    open_field = _uncovered(grey.shape[-2:], count, rng)
    grey, truth = grey * open_field, truth * open_field
    return 2.0 * grey[:, :1] - 1.0, 2.0 * grey[:, 1:] - 1.0, truth[:, :1], truth[:, 1:]


def _shifted(picture: Tensor, rng: torch.Generator) -> Tensor:
    """Moved by up to 1/8 of the side, edges replicated; the latent's grid must not matter."""
    rows, columns = picture.shape[-2:]
    reach = rows // 8
    padded = functional.pad(picture[None], (reach,) * 4, mode="replicate")[0]
    top, left = (int(v) for v in torch.randint(2 * reach + 1, (2,), generator=rng))
    return padded[:, top : top + rows, left : left + columns]


def _uncovered(shape: torch.Size, count: int, rng: torch.Generator) -> Tensor:
    """1 but in the black bars that a letterbox leaves, for a third of the pictures."""
    rows, columns = shape
    field = torch.ones(count, 1, rows, columns)
    for picture in field:
        if float(torch.rand((), generator=rng)) < 1 / 3:
            bar = int(torch.randint(1, rows // 5, (), generator=rng))
            if float(torch.rand((), generator=rng)) < 0.7:
                picture[:, :bar] = picture[:, rows - bar :] = 0.0
            else:
                picture[:, :, :bar] = picture[:, :, columns - bar :] = 0.0
    return field
