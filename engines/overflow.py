"""How far a network's values stay from what fp16 can hold."""

from collections.abc import Iterable

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from calib.config import PhantomConfig
from calib.phantom import Phantom
from casgan.networks import LivePath

LARGEST_HALF = 65504.0


def probing_frames(size: int) -> list[Float32[Tensor, "1 1 size size"]]:
    """Pictures that drive a network's values far: a frame of the phantom, black, white, noise, one-pixel checkers.

    Args:
        size: The network's rows and columns.
    """
    phantom = Phantom(PhantomConfig(seed=1, rows=size, columns=size, bits_stored=8))
    frame = torch.from_numpy(phantom.frame(3).plain).float()[None, None] / 127.5 - 1.0
    noise = torch.rand(1, 1, size, size, generator=torch.Generator().manual_seed(0)) * 2.0 - 1.0
    checkers = torch.where((torch.arange(size)[:, None] + torch.arange(size)) % 2 == 0, 1.0, -1.0)
    return [
        frame,
        torch.full_like(frame, -1.0),
        torch.full_like(frame, 1.0),
        noise,
        checkers[None, None],
    ]


def overflow_margin(network: LivePath, frames: Iterable[Float32[Tensor, "b 1 h w"]]) -> float:
    """How many times the largest value inside the network fits below fp16's largest.

    Every module's output counts: each convolution before what follows it, each residual sum, the logits. What a
    convolution sums up inside is fp32 on tensor cores.

    Args:
        network: In fp32, as it will run: `LivePath.folded()`.
        frames: Grey levels, -1 black to 1 white, at the network's size.

    Returns:
        65504 / max|value|; 0 where a value is not finite.

    Raises:
        ValueError: No frames.
    """
    largest = [torch.zeros(())]

    def note(_module: nn.Module, _inputs: object, output: object) -> None:
        for value in output if isinstance(output, tuple) else (output,):
            if isinstance(value, Tensor):
                # The maximum of NaNs is NaN, and stays.
                largest[0] = torch.maximum(largest[0], value.detach().abs().amax().cpu())

    hooks = [module.register_forward_hook(note) for module in network.modules()]
    seen = 0
    try:
        with torch.no_grad():
            for frame in frames:
                # Hooks of the network itself see A and C; the logits are what fp16 holds.
                for logit in network.logits(frame):
                    note(network, None, logit)
                seen += 1
    finally:
        for hook in hooks:
            hook.remove()
    if not seen:
        raise ValueError("an overflow margin needs at least one frame, got none")
    found = float(largest[0])
    return LARGEST_HALF / max(found, 1e-9) if found < float("inf") else 0.0
