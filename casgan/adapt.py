# mypy: allow-subclassing-any
"""M taught on one patient: where these vessels lie behind these backgrounds.

    contrast-free frames -> E_BG (as it is) -> M and decoder learn -> A, C
    vessels of their moment, of one heartbeat ----^   ^---- of another heartbeat: they say when to stop

E_BG and the heads stay: a patient changes where vessels are, not how anatomy is read or how contrast medium looks.
"""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn import functional

from casgan.data import middle_line
from casgan.device import best_device
from casgan.losses import total_error
from casgan.networks import Generator
from casgan.patient_lessons import Lessons, angiograms
from casgan.vessel_metrics import DRAWN

EMA = 0.98
"""Of the weights that are judged and kept: vessels of a moment are known to a millimetre only, and a running average
follows none of these errors."""


@dataclass(frozen=True)
class AdaptSettings:
    """How a patient is taught.

    Raises:
        ValueError: A setting is out of range.
    """

    steps: int = 1500
    """At most; it ends earlier where the held-out heartbeats stop getting better."""
    batch: int = 4
    learning_rate: float = 1e-3
    """AdamW's peak, falling to zero on half a cosine over the steps or the seconds, whichever end first."""
    seconds: float = 240.0
    """At most."""
    check_every: int = 100
    """Steps from one look at the held-out heartbeats to the next."""
    patience: int = 6
    """Looks without a better result before it ends."""
    shift: float = 0.12
    """Pictures are moved by up to this share of their side, so that a moved table is known."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.steps, self.batch, self.check_every, self.patience) < 1:
            raise ValueError("steps, batch, check_every and patience must be 1 or above")
        if not 0.0 < self.learning_rate <= 0.1 or not self.seconds > 0.0 or not 0.0 <= self.shift <= 0.4:
            raise ValueError(
                f"learning_rate must be above 0 to 0.1, seconds above 0, shift 0 to 0.4, got {self.learning_rate}, "
                f"{self.seconds}, {self.shift}"
            )


@dataclass
class Taught:
    """What came of it."""

    generator: Generator
    """Adapted, without norms, in evaluation mode, on the CPU."""
    steps: int = 0
    seconds: float = 0.0
    history: list[tuple[int, float]] = field(default_factory=list)
    """(step, Dice of what is drawn on the held-out frames)."""


def learning_parts(generator: Generator) -> list[nn.Module]:
    """What a patient changes: M and the decoders."""
    return [generator.predictor, *generator.decoders]


def adapt(
    general: Generator,
    learn: Lessons,
    held: Lessons,
    settings: AdaptSettings,
    threshold: float,
    progress: Callable[[int, int, float], object] = lambda step, steps, dice: None,
) -> Taught:
    """Teach a copy of the general model, on the first GPU where there is one.

    Args:
        general: Without norms (`Generator.folded`), so that one patient's statistics change nothing else.
        learn: What it learns from.
        held: Other frames with another heartbeat's vessels, that say when to stop.
        settings: How.
        threshold: t of the attention's clamp.
        progress: Gets the step, the steps at most and the Dice on `held` so far (0 before the first look).

    Raises:
        ValueError: No frames to learn from or to hold out.
    """
    if not len(learn) or not len(held):
        raise ValueError(
            f"teaching needs frames to learn from and others held out, got {len(learn)} and {len(held)}"
        )
    began = time.monotonic()
    device = best_device()
    draw = torch.Generator().manual_seed(settings.seed)
    pool = _pool(learn)
    generator = copy.deepcopy(general).eval().requires_grad_(False).to(device)
    parameters = []
    for part in learning_parts(generator):
        parameters += list(part.requires_grad_(True).parameters())
    generator.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=1e-4)
    best_dice, best = held_dice(generator, held), copy.deepcopy(generator.state_dict())
    taught = Taught(generator, history=[(0, best_dice)])
    since, average = 0, copy.deepcopy(generator)
    for step in range(1, settings.steps + 1):
        # Whichever ends first, so that a slow machine's last steps are small ones too.
        gone = min(1.0, max(step / settings.steps, (time.monotonic() - began) / settings.seconds))
        rate = settings.learning_rate * min(1.0, step / 20.0) * 0.5 * (1.0 + math.cos(math.pi * gone))
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = tuple(part.to(device) for part in _batch(pool, settings, draw))
        _step(generator, optimizer, parameters, batch, threshold)
        _follow(average, generator, min(EMA, step / (step + 10.0)))
        taught.steps = step
        late = time.monotonic() - began > settings.seconds
        if step % settings.check_every == 0 or step == settings.steps or late:
            dice = held_dice(average, held)
            taught.history.append((step, dice))
            since += 1
            if dice > best_dice:
                best_dice, best, since = dice, copy.deepcopy(average.state_dict()), 0
        progress(step, settings.steps, best_dice)
        if late or since >= settings.patience:
            break
    generator.load_state_dict(best)
    generator.requires_grad_(False).to("cpu", memory_format=torch.contiguous_format)
    taught.seconds = time.monotonic() - began
    return taught


Pool = tuple[Tensor, Tensor, Tensor, Tensor]
"""Contrast-free, filled, mask and middle line, each (n, 1, s, s) uint8."""


def _pool(lessons: Lessons) -> Pool:
    lines = np.stack([middle_line(mask.astype(np.float32)) > 0.5 for mask in lessons.masks])
    laid = np.rint(angiograms(lessons)).clip(0, 255)
    planes = (lessons.plain, laid, lessons.masks, lines)
    plain, filled, masks, middle = (torch.from_numpy(part.astype(np.uint8))[:, None] for part in planes)
    return plain, filled, masks, middle


def _batch(pool: Pool, settings: AdaptSettings, draw: torch.Generator) -> tuple[Tensor, ...]:
    """Some pictures moved, turned a little, of other grey levels and noise; both pictures of a pair alike."""
    chosen = torch.randint(len(pool[0]), (settings.batch,), generator=draw)
    planes = torch.cat([part[chosen].float() for part in pool], dim=1)
    planes[:, :2] /= 255.0

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (len(chosen), 1, 1, 1), generator=draw)

    angle, zoom = uniform(-0.05, 0.05, len(chosen)), uniform(0.96, 1.04, len(chosen))
    # Half of them stay near: most frames do.
    reach = 2.0 * settings.shift * torch.where(torch.rand(len(chosen), 1, generator=draw) < 0.5, 1.0, 0.15)
    shift = uniform(-1.0, 1.0, len(chosen), 2) * reach
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    affine = torch.stack(
        [
            torch.stack([cosine, -sine, shift[:, 0]], dim=1),
            torch.stack([sine, cosine, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(affine, list(planes.shape), align_corners=False)
    planes = functional.grid_sample(planes, grid, padding_mode="reflection", align_corners=False)
    grey = planes[:, :2].clamp(0.0, 1.0) ** uniform(0.8, 1.25)
    grey = grey * uniform(0.9, 1.1) + uniform(-0.05, 0.05)
    noise = torch.randn(len(chosen), 1, *grey.shape[-2:], generator=draw)
    grey = (grey + noise * uniform(0.0, 0.02)).clamp(0.0, 1.0) * 2.0 - 1.0
    return grey[:, :1], grey[:, 1:], (planes[:, 2:3] > 0.5).float(), (planes[:, 3:] > 0.5).float()


def _step(
    generator: Generator,
    optimizer: torch.optim.Optimizer,
    parameters: Sequence[nn.Parameter],
    batch: tuple[Tensor, ...],
    threshold: float,
) -> None:
    plain, filled, mask, line = batch
    plain = plain.contiguous(memory_format=torch.channels_last)
    with torch.autocast(plain.device.type, torch.bfloat16):
        with torch.no_grad():
            z = generator.encode(plain)
        attention, context = generator.decode(generator.predict(z))
    error = total_error(attention.float(), context.float(), plain, filled, mask, line, threshold)
    optimizer.zero_grad(set_to_none=True)
    error.backward()
    nn.utils.clip_grad_norm_(parameters, 5.0)
    optimizer.step()


def _follow(average: Generator, generator: Generator, keep: float) -> None:
    with torch.no_grad():
        for old, new in zip(average.parameters(), generator.parameters(), strict=True):
            if new.requires_grad:
                old.lerp_(new, 1.0 - keep)


def drawn(
    generator: Generator, grey: UInt8[np.ndarray, "n s s"], batch: int = 4
) -> Float[np.ndarray, "n s s"]:
    """A of each picture, 0 to 1, before the clamp.

    Args:
        generator: In evaluation mode.
        grey: Grey levels 0 to 255, of the network's size.
        batch: Pictures at once.
    """
    parts = []
    device = next(generator.parameters()).device
    with torch.no_grad(), torch.autocast(device.type, torch.bfloat16):
        for some in torch.from_numpy(grey)[:, None].split(batch):
            attention, _ = generator.logits(some.to(device).float() * (2.0 / 255.0) - 1.0)
            parts.append(torch.sigmoid(attention.float())[:, 0].cpu())
    found: np.ndarray = torch.cat(parts).numpy()
    return found


def held_dice(generator: Generator, held: Lessons) -> float:
    """Mean Dice of what is drawn on contrast-free frames against the vessels of their moment."""
    found = drawn(generator, held.plain) > DRAWN
    overlap = (found & held.masks).sum(axis=(1, 2))
    both = found.sum(axis=(1, 2)) + held.masks.sum(axis=(1, 2))
    return float((2.0 * overlap / np.maximum(both, 1)).mean())
