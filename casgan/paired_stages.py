# mypy: allow-subclassing-any
"""The stages on paired phantom pictures: the live path alone, then with the networks that only training needs."""

from typing import Any

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from casgan.config import TrainConfig
from casgan.data import Pairs, augmented_batch, batch_of
from casgan.losses import (
    latent_distance,
    picture_error,
    prediction,
    reconstruction,
    total_error,
)
from casgan.networks import Generator, LivePath
from casgan.schedule import paired_rate
from casgan.stage import Average, Learner, Losses, checked, with_statistics_of
from casgan.training_networks import CasGan

CLIP = 5.0
WEIGHTS = {
    "error": 1.0,
    "reconstruct_x": 5.0,
    "empty_y": 10.0,
    "draw_y": 1.0,
    "prediction": 1.0,
    "blindness": 1.0,
}
"""Of the companions' terms; our choice."""


class Logits(nn.Module):
    """The live path as training calls it: logits out, since the losses are taken from them."""

    def __init__(self, generator: Generator) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, plain: Tensor) -> tuple[Tensor, Tensor]:
        attention, context = self.generator.logits(plain)
        return attention.float(), context.float()


class _Paired:
    """What both stages keep."""

    learner: Learner
    running: Average

    def state(self) -> dict[str, Any]:
        return {"learner": self.learner.state(), "running": self.running.state()}

    def load_state(self, state: dict[str, Any]) -> None:
        self.learner.load_state(state["learner"])
        self.running.load_state(state["running"])


