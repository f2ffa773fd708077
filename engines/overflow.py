"""How far a network's values stay from what fp16 can hold."""

from collections.abc import Iterable

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from casgan.networks import Generator
from engines.errors import ModelError

LARGEST_HALF = 65504.0
MARGIN = 8.0
"""What `check_overflow` asks for: three more bits than the frames given needed."""


def overflow_margin(network: Generator, frames: Iterable[Float32[Tensor, "b 1 h w"]]) -> float:
    """How many times the largest value inside the network fits below fp16's largest.

    Every module's output counts: each convolution before what follows it, each residual sum, the logits. What a
    convolution sums up inside is fp32 on tensor cores.

    Args:
        network: In fp32, as it will run: `Generator.folded()`.
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


def check_overflow(network: Generator, frames: Iterable[Float32[Tensor, "b 1 h w"]]) -> float:
    """`overflow_margin`, refused below `MARGIN`.

    Raises:
        ModelError: A value comes too near to fp16's largest, so another frame could overflow it.
    """
    margin = overflow_margin(network, frames)
    if not margin >= MARGIN:
        raise ModelError(
            f"values inside the network must stay {MARGIN:g} times below fp16's {LARGEST_HALF:g}, "
            f"got {margin:.3g} times; run it in f32 or bf16, or train again"
        )
    return margin
