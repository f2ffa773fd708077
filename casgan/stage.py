# mypy: allow-subclassing-any
"""What the stages of training share: networks that learn together, the average that is kept, the stage's form."""

import copy
from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from lightning_fabric import Fabric
from torch import Tensor, nn

from casgan.errors import TrainingError
from casgan.networks import LivePath
from casgan.schedule import averaging

Losses = dict[str, float]

CLIP_UNPAIRED = 10.0
"""Largest norm of a gradient in the stages on unpaired frames."""


@runtime_checkable
class Stage(Protocol):
    """One part of the recipe. What it does in a step follows from the step's number and its state alone."""

    name: str
    steps: int

    def step(self, index: int, draw: torch.Generator) -> Losses:
        """One step: draw a batch, learn from it. Returns each loss, mean over all processes."""

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on."""

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from there."""

    def handed_on(self) -> dict[str, dict[str, Tensor]]:
        """Weights by network, for the next stage to start from."""

    def average(self) -> LivePath:
        """The live path with averaged weights, ready to export."""


class Learner:
    """Networks that learn together, with their optimizer; wrapped by Fabric once.

    Args:
        fabric: Devices, processes, precision.
        module: Their whole pass is one forward, or DDP would miss gradients.
        optimizer: Over the module's parameters.
        clip: Largest norm of the gradient.
    """

    def __init__(
        self, fabric: Fabric, module: nn.Module, optimizer: torch.optim.Optimizer, clip: float
    ) -> None:
        self.fabric = fabric
        self.module = module
        self.clip = clip
        self.wrapped, self.optimizer = fabric.setup(module, optimizer)

    def learn(self, error: Float[Tensor, ""], rate: float, who: str) -> float:
        """One optimizer step.

        Returns:
            The gradient's norm before it was clipped.

        Raises:
            TrainingError: The gradient is not finite, and no loss scale explains it.
        """
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(error)
        norm = self.fabric.clip_gradients(
            self.wrapped, self.optimizer, max_norm=self.clip, error_if_nonfinite=False
        )
        assert norm is not None
        value = float(norm)
        # In fp16 the loss scale is found by overflowing: Fabric then skips the step by itself.
        if not torch.isfinite(norm) and not _scaled(self.fabric):
            raise TrainingError(f"the gradient of {who} became {value}")
        self.optimizer.step()
        return value

    def state(self) -> dict[str, Any]:
        """Weights, buffers and the optimizer's moments."""
        return {"networks": self.module.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.module.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])


def _scaled(fabric: Fabric) -> bool:
    return getattr(fabric.strategy.precision, "scaler", None) is not None


def checked(fabric: Fabric, losses: dict[str, Float[Tensor, ""]]) -> Losses:
    """Each loss as a number, mean over all processes.

    Raises:
        TrainingError: One is not finite; in every process alike, since they share the mean.
    """
    stacked = torch.stack([loss.detach().float() for loss in losses.values()])
    if fabric.world_size > 1:
        stacked = fabric.all_reduce(stacked, reduce_op="mean")
    values = dict(zip(losses, stacked.tolist(), strict=True))
    for name, value in values.items():
        if not -float("inf") < value < float("inf"):
            raise TrainingError(f"the loss {name} became {value}")
    return values


def adam(module: nn.Module, rate: float, fabric: Fabric, weight_decay: float = 0.0) -> torch.optim.Optimizer:
    """Adam with b1 0.5, as GANs of this kind use it; in one kernel where gradients need no unscaling."""
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    return torch.optim.Adam(
        learning, lr=rate, betas=(0.5, 0.999), weight_decay=weight_decay, fused=not _scaled(fabric)
    )


class Average:
    """A running average of a live path's weights and of its norms' statistics.

    Args:
        generator: The live path that learns.
        decay: Share that stays per update, once there were enough of them.
    """

    def __init__(self, generator: LivePath, decay: float) -> None:
        self.generator: LivePath = copy.deepcopy(generator).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0

    def update(self, generator: LivePath) -> None:
        """Take one more set of weights in."""
        share = 1.0 - averaging(self.updates, self.decay)
        self.updates += 1
        kept = [*self.generator.parameters(), *self.generator.buffers()]
        fresh = [*generator.parameters(), *generator.buffers()]
        floating = [(a, b) for a, b in zip(kept, fresh, strict=True) if a.is_floating_point()]
        with torch.no_grad():
            torch._foreach_lerp_([a for a, _ in floating], [b for _, b in floating], share)

    def state(self) -> dict[str, Any]:
        return {"generator": self.generator.state_dict(), "updates": self.updates}

    def load_state(self, state: dict[str, Any]) -> None:
        self.generator.load_state_dict(state["generator"])
        self.updates = int(state["updates"])


def with_statistics_of(generator: LivePath, pictures: Iterable[Float[Tensor, "b 1 h w"]]) -> LivePath:
    """A copy whose norms know the live path alone.

    In training x, y, y_g and x_g go through the same norms; live there is only x. The statistics of a few
    batches of x replace them, so that what is exported is what was meant.
    """
    fresh: LivePath = copy.deepcopy(generator)
    norms = [module for module in fresh.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain mean over all batches
    fresh.train()
    with torch.no_grad():
        for batch in pictures:
            fresh.logits(batch)
    for norm in norms:
        norm.momentum = 0.1
    fresh.eval()
    return fresh


def hold_norms(module: nn.Module) -> None:
    """Norms that use the statistics they have and keep them; their weights go on learning."""
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.eval()
