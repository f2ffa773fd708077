"""Frames of both domains, unpaired: X contrast-free, Y filled, split by patient, in memory as bytes.

folder -> runs -> training size -> field -> the run's grey levels -> domain of each frame -> train | test
"""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, UInt8
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from calib.filling import FILLED, PLAIN
from calib.intensity import field_landmarks, landmark_table, mean_percentiles
from calib.phantom import Phantom, training_pairs
from casgan.archive import Archive, Run, read_archive
from casgan.data import patient_config
from casgan.domains import Decision, decide, overridden, read_overrides, write_decisions
from casgan.errors import DataError
from casgan.field import margin_px
from casgan.runs import load_run
from casgan.split import check_domains, choose_test_patients

VesselArea = Callable[[UInt8[Tensor, "n h w"]], Float[Tensor, " n"]]
"""Share of each picture, 0 to 1, that is vessel. Grey levels 0 to 255 as `Frames` holds them."""

MIN_SIZE = 64

ZOOM = (1.0, 1.2)
ROTATION_DEG = 8.0
SHIFT = 0.08
"""Of the picture's side, either way."""
GAIN = (0.85, 1.2)
OFFSET = 0.08
GAMMA = (0.8, 1.25)
NOISE = 0.02
"""Largest standard deviation, in grey levels of 0 to 1."""


@dataclass(frozen=True)
class Frames:
    """Frames of one domain."""

    grey: UInt8[Tensor, "n 1 h w"]
    """Grey levels 0 to 255, after the run's own normalisation."""
    field: UInt8[Tensor, "n 1 h w"]
    """1 inside the collimated field."""
    patients: tuple[str, ...]
    runs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.grey)

    @functools.cached_property
    def weights(self) -> Float[Tensor, " n"]:
        """How often each frame is drawn, so that every run is drawn as often as another."""
        of_run = Counter(self.runs)
        return torch.tensor([1.0 / of_run[run] for run in self.runs])

    def sha256(self) -> str:
        """Hash of the pictures, their fields and whose they are."""
        digest = hashlib.sha256("\n".join((*self.patients, "", *self.runs)).encode())
        for part in (self.grey, self.field):
            digest.update(repr(tuple(part.shape)).encode())
            digest.update(part.contiguous().numpy().tobytes())
        return digest.hexdigest()


@dataclass(frozen=True)
class Unpaired:
    """Both domains of one set of patients."""

    plain: Frames
    """Domain X."""
    filled: Frames
    """Domain Y."""

    @property
    def patients(self) -> frozenset[str]:
        """All who gave a frame."""
        return frozenset(self.plain.patients + self.filled.patients)

    def sha256(self) -> str:
        """Hash of the data, for the model's card."""
        return hashlib.sha256((self.plain.sha256() + self.filled.sha256()).encode()).hexdigest()


class UnpairedBatch(NamedTuple):
    """Pictures -1 to 1 and fields 0 or 1 of both domains; nothing pairs x[i] with y[i]."""

    x: Float32[Tensor, "b 1 h w"]
    x_field: Float32[Tensor, "b 1 h w"]
    y: Float32[Tensor, "b 1 h w"]
    y_field: Float32[Tensor, "b 1 h w"]


def unpaired_archive(
    folder: Path,
    size: int,
    vessel_area: VesselArea,
    test_patients: tuple[str, ...] | None = None,
    overrides: Path | None = None,
    report: Callable[[str], None] = print,
    decisions: Path | None = None,
) -> tuple[Unpaired, Unpaired]:
    """Read a site's own frames and split them by patient.

    Args:
        folder: As `read_archive` takes it.
        size: Rows and columns of a training picture; other shapes are letterboxed, aspect kept.
        vessel_area: Tells filled from contrast-free frames.
        test_patients: Who is kept for the test; None takes the last fifth of the patients in natural order.
        overrides: A table of decisions changed by a person.
        report: Takes lines of text on what was found and decided.
        decisions: Where to write the table of decisions; None for nowhere.

    Returns:
        (train, test). No patient is in both.

    Raises:
        DataError: The folder or the override file cannot be used, or a domain or a second patient is missing.
        ValueError: `size` is below 64.
    """
    if size < MIN_SIZE:
        raise ValueError(f"size must be {MIN_SIZE} pixels or above, got {size}")
    archive = read_archive(folder)
    for line in _summary(archive, size):
        report(line)
    by_person: dict[tuple[str, int], str] = {}
    if overrides is not None:
        by_person = read_overrides(overrides, {(run.patient, run.name): run.count for run in archive.runs})
    table: list[Decision] = []
    chosen: list[_Chosen] = []
    for run in tqdm(archive.runs, desc="reading runs", unit="run", disable=None):
        loaded = load_run(run, size)
        rows = overridden(_decisions(run, loaded.grey, vessel_area), by_person)
        table += rows
        for domain in (PLAIN, FILLED):
            indices = [row.frame for row in rows if row.domain == domain]
            if indices:
                chosen.append(_Chosen(run, domain, loaded.grey[indices], loaded.field))
    if decisions is not None:
        write_decisions(decisions, table)
    unclear = sorted({row.run for row in table if row.why.startswith("the run never fills")})
    if unclear:
        report(
            f"{len(unclear)} runs never fill clearly and are left out ({unclear[0]} first); an override file can tell"
        )
    check_domains(folder, table)
    test = choose_test_patients(archive, table, test_patients)
    parts = []
    for members in (frozenset(archive.patients) - test, test):
        sides = [
            _frames([part for part in chosen if part.run.patient in members and part.domain == domain])
            for domain in (PLAIN, FILLED)
        ]
        parts.append(Unpaired(*sides))
    train_set, test_set = parts
    _check_leak(train_set, test_set)
    for name, part in (("train", train_set), ("test", test_set)):
        report(
            f"{name}: {len(part.plain)} contrast-free frames of {len(set(part.plain.runs))} runs and "
            f"{len(part.filled)} filled ones of {len(set(part.filled.runs))} runs; {len(part.patients)} patients"
        )
    return train_set, test_set


