# mypy: allow-subclassing-any
"""One process or many, on CPUs or GPUs, in 32 or 16 bits: what Fabric is told."""

import os
from typing import Any

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.precision.amp import MixedPrecision
from lightning_fabric.plugins.precision.precision import Precision

from casgan.config import TrainConfig
from casgan.device import best_device
from casgan.errors import TrainingError


class MixedNetworks(MixedPrecision):
    """Convolutions in 16 bits, pictures in 32.

    Fabric's own would round the pictures too, and the background would no longer be exact.
    """

    def convert_input(self, data: Any) -> Any:
        return data


def precision_of(config: TrainConfig, device: str) -> str:
    """What `auto` is on this machine: bf16 where it is computed in hardware, else 32 bits.

    Raises:
        TrainingError: 16 bits were asked of a CPU.
    """
    if config.precision == "auto":
        able = torch.cuda.is_bf16_supported() if device == "cuda" else computes_bf16()
        return "bf16" if able else "32"
    if config.precision == "16" and device == "cpu":
        raise TrainingError("precision 16 needs a GPU, found a CPU alone; use bf16 or 32")
    return str(config.precision)


def computes_bf16() -> bool:
    """Whether this CPU multiplies in bf16; elsewhere it would be emulated, slower than 32 bits."""
    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_bf16") or has.get("amx_bf16") or has.get("bf16"))


def start(config: TrainConfig) -> tuple[Fabric, Precision]:
    """Join the other processes, or start them; under torchrun its numbers count.

    Returns:
        Fabric, and the precision with the state that belongs into a checkpoint.
    """
    device = best_device().type
    precision = precision_of(config, device)
    plugin = (
        Precision()
        if precision == "32"
        else MixedNetworks("bf16-mixed" if precision == "bf16" else "16-mixed", device)
    )
    local, world = int(os.environ.get("LOCAL_WORLD_SIZE", config.devices)), os.environ.get("WORLD_SIZE")
    nodes = int(world) // local if world else 1
    # A GPU is a "cuda" accelerator to Fabric; several processes of either kind speak through DDP.
    fabric = Fabric(
        accelerator=device,
        devices=local,
        num_nodes=nodes,
        strategy="ddp" if local * nodes > 1 else "auto",
        plugins=[plugin],
    )
    fabric.launch()
    return fabric, plugin
