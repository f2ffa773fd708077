# mypy: allow-subclassing-any
"""The vessel U-Net: for the semantic loss, and, taught on other patients, as the judge that training never sees.

    python -m casgan.segmenter --data phantom --out casgan/segmenters/judge.safetensors
    python -m casgan.segmenter --data moments --patients 600 --steps 1800 --out casgan/segmenters/moments.safetensors

The second looks at a filled frame in its company: the frames before and after it, and contrast-free ones of the same moment of
a heartbeat. It finds the vessels that a patient's adaptation is taught (`casgan.patient_masks`).

A U-Net that training looks through can be fooled by texture that no eye sees (stripes once satisfied it), so
`softened` stands before it wherever it judges, and what it says in training is checked by another one.
"""

import dataclasses
import hashlib
import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from monai.networks.nets.basic_unet import BasicUNet
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional

from casgan.errors import CheckpointError
from casgan.masked_pictures import MaskedPictures, phantom_pictures, read_pictures
from casgan.phantom_moments import COMPANY, phantom_moments

FORMAT = "contrastream.segmenter/1"
JUDGE = Path(__file__).parent / "segmenters" / "judge.safetensors"
"""The shipped judge, taught on phantom patients of its own."""
MOMENTS = Path(__file__).parent / "segmenters" / "moments.safetensors"
"""The shipped one that sees a filled frame in its company."""
JUDGE_SEEDS = range(4000, 5000)
"""Phantom patients kept for the judge: neither training nor evaluation draws them."""
MOMENT_SEEDS = range(3300, 4000)
"""And for the one that sees filled frames in their company."""
ON_PHANTOM = ("phantom", "moments")
BLUR_PX = (0.4, 1.1)
NOISE = 0.05
"""Largest standard deviation of the noise before the segmenter, of grey levels -1 to 1."""


class VesselSegmenter(nn.Module):
    """Where contrast-filled vessels are: MONAI's BasicUNet in two dimensions, random start.

    Args:
        base: Channels at full resolution; doubled from the third level on. 16 gives 0.5 million parameters.
        pictures: How many it looks at together: 1, or `casgan.phantom_moments.COMPANY`.
    """

    def __init__(self, base: int = 16, pictures: int = 1) -> None:
        super().__init__()
        self.base, self.pictures = base, pictures
        # BatchNorm: as good as instance norm here, and three times as fast on a CPU once it is frozen.
        self.unet = BasicUNet(
            spatial_dims=2,
            in_channels=pictures,
            out_channels=1,
            features=(base, base, 2 * base, 4 * base, 8 * base, base),
            norm="batch",
        )

    def forward(self, picture: Float[Tensor, "b c h w"]) -> Float[Tensor, "b 1 h w"]:
        """Logits of "vessel" for grey levels -1 black to 1 white; sides best multiples of 16."""
        return self.unet(picture)

    def features(self, picture: Float[Tensor, "b 1 h w"]) -> Float[Tensor, "b d"]:
        """What the picture is like: mean and standard deviation of each bottleneck channel over the plane."""
        z = self.unet.conv_0(picture)
        for stage in (self.unet.down_1, self.unet.down_2, self.unet.down_3, self.unet.down_4):
            z = stage(z)
        return torch.cat([z.mean(dim=(2, 3)), z.std(dim=(2, 3), correction=0)], dim=1)


def softened(picture: Float[Tensor, "b c h w"], rng: torch.Generator) -> Float[Tensor, "b c h w"]:
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


def blurred(picture: Float[Tensor, "b c h w"], sigma_px: Float[Tensor, " b"]) -> Float[Tensor, "b c h w"]:
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
    segmenter: VesselSegmenter, pictures: UInt8[Tensor, "n *c h w"], batch: int = 4
) -> Float[Tensor, "n h w"]:
    """How sure the segmenter is of a vessel at each pixel, 0 to 1; one that looks at a picture alone sees it softened, the same way in every call.

    Args:
        segmenter: On any device.
        pictures: As many together as it looks at; the dimension may be left out where that is one.
        batch: At once.
    """
    if pictures.ndim == 3:
        pictures = pictures[:, None]
    rng = torch.Generator().manual_seed(0)
    segmenter.eval()
    device = next(segmenter.parameters()).device
    with torch.no_grad():
        parts = []
        for some in pictures.split(batch):
            seen = to_levels(some)
            if segmenter.pictures == 1:
                seen = softened(seen, rng)
            parts.append(torch.sigmoid(segmenter(seen.to(device)))[:, 0].cpu())
    return torch.cat(parts)