def _decisions(run: Run, grey: UInt8[np.ndarray, "n h w"], vessel_area: VesselArea) -> list[Decision]:
    if run.domain is not None:
        return [
            Decision(run.patient, run.name, frame, None, run.domain, "by the folder's layout")
            for frame in range(run.count)
        ]
    areas = vessel_area(torch.from_numpy(grey)).double().numpy()
    if areas.shape != (run.count,) or not np.isfinite(areas).all():
        raise ValueError(f"vessel_area must return {run.count} finite shares, got {areas.shape}")
    return decide(run.patient, run.name, areas)


@dataclass(frozen=True)
class _Chosen:
    """The frames of one run that belong to one domain."""

    run: Run
    domain: str
    grey: UInt8[np.ndarray, "n h w"]
    field: Bool[np.ndarray, "h w"]


def _frames(parts: Sequence[_Chosen]) -> Frames:
    grey = np.concatenate([part.grey for part in parts])
    field = np.concatenate([np.repeat(part.field[None], len(part.grey), 0) for part in parts])
    whose = [part.run for part in parts for _ in part.grey]
    return Frames(
        torch.from_numpy(grey[:, None]),
        torch.from_numpy(field[:, None].astype(np.uint8)),
        tuple(run.patient for run in whose),
        tuple(run.name for run in whose),
    )


def _summary(archive: Archive, size: int) -> list[str]:
    """What a person should know of a folder before its frames are read."""
    lines = [
        f"{archive.folder}: {len(archive.runs)} runs of {len(archive.patients)} patients, "
        f"{sum(run.count for run in archive.runs)} frames"
    ]
    lines += archive.notes
    sides = Counter((run.rows, run.columns) for run in archive.runs)
    if len(sides) > 1 or any(rows != columns for rows, columns in sides):
        listed = ", ".join(f"{rows} x {columns} ({n} runs)" for (rows, columns), n in sides.most_common(4))
        lines.append(
            f"sizes {listed}: brought to {size} x {size}, aspect kept, the rest left black outside the field"
        )
    depths = Counter(run.bits_stored for run in archive.runs)
    if len(depths) > 1:
        listed = ", ".join(f"{bits} ({n} runs)" for bits, n in sorted(depths.items()))
        lines.append(f"bits stored {listed}: every run is brought to its own grey levels")
    return lines


def _check_leak(train: Unpaired, test: Unpaired) -> None:
    """The same picture under two patients' names would be in both halves."""
    of_train = {
        picture.numpy().tobytes(): run
        for frames in (train.plain, train.filled)
        for picture, run in zip(frames.grey, frames.runs, strict=True)
    }
    for frames in (test.plain, test.filled):
        for picture, run in zip(frames.grey, frames.runs, strict=True):
            other = of_train.get(picture.numpy().tobytes())
            if other is not None:
                raise DataError(
                    f"runs {other} (training) and {run} (test) share a picture, so they are of one patient; put both "
                    "under one patient's folder"
                )


def reference_greys(frames: Frames) -> tuple[tuple[float, float], ...]:
    """(percentile, grey level 0 to 1) inside the field, mean over frames: what a site's frames are brought to."""
    found = mean_percentiles(frames.grey[:, 0].numpy(), frames.field[:, 0].numpy() > 0)
    return tuple((percent, grey / 255.0) for percent, grey in found)


