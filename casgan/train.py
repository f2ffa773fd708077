"""The first teacher: paired phantom pictures. One loop, read top to bottom.

    python -m casgan.train --out out/train

Ctrl-C leaves a checkpoint; the same command goes on from it.
"""

import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from casgan import checkpoint
from casgan.config import TrainConfig
from casgan.data import Batch, Pairs, augmented_batch, batch_of, phantom_pairs
from casgan.errors import CheckpointError
from casgan.losses import picture_error, placement_error, sparsity
from casgan.metrics import evaluate
from casgan.networks import Generator, blend, clamp_attention
from casgan.presets import PRESETS

WARM_UP = 30
"""Steps over which the learning rate rises."""


def total_error(network: torch.nn.Module, batch: Batch, threshold: float) -> torch.Tensor:
    """10 picture + placement + 0.1 sparsity; our choice, so that the first two weigh about the same."""
    plain, angiogram, mask = batch
    # bf16 inside the network alone; losses in fp32, where a mean over a picture needs it.
    with torch.autocast("cpu", torch.bfloat16):
        attention_logit, context_logit = network(plain)
    logit = attention_logit.float()
    attention = clamp_attention(torch.sigmoid(logit), threshold)
    generated = blend(plain, attention, torch.tanh(context_logit.float()))
    return (
        10.0 * picture_error(generated, angiogram, mask)
        + placement_error(logit, mask)
        + 0.1 * sparsity(attention)
    )


class Logits(torch.nn.Module):  # type: ignore[misc]  # torch is untyped to mypy here
    """The generator as training calls it: logits out, since the losses are taken from them."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, plain: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return self.generator.logits(plain)


def learning_rate(step: int, config: TrainConfig) -> float:
    """A linear rise, then half a cosine to zero."""
    rise = min(1.0, (step + 1) / WARM_UP)
    return config.learning_rate * rise * 0.5 * (1.0 + math.cos(math.pi * step / config.steps))


def train(
    config: TrainConfig, pairs: Pairs | None = None, report: Callable[[str], None] = print
) -> dict[str, Any]:
    """Teach a network, or go on teaching it.

    Args:
        config: The run.
        pairs: What to learn from; None renders the configured patients.
        report: Gets a progress line now and then.

    Returns:
        The final state, as in the checkpoint.

    Raises:
        CheckpointError: The folder holds a run with other settings.
    """
    torch.set_num_threads(config.threads)
    torch.manual_seed(config.seed)
    folder = Path(config.out)
    if pairs is None:
        seeds = range(config.first_seed, config.first_seed + config.patients)
        report(f"rendering {config.patients} phantom patients at {config.picture_size} px")
        pairs = phantom_pairs(config.picture_size, seeds, config.frames_per_patient)

    network = Logits(Generator(PRESETS[config.preset])).to(memory_format=torch.channels_last)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(config.ema), use_buffers=True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-4)
    start, seconds, data_sha256 = 0, 0.0, pairs.sha256()
    if (folder / checkpoint.NAME).is_file():
        saved, state = checkpoint.load(folder)
        if saved != config or state["data_sha256"] != data_sha256:
            raise CheckpointError(
                f"{folder} holds a run with other settings or data; choose another --out, or remove it"
            )
        network.load_state_dict(state["network"])
        average.load_state_dict(state["average_state"])
        optimizer.load_state_dict(state["optimizer"])
        start, seconds = state["step"], state["seconds"]
        report(f"going on from step {start}")

    def save(step: int) -> dict[str, Any]:
        state = {
            "step": step,
            "seconds": seconds + time.monotonic() - began,
            "data_sha256": data_sha256,
            "network": network.state_dict(),
            "average_state": average.state_dict(),
            "average": average.module.generator.state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        checkpoint.save(folder, config, state)
        return state

    began = time.monotonic()
    running = float("nan")
    network.train()
    step = start
    try:
        for step in range(start, config.steps):
            # Each step has its own stream of chance, so a run that was interrupted goes on as if it had not been.
            rng = torch.Generator().manual_seed(config.seed * 1_000_003 + step)
            batch = augmented_batch(pairs, config.batch, rng)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(step, config)
            error = total_error(network, batch, config.threshold)
            optimizer.zero_grad(set_to_none=True)
            error.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
            optimizer.step()
            average.update_parameters(network)
            value = float(error.detach())
            running = value if math.isnan(running) else 0.95 * running + 0.05 * value
            if (step + 1) % 20 == 0:
                rate = (step + 1 - start) / (time.monotonic() - began)
                left_s = (config.steps - step - 1) / rate
                report(
                    f"step {step + 1}/{config.steps}  error {running:.4f}  {rate:.2f} steps/s  {left_s:.0f} s left"
                )
            if (step + 1) % config.save_every == 0:
                save(step + 1)
    except KeyboardInterrupt:
        save(step)
        report(
            f"stopped; step {step} of {config.steps} is kept in {folder}; the same command goes on from it"
        )
        raise
    return save(config.steps)


def main() -> int:
    """The command: settings from the line, a report on unseen patients at the end."""
    import tyro

    config = tyro.cli(TrainConfig)
    try:
        train(config, report=lambda line: print(line, flush=True))
    except KeyboardInterrupt:
        return 130
    except CheckpointError as error:
        print(error, file=sys.stderr)
        return 2
    network, _, _ = checkpoint.taught_network(Path(config.out))
    unseen = phantom_pairs(config.picture_size, range(24), 2)
    for name, value in evaluate(
        network, batch_of(unseen, torch.arange(len(unseen))), config.threshold
    ).items():
        print(f"{name}: {value:.4f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