class Warm(_Paired):
    """Stage 1: the live path learns to place and to darken vessels."""

    name = "warm"

    def __init__(
        self, fabric: Fabric, config: TrainConfig, pairs: Pairs, start: dict[str, dict[str, Tensor]]
    ) -> None:
        self.steps = config.warm_steps
        self.fabric, self.config, self.pairs = fabric, config, pairs
        generator = Generator(config.network)
        if "generator" in start:
            generator.load_state_dict(start["generator"])
        network = Logits(generator).to(memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(network.parameters(), lr=config.learning_rate, weight_decay=1e-4)
        self.learner = Learner(fabric, network, optimizer, CLIP)
        self.running = Average(network.generator, config.ema)

    def step(self, index: int, draw: torch.Generator) -> Losses:
        batch = augmented_batch(self.pairs, self.config.warm_batch, draw)
        plain, angiogram, mask, line = (part.to(self.fabric.device) for part in batch)
        attention, context = self.learner.wrapped(plain)
        error = total_error(attention, context, plain, angiogram, mask, line, self.config.threshold)
        losses = checked(self.fabric, {"error": error})
        rate = paired_rate(index, self.steps, self.config.learning_rate)
        losses["gradient"] = self.learner.learn(error, rate, "the live path")
        self.running.update(self.learner.module.generator)
        return losses

    def handed_on(self) -> dict[str, dict[str, Tensor]]:
        return {"generator": self.running.generator.state_dict()}

    def average(self) -> LivePath:
        # Only x went through it, so its statistics are the live path's already.
        return self.running.generator


class PairedPass(nn.Module):
    """All networks on pairs: x, and y of the same patient and moment."""

    def __init__(self, networks: CasGan) -> None:
        super().__init__()
        self.networks = networks

    def forward(self, plain: Tensor, angiogram: Tensor) -> dict[str, Tensor]:
        """Logits of A and C (from M, then from E_Vess), both pictures emptied, and the latents."""
        networks = self.networks
        back = networks.other_encoder
        count = len(plain)
        both = torch.cat([plain, angiogram])
        z = networks.generator.encode(both if back is None else plain)
        made = {"z": z, "emptied": networks.background_decoder(z if back is None else back(both))}
        made["v_x"] = networks.generator.predict(z[:count])
        if networks.vessel_encoder is not None:
            made["v_y"] = networks.vessel_encoder(angiogram)
        vessels = [made[name] for name in ("v_x", "v_y") if name in made]
        made["attention"], made["context"] = networks.generator.decode(torch.cat(vessels))
        return {name: part.float() for name, part in made.items()}


class Companions(_Paired):
    """Stage 2: E_Vess and G_BG learn from pairs what they are for, and E_BG not to see contrast.

    With pairs each term of CAS-GAN has its exact form: x itself is y without its vessels, and M(E_BG(x)) is to
    be E_Vess(y). So the unpaired stage starts with networks that mean what their names say. Our choice.
    """

    name = "companions"

    def __init__(
        self, fabric: Fabric, config: TrainConfig, pairs: Pairs, start: dict[str, dict[str, Tensor]]
    ) -> None:
        self.steps = config.companion_steps
        self.fabric, self.config, self.pairs = fabric, config, pairs
        module = PairedPass(networks_of(config, start)).to(memory_format=torch.channels_last)
        learning = [weight for weight in module.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=config.learning_rate, weight_decay=1e-4)
        self.learner = Learner(fabric, module, optimizer, CLIP)
        self.running = Average(self.live, config.ema)

    @property
    def live(self) -> Generator:
        """The live path that learns."""
        networks: CasGan = self.learner.module.networks
        return networks.generator

    def step(self, index: int, draw: torch.Generator) -> Losses:
        batch = augmented_batch(self.pairs, self.config.warm_batch, draw)
        plain, angiogram, mask, line = (part.to(self.fabric.device) for part in batch)
        made = self.learner.wrapped(plain, angiogram)
        count = len(plain)
        everything = torch.ones_like(mask)
        planes = list(zip(made["attention"].split(count), made["context"].split(count), strict=True))
        drawn = [
            total_error(*logits, plain, angiogram, mask, line, self.config.threshold) for logits in planes
        ]
        of_x, of_y = made["emptied"].split(count)
        terms = {
            "error": drawn[0],
            "reconstruct_x": reconstruction(of_x, plain, everything),
            "empty_y": picture_error(of_y, plain, mask),
        }
        if len(drawn) > 1:
            z_x, z_y = made["z"].split(count)
            terms |= {
                "draw_y": drawn[1],
                "prediction": prediction(made["v_x"], made["v_y"]),
                "blindness": latent_distance(z_y, z_x),
            }
        losses = checked(self.fabric, terms)
        rate = 0.5 * paired_rate(index, self.steps, self.config.learning_rate)
        total = sum((WEIGHTS[name] * term for name, term in terms.items()), torch.zeros_like(terms["error"]))
        losses["gradient"] = self.learner.learn(total, rate, "the networks")
        self.running.update(self.live)
        return losses

    def handed_on(self) -> dict[str, dict[str, Tensor]]:
        parts = self.learner.module.networks
        names = ("background_decoder", "vessel_encoder", "other_encoder")
        kept = {name: getattr(parts, name).state_dict() for name in names if getattr(parts, name) is not None}
        # As it is, not averaged: the other networks have learnt to work with this one.
        return {"generator": self.live.state_dict(), **kept}

    def average(self) -> LivePath:
        batches = torch.arange(min(len(self.pairs), 64)).split(8)
        pictures = (batch_of(self.pairs, indices)[0].to(self.fabric.device) for indices in batches)
        return with_statistics_of(self.running.generator, pictures)


def networks_of(config: TrainConfig, start: dict[str, dict[str, Tensor]]) -> CasGan:
    """All networks of the generator's side, those that were taught before with what they learnt."""
    networks = CasGan(
        config.network,
        config.threshold,
        drl="drl" not in config.without,
        vsgg="vsgg" not in config.without,
        predict_from=config.predict_from,
    )
    for name, weights in start.items():
        getattr(networks, name).load_state_dict(weights)
    if "generator" in start and networks.other_encoder is not None and "other_encoder" not in start:
        networks.other_encoder.load_state_dict(networks.generator.background.state_dict())
    networks.draw_everywhere()
    return networks