def unpaired_phantom(size: int, plain_seeds: range, filled_seeds: range, frames_per_seed: int) -> Unpaired:
    """Frames of the digital phantom, contrast-free of some patients and filled of others.

    Raises:
        ValueError: The two ranges share a seed, one is empty, or `frames_per_seed` is below 1.
    """
    shared = set(plain_seeds) & set(filled_seeds)
    if shared or not plain_seeds or not filled_seeds:
        what = f"both holding {min(shared)}" if shared else f"{plain_seeds} and {filled_seeds}"
        raise ValueError(f"plain_seeds and filled_seeds must be two ranges without a common seed, got {what}")
    return Unpaired(
        _phantom_frames(size, plain_seeds, frames_per_seed, filled=False),
        _phantom_frames(size, filled_seeds, frames_per_seed, filled=True),
    )


def _phantom_frames(size: int, seeds: range, frames_per_seed: int, filled: bool) -> Frames:
    grey = np.empty((len(seeds) * frames_per_seed, 1, size, size), np.uint8)
    field = np.empty_like(grey)
    at = 0
    for seed in tqdm(seeds, desc="rendering patients", unit="patient", disable=None):
        config = patient_config(seed)
        phantom = Phantom(replace(config, rows=size, columns=size))
        inside = cv2.erode(
            (phantom.field > 0.5).astype(np.uint8), np.ones((3, 3), np.uint8), iterations=margin_px(size)
        )
        table = None
        for plain, angiogram, _ in training_pairs(size, [seed], frames_per_seed, config):
            if table is None:
                # A run's first frame is contrast-free, whatever the later ones show.
                low, high = field_landmarks(plain * 255.0, inside.astype(bool))
                table, _ = landmark_table(low, high, 8)
            stored = 255.0 * (angiogram if filled else plain)
            grey[at, 0] = np.rint(255.0 * np.interp(stored, np.arange(256.0), table))
            field[at, 0] = inside
            at += 1
    whose = tuple(f"phantom {seed}" for seed in seeds for _ in range(frames_per_seed))
    return Frames(torch.from_numpy(grey), torch.from_numpy(field), whose, whose)


def augmented_unpaired(data: Unpaired, count: int, rng: torch.Generator) -> UnpairedBatch:
    """Draw `count` frames of each domain and change them at random.

    Shift, zoom and rotation up to 8 degrees, gain, offset, gamma, blur and noise: our choice, and the same
    for both domains, so that none of them tells the domains apart. A run weighs as much as another, however
    many frames it has, since neighbouring frames are nearly the same. The same generator gives the same batch.

    Args:
        data: Frames of both domains; not changed.
        count: Pictures of each domain.
        rng: A generator on the CPU.

    Returns:
        New tensors on the CPU.
    """
    return UnpairedBatch(*_augmented(data.plain, count, rng), *_augmented(data.filled, count, rng))


def plain_batch(
    frames: Frames, indices: Tensor
) -> tuple[Float32[Tensor, "b 1 h w"], Float32[Tensor, "b 1 h w"]]:
    """Some frames of one domain and their fields, unchanged."""
    return frames.grey[indices].float() / 127.5 - 1.0, frames.field[indices].float()


def _augmented(frames: Frames, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
    indices = torch.multinomial(frames.weights, count, replacement=True, generator=rng)
    grey, field = frames.grey[indices].float() / 255.0, frames.field[indices].float()

    def uniform(low: float, high: float) -> Float[Tensor, "b 1 1 1"]:
        return low + (high - low) * torch.rand(count, 1, 1, 1, generator=rng)

    angle = torch.deg2rad(uniform(-ROTATION_DEG, ROTATION_DEG)).flatten()
    zoom = uniform(*ZOOM).flatten()
    moved = [2.0 * uniform(-SHIFT, SHIFT).flatten() for _ in range(2)]
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    affine = torch.stack(
        [torch.stack([cosine, -sine, moved[0]], 1), torch.stack([sine, cosine, moved[1]], 1)], 1
    )
    places = functional.affine_grid(affine, list(grey.shape), align_corners=False)
    grey = functional.grid_sample(grey, places, mode="bilinear", padding_mode="border", align_corners=False)
    field = functional.grid_sample(field, places, mode="bilinear", padding_mode="zeros", align_corners=False)
    field = (field > 0.999).float()

    softness = uniform(0.0, 1.0) * (uniform(0.0, 1.0) < 0.5)
    blurred = functional.avg_pool2d(functional.pad(grey, (1,) * 4, mode="replicate"), 3, stride=1)
    grey = torch.lerp(grey, blurred, softness)
    grey = uniform(*GAIN) * grey.clamp(0.0, 1.0) ** uniform(*GAMMA) + uniform(-OFFSET, OFFSET)
    noise = torch.randn(grey.shape, generator=rng)
    grey = grey + noise * uniform(0.0, NOISE) * (uniform(0.0, 1.0) < 0.5)
    return 2.0 * grey.clamp(0.0, 1.0) - 1.0, field
