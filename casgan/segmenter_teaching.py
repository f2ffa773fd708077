"""How a vessel segmenter is taught: crops turned, scaled and of other grey levels; BCE + Dice."""

import math
import time
from collections.abc import Callable

import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional

from casgan.device import best_device
from casgan.segmenter import VesselSegmenter, blurred

WARM_UP = 20
ZOOM, MOMENT_ZOOM = (0.6, 1.6), (0.8, 1.4)
BLUR_PX = (0.2, 1.5)
FREE_NOISE = 0.6
"""Of the noise of one frame: the contrast-free picture is a mean of three."""
THIN_WEIGHT = 2.0
"""By how much more a pixel of a vessel below three pixels counts where pictures of one moment are given: what noise hides alone."""


def segmentation_error(
    logits: Float[Tensor, "b 1 h w"], masks: Float[Tensor, "b 1 h w"], thin_weight: float = 0.0
) -> Float[Tensor, ""]:
    """Binary cross-entropy + 1 - soft Dice over the batch; our choice.

    Args:
        logits: Of "vessel".
        masks: 1 where one is.
        thin_weight: By how much more a pixel counts where the vessel is below three pixels wide.
    """
    weights = 1.0 + thin_weight * _thin(masks) if thin_weight else torch.ones_like(masks)
    entropy = functional.binary_cross_entropy_with_logits(logits, masks, weights, reduction="sum")
    found = weights * torch.sigmoid(logits)
    dice = (2.0 * (found * masks).sum() + 1.0) / (found.sum() + (weights * masks).sum() + 1.0)
    return entropy / weights.sum() + 1.0 - dice


def _thin(masks: Tensor) -> Tensor:
    """What an opening by 3 x 3 pixels takes away."""
    opened = functional.max_pool2d(-functional.max_pool2d(-masks, 3, 1, 1), 3, 1, 1)
    return masks * (1.0 - opened)


def teach_segmenter(
    pictures: UInt8[Tensor, "n c h w"],
    masks: UInt8[Tensor, "n 1 h w"],
    *,
    steps: int = 600,
    seed: int = 0,
    size: int = 160,
    batch: int = 8,
    base: int = 16,
    learning_rate: float = 1e-2,
    report: Callable[[str], None] | None = None,
) -> VesselSegmenter:
    """A segmenter taught on pictures with masks: BCE + Dice, AdamW, cosine to zero; on the first GPU where there is one.

    Args:
        pictures: Angiograms, 8-bit grey levels; with c above 1 each in its company (`casgan.phantom_moments`).
        masks: 1 where a vessel is.
        steps: Optimizer steps.
        seed: Of weights, order and augmentation.
        size: Rows and columns of the crops that it learns from.
        batch: Crops per step.
        base: Width, see `VesselSegmenter`.
        learning_rate: AdamW's peak.
        report: Gets a line now and then.

    Returns:
        The segmenter, in evaluation mode, on the CPU.

    Raises:
        ValueError: Pictures and masks do not fit together.
    """
    if pictures[:, :1].shape != masks.shape or not len(pictures):
        raise ValueError(
            f"every picture needs a mask of its size, got {tuple(pictures.shape)}, {tuple(masks.shape)}"
        )
    device = best_device()
    thin_weight = 0.0 if pictures.shape[1] == 1 else THIN_WEIGHT
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        segmenter = VesselSegmenter(base, pictures.shape[1])
        segmenter.to(device, memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(segmenter.parameters(), lr=learning_rate, weight_decay=1e-4)
    rng = torch.Generator().manual_seed(seed + 1)
    began, running = time.monotonic(), math.nan
    segmenter.train()
    for step in range(steps):
        rise = min(1.0, (step + 1) / WARM_UP)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / steps))
        chosen = torch.randint(len(pictures), (batch,), generator=rng)
        grey, marked = augmented(pictures[chosen], masks[chosen], size, rng)
        with torch.autocast(device.type, torch.bfloat16):
            logits = segmenter(grey.to(device, memory_format=torch.channels_last))
        error = segmentation_error(logits.float(), marked.to(device), thin_weight)
        optimizer.zero_grad(set_to_none=True)
        error.backward()
        optimizer.step()
        value = float(error.detach())
        running = value if math.isnan(running) else 0.95 * running + 0.05 * value
        if report is not None and (step + 1) % 20 == 0:
            rate = (step + 1) / (time.monotonic() - began)
            left_s = (steps - step - 1) / rate
            report(f"step {step + 1}/{steps}  error {running:.4f}  {rate:.2f} steps/s  {left_s:.0f} s left")
    segmenter.eval().to("cpu", memory_format=torch.contiguous_format)
    return segmenter


