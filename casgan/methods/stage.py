"""One training step of a rival: as CAS-GAN's stage, but what is learnt comes from the method."""

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor

from casgan.adversarial import persuasion, verdicts
from casgan.config import TrainConfig
from casgan.methods.method import Batch, Judges, Made, Method
from casgan.methods.pool import Pool
from casgan.networks import LivePath
from casgan.schedule import adversarial_rate
from casgan.stage import CLIP_UNPAIRED, Average, Learner, Losses, adam, checked
from casgan.unpaired import Unpaired, augmented_unpaired


class MethodStage:
    """Unpaired frames, adversarial. First the generator's side learns, then the discriminators on the same pictures.

    Optimizer, schedule, augmentation, discriminators' layers, gradient clip and running average are CAS-GAN's, so that
    methods differ in what their papers say and in nothing else.

    Args:
        fabric: Devices, processes, precision.
        config: The run.
        data: Frames of both domains.
        method: The networks of the generator's side, fresh.
        learning_share: Of `gan_learning_rate`.
        start: Weights of the live path to begin with; None for chance.
    """

    name = "unpaired"

    def __init__(
        self,
        fabric: Fabric,
        config: TrainConfig,
        data: Unpaired,
        method: Method,
        learning_share: float,
        start: dict[str, Tensor] | None = None,
    ) -> None:
        self.steps = config.steps
        self.fabric, self.config, self.data = fabric, config, data
        self.peak = config.gan_learning_rate * learning_share
        self.weights = method.weights
        if start is not None:
            method.live.load_state_dict(start)
        networks = method.to(memory_format=torch.channels_last)
        judges = Judges(type(method), config.discriminator_width)
        decay = method.weight_decay
        self.networks = Learner(fabric, networks, adam(networks, self.peak, fabric, decay), CLIP_UNPAIRED)
        self.judges = Learner(fabric, judges, adam(judges, self.peak, fabric, decay), CLIP_UNPAIRED)
        self.pools = {name: Pool(method.pool) for name in method.judges if method.pool}
        self.running = Average(networks.live, config.gan_ema)

    def step(self, index: int, draw: torch.Generator) -> Losses:
        pictures = augmented_unpaired(self.data, self.config.batch, draw)
        x, x_field, y, y_field = (part.to(self.fabric.device) for part in pictures)
        batch = Batch(x, x_field, y, y_field, draw)
        made: Made = self.networks.wrapped(batch)
        terms = made.terms | persuasion(self.fabric, self.judges.module, made.shown)
        losses = checked(self.fabric, terms)
        rate = adversarial_rate(index, self.steps, self.peak)
        total = torch.stack([self._weight(name) * term for name, term in terms.items()]).sum()
        norm = self.networks.learn(total, rate, "the generator's side")
        self.running.update(self.networks.module.live)

        seen = {
            name: self.pools[name].exchanged(view, draw) if name in self.pools else view
            for name, view in made.shown.items()
        }
        judged = verdicts(self.judges, seen)
        losses |= checked(self.fabric, judged)
        doubt = torch.stack(list(judged.values())).sum()
        judges_norm = self.judges.learn(doubt, rate * self.config.discriminator_rate, "the discriminators")
        return losses | {"gradient": norm, "gradient_d": judges_norm, "rate": rate}

    def _weight(self, term: str) -> float:
        return self.weights["adversarial" if term.startswith("persuade_") else term]

    def state(self) -> dict[str, Any]:
        return {
            "networks": self.networks.state(),
            "judges": self.judges.state(),
            "running": self.running.state(),
            "pools": {name: pool.state() for name, pool in self.pools.items()},
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.networks.load_state(state["networks"])
        self.judges.load_state(state["judges"])
        self.running.load_state(state["running"])
        for name, pool in self.pools.items():
            pool.load_state(state["pools"][name], self.fabric.device)

    def handed_on(self) -> dict[str, dict[str, Tensor]]:
        return {"generator": self.networks.module.live.state_dict()}

    def average(self) -> LivePath:
        # Instance norms keep no statistics, so there are none to take again.
        return self.running.generator
