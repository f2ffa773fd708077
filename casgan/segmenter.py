# mypy: allow-subclassing-any
"""The vessel U-Net: for the semantic loss, and, taught on other patients, as the judge that training never sees.

    python -m casgan.segmenter --data phantom --out casgan/segmenters/judge.safetensors

A U-Net that training looks through can be fooled by texture that no eye sees (stripes once satisfied it), so
`softened` stands before it wherever it judges, and what it says in training is checked by another one.
"""

import dataclasses
import hashlib
import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from casgan.device import best_device
from casgan.errors import CheckpointError
from casgan.masked_pictures import MaskedPictures, phantom_pictures, read_pictures
from casgan.unet import UNet

FORMAT = "contrastream.segmenter/1"
JUDGE = Path(__file__).parent / "segmenters" / "judge.safetensors"
"""The shipped judge, taught on phantom patients of its own."""
JUDGE_SEEDS = range(4000, 5000)
"""Phantom patients kept for the judge: neither training nor evaluation draws them."""
BLUR_PX = (0.4, 1.1)
NOISE = 0.05
"""Largest standard deviation of the noise before the segmenter, of grey levels -1 to 1."""
WARM_UP = 20


class VesselSegmenter(nn.Module):
    """Where contrast-filled vessels are: a U-Net, random start.

    Args:
        base: Channels at full resolution; doubled from the third level on. 16 gives 0.5 million parameters.
    """

    def __init__(self, base: int = 16) -> None:
        super().__init__()
        self.base = base
        # BatchNorm: as good as instance norm here, and three times as fast on a CPU once it is frozen.
        self.unet = UNet((base, base, 2 * base, 4 * base, 8 * base, base))

    def forward(self, picture: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b 1 h w"]:
        """Logits of "vessel" for grey levels -1 black to 1 white; sides best multiples of 16."""
        return self.unet(picture)

    def features(self, picture: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b d"]:
        """What the picture is like: mean and standard deviation of each bottleneck channel over the plane."""
        z = self.unet.levels(picture)[-1]
        return torch.cat([z.mean(dim=(2, 3)), z.std(dim=(2, 3), correction=0)], dim=1)


def softened(picture: Float[Tensor, "b 1 h w"], rng: torch.Generator) -> Float[Tensor, "b 1 h w"]:
    """A picture slightly blurred (0.4 to 1.1 px) and noisy (to 0.05), differently each time; gradients pass.

    Our choice: what is left is what an eye could see, so texture at the limit of the pixels cannot pass for
    a vessel.

    Args:
        picture: Grey levels, -1 black to 1 white.
        rng: A CPU generator.
    """
    count = picture.shape[0]
    low, high = BLUR_PX
    sigma = low + (high - low) * torch.rand(count, generator=rng)
    spread = NOISE * torch.rand(count, 1, 1, 1, generator=rng)
    noise = torch.randn(picture.shape, generator=rng) * spread
    return blurred(picture, sigma) + noise.to(picture)


def blurred(picture: Float[Tensor, "b 1 h w"], sigma_px: Float[Tensor, " b"]) -> Float[Tensor, "b 1 h w"]:
    """Each picture through a Gaussian of its own, 7 pixels wide."""
    across = torch.arange(-3, 4, device=picture.device)
    kernel = torch.exp(-0.5 * (across / sigma_px.to(picture)[:, None].float()) ** 2)
    kernel = (kernel / kernel.sum(dim=1, keepdim=True)).to(picture.dtype)
    count = picture.shape[0]
    # A group per picture, so that one convolution does them all.
    plane = functional.pad(picture.transpose(0, 1), (3, 3, 3, 3), mode="replicate")
    plane = functional.conv2d(plane, kernel[:, None, :, None], groups=count)
    return functional.conv2d(plane, kernel[:, None, None, :], groups=count).transpose(0, 1)


def to_levels(pictures: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """8-bit grey levels as the segmenter takes them, -1 black to 1 white."""
    return pictures.float() * (2.0 / 255.0) - 1.0


def vessel_probability(
    segmenter: VesselSegmenter, pictures: UInt8[Tensor, "n h w"], batch: int = 4
) -> Float[Tensor, "n h w"]:
    """How sure the segmenter is of a vessel at each pixel, 0 to 1; softened the same way in every call."""
    rng = torch.Generator().manual_seed(0)
    segmenter.eval()
    device = next(segmenter.parameters()).device
    with torch.no_grad():
        parts = [
            torch.sigmoid(segmenter(softened(to_levels(some[:, None]), rng).to(device)))[:, 0].cpu()
            for some in pictures.split(batch)
        ]
    return torch.cat(parts)


def vessel_area(segmenter: VesselSegmenter, pictures: UInt8[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Share of each picture that the segmenter takes for vessels, 0 to 1."""
    return (vessel_probability(segmenter, pictures) > 0.5).float().mean(dim=(1, 2))


def mean_dice(
    segmenter: VesselSegmenter, pictures: UInt8[Tensor, "n 1 h w"], masks: UInt8[Tensor, "n 1 h w"]
) -> float:
    """Mean Dice over the pictures that show vessels, at probability 0.5."""
    found = vessel_probability(segmenter, pictures[:, 0]) > 0.5
    truth = masks[:, 0] > 0
    shown = truth.flatten(1).any(dim=1)
    overlap = (found & truth).flatten(1).sum(dim=1)
    dice = 2.0 * overlap / (found.flatten(1).sum(dim=1) + truth.flatten(1).sum(dim=1)).clamp(min=1)
    return float(dice[shown].mean())


def segmentation_error(
    logits: Float[Tensor, "b 1 h w"], masks: Float[Tensor, "b 1 h w"]
) -> Float[Tensor, ""]:
    """Binary cross-entropy + 1 - soft Dice over the batch; our choice."""
    entropy = functional.binary_cross_entropy_with_logits(logits, masks)
    found = torch.sigmoid(logits)
    dice = (2.0 * (found * masks).sum() + 1.0) / (found.sum() + masks.sum() + 1.0)
    return entropy + 1.0 - dice


def teach_segmenter(
    pictures: UInt8[Tensor, "n 1 h w"],
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
        pictures: Angiograms, 8-bit grey levels.
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
    if pictures.shape != masks.shape or not len(pictures):
        raise ValueError(
            f"every picture needs a mask of its size, got {tuple(pictures.shape)}, {tuple(masks.shape)}"
        )
    device = best_device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        segmenter = VesselSegmenter(base)
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
        error = segmentation_error(logits.float(), marked.to(device))
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
    pictures: UInt8[Tensor, "b 1 h w"], masks: UInt8[Tensor, "b 1 h w"], size: int, rng: torch.Generator
) -> tuple[Float[Tensor, "b 1 s s"], Float[Tensor, "b 1 s s"]]:
    """Crops turned, mirrored and scaled, of other grey levels, blurred, noisy, partly covered.

    Grey levels are treated roughly, so that what is learnt on the phantom half holds on real frames. Unlike
    the generator's, these pictures may be mirrored: where a vessel lies says nothing about what it looks like.
    """
    count = len(pictures)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape or (count, 1, 1, 1), generator=rng)

    # A crop of `size` pixels of a picture that is zoomed 0.6 to 1.6 times, about a random centre.
    rows, columns = pictures.shape[-2:]
    angle = uniform(-math.pi, math.pi, count)
    zoom = torch.exp(uniform(math.log(0.6), math.log(1.6), count))
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
    both = torch.cat([pictures, masks * 255], dim=1).float() / 255.0
    both = functional.grid_sample(both, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    grey, marked = both[:, :1], (both[:, 1:] > 0.5).float()

    grey = grey.clamp(0.0, 1.0) ** torch.exp(uniform(math.log(0.6), math.log(1.7)))
    gain = torch.exp(uniform(math.log(0.5), math.log(1.5)))
    grey = grey * gain + uniform(-0.1, 0.3)
    bumps = uniform(-0.15, 0.15, count, 1, 5, 5) * uniform(0.0, 1.0)
    grey = grey + functional.interpolate(bumps, size=(size, size), mode="bicubic", align_corners=False)
    grey = blurred(grey, uniform(0.2, 1.5, count))
    noise = torch.randn(grey.shape, generator=rng)
    coarse = functional.interpolate(noise[..., ::2, ::2], size=(size, size), mode="bilinear")
    grey = grey + noise * uniform(0.0, 0.03) + coarse * uniform(0.0, 0.01)
    return 2.0 * grey.clamp(0.0, 1.0) - 1.0, marked


def save_segmenter(segmenter: VesselSegmenter, path: Path, facts: dict[str, Any]) -> dict[str, Any]:
    """Write the weights (convolutions in half precision) and their card beside them.

    Args:
        segmenter: To be kept.
        path: Ending in .safetensors; the card ends in .json.
        facts: What it was taught on, seeds, Dice on what it has not seen.

    Returns:
        The card.
    """
    if path.suffix != ".safetensors":
        raise ValueError(f"a segmenter's file must end in .safetensors, got {path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {
        # Norms stay in fp32: their variances may be below what half precision holds.
        name: value.detach().to(torch.float16 if value.ndim > 1 else torch.float32).contiguous()
        for name, value in segmenter.state_dict().items()
        if value.is_floating_point()
    }
    save_file(tensors, path)
    card = {"format": FORMAT, "base": segmenter.base, **facts, "sha256": _sha256(path)}
    path.with_suffix(".json").write_text(json.dumps(card, indent=2) + "\n", encoding="utf-8")
    return card


def read_card(path: Path) -> dict[str, Any]:
    """What a segmenter says of itself, once its file is whole.

    Raises:
        CheckpointError: File or card is missing, or they do not belong together.
    """
    card_path = path.with_suffix(".json")
    for needed in (path, card_path):
        if not needed.is_file():
            raise CheckpointError(
                f"needed the segmenter {path} with its card, found no {needed.name}; copy both, or teach one: "
                f"python -m casgan.segmenter --data phantom --out {path}"
            )
    try:
        card = json.loads(card_path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise CheckpointError(f"the card {card_path} must be JSON, got: {error}; copy it again") from error
    if not isinstance(card, dict) or card.get("format") != FORMAT:
        raise CheckpointError(f"the card {card_path} must have the format {FORMAT}; teach the segmenter anew")
    if (found := _sha256(path)) != card.get("sha256"):
        raise CheckpointError(
            f"{path.name} must have the SHA-256 {str(card.get('sha256'))[:16]}... of its card, got "
            f"{found[:16]}...; it was cut off or changed: copy both files again"
        )
    return card


def load_segmenter(path: Path = JUDGE) -> VesselSegmenter:
    """A segmenter from its file, in evaluation mode, with its gradients off.

    Raises:
        CheckpointError: File or card is missing or broken, or they do not belong together.
    """
    card = read_card(path)
    base = card.get("base")
    if not isinstance(base, int) or not 1 <= base <= 256:
        raise CheckpointError(
            f"the card of {path.name} needs base from 1 to 256, got {base!r}; teach it anew"
        )
    segmenter = VesselSegmenter(base)
    needed = {name for name, value in segmenter.state_dict().items() if value.is_floating_point()}
    try:
        tensors = {name: value.float() for name, value in load_file(path).items()}
        if set(tensors) != needed:
            raise CheckpointError(
                f"{path.name} must hold {len(needed)} tensors of a segmenter, got {len(tensors)}; teach it anew"
            )
        segmenter.load_state_dict(tensors, strict=False)
    except (SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0][:200]
        raise CheckpointError(f"{path.name} must hold a segmenter of base {base}, got: {reason}") from error
    segmenter.eval().requires_grad_(False)
    return segmenter


def _sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@dataclass(frozen=True)
class SegmenterConfig:
    """Teach a vessel segmenter."""

    data: str
    """`phantom`, or a folder of pictures with masks (N.png and N_gt.png, images/ and masks/, runs with segmentedFrames/)."""
    out: Path
    """The file, ending in .safetensors; a card with its facts is written beside it."""
    seed: int = 0
    """Of weights, order and augmentation."""
    steps: int = 600
    """Optimizer steps."""
    size: int = 256
    """Rows and columns that pictures are brought to."""
    crop: int = 160
    """Rows and columns of a training crop, at most `size`."""
    base: int = 16
    """Width: 16 is 0.5 million parameters, 24 1.1 million."""
    first_seed: int = JUDGE_SEEDS.start
    """The first phantom patient; give a segmenter for the training loss patients of its own (1000 to 3999)."""
    patients: int = 500
    """Phantom patients to learn from, two pictures each; a tenth more is held out."""
    threads: int = 1
    """CPU threads."""

    def __post_init__(self) -> None:
        if min(self.steps, self.patients, self.threads, self.base) < 1:
            raise ValueError("steps, patients, threads and base must be 1 or above")
        if not 64 <= self.crop <= self.size:
            raise ValueError(f"crop must be 64 to size {self.size}, got {self.crop}")
        if self.out.suffix != ".safetensors":
            raise ValueError(f"out must end in .safetensors, got {self.out.name}")


def taught(config: SegmenterConfig, report: Callable[[str], None]) -> dict[str, Any]:
    """Teach a segmenter, write it, and measure it on what it has not seen; returns its card."""
    torch.set_num_threads(config.threads)
    learn, held = _learning_and_held_out(config)
    report(f"{len(learn)} pictures to learn from, {len(held)} held out")
    began = time.monotonic()
    segmenter = teach_segmenter(
        learn.pictures,
        learn.masks,
        steps=config.steps,
        seed=config.seed,
        size=config.crop,
        base=config.base,
        report=report,
    )
    facts = {name: str(v) if isinstance(v, Path) else v for name, v in dataclasses.asdict(config).items()}
    # Without its name, which may be a patient's, and which every evaluation would repeat.
    facts["data"] = "phantom" if str(config.data) == "phantom" else "folder"
    facts |= {
        "parameters": sum(weight.numel() for weight in segmenter.parameters()),
        "learnt_from": {"pictures": len(learn), "groups": len(set(learn.groups))},
        "held_out": {"pictures": len(held), "groups": len(set(held.groups))},
        "seconds": round(time.monotonic() - began),
        "dice_held_out": round(mean_dice(segmenter, held.pictures, held.masks), 4),
    }
    del facts["out"]
    return save_segmenter(segmenter, config.out, facts)


def _learning_and_held_out(config: SegmenterConfig) -> tuple[MaskedPictures, MaskedPictures]:
    if config.data != "phantom":
        return read_pictures(Path(config.data), config.size).parted()
    border = config.first_seed + config.patients
    held = range(border, border + max(4, config.patients // 10))
    return (
        phantom_pictures(range(config.first_seed, border), config.size),
        phantom_pictures(held, config.size),
    )


def main() -> int:
    """The command."""
    import tyro

    config = tyro.cli(SegmenterConfig)
    try:
        card = taught(config, lambda line: print(line, file=sys.stderr, flush=True))
    except (CheckpointError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    print(
        f"segmenter {card['sha256'][:16]}: Dice {card['dice_held_out']:.3f} on {card['held_out']['pictures']} "
        f"pictures it has not seen, {card['parameters']} parameters, {card['seconds']} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