def augmented(
    pictures: UInt8[Tensor, "b c h w"], masks: UInt8[Tensor, "b 1 h w"], size: int, rng: torch.Generator
) -> tuple[Float[Tensor, "b c s s"], Float[Tensor, "b 1 s s"]]:
    """Crops turned, mirrored and scaled, of other grey levels, blurred, noisy, partly covered.

    Grey levels are treated roughly, so that what is learnt on the phantom half holds on real frames. Unlike
    the generator's, these pictures may be mirrored: where a vessel lies says nothing about what it looks like. Pictures of one
    moment are treated alike, but for noise, and for the last, the contrast-free one, which is a little lighter or darker.
    """
    count, together = pictures.shape[:2]
    alone = together == 1

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (count, 1, 1, 1), generator=rng)

    # A crop of `size` pixels of a picture that is zoomed about a random centre.
    rows, columns = pictures.shape[-2:]
    nearest, farthest = ZOOM if alone else MOMENT_ZOOM
    angle = uniform(-math.pi, math.pi, count)
    zoom = torch.exp(uniform(math.log(nearest), math.log(farthest), count))
    mirror = torch.sign(uniform(-1.0, 1.0, count))
    cosine, sine = torch.cos(angle) / zoom, torch.sin(angle) / zoom
    shift = uniform(-0.5, 0.5, count, 2)
    across, down = size / columns, size / rows
    affine = torch.stack(
        [
            torch.stack([cosine * mirror * across, -sine * down, shift[:, 0]], dim=1),
            torch.stack([sine * mirror * across, cosine * down, shift[:, 1]], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(affine, [count, 1, size, size], align_corners=False)
    planes = torch.cat([pictures, masks * 255], dim=1).float() / 255.0
    planes = functional.grid_sample(planes, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    grey, marked = planes[:, :-1], (planes[:, -1:] > 0.5).float()

    grey = grey.clamp(0.0, 1.0) ** torch.exp(uniform(math.log(0.6), math.log(1.7)))
    gain = torch.exp(uniform(math.log(0.5), math.log(1.5)))
    grey = grey * gain + uniform(-0.1, 0.3)
    bumps = uniform(-0.15, 0.15, count, 1, 5, 5) * uniform(0.0, 1.0)
    grey = grey + functional.interpolate(bumps, size=(size, size), mode="bicubic", align_corners=False)
    if alone:
        grey = blurred(grey, uniform(*BLUR_PX, count))
        noise = torch.randn(grey.shape, generator=rng)
        coarse = functional.interpolate(noise[..., ::2, ::2], size=(size, size), mode="bilinear")
        grey = grey + noise * uniform(0.0, 0.03) + coarse * uniform(0.0, 0.01)
    else:
        # Exposure control and scatter differ between the two, slowly over the picture.
        lighter = grey[:, -1:] * uniform(0.85, 1.15) + uniform(-0.05, 0.05)
        bumps = uniform(-0.1, 0.1, count, 1, 4, 4) * uniform(0.0, 1.0)
        lighter = lighter + functional.interpolate(
            bumps, size=(size, size), mode="bicubic", align_corners=False
        )
        noise = torch.randn(grey.shape, generator=rng)
        noise[:, -1:] *= FREE_NOISE
        grey = torch.cat([grey[:, :-1], lighter], dim=1) + noise * uniform(0.0, 0.025)
    return 2.0 * grey.clamp(0.0, 1.0) - 1.0, marked