def vessel_area(segmenter: VesselSegmenter, pictures: UInt8[Tensor, "n h w"]) -> Float[Tensor, " n"]:
    """Share of each picture that the segmenter takes for vessels, 0 to 1."""
    return (vessel_probability(segmenter, pictures) > 0.5).float().mean(dim=(1, 2))


def mean_dice(
    segmenter: VesselSegmenter, pictures: UInt8[Tensor, "n c h w"], masks: UInt8[Tensor, "n 1 h w"]
) -> float:
    """Mean Dice over the pictures that show vessels, at probability 0.5."""
    found = vessel_probability(segmenter, pictures) > 0.5
    truth = masks[:, 0] > 0
    shown = truth.flatten(1).any(dim=1)
    overlap = (found & truth).flatten(1).sum(dim=1)
    dice = 2.0 * overlap / (found.flatten(1).sum(dim=1) + truth.flatten(1).sum(dim=1)).clamp(min=1)
    return float(dice[shown].mean())


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
    card = {
        "format": FORMAT,
        "base": segmenter.base,
        "pictures": segmenter.pictures,
        **facts,
        "sha256": _sha256(path),
    }
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


def load_segmenter(path: Path = JUDGE, looks_at: tuple[int, ...] = (1,)) -> VesselSegmenter:
    """A segmenter from its file, in evaluation mode, with its gradients off.

    Args:
        path: Its file; the card lies beside it.
        looks_at: How many pictures together it may look at.

    Raises:
        CheckpointError: File or card is missing or broken, they do not belong together, or it looks at more or fewer.
    """
    card = read_card(path)
    base = card.get("base")
    if not isinstance(base, int) or not 1 <= base <= 256:
        raise CheckpointError(
            f"the card of {path.name} needs base from 1 to 256, got {base!r}; teach it anew"
        )
    pictures = card.get("pictures", 1)
    if pictures not in (1, COMPANY):
        raise CheckpointError(
            f"the card of {path.name} needs pictures 1 or {COMPANY}, got {pictures!r}; teach it anew"
        )
    if pictures not in looks_at:
        raise CheckpointError(
            f"needed a segmenter that looks at {looks_at[0]} picture{'s' if looks_at[0] > 1 else ''}, got {path.name}, which looks at "
            f"{pictures} together; give another, or teach one: python -m casgan.segmenter --data {'moments' if looks_at[0] > 1 else 'phantom'}"
        )
    segmenter = VesselSegmenter(base, pictures)
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
    """`phantom`, `moments` (phantom patients too, each filled frame in its company), or a folder of pictures with masks (N.png and N_gt.png, images/ and masks/, runs with segmentedFrames/)."""
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
    first_seed: int | None = None
    """The first phantom patient; none named: 4000 for phantom, 3300 for moments. Give one for the training loss patients of its own (1000 to 3299)."""
    patients: int = 500
    """Phantom patients to learn from, two pictures each, or three moments; a tenth more is held out."""
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
    from casgan.segmenter_teaching import teach_segmenter

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
    facts["data"] = config.data if config.data in ON_PHANTOM else "folder"
    facts |= {
        "first_seed": _first_seed(config),
        "parameters": sum(weight.numel() for weight in segmenter.parameters()),
        "learnt_from": {"pictures": len(learn), "groups": len(set(learn.groups))},
        "held_out": {"pictures": len(held), "groups": len(set(held.groups))},
        "seconds": round(time.monotonic() - began),
        "dice_held_out": round(mean_dice(segmenter, held.pictures, held.masks), 4),
    }
    del facts["out"]
    return save_segmenter(segmenter, config.out, facts)


def _first_seed(config: SegmenterConfig) -> int:
    """Each kind has phantom patients of its own, so that none judges or labels what it was taught on."""
    if config.first_seed is not None:
        return config.first_seed
    return (MOMENT_SEEDS if config.data == "moments" else JUDGE_SEEDS).start


def _learning_and_held_out(config: SegmenterConfig) -> tuple[MaskedPictures, MaskedPictures]:
    if config.data not in ON_PHANTOM:
        return read_pictures(Path(config.data), config.size).parted()
    first = _first_seed(config)
    border = first + config.patients
    held = range(border, border + max(4, config.patients // 10))
    pictures = phantom_pictures if config.data == "phantom" else phantom_moments
    return pictures(range(first, border), config.size), pictures(held, config.size)


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
